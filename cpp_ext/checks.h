// checks.h: what both bindings refuse, and in which words. It knows no Python: a broken rule is a std::invalid_argument.

#pragma once

#include <array>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "sdk_ops.h"

namespace sdk {

inline void require(bool holds, const char* rule) {
    if (!holds) throw std::invalid_argument(rule);
}

inline bool is_side(int64_t pixels) { return pixels >= 0 && pixels <= MAX_SIDE; }

inline void check_frame_size(int64_t height, int64_t width) {
    require(is_side(height) && is_side(width), "frame sides must be at most 16384");
}

inline CropSpec crop_spec(int64_t height, int64_t width, const std::array<float, 3>& scale, const std::array<float, 3>& bias,
                          bool swap, bool half, bool nv12, const std::array<float, 6>& yuv, int border) {
    require(is_side(height) && is_side(width), "crop sides must be at most 16384");
    CropSpec spec = {};
    spec.height = static_cast<int32_t>(height);
    spec.width = static_cast<int32_t>(width);
    spec.half = half;
    spec.yuv = {yuv[0], yuv[1], yuv[2], yuv[3], yuv[4], yuv[5]};
    set_channels(spec, scale.data(), bias.data(), swap);
    require(border >= 0 && border <= 255, "the border must be a grey level");
    require(!nv12 || spec.yuv.gain > 0, "the gain of YUV must be positive");
    set_border(spec, border, nv12);
    return spec;
}

using DepthTuple = std::tuple<double, bool>;  // span, in pixels
using SpreadTuple = std::array<double, 4>;           // sharpness, gain, curve, floor

// The rules of a decode; sizes and dtype are the caller's to set.
inline DecodeSpec decode_spec(double split_ratio, int score, int refine, int flip_shift, const DepthTuple& depth,
                              const std::optional<SpreadTuple>& spread, bool second) {
    require(score >= 0 && score <= 2 && refine >= 0 && refine <= 3, "unknown score rule or refinement");
    require(split_ratio > 0 && (flip_shift == 0 || flip_shift == 1), "split ratio or flip shift out of range");
    require(spread || !second, "a second peak needs the rule of the spread");
    DecodeSpec spec = {};
    spec.split_ratio = split_ratio;
    spec.score = static_cast<Score>(score);
    spec.refine = static_cast<Refine>(refine);
    spec.flip_shift = flip_shift;
    spec.depth = {std::get<0>(depth), std::get<1>(depth)};
    spec.spread = spread.has_value();
    spec.second = second;
    if (!spread) return spec;
    const auto [sharpness, gain, curve, floor] = *spread;
    require(sharpness > 0 && sharpness <= 1e6 && gain >= 0 && curve >= 0 && floor >= 0, "rule of the spread out of range");
    const double bins = split_ratio * split_ratio;  // of a square pixel
    spec.rule = {static_cast<float>(sharpness), static_cast<float>(gain / bins), static_cast<float>(curve / bins),
                 static_cast<float>(floor / bins)};
    return spec;
}

// What a table is made of, wherever it lies: (address, rows, columns, first column, rows first, type). A box takes four columns.
using TableTuple = std::tuple<uint64_t, int64_t, int64_t, int32_t, bool, int>;

inline Table table_from(const TableTuple& told, int32_t rows, int32_t columns, bool any_number) {
    const auto [address, there, width, first, rows_first, type] = told;
    require(there == rows && rows * width <= INT32_MAX / 8, "all outputs of a detector must have the same rows, and not too many");
    require(first >= 0 && columns >= 1 && first + static_cast<int64_t>(columns) <= width, "a detector's output lacks columns");
    require(type >= 0 && type <= (any_number ? 3 : 1), "a detector's outputs must be float32 or float16, and labels numbers");
    require(address || rows == 0, "a detector's output must not be null");
    const int32_t stride = static_cast<int32_t>(rows_first ? width : there);
    return {reinterpret_cast<const void*>(static_cast<uintptr_t>(address)), rows_first ? stride : 1, rows_first ? 1 : stride, first,
            static_cast<NumberType>(type)};
}

// (form, activation, classes, person, objectness or none, suppress, strides, shares)
using DetectionRules = std::tuple<int, int, int32_t, int32_t, std::optional<int32_t>, bool, std::vector<int32_t>, bool>;

inline DetectionSpec detection_spec(const DetectionRules& rules, int64_t rows, int32_t input_height, int32_t input_width,
                                    float threshold, float iou, int32_t most) {
    const auto& [form, activation, classes, person, objectness, suppress, strides, shares] = rules;
    require(form >= 0 && form <= 2 && activation >= 0 && activation <= 2, "unknown form of boxes or activation");
    require(rows >= 0 && rows <= INT32_MAX / 64 && classes >= 1 && person >= 0, "sizes of a detector's outputs are out of range");
    require(input_height >= 1 && input_height <= MAX_SIDE && input_width >= 1 && input_width <= MAX_SIDE, "input sides must be 1 to 16384");
    require(most >= 1 && most <= MAX_CANDIDATES && strides.size() <= MAX_STRIDES, "too many boxes or strides");
    DetectionSpec spec = {};
    spec.rows = static_cast<int32_t>(rows);
    spec.classes = classes;
    spec.person = person;
    spec.objectness = objectness.value_or(NO_COLUMN);
    spec.form = static_cast<BoxForm>(form);
    spec.activation = static_cast<Activation>(activation);
    spec.suppress = suppress;
    spec.input_height = input_height;
    spec.input_width = input_width;
    spec.unit_x = shares ? static_cast<float>(input_width) : 1.0f;
    spec.unit_y = shares ? static_cast<float>(input_height) : 1.0f;
    spec.threshold = threshold;
    spec.iou = iou;
    spec.most = most;
    int64_t cells = 0;
    for (size_t i = 0; i < strides.size(); i++) {
        require(strides[i] >= 1, "strides must be positive");
        spec.strides[i] = strides[i];
        cells += static_cast<int64_t>(input_height / strides[i]) * (input_width / strides[i]);
    }
    require(spec.form != BoxForm::grid || cells == rows, "the rows must be the cells of the strides' grids");
    return spec;
}

inline DetectionOutputs detection_outputs(const TableTuple& boxes, const TableTuple& scores, const std::optional<TableTuple>& labels,
                                          const DetectionSpec& spec) {
    const int32_t first = std::get<3>(scores), width = static_cast<int32_t>(std::get<2>(scores));
    const bool found = spec.objectness == NO_COLUMN || (spec.objectness + first >= 0 && spec.objectness + first < width);
    require(found && (labels || spec.person < spec.classes), "the person's class or objectness is no column of the scores");
    const Table none = {nullptr, 0, 0, 0, NumberType::float32};
    return {table_from(boxes, spec.rows, 4, false), table_from(scores, spec.rows, labels ? 1 : spec.classes, false),
            labels ? table_from(*labels, spec.rows, 1, true) : none};
}

}  // namespace sdk

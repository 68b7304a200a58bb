// checks.h: what both bindings refuse, and in which words. It knows no Python: a broken rule is a std::invalid_argument.

#pragma once

#include <array>
#include <optional>
#include <stdexcept>
#include <tuple>

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
                          bool swap, bool half, const std::array<float, 6>& yuv) {
    require(is_side(height) && is_side(width), "crop sides must be at most 16384");
    CropSpec spec = {};
    spec.height = static_cast<int32_t>(height);
    spec.width = static_cast<int32_t>(width);
    spec.half = half;
    spec.yuv = {yuv[0], yuv[1], yuv[2], yuv[3], yuv[4], yuv[5]};
    set_channels(spec, scale.data(), bias.data(), swap);
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

}  // namespace sdk

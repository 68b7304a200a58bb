// shared/detection_math.h: from one row of a person detector's outputs to a score and a box, and which box hides which; the
// same on CPU and GPU. A row is what the network says of one place of its grid, or one of its queries.
//
//   score   a(class), times a(objectness) where there is one; a is 1 / (1 + e^-l), e^l / sum of e^l over all classes, or
//           nothing at all. Of rows with a label the score counts where the label is the person's.
//   box     (x1, y1, x2, y2); or centre and sides; or, of the cell (i, j) of a grid of stride t, the centre ((i + x) t,
//           (j + y) t) and the sides (t e^w, t e^h). Shares of the input are multiplied by its sides.
//   frame   X = x scale_x + shift_x, Y = y scale_y + shift_y, clipped to the frame
//
// A row is a candidate when its score is finite and reaches the threshold, its box is finite, and its box in the frame has
// an area. Candidates are ordered by score, of equal scores the lower row first; the best MAX_CANDIDATES take part. The first
// stays and hides all those whose overlap with it, intersection / union in input pixels, exceeds the limit; and so on.
//
// All in float32, as plain multiplications, additions and divisions in one order.

#pragma once

#include "decode_math.h"

namespace sdk {

constexpr int32_t MAX_CANDIDATES = 1024, MAX_STRIDES = 4;

enum class NumberType : int32_t { float32 = 0, float16 = 1, int32 = 2, int64 = 3 };
enum class BoxForm : int32_t { xyxy = 0, cxcywh = 1, grid = 2 };
enum class Activation : int32_t { none = 0, sigmoid = 1, softmax = 2 };

// One output as a table of rows; strides in numbers, `first` the column that 0 stands for. `data` is null for none.
struct Table {
    const void* data;
    int32_t row_stride, column_stride, first;
    NumberType type;

    SDK_MEMBER int64_t index(int32_t row, int32_t column) const {
        return static_cast<int64_t>(row) * row_stride + static_cast<int64_t>(first + column) * column_stride;
    }
    SDK_MEMBER float at(int32_t row, int32_t column) const {
        const int64_t i = index(row, column);
        return type == NumberType::float16 ? as_float(static_cast<const Half*>(data)[i]) : static_cast<const float*>(data)[i];
    }
    SDK_MEMBER bool holds(int32_t row, int32_t label) const {
        const int64_t i = index(row, 0);
        if (type == NumberType::int64) return static_cast<const int64_t*>(data)[i] == label;
        if (type == NumberType::int32) return static_cast<const int32_t*>(data)[i] == label;
        return at(row, 0) == float_from_int(label);
    }
};

struct DetectionOutputs {
    Table boxes, scores, labels;
};

struct DetectionSpec {
    int32_t rows;
    int32_t classes, person;  // columns of scores, and which is the person's; with labels one column, and the person's label
    int32_t objectness;       // column counted from that of the first class, NO_COLUMN for none
    BoxForm form;
    Activation activation;
    bool suppress;
    int32_t input_height, input_width;
    int32_t strides[MAX_STRIDES];  // of a grid, 0 after the last
    float unit_x, unit_y;          // what a box's numbers are multiplied by
    float threshold, iou;
    int32_t most;  // boxes
};
constexpr int32_t NO_COLUMN = -0x7fffffff;

// Input pixels -> frame pixels, and the frame's size. Read from device memory by the kernel: 24 bytes.
struct FramePlace {
    float scale_x, shift_x, scale_y, shift_y;
    float width, height;
};
static_assert(sizeof(FramePlace) == 24, "FramePlace is read from device memory: its layout is fixed");

struct DetectedBox {
    float x1, y1, x2, y2;
};

SDK_FN float exp_of(float x) { return x > 0.0f ? 1.0f / exp_nonpositive(-x) : exp_nonpositive(x); }

SDK_FN float sigmoid(float x) {
    const float e = exp_nonpositive(x > 0.0f ? -x : x);
    return (x > 0.0f ? 1.0f : e) / (1.0f + e);
}

// The share of one class; only finite logits take part.
SDK_FN float softmax_of(const Table& scores, int32_t row, const DetectionSpec& spec) {
    const float own = scores.at(row, spec.person);
    float top = own, sum = 0.0f;
    for (int32_t k = 0; k < spec.classes; k++) {
        const float value = scores.at(row, k);
        if (is_finite(value) && value > top) top = value;
    }
    for (int32_t k = 0; k < spec.classes; k++) {
        const float value = scores.at(row, k);
        if (is_finite(value)) sum += exp_nonpositive(value - top);
    }
    return exp_nonpositive(own - top) / sum;
}

// Below any threshold where the row is of no person.
SDK_FN float score_of(const DetectionOutputs& outputs, int32_t row, const DetectionSpec& spec) {
    constexpr float NOBODY = -1.0f;
    if (outputs.labels.data && !outputs.labels.holds(row, spec.person)) return NOBODY;
    float score = outputs.scores.at(row, outputs.labels.data ? 0 : spec.person);
    if (!is_finite(score)) return NOBODY;
    if (spec.activation == Activation::sigmoid) score = sigmoid(score);
    if (spec.activation == Activation::softmax) score = softmax_of(outputs.scores, row, spec);
    if (spec.objectness != NO_COLUMN) {
        const float object = outputs.scores.at(row, spec.objectness);
        if (!is_finite(object)) return NOBODY;
        score = score * (spec.activation == Activation::sigmoid ? sigmoid(object) : object);
    }
    return is_finite(score) ? score : NOBODY;
}

// A row's cell of the grids that follow each other, finest first: column, row and stride.
struct Cell {
    float column, row, stride;
};

SDK_FN Cell cell_of(int32_t row, const DetectionSpec& spec) {
    for (int32_t level = 0; level < MAX_STRIDES && spec.strides[level] > 0; level++) {
        const int32_t stride = spec.strides[level], columns = spec.input_width / stride;
        const int32_t cells = columns * (spec.input_height / stride);
        if (row < cells) return {float_from_int(row % columns), float_from_int(row / columns), float_from_int(stride)};
        row -= cells;
    }
    return {0.0f, 0.0f, float_from_bits(NAN_BITS)};  // not reached: the rows are the grids'
}

SDK_FN DetectedBox box_of(const DetectionOutputs& outputs, int32_t row, const DetectionSpec& spec) {
    float a = outputs.boxes.at(row, 0), b = outputs.boxes.at(row, 1), c = outputs.boxes.at(row, 2), d = outputs.boxes.at(row, 3);
    if (!(is_finite(a) && is_finite(b) && is_finite(c) && is_finite(d))) a = float_from_bits(NAN_BITS);
    else if (spec.form == BoxForm::grid) {
        const Cell cell = cell_of(row, spec);
        a = (a + cell.column) * cell.stride;
        b = (b + cell.row) * cell.stride;
        c = exp_of(c) * cell.stride;
        d = exp_of(d) * cell.stride;
    }
    a = a * spec.unit_x, b = b * spec.unit_y, c = c * spec.unit_x, d = d * spec.unit_y;
    if (spec.form == BoxForm::xyxy) return {a, b, c, d};
    return {a - c * 0.5f, b - d * 0.5f, a + c * 0.5f, b + d * 0.5f};
}

SDK_FN float held_within(float value, float limit) { return value < 0.0f ? 0.0f : value > limit ? limit : value; }

SDK_FN DetectedBox in_frame(const DetectedBox& box, const FramePlace& place) {
    return {held_within(box.x1 * place.scale_x + place.shift_x, place.width),
            held_within(box.y1 * place.scale_y + place.shift_y, place.height),
            held_within(box.x2 * place.scale_x + place.shift_x, place.width),
            held_within(box.y2 * place.scale_y + place.shift_y, place.height)};
}

SDK_FN bool is_candidate(const DetectedBox& box, const FramePlace& place) {
    if (!(is_finite(box.x1) && is_finite(box.y1) && is_finite(box.x2) && is_finite(box.y2))) return false;
    const DetectedBox seen = in_frame(box, place);
    return seen.x2 > seen.x1 && seen.y2 > seen.y1;
}

SDK_FN bool hides(const DetectedBox& a, const DetectedBox& b, float limit) {
    const float width = (a.x2 < b.x2 ? a.x2 : b.x2) - (a.x1 > b.x1 ? a.x1 : b.x1);
    const float height = (a.y2 < b.y2 ? a.y2 : b.y2) - (a.y1 > b.y1 ? a.y1 : b.y1);
    if (!(width > 0.0f && height > 0.0f)) return false;
    const float both = width * height, one = (a.x2 - a.x1) * (a.y2 - a.y1), other = (b.x2 - b.x1) * (b.y2 - b.y1);
    return both / (one + other - both) > limit;
}

}  // namespace sdk

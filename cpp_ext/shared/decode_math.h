// shared/decode_math.h: the reduction and the refinement of one row of logits, the same on CPU and GPU.
//
// A row is reduced to its Peak by merging peaks, of single logits at first. merge() is associative and commutative in
// (value, bin), so every order and grouping of lanes, warps or threads finds the same winner: the larger value, and of
// equal values the lower bin. Only finite logits take part: NaN and infinities never win and weigh nothing.
// `sum` is the softmax denominator relative to the winner, sum of exp(l_i - l_max); it is merged in the same pass and
// is as associative as float addition is.

#pragma once

#include <cmath>

#include "portable.h"

namespace sdk {

constexpr float LOWEST = -3.402823466e+38f, HIGHEST = 3.402823466e+38f;
constexpr int32_t NO_BIN = 0x7fffffff;

struct Peak {  // bin NO_BIN: none
    float value;  // largest finite logit, -infinity when there is none
    int32_t bin;  // its first position, NO_BIN when there is none
    float sum;    // softmax denominator relative to value, 0 when there is none
};

template <class F> SDK_FN auto is_finite(F value) { return (value >= LOWEST) & (value <= HIGHEST); }

// exp(x) for x <= 0, relative error below 2e-7; 0 below -87. Cody-Waite reduction to |r| <= ln(2) / 2, degree 6.
template <class F> SDK_FN F exp_nonpositive(F x) {
    const auto below = x < -87.0f;
    x = select(below, F{}, x);
    const auto n = int_from_float(x * 1.44269504f - 0.5f);
    const F whole = float_from_int(n);
    const F r = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;
    F p = r * 1.3888889e-3f + 8.3333333e-3f;
    p = p * r + 4.1666667e-2f;
    p = p * r + 1.6666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return select(below, F{}, p * power_of_two(n));
}

SDK_FN Peak no_peak() { return {float_from_bits(0xff800000u), NO_BIN, 0.0f}; }

SDK_FN Peak peak_of(float value, int32_t bin) {
    if (!is_finite(value)) return no_peak();
    return {value, bin, 1.0f};
}

SDK_FN bool beats(float value, int32_t bin, float other_value, int32_t other_bin) {
    return value > other_value || (value == other_value && bin < other_bin);
}

// Without `with_sum` the sum is left as the winner's, for the rules that do not ask for it.
template <bool with_sum = true> SDK_FN Peak merge(Peak a, Peak b) {
    if (b.bin == NO_BIN) return a;
    if (a.bin == NO_BIN) return b;
    const bool second = beats(b.value, b.bin, a.value, a.bin);
    Peak win = second ? b : a;
    const Peak lose = second ? a : b;
    if (with_sum) win.sum += lose.sum * exp_nonpositive(lose.value - win.value);
    return win;
}

// One row of logits, or the mean of a row and the mirrored crop's row. Position i of the row belongs to position
// n - 1 - shift - i of the mirrored one when `reversed` (x), and to i otherwise (y). Reads below 0 stop at 0, as the
// paper's shift leaves the last bin in place.
template <class T> struct Row {
    const T* own;       // n logits
    const T* mirrored;  // n logits, or null
    int32_t n;
    int32_t shift;
    bool reversed;

    SDK_MEMBER int32_t mirrored_index(int32_t i) const {
        const int32_t j = reversed ? n - 1 - shift - i : i;
        return j < 0 ? 0 : j;
    }
    SDK_MEMBER float at(int32_t i) const {
        const float value = as_float(own[i]);
        return mirrored ? 0.5f * value + 0.5f * as_float(mirrored[mirrored_index(i)]) : value;
    }
};

// Sub-bin refinement: the offset, in bins and within (-0.5, 0.5], of the peak from the first largest bin.
//   parabola     the vertex through the peak and its two neighbours. On logits this is also the Taylor step DARK takes
//                on the logarithm of a heatmap, in one dimension: exact for Gaussian labels, but sensitive to the noise
//                of three logits.
//   dark         the vertex of the least-squares parabola over the peak and REFINE_RADIUS bins on either side: the
//                Taylor step after smoothing, as DARK smooths before it. Exact for Gaussian labels; averages noise and
//                the rounding of quantised logits out.
//   expectation  the mean bin under softmax over the same window: needs no curvature, pulls towards the middle.
enum class Refine : int32_t { none = 0, parabola = 1, dark = 2, expectation = 3 };

constexpr int32_t REFINE_RADIUS = 3;

SDK_FN float half_bin(float offset) { return offset > 0.5f ? 0.5f : (offset < -0.5f ? -0.5f : offset); }

// Vertex of the parabola through, or by least squares near, l(-r..r): slope s1 / q, curvature from the second moment.
template <class T> SDK_FN float parabola_offset(const Row<T>& row, Peak peak, int32_t radius) {
    const float r = static_cast<float>(radius), count = 2.0f * r + 1.0f;
    const float mean_square = r * (r + 1.0f) / 3.0f;
    float first = 0.0f, second = 0.0f, norm = 0.0f;
    for (int32_t i = -radius; i <= radius; i++) {
        const float value = row.at(peak.bin + i);
        if (!is_finite(value)) return 0.0f;
        const float t = static_cast<float>(i), p = t * t - mean_square, drop = value - peak.value;
        first += t * drop;
        second += p * drop;
        norm += p * p;
    }
    const float slope = first / (count * mean_square), curvature = second / norm;
    if (!(curvature < 0.0f)) return 0.0f;
    const float vertex = -0.5f * slope / curvature;
    return is_finite(vertex) ? half_bin(vertex) : 0.0f;  // drops beyond float32's range
}

template <class T> SDK_FN float expectation_offset(const Row<T>& row, Peak peak, int32_t radius) {
    float moment = 0.0f, weight = 0.0f;
    for (int32_t i = -radius; i <= radius; i++) {
        const float value = row.at(peak.bin + i);
        if (!is_finite(value)) continue;
        const float w = exp_nonpositive(value - peak.value);
        moment += static_cast<float>(i) * w;
        weight += w;
    }
    return half_bin(moment / weight);
}

// Windows are kept symmetric: near an end of the row the radius shrinks, at the end there is no refinement.
template <class T> SDK_FN float refine_offset(const Row<T>& row, Peak peak, Refine mode) {
    int32_t radius = mode == Refine::parabola ? 1 : REFINE_RADIUS;
    if (peak.bin < radius) radius = peak.bin;
    if (row.n - 1 - peak.bin < radius) radius = row.n - 1 - peak.bin;
    if (mode == Refine::none || radius < 1) return 0.0f;
    if (mode == Refine::expectation) return expectation_offset(row, peak, radius);
    return parabola_offset(row, peak, radius);
}

enum class Score : int32_t { min_logit = 0, mean_logit = 1, min_softmax = 2 };

// Crop coordinate of a row's peak; the crop's middle when the row has no finite logit.
template <class T> SDK_FN double crop_coordinate(const Row<T>& row, Peak peak, Refine mode, double split_ratio) {
    if (peak.bin == NO_BIN) return 0.5 * row.n / split_ratio;
    return (static_cast<double>(peak.bin) + static_cast<double>(refine_offset(row, peak, mode))) / split_ratio;
}

SDK_FN float joint_score(Peak x, Peak y, Score rule) {
    if (x.bin == NO_BIN || y.bin == NO_BIN) return 0.0f;
    if (rule == Score::mean_logit) return 0.5f * x.value + 0.5f * y.value;
    if (rule == Score::min_logit) return x.value < y.value ? x.value : y.value;
    return 1.0f / (x.sum > y.sum ? x.sum : y.sum);
}

// out = (x, y) in frame pixels. The affine is applied in double: 2 K N products, and no float rounding of a coordinate in
// a large frame but the last one.
SDK_FN void write_point(float* out, double x, double y, const float* affine) {
    out[0] = static_cast<float>(static_cast<double>(affine[0]) * x + static_cast<double>(affine[1]) * y + affine[2]);
    out[1] = static_cast<float>(static_cast<double>(affine[3]) * x + static_cast<double>(affine[4]) * y + affine[5]);
}

// The third axis: the n bins of z reach from -span to +span about the root, which lies in the middle of the row.
struct Depth {
    double span;   // in the unit of the depth; in pixels of the crop where `pixels`
    bool pixels;     // the depth is told in frame pixels: enlarged by the affine as areas are, by its root
};

constexpr uint32_t NAN_BITS = 0x7fc00000u;

// `coordinate` is z's peak as crop_coordinate finds it with n / 2 bins a unit: 0 to 2 along the row. NaN where the joint is
// not seen (mmpose puts a bin of -1 there, which would be a plausible depth) or z has no peak. z has no say in the score.
SDK_FN float depth_of(double coordinate, bool seen, const Depth& depth, const float* affine) {
    if (!seen) return float_from_bits(NAN_BITS);
    double scale = depth.span;
    if (depth.pixels) {
        const double area = static_cast<double>(affine[0]) * affine[4] - static_cast<double>(affine[1]) * affine[3];
        scale = scale * sqrt(area < 0.0 ? -area : area);
    }
    return static_cast<float>((coordinate - 1.0) * scale);
}

}  // namespace sdk

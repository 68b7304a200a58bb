// shared/spread_math.h: how sure a row is of its peak, the same on CPU and GPU: the spread about the peak, and a second
// peak near the first in height.
//
// Logits l are log-probabilities up to `sharpness`, by which the network's loss multiplied them: 1 for the paper's loss,
// 10 for mmpose's. The spread is the second moment about the peak's bin b of p(i) ~ exp(sharpness (l_i - l_b)),
//
//     variance = sum c_o o^2 w_o / sum c_o w_o,    o in 0, +-2, +-5, +-12, +-28, +-64,    c_o: bins that offset o stands for
//
// taken at 11 bins whose distances more than double: as fine as a narrow peak needs, as far as a wide one reaches. The
// deviation of a Gaussian of 1.6 to 20 bins is found to 8 %, and what is left is the calibration's. Against a second peak
// the weights never rise outwards: w_o belongs to the lowest logit sampled from the peak to o, so that what lies behind a
// valley weighs as the valley does. A side ends at the row's end and at a logit that is not finite.
//
// What a network states is rarely what holds. Calibration on labelled data (sdk calibrate --spread) gives
//
//     held variance = floor + gain v + curve v^2
//
// and the spread is its root, taken through the affine to frame pixels; NaN where a row has no finite logit.

#pragma once

#include "decode_math.h"

namespace sdk {

struct SpreadRule {
    float sharpness;
    float gain, curve, floor;  // from bins^2 to crop pixels^2
};

constexpr int32_t SPREAD_STEPS = 6;  // samples a side, the peak among them
constexpr int32_t SPREAD_REACH = 64;
constexpr int32_t SECOND_GAP = 16;  // bins from the peak on, 8 crop pixels at 2 bins a pixel: nearer is the same peak
constexpr float HALF_WEIGHT = 0.69314718f, LOG2_E = 1.44269504f;
constexpr float BOTTOMLESS = __builtin_huge_valf();  // of a side that has ended

// Bytes of a word, as a table that a GPU's lanes index too: 0, 2, 5, 12, 28, 64; and twice 2, 2.5, 5, 11.5, 26, 36. Steps
// beyond the last stand for no bins.
SDK_FN int32_t spread_offset(int32_t step) { return static_cast<int32_t>(0x401c0c050200ull >> 8 * step & 255u); }
SDK_FN float spread_cell(int32_t step) { return 0.5f * static_cast<float>(0x4834170a0504ull >> 8 * step & 255u); }

// 2^x for x <= 0, relative error below 1.1e-4; 0 below -126.
template <class F> SDK_FN F exp2_coarse(F x) {
    const auto below = !(x >= -126.0f);
    x = select(below, F{}, x);
    const auto n = int_from_float(x - 0.5f);
    const F f = x - float_from_int(n);
    F p = f * 5.500897e-2f + 2.4221106e-1f;
    p = p * f + 6.9328293e-1f;
    p = p * f + 1.0f;
    return select(below, F{}, p * power_of_two(n));
}

// How far the logit of a step lies below the peak's; BOTTOMLESS where that side has ended or it is not finite.
template <class T> SDK_FN float spread_fall(const Row<T>& row, Peak peak, int32_t step, bool left) {
    if (peak.bin == NO_BIN) return BOTTOMLESS;
    const int32_t i = peak.bin + (left ? -spread_offset(step) : spread_offset(step));
    if (i < 0 || i >= row.n) return BOTTOMLESS;
    const float fall = peak.value - row.at(i);
    return fall >= 0.0f ? fall : BOTTOMLESS;
}

template <class F> SDK_FN F held_variance(F variance, const SpreadRule& rule) {
    return variance * (variance * rule.curve + rule.gain) + rule.floor;
}

// From the held variances along the crop's axes to standard deviations along the frame's.
SDK_FN void write_spread(float* out, float x, float y, const float* affine) {
    out[0] = sqrtf(affine[0] * affine[0] * x + affine[1] * affine[1] * y);
    out[1] = sqrtf(affine[3] * affine[3] * x + affine[4] * affine[4] * y);
}

// ---- the second peak ---------------------------------------------------------------------------------------------

// Logits of a second peak lie above this: it weighs at least half as much as the first.
SDK_FN float second_limit(Peak first, const SpreadRule& rule) { return first.value - HALF_WEIGHT / rule.sharpness; }

SDK_FN bool far_from(Peak first, int32_t i) { return i - first.bin > SECOND_GAP || first.bin - i > SECOND_GAP; }

// Bin i, of this value, as a second peak: no_peak() unless it is high enough, far enough, finite and a local maximum (of
// a plateau, its first bin).
template <class T> SDK_FN Peak second_at(const Row<T>& row, int32_t i, float value, Peak first, float limit) {
    if (!(value >= limit) || first.bin == NO_BIN || !is_finite(value) || !far_from(first, i)) return no_peak();
    if (i > 0 && row.at(i - 1) >= value) return no_peak();
    if (i + 1 < row.n && row.at(i + 1) > value) return no_peak();
    return peak_of(value, i);
}

}  // namespace sdk

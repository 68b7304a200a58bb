// cpu/decode_joints.h: decoding of whole joints. The mathematics is in shared/decode_math.h.
//
// A row is read a register at a time: once for the first largest logit of each lane, and, for the softmax rule alone,
// again from the cache for its sum. Lanes are merged by the shared operator, which cares for no order; the sum runs in
// SUM_LANES lanes whatever the register's width, so that scores do not depend on the instruction set.

#pragma once

#include "../sdk_ops.h"
#include "vector.h"

namespace sdk {
namespace {

constexpr float NOTHING = -__builtin_huge_valf();
constexpr int SUM_LANES = 16, SUM_REGISTERS = SUM_LANES / LANES;

// Logits [i, i + LANES) of a row, NOTHING beyond its end.
template <class T> SDK_FN Floats logits_at(const Row<T>& row, int32_t i) {
    const int32_t last = row.n - row.shift - LANES;  // of a reversed row, first index to start a whole load at
    const bool whole = i + LANES <= row.n && !(row.mirrored && row.reversed && i > last);
    if (!whole) {
        float partial[LANES];
        for (int32_t lane = 0; lane < LANES; lane++) partial[lane] = i + lane < row.n ? row.at(i + lane) : NOTHING;
        return load<Floats>(partial);
    }
    const Floats own = load_logits(row.own + i);
    if (!row.mirrored) return own;
    const Floats other = row.reversed ? reversed(load_logits(row.mirrored + last - i)) : load_logits(row.mirrored + i);
    return own * 0.5f + other * 0.5f;
}

struct LanePeaks {
    Floats value;
    Ints bin;
};

template <class T> SDK_FN void take_larger(LanePeaks& peaks, const Row<T>& row, int32_t i) {
    const Floats values = logits_at(row, i);
    const Ints larger = (values > peaks.value) & (values <= HIGHEST);
    peaks.value = larger ? values : peaks.value;
    peaks.bin = larger ? count_up() + i : peaks.bin;
}

SDK_FN LanePeaks merge_lanes(const LanePeaks& a, const LanePeaks& b) {
    const Ints second = (b.value > a.value) | ((b.value == a.value) & (b.bin < a.bin));
    return {second ? b.value : a.value, second ? b.bin : a.bin};
}

template <class T> SDK_FN Peak largest(const Row<T>& row) {
    const LanePeaks none = {splat(NOTHING), Ints{} + NO_BIN};
    LanePeaks first = none, second = none;  // two, as one would wait for itself
    int32_t i = 0;
    for (; i + LANES < row.n; i += 2 * LANES) {
        take_larger(first, row, i);
        take_larger(second, row, i + LANES);
    }
    if (i < row.n) take_larger(first, row, i);
    const LanePeaks lanes = merge_lanes(first, second);
    Peak peak = no_peak();
    for (int lane = 0; lane < LANES; lane++)
        if (beats(lanes.value[lane], lanes.bin[lane], peak.value, peak.bin))
            peak = {lanes.value[lane], lanes.bin[lane], 1.0f};
    return peak;
}

template <class T> SDK_FN float softmax_sum(const Row<T>& row, float largest) {
    Floats sums[SUM_REGISTERS] = {};
    for (int32_t i = 0; i < row.n; i += SUM_LANES)
        for (int part = 0; part < SUM_REGISTERS; part++) {
            const Floats values = logits_at(row, i + part * LANES);
            sums[part] += exp_nonpositive(select(values <= largest, values - largest, splat(NOTHING)));
        }
    float sum = 0.0f;
    for (int lane = 0; lane < SUM_LANES; lane++) sum += sums[lane / LANES][lane % LANES];
    return sum;
}

template <class T> Peak row_peak(const Row<T>& row, bool with_sum) {
    Peak peak = largest(row);
    if (with_sum && peak.bin != NO_BIN) peak.sum = softmax_sum(row, peak.value);
    return peak;
}

template <class T> Row<T> row_of(const void* own, const void* mirrored, int64_t joint, int64_t partner, int32_t n) {
    const T* other = static_cast<const T*>(mirrored);
    return {static_cast<const T*>(own) + joint * n, other ? other + partner * n : nullptr, n, 0, false};
}

template <class T>
void decode_joints_of(float* out, const Logits& logits, const float* affines, const DecodeSpec& spec, int32_t begin,
                      int32_t end) {
    const bool with_sum = spec.score == Score::min_softmax;
    for (int32_t joint = begin; joint < end; joint++) {
        const int32_t person = joint / spec.joints, k = joint - person * spec.joints;
        const int64_t partner = static_cast<int64_t>(person) * spec.joints + (logits.partner ? logits.partner[k] : k);
        Row<T> x = row_of<T>(logits.x, logits.mirrored_x, joint, partner, spec.x_bins);
        const Row<T> y = row_of<T>(logits.y, logits.mirrored_y, joint, partner, spec.y_bins);
        x.reversed = true;
        x.shift = spec.flip_shift;
        const Peak px = row_peak(x, with_sum), py = row_peak(y, with_sum);
        write_joint(out + 3 * static_cast<int64_t>(joint), crop_coordinate(x, px, spec.refine, spec.split_ratio),
                    crop_coordinate(y, py, spec.refine, spec.split_ratio), joint_score(px, py, spec.score),
                    affines + 6 * static_cast<int64_t>(person));
    }
}

void decode_joints(float* out, const Logits& logits, const float* affines, const DecodeSpec& spec, int32_t begin,
                   int32_t end) {
    if (spec.half) return decode_joints_of<Half>(out, logits, affines, spec, begin, end);
    return decode_joints_of<float>(out, logits, affines, spec, begin, end);
}

}  // namespace
}  // namespace sdk

// cpu/decode_joints.h: decoding of whole joints. The mathematics is in shared/decode_math.h.
//
// A row is read 16 logits at a time: once for each lane's first largest logit, and, for the softmax rule alone, again
// from the cache for the lanes' sums. Lanes are merged with the shared operator.

#pragma once

#include "../sdk_ops.h"
#include "vector16.h"

namespace sdk {
namespace {

// Logits [i, i + 16) of a row, -infinity where they are not finite or beyond its end.
template <class T> SDK_FN F16 finite_logits(const Row<T>& row, int32_t i) {
    F16 values;
    const int32_t mirrored = row.mirrored_index(i + LANES - 1);
    const bool whole = i + LANES <= row.n && !(row.mirrored && row.reversed && row.n - row.shift - i < LANES);
    if (!whole) {
        float partial[LANES];
        for (int32_t l = 0; l < LANES; l++) partial[l] = i + l < row.n ? row.at(i + l) : -__builtin_huge_valf();
        values = load<F16>(partial);
    } else if (row.mirrored) {
        const F16 other = row.reversed ? reverse(load_logits(row.mirrored + mirrored)) : load_logits(row.mirrored + i);
        values = load_logits(row.own + i) * 0.5f + other * 0.5f;
    } else {
        values = load_logits(row.own + i);
    }
    return select(is_finite(values), values, splat(-__builtin_huge_valf()));
}

template <class T> Peak row_peak(const Row<T>& row, bool with_sum) {
    F16 best = splat(-__builtin_huge_valf());
    I16 bin = I16{} + NO_BIN, position = count_up();
    for (int32_t i = 0; i < row.n; i += LANES, position += LANES) {
        const F16 values = finite_logits(row, i);
        const I16 larger = values > best;
        best = select(larger, values, best);
        bin = larger ? position : bin;
    }
    Peak peak = no_peak();
    for (int l = 0; l < LANES; l++)
        if (beats(best[l], bin[l], peak.value, peak.bin)) peak = {best[l], bin[l], 1.0f};
    if (!with_sum || peak.bin == NO_BIN) return peak;
    F16 sums = {};
    for (int32_t i = 0; i < row.n; i += LANES) sums += exp_nonpositive(finite_logits(row, i) - peak.value);
    peak.sum = 0.0f;
    for (int l = 0; l < LANES; l++) peak.sum += sums[l];
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

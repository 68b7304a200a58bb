// cpu/decode_joints.h: decoding of whole joints. The mathematics is in shared/decode_math.h, spread_math.h and joint_math.h.
//
// A row is read a register at a time, in blocks of four: per lane the largest logit and the first block that held it, so
// that a block costs six operations; the bin is looked up in the one block of the winner. Infinities could win such a
// comparison: a row in which one did, and it alone, is read again logit by logit. For the softmax rule the row is read once
// more, from the cache, for its sum, which runs in SUM_LANES lanes whatever the register's width, so that scores do not
// depend on the instruction set. The spread of as many rows as a register has lanes is computed at once, a row a lane.

#pragma once

#include "../shared/joint_math.h"
#include "vector.h"

namespace sdk {
namespace {

constexpr float NOTHING = -__builtin_huge_valf();
constexpr int SUM_LANES = 16, SUM_REGISTERS = SUM_LANES / LANES;
constexpr int32_t BLOCK_BINS = 4 * LANES;
constexpr int32_t PREFETCH_BYTES = 4096;  // ahead, into the rows that follow: 133 joints of 8 persons, 5.7 MB, 218 us to 191 us
constexpr int32_t GROUP = LANES / 2;  // joints whose rows along x and y fill a register

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

// Registers [0, BLOCK_REGISTERS) of the block at i, those beyond the row left out; `whole` when all lie inside it.
template <bool whole, class T> SDK_FN Floats block_largest(const Row<T>& row, int32_t i) {
    Floats largest = splat(NOTHING);
    for (int32_t at = i; at < i + BLOCK_BINS; at += LANES) {
        if (!whole && at >= row.n) break;
        if (whole) __builtin_prefetch(row.own + at + PREFETCH_BYTES / sizeof(T));
        largest = larger(whole ? load_logits(row.own + at) : logits_at(row, at), largest);
    }
    return largest;
}

struct LanePeaks {
    Floats value;
    Ints block;  // bin at which the first block begins that holds it
};

template <bool whole, class T> SDK_FN void take_block(LanePeaks& peaks, const Row<T>& row, int32_t i) {
    const Floats value = block_largest<whole>(row, i);
    peaks.block = value > peaks.value ? Ints{} + i : peaks.block;
    peaks.value = larger(value, peaks.value);
}

// The first bin with this value in the block at i, which has one: a mask of all its bins, as a branch would be guessed wrong.
template <bool whole, class T> SDK_FN int32_t first_bin(const Row<T>& row, int32_t i, float value) {
    uint64_t bins = 0;
    for (int32_t at = 0; at < BLOCK_BINS; at += LANES) {
        if (!whole && i + at >= row.n) break;
        const Floats values = whole ? load_logits(row.own + i + at) : logits_at(row, i + at);
        bins |= static_cast<uint64_t>(lanes_where(values == splat(value))) << at;
    }
    return i + __builtin_ctzll(bins);
}

template <class T> Peak largest_finite(const Row<T>& row) {
    Peak peak = no_peak();
    for (int32_t i = 0; i < row.n; i++) peak = merge<false>(peak, peak_of(row.at(i), i));
    return peak;
}

template <class T> SDK_FN Peak largest(const Row<T>& row) {
    LanePeaks peaks = {splat(NOTHING), Ints{}};
    const int32_t whole = row.mirrored ? 0 : row.n - row.n % BLOCK_BINS;
    int32_t i = 0;
    for (; i < whole; i += BLOCK_BINS) take_block<true>(peaks, row, i);
    for (; i < row.n; i += BLOCK_BINS) take_block<false>(peaks, row, i);
    const float value = largest_lane(peaks.value);
    if (value > HIGHEST) return largest_finite(row);
    if (value < LOWEST) return no_peak();
    int32_t block = row.n;
    for (uint32_t lanes = lanes_where(peaks.value == splat(value)); lanes; lanes &= lanes - 1) {
        const int32_t other = peaks.block[__builtin_ctz(lanes)];
        block = other < block ? other : block;
    }
    const int32_t bin = block < whole ? first_bin<true>(row, block, value) : first_bin<false>(row, block, value);
    return {row.at(bin), bin, 1.0f};  // the row's own zero, of equal ones with either sign
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

// ---- spread and second peak --------------------------------------------------------------------------------------

// Samples of up to LANES rows, a row a lane: steps to the right and to the left; beyond a row, its last logit.
struct Samples {
    alignas(64) float right[SPREAD_STEPS][LANES], left[SPREAD_STEPS][LANES], peak[LANES];
    alignas(64) int32_t room_right[LANES], room_left[LANES];  // bins between the peak and the row's ends, -1 without a peak
};

// Without a branch on each sample: which of them lie beyond the row is seen for all rows at once, by the rooms.
template <class T> SDK_FN void take_samples(Samples& samples, int32_t lane, const Row<T>& row, Peak peak) {
    const bool none = peak.bin == NO_BIN;
    samples.peak[lane] = peak.value;
    samples.room_right[lane] = none ? -1 : row.n - 1 - peak.bin;
    samples.room_left[lane] = none ? -1 : peak.bin;
    if (none) return;
    if (!row.mirrored && peak.bin >= SPREAD_REACH && peak.bin < row.n - SPREAD_REACH) {
        const T* at = row.own + peak.bin;
#pragma GCC unroll 8
        for (int32_t step = 1; step < SPREAD_STEPS; step++) {
            samples.right[step][lane] = as_float(at[spread_offset(step)]);
            samples.left[step][lane] = as_float(at[-spread_offset(step)]);
        }
        return;
    }
#pragma GCC unroll 8
    for (int32_t step = 1; step < SPREAD_STEPS; step++) {
        const int32_t right = peak.bin + spread_offset(step), left = peak.bin - spread_offset(step);
        samples.right[step][lane] = row.at(right < row.n ? right : row.n - 1);
        samples.left[step][lane] = row.at(left < 0 ? 0 : left);
    }
}

// How deep a side has fallen on the way to a step.
SDK_FN Floats fallen(Floats before, Floats peak, const float* sampled, Ints room, int32_t step) {
    const Floats fall = peak - load<Floats>(sampled);
    return larger(select((fall >= 0.0f) & (room >= spread_offset(step)), fall, splat(BOTTOMLESS)), before);
}

// Sums run as those of a warp's lanes do, of which the last two of eight hold nothing.
SDK_FN Floats sum_of(const Floats (&q)[SPREAD_STEPS]) { return ((q[0] + q[4]) + q[2]) + ((q[1] + q[5]) + q[3]); }

SDK_FN Floats held_variances(const Samples& samples, const SpreadRule& rule) {
    const Ints room_right = load<Ints>(samples.room_right), room_left = load<Ints>(samples.room_left);
    const Floats peak = load<Floats>(samples.peak);
    const float scale = rule.sharpness * -LOG2_E;
    Floats right = select(room_right < 0, splat(BOTTOMLESS), Floats{}), left = right;
    Floats weights[SPREAD_STEPS], moments[SPREAD_STEPS];
    weights[0] = spread_cell(0) * exp2_coarse(right * scale);
    moments[0] = Floats{};
#pragma GCC unroll 8
    for (int32_t step = 1; step < SPREAD_STEPS; step++) {
        right = fallen(right, peak, samples.right[step], room_right, step);
        left = fallen(left, peak, samples.left[step], room_left, step);
        const float offset = static_cast<float>(spread_offset(step));
        weights[step] = spread_cell(step) * (exp2_coarse(right * scale) + exp2_coarse(left * scale));
        moments[step] = offset * offset * weights[step];
    }
    return held_variance(sum_of(moments) / sum_of(weights), rule);
}

template <class T> Peak second_peak(const Row<T>& row, Peak first, const SpreadRule& rule) {
    Peak second = no_peak();
    if (first.bin == NO_BIN) return second;
    const float limit = second_limit(first, rule);
    for (int32_t i = 0; i < row.n; i += LANES) {
        const Ints away = count_up() + (i - first.bin);
        const Ints far = (away > SECOND_GAP) | (away < -SECOND_GAP);
        for (uint32_t lanes = lanes_where((logits_at(row, i) >= limit) & far); lanes; lanes &= lanes - 1) {
            const int32_t bin = i + __builtin_ctz(lanes);
            if (bin < row.n) second = merge<false>(second, second_at(row, bin, row.at(bin), first, limit));
        }
    }
    return second;
}

// ---- joints ------------------------------------------------------------------------------------------------------

// Row of a joint along an axis: x, y or z.
template <class T> SDK_FN Row<T> row_of(const Logits& logits, const DecodeSpec& spec, int32_t axis, int64_t joint, int64_t partner) {
    const void* own = axis == 0 ? logits.x : axis == 1 ? logits.y : logits.z;
    const void* mirrored = axis == 0 ? logits.mirrored_x : axis == 1 ? logits.mirrored_y : logits.mirrored_z;
    const int32_t n = axis == 0 ? spec.x_bins : axis == 1 ? spec.y_bins : spec.z_bins;
    const T* other = static_cast<const T*>(mirrored);
    return {static_cast<const T*>(own) + joint * n, other ? other + partner * n : nullptr, n, axis == 0 ? spec.flip_shift : 0, axis == 0};
}

template <class T> SDK_FN Found found_in(const Row<T>& row, const DecodeSpec& spec, int32_t axis, Samples& samples, int32_t lane) {
    Found found = {row_peak(row, axis < 2 && spec.score == Score::min_softmax), 0.0, 0.0f, 0.0};
    found.coordinate = crop_coordinate(row, found.peak, spec.refine, ratio_of(spec, axis));
    if (axis == 2) return found;
    if (spec.spread) take_samples(samples, lane, row, found.peak);
    if (spec.second) {
        const Peak second = second_peak(row, found.peak, spec.rule);
        found.second = second.bin == NO_BIN ? float_from_bits(NAN_BITS) : crop_coordinate(row, second, spec.refine, spec.split_ratio);
    }
    return found;
}

template <class T>
void decode_joints_of(float* out, const Logits& logits, const float* affines, const DecodeSpec& spec, int32_t begin,
                      int32_t end) {
    const int32_t axes = spec.z_bins > 0 ? 3 : 2, columns = columns_of(spec);
    Samples samples = {};
    Found found[GROUP][3];
    for (int32_t first = begin; first < end; first += GROUP) {
        const int32_t count = first + GROUP < end ? GROUP : end - first;
        for (int32_t i = 0; i < count; i++) {
            const int32_t joint = first + i, k = joint % spec.joints;
            const int64_t partner = static_cast<int64_t>(joint) - k + (logits.partner ? logits.partner[k] : k);
            for (int32_t axis = 0; axis < axes; axis++)
                found[i][axis] = found_in(row_of<T>(logits, spec, axis, joint, partner), spec, axis, samples, 2 * i + axis);
        }
        if (spec.spread) {
            const Floats variance = held_variances(samples, spec.rule);
            for (int32_t i = 0; i < 2 * count; i++) found[i / 2][i % 2].variance = variance[i];
        }
        for (int32_t i = 0; i < count; i++)
            write_joint(out + static_cast<int64_t>(first + i) * columns, found[i], spec,
                        affines + 6 * static_cast<int64_t>((first + i) / spec.joints));
    }
}

void decode_joints(float* out, const Logits& logits, const float* affines, const DecodeSpec& spec, int32_t begin,
                   int32_t end) {
    if (spec.half) return decode_joints_of<Half>(out, logits, affines, spec, begin, end);
    return decode_joints_of<float>(out, logits, affines, spec, begin, end);
}

}  // namespace
}  // namespace sdk

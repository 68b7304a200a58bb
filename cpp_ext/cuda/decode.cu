// cuda/decode.cu: all joints of all persons in one launch. The mathematics is in shared/decode_math.h, spread_math.h and
// joint_math.h.
//
// A warp reduces a row; the warps of a joint's x, y and z lie in one block, so that the joint is written without a second
// pass. The spread takes a sample a lane; a second peak takes another pass over the row, from the cache. Logits are read once, 16 bytes a lane where rows are aligned; the softmax sum is merged along with the maximum.
// The window of the refinement is read again, from the cache.
// Rows of the catalogue have 128 bins or more, a full warp of 16-byte loads; sub-warps for shorter rows would never run.

#include <cuda_runtime.h>

#include "../sdk_ops.h"
#include "../shared/joint_math.h"

namespace sdk {
namespace cuda {
namespace {

constexpr int32_t WARP = 32;
constexpr int32_t JOINTS_PER_BLOCK = 2;  // 4 warps: 68 blocks for 8 persons of 17 joints, 9 for one
constexpr int32_t MAX_AXES = 3, MAX_THREADS = MAX_AXES * JOINTS_PER_BLOCK * WARP;
constexpr uint32_t ALL_LANES = 0xffffffffu;

// 16 bytes of logits, as floats.
__device__ __forceinline__ void load_pack(const float* from, float (&values)[4]) {
    const float4 pack = __ldg(reinterpret_cast<const float4*>(from));
    values[0] = pack.x; values[1] = pack.y; values[2] = pack.z; values[3] = pack.w;
}
__device__ __forceinline__ void load_pack(const Half* from, float (&values)[8]) {
    const uint4 pack = __ldg(reinterpret_cast<const uint4*>(from));
    Half halves[8];
    memcpy(halves, &pack, sizeof pack);
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] = as_float(halves[i]);
}

template <class T> constexpr int32_t PACK = 16 / sizeof(T);

template <class T, bool with_sum> __device__ Peak lane_peak(const Row<T>& row, int32_t lane, bool packed) {
    Peak peak = no_peak();
    if (!packed) {
        for (int32_t i = lane; i < row.n; i += WARP) peak = merge<with_sum>(peak, peak_of(row.at(i), i));
        return peak;
    }
    for (int32_t i = lane * PACK<T>; i < row.n; i += WARP * PACK<T>) {
        float values[PACK<T>];
        load_pack(row.own + i, values);
#pragma unroll
        for (int32_t k = 0; k < PACK<T>; k++) peak = merge<with_sum>(peak, peak_of(values[k], i + k));
    }
    return peak;
}

template <bool with_sum> __device__ Peak warp_peak(Peak peak) {
#pragma unroll
    for (int32_t distance = WARP / 2; distance > 0; distance /= 2) {
        const Peak other = {__shfl_xor_sync(ALL_LANES, peak.value, distance),
                            __shfl_xor_sync(ALL_LANES, peak.bin, distance),
                            with_sum ? __shfl_xor_sync(ALL_LANES, peak.sum, distance) : peak.sum};
        peak = merge<with_sum>(peak, other);
    }
    return peak;
}

__device__ __forceinline__ float larger(float a, float b) { return a > b ? a : b; }
__device__ __forceinline__ float across(float value, int32_t distance) { return __shfl_xor_sync(ALL_LANES, value, distance); }

// Lane: a step in its lowest three bits, the side in the next. The whole warp takes part; its halves do the same.
template <class T> __device__ float warp_variance(const Row<T>& row, Peak peak, const SpreadRule& rule, int32_t lane) {
    constexpr int32_t side = 8;
    const int32_t step = lane % side < SPREAD_STEPS ? lane % side : SPREAD_STEPS;
    const bool left = lane & side;
    float deepest = spread_fall(row, peak, step, left), fallen = deepest;  // of all steps seen so far; of those up to this
#pragma unroll
    for (int32_t distance = 1; distance < side; distance *= 2) {
        const float other = across(deepest, distance);
        if (lane & distance) fallen = larger(other, fallen);
        deepest = larger(other, deepest);
    }
    float weight = left && step == 0 ? 0.0f : exp2_coarse(fallen * (rule.sharpness * -LOG2_E));
    weight = spread_cell(step) * (weight + across(weight, side));
    const float offset = static_cast<float>(spread_offset(step));
    float moment = offset * offset * weight;
#pragma unroll
    for (int32_t distance = side / 2; distance > 0; distance /= 2) {
        weight += across(weight, distance);
        moment += across(moment, distance);
    }
    return held_variance(moment / weight, rule);
}

template <class T> __device__ Peak warp_second(const Row<T>& row, Peak first, const SpreadRule& rule, int32_t lane) {
    Peak second = no_peak();
    const float limit = second_limit(first, rule);
    for (int32_t i = lane; i < row.n; i += WARP) second = merge<false>(second, second_at(row, i, row.at(i), first, limit));
    return warp_peak<false>(second);
}

template <class T> __device__ Row<T> row_of(const Logits& logits, const DecodeSpec& spec, int32_t joint, int32_t axis) {
    const int32_t n = axis == 0 ? spec.x_bins : axis == 1 ? spec.y_bins : spec.z_bins, k = joint % spec.joints;
    const T* own = static_cast<const T*>(axis == 0 ? logits.x : axis == 1 ? logits.y : logits.z) + static_cast<int64_t>(joint) * n;
    const T* mirrored = static_cast<const T*>(axis == 0 ? logits.mirrored_x : axis == 1 ? logits.mirrored_y : logits.mirrored_z);
    if (mirrored) mirrored += static_cast<int64_t>(joint - k + logits.partner[k]) * n;
    return {own, mirrored, n, axis == 0 ? spec.flip_shift : 0, axis == 0};
}

template <class T, bool with_sum, bool sure>
__device__ Found found_in(const Row<T>& row, const DecodeSpec& spec, int32_t axis, int32_t lane, bool packed) {
    Found found = {warp_peak<with_sum>(lane_peak<T, with_sum>(row, lane, packed)), 0.0, 0.0f, 0.0};
    if (sure && axis < 2) {
        if (spec.spread) found.variance = warp_variance(row, found.peak, spec.rule, lane);
        if (spec.second) {
            const Peak second = warp_second(row, found.peak, spec.rule, lane);
            found.second = second.bin == NO_BIN ? float_from_bits(NAN_BITS) : crop_coordinate(row, second, spec.refine, spec.split_ratio);
        }
    }
    if (lane == 0) found.coordinate = crop_coordinate(row, found.peak, spec.refine, ratio_of(spec, axis));
    return found;
}

// `sure`: with spread or second peak.
template <class T, bool with_sum, bool sure>
__global__ void __launch_bounds__(MAX_THREADS)
    decode_kernel(float* out, Logits logits, const float* affines, int32_t joints, DecodeSpec spec, bool packed) {
    __shared__ Found found[JOINTS_PER_BLOCK][MAX_AXES];
    const int32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, axes = spec.z_bins > 0 ? 3 : 2;
    const int32_t slot = warp / axes, axis = warp % axes, joint = blockIdx.x * JOINTS_PER_BLOCK + slot;
    if (joint < joints) {
        const Found row = found_in<T, with_sum, sure>(row_of<T>(logits, spec, joint, axis), spec, axis, lane, packed);
        if (lane == 0) found[slot][axis] = row;
    }
    __syncthreads();
    if (joint < joints && axis == 0 && lane == 0)
        write_joint(out + static_cast<int64_t>(joint) * columns_of(spec), found[slot], spec, affines + 6 * static_cast<int64_t>(joint / spec.joints));
}

template <class T> bool rows_packed(const Logits& logits, const DecodeSpec& spec) {
    const uintptr_t addresses = reinterpret_cast<uintptr_t>(logits.x) | reinterpret_cast<uintptr_t>(logits.y) | reinterpret_cast<uintptr_t>(logits.z);
    return !logits.mirrored_x && addresses % 16 == 0 && (spec.x_bins | spec.y_bins | spec.z_bins) % PACK<T> == 0;
}

template <class T, bool with_sum>
void launch(float* out, const Logits& logits, const float* affines, int32_t joints, const DecodeSpec& spec, cudaStream_t stream) {
    const bool packed = rows_packed<T>(logits, spec);
    const int32_t blocks = (joints + JOINTS_PER_BLOCK - 1) / JOINTS_PER_BLOCK;
    const int32_t threads = (spec.z_bins > 0 ? 3 : 2) * JOINTS_PER_BLOCK * WARP;
    if (spec.spread || spec.second)
        decode_kernel<T, with_sum, true><<<blocks, threads, 0, stream>>>(out, logits, affines, joints, spec, packed);
    else
        decode_kernel<T, with_sum, false><<<blocks, threads, 0, stream>>>(out, logits, affines, joints, spec, packed);
}

template <class T> void launch(float* out, const Logits& logits, const float* affines, int32_t joints, const DecodeSpec& spec, cudaStream_t stream) {
    if (spec.score == Score::min_softmax) launch<T, true>(out, logits, affines, joints, spec, stream);
    else launch<T, false>(out, logits, affines, joints, spec, stream);
}

}  // namespace

const char* decode(float* out, const Logits& logits, const float* affines, int32_t count, const DecodeSpec& spec,
                   Stream stream) {
    const int32_t joints = count * spec.joints;
    if (joints == 0) return nullptr;
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    if (spec.half) launch<Half>(out, logits, affines, joints, spec, on);
    else launch<float>(out, logits, affines, joints, spec, on);
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace cuda
}  // namespace sdk

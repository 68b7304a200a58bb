// cuda/decode.cu: all joints of all persons in one launch. The mathematics is in shared/decode_math.h.
//
// A warp reduces a row; the warps of a joint's x and y lie in one block, so that the joint is written without a second
// pass. Logits are read once, 16 bytes a lane where rows are aligned; the softmax sum is merged along with the maximum.
// The window of the refinement is read again, from the cache.
// Rows of the catalogue have 128 bins or more, a full warp of 16-byte loads; sub-warps for shorter rows would never run.

#include <cuda_runtime.h>

#include "../sdk_ops.h"

namespace sdk {
namespace cuda {
namespace {

constexpr int32_t WARP = 32;
constexpr int32_t JOINTS_PER_BLOCK = 2;  // 4 warps: 68 blocks for 8 persons of 17 joints, 9 for one
constexpr int32_t THREADS = 2 * JOINTS_PER_BLOCK * WARP;

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
        const Peak other = {__shfl_xor_sync(0xffffffffu, peak.value, distance),
                            __shfl_xor_sync(0xffffffffu, peak.bin, distance),
                            with_sum ? __shfl_xor_sync(0xffffffffu, peak.sum, distance) : peak.sum};
        peak = merge<with_sum>(peak, other);
    }
    return peak;
}

template <class T> __device__ Row<T> row_of(const Logits& logits, const DecodeSpec& spec, int32_t joint, bool is_y) {
    const int32_t n = is_y ? spec.y_bins : spec.x_bins, k = joint % spec.joints;
    const T* own = static_cast<const T*>(is_y ? logits.y : logits.x) + static_cast<int64_t>(joint) * n;
    const T* mirrored = static_cast<const T*>(is_y ? logits.mirrored_y : logits.mirrored_x);
    if (mirrored) mirrored += static_cast<int64_t>(joint - k + logits.partner[k]) * n;
    return {own, mirrored, n, is_y ? 0 : spec.flip_shift, !is_y};
}

template <class T, bool with_sum>
__global__ void __launch_bounds__(THREADS)
    decode_kernel(float* out, Logits logits, const float* affines, int32_t joints, DecodeSpec spec, bool packed) {
    __shared__ double coordinates[2 * JOINTS_PER_BLOCK];
    __shared__ Peak peaks[2 * JOINTS_PER_BLOCK];
    const int32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int32_t joint = blockIdx.x * JOINTS_PER_BLOCK + warp / 2;
    if (joint < joints) {
        const Row<T> row = row_of<T>(logits, spec, joint, warp % 2);
        const Peak peak = warp_peak<with_sum>(lane_peak<T, with_sum>(row, lane, packed));
        if (lane == 0) {
            coordinates[warp] = crop_coordinate(row, peak, spec.refine, spec.split_ratio);
            peaks[warp] = peak;
        }
    }
    __syncthreads();
    if (joint < joints && warp % 2 == 0 && lane == 0)
        write_joint(out + 3 * static_cast<int64_t>(joint), coordinates[warp], coordinates[warp + 1],
                    joint_score(peaks[warp], peaks[warp + 1], spec.score), affines + 6 * static_cast<int64_t>(joint / spec.joints));
}

template <class T> bool rows_packed(const Logits& logits, const DecodeSpec& spec) {
    const uintptr_t addresses = reinterpret_cast<uintptr_t>(logits.x) | reinterpret_cast<uintptr_t>(logits.y);
    return !logits.mirrored_x && addresses % 16 == 0 && spec.x_bins % PACK<T> == 0 && spec.y_bins % PACK<T> == 0;
}

template <class T>
void launch(float* out, const Logits& logits, const float* affines, int32_t joints, const DecodeSpec& spec, cudaStream_t stream) {
    const bool packed = rows_packed<T>(logits, spec);
    const int32_t blocks = (joints + JOINTS_PER_BLOCK - 1) / JOINTS_PER_BLOCK;
    if (spec.score == Score::min_softmax)
        decode_kernel<T, true><<<blocks, THREADS, 0, stream>>>(out, logits, affines, joints, spec, packed);
    else
        decode_kernel<T, false><<<blocks, THREADS, 0, stream>>>(out, logits, affines, joints, spec, packed);
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

// cuda/crop.cu: all persons' crops in one launch. The mathematics is in shared/crop_math.h.
//
// A block of 16 x 16 threads makes a tile of 64 x 16 pixels of one person, a thread 4 neighbouring pixels: one 16-byte
// (half: 8-byte) store per plane. 64 divides the catalogue's widths 64, 128 and 192; 288 wastes a tenth.
// The six bytes of two neighbouring taps come as two or three aligned 32-bit loads and a funnel shift in place of six
// byte loads. Near the frame's border taps are checked and read byte by byte.
//
// Refused, in words: more than 65535 crops in one launch (the grid's z).

#include <cuda_runtime.h>

#include "../sdk_ops.h"

namespace sdk {
namespace cuda {
namespace {

constexpr int32_t PIXELS = TAP_COLUMNS;           // per thread
constexpr int32_t BLOCK_X = 16, BLOCK_Y = 16;
constexpr int32_t TILE_X = BLOCK_X * PIXELS, TILE_Y = BLOCK_Y;
constexpr int32_t MAX_CROPS = 65535;

// ---- taps ------------------------------------------------------------------------------------------------------

struct TapPair {
    Colour<float> left, right;
};

__device__ __forceinline__ float byte_of(uint32_t word, int shift) { return static_cast<float>((word >> shift) & 255u); }

__device__ __forceinline__ bool inside(int32_t x, int32_t y, const Frame& frame) {
    return x >= 0 && x < frame.width && y >= 0 && y < frame.height;
}

__device__ __forceinline__ Colour<float> outside(const CropSpec& spec) {
    return {spec.border_grey[0], spec.border_grey[1], spec.border_grey[2]};
}

struct Packed {
    // Six bytes from p on. Reads aligned words within [p - 3, p + 9).
    static __device__ __forceinline__ TapPair pair(const uint8_t* p) {
        const uint32_t offset = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(p)) & 3u;
        const uint32_t* words = reinterpret_cast<const uint32_t*>(p - offset);
        const uint32_t w0 = __ldg(words), w1 = __ldg(words + 1), w2 = offset == 3 ? __ldg(words + 2) : 0u;
        const uint32_t low = __funnelshift_r(w0, w1, 8 * offset), high = __funnelshift_r(w1, w2, 8 * offset);
        return {{byte_of(low, 0), byte_of(low, 8), byte_of(low, 16)}, {byte_of(low, 24), byte_of(high, 0), byte_of(high, 8)}};
    }
    static __device__ __forceinline__ Colour<float> tap(const Frame& frame, const CropSpec& spec, int32_t x, int32_t y) {
        if (!inside(x, y, frame)) return outside(spec);
        const uint8_t* p = frame.data + y * frame.stride + 3 * static_cast<int64_t>(x);
        return {static_cast<float>(__ldg(p)), static_cast<float>(__ldg(p + 1)), static_cast<float>(__ldg(p + 2))};
    }
    static __device__ __forceinline__ TapPair taps(const Frame& frame, const CropSpec& spec, int32_t x, int32_t y) {
        const bool safe = x >= 1 && x + 3 <= frame.width && y >= 0 && y < frame.height;
        if (safe) return pair(frame.data + y * frame.stride + 3 * static_cast<int64_t>(x));
        return {tap(frame, spec, x, y), tap(frame, spec, x + 1, y)};
    }
};

struct Nv12 {
    static __device__ __forceinline__ Colour<float> tap(const Frame& frame, const CropSpec& spec, int32_t x, int32_t y) {
        if (!inside(x, y, frame)) return outside(spec);
        const uint8_t* c = frame.chroma + (y >> 1) * frame.chroma_stride + (x & ~1);
        const float luma = static_cast<float>(__ldg(frame.data + y * frame.stride + x));
        return rgb_from_yuv<float>({luma, static_cast<float>(__ldg(c)), static_cast<float>(__ldg(c + 1))}, spec.yuv);
    }
    static __device__ __forceinline__ TapPair taps(const Frame& frame, const CropSpec& spec, int32_t x, int32_t y) {
        return {tap(frame, spec, x, y), tap(frame, spec, x + 1, y)};
    }
};

// ---- stores ----------------------------------------------------------------------------------------------------

__device__ __forceinline__ void store_all(float* to, const float* values) {
    *reinterpret_cast<float4*>(to) = make_float4(values[0], values[1], values[2], values[3]);
}
__device__ __forceinline__ void store_all(__half* to, const float* values) {
    const __half2 low = __floats2half2_rn(values[0], values[1]), high = __floats2half2_rn(values[2], values[3]);
    uint2 words;
    memcpy(&words.x, &low, 4);
    memcpy(&words.y, &high, 4);
    *reinterpret_cast<uint2*>(to) = words;
}
__device__ __forceinline__ void store_one(float* to, float value) { *to = value; }
__device__ __forceinline__ void store_one(__half* to, float value) { *to = __float2half_rn(value); }

template <class Out>
__device__ __forceinline__ void store_pixels(Out* to, const float* values, int32_t n, bool aligned) {
    if (aligned) return store_all(to, values);
#pragma unroll
    for (int32_t i = 0; i < PIXELS; i++)
        if (i < n) store_one(to + i, values[i]);
}

// ---- kernel ----------------------------------------------------------------------------------------------------

// What a block's threads have in common, read once: on a Jetson it lies in host memory, which the GPU does not cache.
struct Task {
    Frame frame;
    FixedAffine affine;
};

__device__ __forceinline__ Task shared_task(const Frame& by_value, const Frame* on_device, const float* affine) {
    __shared__ Task task;
    if (threadIdx.x == 0 && threadIdx.y == 0) task = {on_device ? *on_device : by_value, fixed_from_affine(affine)};
    __syncthreads();
    return task;
}

template <class Source, class Out>
__global__ void __launch_bounds__(BLOCK_X * BLOCK_Y)
    crop_kernel(Out* out, Frame by_value, const Frame* on_device, const float* affines, CropSpec spec, bool aligned) {
    const auto [frame, affine] = shared_task(by_value, on_device ? on_device + blockIdx.z : nullptr, affines + 6 * blockIdx.z);
    const int32_t column = blockIdx.x * TILE_X + threadIdx.x * PIXELS, row = blockIdx.y * TILE_Y + threadIdx.y;
    if (column >= spec.width || row >= spec.height) return;
    int64_t x = affine.x0 + column * affine.xx + row * affine.xy;
    int64_t y = affine.y0 + column * affine.yx + row * affine.yy;
    float values[3][PIXELS];
#pragma unroll
    for (int32_t i = 0; i < PIXELS; i++, x += affine.xx, y += affine.yx) {
        Colour<float> grey = outside(spec);
        if (affine.usable) {
            const int32_t x0 = whole_part(x), y0 = whole_part(y);
            const float u = static_cast<float>(fraction24(x)) * FRACTION_UNIT;
            const float v = static_cast<float>(fraction24(y)) * FRACTION_UNIT;
            const TapPair top = Source::taps(frame, spec, x0, y0), bottom = Source::taps(frame, spec, x0, y0 + 1);
            grey.c0 = bilinear(top.left.c0, top.right.c0, bottom.left.c0, bottom.right.c0, u, v);
            grey.c1 = bilinear(top.left.c1, top.right.c1, bottom.left.c1, bottom.right.c1, u, v);
            grey.c2 = bilinear(top.left.c2, top.right.c2, bottom.left.c2, bottom.right.c2, u, v);
        }
        values[0][i] = grey.c0 * spec.scale[0] + spec.bias[0];
        values[1][i] = grey.c1 * spec.scale[1] + spec.bias[1];
        values[2][i] = grey.c2 * spec.scale[2] + spec.bias[2];
    }
    const int64_t plane = static_cast<int64_t>(spec.height) * spec.width;
    Out* to = out + 3 * plane * blockIdx.z + static_cast<int64_t>(row) * spec.width + column;
#pragma unroll
    for (int32_t channel = 0; channel < 3; channel++)
        store_pixels(to + plane * spec.plane[channel], values[channel], spec.width - column, aligned);
}

// ---- launcher --------------------------------------------------------------------------------------------------

template <class Source, class Out>
void launch(void* out, const Frame& frame, const Frame* on_device, const float* affines, int32_t count,
            const CropSpec& spec, cudaStream_t stream) {
    const bool aligned = spec.width % PIXELS == 0 && reinterpret_cast<uintptr_t>(out) % (PIXELS * sizeof(Out)) == 0;
    const dim3 grid((spec.width + TILE_X - 1) / TILE_X, (spec.height + TILE_Y - 1) / TILE_Y, count);
    crop_kernel<Source, Out><<<grid, dim3(BLOCK_X, BLOCK_Y), 0, stream>>>(static_cast<Out*>(out), frame, on_device, affines, spec, aligned);
}

}  // namespace

const char* crop(void* out, const Frame& frame, const Frame* on_device, bool nv12, const float* affines, int32_t count,
                 const CropSpec& spec, Stream stream) {
    if (count == 0 || spec.height == 0 || spec.width == 0) return nullptr;
    if (count > MAX_CROPS) return "one launch makes at most 65535 crops";
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    if (nv12 && spec.half) launch<Nv12, __half>(out, frame, on_device, affines, count, spec, on);
    else if (nv12) launch<Nv12, float>(out, frame, on_device, affines, count, spec, on);
    else if (spec.half) launch<Packed, __half>(out, frame, on_device, affines, count, spec, on);
    else launch<Packed, float>(out, frame, on_device, affines, count, spec, on);
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace cuda
}  // namespace sdk

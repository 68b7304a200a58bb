// shared/portable.h: what lets one inline function serve the C++ compiler and nvcc.
//
// SDK_FN marks a function of internal linkage that is always inlined. Internal, because the CPU kernels are compiled
// once per instruction set: a shared weak symbol could bring AVX-512 code to a machine without it.
//
// All arithmetic here is plain IEEE-754 multiply and add; the build switches contraction to fused multiply-add off
// (-ffp-contract=off, nvcc -fmad=false), so that every instruction set and every GPU rounds alike.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__F16C__) && !defined(__CUDACC__)
#include <immintrin.h>
#endif

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#define SDK_FN static __host__ __device__ __forceinline__
#define SDK_MEMBER __host__ __device__ __forceinline__
#else
#define SDK_FN static inline __attribute__((always_inline))
#define SDK_MEMBER inline __attribute__((always_inline))
#endif

namespace sdk {

// IEEE binary16 as its bits: storage only, arithmetic is in float.
struct Half {
    uint16_t bits;
};

SDK_FN float float_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

SDK_FN float select(bool condition, float yes, float no) { return condition ? yes : no; }
SDK_FN int32_t int_from_float(float value) { return static_cast<int32_t>(value); }
SDK_FN float float_from_int(int32_t value) { return static_cast<float>(value); }
SDK_FN float power_of_two(int32_t exponent) { return float_from_bits(static_cast<uint32_t>(exponent + 127) << 23); }

SDK_FN float as_float(float value) { return value; }

SDK_FN float as_float(Half half) {
#if defined(__CUDA_ARCH__)
    return __half2float(__ushort_as_half(half.bits));
#elif defined(__F16C__) && !defined(__CUDACC__)
    return _cvtsh_ss(half.bits);
#else
    const uint32_t sign = static_cast<uint32_t>(half.bits & 0x8000u) << 16;
    const uint32_t rest = half.bits & 0x7fffu;
    if (rest < 0x0400u) {  // zero and subnormal: rest * 2^-24
        const float magnitude = static_cast<float>(rest) * 5.9604644775390625e-08f;
        return sign ? -magnitude : magnitude;
    }
    const uint32_t rebias = rest >= 0x7c00u ? 224u << 23 : 112u << 23;
    return float_from_bits(sign | ((rest << 13) + rebias));
#endif
}

}  // namespace sdk

#if !defined(__CUDACC__)
#include "../cpu/vector.h"  // its overloads must be known before the templates that use them
#endif

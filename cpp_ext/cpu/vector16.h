// cpu/vector16.h: sixteen floats at a time, in the compilers' own vector extension (GCC, Clang).
//
// One width for every instruction set: the compiler splits it into 4 SSE or NEON, 2 AVX2 or 1 AVX-512 register. Lane
// sums therefore run in one order everywhere, and results do not depend on the machine.

#pragma once

#include "../shared/portable.h"

#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace sdk {

constexpr int LANES = 16;
typedef float F16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));
typedef uint32_t U16 __attribute__((vector_size(64)));
typedef uint16_t H16 __attribute__((vector_size(32)));

template <class V, class T> SDK_FN V load(const T* from) {
    V value;
    memcpy(&value, from, sizeof value);
    return value;
}

template <class V, class T> SDK_FN void store(T* to, V value) { memcpy(to, &value, sizeof value); }

SDK_FN F16 select(I16 condition, F16 yes, F16 no) { return condition ? yes : no; }
SDK_FN I16 int_from_float(F16 value) { return __builtin_convertvector(value, I16); }
SDK_FN F16 float_from_int(I16 value) { return __builtin_convertvector(value, F16); }
SDK_FN F16 power_of_two(I16 exponent) { return reinterpret_cast<F16>((exponent + 127) << 23); }
SDK_FN F16 splat(float value) { return F16{} + value; }
SDK_FN I16 count_up() { return I16{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }

#if defined(__clang__)
#define SDK_EVEN(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define SDK_ODD(a, b) __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
SDK_FN F16 reverse(F16 v) { return __builtin_shufflevector(v, v, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0); }
#else
#define SDK_EVEN(a, b) __builtin_shuffle(a, b, U16{0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30})
#define SDK_ODD(a, b) __builtin_shuffle(a, b, U16{1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31})
SDK_FN F16 reverse(F16 v) { return __builtin_shuffle(v, U16{15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}); }
#endif

// Round to the nearest half, ties to even; overflow gives infinity, NaN stays NaN.
SDK_FN H16 half_from_float(F16 value) {
#if defined(__AVX512F__)
    return reinterpret_cast<H16>(_mm512_cvtps_ph(reinterpret_cast<__m512>(value), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
    struct { __m256 low, high; } parts;
    memcpy(&parts, &value, sizeof parts);
    struct { __m128i low, high; } halves = {_mm256_cvtps_ph(parts.low, _MM_FROUND_TO_NEAREST_INT),
                                            _mm256_cvtps_ph(parts.high, _MM_FROUND_TO_NEAREST_INT)};
    H16 result;
    memcpy(&result, &halves, sizeof result);
    return result;
#else
    const U16 bits = reinterpret_cast<U16>(value), magnitude = bits & 0x7fffffffu, sign = (bits >> 16) & 0x8000u;
    const U16 rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    const U16 normal = (rounded - 0x38000000u) >> 13;
    const U16 subnormal = reinterpret_cast<U16>(reinterpret_cast<F16>(magnitude) + 0.5f) - 0x3f000000u;
    U16 half = magnitude < 0x38800000u ? subnormal : normal;
    half = rounded >= 0x47800000u ? U16{} + 0x7c00u : half;
    half = magnitude > 0x7f800000u ? U16{} + 0x7e00u : half;
    return __builtin_convertvector(half | sign, H16);
#endif
}

SDK_FN F16 float_from_half(H16 half) {
#if defined(__AVX512F__)
    return reinterpret_cast<F16>(_mm512_cvtph_ps(reinterpret_cast<__m256i>(half)));
#elif defined(__F16C__)
    struct { __m128i low, high; } halves;
    memcpy(&halves, &half, sizeof halves);
    struct { __m256 low, high; } parts = {_mm256_cvtph_ps(halves.low), _mm256_cvtph_ps(halves.high)};
    F16 result;
    memcpy(&result, &parts, sizeof result);
    return result;
#else
    const U16 wide = __builtin_convertvector(half, U16), sign = (wide & 0x8000u) << 16, rest = wide & 0x7fffu;
    const U16 rebias = rest >= 0x7c00u ? U16{} + (224u << 23) : U16{} + (112u << 23);
    const F16 subnormal = __builtin_convertvector(reinterpret_cast<I16>(rest), F16) * 5.9604644775390625e-08f;
    const U16 bits = rest < 0x0400u ? reinterpret_cast<U16>(subnormal) : (rest << 13) + rebias;
    return reinterpret_cast<F16>(bits | sign);
#endif
}

SDK_FN F16 load_logits(const float* from) { return load<F16>(from); }
SDK_FN F16 load_logits(const Half* from) { return float_from_half(load<H16>(from)); }
SDK_FN void store_pixels(float* to, F16 value) { store(to, value); }
SDK_FN void store_pixels(Half* to, F16 value) { store(to, half_from_float(value)); }

}  // namespace sdk

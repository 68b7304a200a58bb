// cpu/vector.h: as many floats at a time as one register of the instruction set holds, in the compilers' own vector
// extension (GCC, Clang). shared/ is written for a float and for Floats alike, through the overloads below.
//
// The width is the register's: GCC 12 lowers wider vectors piece by piece through memory, which was measured to cost a
// factor of 4 on AVX2.

#pragma once

#include "../shared/portable.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace sdk {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;  // SSE2, NEON
#endif

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

template <class V, class T> SDK_FN V load(const T* from) {
    V value;
    memcpy(&value, from, sizeof value);
    return value;
}

template <class V, class T> SDK_FN void store(T* to, V value) { memcpy(to, &value, sizeof value); }

SDK_FN Floats select(Ints condition, Floats yes, Floats no) { return condition ? yes : no; }
SDK_FN Ints int_from_float(Floats value) { return __builtin_convertvector(value, Ints); }
SDK_FN Floats float_from_int(Ints value) { return __builtin_convertvector(value, Floats); }
SDK_FN Floats power_of_two(Ints exponent) { return reinterpret_cast<Floats>((exponent + 127) << 23); }
SDK_FN Floats splat(float value) { return Floats{} + value; }

SDK_FN Ints count_up() {
    Ints lanes = {};
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = lane;
    return lanes;
}

// Every second 32-bit word of a, then of b, from the first (even) or the second (odd) on.
#if defined(__AVX512F__)
SDK_FN Words words_of(__m512i value) { return reinterpret_cast<Words>(value); }
SDK_FN __m512i bits_of(Words value) { return reinterpret_cast<__m512i>(value); }
SDK_FN Words even(Words a, Words b) {
    const Ints lanes = count_up() * 2;
    return words_of(_mm512_permutex2var_epi32(bits_of(a), reinterpret_cast<__m512i>(lanes), bits_of(b)));
}
SDK_FN Words odd(Words a, Words b) {
    const Ints lanes = count_up() * 2 + 1;
    return words_of(_mm512_permutex2var_epi32(bits_of(a), reinterpret_cast<__m512i>(lanes), bits_of(b)));
}
SDK_FN Floats reversed(Floats value) {
    const Ints lanes = 15 - count_up();
    return reinterpret_cast<Floats>(_mm512_permutexvar_epi32(reinterpret_cast<__m512i>(lanes), reinterpret_cast<__m512i>(value)));
}
#elif defined(__AVX2__)
template <int pick> SDK_FN Words every_second(Words a, Words b) {
    const __m256 pairs = _mm256_shuffle_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), pick);
    return reinterpret_cast<Words>(_mm256_permute4x64_epi64(reinterpret_cast<__m256i>(pairs), 0xd8));
}
SDK_FN Words even(Words a, Words b) { return every_second<0x88>(a, b); }
SDK_FN Words odd(Words a, Words b) { return every_second<0xdd>(a, b); }
SDK_FN Floats reversed(Floats value) {
    const Ints lanes = 7 - count_up();
    return reinterpret_cast<Floats>(_mm256_permutevar8x32_epi32(reinterpret_cast<__m256i>(value), reinterpret_cast<__m256i>(lanes)));
}
#elif defined(__clang__)
SDK_FN Words even(Words a, Words b) { return __builtin_shufflevector(a, b, 0, 2, 4, 6); }
SDK_FN Words odd(Words a, Words b) { return __builtin_shufflevector(a, b, 1, 3, 5, 7); }
SDK_FN Floats reversed(Floats value) { return __builtin_shufflevector(value, value, 3, 2, 1, 0); }
#else
SDK_FN Words even(Words a, Words b) { return __builtin_shuffle(a, b, Words{0, 2, 4, 6}); }
SDK_FN Words odd(Words a, Words b) { return __builtin_shuffle(a, b, Words{1, 3, 5, 7}); }
SDK_FN Floats reversed(Floats value) { return __builtin_shuffle(value, Words{3, 2, 1, 0}); }
#endif

// The larger of each lane; b where either is NaN. `largest_lane` is for lanes without NaN. Bit i of `lanes_where` is lane i.
#if defined(__AVX512F__)
SDK_FN Floats larger(Floats a, Floats b) { return reinterpret_cast<Floats>(_mm512_max_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b))); }
SDK_FN float largest_lane(Floats a) { return _mm512_reduce_max_ps(reinterpret_cast<__m512>(a)); }
SDK_FN uint32_t lanes_where(Ints condition) { return _mm512_movepi32_mask(reinterpret_cast<__m512i>(condition)); }
#else
#if defined(__AVX2__)
SDK_FN Floats larger(Floats a, Floats b) { return reinterpret_cast<Floats>(_mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b))); }
SDK_FN uint32_t lanes_where(Ints condition) { return _mm256_movemask_ps(reinterpret_cast<__m256>(condition)); }
#elif defined(__SSE2__)
SDK_FN Floats larger(Floats a, Floats b) { return reinterpret_cast<Floats>(_mm_max_ps(reinterpret_cast<__m128>(a), reinterpret_cast<__m128>(b))); }
SDK_FN uint32_t lanes_where(Ints condition) { return _mm_movemask_ps(reinterpret_cast<__m128>(condition)); }
#else
SDK_FN Floats larger(Floats a, Floats b) { return select(a > b, a, b); }
SDK_FN uint32_t lanes_where(Ints condition) {
    uint32_t bits = 0;
    for (int lane = 0; lane < LANES; lane++) bits |= (condition[lane] & 1u) << lane;
    return bits;
}
#endif
SDK_FN float largest_lane(Floats a) {
    float largest = a[0];
    for (int lane = 1; lane < LANES; lane++) largest = a[lane] > largest ? a[lane] : largest;
    return largest;
}
#endif

// Round to the nearest half, ties to even; overflow gives infinity, NaN stays NaN.
#if defined(__AVX512F__)
SDK_FN Halves half_from_float(Floats value) {
    const __m512 from = reinterpret_cast<__m512>(value);
    return reinterpret_cast<Halves>(_mm512_maskz_cvtps_ph(0xffff, from, _MM_FROUND_TO_NEAREST_INT));
}
SDK_FN Floats float_from_half(Halves half) {
    return reinterpret_cast<Floats>(_mm512_maskz_cvtph_ps(0xffff, reinterpret_cast<__m256i>(half)));
}
#elif defined(__AVX2__)
SDK_FN Halves half_from_float(Floats value) {
    return reinterpret_cast<Halves>(_mm256_cvtps_ph(reinterpret_cast<__m256>(value), _MM_FROUND_TO_NEAREST_INT));
}
SDK_FN Floats float_from_half(Halves half) {
    return reinterpret_cast<Floats>(_mm256_cvtph_ps(reinterpret_cast<__m128i>(half)));
}
#else
SDK_FN Halves half_from_float(Floats value) {
    const Words bits = reinterpret_cast<Words>(value), magnitude = bits & 0x7fffffffu, sign = (bits >> 16) & 0x8000u;
    const Words rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    const Words normal = (rounded - 0x38000000u) >> 13;
    const Words subnormal = reinterpret_cast<Words>(reinterpret_cast<Floats>(magnitude) + 0.5f) - 0x3f000000u;
    Words half = magnitude < 0x38800000u ? subnormal : normal;
    half = rounded >= 0x47800000u ? Words{} + 0x7c00u : half;
    half = magnitude > 0x7f800000u ? Words{} + 0x7e00u : half;
    return __builtin_convertvector(half | sign, Halves);
}
SDK_FN Floats float_from_half(Halves half) {
    const Words wide = __builtin_convertvector(half, Words), sign = (wide & 0x8000u) << 16, rest = wide & 0x7fffu;
    const Words rebias = rest >= 0x7c00u ? Words{} + (224u << 23) : Words{} + (112u << 23);
    const Floats subnormal = __builtin_convertvector(reinterpret_cast<Ints>(rest), Floats) * 5.9604644775390625e-08f;
    const Words bits = rest < 0x0400u ? reinterpret_cast<Words>(subnormal) : (rest << 13) + rebias;
    return reinterpret_cast<Floats>(bits | sign);
}
#endif

SDK_FN Floats load_logits(const float* from) { return load<Floats>(from); }
SDK_FN Floats load_logits(const Half* from) { return float_from_half(load<Halves>(from)); }
SDK_FN void store_pixels(float* to, Floats value) { store(to, value); }
SDK_FN void store_pixels(Half* to, Floats value) { store(to, half_from_float(value)); }

}  // namespace sdk

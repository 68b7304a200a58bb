// Which vector instructions the processor has and the operating system saves the registers of, by cpuid.
//
// Not by __builtin_cpu_supports: under zig's compiler, with which the wheels are made, it is always 0, and GCC 10 does
// not know "f16c" in it. x86_64 only.
#pragma once

#include <cpuid.h>

#include <cstdint>

namespace sdk::cpu {

struct Vectors {
    bool avx2 = false;    // with f16c, which the kernels of that name use too
    bool avx512 = false;  // f, bw, vl and dq
};

inline Vectors vectors() {
    constexpr uint32_t YMM = 0x06, ZMM = 0xe6;  // bits of XCR0: registers that a change of threads saves
    constexpr uint32_t NEEDED = bit_AVX | bit_F16C | bit_OSXSAVE;
    constexpr uint32_t FOUR = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    uint32_t a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & NEEDED) != NEEDED) return {};
    uint32_t saved = 0, high = 0;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    if ((saved & YMM) != YMM || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return {};
    const bool avx2 = (b & bit_AVX2) != 0;
    return {avx2, avx2 && (saved & ZMM) == ZMM && (b & FOUR) == FOUR};
}

}  // namespace sdk::cpu

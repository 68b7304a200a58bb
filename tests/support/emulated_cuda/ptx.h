// The PTX instructions that nvcc makes of cpp_ext/cuda, as the PTX ISA defines them; ptx.py writes the calls. Names in
// quotes are sections of the PTX ISA.
//
// A function is named after its instruction, with _ for a dot and the types as template arguments: `setp.lt.s32 p, a, b`
// is setp_lt<s32>(p, a, b). What is not here does not compile: no instruction is skipped. A register is its bits, an
// unsigned integer of its width, or a bool. Addresses come first, {braces} are dropped. A NaN's payload is this
// machine's.
//
// Compile with -fno-operator-names (and, or, xor and not are instructions) and -fwrapv (signed integers wrap).
#pragma once

#include <cmath>
#include <type_traits>

#include "cuda_runtime.h"

namespace {

using pred = bool;
using b16 = uint16_t;
using b32 = uint32_t;
using b64 = uint64_t;
using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using s8 = int8_t;
using s16 = int16_t;
using s32 = int32_t;
using s64 = int64_t;
using f16 = __half;
using f16x2 = __half2;
using f32 = float;
using f64 = double;

const dim3 &$tid = threadIdx, &$ctaid = blockIdx;

// ---- registers -------------------------------------------------------------------------------------------------

template <size_t bytes>
using Unsigned = std::conditional_t<bytes == 1, uint8_t, std::conditional_t<bytes == 2, uint16_t,
                 std::conditional_t<bytes == 4, uint32_t, uint64_t>>>;
template <class T> using bits = std::conditional_t<std::is_same_v<T, bool>, bool, Unsigned<sizeof(T)>>;

template <class To, class From> To as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

// A wider register takes an integer sign- or zero-extended ("Operand Size Exceeding Instruction-Type Size").
template <class R, class T> void put(R& d, T value) {
    if constexpr (std::is_integral_v<T>) d = static_cast<R>(value);
    else d = as<R>(value);
}

// ---- arithmetic, logic, comparison ------------------------------------------------------------------------------

#define UNARY(name, expression)                           \
    template <class T> void name(bits<T>& d, bits<T> x) { \
        const T a = as<T>(x);                             \
        d = as<bits<T>>(static_cast<T>(expression));      \
    }
#define BINARY(name, kind, expression)                                 \
    template <class T, class = std::enable_if_t<std::is_##kind##_v<T>>> \
    void name(bits<T>& d, bits<T> x, bits<T> y) {                       \
        const T a = as<T>(x), b = as<T>(y);                             \
        d = as<bits<T>>(static_cast<T>(expression));                    \
    }
#define COMPARISON(name, expression)                              \
    template <class T> void name(bool& p, bits<T> x, bits<T> y) { \
        const T a = as<T>(x), b = as<T>(y);                       \
        p = expression;                                           \
    }

UNARY(mov, a)
UNARY(cvta_to_global, a)  // generic addresses are global ones here
UNARY(neg, -a)
UNARY(abs, std::abs(a))
UNARY(not, a ^ static_cast<T>(-1))
UNARY(rcp_rn, 1 / a)
UNARY(sqrt_rn, std::sqrt(a))

BINARY(add, integral, a + b)  // of floats: add_rn alone; one without .rn may be fused
BINARY(sub, integral, a - b)
BINARY(mul_lo, integral, a * b)
BINARY(div, integral, a / b)
BINARY(rem, integral, a % b)
BINARY(min, integral, a < b ? a : b)
BINARY(max, integral, a > b ? a : b)
BINARY(and, integral, a & b)
BINARY(or, integral, a | b)
BINARY(xor, integral, a ^ b)
BINARY(copysign, floating_point, std::copysign(b, a))  // the sign is the first one's
BINARY(add_rn, floating_point, a + b)
BINARY(sub_rn, floating_point, a - b)
BINARY(mul_rn, floating_point, a * b)
BINARY(div_rn, floating_point, a / b)

// A comparison with NaN is false, and true with the letter u ("Floating Point Comparisons").
COMPARISON(setp_eq, a == b)
COMPARISON(setp_ne, a < b || a > b)
COMPARISON(setp_lt, a < b)
COMPARISON(setp_le, a <= b)
COMPARISON(setp_gt, a > b)
COMPARISON(setp_ge, a >= b)
COMPARISON(setp_equ, !(a < b || a > b))
COMPARISON(setp_neu, !(a == b))
COMPARISON(setp_ltu, !(a >= b))
COMPARISON(setp_leu, !(a > b))
COMPARISON(setp_gtu, !(a <= b))
COMPARISON(setp_geu, !(a < b))
COMPARISON(setp_num, a == a && b == b)
COMPARISON(setp_nan, a != a || b != b)

template <class T> using Wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;

template <class T> void mul_wide(Unsigned<2 * sizeof(T)>& d, bits<T> a, bits<T> b) {
    d = static_cast<Wide<T>>(as<T>(a)) * static_cast<Wide<T>>(as<T>(b));
}
template <class T> void mad_lo(bits<T>& d, bits<T> a, bits<T> b, bits<T> c) { d = a * b + c; }
template <class T> void selp(bits<T>& d, bits<T> a, bits<T> b, bool p) { d = p ? a : b; }

// Amounts above the register's width are clamped to it ("shl", "shr"); those of shf.wrap are taken modulo 32.
template <class T> void shl(bits<T>& d, bits<T> a, uint32_t n) { d = n < 8 * sizeof(T) ? a << n : 0; }
template <class T> void shr(bits<T>& d, bits<T> a, uint32_t n) {
    const T value = as<T>(a);
    d = n < 8 * sizeof(T) ? value >> n : value < 0 ? -1 : 0;
}
// `length` bits from bit `begin` on, none of them beyond the register ("bfe", of unsigned types).
template <class T> void bfe(bits<T>& d, bits<T> a, b32 begin, b32 length) {
    static_assert(std::is_unsigned_v<T>);
    constexpr uint32_t width = 8 * sizeof(T);
    begin &= 255, length &= 255;
    const T mask = length < width ? (T{1} << length) - 1 : ~T{0};
    d = begin < width ? a >> begin & mask : 0;
}
template <class T> void shf_r_wrap(b32& d, b32 low, b32 high, uint32_t n) { d = (b64{high} << 32 | low) >> (n & 31); }

// ---- conversion -------------------------------------------------------------------------------------------------

template <class To, class From> To converted(From a) {
    if constexpr (std::is_same_v<From, f16>) return __half2float(a);
    else if constexpr (std::is_same_v<To, f16>) return __float2half_rn(a);
    else return static_cast<To>(a);
}
template <class To, class From, class R> void cvt(R& d, bits<From> a) { put(d, converted<To>(as<From>(a))); }
template <class To, class From, class R> void cvt_rn(R& d, bits<From> a) { put(d, converted<To>(as<From>(a))); }
template <class To, class From> void cvt_rn(bits<To>& d, bits<From> high, bits<From> low) {
    d = as<bits<To>>(__floats2half2_rn(as<From>(low), as<From>(high)));
}
// Clamped to the integer's range; NaN becomes 0 ("cvt", integer notes; it does not in 64 bits).
template <class To, class From> void cvt_rzi(b32& d, b32 x) {
    static_assert(std::is_same_v<To, s32> && std::is_same_v<From, f32>);
    const float a = as<float>(x), limit = 2147483648.0f;
    d = a != a ? 0 : a < -limit ? INT32_MIN : a >= limit ? INT32_MAX : static_cast<int32_t>(a);
}

// Two registers as one of twice the width, and back: the first is the low half ("mov", packing and unpacking).
template <class T> using HalfOf = Unsigned<sizeof(T) / 2>;
template <class T> void mov(bits<T>& d, HalfOf<T> low, HalfOf<T> high) { d = bits<T>{high} << 4 * sizeof(T) | low; }
template <class T> void mov(HalfOf<T>& low, HalfOf<T>& high, bits<T> a) { low = a, high = a >> 4 * sizeof(T); }

// ---- memory -----------------------------------------------------------------------------------------------------

// An address, and the line of PTX that uses it.
struct Address {
    uint64_t value;
    const char* file;
    int line;

    Address(uint64_t value, const char* file = __builtin_FILE(), int line = __builtin_LINE())
        : value(value), file(file), line(line) {}

    [[noreturn]] void fault(cudaError_t error, const char* what, size_t bytes, const std::string& where) const {
        const std::string place = std::string(file) + ":" + std::to_string(line);
        ::fault(error, what + (": " + std::to_string(bytes)) + " bytes " + where + ", at " + place);
    }
    // A GPU faults unless the address is a multiple of the whole access, all of a vector ("Addresses as Operands").
    void aligned(size_t bytes) const {
        const size_t beyond = value % bytes;
        if (beyond == 0) return;
        const std::string where = std::to_string(beyond) + " beyond a multiple of that";
        fault(cudaErrorMisalignedAddress, "misaligned address", bytes, where);
    }
    uint8_t* global(size_t bytes) const {
        aligned(bytes);
        return reinterpret_cast<uint8_t*>(value);
    }
    uint8_t* frame(size_t bytes) const {
        if (check_read(reinterpret_cast<const void*>(value), bytes)) return global(bytes);
        fault(cudaErrorIllegalAddress, "an illegal memory access", bytes, "outside the frame");
    }
    uint8_t* shared(size_t bytes) const {
        aligned(bytes);
        if (uint8_t* memory = shared_memory(value, bytes)) return memory;
        fault(cudaErrorIllegalAddress, "an illegal memory access", bytes, "in no shared variable");
    }
};

template <class T, class... R> void read(const uint8_t* from, R&... registers) {
    const auto next = [&](auto& d) {
        T value;
        memcpy(&value, from, sizeof value);
        put(d, value);
        from += sizeof value;
    };
    (next(registers), ...);
}
template <class T, class... R> void write(uint8_t* to, R... registers) {
    const bits<T> values[] = {static_cast<bits<T>>(registers)...};
    memcpy(to, values, sizeof values);
}

template <class T, class... R> constexpr size_t BYTES = sizeof(T) * sizeof...(R);

template <class T, class... R> void ld_param(Address at, R&... d) { read<T>(param_space + at.value, d...); }
template <class T, class... R> void ld_shared(Address at, R&... d) { read<T>(at.shared(BYTES<T, R...>), d...); }
template <class T, class... R> void ld_global(Address at, R&... d) { read<T>(at.global(BYTES<T, R...>), d...); }
template <class T, class... R> void ld_global_nc(Address at, R&... d) { read<T>(at.frame(BYTES<T, R...>), d...); }
template <class T, class... R> void st_shared(Address at, R... a) { write<T>(at.shared(BYTES<T, R...>), a...); }
template <class T, class... R> void st_global(Address at, R... a) { write<T>(at.global(BYTES<T, R...>), a...); }

// Returns what was there ("atom").
template <class T> void atom_shared_add(Address at, bits<T>& d, bits<T> a) {
    uint8_t* place = at.shared(sizeof(T));
    read<T>(place, d);
    write<T>(place, static_cast<bits<T>>(d + a));
}

// ---- other threads ------------------------------------------------------------------------------------------------

void bar_sync(int barrier) {
    if (barrier != 0) fault(cudaErrorIllegalInstruction, "only barrier 0 is emulated");
    __syncthreads();
}

// From the lane whose number differs in the bits of b, unless that is beyond c: then its own ("shfl.sync").
template <class T> void shfl_sync_bfly(b32& d, bool& p, b32 a, b32 b, b32 c, b32 members) {
    if (members != 0xffffffffu) fault(cudaErrorIllegalInstruction, "only whole warps are emulated");
    const uint32_t lane = lane_of_thread(), segment = c >> 8 & 31;
    p = (lane ^ (b & 31)) <= ((lane & segment) | (c & 31 & ~segment));
    d = exchange_in_warp(a, p ? b & 31 : 0);
}

}  // namespace

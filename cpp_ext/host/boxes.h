// host/boxes.h: boxes of any number type, read once: float32 copies, the first that is no box, affines. No Python here.

#pragma once

#include <cstdint>

#include "../shared/box_math.h"

namespace sdk {

enum class NumberKind : uint8_t { signed_integer = 0, unsigned_integer = 1, floating = 2, boolean = 6 };  // DLPack's codes

// N x 4 numbers wherever they lie; strides in elements.
struct BoxNumbers {
    const void* data;
    NumberKind kind;
    uint8_t bits;
    int64_t count, row_stride, stride;
};

template <class T, class To> inline void read_numbers(To* out, const BoxNumbers& boxes) {
    const T* from = static_cast<const T*>(boxes.data);
    for (int64_t row = 0; row < boxes.count; row++)
        for (int64_t column = 0; column < 4; column++) {
            const T value = from[row * boxes.row_stride + column * boxes.stride];
            if constexpr (sizeof(T) == sizeof(Half) && !std::is_integral<T>::value) out[4 * row + column] = as_float(value);
            else out[4 * row + column] = static_cast<To>(value);
        }
}

// N x 4 of `To`, rounded to nearest; false for a type that is not read.
template <class To> inline bool numbers_from(To* out, const BoxNumbers& boxes) {
    switch (static_cast<int>(boxes.kind) * 256 + boxes.bits) {
        case 0 * 256 + 8: return read_numbers<int8_t>(out, boxes), true;
        case 0 * 256 + 16: return read_numbers<int16_t>(out, boxes), true;
        case 0 * 256 + 32: return read_numbers<int32_t>(out, boxes), true;
        case 0 * 256 + 64: return read_numbers<int64_t>(out, boxes), true;
        case 6 * 256 + 8:
        case 1 * 256 + 8: return read_numbers<uint8_t>(out, boxes), true;
        case 1 * 256 + 16: return read_numbers<uint16_t>(out, boxes), true;
        case 1 * 256 + 32: return read_numbers<uint32_t>(out, boxes), true;
        case 1 * 256 + 64: return read_numbers<uint64_t>(out, boxes), true;
        case 2 * 256 + 16: return read_numbers<Half>(out, boxes), true;
        case 2 * 256 + 32: return read_numbers<float>(out, boxes), true;
        case 2 * 256 + 64: return read_numbers<double>(out, boxes), true;
        default: return false;
    }
}

struct BadBox {
    BoxFault fault;
    int64_t row;
};

// The first box of the gravest fault, in the order of BoxFault; `fault` is none when all are boxes.
inline BadBox first_bad_box(const float* boxes, int64_t count) {
    BadBox bad = {BoxFault::none, 0};
    for (int64_t row = 0; row < count; row++) {
        const BoxFault fault = fault_of_box(boxes + 4 * row);
        if (fault != BoxFault::none && (bad.fault == BoxFault::none || fault < bad.fault)) bad = {fault, row};
    }
    return bad;
}

}  // namespace sdk

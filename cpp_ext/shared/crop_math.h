// shared/crop_math.h: the arithmetic of one cropped pixel, the same on CPU and GPU.
//
// For the crop pixel (x, y) and its affine (a, b, c; d, e, f), crop -> frame, integer coordinates being pixel centres:
//
//     X = a x + b y + c        x0 = floor(X)    u = X - x0        top    = P(x0, y0)     + u (P(x0 + 1, y0)     - P(x0, y0))
//     Y = d x + e y + f        y0 = floor(Y)    v = Y - y0        bottom = P(x0, y0 + 1) + u (P(x0 + 1, y0 + 1) - P(x0, y0 + 1))
//     out = (top + v (bottom - top)) / std - mean / std,          P = the border's grey level outside the frame.
//
// X and Y are fixed point, 31.32 bits in an int64: sums of them are exact, so a pixel does not depend on how the crop
// was cut into tiles, and float32's rounding of a coordinate near 1000 (6e-5 pixel, 0.016 grey levels) does not occur.
// A coefficient of magnitude 2^-8 or more converts without error. u and v keep 24 bits: 1.5e-5 grey levels at most.
//
// Refused, i.e. taken as wholly outside the frame: an affine with an entry that is not finite, a linear entry above
// 2^14 (a step of a whole 16k frame) or a translation above 2^30. Within these bounds no sum can overflow for crops up
// to 2^14 a side.
//
// NV12: each tap is converted with the chroma of its own 2 x 2 block, as OpenCV and NPP do, clamped to 0..255, then
// interpolated. A tap outside has the luma nearest to the border's grey level: of black RGB 0.

#pragma once

#include "portable.h"

namespace sdk {

constexpr int32_t MAX_SIDE = 1 << 14;  // of a frame and of a crop
constexpr int32_t TAP_COLUMNS = 4;     // columns are cropped in such groups; a last, unfinished one may read all its taps

struct FixedAffine {
    int64_t xx, xy, x0;  // X = xx x + xy y + x0, in 2^-32 pixel
    int64_t yx, yy, y0;
    bool usable;
};

// R = l + rv V, G = l + gu U + gv V, B = l + bu U with l = gain (Y - black), and U, V centred on 128.
struct YuvToRgb {
    float gain, black, rv, gu, gv, bu;
};

// value * 2^32 to the nearest integer, halves away from zero, for |value| <= 2^30; integers alone, as many GPUs have
// next to no double arithmetic.
SDK_FN int64_t fixed_from_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const int32_t exponent = static_cast<int32_t>(bits >> 23 & 0xffu), shift = exponent - 118;  // of mantissa * 2^(e - 150)
    const int64_t mantissa = (bits & 0x7fffffu) | (exponent ? 0x800000u : 0u);
    int64_t magnitude = 0;
    if (shift >= 0) magnitude = mantissa << shift;
    else if (shift > -25) magnitude = (mantissa + (int64_t{1} << (-shift - 1))) >> -shift;
    return bits >> 31 ? -magnitude : magnitude;
}

SDK_FN bool within(float value, float limit) { return value >= -limit && value <= limit; }

SDK_FN FixedAffine fixed_from_affine(const float* affine) {  // 2 x 3
    FixedAffine fixed = {0, 0, 0, 0, 0, 0, false};
    for (int row = 0; row < 2; row++) {
        const float* r = affine + 3 * row;
        if (!within(r[0], 16384.0f) || !within(r[1], 16384.0f) || !within(r[2], 1073741824.0f)) return fixed;
    }
    fixed.xx = fixed_from_float(affine[0]);
    fixed.xy = fixed_from_float(affine[1]);
    fixed.x0 = fixed_from_float(affine[2]);
    fixed.yx = fixed_from_float(affine[3]);
    fixed.yy = fixed_from_float(affine[4]);
    fixed.y0 = fixed_from_float(affine[5]);
    fixed.usable = true;
    return fixed;
}

SDK_FN int32_t whole_part(int64_t fixed) { return static_cast<int32_t>(fixed >> 32); }
SDK_FN int32_t fraction24(int64_t fixed) { return static_cast<int32_t>(static_cast<uint32_t>(fixed) >> 8); }
constexpr float FRACTION_UNIT = 5.9604644775390625e-08f;  // 2^-24

template <class F> SDK_FN F lerp(F a, F b, F t) { return a + t * (b - a); }

template <class F> SDK_FN F bilinear(F p00, F p01, F p10, F p11, F u, F v) {
    return lerp(lerp(p00, p01, u), lerp(p10, p11, u), v);
}

template <class F> struct Colour {
    F c0, c1, c2;
};

template <class F> SDK_FN F clamp_grey(F value) {
    const F zero = value - value, full = zero + 255.0f;
    value = select(value < zero, zero, value);
    return select(value > full, full, value);
}

template <class F> SDK_FN Colour<F> rgb_from_yuv(Colour<F> yuv, const YuvToRgb& k) {
    const F luma = (yuv.c0 - k.black) * k.gain, u = yuv.c1 - 128.0f, v = yuv.c2 - 128.0f;
    return {clamp_grey(luma + v * k.rv), clamp_grey(luma + u * k.gu + v * k.gv), clamp_grey(luma + u * k.bu)};
}

}  // namespace sdk

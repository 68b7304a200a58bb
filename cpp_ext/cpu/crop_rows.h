// cpu/crop_rows.h: rows of one crop. The mathematics is in shared/crop_math.h.
//
// A row is made in blocks of BLOCK pixels, in two steps that touch the frame and the output once each:
//   stage   fetch the taps: for the upper and the lower frame row, the six bytes of two neighbouring pixels as one
//           64-bit word per output pixel; scalar loads, which beat gathers on every CPU measured;
//   blend   unpack LANES words at a time, interpolate, normalise, store three planes.
// For axis-aligned affines the column positions are computed once per block for all rows, and a frame row that was
// staged for the output row above is not fetched again. Words near the frame's border are put together byte by byte,
// with the border's value in place of what is outside.

#pragma once

#include "../sdk_ops.h"
#include "vector.h"

namespace sdk {
namespace {

constexpr int32_t BLOCK = 512;
constexpr int64_t NO_ROW = INT64_MIN;
constexpr int64_t CACHE_LINE = 64;

struct Taps {
    alignas(64) uint64_t words[2][BLOCK];  // bytes: channels of the left tap, channels of the right tap
    alignas(64) int32_t u[BLOCK], v[BLOCK];
    int32_t column[BLOCK];
    int64_t staged_row[2];  // frame row held by words[i]
};

struct Span {
    int32_t begin, end;  // columns of a block whose words need no check
};

// ---- words -----------------------------------------------------------------------------------------------------

SDK_FN uint64_t load_word(const uint8_t* from) {
    uint64_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

SDK_FN bool inside(int32_t x, int32_t y, const Frame& frame) {
    return x >= 0 && x < frame.width && y >= 0 && y < frame.height;
}

// A source hides the pixel format: three bytes per tap, the word of two taps, and which columns need no check.
struct Packed {
    static constexpr bool yuv = false;
    static constexpr int pixel_bytes = 3;
    static int32_t safe_columns(const Frame& frame) { return frame.width > 2 ? frame.width - 2 : 0; }  // word is 8 bytes
    SDK_FN uint64_t word(const Frame& frame, int32_t x, int32_t y) {
        return load_word(frame.data + y * frame.stride + 3 * static_cast<int64_t>(x));
    }
    SDK_FN uint32_t tap(const Frame& frame, int32_t x, int32_t y) {
        const uint8_t* p = frame.data + y * frame.stride + 3 * static_cast<int64_t>(x);
        return p[0] | p[1] << 8 | p[2] << 16;
    }
    static void words(uint64_t* __restrict to, const Frame& frame, const int32_t* columns, int32_t y, Span span) {
        const uint8_t* row = frame.data + y * frame.stride;
#pragma GCC unroll 8
        for (int32_t i = span.begin; i < span.end; i++) to[i] = load_word(row + 3 * static_cast<int64_t>(columns[i]));
    }
};

struct Nv12 {
    static constexpr bool yuv = true;
    static constexpr int pixel_bytes = 1;
    static int32_t safe_columns(const Frame& frame) { return frame.width - 1; }
    SDK_FN uint32_t tap(const Frame& frame, int32_t x, int32_t y) {
        const uint8_t* c = frame.chroma + (y >> 1) * frame.chroma_stride + (x & ~1);
        return frame.data[y * frame.stride + x] | c[0] << 8 | c[1] << 16;
    }
    SDK_FN uint64_t word(const Frame& frame, int32_t x, int32_t y) {
        return tap(frame, x, y) | static_cast<uint64_t>(tap(frame, x + 1, y)) << 24;
    }
    static void words(uint64_t* __restrict to, const Frame& frame, const int32_t* columns, int32_t y, Span span) {
        const uint8_t *luma = frame.data + y * frame.stride, *chroma = frame.chroma + (y >> 1) * frame.chroma_stride;
        for (int32_t i = span.begin; i < span.end; i++) {
            const int64_t x = columns[i];
            const uint8_t *left = chroma + (x & ~1), *right = chroma + ((x + 1) & ~1);
            const uint32_t low = luma[x] | left[0] << 8 | left[1] << 16;
            to[i] = low | static_cast<uint64_t>(luma[x + 1] | right[0] << 8 | right[1] << 16) << 24;
        }
    }
};

template <class Source> SDK_FN uint64_t checked_word(const Frame& frame, int32_t x, int32_t y, uint32_t border) {
    const uint64_t left = inside(x, y, frame) ? Source::tap(frame, x, y) : border;
    const uint64_t right = inside(x + 1, y, frame) ? Source::tap(frame, x + 1, y) : border;
    return left | right << 24;
}

// ---- stage -----------------------------------------------------------------------------------------------------

template <class Source>
void stage_rotated(Taps& taps, const Frame& frame, int64_t x, int64_t y, const FixedAffine& affine, int32_t n,
                   uint32_t border) {
    const uint32_t columns = static_cast<uint32_t>(Source::safe_columns(frame));
    const uint32_t rows = static_cast<uint32_t>(frame.height - 1);
    for (int32_t i = 0; i < n; i++, x += affine.xx, y += affine.yx) {
        const int32_t x0 = whole_part(x), y0 = whole_part(y);
        taps.u[i] = fraction24(x);
        taps.v[i] = fraction24(y);
        if (static_cast<uint32_t>(x0) < columns && static_cast<uint32_t>(y0) < rows) {
            taps.words[0][i] = Source::word(frame, x0, y0);
            taps.words[1][i] = Source::word(frame, x0, y0 + 1);
        } else {
            taps.words[0][i] = checked_word<Source>(frame, x0, y0, border);
            taps.words[1][i] = checked_word<Source>(frame, x0, y0 + 1, border);
        }
    }
}

// Columns of an axis-aligned block: positions and fractions of all its rows at once.
Span stage_columns(Taps& taps, int64_t x, int64_t step, int32_t n, int32_t safe_columns) {
    Span span = {n, n};
    for (int32_t i = 0; i < n; i++, x += step) {
        taps.column[i] = whole_part(x);
        taps.u[i] = fraction24(x);
    }
    const auto safe = [&](int32_t i) { return taps.column[i] >= 0 && taps.column[i] < safe_columns; };
    for (span.begin = 0; span.begin < n && !safe(span.begin); span.begin++) {}
    for (span.end = n; span.end > span.begin && !safe(span.end - 1); span.end--) {}
    taps.staged_row[0] = taps.staged_row[1] = NO_ROW;
    return span;
}

template <class Source>
void stage_row(Taps& taps, int32_t slot, const Frame& frame, int32_t row, int32_t n, Span span, uint32_t border) {
    if (taps.staged_row[slot] == row) return;
    taps.staged_row[slot] = row;
    uint64_t* words = taps.words[slot];
    if (row < 0 || row >= frame.height) span = {n, n};
    for (int32_t i = 0; i < span.begin; i++) words[i] = checked_word<Source>(frame, taps.column[i], row, border);
    if (span.begin < span.end) Source::words(words, frame, taps.column, row, span);
    for (int32_t i = span.end; i < n; i++) words[i] = checked_word<Source>(frame, taps.column[i], row, border);
}

// The two frame rows of the next output row are asked for while this one is blended: neighbouring rows of a frame lie a
// page apart, which no prefetcher of the hardware crosses. 8 crops of 256 x 192 from 1080p, caches swept before, on a
// Zen 5: 100 us a crop without, 89 us with.
template <class Source> void prefetch_rows(const Taps& taps, const Frame& frame, int32_t row, Span span) {
    if (row < 0 || row + 1 >= frame.height || span.begin >= span.end) return;
    const int64_t a = taps.column[span.begin], b = taps.column[span.end - 1];
    const uint8_t* upper = frame.data + row * frame.stride;
    const int64_t first = (a < b ? a : b) * Source::pixel_bytes, last = (a < b ? b : a) * Source::pixel_bytes;
    for (int64_t byte = first; byte <= last; byte += CACHE_LINE) {
        __builtin_prefetch(upper + byte);
        __builtin_prefetch(upper + byte + frame.stride);
    }
}

// ---- blend -----------------------------------------------------------------------------------------------------

struct TapPair {
    Colour<Floats> left, right;
};

SDK_FN Floats byte_of(Words words, int shift) { return float_from_int(reinterpret_cast<Ints>((words >> shift) & 255u)); }

template <class Source> SDK_FN TapPair unpack(const uint64_t* words, const CropSpec& spec) {
    const Words a = load<Words>(words), b = load<Words>(words + LANES / 2);
    const Words low = even(a, b), high = odd(a, b);
    TapPair pair = {{byte_of(low, 0), byte_of(low, 8), byte_of(low, 16)},
                    {float_from_int(reinterpret_cast<Ints>(low >> 24)), byte_of(high, 0), byte_of(high, 8)}};
    if (Source::yuv) pair = {rgb_from_yuv(pair.left, spec.yuv), rgb_from_yuv(pair.right, spec.yuv)};
    return pair;
}

template <class Out> SDK_FN void put(Out* to, Floats pixels, int32_t n) {
    if (n >= LANES) return store_pixels(to, pixels);
    Out partial[LANES];
    store_pixels(partial, pixels);
    memcpy(to, partial, n * sizeof(Out));
}

template <class Source, class Out, bool one_row>
void blend(Out* out, const Taps& taps, int32_t upper, int32_t v_row, int32_t n, const CropSpec& spec) {
    const int64_t plane = static_cast<int64_t>(spec.height) * spec.width;
    for (int32_t i = 0; i < n; i += LANES) {
        const TapPair top = unpack<Source>(taps.words[upper] + i, spec);
        const TapPair bottom = unpack<Source>(taps.words[1 - upper] + i, spec);
        const Floats u = float_from_int(load<Ints>(taps.u + i)) * FRACTION_UNIT;
        const Floats v = (one_row ? splat(static_cast<float>(v_row)) : float_from_int(load<Ints>(taps.v + i))) * FRACTION_UNIT;
        const Floats c0 = bilinear(top.left.c0, top.right.c0, bottom.left.c0, bottom.right.c0, u, v);
        const Floats c1 = bilinear(top.left.c1, top.right.c1, bottom.left.c1, bottom.right.c1, u, v);
        const Floats c2 = bilinear(top.left.c2, top.right.c2, bottom.left.c2, bottom.right.c2, u, v);
        put(out + plane * spec.plane[0] + i, c0 * spec.scale[0] + spec.bias[0], n - i);
        put(out + plane * spec.plane[1] + i, c1 * spec.scale[1] + spec.bias[1], n - i);
        put(out + plane * spec.plane[2] + i, c2 * spec.scale[2] + spec.bias[2], n - i);
    }
}

// ---- rows ------------------------------------------------------------------------------------------------------

template <class Out> void fill_outside(Out* out, int32_t n, const CropSpec& spec) {
    const int64_t plane = static_cast<int64_t>(spec.height) * spec.width;
    for (int channel = 0; channel < 3; channel++) {
        const Floats value = splat(spec.border_grey[channel]) * spec.scale[channel] + spec.bias[channel];
        for (int32_t i = 0; i < n; i += LANES) put(out + plane * spec.plane[channel] + i, value, n - i);
    }
}

template <class Source, class Out>
void crop_block_axis_aligned(Out* out, Taps& taps, const Frame& frame, const FixedAffine& affine, const CropSpec& spec,
                             int32_t column, int32_t n, int32_t row_begin, int32_t row_end) {
    const Span span = stage_columns(taps, affine.x0 + column * affine.xx, affine.xx, n, Source::safe_columns(frame));
    for (int32_t row = row_begin; row < row_end; row++) {
        Out* to = out + static_cast<int64_t>(row) * spec.width + column;
        const int64_t y = affine.y0 + row * affine.yy;
        const int32_t y0 = whole_part(y);
        if (y0 < -1 || y0 >= frame.height) {
            fill_outside(to, n, spec);
            continue;
        }
        prefetch_rows<Source>(taps, frame, whole_part(y + affine.yy), span);
        const int32_t upper = taps.staged_row[1] == y0 ? 1 : 0;
        stage_row<Source>(taps, upper, frame, y0, n, span, spec.border);
        stage_row<Source>(taps, 1 - upper, frame, y0 + 1, n, span, spec.border);
        blend<Source, Out, true>(to, taps, upper, fraction24(y), n, spec);
    }
}

template <class Source, class Out>
void crop_block_rotated(Out* out, Taps& taps, const Frame& frame, const FixedAffine& affine, const CropSpec& spec,
                        int32_t column, int32_t n, int32_t row_begin, int32_t row_end) {
    for (int32_t row = row_begin; row < row_end; row++) {
        const int64_t x = affine.x0 + column * affine.xx + row * affine.xy;
        const int64_t y = affine.y0 + column * affine.yx + row * affine.yy;
        stage_rotated<Source>(taps, frame, x, y, affine, n, spec.border);
        blend<Source, Out, false>(out + static_cast<int64_t>(row) * spec.width + column, taps, 0, 0, n, spec);
    }
}

template <class Source, class Out>
void crop_rows_of(Out* out, const Frame& frame, const float* affine, const CropSpec& spec, int32_t begin, int32_t end) {
    const FixedAffine fixed = fixed_from_affine(affine);
    const bool aligned = fixed.xy == 0 && fixed.yx == 0;
    Taps taps;
    memset(&taps, 0, sizeof taps);
    for (int32_t column = 0; column < spec.width; column += BLOCK) {
        const int32_t n = spec.width - column < BLOCK ? spec.width - column : BLOCK;
        if (!fixed.usable) {
            for (int32_t row = begin; row < end; row++)
                fill_outside(out + static_cast<int64_t>(row) * spec.width + column, n, spec);
        } else if (aligned) {
            crop_block_axis_aligned<Source>(out, taps, frame, fixed, spec, column, n, begin, end);
        } else {
            crop_block_rotated<Source>(out, taps, frame, fixed, spec, column, n, begin, end);
        }
    }
}

void crop_rows(void* out, const Frame& frame, const float* affine, const CropSpec& spec, int32_t begin, int32_t end) {
    if (frame.chroma && spec.half) return crop_rows_of<Nv12>(static_cast<Half*>(out), frame, affine, spec, begin, end);
    if (frame.chroma) return crop_rows_of<Nv12>(static_cast<float*>(out), frame, affine, spec, begin, end);
    if (spec.half) return crop_rows_of<Packed>(static_cast<Half*>(out), frame, affine, spec, begin, end);
    return crop_rows_of<Packed>(static_cast<float*>(out), frame, affine, spec, begin, end);
}

}  // namespace
}  // namespace sdk

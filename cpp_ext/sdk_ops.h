// sdk_ops.h: the contract of the fused ops. Each is declared once and implemented for the CPU and for CUDA.
//
// Outputs are passed in; nothing allocates or synchronises. `count` (N) may be 0. Parameters run outputs, inputs,
// sizes, then the number of threads (CPU) or the stream (CUDA).
//
//   symbol    shape                         what
//   frames    N of H x W x 3 uint8 or NV12  one a crop; any row stride, even a negative one; H, W up to 2^14
//   affines   N x 2 x 3 float32             crop -> frame pixels
//   crop out  N x 3 x h x w float or half   h, w up to 2^14
//   x, y, z   N x K x Wx, Hy, Wz            float or half logits, rows contiguous; z where there is a third axis
//   decode out  N x K x C float32           x, y in frame pixels, score; then what is asked for, in this order:
//                                           depth (with z); spread of x, y in frame pixels; x, y of a second peak
//
// The third op is a person detector's: `detections` makes boxes and scores of its outputs. Its letterbox is a crop.
//
// The mathematics is in shared/crop_math.h, shared/decode_math.h, shared/spread_math.h and shared/detection_math.h.

#pragma once

#include "shared/box_math.h"
#include "shared/crop_math.h"
#include "shared/decode_math.h"
#include "shared/detection_math.h"
#include "shared/spread_math.h"

namespace sdk {

// `chroma` is null for packed pixels. For NV12 `data` is the luma plane, H x W, and `chroma` H/2 x W/2 pairs (U, V).
// `data` may be where the frame's corner would lie around a region of it that was moved: of a crop, only pixels in the
// frame that its taps fall on are read (its width rounded up to TAP_COLUMNS), with up to 3 bytes before a pair of them and
// 3 behind. The CUDA crop may read this struct from device memory, so its layout is part of the contract: 40 bytes.
struct Frame {
    const uint8_t* data;
    const uint8_t* chroma;
    int64_t stride;         // bytes from row to row
    int64_t chroma_stride;
    int32_t height, width;  // pixels
};
static_assert(sizeof(Frame) == 40, "Frame is read from device memory: its layout is fixed");

// Per channel of the source (B, G, R as they lie in the frame; R, G, B from NV12): out = scale * grey + bias, written
// to plane `plane[channel]` of the output. `border` is what lies outside the frame, as bytes of a pixel of the source (B, G,
// R, or Y, U, V), `border_grey` the same as grey levels of its channels.
struct CropSpec {
    int32_t height, width;
    float scale[3], bias[3];
    int32_t plane[3];
    bool half;
    YuvToRgb yuv;  // read for NV12 only
    uint32_t border;
    float border_grey[3];
};

// The grey level `grey` outside the frame: of NV12 the nearest luma to it, without colour.
SDK_FN void set_border(CropSpec& spec, int32_t grey, bool nv12) {
    if (!nv12) {
        spec.border = static_cast<uint32_t>(grey) * 0x010101u;
        spec.border_grey[0] = spec.border_grey[1] = spec.border_grey[2] = float_from_int(grey);
        return;
    }
    const uint32_t luma = static_cast<uint32_t>(int_from_float(float_from_int(grey) / spec.yuv.gain + spec.yuv.black + 0.5f));
    const Colour<float> seen = rgb_from_yuv<float>({float_from_int(static_cast<int32_t>(luma)), 128.0f, 128.0f}, spec.yuv);
    spec.border = luma | 0x808000u;
    spec.border_grey[0] = seen.c0;
    spec.border_grey[1] = seen.c1;
    spec.border_grey[2] = seen.c2;
}

// From scale and bias in the order of the output's planes; `swap` when the source's channels lie the other way round.
SDK_FN void set_channels(CropSpec& spec, const float* scale, const float* bias, bool swap) {
    for (int channel = 0; channel < 3; channel++) {
        const int plane = swap ? 2 - channel : channel;
        spec.plane[channel] = plane;
        spec.scale[channel] = scale[plane];
        spec.bias[channel] = bias[plane];
    }
}

struct DecodeSpec {
    int32_t joints, x_bins, y_bins;
    double split_ratio;
    Score score;
    Refine refine;
    bool half;
    int32_t flip_shift;  // 0 or 1 bin; read with mirrored logits only
    int32_t z_bins;      // 0: no third axis
    Depth depth;         // read with a third axis only
    bool spread, second;
    SpreadRule rule;  // read for spread and second only
};

SDK_FN int32_t columns_of(const DecodeSpec& spec) {
    return 3 + (spec.z_bins > 0 ? 1 : 0) + (spec.spread ? 2 : 0) + (spec.second ? 2 : 0);
}

// Logits of the crops, and of the mirrored crops or null. `partner[k]` is the joint that joint k becomes when mirrored.
struct Logits {
    const void *x, *y, *z;
    const void *mirrored_x, *mirrored_y, *mirrored_z;
    const int32_t* partner;
};

namespace cpu {
void crop(void* out, const Frame* frames, const float* affines, int32_t count, const CropSpec& spec, int threads);
void decode(float* out, const Logits& logits, const float* affines, int32_t count, const DecodeSpec& spec, int threads);
// boxes most x 4 and scores most, best first; how many were found. On the caller's thread.
int32_t detections(float* boxes, float* scores, const DetectionOutputs& outputs, const DetectionSpec& spec, const FramePlace& place);

const char* instruction_set();                // "avx512", "avx2" or "baseline"
bool use_instruction_set(const char* name);   // false when this machine lacks it
}  // namespace cpu

namespace cuda {
using Stream = void*;  // cudaStream_t

// `frames_on_device` (N of them, in device memory) are read when not null, so that a captured graph serves frames that
// change; else all crops are of `frame`. Return null, or the reason in words.
const char* crop(void* out, const Frame& frame, const Frame* frames_on_device, bool nv12, const float* affines,
                 int32_t count, const CropSpec& spec, Stream stream);
const char* decode(float* out, const Logits& logits, const float* affines, int32_t count, const DecodeSpec& spec,
                   Stream stream);

struct alignas(8) Candidate {
    float score;
    int32_t row;
};

// How many boxes were found, and they: most x 4 and most, best first. `list` is scratch for as many candidates as there are rows.
struct DetectionsOut {
    int32_t* count;
    DetectedBox* boxes;
    float* scores;
    Candidate* list;
};

// What crops of the first `count` persons found are made from, for a crop that follows on the stream: a record each of
// `frame`, and affines. Those beyond the persons found look outside any frame.
struct CropsOut {
    Frame* records;
    float *affines, *mirrored;
    int32_t count;  // 0: none are wanted
    const Frame* frame;
    CropShape shape;
};

// All pointers are of the device; `place` is read there too.
const char* detections(const DetectionsOut& out, const DetectionOutputs& outputs, const DetectionSpec& spec, const FramePlace* place,
                       const CropsOut& crops, Stream stream);
}  // namespace cuda

}  // namespace sdk

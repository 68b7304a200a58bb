// cpu/kernels.h: what one instruction set provides. kernels.cpp is compiled once for each, see build_native.py.

#pragma once

#include "../sdk_ops.h"

namespace sdk {
namespace cpu {

struct Kernels {
    // Rows [row_begin, row_end) of one person's crop; `out` is the whole 3 x h x w crop.
    void (*crop_rows)(void* out, const Frame&, const float* affine, const CropSpec&, int32_t row_begin, int32_t row_end);
    // Joints [begin, end) of the N x K joints.
    void (*decode_joints)(float* out, const Logits&, const float* affines, const DecodeSpec&, int32_t begin, int32_t end);
};

extern const Kernels baseline_kernels;
#if defined(__x86_64__)
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
#endif

}  // namespace cpu
}  // namespace sdk

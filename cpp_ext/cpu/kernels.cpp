// cpu/kernels.cpp: both ops for one instruction set. SDK_KERNELS names the table, e.g. avx2_kernels; the compiler's
// flags choose the instructions. Everything else here has internal linkage.

#include "kernels.h"

#include "crop_rows.h"
#include "decode_joints.h"

namespace sdk {
namespace cpu {

extern const Kernels SDK_KERNELS = {crop_rows, decode_joints};

}  // namespace cpu
}  // namespace sdk

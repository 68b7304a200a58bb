// box_argument.h: boxes as they come from Python, N x 4 of any number type, for both bindings.

#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "checks.h"
#include "host/boxes.h"

namespace sdk {

inline BoxNumbers box_numbers(const nanobind::ndarray<nanobind::ro, nanobind::device::cpu>& boxes) {
    require(boxes.ndim() == 2 && boxes.shape(1) == 4, "boxes must be N x 4");
    require(boxes.dtype().lanes == 1 && boxes.shape(0) <= INT32_MAX / 32, "boxes must be plain numbers, and not too many");
    return {boxes.data(), static_cast<NumberKind>(boxes.dtype().code), boxes.dtype().bits, static_cast<int64_t>(boxes.shape(0)),
            boxes.stride(0), boxes.stride(1)};
}

}  // namespace sdk

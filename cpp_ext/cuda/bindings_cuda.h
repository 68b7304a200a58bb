// cuda/bindings_cuda.h: binds the CUDA half, or says that it is absent.

#pragma once

#include <nanobind/nanobind.h>

#if !defined(SDK_WITH_CUDA)
inline void bind_cuda(nanobind::module_& m) {
    m.attr("cuda") = nanobind::none();
    m.attr("WITHOUT_CUDA") = SDK_WITHOUT_CUDA;
}
#else
void bind_cuda(nanobind::module_& m);
#endif

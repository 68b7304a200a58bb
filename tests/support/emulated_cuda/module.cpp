// cpp_ext/cuda/bindings_cuda.cpp as a module of its own, above the emulated runtime.

#include "cuda/bindings_cuda.h"

NB_MODULE(emulated, m) { bind_cuda(m); }

// Just enough of CUDA to run cpp_ext/cuda, kernels and bindings, as C++ on a CPU: exercised without a GPU.
//
// A block's threads are fibers (ucontext), switched at barriers and shuffles alone, and run from the last to the first,
// in every other block from the first to the last, so that a missing barrier shows. Blocks run one after the other.
// Reads through __ldg are checked against the frames that were declared. What this cannot show: speed, memory ordering
// between warps, the compiler's own faults; of those ptx.h shows nvcc's, but not ptxas's.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <typeinfo>
#include <vector>

#include "cuda_fp16.h"

#define __CUDACC__ 1
#define __host__
#define __device__
#define __global__ static
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __shared__ static

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// ---- the runtime's API, as far as cpp_ext/cuda uses it; runtime.cpp hands it on to a simulated device --------------

typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;
typedef struct CUgraph_st* cudaGraph_t;
typedef struct CUgraph_st* cudaGraphExec_t;
enum cudaGraphNodeType { cudaGraphNodeTypeKernel = 0, cudaGraphNodeTypeMemcpy = 1, cudaGraphNodeTypeGraph = 4 };
struct CUgraphNode_st {
    cudaGraphNodeType type;
};
typedef CUgraphNode_st* cudaGraphNode_t;
typedef int cudaError_t;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorNotReady = 600;
constexpr cudaError_t cudaErrorIllegalAddress = 700, cudaErrorIllegalInstruction = 715;
constexpr cudaError_t cudaErrorMisalignedAddress = 716;
constexpr int CUDART_VERSION = 13000;
constexpr unsigned cudaEventDisableTiming = 2;
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1, cudaStreamCaptureModeRelaxed = 2 };
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone = 0, cudaStreamCaptureStatusActive = 1 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1 };
enum cudaMemoryType { cudaMemoryTypeUnregistered = 0, cudaMemoryTypeHost = 1 };
struct cudaPointerAttributes {
    cudaMemoryType type;
    void* devicePointer;
};

cudaError_t cudaGetLastError();
const char* cudaGetErrorName(cudaError_t);
const char* cudaGetErrorString(cudaError_t);
cudaError_t cudaStreamQuery(cudaStream_t);
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode);
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*);
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus*);
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*);
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned long long);
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t);
cudaError_t cudaGraphDestroy(cudaGraph_t);
cudaError_t cudaGraphGetNodes(cudaGraph_t, cudaGraphNode_t*, size_t*);
cudaError_t cudaGraphNodeGetType(cudaGraphNode_t, cudaGraphNodeType*);
cudaError_t cudaGraphChildGraphNodeGetGraph(cudaGraphNode_t, cudaGraph_t*);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t*, unsigned);
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t);
cudaError_t cudaEventDestroy(cudaEvent_t);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t);
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t row_bytes, size_t rows,
                              cudaMemcpyKind, cudaStream_t);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes*, const void*);

// ---- kernels ---------------------------------------------------------------------------------------------------

extern dim3 threadIdx, blockIdx;

void emulate_launch(dim3 grid, dim3 block, int shared_bytes, cudaStream_t stream, std::function<void()> kernel);
void __syncthreads();
uint32_t exchange_in_warp(uint32_t value, int lane_mask);  // what lane ^ lane_mask passed
bool check_read(const void* address, size_t bytes);        // false, and counted, outside the declared frame
[[noreturn]] void fault(cudaError_t error, const std::string& words);  // ends the thread, and its launch

template <class T> static inline T __ldg(const T* from) {
    check_read(from, sizeof(T));
    return *from;
}
// Fibers switch at barriers and shuffles alone.
static inline int32_t atomicAdd(int32_t* at, int32_t more) {
    const int32_t before = *at;
    *at += more;
    return before;
}
static inline uint32_t __funnelshift_r(uint32_t low, uint32_t high, uint32_t shift) {
    return static_cast<uint32_t>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31));
}
template <class T> static inline T __shfl_xor_sync(unsigned, T value, int lane_mask) {
    static_assert(sizeof(T) == 4, "one register");
    uint32_t bits;
    memcpy(&bits, &value, 4);
    bits = exchange_in_warp(bits, lane_mask);
    memcpy(&value, &bits, 4);
    return value;
}

// ---- kernels in PTX ----------------------------------------------------------------------------------------------

struct SharedVariable {
    uint64_t begin, bytes;
};
// One .entry as ptx.py writes it; `kernel` is its mangled name, `run` what one thread does.
struct Entry {
    const char* kernel;
    void (*run)();
    size_t param_bytes;
    std::vector<SharedVariable> shared;
};

extern const uint8_t* param_space;
uint8_t* shared_memory(uint64_t address, size_t bytes);  // null unless within one shared variable
uint32_t lane_of_thread();

const Entry* entry_of(const char* type);  // of the Kernel<...> of this mangled name; null while no PTX is in force
std::function<void()> run_of(const Entry& entry, const std::vector<uint8_t>& params);

// Arguments follow each other in the param space, each at a multiple of its own alignment.
template <class T> static inline void append(std::vector<uint8_t>& params, const T& argument) {
    const size_t begin = (params.size() + alignof(T) - 1) / alignof(T) * alignof(T);
    params.resize(begin + sizeof(T));
    memcpy(&params[begin], &argument, sizeof(T));
}

// Kernel<kernel>::with(arguments...): one thread's work, by the entry that is in force or by the kernel as C++.
template <auto kernel> struct Kernel;
template <class... P, void (*kernel)(P...)> struct Kernel<kernel> {
    static std::function<void()> with(P... arguments) {
        const Entry* entry = entry_of(typeid(Kernel).name());
        if (!entry) return [=] { kernel(arguments...); };
        std::vector<uint8_t> params;
        (append(params, arguments), ...);
        return run_of(*entry, params);
    }
};

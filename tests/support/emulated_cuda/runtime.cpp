// The CUDA runtime's API, handed on to a simulated device by a table of functions; without one, work is done at once.

#include <atomic>
#include <utility>

#include "cuda_runtime.h"

cudaError_t emulate_blocks(dim3 grid, dim3 block, const std::function<void()>& kernel);
const char* words_of_fault(cudaError_t error);  // null when the last launch did not end so

extern "C" {
// Errors are CUDA's numbers. `put` queues call(data) on a stream, or records it while the stream captures.
struct Hooks {
    cudaError_t (*put)(cudaStream_t, void (*call)(void*), void* data);
    cudaError_t (*query)(cudaStream_t);
    cudaError_t (*begin)(cudaStream_t);
    int (*capturing)(cudaStream_t);
    cudaGraph_t (*end)(cudaStream_t);
    cudaError_t (*instantiate)(cudaGraph_t);
    cudaError_t (*launch)(cudaGraphExec_t, cudaStream_t);
    void (*destroy)(cudaGraphExec_t);
    cudaError_t (*wait)(cudaStream_t, cudaStream_t producer);
    void* (*mapped)(const void* host);  // null: not page-locked
    cudaError_t (*copy)(cudaStream_t, void* to, const void* from, size_t row_bytes, size_t rows, size_t to_pitch, size_t from_pitch);
    size_t (*kernels)(cudaGraph_t);
};
}

namespace {

const Hooks* hooks;
thread_local cudaError_t last_error = cudaSuccess;
std::atomic<int> live_events{0};

cudaError_t kept(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

void run(void* closure) { (*static_cast<std::function<void()>*>(closure))(); }

}  // namespace

struct CUevent_st {
    cudaStream_t recorded_on;
};

extern "C" int emulated_live_events() { return live_events; }
extern "C" void emulated_hooks(const Hooks* table) { hooks = table; }

void emulate_launch(dim3 grid, dim3 block, int, cudaStream_t stream, std::function<void()> kernel) {
    const std::function<void()> blocks = [=] { kept(emulate_blocks(grid, block, kernel)); };
    if (!hooks) return blocks();
    // never freed: a graph may run it again at any time
    kept(hooks->put(stream, run, new std::function<void()>(blocks)));
}

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
const char* cudaGetErrorName(cudaError_t) { return "cudaErrorSimulated"; }
const char* cudaGetErrorString(cudaError_t error) {
    if (const char* words = words_of_fault(error)) return words;
    return error == 700 ? "an illegal memory access was encountered" : "a simulated error";
}
cudaError_t cudaStreamQuery(cudaStream_t stream) { return kept(hooks ? hooks->query(stream) : cudaSuccess); }
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) { return kept(hooks->begin(stream)); }
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    *graph = hooks->end(stream);
    return kept(*graph ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    *status = hooks && hooks->capturing(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
    thread_local cudaStreamCaptureMode current = cudaStreamCaptureModeThreadLocal;
    std::swap(current, *mode);
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) { return kept(hooks->wait(stream, event->recorded_on)); }
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
    *executable = graph;
    return kept(hooks->instantiate(graph));
}
// A simulated graph's nodes: its kernels, and one that is no kernel.
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
    static CUgraphNode_st kernel{cudaGraphNodeTypeKernel}, copy{cudaGraphNodeTypeMemcpy};
    const size_t kernels = hooks->kernels(graph);
    for (size_t i = 0; nodes && i <= kernels; i++) nodes[i] = i < kernels ? &kernel : &copy;
    *count = kernels + 1;
    return cudaSuccess;
}
cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* type) {
    *type = node->type;
    return cudaSuccess;
}
cudaError_t cudaGraphChildGraphNodeGetGraph(cudaGraphNode_t, cudaGraph_t*) { return kept(cudaErrorInvalidValue); }
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) { return kept(hooks->launch(graph, stream)); }
cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
    hooks->destroy(graph);
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    *event = new CUevent_st{nullptr};
    live_events++;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    event->recorded_on = stream;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    live_events--;
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
    return kept(hooks->copy(stream, to, from, bytes, 1, bytes, bytes));
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t row_bytes, size_t rows,
                              cudaMemcpyKind, cudaStream_t stream) {
    return kept(hooks->copy(stream, to, from, row_bytes, rows, to_pitch, from_pitch));
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* host) {
    void* address = hooks ? hooks->mapped(host) : nullptr;
    *attributes = {address ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered, address};
    return cudaSuccess;
}

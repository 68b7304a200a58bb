// cuda/bindings_cuda.cpp: the submodule _native.cuda: both ops on raw device pointers, and what PyCUDA lacks to replay a
// frame as one CUDA graph. Pointers and streams are integers. Nothing allocates device memory; `finished` alone waits.
//
// The CUDA runtime is linked statically and works in the context that is current, i.e. the primary one that the run
// time pushes.

#include "bindings_cuda.h"

#include <cuda_runtime.h>
#include <sys/prctl.h>

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>

#include "../checks.h"
#include "../sdk_ops.h"

namespace nb = nanobind;
using namespace nb::literals;
using sdk::crop_spec;
using sdk::require;

namespace {

using Address = uint64_t;
using Triple = std::array<float, 3>;

template <class T> T* pointer(Address address) { return reinterpret_cast<T*>(static_cast<uintptr_t>(address)); }
cudaStream_t stream_of(Address stream) { return pointer<CUstream_st>(stream); }

void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // an error that was reported is not to be found again by the next launch
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorName(error) + ": " + cudaGetErrorString(error));
}

void check_launch(const char* problem, const char* op) {
    if (!problem) return;
    throw std::runtime_error(std::string(op) + " could not be launched: " + problem +
                             " (built for compute capabilities " SDK_CUDA_ARCHITECTURES ")");
}

// ---- ops -------------------------------------------------------------------------------------------------------

void launch_crop(Address out, const sdk::Frame& frame, const sdk::Frame* records, bool nv12, Address affines, int32_t count,
                 const sdk::CropSpec& spec, Address stream) {
    require(count >= 0, "the number of crops must not be negative");
    require(count == 0 || (out && affines), "out and affines must not be null");
    require(out % (spec.half ? 2 : 4) == 0 && affines % 4 == 0, "out and affines must be aligned to their dtype");
    nb::gil_scoped_release released;
    check_launch(sdk::cuda::crop(pointer<void>(out), frame, records, nv12, pointer<const float>(affines), count, spec,
                                 stream_of(stream)), "crop");
}

void crop(Address out, Address frames, Address affines, int32_t count, int32_t height, int32_t width, Triple scale,
          Triple bias, bool swap, bool half, bool nv12, std::array<float, 6> yuv, Address stream) {
    require(frames && frames % 8 == 0, "frames must be the address of a frame record a crop, aligned to 8 bytes");
    launch_crop(out, {}, pointer<const sdk::Frame>(frames), nv12, affines, count,
                crop_spec(height, width, scale, bias, swap, half, yuv), stream);
}

using FrameValues = std::tuple<Address, Address, int64_t, int64_t, int32_t, int32_t>;

void crop_frame(Address out, FrameValues frame, Address affines, int32_t count, int32_t height, int32_t width, Triple scale,
                Triple bias, bool swap, bool half, bool nv12, std::array<float, 6> yuv, Address stream) {
    const auto [data, chroma, stride, chroma_stride, frame_height, frame_width] = frame;
    sdk::check_frame_size(frame_height, frame_width);
    require(!nv12 || (chroma && frame_height % 2 == 0 && frame_width % 2 == 0), "an NV12 frame must have a chroma plane and even sides");
    const sdk::Frame value = {pointer<const uint8_t>(data), pointer<const uint8_t>(chroma), stride, chroma_stride, frame_height, frame_width};
    launch_crop(out, value, nullptr, nv12, affines, count, crop_spec(height, width, scale, bias, swap, half, yuv), stream);
}

void decode(Address out, Address x, Address y, Address affines, int32_t count, int32_t joints, int32_t x_bins, int32_t y_bins,
            double split_ratio, int score, int refine, bool half, Address stream, Address mirrored_x, Address mirrored_y,
            Address partner, int32_t flip_shift, Address z, Address mirrored_z, int32_t z_bins, sdk::DepthTuple depth,
            std::optional<sdk::SpreadTuple> spread, bool second) {
    require(count >= 0 && joints >= 0 && x_bins >= 0 && y_bins >= 0 && z_bins >= 0, "sizes must not be negative");
    require(static_cast<int64_t>(count) * joints <= INT32_MAX / 4, "too many joints");
    require(!z || z_bins > 0, "z must have bins");
    require(!mirrored_x == !mirrored_y && !mirrored_x == !partner && !mirrored_z == !(mirrored_x && z),
            "mirrored logits of all axes and partner go together");
    sdk::DecodeSpec spec = sdk::decode_spec(split_ratio, score, refine, flip_shift, depth, spread, second);
    spec.joints = joints;
    spec.x_bins = x_bins;
    spec.y_bins = y_bins;
    spec.z_bins = z_bins;
    spec.half = half;
    const sdk::Logits logits = {pointer<const void>(x), pointer<const void>(y), pointer<const void>(z),
                                pointer<const void>(mirrored_x), pointer<const void>(mirrored_y),
                                pointer<const void>(mirrored_z), pointer<const int32_t>(partner)};
    nb::gil_scoped_release released;
    check_launch(sdk::cuda::decode(pointer<float>(out), logits, pointer<const float>(affines), count, spec, stream_of(stream)), "decode");
}

// ---- graphs ----------------------------------------------------------------------------------------------------

// An executable graph. destroy() may be called early and more than once; a destroyed graph cannot be launched.
class Graph {
  public:
    explicit Graph(cudaGraphExec_t executable) : executable_(executable) {}
    Graph(Graph&& other) noexcept : executable_(std::exchange(other.executable_, nullptr)) {}
    Graph& operator=(Graph&&) = delete;
    ~Graph() { destroy(); }

    void launch(Address stream) const {
        require(executable_, "this graph has been destroyed");
        nb::gil_scoped_release released;
        check(cudaGraphLaunch(executable_, stream_of(stream)), "the graph could not be launched");
    }
    void destroy() {
        if (executable_) cudaGraphExecDestroy(std::exchange(executable_, nullptr));
    }

  private:
    cudaGraphExec_t executable_;
};

void graph_begin(Address stream) {
    check(cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeThreadLocal), "the capture could not begin");
}

Graph graph_end(Address stream) {
    nb::gil_scoped_release released;
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(stream_of(stream), &graph), "the capture broke");
    require(graph, "the capture broke: it holds no graph");
    cudaGraphExec_t executable = nullptr;
    const cudaError_t error = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    check(error, "the captured graph could not be made executable");
    return Graph(executable);
}

// For the way out of an error: ends a capture whatever its state, and keeps nothing.
void graph_abort(Address stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    if (cudaStreamIsCapturing(stream_of(stream), &status) == cudaSuccess && status != cudaStreamCaptureStatusNone) {
        cudaGraph_t graph = nullptr;
        cudaStreamEndCapture(stream_of(stream), &graph);
        if (graph) cudaGraphDestroy(graph);
    }
    cudaGetLastError();
}

// What a stream was given until now, for others to wait for. destroy() may be called early and more than once.
class Mark {
  public:
    explicit Mark(Address stream) {
        check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "no event could be made");
        const cudaError_t error = cudaEventRecord(event_, stream_of(stream));
        if (error != cudaSuccess) cudaEventDestroy(event_);
        check(error, "the stream takes no event");
    }
    Mark(Mark&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
    Mark& operator=(Mark&&) = delete;
    ~Mark() { destroy(); }

    void hold_up(Address stream) const {
        require(event_, "this mark has been destroyed");
        check(cudaStreamWaitEvent(stream_of(stream), event_, 0), "one stream cannot wait for the other");
    }

    void destroy() {
        if (event_) cudaEventDestroy(std::exchange(event_, nullptr));
    }

  private:
    cudaEvent_t event_ = nullptr;
};

// ---- waiting ---------------------------------------------------------------------------------------------------

using Clock = std::chrono::steady_clock;

// A frame is polled for without sleeping, then with naps of a 64th of the time waited so far: never later than 2 % of it.
constexpr std::chrono::microseconds SPIN(500);
constexpr int NAPS_OF_THE_TIME_WAITED = 64;

// Linux ends a sleep up to 50 us late, the timer slack of the thread, so that others' timers can share the wake-up.
struct PunctualNaps {
    const int slack_ns = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    PunctualNaps() { prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); }
    ~PunctualNaps() { prctl(PR_SET_TIMERSLACK, slack_ns, 0, 0, 0); }
};

// Another library's capture in the global mode (torch's default) forbids the other threads to ask after streams, unless
// they are in the relaxed mode.
struct RelaxedCapture {
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    RelaxedCapture() { cudaThreadExchangeStreamCaptureMode(&mode); }
    ~RelaxedCapture() { cudaThreadExchangeStreamCaptureMode(&mode); }
};

// Whether the stream's work ends within `seconds`. CUDA's own synchronisation has no limit and would hang with the GPU.
bool finished(Address stream, double seconds) {
    nb::gil_scoped_release released;
    const RelaxedCapture relaxed;
    const Clock::time_point begin = Clock::now();
    const auto limit = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
    Clock::duration waited{};
    const auto pending = [&] {
        const cudaError_t state = cudaStreamQuery(stream_of(stream));
        waited = Clock::now() - begin;
        if (state == cudaErrorNotReady) cudaGetLastError();  // kept like an error, and not to be found by the next launch
        else check(state, "the stream's work failed");
        return state == cudaErrorNotReady;
    };
    bool busy = pending();
    while (busy && waited < SPIN && waited < limit) busy = pending();
    if (!busy) return true;
    const PunctualNaps naps;
    while (busy && waited < limit) {
        std::this_thread::sleep_for(std::min(waited / NAPS_OF_THE_TIME_WAITED, limit - waited));
        busy = pending();
    }
    return !busy;
}

// The device's address of `size` bytes of page-locked host memory, whoever locked them; 0 for pageable memory.
Address mapped(Address host, size_t size) {
    cudaPointerAttributes first = {}, last = {};
    const bool known = cudaPointerGetAttributes(&first, pointer<void>(host)) == cudaSuccess &&
                       cudaPointerGetAttributes(&last, pointer<void>(host + (size ? size - 1 : 0))) == cudaSuccess;
    cudaGetLastError();
    if (!known || first.type != cudaMemoryTypeHost || last.type != cudaMemoryTypeHost || !first.devicePointer) return 0;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(first.devicePointer), end = reinterpret_cast<uintptr_t>(last.devicePointer);
    return size <= 1 || end - begin == size - 1 ? begin : 0;
}

}  // namespace

void bind_cuda(nb::module_& parent) {
    nb::set_leak_warnings(false);  // the graphs of a lost device are left alone on purpose
    parent.attr("WITHOUT_CUDA") = "";
    nb::module_ m = parent.def_submodule("cuda", "The CUDA half, on raw pointers.");
    m.attr("ARCHITECTURES") = SDK_CUDA_ARCHITECTURES;
    m.attr("COMPILER") = SDK_CUDA_COMPILER;
    m.attr("TOOLKIT") = std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);

    m.def("crop", &crop, "out"_a, "frames"_a, "affines"_a, "count"_a, "height"_a, "width"_a, "scale"_a, "bias"_a, "swap"_a,
          "half"_a, "nv12"_a, "yuv"_a, "stream"_a);
    m.def("crop_frame", &crop_frame, "out"_a, "frame"_a, "affines"_a, "count"_a, "height"_a, "width"_a, "scale"_a, "bias"_a,
          "swap"_a, "half"_a, "nv12"_a, "yuv"_a, "stream"_a);
    m.def("decode", &decode, "out"_a, "x"_a, "y"_a, "affines"_a, "count"_a, "joints"_a, "x_bins"_a, "y_bins"_a,
          "split_ratio"_a, "score"_a, "refine"_a, "half"_a, "stream"_a, "mirrored_x"_a = 0, "mirrored_y"_a = 0,
          "partner"_a = 0, "flip_shift"_a = 0, "z"_a = 0, "mirrored_z"_a = 0, "z_bins"_a = 0, "depth"_a = sdk::DepthTuple{},
          "spread"_a = nb::none(), "second"_a = false);

    nb::class_<Graph>(m, "Graph")
        .def("launch", &Graph::launch, "stream"_a)
        .def("destroy", &Graph::destroy);
    m.def("graph_begin", &graph_begin, "stream"_a);
    m.def("graph_end", &graph_end, "stream"_a);
    m.def("graph_abort", &graph_abort, "stream"_a);
    nb::class_<Mark>(m, "Mark").def("hold_up", &Mark::hold_up, "stream"_a).def("destroy", &Mark::destroy);
    m.def("mark", [](Address stream) { return Mark(stream); }, "stream"_a);
    m.def("finished", &finished, "stream"_a, "seconds"_a);
    m.def("mapped", &mapped, "host"_a, "size"_a);
}

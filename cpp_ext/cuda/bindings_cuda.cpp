// cuda/bindings_cuda.cpp: the submodule _native.cuda: the ops on raw device pointers, and what PyCUDA lacks to replay a
// frame as one CUDA graph. Pointers and streams are integers. Nothing allocates device memory; `finished` alone waits.
//
// The CUDA runtime is linked statically and works in the context that is current, i.e. the primary one that the run
// time pushes.

#include "bindings_cuda.h"

#include <cuda_runtime.h>

#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../box_argument.h"
#include "../checks.h"
#include "../sdk_ops.h"
#include "flight.h"
#include "waiting.h"

namespace nb = nanobind;
using namespace nb::literals;
using sdk::crop_spec;
using sdk::require;
using sdk::cuda::check;

namespace {

using Address = uint64_t;
using Triple = std::array<float, 3>;

template <class T> T* pointer(Address address) { return reinterpret_cast<T*>(static_cast<uintptr_t>(address)); }
cudaStream_t stream_of(Address stream) { return pointer<CUstream_st>(stream); }

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
          Triple bias, bool swap, bool half, bool nv12, std::array<float, 6> yuv, Address stream, int border) {
    require(frames && frames % 8 == 0, "frames must be the address of a frame record a crop, aligned to 8 bytes");
    launch_crop(out, {}, pointer<const sdk::Frame>(frames), nv12, affines, count,
                crop_spec(height, width, scale, bias, swap, half, nv12, yuv, border), stream);
}

using FrameValues = std::tuple<Address, Address, int64_t, int64_t, int32_t, int32_t>;

void crop_frame(Address out, FrameValues frame, Address affines, int32_t count, int32_t height, int32_t width, Triple scale,
                Triple bias, bool swap, bool half, bool nv12, std::array<float, 6> yuv, Address stream, int border) {
    const auto [data, chroma, stride, chroma_stride, frame_height, frame_width] = frame;
    sdk::check_frame_size(frame_height, frame_width);
    require(!nv12 || (chroma && frame_height % 2 == 0 && frame_width % 2 == 0), "an NV12 frame must have a chroma plane and even sides");
    const sdk::Frame value = {pointer<const uint8_t>(data), pointer<const uint8_t>(chroma), stride, chroma_stride, frame_height, frame_width};
    launch_crop(out, value, nullptr, nv12, affines, count, crop_spec(height, width, scale, bias, swap, half, nv12, yuv, border), stream);
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

// Results and scratch: (count, boxes, scores, list of candidates), and how many boxes at most.
using FoundAddresses = std::tuple<Address, Address, Address, Address>;
// Crops of the persons found: (records, affines, mirrored affines, how many, the frame's record, height, width, padding).
using CropAddresses = std::tuple<Address, Address, Address, int32_t, Address, int32_t, int32_t, double>;

sdk::cuda::CropsOut crops_out(const std::optional<CropAddresses>& told) {
    if (!told) return {};
    const auto [records, affines, mirrored, count, frame, height, width, padding] = *told;
    require(count >= 0 && records && affines && mirrored && frame, "records, affines and the frame's record must not be null");
    require(records % 8 == 0 && frame % 8 == 0 && affines % 4 == 0 && mirrored % 4 == 0, "records and affines must be aligned");
    require(sdk::is_side(height) && sdk::is_side(width) && width > 0 && height > 0 && padding > 0, "crop sides must be 1 to 16384");
    return {pointer<sdk::Frame>(records), pointer<float>(affines), pointer<float>(mirrored), count, pointer<const sdk::Frame>(frame),
            {height, width, padding}};
}

void detections(FoundAddresses found, const sdk::TableTuple& boxes, const sdk::TableTuple& scores, std::optional<sdk::TableTuple> labels,
                const sdk::DetectionRules& rules, std::array<int32_t, 2> size_hw, Address place, float threshold, float iou, int32_t most,
                std::optional<CropAddresses> crops, Address stream) {
    const auto [count, boxes_out, scores_out, list] = found;
    require(count && boxes_out && scores_out && list && place, "results, scratch and the frame's place must not be null");
    require(count % 4 == 0 && boxes_out % 16 == 0 && scores_out % 4 == 0 && list % 8 == 0 && place % 4 == 0, "addresses must be aligned");
    const sdk::DetectionSpec spec = sdk::detection_spec(rules, std::get<1>(boxes), size_hw[0], size_hw[1], threshold, iou, most);
    const sdk::DetectionOutputs outputs = sdk::detection_outputs(boxes, scores, labels, spec);
    const sdk::cuda::CropsOut made = crops_out(crops);
    nb::gil_scoped_release released;
    check_launch(sdk::cuda::detections({pointer<int32_t>(count), pointer<sdk::DetectedBox>(boxes_out), pointer<float>(scores_out),
                                        pointer<sdk::cuda::Candidate>(list)}, outputs, spec, pointer<const sdk::FramePlace>(place), made,
                                       stream_of(stream)), "detections");
}

// ---- graphs ----------------------------------------------------------------------------------------------------

// How many kernels one launch of a graph starts, those of the graphs inside it included.
int64_t kernels_in(cudaGraph_t graph) {
    size_t count = 0;
    check(cudaGraphGetNodes(graph, nullptr, &count), "the captured graph's nodes could not be counted");
    std::vector<cudaGraphNode_t> nodes(count);
    check(cudaGraphGetNodes(graph, nodes.data(), &count), "the captured graph's nodes could not be listed");
    int64_t kernels = 0;
    for (const cudaGraphNode_t node : nodes) {
        cudaGraphNodeType type;
        check(cudaGraphNodeGetType(node, &type), "a node's type could not be asked");
        if (type == cudaGraphNodeTypeKernel) kernels++;
        if (type != cudaGraphNodeTypeGraph) continue;
        cudaGraph_t inner = nullptr;
        check(cudaGraphChildGraphNodeGetGraph(node, &inner), "a graph inside the captured one could not be asked");
        kernels += kernels_in(inner);
    }
    return kernels;
}

// An executable graph. destroy() may be called early and more than once; a destroyed graph cannot be launched.
class Graph {
  public:
    Graph(cudaGraphExec_t executable, int64_t kernels) : kernels(kernels), executable_(executable) {}
    Graph(Graph&& other) noexcept : kernels(other.kernels), executable_(std::exchange(other.executable_, nullptr)) {}
    Graph& operator=(Graph&&) = delete;
    ~Graph() { destroy(); }

    cudaGraphExec_t executable() const {
        require(executable_, "this graph has been destroyed");
        return executable_;
    }
    void launch(Address stream) const {
        const cudaGraphExec_t graph = executable();
        nb::gil_scoped_release released;
        check(cudaGraphLaunch(graph, stream_of(stream)), "the graph could not be launched");
    }
    void destroy() {
        if (executable_) cudaGraphExecDestroy(std::exchange(executable_, nullptr));
    }

    const int64_t kernels;  // that one launch starts

  private:
    cudaGraphExec_t executable_;
};

struct GraphHold {
    cudaGraph_t graph = nullptr;
    ~GraphHold() {
        if (graph) cudaGraphDestroy(graph);
    }
};

void graph_begin(Address stream) {
    check(cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeThreadLocal), "the capture could not begin");
}

Graph graph_end(Address stream) {
    nb::gil_scoped_release released;
    GraphHold held;
    check(cudaStreamEndCapture(stream_of(stream), &held.graph), "the capture broke");
    require(held.graph, "the capture broke: it holds no graph");
    const int64_t kernels = kernels_in(held.graph);
    cudaGraphExec_t executable = nullptr;
    check(cudaGraphInstantiate(&executable, held.graph, 0), "the captured graph could not be made executable");
    return Graph(executable, kernels);
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

bool finished(Address stream, double seconds) {
    nb::gil_scoped_release released;
    return sdk::cuda::work_ends(stream_of(stream), seconds);
}

Address mapped(Address host, size_t size) {
    return reinterpret_cast<uintptr_t>(sdk::cuda::mapped_memory(pointer<const uint8_t>(host), size));
}

// ---- a call on its way -----------------------------------------------------------------------------------------

using sdk::cuda::FlightStatus;
using Numbers = nb::ndarray<nb::ro, nb::device::cpu>;
using FrameNumbers = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Boxes = nb::ndarray<float, nb::shape<-1, 4>, nb::c_contig, nb::device::cpu>;
using Joints = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using HostFrame = nb::ndarray<const uint8_t, nb::ro, nb::device::cpu>;

sdk::Source device_source(nb::handle frame, bool nv12) {
    const auto [data, chroma, stride, chroma_stride, height, width] = nb::cast<FrameValues>(frame);
    sdk::check_frame_size(height, width);
    const sdk::Frame value = {pointer<const uint8_t>(data), nv12 ? pointer<const uint8_t>(chroma) : nullptr, stride, chroma_stride, height, width};
    return {value, false, nullptr, sdk::Way::in_place, {}, {}};
}

// H x W x 3 with contiguous pixels, or NV12's H * 3/2 rows.
sdk::Source host_source(nb::handle frame, bool nv12) {
    const HostFrame rows = nb::cast<HostFrame>(frame);
    require(rows.ndim() == (nv12 ? 2 : 3), "a frame must be H x W x 3, or rows of NV12");
    const int64_t height = nv12 ? rows.shape(0) * 2 / 3 : rows.shape(0), width = rows.shape(1), stride = rows.stride(0);
    sdk::check_frame_size(height, width);
    if (nv12) require(rows.stride(1) == 1 && rows.shape(0) % 3 == 0 && width % 2 == 0, "an NV12 frame must be whole rows of even sides");
    else require(rows.shape(2) == 3 && rows.stride(1) == 3 && rows.stride(2) == 1, "a frame's rows must be contiguous pixels");
    const uint8_t* chroma = nv12 ? rows.data() + height * stride : nullptr;
    const sdk::Frame value = {rows.data(), chroma, stride, nv12 ? stride : 0, static_cast<int32_t>(height), static_cast<int32_t>(width)};
    return {value, true, nullptr, sdk::Way::packed, {}, {}};
}

// One lane's calls. What it was made with must live as long as it does.
class Flight {
  public:
    Flight(Address records, Address affines, Address joints, int32_t max_batch, int32_t person_floats, int32_t height, int32_t width,
           double padding, bool nv12, bool shares_memory, Address stream)
        : nv12_(nv12), person_floats_(person_floats), flight_({pointer<sdk::Frame>(records), pointer<float>(affines),
          pointer<const float>(joints), max_batch, person_floats}, {height, width, padding}, nv12, shares_memory, stream_of(stream)) {
        require(records && affines && records % 8 == 0 && affines % 4 == 0, "records and affines must be aligned addresses");
    }

    int run(nb::list frames, const Numbers& placed, std::optional<Boxes> checked, std::optional<FrameNumbers> frame_of, int32_t bucket,
            bool flip, const Graph* graph, std::optional<Joints> joints, double seconds, const Graph* then) {
        sdk::cuda::FlightCall call = call_of(placed, checked);
        call.bucket = bucket;
        call.flip = flip;
        call.seconds = seconds;
        call.graph = graph ? graph->executable() : nullptr;
        call.then = then ? then->executable() : nullptr;
        if (frame_of) {
            require(frame_of->shape(0) == static_cast<size_t>(call.count), "frame_of must hold a number a crop");
            call.frame_of = frame_of->data();
        }
        if (joints) {
            require(joints->shape(0) == static_cast<size_t>(call.count) && joints->size() == joints->shape(0) * person_floats_,
                    "joints must be N x K x columns");
            call.joints = joints->data();
        }
        flight_.sources.resize(frames.size());
        for (size_t i = 0; i < frames.size(); i++) {
            const nb::handle frame = frames[i];
            sdk::Source& source = flight_.sources[i];
            source = nb::isinstance<nb::tuple>(frame) ? device_source(frame, nv12_) : host_source(frame, nv12_);
        }
        nb::gil_scoped_release released;
        return static_cast<int>(flight_.run(call));
    }

    void set_room(Address staging, Address device, int64_t bytes) { flight_.room = {pointer<uint8_t>(staging), pointer<uint8_t>(device), bytes}; }
    void set_costs(const std::array<double, 6>& c) { flight_.costs = sdk::TransferCosts{c[0], c[1], c[2], c[3], c[4], c[5]}; }
    std::tuple<int, int64_t> bad_box() const { return {static_cast<int>(flight_.bad.fault), flight_.bad.row}; }
    std::tuple<int64_t, bool> wanted() const { return {flight_.wanted_bytes, flight_.packs}; }
    std::tuple<double, double, double, double> spent_ms() const { return std::tuple_cat(flight_.spent_ms); }

    // The ways of the last call's frames, each once, as bits: 1 << Way, and the bit above for frames on the device.
    int ways() const {
        int bits = 0;
        for (const sdk::Source& source : flight_.sources) bits |= source.on_host ? 1 << static_cast<int>(source.way) : 16;
        return bits;
    }

  private:
    sdk::cuda::FlightCall call_of(const Numbers& placed, const std::optional<Boxes>& checked) const {
        sdk::cuda::FlightCall call = {};
        call.count = static_cast<int32_t>(placed.shape(0));
        if (placed.ndim() == 3) {
            require(placed.dtype() == nb::dtype<float>() && placed.shape(1) == 2 && placed.shape(2) == 3 &&
                    placed.stride(2) == 1 && placed.stride(1) == 3 && placed.stride(0) == 6, "affines must be N x 2 x 3 float32, contiguous");
            call.affines = static_cast<const float*>(placed.data());
            return call;
        }
        require(checked && checked->shape(0) == placed.shape(0), "checked boxes must be N x 4");
        call.boxes = sdk::box_numbers(placed);
        call.checked_boxes = checked->data();
        return call;
    }

    bool nv12_;
    int32_t person_floats_;
    sdk::cuda::Flight flight_;
};

}  // namespace

void bind_cuda(nb::module_& parent) {
    nb::set_leak_warnings(false);  // the graphs of a lost device are left alone on purpose
    parent.attr("WITHOUT_CUDA") = "";
    nb::module_ m = parent.def_submodule("cuda", "The CUDA half, on raw pointers.");
    m.attr("ARCHITECTURES") = SDK_CUDA_ARCHITECTURES;
    m.attr("COMPILER") = SDK_CUDA_COMPILER;
    m.attr("TOOLKIT") = std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);

    m.def("crop", &crop, "out"_a, "frames"_a, "affines"_a, "count"_a, "height"_a, "width"_a, "scale"_a, "bias"_a, "swap"_a,
          "half"_a, "nv12"_a, "yuv"_a, "stream"_a, "border"_a = 0);
    m.def("crop_frame", &crop_frame, "out"_a, "frame"_a, "affines"_a, "count"_a, "height"_a, "width"_a, "scale"_a, "bias"_a,
          "swap"_a, "half"_a, "nv12"_a, "yuv"_a, "stream"_a, "border"_a = 0);
    m.def("decode", &decode, "out"_a, "x"_a, "y"_a, "affines"_a, "count"_a, "joints"_a, "x_bins"_a, "y_bins"_a,
          "split_ratio"_a, "score"_a, "refine"_a, "half"_a, "stream"_a, "mirrored_x"_a = 0, "mirrored_y"_a = 0,
          "partner"_a = 0, "flip_shift"_a = 0, "z"_a = 0, "mirrored_z"_a = 0, "z_bins"_a = 0, "depth"_a = sdk::DepthTuple{},
          "spread"_a = nb::none(), "second"_a = false);

    m.def("detections", &detections, "found"_a, "boxes"_a, "scores"_a, "labels"_a.none(), "rules"_a, "size_hw"_a, "place"_a,
          "threshold"_a, "iou"_a, "most"_a, "crops"_a.none(), "stream"_a);

    nb::class_<Graph>(m, "Graph")
        .def("launch", &Graph::launch, "stream"_a)
        .def("destroy", &Graph::destroy)
        .def_ro("kernels", &Graph::kernels);
    m.def("graph_begin", &graph_begin, "stream"_a);
    m.def("graph_end", &graph_end, "stream"_a);
    m.def("graph_abort", &graph_abort, "stream"_a);
    nb::class_<Mark>(m, "Mark").def("hold_up", &Mark::hold_up, "stream"_a).def("destroy", &Mark::destroy);
    m.def("mark", [](Address stream) { return Mark(stream); }, "stream"_a);
    m.def("finished", &finished, "stream"_a, "seconds"_a);
    m.def("mapped", &mapped, "host"_a, "size"_a);

    nb::class_<Flight>(m, "Flight")
        .def(nb::init<Address, Address, Address, int32_t, int32_t, int32_t, int32_t, double, bool, bool, Address>(), "records"_a,
             "affines"_a, "joints"_a, "max_batch"_a, "person_floats"_a, "height"_a, "width"_a, "padding"_a, "nv12"_a,
             "shares_memory"_a, "stream"_a)
        .def("run", &Flight::run, "frames"_a, "placed"_a.noconvert(), "checked"_a.noconvert().none(), "frame_of"_a.noconvert().none(),
             "bucket"_a, "flip"_a, "graph"_a.none(), "joints"_a.noconvert().none(), "seconds"_a, "then"_a.none() = nb::none())
        .def("set_room", &Flight::set_room, "staging"_a, "device"_a, "bytes"_a)
        .def("set_costs", &Flight::set_costs, "costs"_a)
        .def("bad_box", &Flight::bad_box)
        .def("wanted", &Flight::wanted)
        .def("spent_ms", &Flight::spent_ms)
        .def("ways", &Flight::ways);
}

// bindings.cpp: the only file that knows Python.
//
// sdk/ops.py checks arguments in words; the types and checks here are the second wall: nothing is converted silently,
// and no shape reaches a kernel unchecked. The GIL is released around every op.

#include "box_argument.h"
#include "checks.h"
#include "cuda/bindings_cuda.h"
#include "ending.h"
#include "host/packing.h"
#include "host/persons.h"
#include "sdk_ops.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <atomic>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace nb = nanobind;
using namespace nb::literals;
using sdk::require;

namespace {

using Frame3 = nb::ndarray<const uint8_t, nb::shape<-1, -1, 3>, nb::device::cpu>;
using Plane = nb::ndarray<const uint8_t, nb::shape<-1, -1>, nb::device::cpu>;
using FrameOf = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Affines = nb::ndarray<const float, nb::shape<-1, 2, 3>, nb::c_contig, nb::device::cpu>;
using CropOut = nb::ndarray<nb::shape<-1, 3, -1, -1>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<nb::ro, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using JointsOut = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Partner = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using MaybeRows = std::optional<Rows>;

constexpr int MAX_THREADS = 256;
std::atomic<int> thread_count{1};

bool is_half(nb::dlpack::dtype type) {
    const bool half = type == nb::dtype<float>() ? false : true;
    require(!half || (type.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float) && type.bits == 16 && type.lanes == 1),
            "dtype must be float32 or float16");
    return half;
}

sdk::CropSpec crop_spec(CropOut& out, size_t count, const std::array<float, 3>& scale, const std::array<float, 3>& bias,
                        bool swap, int border, const std::optional<std::array<float, 6>>& yuv = {}) {
    require(out.shape(0) == count, "out and affines must hold the same number of crops");
    require(count <= INT32_MAX, "too many crops");
    return sdk::crop_spec(out.shape(2), out.shape(3), scale, bias, swap, is_half(out.dtype()), yuv.has_value(),
                          yuv.value_or(std::array<float, 6>{}), border);
}

sdk::Frame packed_view(const Frame3& frame) {
    sdk::check_frame_size(frame.shape(0), frame.shape(1));
    require(frame.size() == 0 || (frame.stride(2) == 1 && frame.stride(1) == 3), "the pixels of a frame's row must be contiguous");
    return {frame.data(), nullptr, frame.stride(0), 0, static_cast<int32_t>(frame.shape(0)), static_cast<int32_t>(frame.shape(1))};
}

sdk::Frame nv12_view(const Plane& luma, const Plane& chroma) {
    sdk::check_frame_size(luma.shape(0), luma.shape(1));
    require(luma.size() == 0 || (luma.stride(1) == 1 && chroma.stride(1) == 1), "the bytes of a plane's row must be contiguous");
    require(luma.shape(0) % 2 == 0 && luma.shape(1) % 2 == 0, "an NV12 frame must have even sides");
    require(chroma.shape(0) == luma.shape(0) / 2 && chroma.shape(1) == luma.shape(1), "chroma must be H/2 x W bytes");
    return {luma.data(), chroma.data(), luma.stride(0), chroma.stride(0), static_cast<int32_t>(luma.shape(0)),
            static_cast<int32_t>(luma.shape(1))};
}

void run_crop(CropOut& out, const std::vector<sdk::Frame>& views, const FrameOf& frame_of, Affines& affines,
              const sdk::CropSpec& spec) {
    const size_t count = affines.shape(0);
    require(frame_of.shape(0) == count, "frame_of and affines must hold the same number of crops");
    std::vector<sdk::Frame> records(count);
    for (size_t i = 0; i < count; i++) {
        const int32_t number = frame_of.data()[i];
        require(number >= 0 && static_cast<size_t>(number) < views.size(), "frame_of must hold numbers of frames");
        records[i] = views[number];
    }
    nb::gil_scoped_release released;
    sdk::cpu::crop(out.data(), records.data(), affines.data(), static_cast<int32_t>(count), spec, thread_count.load());
}

// Crop i is of frames[frame_of[i]].
void crop(CropOut out, const std::vector<Frame3>& frames, FrameOf frame_of, Affines affines, std::array<float, 3> scale,
          std::array<float, 3> bias, bool swap, int border) {
    std::vector<sdk::Frame> views;
    for (const Frame3& frame : frames) views.push_back(packed_view(frame));
    run_crop(out, views, frame_of, affines, crop_spec(out, affines.shape(0), scale, bias, swap, border));
}

void crop_nv12(CropOut out, const std::vector<std::tuple<Plane, Plane>>& frames, FrameOf frame_of, Affines affines,
               std::array<float, 3> scale, std::array<float, 3> bias, bool swap, std::array<float, 6> yuv, int border) {
    std::vector<sdk::Frame> views;
    for (const auto& [luma, chroma] : frames) views.push_back(nv12_view(luma, chroma));
    run_crop(out, views, frame_of, affines, crop_spec(out, affines.shape(0), scale, bias, swap, border, yuv));
}

const void* data_of(const MaybeRows& rows) { return rows ? rows->data() : nullptr; }

int32_t bins_of(const Rows& rows, const Rows& like) {
    require(rows.shape(0) == like.shape(0) && rows.shape(1) == like.shape(1) && rows.dtype() == like.dtype(),
            "all logits must agree in persons, joints and dtype");
    require(rows.shape(2) <= INT32_MAX / 4, "too many bins");
    return static_cast<int32_t>(rows.shape(2));
}

void check_mirrored(const MaybeRows& mirrored, const Rows& like, bool wanted) {
    require(!mirrored == !wanted, "mirrored logits must be given for every axis, with partner, or for none");
    if (mirrored) require(bins_of(*mirrored, like) == bins_of(like, like), "mirrored logits must have the same bins");
}

void check_partner(const Partner& partner, int32_t joints) {
    require(partner.shape(0) == static_cast<size_t>(joints), "partner must hold one joint index per joint");
    for (size_t k = 0; k < partner.shape(0); k++)
        require(partner.data()[k] >= 0 && partner.data()[k] < joints, "partner must hold joint indices");
}

void decode(JointsOut out, Rows x, Rows y, Affines affines, double split_ratio, int score, int refine, MaybeRows z,
            sdk::DepthTuple depth, std::optional<sdk::SpreadTuple> spread, bool second, MaybeRows mirrored_x,
            MaybeRows mirrored_y, MaybeRows mirrored_z, std::optional<Partner> partner, int flip_shift) {
    require(x.shape(0) * x.shape(1) <= INT32_MAX / 4, "too many joints");
    sdk::DecodeSpec spec = sdk::decode_spec(split_ratio, score, refine, flip_shift, depth, spread, second);
    spec.joints = static_cast<int32_t>(x.shape(1));
    spec.x_bins = bins_of(x, x);
    spec.y_bins = bins_of(y, x);
    spec.z_bins = z ? bins_of(*z, x) : 0;
    require(!z || spec.z_bins > 0, "z must have bins");
    spec.half = is_half(x.dtype());
    const bool flipped = partner.has_value();
    check_mirrored(mirrored_x, x, flipped);
    check_mirrored(mirrored_y, y, flipped);
    check_mirrored(mirrored_z, z ? *z : x, flipped && z);
    if (flipped) check_partner(*partner, spec.joints);
    require(out.shape(0) == x.shape(0) && out.shape(1) == x.shape(1), "out and the logits must agree in persons and joints");
    require(out.shape(2) == static_cast<size_t>(sdk::columns_of(spec)), "out must have a column for all that is asked");
    require(affines.shape(0) == x.shape(0), "affines and the logits must agree in persons");
    const sdk::Logits logits = {x.data(), y.data(), data_of(z), data_of(mirrored_x), data_of(mirrored_y), data_of(mirrored_z),
                                flipped ? partner->data() : nullptr};
    nb::gil_scoped_release released;
    sdk::cpu::decode(out.data(), logits, affines.data(), static_cast<int32_t>(affines.shape(0)), spec, thread_count.load());
}

using Output = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using OutputPart = std::tuple<Output, int32_t, bool>;  // numbers, first column, rows first
using ScoresOut = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

int number_type(nb::dlpack::dtype type) {
    if (type == nb::dtype<int32_t>()) return static_cast<int>(sdk::NumberType::int32);
    if (type == nb::dtype<int64_t>()) return static_cast<int>(sdk::NumberType::int64);
    return static_cast<int>(is_half(type) ? sdk::NumberType::float16 : sdk::NumberType::float32);
}

sdk::TableTuple told(const OutputPart& part) {
    const auto& [numbers, first, rows_first] = part;
    const int64_t rows = numbers.shape(rows_first ? 0 : 1), columns = numbers.shape(rows_first ? 1 : 0);
    return {reinterpret_cast<uintptr_t>(numbers.data()), rows, columns, first, rows_first, number_type(numbers.dtype())};
}

// How many boxes were found; out holds them.
int32_t detections(nb::ndarray<float, nb::shape<-1, 4>, nb::c_contig, nb::device::cpu> boxes_out, ScoresOut scores_out, const OutputPart& boxes,
                   const OutputPart& scores, const std::optional<OutputPart>& labels, const sdk::DetectionRules& rules,
                   std::array<int32_t, 2> size_hw, std::array<float, 6> place, float threshold, float iou) {
    require(boxes_out.shape(0) == scores_out.shape(0) && boxes_out.shape(0) <= INT32_MAX, "boxes and scores must have as many rows");
    const sdk::TableTuple box_table = told(boxes);
    const sdk::DetectionSpec spec = sdk::detection_spec(rules, std::get<1>(box_table), size_hw[0], size_hw[1], threshold, iou,
                                                        static_cast<int32_t>(boxes_out.shape(0)));
    const sdk::DetectionOutputs outputs = sdk::detection_outputs(
        box_table, told(scores), labels ? std::optional(told(*labels)) : std::nullopt, spec);
    const auto [scale_x, shift_x, scale_y, shift_y, width, height] = place;
    nb::gil_scoped_release released;
    return sdk::cpu::detections(boxes_out.data(), scores_out.data(), outputs, spec, {scale_x, shift_x, scale_y, shift_y, width, height});
}

using Numbers = nb::ndarray<nb::ro, nb::device::cpu>;
using BoxesOut = nb::ndarray<float, nb::shape<-1, 4>, nb::c_contig, nb::device::cpu>;
using AffinesOut = nb::ndarray<float, nb::shape<-1, 2, 3>, nb::c_contig, nb::device::cpu>;
using Sides = std::tuple<int32_t, int32_t>;

// (fault, row) of the first box of the gravest fault; (0, 0) where all are boxes.
std::tuple<int, int64_t> check_boxes(BoxesOut out, Numbers boxes) {
    require(out.shape(0) == boxes.shape(0), "out and boxes must hold the same number of boxes");
    require(sdk::numbers_from(out.data(), sdk::box_numbers(boxes)), "boxes must be integers or floats of up to 64 bits");
    const sdk::BadBox bad = sdk::first_bad_box(out.data(), static_cast<int64_t>(out.shape(0)));
    return {static_cast<int>(bad.fault), bad.row};
}

void affines_from_boxes(AffinesOut out, Numbers boxes, Sides size_hw, double padding) {
    require(out.shape(0) == boxes.shape(0), "out and boxes must hold the same number of boxes");
    std::vector<double> exact(4 * boxes.shape(0));
    require(sdk::numbers_from(exact.data(), sdk::box_numbers(boxes)), "boxes must be integers or floats of up to 64 bits");
    const sdk::CropShape shape = {std::get<0>(size_hw), std::get<1>(size_hw), padding};
    for (size_t i = 0; i < boxes.shape(0); i++) sdk::affine_from_box(out.data() + 6 * i, &exact[4 * i], shape);
}

// Both in one call: `affines` of the boxes as float32, where none is bad.
std::tuple<int, int64_t> place_boxes(BoxesOut out, AffinesOut affines, Numbers boxes, Sides size_hw, double padding) {
    require(affines.shape(0) == boxes.shape(0), "affines and boxes must hold the same number of boxes");
    const std::tuple<int, int64_t> bad = check_boxes(out, boxes);
    if (std::get<0>(bad)) return bad;
    const sdk::CropShape shape = {std::get<0>(size_hw), std::get<1>(size_hw), padding};
    for (size_t i = 0; i < boxes.shape(0); i++) {
        const float* box = out.data() + 4 * i;
        const double exact[4] = {box[0], box[1], box[2], box[3]};
        sdk::affine_from_box(affines.data() + 6 * i, exact, shape);
    }
    return bad;
}

using Boxes = nb::ndarray<const float, nb::shape<-1, 4>, nb::c_contig, nb::device::cpu>;
using Keypoints = nb::ndarray<const float, nb::shape<-1, -1, 2>, nb::c_contig, nb::device::cpu>;
using JointScores = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using BoxScores = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Kernels = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using IouOut = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using RowsOut = nb::ndarray<int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using TrackOf = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using TrackOfOut = nb::ndarray<int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using PersonArrays = std::tuple<Boxes, Keypoints, JointScores>;
// boxes, keypoints, scores, steps, missed
using TrackArrays = std::tuple<BoxesOut, nb::ndarray<float, nb::shape<-1, -1, 2>, nb::c_contig, nb::device::cpu>,
                               nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>,
                               nb::ndarray<float, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>, RowsOut>;

// Fewer comparisons of joints take less time than another thread may keep the GIL for: 5 ms.
constexpr size_t JOINTS_FOR_RELEASE = 1 << 18;

void box_iou(IouOut out, Boxes first, Boxes second) {
    require(out.shape(0) == first.shape(0) && out.shape(1) == second.shape(0), "out must be a table of first and second");
    float* iou = out.data();
    for (size_t i = 0; i < first.shape(0); i++)
        for (size_t j = 0; j < second.shape(0); j++) *iou++ = sdk::box_iou(first.data() + 4 * i, second.data() + 4 * j);
}

void most_rows(RowsOut out, Boxes boxes, BoxScores scores, Boxes before, float least) {
    require(boxes.shape(0) == scores.shape(0) && out.shape(0) <= scores.shape(0), "boxes and scores must have as many rows, and out at most so many");
    sdk::most_rows(out.data(), out.shape(0), boxes.data(), scores.data(), boxes.shape(0), before.data(), before.shape(0), least);
}

void boxes_around(BoxesOut out, Keypoints keypoints, nb::ndarray<const bool, nb::ndim<2>, nb::c_contig, nb::device::cpu> counted, float margin) {
    const size_t joints = keypoints.shape(1);
    require(out.shape(0) == keypoints.shape(0) && counted.shape(0) == keypoints.shape(0) && counted.shape(1) == joints,
            "out, keypoints and counted must agree in persons and joints");
    for (size_t i = 0; i < out.shape(0); i++)
        sdk::box_around(out.data() + 4 * i, keypoints.data() + 2 * i * joints, counted.data() + i * joints, static_cast<int64_t>(joints), margin);
}

// Boxes, keypoints and scores of as many rows and joints.
template <class Arrays> bool are_rows(const Arrays& arrays, size_t joints) {
    const auto &boxes = std::get<0>(arrays), &keypoints = std::get<1>(arrays), &scores = std::get<2>(arrays);
    return keypoints.shape(0) == boxes.shape(0) && scores.shape(0) == boxes.shape(0) && keypoints.shape(1) == joints && scores.shape(1) == joints;
}

sdk::Persons persons_from(const PersonArrays& arrays, size_t joints) {
    require(are_rows(arrays, joints), "persons must have a box, and keypoints and scores of as many joints as the tracks");
    const auto& [boxes, keypoints, scores] = arrays;
    return {boxes.data(), keypoints.data(), scores.data(), static_cast<int64_t>(boxes.shape(0))};
}

sdk::Tracks tracks_from(const TrackArrays& arrays, size_t joints) {
    const auto& [boxes, keypoints, scores, steps, missed] = arrays;
    require(are_rows(arrays, joints) && steps.shape(0) == boxes.shape(0) && missed.shape(0) == boxes.shape(0) && boxes.shape(0) <= INT32_MAX,
            "tracks must have a row each in all arrays, and one number of joints");
    return {boxes.data(), keypoints.data(), scores.data(), steps.data(), missed.data(), static_cast<int64_t>(boxes.shape(0))};
}

// How many persons are known.
int64_t pair_persons(TrackOfOut track_of, const PersonArrays& persons, const TrackArrays& tracks, Kernels kernels, double area_share,
                     float fair, double least) {
    const size_t joints = kernels.shape(0);
    const sdk::Persons given = persons_from(persons, joints);
    const sdk::Tracks known = tracks_from(tracks, joints);
    require(track_of.shape(0) == static_cast<size_t>(given.count), "track_of must have a row a person");
    require(least > 0 && area_share > 0, "least and area_share must be positive");
    const sdk::LikenessRule rule = {kernels.data(), static_cast<int64_t>(joints), area_share, fair, least};
    std::optional<nb::gil_scoped_release> released;
    if (track_of.shape(0) * known.count * joints > JOINTS_FOR_RELEASE) released.emplace();
    return sdk::Pairing(given, known, rule).pair(track_of.data());
}

// The most frames in a row that a track was missed for.
int64_t see_persons(const TrackArrays& tracks, const PersonArrays& persons, TrackOf track_of) {
    const size_t joints = std::get<2>(tracks).shape(1);
    const sdk::Tracks known = tracks_from(tracks, joints);
    const sdk::Persons given = persons_from(persons, joints);
    require(track_of.shape(0) == static_cast<size_t>(given.count), "track_of must have a row a person");
    for (size_t i = 0; i < track_of.shape(0); i++) require(track_of.data()[i] >= -1 && track_of.data()[i] < known.count, "track_of must hold rows of tracks");
    return sdk::see_persons(known, given, track_of.data(), static_cast<int64_t>(joints));
}

using RegionTuple = std::tuple<int32_t, int32_t, int32_t, int32_t>;
using Planned = std::tuple<int, std::vector<RegionTuple>, int64_t, int32_t, double>;

// For the property tests: what one frame's crops make of it on a device of these costs: (way, regions, bytes packed by the
// host, their bands, the bands' seconds).
Planned plan_transfer(Affines affines, Sides size_hw, Sides frame_hw, bool nv12, bool page_locked, std::array<double, 6> costs) {
    const sdk::CropShape shape = {std::get<0>(size_hw), std::get<1>(size_hw), 1.0};
    const auto [height, width] = frame_hw;
    sdk::check_frame_size(height, width);
    const int64_t stride = static_cast<int64_t>(width) * (nv12 ? 1 : 3);
    const sdk::Frame frame = {nullptr, nullptr, stride, nv12 ? stride : 0, height, width};
    const uint8_t* somewhere = reinterpret_cast<const uint8_t*>(64);
    std::vector<sdk::Source> sources = {{frame, true, page_locked ? somewhere : nullptr, sdk::Way::packed, {}, {}}};
    const std::vector<int32_t> owners(affines.shape(0), 0);
    const sdk::TransferCosts c = {costs[0], costs[1], costs[2], costs[3], costs[4], costs[5]};
    sdk::Packing packing;
    packing.gather(sources, owners.data(), affines.data(), nullptr, static_cast<int32_t>(owners.size()), shape, nv12);
    packing.lay_out(sources, nv12, c);
    std::vector<RegionTuple> regions;
    for (const sdk::Region& r : sources[0].regions) regions.emplace_back(r.x0, r.y0, r.x1, r.y1);
    const sdk::Moved time = sdk::packing_time(sources[0].regions, nv12, c);
    const sdk::Banded cut = sdk::banded(time.host_s, time.bus_s, c);
    return {static_cast<int>(sources[0].way), regions, packing.packed_bytes(), cut.bands, cut.seconds};
}

using PeakTuple = std::tuple<float, int32_t, float>;

// The reduction operator itself, for the property tests.
PeakTuple merge_peaks(PeakTuple a, PeakTuple b) {
    const auto peak = [](const PeakTuple& t) { return sdk::Peak{std::get<0>(t), std::get<1>(t), std::get<2>(t)}; };
    const sdk::Peak win = sdk::merge(peak(a), peak(b));
    return {win.value, win.bin, win.sum};
}

void set_threads(int count) {
    require(count >= 1 && count <= MAX_THREADS, "the number of threads must be 1 to MAX_THREADS");
    thread_count.store(count);
}

void set_instruction_set(const std::string& name) {
    require(sdk::cpu::use_instruction_set(name.c_str()), "this machine has no such instruction set");
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "The fused ops: crop, decode and detections. Call them through sdk.ops, which checks arguments in words.";

    m.def("crop", &crop, "out"_a.noconvert(), "frames"_a.noconvert(), "frame_of"_a.noconvert(), "affines"_a.noconvert(),
          "scale"_a, "bias"_a, "swap"_a, "border"_a = 0);
    m.def("crop_nv12", &crop_nv12, "out"_a.noconvert(), "frames"_a.noconvert(), "frame_of"_a.noconvert(),
          "affines"_a.noconvert(), "scale"_a, "bias"_a, "swap"_a, "yuv"_a, "border"_a = 0);
    m.def("decode", &decode, "out"_a.noconvert(), "x"_a.noconvert(), "y"_a.noconvert(), "affines"_a.noconvert(),
          "split_ratio"_a, "score"_a, "refine"_a, "z"_a.noconvert() = nb::none(), "depth"_a = sdk::DepthTuple{},
          "spread"_a = nb::none(), "second"_a = false, "mirrored_x"_a.noconvert() = nb::none(),
          "mirrored_y"_a.noconvert() = nb::none(), "mirrored_z"_a.noconvert() = nb::none(),
          "partner"_a.noconvert() = nb::none(), "flip_shift"_a = 0);

    m.def("detections", &detections, "boxes_out"_a.noconvert(), "scores_out"_a.noconvert(), "boxes"_a, "scores"_a, "labels"_a.none(),
          "rules"_a, "size_hw"_a, "place"_a, "threshold"_a, "iou"_a);

    m.def("check_boxes", &check_boxes, "out"_a.noconvert(), "boxes"_a.noconvert());
    m.def("place_boxes", &place_boxes, "out"_a.noconvert(), "affines"_a.noconvert(), "boxes"_a.noconvert(), "size_hw"_a,
          "padding"_a);
    m.def("affines_from_boxes", &affines_from_boxes, "out"_a.noconvert(), "boxes"_a.noconvert(), "size_hw"_a, "padding"_a);

    m.def("box_iou", &box_iou, "out"_a.noconvert(), "first"_a.noconvert(), "second"_a.noconvert());
    m.def("most_rows", &most_rows, "out"_a.noconvert(), "boxes"_a.noconvert(), "scores"_a.noconvert(), "before"_a.noconvert(), "least"_a);
    m.def("boxes_around", &boxes_around, "out"_a.noconvert(), "keypoints"_a.noconvert(), "counted"_a.noconvert(), "margin"_a);
    m.def("pair_persons", &pair_persons, "track_of"_a.noconvert(), "persons"_a.noconvert(), "tracks"_a.noconvert(),
          "kernels"_a.noconvert(), "area_share"_a, "fair"_a, "least"_a);
    m.def("see_persons", &see_persons, "tracks"_a.noconvert(), "persons"_a.noconvert(), "track_of"_a.noconvert());

    m.def("plan_transfer", &plan_transfer, "affines"_a.noconvert(), "size_hw"_a, "frame_hw"_a, "nv12"_a, "page_locked"_a,
          "costs"_a);
    m.def("merge_peaks", &merge_peaks, "a"_a, "b"_a);
    m.attr("MAX_THREADS") = MAX_THREADS;
    m.def("threads", [] { return thread_count.load(); });
    m.def("set_threads", &set_threads, "count"_a);
    m.def("instruction_set", &sdk::cpu::instruction_set);
    m.def("set_instruction_set", &set_instruction_set, "name"_a);
    m.def("end_within", &sdk::end_within, "seconds"_a);

    bind_cuda(m);
}

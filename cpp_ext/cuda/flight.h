// cuda/flight.h: one call on its way through a lane, on the host's side, from boxes and frames to joints. No Python here.
//
// boxes -> checked, affines and frame records in the parameter block -> regions packed and sent -> the graph launched, and
// another behind it where there is one -> waited for -> joints copied out. What a call is made of (lane, bucket, graphs,
// memory) is decided by whoever calls; a call that cannot go on says why and may be made again.

#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../checks.h"
#include "../host/boxes.h"
#include "../host/packing.h"
#include "waiting.h"

namespace sdk {
namespace cuda {

// Memory shared with the device for as long as the lane lives.
struct FlightMemory {
    Frame* records;    // a crop each, in the parameter block
    float* affines;    // 2 x max_batch x 2 x 3: the crops', the mirrored crops'
    const float* joints;  // max_batch x K x columns, or null where the host decodes
    int32_t max_batch, person_floats;
};

// Where frames of the host are packed and where they go. On a Jetson both are one memory.
struct FlightRoom {
    uint8_t *staging, *device;  // host's and device's addresses
    int64_t bytes;
};

enum class FlightStatus : int32_t { done, brought, pending, needs_room, needs_costs, bad_box };

// What one call gives: boxes of any numbers, or affines; frames, and which of them each crop is of (null: all the first).
struct FlightCall {
    std::optional<BoxNumbers> boxes;
    float* checked_boxes;         // count x 4, for boxes
    const float* affines;         // count x 2 x 3, where there are no boxes
    int32_t count, bucket;
    const int32_t* frame_of;
    bool flip;
    cudaGraphExec_t graph;        // null: the caller puts the work on the stream
    cudaGraphExec_t then;         // launched behind it, or null
    float* joints;                // count x K x columns, or null
    double seconds;               // how long to wait
};

class Flight {
  public:
    Flight(const FlightMemory& memory, const CropShape& shape, bool nv12, bool shares_memory, cudaStream_t stream)
        : memory_(memory), shape_(shape), nv12_(nv12), shares_memory_(shares_memory), stream_(stream) {}

    std::vector<Source> sources;  // set by the caller before `run`
    std::optional<TransferCosts> costs;
    FlightRoom room = {nullptr, nullptr, 0};

    // Valid after `run`.
    BadBox bad = {BoxFault::none, 0};
    int64_t wanted_bytes = 0;
    bool packs = false;  // whether the host has something to pack
    std::array<double, 4> spent_ms = {};  // bring, launch, wait, collect

    FlightStatus run(const FlightCall& call) {
        const Clock::time_point start = Clock::now();
        require(call.count >= 1 && call.count <= call.bucket && call.bucket <= memory_.max_batch, "a batch must fit its bucket");
        if (!place(call)) return FlightStatus::bad_box;
        const FlightStatus brought = bring(call);
        if (brought != FlightStatus::done) return brought;
        const Clock::time_point uploaded = Clock::now();
        spent_ms = {ms(uploaded - start), 0, 0, 0};
        if (!call.graph) return FlightStatus::brought;
        for (const cudaGraphExec_t graph : {call.graph, call.then})
            if (graph) check(cudaGraphLaunch(graph, stream_), "the graph could not be launched");
        const Clock::time_point launched = Clock::now();
        if (!work_ends(stream_, call.seconds)) return FlightStatus::pending;
        const Clock::time_point done = Clock::now();
        if (call.joints && memory_.joints) memcpy(call.joints, memory_.joints, sizeof(float) * memory_.person_floats * call.count);
        spent_ms = {ms(uploaded - start), ms(launched - uploaded), ms(done - launched), ms(Clock::now() - done)};
        return FlightStatus::done;
    }

  private:
    static double ms(Clock::duration spent) { return std::chrono::duration<double, std::milli>(spent).count(); }

    // Writes the affines. Rows that fill up the bucket look outside any frame and read nothing.
    bool place(const FlightCall& call) {
        float *own = memory_.affines, *mirrored = own + 6 * memory_.max_batch;
        if (call.boxes) {
            require(numbers_from(call.checked_boxes, *call.boxes), "boxes must be integers or floats of up to 64 bits");
            bad = first_bad_box(call.checked_boxes, call.count);
            if (bad.fault != BoxFault::none) return false;
            for (int32_t i = 0; i < call.count; i++) affine_from_box(own + 6 * i, call.checked_boxes + 4 * i, shape_);
        } else {
            memcpy(own, call.affines, sizeof(float) * 6 * call.count);
        }
        for (int32_t i = call.count; i < call.bucket; i++) affine_off_frame(own + 6 * i);
        if (call.flip)
            for (int32_t i = 0; i < call.bucket; i++) mirror_affine(mirrored + 6 * i, own + 6 * i, shape_.width);
        return true;
    }

    // Puts the copies of what the crops read on the stream, and writes the records.
    FlightStatus bring(const FlightCall& call) {
        bool moves = false;
        for (Source& source : sources) {
            if (!source.on_host) continue;
            source.page_locked = mapped_frame(source.frame);
            source.way = source.page_locked && shares_memory_ ? Way::in_place : Way::packed;
            moves |= source.way != Way::in_place;
        }
        if (moves && !shares_memory_ && !costs) return FlightStatus::needs_costs;
        owners_.assign(call.count, 0);
        if (call.frame_of) std::copy(call.frame_of, call.frame_of + call.count, owners_.begin());
        for (const int32_t owner : owners_) require(owner >= 0 && static_cast<size_t>(owner) < sources.size(), "frame_of must hold numbers of frames");
        if (moves) {
            packing_.gather(sources, owners_.data(), memory_.affines, call.flip ? memory_.affines + 6 * memory_.max_batch : nullptr,
                            call.count, shape_, nv12_);
            wanted_bytes = packing_.lay_out(sources, nv12_, costs_or_none());
            packs = packing_.packed_bytes() > 0;
            if (wanted_bytes > room.bytes || (packs && !room.staging)) return FlightStatus::needs_room;
            send();
        }
        for (int32_t i = 0; i < call.bucket; i++)
            memory_.records[i] = i < call.count ? packing_.record(sources, owners_.data(), i, room.device, nv12_) : Frame{};
        return FlightStatus::done;
    }

    void send() {
        packing_.pack(room.staging, costs_or_none(), [this](int64_t begin, int64_t end) {
            if (!shares_memory_) copy(room.device + begin, room.staging + begin, end - begin);
        });
        for (const Piece& piece : packing_.pieces()) {
            if (piece.by_host) continue;
            if (piece.pitch == piece.row_bytes) copy(room.device + piece.offset, piece.from, piece.rows * piece.row_bytes);
            else check(cudaMemcpy2DAsync(room.device + piece.offset, piece.row_bytes, piece.from, piece.pitch, piece.row_bytes, piece.rows,
                                         cudaMemcpyHostToDevice, stream_), "a frame's rows could not be uploaded");
        }
    }

    void copy(void* to, const void* from, int64_t bytes) {
        check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "a frame could not be uploaded");
    }

    // Where memory is shared nothing goes over a bus, and one band is best.
    TransferCosts costs_or_none() const { return costs.value_or(TransferCosts{0, HUGE_VAL, 0, 0, HUGE_VAL, 0}); }

    // The device's address of a frame in page-locked memory; null for a pageable one, and for one upside down.
    const uint8_t* mapped_frame(const Frame& frame) const {
        const int64_t rows = nv12_ ? frame.height * 3 / 2 : frame.height, row_bytes = static_cast<int64_t>(frame.width) * (nv12_ ? 1 : 3);
        if (frame.stride <= 0) return nullptr;
        return static_cast<const uint8_t*>(mapped_memory(frame.data, frame.stride * (rows - 1) + row_bytes));
    }

    FlightMemory memory_;
    CropShape shape_;
    bool nv12_, shares_memory_;
    cudaStream_t stream_;
    std::vector<int32_t> owners_;
    Packing packing_;
};

}  // namespace cuda
}  // namespace sdk

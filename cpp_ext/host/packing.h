// host/packing.h: which bytes of the frames go to the device, where they lie there, and how they get there. No CUDA here.
//
// Of a frame only the regions that its crops read are moved. Regions whose smallest common rectangle holds no more pixels
// than they do are one; where regions hold as much as the frame, the frame is one region. Regions lie one behind another,
// rows tight, with GUARD_BYTES before the first and behind the last, as the crop reads whole words:
//
//     | guard | rows of a region | rows of the next | ... | guard |
//
// A record's base is where the frame's corner would lie around its region, so the crop keeps its affines and its border.
//
// A frame in pageable memory is packed by the host; the buffer goes over the bus in `bands` copies, so that the host packs
// one band while the bus moves the one before. Of n bands, at a cost c each, one n-th of the faster side is not hidden
// behind the slower: slower + faster / n + n c, least at n = sqrt(faster / c). A page-locked frame is not touched by the
// host: the device fetches the rows of its regions, or the whole of it in one copy, whatever is cheaper.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../sdk_ops.h"
#include "../shared/box_math.h"

namespace sdk {

constexpr int64_t GUARD_BYTES = 64;

// What moving bytes costs on one device, in seconds and bytes a second.
struct TransferCosts {
    double copy_s, bytes_per_s, row_s;                 // over the bus: a copy, a row of one that is not whole rows
    double host_copy_s, host_bytes_per_s, host_row_s;  // by the host into page-locked memory, and asking for a copy
};

enum class Way : int32_t { packed, rows, whole, in_place };  // in_place: not moved at all

inline int64_t pixels_of(const Region& r) { return static_cast<int64_t>(r.x1 - r.x0) * (r.y1 - r.y0); }
inline int64_t bytes_of(const Region& r, bool nv12) { return pixels_of(r) * 3 / (nv12 ? 2 : 1); }
inline int64_t row_bytes_of(const Region& r, bool nv12) { return static_cast<int64_t>(r.x1 - r.x0) * (nv12 ? 1 : 3); }
inline int64_t rows_of(const Region& r, bool nv12) { return static_cast<int64_t>(r.y1 - r.y0) * (nv12 ? 3 : 2) / 2; }

inline Region united(const Region& a, const Region& b) {
    return {std::min(a.x0, b.x0), std::min(a.y0, b.y0), std::max(a.x1, b.x1), std::max(a.y1, b.y1)};
}

inline bool holds(const Region& outer, const Region& inner) {
    return outer.x0 <= inner.x0 && outer.y0 <= inner.y0 && outer.x1 >= inner.x1 && outer.y1 >= inner.y1;
}

// A chroma pair serves two columns and two rows: regions of NV12 have even edges.
inline Region aligned(const Region& r, bool nv12) {
    return nv12 ? Region{r.x0 & ~1, r.y0 & ~1, (r.x1 + 1) & ~1, (r.y1 + 1) & ~1} : r;
}

// Adds a region to those that are kept, uniting it with any whose common rectangle costs nothing.
inline void unite_into(std::vector<Region>& kept, Region region) {
    for (size_t i = 0; i < kept.size();) {
        const Region both = united(kept[i], region);
        if (pixels_of(both) > pixels_of(kept[i]) + pixels_of(region)) {
            i++;
            continue;
        }
        region = both;
        kept[i] = kept.back();
        kept.pop_back();
        i = 0;  // it has grown: those before may join now
    }
    kept.push_back(region);
}

// How many bands `bytes` are cut into, and the seconds that host and bus take together.
struct Banded {
    int32_t bands;
    double seconds;
};

inline Banded banded(double host_s, double bus_s, const TransferCosts& costs) {
    const double each = costs.host_copy_s + costs.copy_s, faster = std::min(host_s, bus_s);
    const double best = each > 0 && faster >= 2 * each ? std::round(std::sqrt(faster / each)) : 1.0;
    const int32_t bands = static_cast<int32_t>(std::min(best, 64.0));
    return {bands, std::max(host_s, bus_s) + faster / bands + bands * each};
}

struct Moved {
    double host_s, bus_s;
};

// Seconds of the host and of the bus for regions that the host packs, the cost of copies apart.
inline Moved packing_time(const std::vector<Region>& regions, bool nv12, const TransferCosts& costs) {
    Moved time = {0, 0};
    for (const Region& r : regions) {
        time.host_s += rows_of(r, nv12) * costs.host_row_s + bytes_of(r, nv12) / costs.host_bytes_per_s;
        time.bus_s += bytes_of(r, nv12) / costs.bytes_per_s;
    }
    return time;
}

// The cheaper way of a page-locked frame. `tight`: its rows follow one another, so one copy moves it whole.
inline Way cheaper_way(const std::vector<Region>& regions, const Region& whole, bool nv12, bool tight, const TransferCosts& costs) {
    const int planes = nv12 ? 2 : 1;
    double by_rows = 0;
    for (const Region& r : regions) {
        const bool one_piece = tight && r.x1 - r.x0 == whole.x1 - whole.x0;
        by_rows += planes * costs.copy_s + bytes_of(r, nv12) / costs.bytes_per_s + (one_piece ? 0 : rows_of(r, nv12) * costs.row_s);
    }
    return tight && costs.copy_s + bytes_of(whole, nv12) / costs.bytes_per_s <= by_rows ? Way::whole : Way::rows;
}

// Rows of bytes to move from a frame to `offset` of the device's buffer, tight there.
struct Piece {
    const uint8_t* from;
    int64_t pitch, rows, row_bytes, offset;
    bool by_host;  // through the staging buffer
};

// A frame of a call: where it is, and how it was decided to move it.
struct Source {
    Frame frame;          // host addresses for a frame on the host
    bool on_host;
    const uint8_t* page_locked;  // the device's address of it, or null
    Way way;
    std::vector<Region> regions;
    std::vector<int64_t> offsets;  // of each region in the buffer
};

class Packing {
  public:
    // Which crop is of which source, by the affines; `mirrored` is null or the mirrored crops' affines.
    void gather(std::vector<Source>& sources, const int32_t* source_of, const float* affines, const float* mirrored,
                int32_t count, const CropShape& shape, bool nv12) {
        regions_.resize(count);
        for (Source& source : sources) source.regions.clear();
        for (int32_t i = 0; i < count; i++) {
            Source& source = sources[source_of[i]];
            if (!source.on_host || source.way == Way::in_place) continue;
            Region region = region_of_crop(affines + 6 * i, shape, source.frame.height, source.frame.width);
            if (mirrored) {
                const Region other = region_of_crop(mirrored + 6 * i, shape, source.frame.height, source.frame.width);
                if (region.empty()) region = other;
                else if (!other.empty()) region = united(region, other);
            }
            regions_[i] = region.empty() ? Region{0, 0, 0, 0} : aligned(region, nv12);
            if (!region.empty()) unite_into(source.regions, regions_[i]);
        }
    }

    // Decides each host frame's way and lays the regions out; the bytes that are needed of the device's buffer.
    int64_t lay_out(std::vector<Source>& sources, bool nv12, const TransferCosts& costs) {
        pieces_.clear();
        host_s_ = bus_s_ = 0;
        end_ = GUARD_BYTES;
        for (Source& source : sources)
            if (source.on_host && source.way != Way::in_place) decide(source, nv12, costs);
        for (const bool by_host : {true, false}) {  // what the host packs lies together: its bands are one copy each
            for (Source& source : sources)
                if (source.on_host && source.way != Way::in_place && (source.way == Way::packed) == by_host) place(source, nv12);
            if (by_host) packed_end_ = end_;
        }
        return end_ + GUARD_BYTES;
    }

    // The record of crop i: its frame's, moved to where its region lies from `buffer` on.
    Frame record(const std::vector<Source>& sources, const int32_t* source_of, int32_t i, const uint8_t* buffer, bool nv12) const {
        const Source& source = sources[source_of[i]];
        Frame frame = source.frame;
        if (!source.on_host) return frame;
        if (source.way == Way::in_place) return shifted(frame, source.page_locked - source.frame.data);
        for (size_t k = 0; k < source.regions.size(); k++) {
            const Region& region = source.regions[k];
            if (!holds(region, regions_[i]) || regions_[i].empty()) continue;
            const int64_t stride = row_bytes_of(region, nv12);
            frame.stride = stride;
            frame.chroma_stride = nv12 ? stride : 0;
            const uint8_t* rows = buffer + source.offsets[k];
            frame.data = rows - region.y0 * stride - region.x0 * (nv12 ? 1 : 3);
            frame.chroma = nv12 ? rows + (region.y1 - region.y0) * stride - region.y0 / 2 * stride - region.x0 : nullptr;
            return frame;
        }
        frame.data = buffer;  // reads nothing
        frame.chroma = nv12 ? buffer : nullptr;
        return frame;
    }

    // Packs into `staging`, which is laid out as the device's buffer; `send(begin, end)` hears of each band that is full.
    template <class Send> void pack(uint8_t* staging, const TransferCosts& costs, Send send) const {
        const int32_t bands = banded(host_s_, bus_s_, costs).bands;
        const int64_t band_bytes = (packed_end_ - GUARD_BYTES + bands - 1) / bands;
        int64_t sent = GUARD_BYTES;
        for (const Piece& piece : pieces_) {
            if (!piece.by_host) continue;
            const int64_t step = piece.pitch == piece.row_bytes ? std::max<int64_t>(1, band_bytes / std::max<int64_t>(1, piece.row_bytes)) : 1;
            for (int64_t row = 0; row < piece.rows; row += step) {
                const int64_t rows = std::min(step, piece.rows - row), done = piece.offset + (row + rows) * piece.row_bytes;
                memcpy(staging + piece.offset + row * piece.row_bytes, piece.from + row * piece.pitch, rows * piece.row_bytes);
                if (done - sent >= band_bytes) {
                    send(sent, done);
                    sent = done;
                }
            }
        }
        if (packed_end_ > sent) send(sent, packed_end_);
    }

    const std::vector<Piece>& pieces() const { return pieces_; }
    int64_t packed_bytes() const { return packed_end_ - GUARD_BYTES; }

    static Frame shifted(Frame frame, int64_t by) {
        frame.data += by;
        if (frame.chroma) frame.chroma += by;
        return frame;
    }

  private:
    static Region whole_of(const Frame& frame) { return {0, 0, frame.width, frame.height}; }

    void decide(Source& source, bool nv12, const TransferCosts& costs) {
        const Region whole = whole_of(source.frame);
        const bool tight = source.frame.stride == row_bytes_of(whole, nv12);
        int64_t pixels = 0;
        for (const Region& region : source.regions) pixels += pixels_of(region);
        if (pixels >= pixels_of(whole)) source.regions.assign(1, whole);
        source.way = source.page_locked ? cheaper_way(source.regions, whole, nv12, tight, costs) : Way::packed;
        if (source.way == Way::whole) source.regions.assign(1, whole);
        if (source.way != Way::packed) return;
        const Moved time = packing_time(source.regions, nv12, costs);
        host_s_ += time.host_s;
        bus_s_ += time.bus_s;
    }

    void place(Source& source, bool nv12) {
        source.offsets.clear();
        const bool by_host = source.way == Way::packed;
        for (const Region& r : source.regions) {
            const int64_t row_bytes = row_bytes_of(r, nv12), left = static_cast<int64_t>(r.x0) * (nv12 ? 1 : 3);
            const Frame& f = source.frame;
            source.offsets.push_back(end_);
            add({f.data + r.y0 * f.stride + left, f.stride, r.y1 - r.y0, row_bytes, end_, by_host});
            if (nv12) add({f.chroma + r.y0 / 2 * f.chroma_stride + left, f.chroma_stride, (r.y1 - r.y0) / 2, row_bytes, end_, by_host});
        }
    }

    void add(Piece piece) {
        pieces_.push_back(piece);
        end_ += piece.rows * piece.row_bytes;
    }

    std::vector<Region> regions_;  // of each crop
    std::vector<Piece> pieces_;
    int64_t end_ = 0, packed_end_ = 0;
    double host_s_ = 0, bus_s_ = 0;
};

}  // namespace sdk

// cuda/detections.cu: the persons in one frame, from a detector's outputs to boxes and to the crops of the pose network, in
// one launch of one block. The mathematics is in shared/detection_math.h and shared/box_math.h.
//
//   gather    each thread reads rows and appends those that are candidates to a list, in whatever order they come
//   rank      a candidate's place is the number of those that beat it, so that the order of the list leaves no trace
//   suppress  from the best on: whoever is not hidden stays, and all threads together hide what overlaps it too much
//   write     boxes, scores, and for each of the first persons the frame's record and the affines of its crop
//
// One block, as 8,400 rows are 17 a thread and every later step needs all of the one before. Barriers are counted by the
// persons that stay, not by the candidates.

#include <cuda_runtime.h>

#include "../sdk_ops.h"

namespace sdk {
namespace cuda {
namespace {

constexpr int32_t THREADS = 512;

struct Ranked {
    DetectedBox boxes[MAX_CANDIDATES];
    float scores[MAX_CANDIDATES];
    int32_t hidden[MAX_CANDIDATES];
    int32_t stay[MAX_CANDIDATES];
};

__device__ void gather(Candidate* list, int32_t* counted, const DetectionOutputs& outputs, const DetectionSpec& spec, const FramePlace& place) {
    for (int32_t row = threadIdx.x; row < spec.rows; row += THREADS) {
        const float score = score_of(outputs, row, spec);
        if (score >= spec.threshold && is_candidate(box_of(outputs, row, spec), place)) list[atomicAdd(counted, 1)] = {score, row};
    }
}

// The best candidates, best first.
__device__ void rank(Ranked& best, const Candidate* list, int32_t counted, const DetectionOutputs& outputs, const DetectionSpec& spec) {
    for (int32_t i = threadIdx.x; i < counted; i += THREADS) {
        const Candidate mine = list[i];
        int32_t place = 0;
        for (int32_t j = 0; j < counted && place < MAX_CANDIDATES; j++) place += beats(list[j].score, list[j].row, mine.score, mine.row);
        if (place == MAX_CANDIDATES) continue;
        best.boxes[place] = box_of(outputs, mine.row, spec);
        best.scores[place] = mine.score;
        best.hidden[place] = 0;
    }
}

// How many stay, the same in all threads; `stay` says which.
__device__ int32_t suppress(Ranked& best, int32_t candidates, const DetectionSpec& spec) {
    int32_t found = 0;
    for (int32_t i = 0; i < candidates && found < spec.most; i++) {
        if (best.hidden[i]) continue;
        if (threadIdx.x == 0) best.stay[found] = i;
        found++;
        if (!spec.suppress) continue;
        for (int32_t j = i + 1 + threadIdx.x; j < candidates; j += THREADS)
            if (hides(best.boxes[i], best.boxes[j], spec.iou)) best.hidden[j] = 1;
        __syncthreads();
    }
    __syncthreads();
    return found;
}

__device__ void write_crop(const CropsOut& crops, int32_t i, const DetectedBox& box, bool found) {
    const float corners[4] = {box.x1, box.y1, box.x2, box.y2};
    float own[6], mirrored[6];
    if (found) affine_from_box(own, corners, crops.shape);
    else affine_off_frame(own);
    mirror_affine(mirrored, own, crops.shape.width);
#pragma unroll
    for (int32_t k = 0; k < 6; k++) {
        crops.affines[6 * i + k] = own[k];
        crops.mirrored[6 * i + k] = mirrored[k];
    }
    crops.records[i] = found ? *crops.frame : Frame{nullptr, nullptr, 0, 0, 0, 0};
}

__global__ void __launch_bounds__(THREADS)
    detections_kernel(DetectionsOut out, DetectionOutputs outputs, DetectionSpec spec, const FramePlace* placed, CropsOut crops) {
    __shared__ Ranked best;
    __shared__ int32_t counted;
    const FramePlace place = *placed;
    if (threadIdx.x == 0) counted = 0;
    __syncthreads();
    gather(out.list, &counted, outputs, spec, place);
    __syncthreads();
    rank(best, out.list, counted, outputs, spec);
    __syncthreads();
    const int32_t found = suppress(best, counted < MAX_CANDIDATES ? counted : MAX_CANDIDATES, spec);
    if (threadIdx.x == 0) *out.count = found;
    for (int32_t i = threadIdx.x; i < found || i < crops.count; i += THREADS) {
        DetectedBox box = {};
        if (i < found) {
            box = in_frame(best.boxes[best.stay[i]], place);
            out.boxes[i] = box;
            out.scores[i] = best.scores[best.stay[i]];
        }
        if (i < crops.count) write_crop(crops, i, box, i < found);
    }
}

}  // namespace

const char* detections(const DetectionsOut& out, const DetectionOutputs& outputs, const DetectionSpec& spec, const FramePlace* place,
                       const CropsOut& crops, Stream stream) {
    detections_kernel<<<1, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(out, outputs, spec, place, crops);
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace cuda
}  // namespace sdk

// cpu/ops.cpp: the CPU half of the contract: chooses the instruction set, cuts the work into parts.

#if defined(__x86_64__)
#include "instruction_set.h"
#endif
#include "kernels.h"
#include "pool.h"

#include <atomic>
#include <cstring>

namespace sdk {
namespace cpu {
namespace {

constexpr int32_t ROWS_PER_PART = 32;     // 256 x 192: 8 parts a person, 10 us each on a 3 GHz Zen 5
constexpr int64_t PIXELS_FOR_THREADS = 1 << 15;  // 40 us of work: waking a thread takes 30 to 60 us
constexpr int32_t JOINTS_PER_PART = 512;  // 100 us each; the usual 8 x 17 joints stay on the caller's thread

struct InstructionSet {
    const char* name;
    const Kernels* kernels;
    bool (*available)();
};

#if defined(__x86_64__)
bool has_avx512() { return vectors().avx512; }
bool has_avx2() { return vectors().avx2; }
#endif

bool always() { return true; }

const InstructionSet SETS[] = {
#if defined(__x86_64__)
    {"avx512", &avx512_kernels, has_avx512},
    {"avx2", &avx2_kernels, has_avx2},
#endif
    {"baseline", &baseline_kernels, always},
};

const InstructionSet* best_set() {
    for (const InstructionSet& set : SETS)
        if (set.available()) return &set;
    return nullptr;  // not reached: baseline is always there
}

std::atomic<const InstructionSet*> chosen{nullptr};

const InstructionSet& current() {
    const InstructionSet* set = chosen.load(std::memory_order_relaxed);
    if (!set) chosen.store(set = best_set());
    return *set;
}

struct CropJob {
    const Kernels* kernels;
    uint8_t* out;
    const Frame* frames;
    const float* affines;
    const CropSpec* spec;
    int32_t parts_per_person;
    int64_t person_bytes;
};

void crop_part(void* context, int64_t part) {
    const CropJob& job = *static_cast<const CropJob*>(context);
    const int64_t person = part / job.parts_per_person;
    const int32_t begin = static_cast<int32_t>(part % job.parts_per_person) * ROWS_PER_PART;
    const int32_t end = begin + ROWS_PER_PART < job.spec->height ? begin + ROWS_PER_PART : job.spec->height;
    job.kernels->crop_rows(job.out + person * job.person_bytes, job.frames[person], job.affines + 6 * person, *job.spec, begin, end);
}

struct DecodeJob {
    const Kernels* kernels;
    float* out;
    const Logits* logits;
    const float* affines;
    const DecodeSpec* spec;
    int64_t joints;
};

void decode_part(void* context, int64_t part) {
    const DecodeJob& job = *static_cast<const DecodeJob*>(context);
    const int64_t begin = part * JOINTS_PER_PART;
    const int64_t end = begin + JOINTS_PER_PART < job.joints ? begin + JOINTS_PER_PART : job.joints;
    job.kernels->decode_joints(job.out, *job.logits, job.affines, *job.spec, static_cast<int32_t>(begin),
                               static_cast<int32_t>(end));
}

}  // namespace

void crop(void* out, const Frame* frames, const float* affines, int32_t count, const CropSpec& spec, int threads) {
    const int32_t parts_per_person = (spec.height + ROWS_PER_PART - 1) / ROWS_PER_PART;
    const int64_t pixels = 3 * static_cast<int64_t>(spec.height) * spec.width;
    CropJob job = {current().kernels, static_cast<uint8_t*>(out), frames, affines, &spec, parts_per_person,
                   pixels * (spec.half ? 2 : 4)};
    if (pixels / 3 * count < PIXELS_FOR_THREADS) threads = 1;
    run_parts(crop_part, &job, static_cast<int64_t>(count) * parts_per_person, threads);
}

void decode(float* out, const Logits& logits, const float* affines, int32_t count, const DecodeSpec& spec, int threads) {
    const int64_t joints = static_cast<int64_t>(count) * spec.joints;
    DecodeJob job = {current().kernels, out, &logits, affines, &spec, joints};
    run_parts(decode_part, &job, (joints + JOINTS_PER_PART - 1) / JOINTS_PER_PART, threads);
}

const char* instruction_set() { return current().name; }

bool use_instruction_set(const char* name) {
    for (const InstructionSet& set : SETS)
        if (std::strcmp(set.name, name) == 0 && set.available()) {
            chosen.store(&set);
            return true;
        }
    return false;
}

}  // namespace cpu
}  // namespace sdk

// cuda/waiting.h: waiting for a stream with a limit, errors in words, page-locked memory. No Python here.

#pragma once

#include <cuda_runtime.h>
#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>

namespace sdk {
namespace cuda {

using Clock = std::chrono::steady_clock;

inline void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // an error that was reported is not to be found again by the next launch
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorName(error) + ": " + cudaGetErrorString(error));
}

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
inline bool work_ends(cudaStream_t stream, double seconds) {
    const RelaxedCapture relaxed;
    const Clock::time_point begin = Clock::now();
    const auto limit = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
    Clock::duration waited{};
    const auto pending = [&] {
        const cudaError_t state = cudaStreamQuery(stream);
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

// The device's address of `size` bytes of page-locked host memory, whoever locked them; null for pageable memory.
inline void* mapped_memory(const uint8_t* host, size_t size) {
    cudaPointerAttributes first = {}, last = {};
    const bool known = cudaPointerGetAttributes(&first, host) == cudaSuccess &&
                       cudaPointerGetAttributes(&last, host + (size ? size - 1 : 0)) == cudaSuccess;
    cudaGetLastError();
    if (!known || first.type != cudaMemoryTypeHost || last.type != cudaMemoryTypeHost || !first.devicePointer) return nullptr;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(first.devicePointer), end = reinterpret_cast<uintptr_t>(last.devicePointer);
    return size <= 1 || end - begin == size - 1 ? first.devicePointer : nullptr;
}

}  // namespace cuda
}  // namespace sdk

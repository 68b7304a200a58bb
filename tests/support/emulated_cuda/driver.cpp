// Runs emulated blocks. See cuda_runtime.h.
//
// A thread of a block is a fiber: a stack of its own, entered once through ucontext and from then on by longjmp, which
// asks nothing of the kernel.

#include <cxxabi.h>
#include <setjmp.h>
#include <ucontext.h>

#include <memory>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "cuda_runtime.h"
#include "sdk_ops.h"

dim3 threadIdx, blockIdx;

namespace {

constexpr size_t STACK_BYTES = 256 * 1024;
enum class State { ready, at_barrier, in_warp, done };

struct Fiber {
    jmp_buf place;  // where it paused
    std::unique_ptr<char[]> stack;
    State state;
    dim3 index;
};

jmp_buf scheduler;
std::vector<Fiber> fibers;
size_t current;
const std::function<void()>* body;
std::vector<uint32_t> exchanged;

const sdk::Frame* declared;
size_t declared_frames;
bool declared_nv12;
int64_t bad_reads;

constexpr size_t SHARED_BYTES = 64 * 1024;  // 48 KiB at most, and what ptx.py leaves between variables
std::vector<Entry> entries;  // in force
const Entry* running;
alignas(16) uint8_t shared_window[SHARED_BYTES];
cudaError_t faulted = cudaSuccess;
std::string fault_words;

std::string demangled(const char* name) {
    int status;
    const std::unique_ptr<char, decltype(&free)> text(abi::__cxa_demangle(name, nullptr, nullptr, &status), free);
    return text ? text.get() : name;
}

void pause(State state) {
    fibers[current].state = state;
    if (!_setjmp(fibers[current].place)) _longjmp(scheduler, 1);
}

void run_bodies() {
    for (;;) {
        (*body)();
        pause(State::done);
    }
}

// Lets the current fiber run until it pauses.
void resume() {
    Fiber& fiber = fibers[current];
    if (_setjmp(scheduler)) return;
    if (fiber.stack) _longjmp(fiber.place, 1);
    ucontext_t context;
    getcontext(&context);
    fiber.stack.reset(new char[STACK_BYTES]);
    context.uc_stack.ss_sp = fiber.stack.get();
    context.uc_stack.ss_size = STACK_BYTES;
    context.uc_link = nullptr;
    makecontext(&context, run_bodies, 0);
    setcontext(&context);
}

// All fibers of [begin, end) that are not done wait in `state`: let them go on.
bool release(size_t begin, size_t end, State state) {
    bool any = false;
    for (size_t i = begin; i < end; i++) {
        if (fibers[i].state == State::done) continue;
        if (fibers[i].state != state) return false;
        any = true;
    }
    for (size_t i = begin; any && i < end; i++)
        if (fibers[i].state == state) fibers[i].state = State::ready;
    return any;
}

bool step(bool from_last) {
    bool ran = false;
    for (size_t i = 0; i < fibers.size(); i++) {
        current = from_last ? fibers.size() - 1 - i : i;
        if (fibers[current].state != State::ready) continue;
        threadIdx = fibers[current].index;
        resume();
        ran = true;
    }
    for (size_t warp = 0; warp < fibers.size(); warp += 32)
        ran |= release(warp, warp + 32 < fibers.size() ? warp + 32 : fibers.size(), State::in_warp);
    return release(0, fibers.size(), State::at_barrier) || ran;
}

bool in_plane(const uint8_t* from, size_t bytes, const uint8_t* plane, int64_t stride, int64_t rows, int64_t length) {
    for (int64_t row = 0; plane && row < rows; row++) {
        const uint8_t* begin = plane + row * stride;
        if (from >= begin && from + bytes <= begin + length) return true;
    }
    return false;
}

}  // namespace

void __syncthreads() { pause(State::at_barrier); }

uint32_t exchange_in_warp(uint32_t value, int lane_mask) {
    const size_t mine = current;
    exchanged[mine] = value;
    pause(State::in_warp);
    const uint32_t other = exchanged[mine ^ lane_mask];
    pause(State::in_warp);
    return other;
}

bool check_read(const void* address, size_t bytes) {
    if (!declared) return true;
    const uint8_t* from = static_cast<const uint8_t*>(address);
    for (size_t i = 0; i < declared_frames; i++) {
        const sdk::Frame& f = declared[i];
        const int64_t row_bytes = static_cast<int64_t>(f.width) * (declared_nv12 ? 1 : 3);
        if (in_plane(from, bytes, f.data, f.stride, f.height, row_bytes) ||
            in_plane(from, bytes, f.chroma, f.chroma_stride, f.height / 2, f.width))
            return true;
    }
    bad_reads++;
    return false;
}

void fault(cudaError_t error, const std::string& words) {
    if (faulted == cudaSuccess) faulted = error, fault_words = words;
    pause(State::done);
    __builtin_unreachable();
}

const char* words_of_fault(cudaError_t error) { return error == faulted ? fault_words.c_str() : nullptr; }

// ---- PTX -------------------------------------------------------------------------------------------------------

const uint8_t* param_space;

uint8_t* shared_memory(uint64_t address, size_t bytes) {
    for (const SharedVariable& each : running->shared)
        if (address >= each.begin && address + bytes <= each.begin + each.bytes) return shared_window + address;
    return nullptr;
}

uint32_t lane_of_thread() { return current % 32; }

const Entry* entry_of(const char* type) {
    if (entries.empty()) return nullptr;
    const std::string wanted = demangled(type);
    for (const Entry& entry : entries) {
        const std::string kernel = demangled(entry.kernel);  // void name_kernel<arguments>(parameters), or without either
        const size_t name = kernel.find("_kernel") + strlen("_kernel"), end = kernel[name] == '<' ? kernel.find(">(", name) + 2 : name;
        if (wanted.find(kernel.substr(0, end)) != std::string::npos) return &entry;
    }
    throw std::logic_error("the PTX in force has no entry for " + wanted);
}

std::function<void()> run_of(const Entry& entry, const std::vector<uint8_t>& params) {
    if (params.size() != entry.param_bytes) throw std::logic_error(demangled(entry.kernel) + " takes other parameters");
    return [=] {
        running = &entry;
        param_space = params.data();
        entry.run();
    };
}

// Launches run these entries, and those of earlier calls, in place of the kernels as C++; null ends that.
extern "C" void emulated_entries(const std::vector<Entry>* more) {
    if (more) entries.insert(entries.end(), more->begin(), more->end());
    else entries.clear();
}

// ---- blocks ----------------------------------------------------------------------------------------------------

// The first fault of a thread, which ends its block and the launch, or cudaSuccess.
cudaError_t emulate_blocks(dim3 grid, dim3 block, const std::function<void()>& kernel) {
    static std::mutex one_device;
    const std::lock_guard<std::mutex> held(one_device);
    body = &kernel;
    faulted = cudaSuccess;
    const size_t threads = block.x * block.y * block.z;
    fibers.resize(threads);
    exchanged.assign(threads, 0);
    for (size_t i = 0; i < threads; i++) {
        fibers[i].index = dim3(i % block.x, i / block.x % block.y, i / (block.x * block.y));
    }
    for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) {
                for (Fiber& fiber : fibers) fiber.state = State::ready;
                while (step((blockIdx.x + blockIdx.y + blockIdx.z) % 2 == 0)) {}
                if (faulted != cudaSuccess) {
                    fibers.clear();  // what a fault cut off never goes on
                    return faulted;
                }
            }
    return cudaSuccess;
}

// Until null is declared, reads outside the rows of these frames are counted.
extern "C" void emulated_declare(const sdk::Frame* frames, size_t count, int nv12) {
    declared = frames;
    declared_frames = count;
    declared_nv12 = nv12;
    if (frames) bad_reads = 0;
}

extern "C" int64_t emulated_bad_reads() { return bad_reads; }

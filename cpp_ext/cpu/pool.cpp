// cpu/pool.cpp: see pool.h.

#include "pool.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace sdk {
namespace cpu {
namespace {

constexpr auto SPIN_NS = std::chrono::nanoseconds(50000);  // a sleeping thread takes 30 to 60 us to wake

struct Job {
    Part part;
    void* context;
    uint32_t parts;
    int helpers;  // workers that may join
};

// What is taken of a job: `front` parts by the caller from the first on, `back` parts by workers from the last on, so
// that each core writes the same half of the outputs call after call: its cache holds them (two threads, 8 crops of
// 128 x 128: 1.6 times one thread's speed when parts went to whoever came, on two cores of a Zen 5). A worker that
// comes late finds another generation and takes nothing.
constexpr uint32_t COUNT_BITS = 20, MAX_PARTS = (1u << COUNT_BITS) - 1;

struct Ticket {
    uint32_t generation, front, back;

    static Ticket from(uint64_t word) {
        return {static_cast<uint32_t>(word >> 2 * COUNT_BITS), static_cast<uint32_t>(word >> COUNT_BITS) & MAX_PARTS,
                static_cast<uint32_t>(word) & MAX_PARTS};
    }
    uint64_t word() const {
        return static_cast<uint64_t>(generation) << 2 * COUNT_BITS | static_cast<uint64_t>(front) << COUNT_BITS | back;
    }
};

class Pool {
  public:
    void run(const Job& job) {
        while (static_cast<int>(workers_.size()) < job.helpers) add_worker();
        uint32_t generation;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            job_ = job;
            done_.store(0);
            const uint64_t fresh = Ticket{generation_of(ticket_.load()) + 1, 0, 0}.word();
            generation = generation_of(fresh);
            ticket_.store(fresh);
        }
        wake_.notify_all();
        take_parts(job, generation, true);
        while (done_.load(std::memory_order_acquire) < job.parts) std::this_thread::yield();
    }

    std::mutex callers;

  private:
    static uint32_t generation_of(uint64_t word) { return Ticket::from(word).generation; }

    void add_worker() {
        const int index = static_cast<int>(workers_.size());
        workers_.emplace_back(&Pool::work, this, index, generation_of(ticket_.load()));
    }

    void take_parts(const Job& job, uint32_t generation, bool from_front) {
        uint64_t word = ticket_.load();
        for (;;) {
            Ticket ticket = Ticket::from(word);
            if (ticket.generation != generation || ticket.front + ticket.back >= job.parts) return;
            const uint32_t part = from_front ? ticket.front++ : job.parts - 1 - ticket.back++;
            if (!ticket_.compare_exchange_weak(word, ticket.word())) continue;
            job.part(job.context, part);
            done_.fetch_add(1, std::memory_order_release);
            word = ticket_.load();
        }
    }

    void wait_for_job(uint32_t seen) {
        const auto changed = [&] { return generation_of(ticket_.load()) != seen; };
        const auto until = std::chrono::steady_clock::now() + SPIN_NS;
        while (std::chrono::steady_clock::now() < until)
            for (int i = 0; i < 64; i++)
                if (changed()) return;
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, changed);
    }

    void work(int index, uint32_t seen) {
        for (;;) {
            wait_for_job(seen);
            Job job;
            {
                std::lock_guard<std::mutex> lock(mutex_);
                seen = generation_of(ticket_.load());
                job = job_;
            }
            if (index < job.helpers) take_parts(job, seen, false);
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> workers_;
    Job job_ = {};
    std::atomic<uint64_t> ticket_{0};
    std::atomic<uint32_t> done_{0};
};

std::atomic<Pool*> shared_pool{nullptr};

void forget_pool() { shared_pool.store(nullptr); }  // in a forked child its threads do not exist

Pool& pool() {
    static std::mutex making;
    Pool* existing = shared_pool.load();
    if (existing) return *existing;
    std::lock_guard<std::mutex> lock(making);
    static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
    (void)registered;
    if (!shared_pool.load()) shared_pool.store(new Pool);  // lives as long as the process: its threads may be waiting
    return *shared_pool.load();
}

}  // namespace

void run_parts(Part part, void* context, int64_t parts, int threads) {
    if (threads > parts) threads = static_cast<int>(parts);
    if (threads > 1 && parts <= MAX_PARTS) {
        Pool& workers = pool();
        std::unique_lock<std::mutex> free(workers.callers, std::try_to_lock);
        if (free.owns_lock()) return workers.run({part, context, static_cast<uint32_t>(parts), threads - 1});
    }
    for (int64_t i = 0; i < parts; i++) part(context, i);
}

}  // namespace cpu
}  // namespace sdk

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
    int64_t parts;
    int helpers;  // workers that may join
};

class Pool {
  public:
    void run(const Job& job) {
        while (static_cast<int>(workers_.size()) < job.helpers)
            workers_.emplace_back(&Pool::work, this, static_cast<int>(workers_.size()), generation_.load());
        {
            std::lock_guard<std::mutex> lock(mutex_);
            job_ = job;
            next_.store(0);
            busy_.store(static_cast<int>(workers_.size()));
            generation_.fetch_add(1);
        }
        wake_.notify_all();
        take_parts(job);
        while (busy_.load(std::memory_order_acquire) > 0) std::this_thread::yield();
    }

    std::mutex callers;

  private:
    void take_parts(const Job& job) {
        for (int64_t i = next_.fetch_add(1); i < job.parts; i = next_.fetch_add(1)) job.part(job.context, i);
    }

    void wait_for(uint64_t seen) {
        const auto until = std::chrono::steady_clock::now() + SPIN_NS;
        while (std::chrono::steady_clock::now() < until)
            for (int i = 0; i < 64; i++)
                if (generation_.load(std::memory_order_acquire) != seen) return;
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load() != seen; });
    }

    void work(int index, uint64_t seen) {
        for (;;) {
            wait_for(seen);
            Job job;
            {
                std::lock_guard<std::mutex> lock(mutex_);
                seen = generation_.load();
                job = job_;
            }
            if (index < job.helpers) take_parts(job);
            busy_.fetch_sub(1, std::memory_order_release);
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> workers_;
    Job job_ = {};
    std::atomic<int64_t> next_{0};
    std::atomic<int> busy_{0};
    std::atomic<uint64_t> generation_{0};
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
    if (threads > 1) {
        Pool& workers = pool();
        std::unique_lock<std::mutex> free(workers.callers, std::try_to_lock);
        if (free.owns_lock()) return workers.run({part, context, parts, threads - 1});
    }
    for (int64_t i = 0; i < parts; i++) part(context, i);
}

}  // namespace cpu
}  // namespace sdk

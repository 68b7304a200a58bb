// ending.cpp: see ending.h.

#include "ending.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <thread>

namespace sdk {
namespace {

std::atomic<pid_t> owner{0};
double limit_s;

void end_late(int status) {
    timespec left = {static_cast<time_t>(limit_s), static_cast<long>((limit_s - static_cast<time_t>(limit_s)) * 1e9)};
    while (nanosleep(&left, &left) != 0) {}
    fflush(nullptr);
    _exit(status);
}

void watch_the_end(int status, void*) {
    if (getpid() == owner) std::thread(end_late, status).detach();
}

}  // namespace

void end_within(double seconds) {
    pid_t none = 0;
    if (!owner.compare_exchange_strong(none, getpid())) return;
    limit_s = seconds;
    on_exit(watch_the_end, nullptr);  // glibc's: atexit does not tell the status
}

}  // namespace sdk

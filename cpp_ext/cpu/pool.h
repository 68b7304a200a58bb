// cpu/pool.h: a small pool that runs the parts of one op on several threads.
//
// Parts are handed out one by one; the caller takes its share and returns when all parts are done, whether or not a
// worker came in time. A call that finds the pool busy with another thread's op runs its parts itself, so callers never
// wait for one another. Workers spin for SPIN_NS after a job, for the next call of the same frame, then sleep. A forked
// child starts a pool anew.

#pragma once

#include <cstdint>

namespace sdk {
namespace cpu {

using Part = void (*)(void* context, int64_t part);

void run_parts(Part part, void* context, int64_t parts, int threads);

}  // namespace cpu
}  // namespace sdk

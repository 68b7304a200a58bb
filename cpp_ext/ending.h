// ending.h: a process whose device is lost ends all the same.
//
// A driver's own exit handler waits for work that a hung device never finishes. `end_within(seconds)` lets the C library
// call one handler more when the process ends, before all that were registered until now: it starts a thread that, if the
// process still lives after `seconds`, flushes what C has buffered and ends it with the status that exit() was given.
// Python's own exit handlers and buffers are done with by then; other handlers run as they would. Nothing happens before
// the end, in a forked child, or where exit() comes to its end in time. Called again, it changes nothing.

#pragma once

namespace sdk {

void end_within(double seconds);

}  // namespace sdk

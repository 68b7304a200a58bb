"""How evenly threads are served, and in which order.

check_fair(pool, lambda: estimate(frame, boxes), threads=8, calls=500)
"""

import threading
from collections import deque
from contextlib import suppress
from time import sleep

from tests.support.threads import in_threads

MOST = 0.1  # of the mean: how far a thread's share may be from it


def check_fair(pool, call, threads, calls):
    """Let `threads` threads make `calls` calls each, or fewer where another is done first; all began together.

    `call` takes a thing of `pool` and gives it back. It is kept until all are lent and all other threads have come:
    without that, a thread that the operating system holds up loses turns by that, in whatever order it waits.
    """
    made, over, start = [0] * threads, threading.Event(), threading.Barrier(threads)
    places = min(pool._limit, threads)
    all_lent = threading.Barrier(places)
    row = pool._row = _Row()
    take = pool.take

    def taken():
        thing = take()
        while len(row) < threads - places and not over.is_set():
            sleep(0)
        with suppress(threading.BrokenBarrierError):  # it is over
            all_lent.wait(30)
        return thing

    def work(index):
        start.wait()
        while not over.is_set():
            call()
            made[index] += 1
            if made[index] == calls:
                over.set()
                all_lent.abort()

    pool.take = taken
    in_threads(work, threads)
    del pool.take
    mean = sum(made) / threads
    assert all(abs(count - mean) <= MOST * mean for count in made), made
    assert row.came >= calls and row.overtakers == 0


class _Row(deque):
    """In the place of a pool's row: counts those who came, and those who left it before one who came earlier."""

    came = overtakers = 0

    def append(self, turn):
        super().append(turn)
        self.came += 1

    def remove(self, turn):
        self.overtakers += self[0] is not turn
        super().remove(turn)

"""How evenly threads are served, and in which order.

check_fair(pool, lambda: estimate(frame, boxes), threads=8, calls=500)
"""

import threading
from collections import deque
from time import sleep

from tests.support.threads import in_threads

MOST = 0.1  # of the mean: how far a thread's share may be from it


def check_fair(pool, call, threads, calls):
    """Let `threads` threads make `calls` calls each, or fewer where another is done first; all began together.

    `call` takes a thing of `pool` and gives it back. Things are given back in the order in which they were lent, each
    once all threads without one have come: else a thread that the operating system holds up loses turns by that, in
    whatever order it waits.
    """
    made, over, start = [0] * threads, threading.Event(), threading.Barrier(threads)
    waiting = max(threads - pool._limit, 0)
    row = pool._row = _Row()
    take, give_back = pool.take, pool.give_back

    def taken(*but):
        thing = take(*but)
        while not over.is_set() and (row.served[0] != threading.get_ident() or len(row) < waiting):
            sleep(0)
        return thing

    def given_back(thing):
        row.served.remove(threading.get_ident())
        give_back(thing)

    def work(index):
        start.wait()
        while not over.is_set():
            call()
            made[index] += 1
            if made[index] == calls:
                over.set()

    pool.take, pool.give_back = taken, given_back
    in_threads(work, threads)
    del pool.take, pool.give_back
    mean = sum(made) / threads
    assert all(abs(count - mean) <= MOST * mean for count in made), made
    assert row.came >= calls and row.overtakers == 0


class _Row(deque):
    """In the place of a pool's row: who was served, and how many left it before one who came earlier."""

    came = overtakers = 0

    def __init__(self):
        super().__init__()
        self.served = deque()  # threads that have a thing, in the order in which they got it

    def append(self, turn):
        super().append(turn)
        self.came += 1

    def remove(self, turn):
        self.overtakers += self[0] is not turn
        self.served.append(turn.thread)
        super().remove(turn)

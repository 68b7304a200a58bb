"""Lending what is few to threads that are many, in the order in which they ask. Python's own locks do not: a thread
that gives something back and asks again gets it before those that waited, and they may wait for ever.

    pool = Pool(make, limit=3)
    lane = pool.take()                # waits until one is there and every earlier caller has one
    pool.give_back(lane)

    with Turns(1): ...                # one thread at a time, in the order of their coming
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Generic, TypeVar

from sdk.errors import ClosedError

__all__ = ["Pool", "Turns"]

LOOK_S = 0.1  # a waiting thread looks by itself now and then: an interrupt may have cut off the thread that wakes it
T = TypeVar("T")


class _Turn:
    """One thread's place in the row of those who ask."""

    __slots__ = ("but", "come", "thread")

    def __init__(self, thread: int, but: Collection[Any]) -> None:
        self.thread = thread
        self.but = but  # what it asks for is none of these
        self.come: threading.Event | None = None  # made when the thread has to wait

    def wake(self) -> None:
        if self.come is not None:
            self.come.set()


class Pool(Generic[T]):
    """Lends things, made when first needed, up to `limit`; more callers wait, and whoever came first is served first.

    A thread asks for one thing, and may take what is free besides. Who holds a thing is one entry of one table,
    so that an interrupt (Ctrl-C) can cut a loan off but never lose a thing: the thread's next loan is the one it still
    holds. `make` gives None where there can be no more than there are.
    """

    def __init__(self, make: Callable[[], T | None], limit: int) -> None:
        self._make = make
        self._limit = limit
        self._holders: dict[T, int | None] = {}  # thing -> the thread that holds it, or None
        self._lock = threading.RLock()  # a garbage collection inside may close the pool
        self._given_back = threading.Condition(self._lock)  # for `close` alone
        self._row: deque[_Turn] = deque()  # those who wait, in the order of their coming
        self._closed = False

    def take(self, but: Collection[T] = ()) -> T:
        """A thing for this thread, once everyone who asked before has one; none of `but`, beside which there must be
        others. ClosedError when the pool closes."""
        turn = _Turn(threading.get_ident(), but)
        try:
            self._row.append(turn)  # one step, without a lock: this is when the thread comes
            while True:
                with self._lock:
                    thing = self._thing_for(turn)
                    if thing is not None:
                        self._leave(turn)
                        return thing
                    come = turn.come = turn.come or threading.Event()
                    come.clear()
                come.wait(LOOK_S)
        except BaseException:
            with self._lock:
                self._leave(turn)
            raise

    def take_free(self, most: int) -> list[T]:
        """At most so many besides what this thread holds, made now where there may be more; never waits for any, and
        takes none while others wait: two threads that wait for what the other holds would wait for ever."""
        taken: list[T] = []
        with self._lock:
            try:
                while len(taken) < most and not self._row and not self._closed:
                    thing = self._held_by(None)
                    if thing is None and len(self._holders) < self._limit:
                        thing = self._new()
                    if thing is None:
                        break
                    taken.append(thing)
                    self._holders[thing] = threading.get_ident()
            except BaseException:
                for thing in taken:
                    self.give_back(thing)
                raise
        return taken

    def give_back(self, thing: T) -> None:
        """Lend it to whoever has waited longest."""
        with self._lock:
            self._holders[thing] = None
            if self._row:
                self._serve()
            if self._closed:  # nobody else waits for it
                self._given_back.notify_all()

    def give_back_mine(self) -> None:
        """Give back what this thread holds."""
        with self._lock:
            thing = self._held_by(threading.get_ident())
        assert thing is not None, "only what was taken is given back"
        self.give_back(thing)

    def give_back_all(self) -> None:
        """Give back whatever this thread holds, what an interrupt kept it from being told of too."""
        thread = threading.get_ident()
        with self._lock:  # others may make more meanwhile
            while (thing := self._held_by(thread)) is not None:
                self.give_back(thing)

    def all(self) -> list[T]:
        """Everything, made now where it was not, whoever holds it."""
        with self._lock:
            self._check_open()
            while len(self._holders) < self._limit:
                self._new()
            return list(self._holders)

    def close(self, time_out_s: float) -> tuple[list[T], list[T]]:
        """Refuse new loans and wait for those out. The things free now, and those that another thread still holds."""
        with self._lock:
            self._closed = True
            for turn in self._row:
                turn.wake()
            self._given_back.wait_for(lambda: not self._stuck(), timeout=time_out_s)
            stuck = self._stuck()
            return [thing for thing in self._holders if thing not in stuck], stuck

    def every(self) -> list[T]:
        """Everything there is, lent or not, without the lock: in a forked child a lock may be held for ever."""
        return list(self._holders)

    def _thing_for(self, turn: _Turn) -> T | None:
        """What `turn`'s thread holds now; made in this thread where it is first in the row and one more may be."""
        self._check_open()
        self._serve()
        thing = self._held_by(turn.thread)
        if thing is None and self._row[0] is turn and len(self._holders) < self._limit:
            thing = self._new()
            if thing is not None:
                self._holders[thing] = turn.thread
        return thing

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the estimator is closed; make a new PoseEstimator")

    def _serve(self) -> None:
        """Hand what is free to those who wait. An entry of the table counts; the rest may be cut off at any line."""
        while self._row:
            first = self._row[0]
            if self._held_by(first.thread) is None:
                free = self._held_by(None, first.but)
                if free is None:
                    return
                self._holders[free] = first.thread
            self._leave(first)

    def _leave(self, turn: _Turn) -> None:
        """Take `turn` out of the row where it is still in it, and wake its thread and the one that is first now."""
        if turn in self._row:
            self._row.remove(turn)
        turn.wake()
        if self._row and len(self._holders) < self._limit:  # it may make one
            self._row[0].wake()

    def _held_by(self, thread: int | None, but: Collection[T] = ()) -> T | None:
        """What `thread` holds, or for None what nobody does. A loop: it runs several times a frame."""
        for thing, holder in self._holders.items():
            if holder == thread and thing not in but:
                return thing
        return None

    def _stuck(self) -> list[T]:
        """Things that another thread holds; what this one holds was cut off by an interrupt and is its own to free."""
        return [thing for thing, holder in self._holders.items() if holder not in (None, threading.get_ident())]

    def _new(self) -> T | None:
        """One more, free, or None where there can be none: the callers share those there are."""
        thing = self._make()
        if thing is None:
            self._limit = len(self._holders)
        else:
            self._holders[thing] = None
        return thing


class Turns:
    """At most `places` threads in the `with` block at once; the others enter in the order of their coming.

    A thread does not enter twice.
    """

    def __init__(self, places: int) -> None:
        self._places = Pool(object, places)

    def __enter__(self) -> None:
        self._places.take()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._places.give_back_mine()

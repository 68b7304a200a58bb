"""Items of an iterator, read by a thread while the last ones are worked on; every one, in order, few at a time.

with ReadAhead(frames_of(source), timeout_s=10.0) as items:
    for item in items:
        ...
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, TypeVar

from sdk.media.clock import CLOCK, Clock

__all__ = ["ReadAhead"]

T = TypeVar("T")
MOST_AHEAD = 2  # one hides the reading; the second, that no two frames take equally long
JOIN_S = 1.0  # what leaving waits for the thread: the iterator's own end, such as closing a file


class ReadAhead(Generic[T]):
    """The iterator's items; its error, in their place. TimeoutError where none comes within `timeout_s`, if given.

    Leaving the block closes a generator. A thread that hangs in its library is left to itself.
    """

    def __init__(self, items: Iterator[T], *, timeout_s: float = float("inf"), clock: Clock = CLOCK) -> None:
        self._items, self._timeout_s, self._clock = items, timeout_s, clock
        self._changed = clock.condition()
        self._read: deque[T] = deque()
        self._is_over = self._is_left = False
        self._error: BaseException | None = None
        self._thread = clock.spawn(self._run, "sdk-ahead")

    def __enter__(self) -> ReadAhead[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._is_left = True
            self._clock.notify(self._changed)
        if self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            until_s = self._clock.now() + self._timeout_s
            while not self._read:
                if self._is_over or self._is_left:
                    raise self._error or StopIteration
                if self._clock.now() >= until_s:
                    raise TimeoutError
                self._clock.wait(self._changed, min(until_s - self._clock.now(), threading.TIMEOUT_MAX))
            item = self._read.popleft()
            self._clock.notify(self._changed)
            return item

    def _run(self) -> None:
        with _Kept(self):
            try:
                while self._put(next(self._items)):
                    pass
            finally:
                close = getattr(self._items, "close", None)
                if close is not None:
                    close()

    def _put(self, item: T) -> bool:
        """Wait for room; False where nobody takes any more."""
        with self._changed:
            while len(self._read) >= MOST_AHEAD and not self._is_left:
                self._clock.wait(self._changed, threading.TIMEOUT_MAX)
            self._read.append(item)
            self._clock.notify(self._changed)
            return not self._is_left

    def end(self, error: BaseException | None) -> None:
        """The iterator is over, by `error` if any."""
        with self._changed:
            self._error = None if isinstance(error, StopIteration) else error
            self._is_over = True
            self._clock.notify(self._changed)


class _Kept:
    """A block whose end, by whatever error, is told to those who wait."""

    def __init__(self, ahead: ReadAhead[T]) -> None:
        self._ahead = ahead

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._ahead.end(error)
        return True

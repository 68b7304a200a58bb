"""Items of an iterator, read by a thread while the last ones are worked on; every one, in order, few at a time.

with ReadAhead(frames_of(source), timeout_s=10.0) as items:
    for item in items:
        ...
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from time import monotonic
from types import TracebackType
from typing import Generic, TypeVar

from sdk.media.kept import Kept

__all__ = ["ReadAhead"]

T = TypeVar("T")
MOST_AHEAD = 2  # one hides the reading; the second, that no two frames take equally long
JOIN_S = 1.0  # what leaving waits for the thread: the iterator's own end, such as closing a file


class ReadAhead(Generic[T]):
    """The iterator's items; its error, in their place. TimeoutError where none comes within `timeout_s`, if given.

    Leaving the block closes a generator. A thread that hangs in its library is left to itself.
    """

    def __init__(self, items: Iterator[T], *, timeout_s: float = float("inf")) -> None:
        self._items, self._timeout_s = items, timeout_s
        self._changed = threading.Condition()
        self._read: deque[T] = deque()
        self._is_over = self._is_left = False
        self._ended = Kept()
        self._thread = threading.Thread(target=self._run, name="sdk-ahead", daemon=True)
        self._thread.start()

    def __enter__(self) -> ReadAhead[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._is_left = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            until_s = monotonic() + self._timeout_s
            while not self._read:
                if self._is_over or self._is_left:
                    raise self._ended.error or StopIteration
                if monotonic() >= until_s:
                    raise TimeoutError
                self._changed.wait(min(until_s - monotonic(), threading.TIMEOUT_MAX))
            item = self._read.popleft()
            self._changed.notify_all()
            return item

    def _run(self) -> None:
        with self._ended:
            try:
                while self._put(next(self._items)):
                    pass
            finally:
                close = getattr(self._items, "close", None)
                if close is not None:
                    close()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _put(self, item: T) -> bool:
        """Wait for room; False where nobody takes any more."""
        with self._changed:
            while len(self._read) >= MOST_AHEAD and not self._is_left:
                self._changed.wait()
            self._read.append(item)
            self._changed.notify_all()
            return not self._is_left

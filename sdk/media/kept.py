"""A block whose error is kept for another thread: nobody is there to catch it at a thread's end.

failed = Kept()
with failed:                                  # in the thread
    ...
failed.error                                  # in another, once that one has ended; None: it ended well
"""

from __future__ import annotations

from types import TracebackType

__all__ = ["Kept"]


class Kept:
    """Of one block; `error` is what ended it, any BaseException."""

    error: BaseException | None = None

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error
        return True

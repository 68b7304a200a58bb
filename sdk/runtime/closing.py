"""What is open until it is closed, or until its `with` block ends.

class Session(Closing):
    def close(self) -> None: ...
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, TypeVar

__all__ = ["Closing"]

T = TypeVar("T", bound="Closing")


class Closing(Protocol):
    """Something that is closed when its block ends."""

    def close(self) -> None: ...

    def __enter__(self: T) -> T:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

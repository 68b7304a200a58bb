"""Standard output whose faults are its own: a full disk behind `>` or a reader that left is not an output file's fault.

with guarded_stdout():                  # a failed print raises StdoutError, which no file writer takes for its own
    print(result)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO, cast

__all__ = ["StdoutError", "guarded_stdout"]


class StdoutError(Exception):
    """A write to standard output failed. Not an OSError and not an SdkError: only the command line's end catches it."""

    def __init__(self, fault: OSError) -> None:
        super().__init__(f"standard output cannot be written ({fault.strerror or fault})")
        self.reader_left = isinstance(fault, BrokenPipeError)


@contextmanager
def guarded_stdout() -> Iterator[None]:
    """Print through a guard and flush at the end; after a fault what is left goes nowhere, quietly."""
    guard = _Guard(sys.stdout)
    try:
        with redirect_stdout(cast(TextIO, guard)):
            try:
                yield
            finally:
                guard.flush()
    except StdoutError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        raise


class _Guard:
    """The stream with its OSErrors turned into StdoutErrors."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(self._writable(text))
        except OSError as fault:
            raise StdoutError(fault) from fault

    def _writable(self, text: str) -> str:
        """`text` with \\x.. for letters that the stream's encoding lacks, as stderr has it."""
        encoding = self._stream.encoding or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as fault:
            raise StdoutError(fault) from fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

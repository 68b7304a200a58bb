"""Much, in little memory: names in order, and what was seen before. Beyond RUN names both go through the disk.

for name in sorted_names(os.listdir(folder)): ...
with Seen() as seen:
    seen.is_new("photos/1.jpg")                   # True the first time
"""

from __future__ import annotations

import hashlib
import heapq
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO

__all__ = ["Seen", "sorted_names"]

RUN = 20_000  # names sorted at a time: 2 MB
LINE = 500
CACHE_KIB = 8192  # of the table of what was seen


def sorted_names(names: Iterable[str]) -> Iterator[str]:
    """The names in order: runs of them are sorted, laid aside on disk, and merged."""
    left = iter(names)
    first = sorted(islice(left, RUN))
    second = list(islice(left, 1))
    if not second:
        yield from first
        return
    with ExitStack() as stack:
        runs = [_laid_aside(first, stack)]
        while second:
            runs.append(_laid_aside(sorted([*second, *islice(left, RUN)]), stack))
            second = list(islice(left, 1))
        yield from heapq.merge(*map(_names_in, runs))


def _laid_aside(names: list[str], stack: ExitStack) -> IO[str]:
    """In lines of LINE names each; JSON, since a name may hold line ends, and bytes that are no text."""
    file = stack.enter_context(TemporaryFile("w+", encoding="ascii"))  # noqa: SIM115 (the stack closes it)
    file.writelines(f"{json.dumps(names[start : start + LINE])}\n" for start in range(0, len(names), LINE))
    file.seek(0)
    return file


def _names_in(file: IO[str]) -> Iterator[str]:
    for line in file:
        names: list[str] = json.JSONDecoder().decode(line)
        yield from names


class Seen:
    """A set that only grows, in a temporary table on disk, by a 128-bit hash of each name."""

    def __init__(self) -> None:
        self._table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._table.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._table.execute("PRAGMA journal_mode = OFF")
        self._table.execute("PRAGMA synchronous = OFF")
        self._table.execute("CREATE TABLE seen (name BLOB PRIMARY KEY) WITHOUT ROWID")
        self._table.execute("BEGIN")

    def is_new(self, name: str) -> bool:
        """Whether it was not asked for before."""
        key = hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:16]
        return self._table.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount == 1

    def __enter__(self) -> Seen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.close()

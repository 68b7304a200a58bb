"""What there is to do: the blocks of an archive, listed once before the work, in a file that is read block by block.

    with planned(folder, listing.entries(), size=512, done=output.has) as plan:
        plan.total, plan.left                         # blocks, frames and shards, and of them those to be done
        for name in plan.names(): ...                 # of all blocks
        for block in plan.todo(): ...                 # those that were not done at the start, in any process and again

The file holds places as they are opened, credentials included: it is its owner's alone, and gone when the work ends.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sdk.files import whole_file
from sdk.scale.entries import Block, Entry, block_from_text, blocks_from

__all__ = ["Plan", "Total", "planned"]

DONE, LEFT = b"+", b"-"
NAME = "_plan.jsonl.gz"


@dataclass
class Total:
    """`frames`: those that are known before they are read; shards do not tell theirs."""

    blocks: int = 0
    frames: int = 0
    shards: int = 0

    def add(self, block: Block) -> None:
        self.blocks += 1
        self.frames += block.frames
        self.shards += sum(entry.kind == "tar" for entry in block.entries)


@dataclass(frozen=True)
class Plan:
    """The blocks in `path`, in the order of the listing."""

    path: Path
    total: Total
    left: Total

    def names(self) -> Iterator[str]:
        return (name.decode() for _, name, _ in _lines(self.path))

    def todo(self) -> Iterator[Block]:
        return (block_from_text(text) for done, _, text in _lines(self.path) if done == LEFT)


def _lines(path: Path) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(DONE or LEFT, a block's name, its text)."""
    with gzip.open(path, "rb") as file:
        for line in file:
            done, name, text = line.split(b" ", 2)
            yield done, name, text


@contextmanager
def planned(folder: Path, entries: Iterable[Entry], size: int, done: Callable[[str], bool]) -> Iterator[Plan]:
    """The plan of these entries, in `folder` while the block runs. `done`: whether a block of that name is finished."""
    path, total, left = folder / NAME, Total(), Total()
    with whole_file(path, private=True) as temporary, gzip.open(temporary, "wb", compresslevel=1) as file:
        for block in blocks_from(entries, size):
            finished = done(block.name)
            total.add(block)
            if not finished:
                left.add(block)
            file.write(b"%b %b %b\n" % (DONE if finished else LEFT, block.name.encode(), block.to_text().encode()))
    try:
        yield Plan(path, total, left)
    finally:
        path.unlink(missing_ok=True)

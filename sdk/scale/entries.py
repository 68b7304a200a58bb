"""What an archive is made of: entries (a picture, a segment of a video, a tar shard) and blocks of them, the unit that
is done or not. Where entries come from is `sdk.scale.listing`'s matter, what is in them `sdk.scale.pictures`'s.

    for block in blocks_from(entries, size=512):
        block.name                                   # '000000007-3f0c...': the same for the same entries, in any run

A block's name holds its number in the listing and a hash of all that its entries say, so that a restart knows a
finished block without a record of its own, and a listing of any length needs no more memory than a block.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from sdk.reading import json_from_text

__all__ = ["Block", "Entry", "Row", "block_from_text", "blocks_from"]

Row = tuple[float, float, float, float, float]  # x1, y1, x2, y2, score


@dataclass(frozen=True)
class Entry:
    """One thing to read. `place`: a path, or a URL as it is opened, credentials included.

    `count`: its frames; 0 for a tar shard, which tells when it is read. A segment's frames are those with a time stamp
    from `begin` on and below `end` (None: the file's own ends), the first of them number `first` in the video.
    `boxes`: of a list or of annotations; None where neither told of any. `stamp`: what changes when the file does,
    where the listing tells it.
    """

    kind: Literal["picture", "video", "tar"]
    place: str
    count: int = 1
    stamp: str = ""
    boxes: tuple[Row, ...] | None = None
    image_id: int | None = None
    segment: int = 0
    first: int = 0
    begin: int | None = None
    end: int | None = None


_DEFAULTS = dict(vars(Entry("picture", "")))


@dataclass(frozen=True)
class Block:
    """Entries that follow one another. `first`: how many frames the listing told of before, its image ids' count."""

    number: int
    first: int
    entries: tuple[Entry, ...]

    @property
    def frames(self) -> int:
        """How many frames it has; a shard, which does not tell, counts as none."""
        return sum(entry.count for entry in self.entries)

    @cached_property
    def name(self) -> str:
        return f"{self.number:09d}-{hashlib.sha256(self.to_text().encode()).hexdigest()[:16]}"

    def to_text(self) -> str:
        """One line of JSON that `block_from_text` reads back: what is hashed, and what travels to a worker."""
        entries = [{k: v for k, v in vars(entry).items() if v != _DEFAULTS[k]} for entry in self.entries]
        table = {"number": self.number, "first": self.first, "entries": entries}
        return json.dumps(table, sort_keys=True, separators=(",", ":"))


def block_from_text(text: str | bytes) -> Block:
    """The block that `Block.to_text` wrote."""
    table: dict[str, Any] = json_from_text(text, "a block", AssertionError)
    return Block(table["number"], table["first"], tuple(map(_entry, table["entries"])))


def _entry(table: dict[str, Any]) -> Entry:
    boxes = table.get("boxes")
    told = {} if boxes is None else {"boxes": tuple(tuple(row) for row in boxes)}
    return Entry(**{"kind": "picture", **table, **told})


def blocks_from(entries: Iterable[Entry], size: int) -> Iterator[Block]:
    """Blocks of `size` pictures; a segment and a shard are blocks of their own."""
    number = first = 0
    waiting: list[Entry] = []
    for entry in entries:
        alone = entry.kind != "picture"
        if waiting and (alone or len(waiting) == size):
            yield Block(number, first, tuple(waiting))
            number, first, waiting = number + 1, first + len(waiting), []
        if alone:
            yield Block(number, first, (entry,))
            number, first = number + 1, first + entry.count
        else:
            waiting.append(entry)
    if waiting:
        yield Block(number, first, tuple(waiting))

"""The image ids of COCO results that `sdk predict` writes.

ids = ImageIds(sources, boxes)
ids.of(source, frame.number)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdk.media.boxfile import BoxFile
    from sdk.media.sources import Source

__all__ = ["ImageIds"]


class ImageIds:
    """COCO's image ids. Pictures have the boxes file's; where it tells none, the numbers that all their names are, else
    they are counted from 1. What the file does not know, a second picture of one of its ids, and frames of clips are
    counted on from the highest id: only reading a clip tells how many it has."""

    def __init__(self, sources: list[Source], boxes: BoxFile | None) -> None:
        taken = {} if boxes is None else boxes.image_ids
        pictures = [source.path for source in sources if source.kind == "image"]
        self._given = {} if taken else _numbered(pictures)
        used: set[int] = set()
        for source in sources:
            number = None if boxes is None else boxes.image_id(source.path)
            if number is not None and number not in used:
                used.add(number)
                self._given[source.path] = number
        self._last = max([*self._given.values(), *taken.values()], default=0)

    def of(self, source: Source, frame: int) -> int:
        """The id of a frame; each is asked for once."""
        if frame == 0 and source.path in self._given:
            return self._given[source.path]
        self._last += 1
        return self._last


def _numbered(pictures: list[Path]) -> dict[Path, int]:
    stems = [path.stem for path in pictures]
    if all(stem.isdecimal() for stem in stems) and len({int(stem) for stem in stems}) == len(stems):
        return {path: int(path.stem) for path in pictures}
    return {path: number for number, path in enumerate(pictures, start=1)}

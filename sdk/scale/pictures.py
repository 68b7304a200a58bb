"""The pictures of a block, read and decoded, in chunks whose make-up follows from the block alone: a batch that is
formed alike in every run gives the same bits in every run.

    for chunk in chunks_of(block, reading):
        chunk.pictures                                # each a `Picture`, with its pixels or with why there are none

What cannot be read is a `Picture` with its error. Nothing here estimates.
"""

from __future__ import annotations

import tarfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.media.boxfile import BoxFile
from sdk.media.sources import IMAGE_SUFFIXES, Unreadable, picture_from_bytes
from sdk.media.videos import Damaged
from sdk.scale.entries import Block, Entry, Row
from sdk.scale.segments import VideoError, frames_of_segment
from sdk.scale.stores import MOST_BYTES, faults_as_oserror, opened, read_bytes, shown, told

__all__ = ["Chunk", "Picture", "Reading", "chunks_from", "chunks_of"]

MOST_CHUNK_BYTES = 32 << 20  # of pixels: ten pictures of a megapixel; what travels between processes at a time
Boxes = tuple[NDArray[np.float32], NDArray[np.float32]]  # N x 4 xyxy, N


@dataclass(frozen=True, eq=False)
class Picture:
    """One frame of an archive. `boxes` None: nobody told of any, so that the detector or the whole frame decides."""

    source: str
    frame: int = 0
    time_ms: float | None = None
    segment: int | None = None  # of a video
    image_id: int | None = None
    pixels: NDArray[np.uint8] | None = None  # H x W x 3 BGR
    boxes: Boxes | None = None
    error: str | None = None


@dataclass(frozen=True, eq=False)
class Chunk:
    """Pictures of a block that follow one another; the `last` one ends it."""

    block: str
    number: int
    last: bool
    pictures: list[Picture]


@dataclass(frozen=True)
class Reading:
    """How blocks are read: pictures in a chunk, boxes by picture where a file tells them, and how many threads read and
    decode the pictures of a block."""

    batch: int = 16
    boxes: BoxFile | None = None
    threads: int = 1


def chunks_of(block: Block, reading: Reading) -> Iterator[Chunk]:
    """All pictures of a block."""
    yield from chunks_from(_pictures_of(block, reading), block.name, reading.batch)


def chunks_from(pictures: Iterable[Picture], block: str, batch: int) -> Iterator[Chunk]:
    """At most `batch` pictures in a chunk, and at most MOST_CHUNK_BYTES but for a single one."""
    waiting: list[Picture] = []
    bytes_waiting = number = 0
    for picture in pictures:
        size = 0 if picture.pixels is None else picture.pixels.nbytes
        if waiting and (len(waiting) == batch or bytes_waiting + size > MOST_CHUNK_BYTES):
            yield Chunk(block, number, False, waiting)
            waiting, bytes_waiting, number = [], 0, number + 1
        waiting.append(picture)
        bytes_waiting += size
    yield Chunk(block, number, True, waiting)


def _pictures_of(block: Block, reading: Reading) -> Iterator[Picture]:
    first = block.first + 1  # image ids are counted from 1
    for entry, pictures in _read(block.entries, reading.threads):
        for offset, picture in enumerate(pictures):
            if picture.image_id is None and entry.count:
                picture = replace(picture, image_id=first + offset)
            yield picture if reading.boxes is None else _with_boxes(picture, reading.boxes)
        first += entry.count


def _read(entries: Sequence[Entry], threads: int) -> Iterator[tuple[Entry, Iterable[Picture]]]:
    """Entries with their pictures, in order; of files that are one picture each so many are read at a time."""
    if threads == 1 or any(entry.kind != "picture" for entry in entries):
        yield from ((entry, _READERS[entry.kind](entry)) for entry in entries)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[Entry, Future[list[Picture]]]] = deque()
        for entry in entries:
            waiting.append((entry, pool.submit(lambda each: list(_picture(each)), entry)))
            if len(waiting) > 2 * threads:
                oldest, pictures = waiting.popleft()
                yield oldest, pictures.result()
        for entry, pictures in waiting:
            yield entry, pictures.result()


def _with_boxes(picture: Picture, boxes: BoxFile) -> Picture:
    """The picture with what the file of boxes says of it: none where it does not know the picture."""
    path = Path(picture.source.replace("::", "/"))
    found = boxes.of(path, picture.frame)
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    given = boxes.image_id(path) if picture.segment is None else None
    return replace(
        picture, boxes=none if found is None else found, image_id=picture.image_id if given is None else given
    )


def _picture(entry: Entry) -> Iterator[Picture]:
    picture = Picture(shown(entry.place), image_id=entry.image_id, boxes=_boxes_of(entry.boxes))
    try:
        data = read_bytes(entry.place)
    except OSError as error:
        yield replace(picture, error=told(error))
        return
    yield _decoded(picture, data)


def _decoded(picture: Picture, data: bytes) -> Picture:
    pixels = picture_from_bytes(data)
    return replace(picture, error=pixels.reason) if isinstance(pixels, Unreadable) else replace(picture, pixels=pixels)


def _boxes_of(rows: tuple[Row, ...] | None) -> Boxes | None:
    if rows is None:
        return None
    table = np.array(rows, np.float32).reshape(-1, 5)
    return np.ascontiguousarray(table[:, :4]), np.ascontiguousarray(table[:, 4])


def _video(entry: Entry) -> Iterator[Picture]:
    picture = Picture(shown(entry.place), segment=entry.segment)
    frame = entry.first
    try:
        for item in frames_of_segment(entry):
            if isinstance(item, Damaged):
                frame = item.first + item.count
                yield replace(picture, frame=item.first, error=str(item))
            else:
                frame = item.number + 1
                yield replace(picture, frame=item.number, time_ms=item.time_ms, pixels=item.picture)
    except VideoError as error:
        yield replace(picture, frame=frame, error=told(error))


def _shard(entry: Entry) -> Iterator[Picture]:
    """The pictures of a tar shard, in its order; its other members are passed over, as WebDataset's labels are."""
    name = shown(entry.place)
    try:
        with opened(entry.place) as file, faults_as_oserror(), tarfile.open(fileobj=file, mode="r|*") as shard:
            for member in shard:
                if member.isfile() and PurePosixPath(member.name).suffix.lower() in IMAGE_SUFFIXES:
                    yield _member(Picture(f"{name}::{member.name}"), shard, member)
    except (OSError, tarfile.TarError, EOFError) as error:
        yield Picture(name, error=f"the shard breaks off: {told(error)}")


def _member(picture: Picture, shard: tarfile.TarFile, member: tarfile.TarInfo) -> Picture:
    if member.size > MOST_BYTES:
        return replace(picture, error=f"the file is longer than {MOST_BYTES >> 30} GiB")
    file: Any = shard.extractfile(member)
    return _decoded(picture, file.read())


_READERS = {"picture": _picture, "video": _video, "tar": _shard}

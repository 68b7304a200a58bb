"""What the containers of videos say of themselves, where OpenCV does not: bytes that are missing, frames that are not
shown. Only headers are read. Frames are `sdk.media.videos`'s matter.

    missing_bytes(Path("clip.mp4"))                  # more than 0: the file was cut off
    frames_all_shown(Path("clip.mp4"))               # False where an edit list may hide some, or nothing is known
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = ["frames_all_shown", "missing_bytes", "mp4_box", "mp4_boxes", "top_boxes"]

MP4_FIRST = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp"})
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
UNKNOWN_32 = (0, 0xFFFFFFFF)  # sizes of RIFF files that were written to a pipe
MOST_HEADER = 1 << 26  # bytes of an MP4's table of frames that are looked into
Box = tuple[bytes, int, int, int]  # kind, begin, begin of its content, end


def missing_bytes(path: Path) -> int:
    """How far the file's containers reach beyond its end; 0 where it is whole, or of a kind that does not tell."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        if head[4:8] in MP4_FIRST:
            return max((end - size for *_, end in top_boxes(file, size)), default=0)
        if head[:4] == b"RIFF":
            return _missing_of_riff(head, size)
        return _missing_of_matroska(file, size) if head[:4] == EBML else 0


def frames_all_shown(path: Path) -> bool:
    """Whether an MP4 has one edit that begins with its first frame, so that each frame it counts is to be seen."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        found = [box for box in top_boxes(file, size) if box[0] == b"moov"] if file.read(8)[4:] in MP4_FIRST else []
        if not found or found[0][3] > size or found[0][3] - found[0][1] > MOST_HEADER:
            return False
        file.seek(found[0][1])
        moov = file.read(found[0][3] - found[0][1])
    tracks = [box for box in mp4_boxes(moov, 8, len(moov)) if box[0] == b"trak"]
    return all(_is_plain(moov, *track[2:]) for track in tracks if _is_of_pictures(moov, *track[2:]))


def mp4_boxes(data: bytes, begin: int, end: int) -> Iterator[Box]:
    """The boxes of `data` from `begin` to `end`, one after the other; what is none ends them."""
    while begin + 8 <= end:
        size, header = int.from_bytes(data[begin : begin + 4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(data[begin + 8 : begin + 16], "big"), 16
        if size < header or begin + size > end:
            return
        yield data[begin + 4 : begin + 8], begin, begin + header, begin + size
        begin += size


def mp4_box(data: bytes, begin: int, end: int, *path: bytes) -> tuple[int, int] | None:
    """Begin and end of the content of the box that `path` leads to, from box to box; None where there is none."""
    for wanted in path:
        found = next((box for box in mp4_boxes(data, begin, end) if box[0] == wanted), None)
        if found is None:
            return None
        begin, end = found[2:]
    return begin, end


def _is_of_pictures(data: bytes, begin: int, end: int) -> bool:
    handler = mp4_box(data, begin, end, b"mdia", b"hdlr")
    return handler is not None and data[handler[0] + 8 : handler[0] + 12] == b"vide"


def _is_plain(data: bytes, begin: int, end: int) -> bool:
    """Whether a track has no edit, or one that begins with its first frame."""
    edits = mp4_box(data, begin, end, b"edts", b"elst")
    if edits is None:
        return True
    content = data[edits[0] : edits[1]]
    width = 4 if content[:1] == b"\0" else 8  # of a duration, then of the time in the track
    return content[4:8] == b"\0\0\0\1" and not any(content[8 + width : 8 + 2 * width])


def top_boxes(file: IO[bytes], size: int) -> Iterator[Box]:
    """The outermost boxes of an MP4 of `size` bytes; the last may reach beyond them."""
    begin = 0
    while begin + 8 <= size:
        file.seek(begin)
        head = file.read(16)
        length, kind, header = int.from_bytes(head[:4], "big"), head[4:8], 8
        if length == 1:
            length, header = int.from_bytes(head[8:16], "big"), 16
        if not kind.isalnum() or (length and length < header):
            return
        end = begin + length if length else size  # 0: to the file's end
        yield kind, begin, begin + header, end
        begin = end


def _missing_of_riff(head: bytes, size: int) -> int:
    length = int.from_bytes(head[4:8], "little")
    missing = 0 if length in UNKNOWN_32 else 8 + length - size
    return missing if missing > 1 else 0  # chunks are padded to even lengths, the last one not by all writers


def _missing_of_matroska(file: IO[bytes], size: int) -> int:
    file.seek(4)
    first, at = _matroska_size(file.read(8))
    begin = 4 + at + (first or 0)
    file.seek(begin)
    head = file.read(12)
    if first is None or head[:4] != SEGMENT:
        return 0
    length, at = _matroska_size(head[4:])
    return 0 if length is None else max(0, begin + 4 + at + length - size)


def _matroska_size(data: bytes) -> tuple[int | None, int]:
    """An element's length, None where it was not known when it was written, and the bytes that tell it."""
    if not data or not data[0]:
        return None, 0
    width = 9 - data[0].bit_length()
    value = int.from_bytes(data[:width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), width

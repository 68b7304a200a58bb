"""The times of an MP4's frames, set after it was written: OpenCV writes one rate, sources have others, or none.

    set_times(Path("walk.mp4"), [0.0, 40.0, 200.0], last_ms=160.0)

Only the table of durations and the lengths that follow from it are written anew; no frame is touched. It takes what
OpenCV's writer makes: one track, shown in the order of its frames, whose tables lie behind them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from sdk.media.containers import mp4_box, mp4_boxes, top_boxes

__all__ = ["set_times"]

CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"})
# where a box of version 0 tells its length: offset in its content, and whether in the track's own time scale
LENGTHS = {b"mvhd": (16, False), b"tkhd": (20, False), b"mdhd": (16, True), b"elst": (8, False)}


def set_times(path: Path, times_ms: Sequence[float], last_ms: float) -> bool:
    """Show frame i from `times_ms[i] - times_ms[0]` on, the last one for `last_ms`; False, and nothing done, where the
    file is not laid out so (another writer than FFmpeg's behind OpenCV)."""
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        last = max(top_boxes(file, size), key=lambda box: box[3], default=None)
        if last is None or last[0] != b"moov" or last[3] != size:
            return False
        file.seek(last[1])
        moov = file.read(size - last[1])
        scales = _scale(moov, b"mvhd"), _scale(moov, b"trak", b"mdia", b"mdhd")
        if not all(scales) or moov.count(b"trak") != 1 or b"ctts" in moov:
            return False
        durations = _durations(times_ms, last_ms, scales[1])
        file.seek(last[1])
        file.write(_rewritten(moov, 0, len(moov), durations, scales))
    return True


def _scale(moov: bytes, *path: bytes) -> int:
    """Ticks a second; 0 where a box of version 0 does not tell them."""
    place = mp4_box(moov, 8, len(moov), *path)
    if place is None or moov[place[0]] != 0:
        return 0
    return int.from_bytes(moov[place[0] + 12 : place[0] + 16], "big")


def _durations(times_ms: Sequence[float], last_ms: float, scale: int) -> list[int]:
    """How long each frame is shown, ticks, at least one; rounded so that no error adds up."""
    ticks = np.rint(np.array([*times_ms, times_ms[-1] + last_ms]) * scale / 1e3).astype(np.int64)
    return [int(duration) for duration in np.maximum(np.diff(ticks), 1)]


def _rewritten(data: bytes, begin: int, end: int, durations: Sequence[int], scales: tuple[int, int]) -> bytes:
    """The boxes from `begin` to `end` with these durations."""
    parts = []
    for kind, first, content, last in mp4_boxes(data, begin, end):
        if kind in CONTAINERS:
            body = _rewritten(data, content, last, durations, scales)
        elif kind == b"stts":
            body = _table(durations)
        else:
            body = _with_length(kind, data[content:last], sum(durations), scales)
        parts.append(data[first:content] if len(body) == last - content else struct.pack(">I", 8 + len(body)) + kind)
        parts.append(body)
    return b"".join(parts)


def _table(durations: Sequence[int]) -> bytes:
    runs = [(len(list(run)), duration) for duration, run in groupby(durations)]
    return struct.pack(">II", 0, len(runs)) + b"".join(struct.pack(">II", *run) for run in runs)


def _with_length(kind: bytes, body: bytes, ticks: int, scales: tuple[int, int]) -> bytes:
    if kind not in LENGTHS:
        return body
    at, of_track = LENGTHS[kind]
    length = ticks if of_track else round(ticks * scales[0] / scales[1])
    return body[:at] + struct.pack(">I", min(length, 0xFFFFFFFF)) + body[at + 4 :]

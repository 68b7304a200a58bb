"""A video as segments that begin at key frames, so that several workers share it; and the frames of one segment.

    for entry in segments_of("clip.mp4", stamp, frames=512, memory=None): ...
    for item in frames_of_segment(entry):
        match item:
            case SourceFrame():  item.picture, item.number, item.time_ms
            case Damaged():      item.first, item.count      # those after keep their numbers

They are, bit for bit, what decoding the whole video gives.

A segment's frames are those shown from its first key frame on and before the next one's. Frames that are shown before a
key frame and stored behind it (open groups of pictures) are decoded with the segment that they belong to: it reads on
until a frame of the next comes out. Where the container keeps no times to seek by, the video is one segment.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdk.errors import MissingDependencyError
from sdk.files import write_text
from sdk.media.av_feed import picture_from_av
from sdk.media.videos import Damaged, SourceFrame
from sdk.reading import json_from_file
from sdk.scale.entries import Entry
from sdk.scale.stores import is_url, opened, shown, told

__all__ = ["VideoError", "frames_of_segment", "segments_of"]


class VideoError(OSError):
    """Why a video, or the rest of a segment, could not be read."""


def segments_of(place: str, stamp: str, frames: int, memory: Path | None) -> Iterator[Entry]:
    """The segments of a video, each of at least `frames` frames but the last. One that cannot be read is one entry: who
    reads it tells why. What was found is kept in the folder `memory`, if any: finding it reads the file."""
    whole = Entry("video", place, count=0, stamp=stamp)
    try:
        cuts = _remembered(place, stamp, frames, memory)
    except OSError:
        cuts = []
    for number, (first, begin, count) in enumerate(cuts):
        end = cuts[number + 1][1] if number + 1 < len(cuts) else None
        yield replace(whole, segment=number, first=first, begin=begin if number else None, end=end, count=count)
    if not cuts:
        yield whole


def frames_of_segment(entry: Entry) -> Iterator[SourceFrame | Damaged]:
    """The frames of a segment, in order. VideoError where there are fewer than were counted, after those that came."""
    number = entry.first
    try:
        with _container(entry.place) as container:
            stream = container.streams.video[0]
            start = stream.start_time or 0
            if entry.begin is not None:
                container.seek(entry.begin, stream=stream)
            for frame in _decoded(container, entry):
                if frame is None or frame.is_corrupt:
                    yield Damaged(number, 1)
                else:
                    yield SourceFrame(picture_from_av(frame), number, _time_ms(frame, start))
                number += 1
    except OSError as error:
        raise VideoError(f"the video breaks off before frame {number}: {told(error)}") from error
    if entry.count and number - entry.first < entry.count:
        raise VideoError(f"{entry.count - (number - entry.first)} of {entry.count} frames cannot be decoded")


def _decoded(container: Any, entry: Entry) -> Iterator[Any]:
    """Frames with their times in the segment; None for one that cannot be decoded."""
    for packet in container.demux(container.streams.video[0]):
        for frame in _of_packet(packet):
            stamp = packet.pts if frame is None else frame.pts
            if entry.end is not None and stamp is not None and stamp >= entry.end:
                if frame is not None:
                    return
            elif entry.begin is None or stamp is None or stamp >= entry.begin:
                yield frame


def _of_packet(packet: Any) -> list[Any]:
    """The frames that come out with a packet; one None where it is damaged."""
    import av

    try:
        return list(packet.decode())
    except av.error.InvalidDataError:
        return [None] if packet.size else []


def _time_ms(frame: Any, start: int) -> float | None:
    return None if frame.pts is None else round(float((frame.pts - start) * frame.time_base * 1000), 3)


@contextmanager
def _container(place: str) -> Iterator[Any]:
    """PyAV's container of a path or of a store's file; its errors are OSErrors."""
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            f"video '{shown(place)}' needs PyAV, which is not installed; run `pip install 'simcc-edge-sdk[annotate]'`"
        ) from error
    try:
        if not is_url(place):
            with av.open(place) as container:
                yield _with_pictures(container)
            return
        with opened(place) as file, av.open(file) as container:
            yield _with_pictures(container)
    except (av.error.FFmpegError, ValueError) as error:
        raise OSError(f"not a video that PyAV reads ({told(error)})") from error


def _with_pictures(container: Any) -> Any:
    if not container.streams.video:
        raise OSError("the file has no pictures, only other streams")
    return container


Cut = tuple[int, int, int]  # number of the first frame, its time stamp, frames


def _remembered(place: str, stamp: str, frames: int, memory: Path | None) -> list[Cut]:
    if memory is None or not stamp:
        return _cuts(place, frames)
    name = hashlib.sha256(f"{place}\0{stamp}\0{frames}".encode(errors="surrogateescape")).hexdigest()[:32]
    path = memory / f"{name}.json"
    if path.exists():
        return [(first, begin, count) for first, begin, count in json_from_file(path, "segments", VideoError)]
    found = _cuts(place, frames)
    write_text(path, json.dumps(found))
    return found


def _cuts(place: str, frames: int) -> list[Cut]:
    """Where a video is cut; packets are read, none decoded. One cut where packets have no times."""
    stamps, keys = [], []
    with _container(place) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.size:
                stamps.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
    if None in stamps or len(set(stamps)) < len(stamps) or not stamps:
        return [(0, 0, len(stamps))] if stamps else []
    return _cuts_of(sorted(stamps), sorted(keys), frames)


def _cuts_of(stamps: Sequence[int], keys: Sequence[int], frames: int) -> list[Cut]:
    firsts = [0]
    for key in keys:
        first = bisect_left(stamps, key)
        if first - firsts[-1] >= frames:
            firsts.append(first)
    return [(a, stamps[a], b - a) for a, b in zip(firsts, [*firsts[1:], len(stamps)], strict=True)]

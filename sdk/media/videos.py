"""The frames of a video file, a camera or a stream: each with its number and its time, what is damaged passed over and
counted, and how it ended told. Which sources there are is `sdk.media.sources`'s matter.

for item in video_frames(source):
    match item:
        case SourceFrame():  item.picture, item.number, item.time_ms
        case Damaged():      item.first, item.count                  # passed over; those after keep their numbers
        case Unreadable():   item.reason                             # the last item: there would have been more

A clean end is none of these. OpenCV tells nothing of why a frame cannot be had, so the ends are told apart by what else
is known: how long it took, how many frames and bytes the container counts, and that a camera has no end.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdk.media.containers import frames_all_shown, missing_bytes
from sdk.wording import counted

if TYPE_CHECKING:
    from sdk.media.sources import Source

__all__ = ["Damaged", "SourceFrame", "Unreadable", "video_frames"]

log = logging.getLogger(__name__)

WAIT_S = 30.0  # for a stream to open, and for each of its frames: OpenCV's own default, made explicit
MOST_LOST = 1000  # frames in a row that a file is read on after: each costs 5 us where the file simply ends
MOST_LOST_LIVE = 25  # of a camera or a stream
MOST_FRAMES = 1 << 40  # headers of streams claim nonsense beyond


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """A frame, H x W x 3 BGR, its number in the source, from 0, and its time there; a picture file has no time."""

    picture: NDArray[np.uint8]
    number: int = 0
    time_ms: float | None = None


@dataclass(frozen=True)
class Damaged:
    """Frames that cannot be decoded, between others that can, or at the end of a file that is whole."""

    first: int
    count: int

    def __str__(self) -> str:
        last = self.first + self.count - 1
        return f"frame {self.first} is damaged" if self.count == 1 else f"frames {self.first} to {last} are damaged"


@dataclass(frozen=True)
class Unreadable:
    """Why a picture, or the rest of a video, could not be read."""

    reason: str


def video_frames(source: Source) -> Iterator[SourceFrame | Damaged | Unreadable]:
    """All frames of a video, a camera or a stream, in order."""
    capture = _opened(source)
    try:
        if capture.isOpened():
            yield from _frames(source, capture)
        else:
            yield Unreadable(_why_none(source))
    finally:
        capture.release()


def _opened(source: Source) -> Any:
    """OpenCV's capture; of a stream with times to wait, where FFmpeg is there to keep them."""
    import cv2

    if source.address is None:
        return cv2.VideoCapture(str(source.path))
    if not source.is_stream or cv2.CAP_FFMPEG not in cv2.videoio_registry.getBackends():
        return cv2.VideoCapture(source.address)
    wait_ms = int(1e3 * WAIT_S)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait_ms]
    return cv2.VideoCapture(source.address, cv2.CAP_FFMPEG, limits)


def _frames(source: Source, capture: Any) -> Iterator[SourceFrame | Damaged | Unreadable]:
    times = _Times(source, capture)
    number = lost = 0
    waits_s = deque([0.0], maxlen=2 * MOST_LOST_LIVE)  # FFmpeg gives out what it still had after it gave up waiting
    most_lost = MOST_LOST if source.address is None else MOST_LOST_LIVE
    while lost < most_lost and (not lost or waits_s[-1] < 0.9 * WAIT_S):
        asked = monotonic()
        read, picture = capture.read()
        waits_s.append(monotonic() - asked)
        if not read:
            lost += 1
            continue
        if lost:
            yield Damaged(number, lost)
            number, lost = number + lost, 0
        yield SourceFrame(np.asarray(picture, np.uint8), number, times.next(number))
        number += 1
    claimed = _claimed(capture)
    if number == 0:
        yield Unreadable(_why_none(source))
    elif max(waits_s) >= 0.9 * WAIT_S:
        yield Unreadable(f"time-out: nothing came for {max(waits_s):.0f} s; the last frame is {number - 1}")
    elif source.address is not None:
        yield from _end_of_live(source, number, claimed)
    else:
        yield from _end_of_file(source, number, claimed)


def _end_of_live(source: Source, number: int, claimed: int) -> Iterator[Unreadable]:
    if not source.is_stream:
        yield Unreadable(
            f"the camera gives no more frames after {counted(number, 'frame')}; check that it is connected"
        )
    elif number < claimed:
        yield Unreadable(f"the stream breaks off after frame {number} of {claimed}; check the connection")


def _end_of_file(source: Source, number: int, claimed: int) -> Iterator[Damaged | Unreadable]:
    missing = missing_bytes(source.path)
    if missing:
        of_all = f" of {claimed}" if claimed > number else ""
        yield Unreadable(f"the video breaks off after frame {number}{of_all}: the file is {missing} bytes short")
    elif number < claimed and frames_all_shown(source.path):
        yield Damaged(number, claimed - number)
    elif number < claimed:
        log.info("'%s' shows %s; its header counts %d", source.name, counted(number, "frame"), claimed)


def _claimed(capture: Any) -> int:
    """How many frames the header counts; 0 where it tells none."""
    import cv2

    claimed = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(claimed) if 0 < claimed < MOST_FRAMES else 0


def _why_none(source: Source) -> str:
    """Why a video, a camera or a stream gives no frame."""
    if source.address is not None:
        return f"{source.name} gives no frame; check that it is connected and free, or name a file"
    return "not a video that OpenCV opens" + ("" if source.path.exists() else ": the file is gone")


class _Times:
    """When each frame is shown, ms: as the container says, by the clock for a camera, and never twice the same."""

    def __init__(self, source: Source, capture: Any) -> None:
        self._capture = capture
        self._step_ms = 1e3 / source.fps if isfinite(source.fps) and source.fps > 0 else 0.0
        self._by_clock = source.address is not None and not source.is_stream
        self._began = self._last_ms = -1.0
        self._last = -1

    def next(self, number: int) -> float:
        now_ms = self._clock_ms() if self._by_clock else self._container_ms()
        if not isfinite(now_ms) or now_ms <= self._last_ms:  # a container without times: its rate, else the clock
            step_ms = self._step_ms * (number - self._last)
            now_ms = self._last_ms + step_ms if step_ms else max(self._clock_ms(), self._last_ms)
        self._last_ms, self._last = max(now_ms, 0.0), number
        return round(self._last_ms, 3)

    def _container_ms(self) -> float:
        import cv2

        return float(self._capture.get(cv2.CAP_PROP_POS_MSEC))

    def _clock_ms(self) -> float:
        now = monotonic()
        if self._began < 0:
            self._began = now
        return 1e3 * (now - self._began)

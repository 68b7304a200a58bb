"""The frames of a recording: each with its number and its time, what is damaged passed over and counted, and how it
ended told. Which sources there are is `sdk.media.sources`'s matter, what reads them `sdk.media.feeds`'s; cameras and
live streams are `sdk.media.live`'s.

for item in video_frames(source):
    match item:
        case SourceFrame():  item.picture, item.number, item.time_ms
        case Damaged():      item.first, item.count                  # passed over; those after keep their numbers
        case Unreadable():   item.reason                             # the last item: there would have been more

A clean end is none of these. Libraries tell little of why a frame cannot be had, so the ends are told apart by what
else is known: how long it took, and how many frames and bytes the container counts.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sdk.media.backends import open_feed
from sdk.media.containers import frames_all_shown, missing_bytes
from sdk.media.feeds import Feed, FeedEndedError, FeedError, How
from sdk.media.named_pipes import pipe_opened
from sdk.wording import counted

if TYPE_CHECKING:
    from sdk.media.sources import Source

__all__ = ["Damaged", "Item", "SourceFrame", "Unreadable", "video_frames"]

log = logging.getLogger(__name__)

MOST_LOST = 1000  # frames in a row that a file is read on after: each costs 5 us where the file simply ends
MOST_LOST_FAR = 25  # of a stream


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """A frame, H x W x 3 BGR, its number in the source, from 0, and its time there; a picture file has no time.

    `captured_s` is when it was captured (of a recording: read), on `time.monotonic()`'s clock.
    """

    picture: NDArray[np.uint8]
    number: int = 0
    time_ms: float | None = None
    source: str = ""
    captured_s: float = field(default_factory=monotonic)

    @property
    def age_ms(self) -> float:
        """How long ago it was captured."""
        return 1e3 * (monotonic() - self.captured_s)

    @property
    def captured_unix_s(self) -> float:
        """When it was captured, as Unix time, to the millisecond."""
        return round(time() - self.age_ms / 1e3, 3)


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


Item = SourceFrame | Damaged | Unreadable


def video_frames(source: Source, how: How | None = None) -> Iterator[Item]:
    """All frames of a recording, in order."""
    how = how or How()
    with ExitStack() as stack:
        try:
            opened = source
            if source.is_pipe:
                handle = stack.enter_context(pipe_opened(source.path, how.read_timeout_s))
                opened = replace(source, path=Path(f"pipe:{handle}"))
            feed = open_feed(opened, how)
        except FeedError as error:
            yield Unreadable(_why_none(source, str(error)))
            return
        stack.callback(feed.close)
        yield from _frames(source, feed, how)


def _frames(source: Source, feed: Feed, how: How) -> Iterator[Item]:
    times = _Times(source, feed)
    number = lost = 0
    waits_s = deque([0.0], maxlen=2 * MOST_LOST_FAR)  # FFmpeg gives out what it still had after it gave up waiting
    most_lost = MOST_LOST if source.address is None else MOST_LOST_FAR
    broken = ""
    while not broken and lost < most_lost and (not lost or waits_s[-1] < 0.9 * how.read_timeout_s):
        asked = monotonic()
        try:
            grab = feed.read()
        except FeedEndedError:
            break
        except FeedError as error:
            grab, broken = None, str(error)
        waits_s.append(monotonic() - asked)
        if grab is None:
            lost += 1
            continue
        if lost:
            yield Damaged(number, lost)
            number, lost = number + lost, 0
        yield SourceFrame(grab.picture, number, times.next(number, grab.stamp_s), source.name)
        number += 1
    if number == 0:
        yield Unreadable(_why_none(source, broken))
    elif source.address is not None and max(waits_s) >= 0.9 * how.read_timeout_s:
        yield Unreadable(f"time-out: nothing came for {max(waits_s):.0f} s; the last frame is {number - 1}")
    elif source.address is not None or source.is_pipe:
        yield from _end_of_stream(number, feed.claimed, broken)
    else:
        yield from _end_of_file(source, number, feed.claimed, broken)


def _end_of_stream(number: int, claimed: int, broken: str) -> Iterator[Unreadable]:
    if number < claimed or broken:
        said = f" ({broken})" if broken else ""
        of_all = f" of {claimed}" if claimed > number else ""
        yield Unreadable(f"the stream breaks off after frame {number}{of_all}; check the connection{said}")


def _end_of_file(source: Source, number: int, claimed: int, broken: str) -> Iterator[Damaged | Unreadable]:
    missing = missing_bytes(source.path)
    if missing:
        of_all = f" of {claimed}" if claimed > number else ""
        yield Unreadable(f"the video breaks off after frame {number}{of_all}: the file is {missing} bytes short")
    elif number < claimed and frames_all_shown(source.path):
        yield Damaged(number, claimed - number)
    elif broken:
        yield Unreadable(f"the video breaks off after frame {number}: {broken}")
    elif number < claimed:
        log.info("'%s' shows %s; its header counts %d", source.name, counted(number, "frame"), claimed)


def _why_none(source: Source, said: str) -> str:
    """Why a recording gives no frame."""
    why = f" ({said})" if said else ""
    if source.address is not None:
        return f"{source.name} gives no frame{why}; check that it is connected and free, or name a file"
    return f"not a video that can be opened{why}" + ("" if source.path.exists() else ": the file is gone")


class _Times:
    """When each frame is shown, ms: as the container says, and never twice the same."""

    def __init__(self, source: Source, feed: Feed) -> None:
        rate = source.fps or feed.fps
        self._step_ms = 1e3 / rate if rate > 0 else 0.0
        self._began_s = monotonic()
        self._last_ms = -1.0
        self._last = -1

    def next(self, number: int, stamp_s: float | None) -> float:
        now_ms = -1.0 if stamp_s is None else 1e3 * stamp_s
        if now_ms <= self._last_ms:  # a container without times: its rate, else the clock
            step_ms = self._step_ms * (number - self._last)
            now_ms = self._last_ms + step_ms if step_ms else max(1e3 * (monotonic() - self._began_s), self._last_ms)
        self._last_ms, self._last = max(now_ms, 0.0), number
        return round(self._last_ms, 3)

"""`sdk.open_source`: frames of anything that has some, by one call and with one set of promises.

with open_source("rtsp://door/1") as frames:               # or 0, "clip.mp4", "photos/", a list of arrays, ...
    for frame in frames:                                   # the newest of a live source, every one of the rest
        frame.picture, frame.source, frame.number, frame.time_ms, frame.age_ms
    frames.counts.dropped
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError, SourceError
from sdk.media.addresses import STDIN, is_camera, is_url
from sdk.media.ahead import ReadAhead
from sdk.media.backends import open_feed
from sdk.media.feeds import Backend, FeedEndedError, Grab, How
from sdk.media.formats import camera_format_from, raw_format_from
from sdk.media.live import Counts, LiveFrames, Patience
from sdk.media.reaching import comes_back
from sdk.media.sources import Source, frames_of, sources_from
from sdk.media.videos import Damaged, Item, SourceFrame, Unreadable
from sdk.numeric import is_number
from sdk.runtime.frames import check_frame
from sdk.wording import counted

__all__ = ["OpenSource", "Where", "open_source"]

log = logging.getLogger(__name__)
Items = LiveFrames | Generator[Item, None, None]
Where = str | Path | int | Source | Iterable[NDArray[np.uint8] | SourceFrame]


def open_source(
    where: Where,
    *,
    live: bool | None = None,
    reconnect: bool | str = True,
    read_timeout_s: float = 10.0,
    open_timeout_s: float = 15.0,
    max_age_s: float = 1.0,
    backend: Backend = "auto",
    hwaccel: str | None = None,
    camera_format: str | None = None,
    raw: str | None = None,
    recursive: bool = False,
) -> OpenSource:
    """The frames of `where`: a file, a folder or a glob pattern; a camera's number or device; a URL; a GStreamer
    pipeline ('nvarguscamerasrc ! nvvidconv'); '-', raw frames on standard input; or an iterable of arrays (H x W x 3,
    BGR) or of SourceFrames.

    `live`: a reader thread, and the newest frame only; by default of cameras and of URLs that name no video file.
    `reconnect`: a live source that has given frames is opened again for as long as it takes, with pauses of 1 to 30 s;
    "always": also one that is not there at the start; False: its end is an error. `read_timeout_s`: without a frame for
    so long it counts as gone; `open_timeout_s`: for its first one. `max_age_s`: no live frame older than this is given.
    `backend`: 'av' (PyAV), 'opencv', or 'auto': PyAV where it is installed, and OpenCV for cameras.
    `hwaccel`: a hardware decoder by FFmpeg's name ('cuda', 'vaapi'), with PyAV. `camera_format`: what a V4L2 camera is
    to send, as 'MJPG:1280x720@30' or 'NV12'. `raw`: what '-' is, as 'bgr24:1280x720', or 'y4m'. `recursive`: folders
    with the folders below them.
    """
    if reconnect not in (True, False, "always"):
        raise InputError(f"reconnect must be True, False or 'always' (got {reconnect!r})")
    if live not in (True, False, None) or recursive not in (True, False):
        raise InputError(
            f"live must be True, False or None, and recursive True or False (got {live!r} and {recursive!r})"
        )
    if not is_number(max_age_s) or not max_age_s > 0:
        raise InputError(f"max_age_s must be a number of seconds above 0 (got {max_age_s!r})")
    how = How(
        backend,
        open_timeout_s,
        read_timeout_s,
        None if raw is None else raw_format_from(raw),
        None if camera_format is None else camera_format_from(camera_format),
        hwaccel,
    )
    patience = Patience(
        how.open_timeout_s, how.read_timeout_s, float(max_age_s), bool(reconnect), from_start=reconnect == "always"
    )
    if isinstance(where, (str, Path, Integral, Source)) and not isinstance(where, bool):
        return _of_sources(_listed(where, recursive), str(where), live, how, patience)
    if not isinstance(where, Iterable):
        raise InputError(
            f"a source must be a path, a camera's number, a URL or an iterable of frames (got {type(where).__name__})"
        )
    if live:
        feed = _Given(iter(where))
        return OpenSource("frames", lambda counts: LiveFrames("frames", lambda: feed, patience, counts), is_live=True)
    return OpenSource("frames", lambda counts: _given_items(where), is_live=False)


class OpenSource:
    """Frames, in order, for one thread; another may close it. Nothing is opened before the first is asked for.

    Iterating gives frames alone: what cannot be decoded is logged and counted, and where something could not be read
    (whole), a SourceError ends what could. `items()` gives all that came, errors among it, instead.
    """

    def __init__(self, name: str, items: Callable[[Counts], Items], *, is_live: bool) -> None:
        self.name = name
        self.is_live = is_live
        self.counts = Counts()
        self._open = items
        self._opened: Items | None = None
        self._items: Generator[Item, None, None] | None = None
        self._frames: Generator[SourceFrame, None, None] | None = None
        self._is_closed = False

    def __enter__(self) -> OpenSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of files, cameras and connections; iterating ends."""
        self._is_closed = True
        if isinstance(self._opened, LiveFrames):
            self._opened.close()
        for each in (self._frames, self._items):
            if each is not None:
                with suppress(ValueError):  # another thread is in it, and leaves it after the item that it waits for
                    each.close()

    def items(self) -> Iterator[Item]:
        """SourceFrame, Damaged and Unreadable as they come; the same iterator in every call."""
        if self._items is None:
            self._items = self._counted()
        return self._items

    def __iter__(self) -> Iterator[SourceFrame]:
        if self._frames is None:
            self._frames = self._frames_alone()
        return self._frames

    def __next__(self) -> SourceFrame:
        return next(iter(self))

    def _counted(self) -> Generator[Item, None, None]:
        if self._is_closed:
            return
        with closing(self._open(self.counts)) as self._opened:
            for item in self._opened:
                if self._is_closed:
                    return
                if not self.is_live:
                    self.counts.frames += isinstance(item, SourceFrame)
                    self.counts.broken += item.count if isinstance(item, Damaged) else 0
                yield item

    def _frames_alone(self) -> Generator[SourceFrame, None, None]:
        lost: list[str] = []
        for item in self.items():
            if isinstance(item, SourceFrame):
                yield item
            elif isinstance(item, Damaged):
                log.warning("'%s': %s, passed over", self.name, item)
            else:
                lost.append(item.reason)
                log.error("'%s': %s", self.name, item.reason)
        if lost:
            several = f" (the first of {counted(len(lost), 'fault')})" if len(lost) > 1 else ""
            raise SourceError(f"source '{self.name}' cannot be read (whole): {lost[0]}{several}")


def _listed(where: str | Path | Integral | Source, recursive: bool) -> list[Source]:
    return [where] if isinstance(where, Source) else sources_from([str(where)], recursive=recursive)


def _of_sources(sources: list[Source], name: str, live: bool | None, how: How, patience: Patience) -> OpenSource:
    first = sources[0]
    is_live = first.is_live if live is None else live
    if len(sources) == 1:
        name = first.name
    _check_forms(first, how)
    if not is_live:
        return OpenSource(name, lambda _: _recorded(sources, how), is_live=False)
    if first.address is None:
        raise InputError(f"source '{name}' is of files, of which every frame counts; live=True is for streams")

    def frames(counts: Counts) -> LiveFrames:
        return LiveFrames(
            name,
            lambda: open_feed(first, how),
            patience,
            counts,
            is_back=lambda: comes_back(first.address),
            flush=is_url(first.address),
        )

    return OpenSource(name, frames, is_live=True)


def _check_forms(source: Source, how: How) -> None:
    """InputError for a form that is missing, or of what has none."""
    if source.address == STDIN and how.raw is None:
        raise InputError("source '-' is raw frames on standard input; tell their form, as in raw='bgr24:1280x720'")
    if source.address != STDIN and how.raw is not None:
        raise InputError(f"raw is the form of frames on standard input, source '-' (got source '{source.name}')")
    if how.camera_format is not None and not is_camera(source.address):
        raise InputError(f"camera_format is of a camera (got source '{source.name}')")


def _recorded(sources: list[Source], how: How) -> Generator[Item, None, None]:
    """All of all files; numbers and times of several count on from one to the next."""
    number, time_ms = 0, 0.0
    for source in sources:
        first, first_ms = number, time_ms
        for item in _read(source, how):
            if isinstance(item, SourceFrame) and item.time_ms is not None:
                time_ms = first_ms + item.time_ms + 1e3 / (source.fps or 25.0)
                item = replace(item, time_ms=round(first_ms + item.time_ms, 3))
            if isinstance(item, SourceFrame):
                number = first + item.number + 1
                item = replace(item, number=first + item.number)
            elif isinstance(item, Damaged):
                number = first + item.first + item.count
                item = replace(item, first=first + item.first)
            yield _named(item, source) if len(sources) > 1 else item


def _named(item: Item, source: Source) -> Item:
    return Unreadable(f"'{source.name}': {item.reason}") if isinstance(item, Unreadable) else item


def _read(source: Source, how: How) -> Iterator[Item]:
    """A recording's frames, read ahead; of a server's, each within the time-outs, by our own clock."""
    if source.kind == "image" and not source.is_pipe:
        yield from frames_of(source, how)
        return
    last = -1
    limit_s = _limit_s(source, how)
    with ReadAhead(frames_of(source, how), timeout_s=limit_s) as items:
        try:
            for item in items:
                last = getattr(item, "number", last)
                yield item
        except TimeoutError:
            said = "no frame came" if last < 0 else f"nothing more came after frame {last}"
            yield Unreadable(f"time-out: {said}, for {limit_s:g} s")


def _limit_s(source: Source, how: How) -> float:
    """How long the next frame may take; a file's, and standard input's, as long as it takes."""
    if source.is_pipe:
        return how.read_timeout_s + 1.0  # who opens it tells first that nobody writes
    return float("inf") if source.address in (None, STDIN) else max(how.open_timeout_s, how.read_timeout_s)


def _given_items(where: Iterable[Any]) -> Generator[SourceFrame, None, None]:
    for number, each in enumerate(where):
        yield each if isinstance(each, SourceFrame) else SourceFrame(_checked(each, number), number, source="frames")


def _checked(frame: object, number: int) -> NDArray[np.uint8]:
    try:
        return check_frame(frame)
    except InputError as error:
        raise InputError(f"frame {number} of the source: {error}") from error


class _Given:
    """An iterable as a feed."""

    fps = 0.0
    claimed = 0

    def __init__(self, frames: Iterator[Any]) -> None:
        self._frames = enumerate(frames)

    def read(self) -> Grab:
        for number, each in self._frames:
            return Grab(each.picture if isinstance(each, SourceFrame) else _checked(each, number))
        raise FeedEndedError

    def abort(self) -> None:
        """It is the caller's."""

    def close(self) -> None:
        """It is the caller's."""

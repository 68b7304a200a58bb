"""What reads one opening of a video, a camera or a stream, frame by frame: OpenCV, or PyAV where it is installed.

feed = open_feed(source, How())               # FeedError: why there is none
grab = feed.read()                            # grab.picture, grab.stamp_s; None: a frame that cannot be had
feed.close()

A feed says nothing of numbers, ends and outages: `sdk.media.videos` and `sdk.media.live` make those of what it reads.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError, MissingDependencyError
from sdk.in_flight import in_flight
from sdk.media.addresses import is_camera, is_url

if TYPE_CHECKING:
    from sdk.media.sources import Source

__all__ = ["BACKENDS", "Backend", "Feed", "FeedEndedError", "FeedError", "Grab", "How", "OpenCvFeed", "open_feed"]

Backend = Literal["auto", "opencv", "av"]
BACKENDS = ("auto", "opencv", "av")
MOST_FRAMES = 1 << 40  # headers of streams claim nonsense beyond


@dataclass(frozen=True)
class How:
    """How sources are opened; `open_source` says what each of these is."""

    backend: Backend = "auto"
    open_timeout_s: float = 15.0
    read_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise InputError(f"backend must be one of {', '.join(BACKENDS)} (got {self.backend!r})")
        for name in ("open_timeout_s", "read_timeout_s"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise InputError(f"{name} must be a number of seconds above 0 (got {value!r})")


@dataclass(frozen=True, eq=False)
class Grab:
    """A picture, H x W x 3 BGR, and its stamp on the source's own clock, from its first frame; None: it has none."""

    picture: NDArray[np.uint8]
    stamp_s: float | None = None


class FeedError(Exception):
    """Why a feed cannot be opened, or no more can be read from it; in words, and without secrets."""


class FeedEndedError(FeedError):
    """There is no more, as it should be."""


class Feed(Protocol):
    """What is read from; `fps` and `claimed` frames are its header's word, 0 where it tells none."""

    fps: float
    claimed: int

    def read(self) -> Grab | None:
        """The next frame; None where one is damaged, or nothing is left: a feed cannot always tell."""

    def close(self) -> None:
        """Let go of the device, the connection or the file."""


def open_feed(source: Source, how: How) -> Feed:
    """A feed of a video, a camera or a stream. FeedError where it cannot be opened."""
    wanted = how.backend
    if wanted == "av" and not _has_av():
        raise MissingDependencyError("backend 'av' needs PyAV: pip install 'simcc-edge-sdk[av]'")
    if not is_camera(source.address) and (wanted == "av" or (wanted == "auto" and _has_av())):
        from sdk.media.av_feed import AvFeed

        return AvFeed(source, how)
    return OpenCvFeed(source, how)


def _has_av() -> bool:
    return importlib.util.find_spec("av") is not None


class OpenCvFeed:
    """OpenCV's capture. It turns pictures as their container says, and fits later ones of another size to the first."""

    def __init__(self, source: Source, how: How) -> None:
        self._stamped = source.address is None or not source.is_live
        with in_flight:
            self._capture = _capture_of(source, how)
            opened = self._capture.isOpened()
        if not opened:
            self._capture.release()
            raise FeedError("it cannot be opened")
        self.fps = _rate(self._capture)
        self.claimed = _claimed(self._capture)

    def read(self) -> Grab | None:
        with in_flight:
            read, picture = self._capture.read()
        return Grab(np.asarray(picture, np.uint8), self._stamp_s()) if read else None

    def close(self) -> None:
        with in_flight:
            self._capture.release()

    def _stamp_s(self) -> float | None:
        import cv2

        stamp_ms = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) if self._stamped else float("nan")
        return stamp_ms / 1e3 if isfinite(stamp_ms) else None


def _capture_of(source: Source, how: How) -> Any:
    """OpenCV's capture; FFmpeg opens streams: other parts of OpenCV would tell the whole address on stderr."""
    import cv2

    if source.address is None:
        return cv2.VideoCapture(str(source.path))
    if not is_url(source.address):
        return cv2.VideoCapture(source.address, cv2.CAP_V4L2)
    if cv2.CAP_FFMPEG not in cv2.videoio_registry.getBackends():
        raise FeedError("this OpenCV was built without FFmpeg, which opens streams; install PyAV")
    limits_s = {cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: how.open_timeout_s, cv2.CAP_PROP_READ_TIMEOUT_MSEC: how.read_timeout_s}
    limits = [int(value) for key, limit_s in limits_s.items() for value in (key, 1e3 * limit_s)]
    return cv2.VideoCapture(source.address, cv2.CAP_FFMPEG, limits)


def _rate(capture: Any) -> float:
    import cv2

    rate = float(capture.get(cv2.CAP_PROP_FPS))
    return rate if isfinite(rate) and rate > 0 else 0.0


def _claimed(capture: Any) -> int:
    import cv2

    claimed = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(claimed) if 0 < claimed < MOST_FRAMES else 0

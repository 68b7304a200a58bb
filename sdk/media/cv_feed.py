"""Frames by OpenCV: cameras, and videos and streams where PyAV is not installed.

feed = OpenCvFeed(source, how)            # a feed of `sdk.media.feeds`
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from sdk.in_flight import in_flight
from sdk.media.addresses import is_url
from sdk.media.feeds import FeedError, Grab, How

if TYPE_CHECKING:
    from sdk.media.sources import Source

__all__ = ["OpenCvFeed"]

MOST_FRAMES = 1 << 40  # headers of streams claim nonsense beyond


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

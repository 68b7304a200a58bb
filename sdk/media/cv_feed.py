"""Frames by OpenCV: cameras, and videos and streams where PyAV is not installed.

feed = OpenCvFeed(source, how)            # a feed of `sdk.media.feeds`
with opencv_told(sources): ...            # RTSP cameras give their first frame a second sooner, several at once
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from sdk.in_flight import in_flight
from sdk.media.addresses import is_rtsp, is_stamped, is_url
from sdk.media.feeds import FeedError, Grab, How
from sdk.media.formats import CameraFormat
from sdk.media.reaching import call

if TYPE_CHECKING:
    from sdk.media.sources import Source

__all__ = ["AT_ONCE", "OPTIONS", "OpenCvFeed", "opencv_told"]

log = logging.getLogger(__name__)

MOST_FRAMES = 1 << 40  # headers of streams claim nonsense beyond
OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"  # read at each opening
# OpenCV opens an RTSP camera in 1.19 s by itself, and in 0.21 s where it looks into the stream for no longer than PyAV
# is told to (a simulated camera with a key frame a second, OpenCV 5.1, each of 4)
BRIEFLY = "rtsp_transport;tcp|analyzeduration;100000|fpsprobesize;0"
# Without it (OpenCV 4.8 to 5.1) one opening waits for the other: three cameras are open after 1.24, 2.46 and 3.71 s
AT_ONCE = "OPENCV_FFMPEG_IS_THREAD_SAFE"


class OpenCvFeed:
    """OpenCV's capture. It turns pictures as their container says, and fits later ones of another size to the first."""

    def __init__(self, source: Source, how: How) -> None:
        self._is_live = source.is_live
        self._stamped = not source.is_live or is_stamped(source.address)
        _check_reachable(source, how)
        with in_flight:
            self._capture = _capture_of(source, how)
            opened = self._capture.isOpened()
        if not opened:
            self._capture.release()
            raise FeedError("it cannot be opened")
        if how.camera_format is not None:
            _hold_to(self._capture, how.camera_format)
        self.fps = _rate(self._capture)
        self.claimed = _claimed(self._capture)

    def read(self) -> Grab | None:
        with in_flight:
            read, picture = self._capture.read()
        return Grab(np.asarray(picture, np.uint8), self._stamp_s()) if read else None

    def abort(self) -> None:
        """Its time-outs end it, two to three times too late; another thread must not touch it."""

    def close(self) -> None:
        with in_flight:
            self._capture.release()

    def _stamp_s(self) -> float | None:
        import cv2

        stamp_ms = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) if self._stamped else float("nan")
        is_told = stamp_ms != 0 or not self._is_live  # 0 is also a stream's frame without one
        return stamp_ms / 1e3 if is_told and isfinite(stamp_ms) else None


@contextmanager
def opencv_told(sources: Iterable[Source]) -> Iterator[None]:
    """While the block runs, OpenCV looks briefly into RTSP cameras, where all sources are such, and opens several live
    sources at once. It takes both from the environment alone, for all that the process opens: this is for programs
    that open nothing else, before they have threads. What is set there already stays."""
    listed = list(sources)
    wanted = {OPTIONS: BRIEFLY} if listed and all(is_rtsp(each.address) for each in listed) else {}
    if sum(each.is_live for each in listed) > 1:
        wanted[AT_ONCE] = "1"
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _check_reachable(source: Source, how: How) -> None:
    """FeedError where an RTSP camera takes no connection. OpenCV opens one source at a time: all others of the process
    would wait while it calls into a dead network, until its time-out."""
    if not is_rtsp(source.address):
        return
    try:
        call(str(source.address), how.open_timeout_s)
    except OSError as error:
        raise FeedError(error.strerror or str(error)) from None


def _capture_of(source: Source, how: How) -> Any:
    """OpenCV's capture; FFmpeg opens streams: other parts of OpenCV would tell the whole address on stderr."""
    import cv2

    if source.address is None:
        return cv2.VideoCapture(str(source.path))
    if not is_url(source.address):
        return cv2.VideoCapture(source.address, cv2.CAP_V4L2, _wishes(how.camera_format))
    if cv2.CAP_FFMPEG not in cv2.videoio_registry.getBackends():
        raise FeedError("this OpenCV was built without FFmpeg, which opens streams; install PyAV")
    limits_s = {cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: how.open_timeout_s, cv2.CAP_PROP_READ_TIMEOUT_MSEC: how.read_timeout_s}
    limits = [int(value) for key, limit_s in limits_s.items() for value in (key, 1e3 * limit_s)]
    return cv2.VideoCapture(source.address, cv2.CAP_FFMPEG, limits)


def _wishes(form: CameraFormat | None) -> list[int]:
    """A camera's format as OpenCV takes it: format before size before rate, as drivers want them."""
    import cv2

    if form is None:
        return []
    asked = {
        cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*form.fourcc),
        cv2.CAP_PROP_FRAME_WIDTH: form.width,
        cv2.CAP_PROP_FRAME_HEIGHT: form.height,
        cv2.CAP_PROP_FPS: round(form.fps),
    }
    return [number for key, value in asked.items() if value for number in (key, value)]


def _hold_to(capture: Any, form: CameraFormat) -> None:
    """FeedError where the driver chose another format or size than was asked for; a rate is told."""
    import cv2

    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    got = CameraFormat(
        code.to_bytes(4, "little").decode("latin-1"),
        int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        _rate(capture),
    )
    if form.fps and abs(got.fps - form.fps) > 0.5:
        log.warning("the camera gives %g frames a second (asked for: %g)", got.fps, form.fps)
    if got.fourcc != form.fourcc or (form.width and (got.width, got.height) != (form.width, form.height)):
        capture.release()
        raise FeedError(f"it has no format {form}, and gives {got}; v4l2-ctl --list-formats-ext lists what it has")


def _rate(capture: Any) -> float:
    import cv2

    rate = float(capture.get(cv2.CAP_PROP_FPS))
    return rate if isfinite(rate) and rate > 0 else 0.0


def _claimed(capture: Any) -> int:
    import cv2

    claimed = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(claimed) if 0 < claimed < MOST_FRAMES else 0

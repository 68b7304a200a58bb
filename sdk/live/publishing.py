"""From results to messages, in a thread of its own: a picture becomes a JPEG once, for all viewers, and only where any
looks. A result that comes while another is encoded waits in a slot a camera; the newest wins.

    with Publisher(viewers, gauges, width=1280, quality=80) as publisher:
        publisher.offer(result)                    # returns at once
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Condition, Thread
from time import monotonic, perf_counter
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from sdk.live.gauges import Gauges
from sdk.live.mailbox import Frame
from sdk.live.results import times_of
from sdk.live.viewers import Viewers
from sdk.live.wire import frame_message
from sdk.people.cameras import CameraPoses

__all__ = ["Publisher"]


class Publisher:
    """Encodes the newest result of each camera. `width`: pictures are at most so many pixels wide."""

    def __init__(self, viewers: Viewers, gauges: Gauges, *, width: int, quality: int) -> None:
        self._viewers, self._gauges = viewers, gauges
        self._width, self._quality = width, quality
        self._waiting: OrderedDict[int, CameraPoses] = OrderedDict()
        self._last: dict[int, CameraPoses] = {}
        self._changed = Condition()
        self._ended = False
        self._thread = Thread(target=self._run, name="sdk-live-publisher", daemon=True)

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def offer(self, result: CameraPoses) -> None:
        """A new result; one of its camera that still waits is not shown."""
        with self._changed:
            self._last[result.camera] = result
            if len(self._viewers):
                self._waiting[result.camera] = result
                self._changed.notify()

    def again(self) -> None:
        """The last result of each camera once more: somebody has come who has not seen it."""
        with self._changed:
            self._waiting.update(self._last)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if self._ended:
                    return
                _, result = self._waiting.popitem(last=False)
            self._viewers.post_frame(self._encoded(result))

    def _encoded(self, result: CameraPoses) -> Frame:
        start = perf_counter()
        picture = result.frame.picture
        jpeg = _jpeg(picture, self._width, self._quality)
        spent_ms = 1e3 * (perf_counter() - start)
        self._gauges.note_stage("encode", spent_ms)
        age_ms = 1e3 * (monotonic() - result.frame.captured_s)
        message = frame_message(
            camera=result.camera,
            number=result.frame.number,
            poses=result.poses,
            size_hw=(picture.shape[0], picture.shape[1]),
            jpeg=jpeg,
            times_ms={**times_of(result.poses), "encode": spent_ms, "age": age_ms},
        )
        return Frame(result.camera, message, result.frame.captured_s)


def _jpeg(picture: NDArray[np.uint8], width: int, quality: int) -> bytes:  # H x W x 3 BGR
    import cv2

    height, wide = picture.shape[:2]
    if wide > width:  # cv2's INTER_AREA takes 4 ms from 1280 to 960 on a Zen 5 core, this 1; a page is no print
        size = width, max(1, round(height * width / wide))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    encoded, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert encoded, "imencode raises where it cannot encode"
    return bytes(data.tobytes())

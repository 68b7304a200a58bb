"""The newest-frame mailbox of one viewer: what he gets next. Of the event loop alone, never of another thread.

A slot a camera holds the newest frame; a newer one takes its place, and what it replaced is counted. A viewer says
which frames have arrived: more than IN_FLIGHT of a camera are never under way, whatever the kernel's buffers would take
(4 MB on loopback, seconds of old frames). Texts (state, statistics) have a slot a kind and need no answer.

    mailbox.put_frame(camera=0, message=message)
    item = await mailbox.take()                    # a Frame or a str
    mailbox.arrived(0)
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

__all__ = ["IN_FLIGHT", "Frame", "Mailbox"]

IN_FLIGHT = 2  # one on the wire while the other is drawn: 30 a second reach a viewer up to 66 ms away


@dataclass(frozen=True)
class Frame:
    """An encoded frame, shared by all viewers, and when its picture was taken (seconds of `monotonic`)."""

    camera: int
    message: bytes
    captured_s: float


class Mailbox:
    """What waits for one viewer; bounded by the number of cameras."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._frames: OrderedDict[int, Frame] = OrderedDict()
        self._under_way: Counter[int] = Counter()
        self._heard_s = clock()  # when an arrival was last told, or the first of what is under way left
        self._something = asyncio.Event()
        self.replaced = 0  # frames that a newer one took the place of

    def put_text(self, kind: str, text: str) -> None:
        self._texts[kind] = text
        self._something.set()

    def put_frame(self, frame: Frame) -> None:
        if frame.camera in self._frames:
            self.replaced += 1
        self._frames[frame.camera] = frame  # keeps its place in the line: no camera starves another
        if self._may_go(frame.camera):
            self._something.set()

    def arrived(self, camera: int) -> None:
        """The viewer has a frame of this camera; one that was never sent counts for nothing."""
        self._heard_s = self._clock()
        if self._under_way[camera] > 0:
            self._under_way[camera] -= 1
            self._something.set()

    async def take(self) -> Frame | str:
        """The next thing to send: texts first, then the frame that waits longest among those that may go."""
        while True:
            if self._texts:
                return self._texts.popitem(last=False)[1]
            camera = next((each for each in self._frames if self._may_go(each)), None)
            if camera is not None:
                if not self._waits():
                    self._heard_s = self._clock()
                self._under_way[camera] += 1
                return self._frames.pop(camera)
            self._something.clear()
            await self._something.wait()

    def silent_s(self) -> float:
        """For how long frames have been under way without a word from the viewer; 0 where none are."""
        return self._clock() - self._heard_s if self._waits() else 0.0

    def _waits(self) -> bool:
        """Whether an arrival is still to be told."""
        return any(self._under_way.values())

    def _may_go(self, camera: int) -> bool:
        return self._under_way[camera] < IN_FLIGHT

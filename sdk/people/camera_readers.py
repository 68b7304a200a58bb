"""A thread a camera, and what each has to give: the frames that come together are taken together.

A live source's frame that nobody took is passed over for the next one; a file's waits. What a source raises ends that
camera alone, and is told with its end. No estimator, and nothing is known of what frames are.

    readers = Readers([CameraSource("door", frames, is_live=True), CameraSource("yard", more)], prepare)
    while (gathered := readers.gathered()) is not None:
        for each in gathered.frames: each.camera, each.frame, each.prepared
        for end in gathered.ends: end.name, end.error
    readers.close()
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from threading import Condition, Lock, Thread
from time import monotonic
from typing import Any

from sdk.media.kept import Kept
from sdk.media.videos import SourceFrame
from sdk.people.gathering import Gathering

__all__ = ["CameraEnd", "CameraSource", "Gathered", "Readers", "Taken"]

log = logging.getLogger(__name__)

LOOK_S = 0.1  # a waiting thread looks by itself now and then: an interrupt may have cut off the thread that wakes it
LEAVE_S = 2.0  # for threads in their sources when the cameras are closed


@dataclass(frozen=True, eq=False)
class CameraSource:
    """What a camera is called, its frames, whether it is live, and what lets go of it, in any thread."""

    name: str
    frames: Iterable[Any]
    is_live: bool = False
    close: Callable[[], None] | None = None


@dataclass(frozen=True, eq=False)
class Taken:
    """A camera's frame in a batch. `waited_s`: from its coming until the batch began."""

    camera: int
    name: str
    frame: SourceFrame
    prepared: Any
    waited_s: float


@dataclass(frozen=True)
class CameraEnd:
    """A camera that gives no more frames: `error` is what its source raised, None where it ended by itself."""

    camera: int
    name: str
    frames: int  # that it gave
    passed_over: int  # of them those that newer ones overtook
    error: BaseException | None = None

    def __str__(self) -> str:
        return f"camera {self.camera} '{self.name}' ended after {self.frames} frames" + (
            "" if self.error is None else f": {self.error or type(self.error).__name__}"
        )


@dataclass(frozen=True)
class Gathered:
    """What a batch is made of, in the order of its coming, and the cameras that ended with it."""

    frames: list[Taken]
    ends: list[CameraEnd]


class _Reader:
    """A camera. Its fields belong to whoever holds the lock."""

    def __init__(self, camera: int, source: CameraSource, lock: Lock) -> None:
        self.camera, self.name, self.source = camera, source.name, source
        self.freed = Condition(lock)  # the frame was taken
        self.there: tuple[SourceFrame, Any, float] | None = None  # frame, prepared, when it came
        self.frames = self.passed_over = 0
        self.ended = self.told = False
        self.failed = Kept()
        self.thread: Thread | None = None

    @property
    def end(self) -> CameraEnd:
        return CameraEnd(self.camera, self.name, self.frames, self.passed_over, self.failed.error)


class Readers:
    """The cameras of one plan. `prepare`: what a frame becomes before it is taken, in its camera's thread; what it
    raises is its source's fault. Threads begin with the first `gathered`, which one thread calls."""

    def __init__(
        self, sources: Sequence[CameraSource], prepare: Callable[[Any], Any], max_wait_s: float | None = None
    ) -> None:
        self._lock = Lock()
        self._came = Condition(self._lock)
        self._gathering = Gathering(len(sources), max_wait_s)
        self._prepare = prepare
        self._readers = [_Reader(camera, source, self._lock) for camera, source in enumerate(sources)]
        self._closed = False

    @property
    def passed_over(self) -> tuple[int, ...]:
        """Of each camera, so far."""
        return tuple(reader.passed_over for reader in self._readers)

    def gathered(self) -> Gathered | None:
        """The next batch, once it is to begin; None when every camera has ended and was told of, or all are closed."""
        self._start()
        with self._came:
            while not self._closed:
                now_s = monotonic()
                starts_s = self._gathering.starts_s(now_s)
                if starts_s is not None and starts_s <= now_s:
                    return Gathered(self._taken(now_s), self._ends())
                if starts_s is None:
                    if ends := self._ends():
                        return Gathered([], ends)
                    if all(reader.told for reader in self._readers):
                        return None
                self._came.wait(LOOK_S if starts_s is None else min(LOOK_S, starts_s - now_s))
        return None

    def close(self) -> None:
        """Let every thread go. One that is in its source still, after a while, ends when that gives something."""
        with self._lock:
            self._closed = True
            self._came.notify_all()
            for reader in self._readers:
                reader.freed.notify_all()
        for reader in self._readers:
            if reader.source.close is not None:
                reader.source.close()
        until_s = monotonic() + LEAVE_S
        for reader in self._readers:
            if reader.thread is None:
                continue
            reader.thread.join(max(0.0, until_s - monotonic()))
            if reader.thread.is_alive():
                log.warning("camera %d '%s' is closed, but its source still blocks", reader.camera, reader.name)

    def _start(self) -> None:
        for reader in self._readers:
            if reader.thread is None and not self._closed:
                reader.thread = Thread(
                    target=self._read, args=(reader,), name=f"sdk-camera-{reader.camera}", daemon=True
                )
                reader.thread.start()

    def _read(self, reader: _Reader) -> None:
        """The thread of a camera, from its first frame to its end."""
        with reader.failed:
            frames = iter(reader.source.frames)
            try:
                for number, item in enumerate(frames):
                    frame = item if isinstance(item, SourceFrame) else SourceFrame(item, number)
                    if not self._give(reader, frame, self._prepare(frame.picture)):
                        break
            finally:
                if isinstance(frames, Generator):
                    frames.close()  # here: no other thread may
        with self._lock:
            reader.ended = True
            self._gathering.ended(reader.camera)
            self._came.notify_all()

    def _give(self, reader: _Reader, frame: SourceFrame, prepared: Any) -> bool:
        """Lay a frame down, once the one before was taken where each counts. False when the cameras are closed."""
        with self._lock:
            while reader.there is not None and not reader.source.is_live and not self._closed:
                reader.freed.wait(LOOK_S)
            if self._closed:
                return False
            reader.frames += 1
            reader.passed_over += reader.there is not None
            now_s = monotonic()
            reader.there = frame, prepared, now_s
            self._gathering.arrived(reader.camera, now_s)
            self._came.notify_all()
        return True

    def _taken(self, now_s: float) -> list[Taken]:
        taken = []
        for camera in self._gathering.take():
            reader = self._readers[camera]
            assert reader.there is not None, "a camera whose frame came has it until it is taken"
            frame, prepared, came_s = reader.there
            reader.there = None
            reader.freed.notify_all()
            taken.append(Taken(camera, reader.name, frame, prepared, now_s - came_s))
        return taken

    def _ends(self) -> list[CameraEnd]:
        """Of the cameras that ended and whose last frame is taken, those not told of yet."""
        ended = [each for each in self._readers if each.ended and each.there is None and not each.told]
        for reader in ended:
            reader.told = True
        return [reader.end for reader in ended]

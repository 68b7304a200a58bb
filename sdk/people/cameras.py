"""`Cameras`: several cameras, files or streams with one engine in one process. Persons of all of them share batches,
each camera's persons keep ids of their own, and none waits for the slowest.

    with Cameras(["0", "rtsp://yard/1", "clip.mp4"], "body.fp16", detector="rtmdet.onnx", detect_every=5) as cameras:
        for camera, name, frame, poses in cameras:
            print(name, frame.number, poses)

A thread a camera reads; one thread gathers what they have, estimates, and is one batch ahead of whoever takes the
poses. Which frames make a batch: `sdk.people.gathering`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any

from sdk.errors import ClosedError, InputError, SourceError
from sdk.manifest import Engine
from sdk.media.kept import Kept
from sdk.media.opening import OpenSource, open_source
from sdk.media.sources import Source, SourceFrame
from sdk.people.camera_readers import LOOK_S, CameraEnd, CameraSource, Gathered, Readers
from sdk.people.estimator import PoseEstimator
from sdk.people.gathering import check_wait
from sdk.people.other_trackers import AnyTracker, TrackerName
from sdk.poses import Poses
from sdk.runtime.closing import Closing

if TYPE_CHECKING:
    from sdk.people.estimator import DetectorLike

__all__ = ["CameraEnd", "CameraPoses", "Cameras"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CameraPoses:
    """The persons in one camera's frame. `waited_ms`: how long the frame was there before its batch began, and
    `together` how many frames the batch had."""

    camera: int
    name: str
    frame: SourceFrame
    poses: Poses
    waited_ms: float = 0.0
    together: int = 1

    def __iter__(self) -> Iterator[Any]:
        """`for camera, name, frame, poses in cameras`."""
        return iter((self.camera, self.name, self.frame, self.poses))


class Cameras(Closing):
    """Iterate over the poses of all cameras, in the order in which they are done.

    `sources`: each what `open_source` takes (a camera's number, a URL, a file), an opened one, which is closed with
    these, or an iterable of frames as `PoseEstimator` takes them. Of a live one the newest frame counts, of a file
    every frame. `tracker`: True, a `Tracker` of which each camera gets a copy, or None for no ids. `max_wait_s`: how
    long a frame waits for those of other cameras; None: half its camera's period. `on_end` is called, by the thread
    that iterates, with the `CameraEnd` of each camera that has ended. Without it an end is told in the log, and where a
    source raised, SourceError comes after the poses of all others. `options` are those of `PoseEstimator`.
    """

    def __init__(
        self,
        sources: Iterable[object],
        engine: Engine | str | Path | None = None,
        *,
        detector: str | Path | DetectorLike | None = None,
        tracker: AnyTracker | TrackerName | bool | None = True,
        max_wait_s: float | None = None,
        on_end: Callable[[CameraEnd], None] | None = None,
        **options: Any,
    ) -> None:
        if isinstance(sources, (str, bytes, Path)) or not isinstance(sources, Iterable):
            raise InputError(f"cameras must be a list of sources, one a camera (got {sources!r}); give [...]")
        check_wait(max_wait_s)
        given = list(sources)
        self._on_end = on_end
        self._ends: dict[int, CameraEnd] = {}
        self._done: deque[CameraPoses] = deque()
        self._batches = _Handover()
        self._failed = Kept()
        self._closed = False
        self._estimate = PoseEstimator(engine, detector=detector, tracker=tracker, **options)
        try:
            self._followers = [self._estimate.follower(deepcopy(tracker)) for _ in given] if tracker else None
            opened = [_opened(*each, options.get("pixel_format", "bgr")) for each in enumerate(given)]
            self._readers = Readers(opened, self._estimate.taken, max_wait_s)
        except BaseException:
            self._estimate.close()
            raise
        self._worker: Thread | None = None

    @property
    def engine(self) -> Engine:
        return self._estimate.engine

    @property
    def device(self) -> str:
        return self._estimate.device

    @property
    def passed_over(self) -> tuple[int, ...]:
        """Of each camera: frames that newer ones overtook before they were taken."""
        return self._readers.passed_over

    @property
    def ends(self) -> dict[int, CameraEnd]:
        """The cameras that have ended so far, by number."""
        return dict(self._ends)

    def warm(self) -> None:
        """As of the estimator: do now what would make first batches slow."""
        self._estimate.warm()

    def __iter__(self) -> Cameras:
        return self

    def __next__(self) -> CameraPoses:
        if self._closed:
            raise ClosedError("the cameras are closed; make new Cameras")
        if self._worker is None:
            self._worker = Thread(target=self._work, name="sdk-cameras", daemon=True)
            self._worker.start()
        while not self._done:
            batch = self._batches.take()
            if batch is None:
                self._raise_what_failed()
                raise StopIteration
            self._done.extend(batch.poses)
            for end in batch.ends:
                self._tell(end)
        return self._done.popleft()

    def close(self) -> None:
        """End every camera, finish the batch at hand, free the engine. Closing twice is allowed.

        A thread that iterates meanwhile comes to the end.
        """
        self._closed = True
        self._batches.end()
        self._readers.close()
        if self._worker is not None:
            self._worker.join()
        self._estimate.close()

    def _work(self) -> None:
        """The thread that estimates; what it raises goes to the one that iterates."""
        with self._failed:
            while (gathered := self._readers.gathered()) is not None:
                if not self._batches.give(_Batch(self._estimated(gathered), gathered.ends)):
                    break
        self._batches.end()

    def _estimated(self, gathered: Gathered) -> list[CameraPoses]:
        taken = gathered.frames
        followers = None if self._followers is None else [self._followers[each.camera] for each in taken]
        found = self._estimate.many(
            [each.prepared for each in taken], followers=followers, times_ms=[each.frame.time_ms for each in taken]
        )
        return [
            CameraPoses(each.camera, each.name, each.frame, poses, 1e3 * each.waited_s, len(taken))
            for each, poses in zip(taken, found, strict=True)
        ]

    def _tell(self, end: CameraEnd) -> None:
        self._ends[end.camera] = end
        if self._on_end is not None:
            self._on_end(end)
        else:
            log.log(logging.INFO if end.error is None else logging.WARNING, "%s", end)

    def _raise_what_failed(self) -> None:
        """What ended the estimation; else, where nobody was told of it, what ended cameras."""
        if self._failed.error is not None:
            raise self._failed.error
        failed = [end for end in self._ends.values() if end.error is not None]
        if failed and self._on_end is None and not self._closed:
            raise SourceError("; ".join(map(str, failed))) from failed[0].error


@dataclass(frozen=True)
class _Batch:
    poses: list[CameraPoses]
    ends: list[CameraEnd]


class _Handover:
    """From the thread that estimates to the one that takes: it goes on when a batch is taken, so it is one ahead."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._batch: _Batch | None = None
        self._over = False

    def give(self, batch: _Batch) -> bool:
        """Wait until `batch` is taken; False where nobody takes any more."""
        with self._changed:
            self._batch = batch
            self._changed.notify_all()
            while self._batch is not None and not self._over:
                self._changed.wait(LOOK_S)
            return not self._over

    def take(self) -> _Batch | None:
        """The next batch; None when there will be no more."""
        with self._changed:
            while self._batch is None and not self._over:
                self._changed.wait(LOOK_S)
            batch, self._batch = self._batch, None
            self._changed.notify_all()
            return batch

    def end(self) -> None:
        """Let both sides go."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


def _opened(camera: int, source: object, pixel_format: str) -> CameraSource:
    """A camera's frames: an opened source's, those of what `open_source` takes, or any that it is given."""
    if isinstance(source, (str, Path, Integral, Source)) and not isinstance(source, bool):
        source = open_source(int(source) if isinstance(source, Integral) else source)
    if isinstance(source, OpenSource):
        if pixel_format != "bgr":
            raise InputError(
                f"camera {camera}, '{source.name}', gives BGR frames, not {pixel_format}; name another "
                "pixel_format for iterables of frames alone"
            )
        return CameraSource(source.name, source, source.is_live, source.close)
    if isinstance(source, Iterable) and hasattr(source, "is_live"):  # what tells as much of itself
        name = str(getattr(source, "name", f"source {camera}"))
        return CameraSource(name, source, bool(source.is_live), getattr(source, "close", None))
    if not isinstance(source, Iterable):
        raise InputError(
            f"camera {camera} must be a camera's number, a URL, a file, or an iterable of frames (got {source!r})"
        )
    return CameraSource(f"source {camera}", source)

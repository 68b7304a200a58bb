"""`PoseEstimator`: a frame in, `Poses` out: the persons a detector finds, or those followed since the last frames.

    with PoseEstimator("rtmpose-s-256x192.fp16", detector="rtmdet.onnx", tracker=True, detect_every=5) as estimate:
        poses = estimate(frame_bgr)

One estimator serves one video when it tracks. Without a tracker, several threads may call it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sdk.errors import InputError
from sdk.manifest import Engine
from sdk.people.detector import Detector
from sdk.people.tracking import Tracker
from sdk.poses import Poses
from sdk.runtime.estimator import BoxEstimator, Found, check_found
from sdk.runtime.frames import bgr_from_frame, size_hw_of
from sdk.runtime.lending import Turns
from sdk.runtime.pipeline import Refine, Timings

__all__ = ["PoseEstimator"]

FOLLOWED = 0.98  # of a box's score is left in each frame without detection: about half of it after 30 frames
DetectorLike = Callable[[NDArray[np.uint8]], tuple[ArrayLike, ArrayLike]]


class PoseEstimator(BoxEstimator):
    """An engine, opened: call it with a BGR frame, and boxes where they are known.

    `engine`: an engine folder, a bundled name, or None for the bundled network. `device`: 'auto', 'cpu', 'cuda',
    'cuda:N'. `detector`: a person detector's ONNX file, or a callable frame -> (boxes N x 4 xyxy, scores N).
    `tracker`: True, or a `Tracker`, gives `track_ids`. `detect_every`: with a detector and a tracker, frames between
    two detections take the previous joints' boxes, with the detector's scores, 2 % less in each. `flip_test`: also run
    the mirrored crop. `refine`: sub-bin rule. `threads`: of ONNX Runtime and the native ops (by default all cores, and
    one). `pixel_format`: 'bgr', or another of `sdk.runtime.frames.PIXEL_FORMATS`. `spread`: also how sure each joint
    is, as `poses.spread` and `poses.second`.
    """

    def __init__(
        self,
        engine: Engine | str | Path | None = None,
        *,
        device: str = "auto",
        detector: str | Path | DetectorLike | None = None,
        tracker: Tracker | bool | None = None,
        detect_every: int = 1,
        refine: Refine = "none",
        flip_test: bool = False,
        threads: int | None = None,
        pixel_format: str = "bgr",
        spread: bool = False,
    ) -> None:
        _check_helpers(detector, tracker)
        self._tracker = Tracker() if tracker is True else tracker or None
        if detect_every != 1 and (type(detect_every) is not int or detect_every < 1 or self._tracker is None):
            raise InputError(
                f"detect_every must be a whole number of at least 1, and needs a tracker above 1 (got {detect_every!r})"
            )
        self._detector = Detector(detector, threads=threads) if isinstance(detector, (str, Path)) else detector
        self._detect_every = detect_every
        self._frames_seen = 0
        self._tracking = Turns(1)
        self._finding = threading.local()  # `.now` while this thread is in the detector
        super().__init__(
            engine,
            device=device,
            refine=refine,
            flip_test=flip_test,
            threads=threads,
            pixel_format=pixel_format,
            spread=spread,
        )

    def __call__(self, frame: object, boxes: object = None, *, box_scores: object = None) -> Poses:
        """The poses in `frame` (uint8 H x W x 3, BGR) of the persons in `boxes` (N x 4 xyxy, frame pixels).

        Without boxes: the detector's, else the previous frame's persons when tracking, else the whole frame.
        """
        self._check_open()
        return self._call(frame, boxes, box_scores)

    def submit(self, frame: object, boxes: object = None, *, box_scores: object = None) -> Future[Poses]:
        """As of `BoxEstimator`; not for the estimator's own detector, which would wait for itself."""
        self._check_not_finding()
        return super().submit(frame, boxes, box_scores=box_scores)

    def many(
        self,
        frames: Iterable[object],
        boxes: Iterable[object] | None = None,
        *,
        box_scores: Iterable[object] | None = None,
    ) -> list[Poses]:
        """As `BoxEstimator.many`; a frame without boxes is given to the detector, if there is one."""
        if self._tracker is not None:
            raise InputError(
                "many takes frames of several cameras or pictures, and a tracker follows one video; make an estimator "
                "without a tracker for it, and a Tracker a camera"
            )
        return super().many(frames, boxes, box_scores=box_scores)

    def reset_tracks(self) -> None:
        """Forget the persons of the frames so far, as before another video. Nothing happens without a tracker."""
        self._check_not_finding()
        with self._tracking:
            self._frames_seen = 0
            if self._tracker is not None:
                self._tracker.reset()

    def _in_flight(self) -> int:
        """One where frames depend on each other."""
        return 1 if self._tracker is not None else super()._in_flight()

    def _call(self, frame: object, boxes: object, box_scores: object) -> Poses:
        if self._tracker is None:
            return super()._call(frame, boxes, box_scores)
        self._check_not_finding()
        with self._tracking:
            return self._identified(self._tracker, super()._call(frame, boxes, box_scores))

    def _find(self, frame: Any, timings: Timings) -> Found:
        size_hw = size_hw_of(frame, self._pixel_format)
        turn = self._frames_seen % self._detect_every == 0
        self._frames_seen += 1
        if self._tracker is not None and not (self._detector and turn):
            followed, scores = self._tracker.next_boxes(self._scale.fair, size_hw)
            if len(followed):
                return followed, scores * np.float32(FOLLOWED if self._detector else 1)
        if self._detector is None:
            return super()._find(frame, timings)
        if not isinstance(frame, np.ndarray):
            raise InputError("a detector needs the frame in host memory; give boxes with a frame in device memory")
        start = perf_counter()
        self._finding.now = True
        try:
            found = self._detector(bgr_from_frame(frame, self._pixel_format))
        finally:
            self._finding.now = False
        timings["detect"] = 1e3 * (perf_counter() - start)
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise InputError(
                f"detector must give a pair, boxes N x 4 xyxy and scores N (it gave {type(found).__name__})"
            )
        try:
            return check_found(*found)
        except InputError as error:
            raise InputError(f"what the detector gave cannot be used: {error}") from error

    def _check_not_finding(self) -> None:
        if getattr(self._finding, "now", False):
            raise InputError(
                "a detector must not call the estimator that it finds persons for: each would wait for the other; make "
                "a second PoseEstimator for it"
            )

    def _identified(self, tracker: Tracker, poses: Poses) -> Poses:
        start = perf_counter()
        ids = tracker.update(
            poses.boxes, poses.keypoints, poses.scores, poses.skeleton.tolerances, self._scale.fair, poses.box_scores
        )
        spent = 1e3 * (perf_counter() - start)
        total = float(poses.timings_ms["total"]) + spent
        return replace(poses, track_ids=ids, timings_ms={**poses.timings_ms, "track": spent, "total": total})


def _check_helpers(detector: object, tracker: object) -> None:
    if not (detector is None or isinstance(detector, (str, Path)) or callable(detector)):
        raise InputError(
            "detector must be a person detector's ONNX file, or a callable frame -> (boxes N x 4 xyxy, scores N) "
            f"(got {detector!r})"
        )
    if not isinstance(tracker, (bool, Tracker, type(None))):
        raise InputError(f"tracker must be True, or a Tracker, or None (got {tracker!r})")

"""`PoseEstimator`: a frame in, `Poses` out: the persons a detector finds, or those followed since the last frames.

    with PoseEstimator("rtmpose-s-256x192.fp16", detector="rtmdet.onnx", tracker=True, detect_every=5) as estimate:
        poses = estimate(frame_bgr)

One estimator serves one video when it tracks. Without a tracker, several threads may call it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from sdk.errors import InputError
from sdk.in_flight import in_flight
from sdk.poses import Poses
from sdk.runtime.estimator import BoxEstimator, check_found, entries
from sdk.runtime.frames import bgr_from_frame, of_frame, size_hw_of
from sdk.runtime.lending import Turns

if TYPE_CHECKING:  # what follows persons is loaded with the first estimator: importing one stays quick
    from concurrent.futures import Future

    from numpy.typing import ArrayLike, NDArray

    from sdk.manifest import DetectorEngine, Engine
    from sdk.people.following import DetectEvery, Follower
    from sdk.people.other_trackers import AnyTracker, TrackerName
    from sdk.people.smoothing import Smoothing
    from sdk.runtime.estimator import Entry, Float32Array, Found
    from sdk.runtime.pipeline import Refine, Timings

    DetectorLike = Callable[[NDArray[np.uint8]], tuple[ArrayLike, ArrayLike]]

__all__ = ["PoseEstimator"]


class _Finding(threading.local):
    """Whether a thread is in the detector."""

    now = False


class PoseEstimator(BoxEstimator):
    """An engine, opened: call it with a BGR frame, and boxes where they are known.

    `engine`: an engine folder, a bundled name, or None for the bundled network. `device`: 'auto', 'cpu', 'cuda',
    'cuda:N'. `detector`: a person detector's engine folder, whose plan finds persons on the GPU, in frames of the host
    and the device; its name in the catalogue or its ONNX file, on the CPU (with its own score threshold, 0.25 or 0.3;
    `sdk.people.detector.Detector` takes another); or a callable frame -> (boxes N x 4 xyxy, scores N). `tracker`: True,
    'bytetrack', 'ocsort' (package trackers) or a `Tracker`, gives `track_ids`. `detect_every`: with a detector and a
    tracker, frames between two detections take the previous joints' boxes, with the detector's scores, 2 % less in
    each; 'auto': it looks when it must. `max_persons`: of the detector's, at most so many: those who are followed, then
    the surest. `smooth`: with a tracker, True or a `Smoothing` takes the jitter out of the joints. `flip_test`: also
    run the mirrored crop. `refine`: sub-bin rule. `threads`: of ONNX Runtime and the native ops (by default all cores,
    and one). `pixel_format`: 'bgr', or another of `sdk.runtime.frames.PIXEL_FORMATS`. `spread`: also how sure each
    joint is, as `poses.spread` and `poses.second`.
    """

    def __init__(
        self,
        engine: Engine | str | Path | None = None,
        *,
        device: str = "auto",
        detector: DetectorEngine | str | Path | DetectorLike | None = None,
        tracker: AnyTracker | TrackerName | bool | None = None,
        detect_every: DetectEvery = 1,
        max_persons: int | None = None,
        smooth: Smoothing | bool = False,
        refine: Refine = "none",
        flip_test: bool = False,
        threads: int | None = None,
        pixel_format: str = "bgr",
        spread: bool = False,
    ) -> None:
        from sdk.people.following import check_following
        from sdk.people.other_trackers import tracker_from
        from sdk.people.smoothing import Smoothing

        _check_detector(detector)
        check_following(tracker, detect_every, max_persons, smooth)
        followed_by = tracker_from(tracker) if tracker else None
        engine_of_detector = _engine_of(detector)
        self._max_persons = max_persons
        self._tracking = Turns(1)
        self._looked = False  # whether the boxes of the frame at hand are new: of one frame at a time where followed
        self._expected = 1  # persons in the next frame that the detector looks at
        self._finding = _Finding()
        super().__init__(
            engine,
            device=device,
            refine=refine,
            flip_test=flip_test,
            threads=threads,
            pixel_format=pixel_format,
            spread=spread,
            detector=engine_of_detector,
        )
        self._detector: DetectorLike | None = None  # where the pipeline finds nobody itself
        if self._pipeline.finder is None:
            try:
                self._detector = _opened(engine_of_detector or detector, threads)
            except BaseException:
                self._pipeline.close()
                raise
        self._detect_every = detect_every
        self._smoothing = Smoothing() if smooth is True else smooth or None
        self._follower = None if followed_by is None else self.follower(followed_by)

    def follower(self, tracker: AnyTracker | TrackerName | bool = True) -> Follower:
        """What follows the persons of one more video for `many`, by this estimator's rules; one a camera.

        `tracker`: True, a name, or a `Tracker` of that video's own.
        """
        from sdk.people.following import Follower
        from sdk.people.other_trackers import tracker_from

        return Follower(
            self._scale,
            tracker_from(tracker),
            detects=self._detects,
            detect_every=self._detect_every,
            max_persons=self._max_persons,
            smoothing=self._smoothing,
        )

    def __call__(
        self, frame: object, boxes: object = None, *, box_scores: object = None, time_ms: float | None = None
    ) -> Poses:
        """The poses in `frame` (uint8 H x W x 3, BGR) of the persons in `boxes` (N x 4 xyxy, frame pixels).

        Without boxes: the detector's, else the previous frame's persons when tracking, else the whole frame. `time_ms`:
        of the frame, for `smooth`.
        """
        self._check_open()
        return self._call(frame, boxes, box_scores, time_ms)

    def submit(
        self, frame: object, boxes: object = None, *, box_scores: object = None, time_ms: float | None = None
    ) -> Future[Poses]:
        """As of `BoxEstimator`; not for the estimator's own detector, which would wait for itself."""
        self._check_not_finding()
        return self._submit(frame, boxes, box_scores, time_ms)

    def many(
        self,
        frames: Iterable[object],
        boxes: Iterable[object] | None = None,
        *,
        box_scores: Iterable[object] | None = None,
        followers: Iterable[Follower] | None = None,
        times_ms: Iterable[float | None] | None = None,
    ) -> list[Poses]:
        """As `BoxEstimator.many`; a frame without boxes is given to the detector, if there is one.

        `followers`: of each frame the one that follows its video, as `follower()` makes them: who is in a frame is then
        found, and told by ids, as in calls with a tracker. `times_ms`: of each frame, for `smooth`.
        """
        self._check_not_finding()
        if followers is not None:
            given = entries(frames, boxes, box_scores)
            times: list[float | None] = [None] * len(given) if times_ms is None else list(times_ms)
            return self._many_followed(given, list(followers), times)
        if self._follower is not None:
            raise InputError(
                "many takes frames of several cameras or pictures, and the estimator's tracker follows one video; "
                "give followers, one a frame: a follower() of the estimator for each camera"
            )
        return super().many(frames, boxes, box_scores=box_scores)

    def reset_tracks(self) -> None:
        """Forget the persons of the frames so far, as before another video. Nothing happens without a tracker."""
        self._check_not_finding()
        with self._tracking:
            if self._follower is not None:
                self._follower.reset()

    def _in_flight(self) -> int:
        """One where frames depend on each other."""
        return 1 if self._follower is not None else super()._in_flight()

    def _call(self, frame: object, boxes: object, box_scores: object, time_ms: float | None = None) -> Poses:
        if self._follower is None:
            return super()._call(frame, boxes, box_scores)
        self._check_not_finding()
        if time_ms is not None:
            from sdk.people.following import check_time

            check_time(time_ms)
        with self._tracking:
            self._looked = True
            poses = super()._call(frame, boxes, box_scores)
            return self._follower.follow(poses, detected=self._looked, time_ms=time_ms)

    def _many_followed(
        self, given: list[Entry], followers: list[Follower], times_ms: list[float | None]
    ) -> list[Poses]:
        if len(times_ms) != len(given):
            raise InputError(f"times_ms must hold an entry for each of the {len(given)} frames (got {len(times_ms)})")
        if len({id(each) for each in followers}) != len(given) or len(followers) != len(given):
            raise InputError(
                f"followers must hold one for each of the {len(given)} frames, each of another video "
                f"(got {len(followers)}); make them with the estimator's follower()"
            )
        from sdk.people.following import check_time

        for time_ms in times_ms:
            check_time(time_ms)
        self._check_open()
        looked = [True] * len(given)

        def find_all(frames: dict[int, Any], timings: Timings) -> dict[int, Found]:
            found = {}
            for index, frame in frames.items():
                followed = self._followed(followers[index], frame)
                if followed is not None:
                    found[index], looked[index] = followed, False
            unknown = {index: frame for index, frame in frames.items() if index not in found}
            for index, seen in self._looked_for(unknown, timings).items():
                found[index] = followers[index].chosen(*seen) if self._detects else seen
            return found

        with in_flight:
            together = self._estimate_many(given, find_all)
        return [
            follower.follow(poses, detected=new, time_ms=time_ms)
            for follower, poses, new, time_ms in zip(followers, together, looked, times_ms, strict=True)
        ]

    def _find(self, frame: Any, timings: Timings) -> Found:
        """Who is in a frame that came without boxes, as of `BoxEstimator`; where the pipeline has no finder."""
        followed = self._followed(self._follower, frame)
        self._looked = followed is None
        if followed is not None:
            return followed
        if not self._detects:
            return super()._find(frame, timings)
        start = perf_counter()
        found = self._detected(frame)
        timings["detect"] = 1e3 * (perf_counter() - start)
        if self._follower is not None:
            return self._follower.chosen(*found)
        from sdk.people.following import most_persons

        return most_persons(*found, self._max_persons)

    def _find_all(self, frames: dict[int, Any], timings: Timings) -> dict[int, Found]:
        seen = self._looked_for(frames, timings)
        if not self._detects:
            return seen
        from sdk.people.following import most_persons

        return {index: most_persons(*each, self._max_persons) for index, each in seen.items()}

    def _looked_for(self, frames: dict[int, Any], timings: Timings) -> dict[int, Found]:
        """Whom the detector sees in each of several frames; the whole of each where there is no detector."""
        if not self._detects:
            return super()._find_all(frames, timings)
        start = perf_counter()
        found: dict[int, Found] = {}
        if self._pipeline.finder is not None:
            found = {index: (seen.boxes, seen.scores) for index, seen in self._pipeline.finder.find_in(frames).items()}
        else:
            for index, frame in frames.items():
                with of_frame(index):
                    found[index] = self._detected(frame)
        if found:
            timings["detect"] = 1e3 * (perf_counter() - start)
        return found

    def _followed(self, follower: Follower | None, frame: Any) -> Found | None:
        return None if follower is None else follower.next_boxes(size_hw_of(frame, self._pixel_format))

    @property
    def _detects(self) -> bool:
        return self._detector is not None or self._pipeline.finder is not None

    def _find_and_estimate(self, frame: Any, timings: Timings) -> tuple[Float32Array, Float32Array, Float32Array]:
        """As of `BoxEstimator`; where the pipeline finds persons itself, their boxes need no way over the host."""
        finder = self._pipeline.finder
        if finder is None:
            return super()._find_and_estimate(frame, timings)
        followed = self._followed(self._follower, frame)
        self._looked = followed is None
        if followed is not None:
            return *self._persons_in(frame, followed[0], timings), followed[1]
        found = finder.find(frame, self._expected, flip=self._flip_test)
        timings.update(found.timings)
        boxes, scores, rows = self._chosen_rows(found.boxes, found.scores)
        self._expected = max(len(rows), self._expected - 1)  # who is missed once is there again, as a rule
        there = 0 if found.persons is None else int(rows.searchsorted(len(found.persons)))
        persons = None if found.persons is None else found.persons.take(rows[:there], axis=0)
        if persons is None or there < len(rows):  # more than were expected, or not whom the detector is surest of
            from sdk.runtime.pipeline import add_timings

            more, _, spent = self._pipeline.estimate([frame], boxes[there:], flip=self._flip_test)
            add_timings(timings, spent)
            persons = more if persons is None else np.concatenate([persons, more])
        return persons, boxes, scores

    def _chosen_rows(
        self, boxes: Float32Array, scores: Float32Array
    ) -> tuple[Float32Array, Float32Array, NDArray[np.intp]]:
        """Of the persons whom the pipeline's detector found, best first, those who count; as of the follower."""
        if self._follower is not None:
            return self._follower.chosen_rows(boxes, scores)
        boxes, scores = boxes[: self._max_persons], scores[: self._max_persons]
        return boxes, scores, np.arange(len(boxes))

    def _detected(self, frame: Any) -> Found:
        """What a detector that is no part of the pipeline finds, checked."""
        assert self._detector is not None
        if not isinstance(frame, np.ndarray):
            raise InputError(
                "a detector on the CPU needs the frame in host memory; give boxes with a frame in device memory, or a "
                "detector's engine with a plan for this GPU"
            )
        self._finding.now = True
        try:
            found = self._detector(bgr_from_frame(frame, self._pixel_format))
        finally:
            self._finding.now = False
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise InputError(
                f"detector must give a pair, boxes N x 4 xyxy and scores N (it gave {type(found).__name__})"
            )
        try:
            return check_found(*found)
        except InputError as error:
            raise InputError(f"what the detector gave cannot be used: {error}") from error

    def _check_not_finding(self) -> None:
        if self._finding.now:
            raise InputError(
                "a detector must not call the estimator that it finds persons for: each would wait for the other; make "
                "a second PoseEstimator for it"
            )


def _engine_of(detector: object) -> DetectorEngine | None:
    """The detector's engine, opened, where it is one."""
    if detector is None or callable(detector):
        return None
    from sdk.people.detector import detector_engine

    return detector_engine(detector)


def _opened(detector: DetectorEngine | str | Path | DetectorLike | None, threads: int | None) -> DetectorLike | None:
    """A detector that can be called, of what `PoseEstimator` takes."""
    if detector is None or callable(detector):
        return detector
    from sdk.people.detector import Detector

    return Detector(detector, threads=threads)


def _check_detector(detector: object) -> None:
    from sdk.manifest import DetectorEngine

    if not (detector is None or isinstance(detector, (str, Path, DetectorEngine)) or callable(detector)):
        raise InputError(
            "detector must be a person detector's engine, name or ONNX file, or a callable frame -> (boxes N x 4 xyxy, "
            f"scores N) (got {detector!r})"
        )

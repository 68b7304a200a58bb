"""`Follower`: what is known of one video between its frames: who is in it, and when the detector looks again.

One a video, made once: `PoseEstimator` has one, several cameras have one each. It sees boxes and poses, never pixels,
and runs no network. One thread at a time, frames in their order.

    follower = Follower(score_scale, Tracker(), detects=True, detect_every="auto")
    found = follower.next_boxes(size_hw)              # None: the detector's turn
    boxes, scores = follower.chosen(*detect(frame)) if found is None else found
    poses = follower.follow(estimate(frame, boxes, box_scores=scores), detected=found is None)

Between detections everybody stays whom the detector found, but who has left by `sdk.people.presence`'s rule, and the
worse of two rows that came to lie on one person.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sdk import _native
from sdk.errors import InputError
from sdk.numeric import is_finite, is_whole
from sdk.people.other_trackers import NAMES, AnyTracker
from sdk.people.presence import Presence, moved_boxes
from sdk.people.smoothing import Smoother, Smoothing
from sdk.people.tracking import box_iou, same_rows
from sdk.poses import Poses, ScoreScale

__all__ = ["DetectEvery", "Follower", "check_following", "check_time", "most_persons"]

Float32Array = NDArray[np.float32]
Bools = NDArray[np.bool_]
Found = tuple[Float32Array, Float32Array]  # boxes N x 4 xyxy, scores N
DetectEvery = int | Literal["auto"]

FOLLOWED = 0.98  # of a box's score is left in each frame without detection: about half of it after 30 frames
STILL_THERE = 0.3  # IoU of a detector's box with where a followed person was last, for the two to be one
ONE_PERSON = 0.8  # IoU of two persons' boxes, from there on the worse scored is let go
MISSES = 1  # detections in a row that may miss a person who was followed well
# "auto": at 30 frames a second somebody new is found within half a second, into an empty scene within a sixth
CEILING, IDLE, SOONEST = 15, 5, 5


@dataclass
class _Last:
    """The persons of the last frame, row by row, and what they were in the one before it."""

    poses: Poses
    presence: Presence
    before: tuple[Float32Array, Float32Array] | None  # keypoints N x K x 2, scores N x K; None after a detection


@dataclass
class _Handed:
    """Those of the last frame who are followed into the next: their rows there, and where they should be."""

    rows: NDArray[np.intp]  # M
    boxes: Float32Array  # M x 4 xyxy
    scores: Float32Array  # M
    presence: Presence  # M


def _nobody() -> _Handed:
    none = np.zeros(0, np.float32)
    return _Handed(np.zeros(0, np.intp), np.zeros((0, 4), np.float32), none, Presence.of_found(none))


NOBODY = _nobody()


class Follower:
    """Persons of one video.

    `detects`: there is a detector, which looks in every `detect_every`-th frame, and at once when somebody is lost or
    runs out of the frame; with 'auto' when somebody gets worse too, after 15 frames at the latest, and after 5 where
    nobody is. `max_persons`: of the detector's. `smoothing`: of the joints that come out; what is followed is as found.
    """

    def __init__(
        self,
        scale: ScoreScale,
        tracker: AnyTracker,
        *,
        detects: bool,
        detect_every: DetectEvery = 1,
        max_persons: int | None = None,
        smoothing: Smoothing | None = None,
    ) -> None:
        self._scale = scale
        self._tracker = tracker
        self._detects = detects
        self._every = detect_every
        self._always = detects and detect_every == 1  # then nobody is asked whether he is still there
        self._max_persons = max_persons
        self._smoother = None if smoothing is None else Smoother(smoothing, scale.fair)
        self.reset()

    def reset(self) -> None:
        """Forget everybody, as before another video."""
        self._tracker.reset()
        if self._smoother is not None:
            self._smoother.reset()
        self._since = 0  # frames followed since a detection
        self._last: _Last | None = None
        self._size_hw: tuple[int, int] | None = None
        self._handed: _Handed = NOBODY
        self._carried: Bools | None = None  # of the rows that `chosen` gave, those that the detector missed

    def next_boxes(self, size_hw: tuple[int, int]) -> Found | None:
        """The boxes and scores of those who are followed into the next frame; None where somebody must look.

        No boxes where nobody is there and it is not the detector's turn.
        """
        self._size_hw = size_hw
        self._handed, lost = NOBODY, False
        if self._always:
            return None
        if self._last is not None and len(self._last.poses):
            self._handed, lost = self._handed_on(self._last, size_hw)
        nobody = not len(self._handed.rows)
        if self._last is None or (self._must_detect(lost) if self._detects else nobody):
            return None
        return self._handed.boxes, self._handed.scores * np.float32(FOLLOWED if self._detects else 1)

    def chosen(self, boxes: Float32Array, scores: Float32Array) -> Found:
        """Who is in a frame that the detector looked at: those it found (N x 4 xyxy), those whom it missed once though
        they were followed well, and of all these the `max_persons`: those of the last frame, then the surest."""
        boxes, scores, _ = self.chosen_rows(boxes, scores)
        return boxes, scores

    def chosen_rows(
        self, boxes: Float32Array, scores: Float32Array
    ) -> tuple[Float32Array, Float32Array, NDArray[np.intp]]:
        """The same, and the rows of those in what the detector found, ascending; whom it missed are beyond its last."""
        handed, found = self._handed, len(boxes)
        if len(handed.rows):
            met = box_iou(handed.boxes, boxes).max(axis=1, initial=0) >= STILL_THERE
            here = handed.presence
            missed = ~met & here.known & ~here.worse & (here.missed < MISSES)
            boxes = np.concatenate([boxes, handed.boxes[missed]])
            scores = np.concatenate([scores, handed.scores[missed] * np.float32(FOLLOWED)])
        before = NOBODY.boxes if self._last is None else self._last.poses.boxes
        rows = _most_rows(boxes, scores, self._max_persons, before)
        if not self._always:
            self._carried = rows >= found
        return boxes.take(rows, axis=0), scores.take(rows), rows

    def follow(self, poses: Poses, *, detected: bool, time_ms: float | None = None) -> Poses:
        """The poses of a frame with ids, and smoothed where that is asked for.

        `detected`: their boxes are the detector's or the caller's, not our own. `time_ms`: of the frame, where known.
        """
        start = perf_counter()
        ids = self._tracker.update(
            poses.boxes,
            poses.keypoints,
            poses.scores,
            poses.skeleton.tolerances,
            self._scale.fair,
            poses.box_scores,
        )
        timings = dict(poses.timings_ms)
        followed = poses.but(track_ids=ids, timings_ms=timings)
        self._take_in(followed, detected)
        if self._smoother is not None:
            told = poses.boxes, poses.keypoints, poses.scores, time_ms, poses.spread
            followed = followed.but(keypoints=self._smoother.smoothed(ids, *told))
        timings["track"] = spent = 1e3 * (perf_counter() - start)
        timings["total"] = float(timings["total"]) + spent
        return followed

    def _take_in(self, poses: Poses, detected: bool) -> None:
        """What a frame says of its persons."""
        if self._always:
            self._last = _Last(poses, NOBODY.presence, None)
            return
        last, handed = self._last, self._handed
        before = None
        if detected or last is None:
            self._since = 0
            presence = self._recognised(poses)
        else:
            self._since += 1
            presence = handed.presence
            before = last.poses.keypoints[handed.rows], last.poses.scores[handed.rows]
        presence.saw(poses.boxes, poses.keypoints, poses.scores, self._scale.fair, self._size_hw)
        self._last, self._carried = _Last(poses, presence, before), None

    def _recognised(self, poses: Poses) -> Presence:
        """What is known of the persons of a detection: by their ids, of those who were there in the last frame."""
        presence = Presence.of_found(poses.box_scores)
        carried = self._carried
        known = None if self._last is None else self._last.poses.track_ids
        if self._last is None or known is None or poses.track_ids is None or not len(poses):
            return presence
        rows, olds = same_rows(poses.track_ids, known)
        if len(rows):
            told = self._last.presence.rows(olds)
            missed = np.zeros(len(rows), bool) if carried is None else carried[rows]
            told.found_again(poses.box_scores[rows], missed)
            presence.put(rows, told)
        return presence

    def _handed_on(self, last: _Last, size_hw: tuple[int, int]) -> tuple[_Handed, bool]:
        """Those who are followed into the next frame, and whether somebody who was known is not."""
        fair, poses = self._scale.fair, last.poses
        boxes = moved_boxes(poses.boxes, poses.keypoints, poses.scores, last.before, fair)
        height, width = size_hw
        low, high = boxes[:, :2], boxes[:, 2:]
        usable = (high > low) & (high > 0)
        usable &= low < np.array((width, height), np.float32)
        there = np.flatnonzero(last.presence.stays & usable[:, 0] & usable[:, 1])
        best = there[np.argsort(-poses.scores[there].mean(axis=1), kind="stable")]
        rows = best[_without_doubles(boxes[best])]
        gone = last.presence.known.copy()
        gone[rows] = False
        lost = bool(gone.any())
        return _Handed(rows, boxes[rows], poses.box_scores[rows], last.presence.rows(rows)), lost

    def _must_detect(self, lost: bool) -> bool:
        """Whether the next frame is the detector's."""
        if lost or self._handed.presence.running_out.any():
            return True
        ceiling = CEILING if self._every == "auto" else self._every
        if not len(self._handed.rows):
            ceiling = min(ceiling, IDLE)
        elif self._every == "auto" and self._handed.presence.worse.any():
            ceiling = SOONEST
        return self._since + 1 >= ceiling


def check_time(time_ms: object) -> None:
    """InputError for a frame's time that is none; asked before its network runs."""
    if time_ms is not None and not is_finite(time_ms):
        raise InputError(f"time_ms must be a number of milliseconds, or None where it is not known (got {time_ms!r})")


def most_persons(
    boxes: Float32Array,  # N x 4 xyxy
    scores: Float32Array,  # N
    most: int | None,
) -> Found:
    """At most `most` persons: those of the highest scores, in their order."""
    rows = _most_rows(boxes, scores, most, np.zeros((0, 4), np.float32))
    return boxes[rows], scores[rows]


def _most_rows(boxes: Float32Array, scores: Float32Array, most: int | None, before: Float32Array) -> NDArray[np.intp]:
    """The rows of at most `most` persons, in their order: those who lie on one of `before` first, then by score."""
    if most is None or len(boxes) <= most:
        return np.arange(len(boxes))
    rows = np.empty(most, np.intp)
    _native.most_rows(rows, boxes, scores, before, STILL_THERE)
    return rows


def check_following(tracker: object, detect_every: object, max_persons: object, smooth: object = False) -> None:
    """InputError for options that go with no video."""
    named = isinstance(tracker, (bool, type(None))) or tracker in NAMES
    if not named and (isinstance(tracker, (str, type)) or not isinstance(tracker, AnyTracker)):
        names = " or ".join(map(repr, NAMES))
        raise InputError(f"tracker must be True, or a Tracker, or None, or {names} (got {tracker!r})")
    whole = is_whole(detect_every, 1)
    if not (whole or detect_every == "auto") or (detect_every != 1 and not tracker):
        raise InputError(
            "detect_every must be a whole number of at least 1, or 'auto', and needs a tracker above 1 "
            f"(got {detect_every!r})"
        )
    if max_persons is not None and not is_whole(max_persons, 1):
        raise InputError(f"max_persons must be a whole number of at least 1, or None for all (got {max_persons!r})")
    if not isinstance(smooth, (bool, Smoothing)) or (smooth and not tracker):
        raise InputError(f"smooth must be True, or a Smoothing, or False, and needs a tracker (got {smooth!r})")


def _without_doubles(boxes: Float32Array) -> Bools:  # M x 4, best first -> M
    keep = np.ones(len(boxes), bool)
    if len(boxes) < 2:
        return keep
    double = box_iou(boxes, boxes) >= ONE_PERSON
    double.flat[:: len(boxes) + 1] = False  # of each with himself
    if double.any():
        for row in range(len(boxes)):
            if keep[row]:
                keep[row + 1 :] &= ~double[row, row + 1 :]
    return keep

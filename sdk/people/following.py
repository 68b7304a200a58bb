"""`Follower`: what is known of one video between its frames: who is in it, and when the detector looks again.

One a video, made once: `PoseEstimator` has one, several cameras have one each. It sees boxes and poses, never pixels,
and runs no network. One thread at a time, frames in their order.

    follower = Follower(estimate.score_scale, Tracker(), detects=True, detect_every=5)
    found = follower.next_boxes(size_hw)              # None: the detector's turn
    poses = follower.follow(estimate(frame, *(found or detect(frame))), detected=found is None)
"""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.people.tracking import Tracker, box_iou
from sdk.poses import Poses, ScoreScale

__all__ = ["Follower", "check_following", "most_persons"]

Float32Array = NDArray[np.float32]
Found = tuple[Float32Array, Float32Array]  # boxes N x 4 xyxy, scores N

FOLLOWED = 0.98  # of a box's score is left in each frame without detection: about half of it after 30 frames
STILL_THERE = 0.3  # IoU of a detector's box with where a followed person was last, for the two to be one


class Follower:
    """Persons of one video. `detects`: there is a detector, which looks in every `detect_every`-th frame."""

    def __init__(
        self,
        scale: ScoreScale,
        tracker: Tracker,
        *,
        detects: bool,
        detect_every: int = 1,
        max_persons: int | None = None,
    ) -> None:
        self._scale = scale
        self._tracker = tracker
        self._detects = detects
        self._detect_every = detect_every
        self._max_persons = max_persons
        self._since: int | None = None  # frames followed since a detection; None: there was none

    def next_boxes(self, size_hw: tuple[int, int]) -> Found | None:
        """The boxes and scores of those who are followed into the next frame; None where somebody must look."""
        if self._detects and (self._since is None or self._since + 1 >= self._detect_every):
            return None
        boxes, scores = self._tracker.next_boxes(self._scale.fair, size_hw)
        return (boxes, scores * np.float32(FOLLOWED if self._detects else 1)) if len(boxes) else None

    def chosen(self, boxes: Float32Array, scores: Float32Array) -> Found:
        """Of the detector's boxes (N x 4 xyxy) `max_persons`: those of persons who are followed, then the surest."""
        return most_persons(boxes, scores, self._max_persons, self._tracker.last_boxes())

    def follow(self, poses: Poses, *, detected: bool) -> Poses:
        """The poses of a frame with ids. `detected`: their boxes are the detector's or the caller's, not our own."""
        start = perf_counter()
        self._since = 0 if detected or self._since is None else self._since + 1
        ids = self._tracker.update(
            poses.boxes, poses.keypoints, poses.scores, poses.skeleton.tolerances, self._scale.fair, poses.box_scores
        )
        spent = 1e3 * (perf_counter() - start)
        total = float(poses.timings_ms["total"]) + spent
        return replace(poses, track_ids=ids, timings_ms={**poses.timings_ms, "track": spent, "total": total})

    def reset(self) -> None:
        """Forget everybody, as before another video."""
        self._since = None
        self._tracker.reset()


def most_persons(
    boxes: Float32Array,  # N x 4 xyxy
    scores: Float32Array,  # N
    most: int | None,
    followed: Float32Array | None = None,  # M x 4, where those who were followed last are
) -> Found:
    """At most `most` persons: those who lie on one followed first, then by score; rows keep their order."""
    if most is None or len(boxes) <= most:
        return boxes, scores
    known = np.zeros(len(boxes), bool)
    if followed is not None:
        known = box_iou(boxes, followed).max(axis=1, initial=0) >= STILL_THERE
    rows = np.sort(np.lexsort((-scores, ~known))[:most])
    return boxes[rows], scores[rows]


def check_following(tracker: object, detect_every: object, max_persons: object) -> None:
    """InputError for options that go with no video."""
    if not isinstance(tracker, (bool, Tracker, type(None))):
        raise InputError(f"tracker must be True, or a Tracker, or None (got {tracker!r})")
    if detect_every != 1 and (type(detect_every) is not int or detect_every < 1 or not tracker):
        raise InputError(
            f"detect_every must be a whole number of at least 1, and needs a tracker above 1 (got {detect_every!r})"
        )
    if max_persons is not None and (type(max_persons) is not int or max_persons < 1):
        raise InputError(f"max_persons must be a whole number of at least 1, or None for all (got {max_persons!r})")

"""Identities over frames. No detector, no looks of persons; where they will be next is `sdk.people.following`'s.

Persons of a new frame are matched to known tracks greedily, the most alike pair first. Likeness is the mean of the IoU
of the boxes and the OKS of the joints, so that neither a lost limb nor a jumping box alone breaks a track; it is taken
to where a person was and to where the motion seen so far would have brought it, and the greater counts. So persons who
cross or are hidden for a while keep their ids, those who stop meanwhile too. Ids are an array aligned with the rows of
the frame; they are never used as an index.

    tracker = Tracker()
    ids = tracker.update(boxes_xyxy, keypoints, scores, sigmas, fair=0.3)          # N int64, unique in the frame
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sdk.errors import InputError
from sdk.oks import AREA_SHARE, joint_similarity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32Array = NDArray[np.float32]

__all__ = ["Tracker", "box_iou", "keypoint_oks", "same_rows"]


@dataclass
class _Track:
    id: int
    box: Float32Array  # 4
    keypoints: Float32Array  # K x 2
    scores: Float32Array  # K
    step: Float32Array  # 2, the motion of the box's middle, pixels a frame
    missed: int = 0

    def seen(self, box: Float32Array, keypoints: Float32Array, scores: Float32Array) -> None:
        """Take in the person of the new frame."""
        moved = (box - self.box) / np.float32(self.missed + 1)
        self.step += ((moved[:2] + moved[2:]) / 2 - self.step) / 2
        self.box, self.keypoints, self.scores = box, keypoints, scores
        self.missed = -1  # 0 after the frame's ageing

    @property
    def moved(self) -> Float32Array:  # 2
        """How far the motion would have brought the person by the new frame, pixels."""
        return self.step * np.float32(self.missed + 1)


class Tracker:
    """Keeps tracks of one video. `patience`: frames a person may be missing before the id is given up."""

    def __init__(self, *, min_likeness: float = 0.2, patience: int = 30) -> None:
        if not 0 < min_likeness <= 1 or patience < 0:
            raise InputError(
                f"tracker: min_likeness must be in (0, 1] and patience not negative (got {min_likeness}, {patience})"
            )
        self.min_likeness = min_likeness
        self.patience = patience
        self._tracks: list[_Track] = []
        self._next_id = 1

    def update(
        self,
        boxes_xyxy: Float32Array,  # N x 4
        keypoints: Float32Array,  # N x K x 2
        scores: Float32Array,  # N x K
        sigmas: tuple[float, ...],  # K
        fair: float,
        box_scores: Float32Array | None = None,  # N; of no account here: other trackers go by them
    ) -> NDArray[np.int64]:
        """The ids of the persons, row by row; new persons get new ids, in the order of their rows."""
        boxes_xyxy, keypoints, scores = boxes_xyxy.copy(), keypoints.copy(), scores.copy()  # the tracks keep these rows
        ids = np.zeros(len(boxes_xyxy), np.int64)
        for row, track in self._pairs(boxes_xyxy, keypoints, scores, np.asarray(sigmas), fair):
            ids[row] = track.id
            track.seen(boxes_xyxy[row], keypoints[row], scores[row])
        for row in np.flatnonzero(ids == 0).tolist():
            ids[row] = self._next_id
            self._tracks.append(
                _Track(
                    self._next_id,
                    boxes_xyxy[row],
                    keypoints[row],
                    scores[row],
                    step=np.zeros(2, np.float32),
                    missed=-1,
                )
            )
            self._next_id += 1
        for track in self._tracks:
            track.missed += 1
        self._tracks = [track for track in self._tracks if track.missed <= self.patience]
        return ids

    def reset(self) -> None:
        """Forget all tracks, as at the start of another video; ids count from 1 again."""
        self._tracks = []
        self._next_id = 1

    def _pairs(
        self,
        boxes: Float32Array,  # N x 4
        keypoints: Float32Array,  # N x K x 2
        scores: Float32Array,  # N x K
        sigmas: NDArray[np.float64],  # K
        fair: float,
    ) -> list[tuple[int, _Track]]:
        if not len(boxes) or not self._tracks:
            return []
        known = self._tracks
        twice = [*known, *known]  # where each was, and where its motion would have brought it
        by = np.concatenate([np.zeros((len(known), 2), np.float32), [track.moved for track in known]])  # 2M x 2
        last = np.stack([track.box for track in twice])
        joints = np.stack([track.keypoints for track in twice]) + by[:, None]
        trusted = np.stack([track.scores for track in twice]) >= fair
        iou = box_iou(boxes, last + np.tile(by, 2))
        areas = np.prod(last[:, 2:] - last[:, :2], axis=1)
        oks = keypoint_oks(keypoints, joints, trusted[None] & (scores >= fair)[:, None], areas, sigmas)
        likeness = ((iou + oks) / 2).reshape(len(boxes), 2, len(known)).max(axis=1)
        order = np.argsort(-likeness, axis=None, kind="stable")
        pairs: dict[int, _Track] = {}
        taken: set[int] = set()
        for row, column in zip(*np.unravel_index(order, likeness.shape), strict=True):
            if likeness[row, column] < self.min_likeness:
                break
            if int(row) not in pairs and int(column) not in taken:
                pairs[int(row)] = known[int(column)]
                taken.add(int(column))
        return list(pairs.items())


def same_rows(
    ids: NDArray[np.int64],  # N, of a frame
    before: NDArray[np.int64],  # M, of an earlier one
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows whose person was there before, and that person's rows then; ids that are not positive are nobody's."""
    rows, olds = np.nonzero((ids[:, None] == before[None]) & (ids > 0)[:, None])
    return rows, olds


def box_iou(first: Float32Array, second: Float32Array) -> Float32Array:  # N x 4, M x 4, xyxy
    """N x M: intersection over union."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    overlap: Float32Array = np.divide(common, union, out=np.zeros_like(common), where=union > 0).astype(np.float32)
    return overlap


def keypoint_oks(
    first: Float32Array,  # N x K x 2
    second: Float32Array,  # M x K x 2
    counted: NDArray[np.bool_],  # N x M x K
    areas: Float32Array,  # M, of the second's boxes, square pixels
    sigmas: NDArray[np.float64],  # K
) -> Float32Array:
    """N x M: object keypoint similarity over the counted joints; 0 where none counts."""
    areas_px2 = np.maximum(AREA_SHARE * areas.astype(np.float64), 1.0)
    joints = joint_similarity(first[:, None], second[None], areas_px2, sigmas) * counted
    oks: Float32Array = (joints.sum(axis=2) / np.maximum(counted.sum(axis=2), 1)).astype(np.float32)
    return oks

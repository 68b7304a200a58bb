"""Identities over frames. No detector, no looks of persons; where they will be next is `sdk.people.following`'s.

Persons of a new frame are matched to known tracks greedily, the most alike pair first. Likeness is the mean of the IoU
of the boxes and the OKS of the joints, so that neither a lost limb nor a jumping box alone breaks a track; it is taken
to where a person was and to where the motion seen so far would have brought it, and the greater counts. So persons who
cross or are hidden for a while keep their ids, those who stop meanwhile too. Ids are an array aligned with the rows of
the frame; they are never used as an index. A joint's spread has no say: it was tried (`benchmarks/identities.py`), and
changed nothing.

    tracker = Tracker()
    ids = tracker.update(boxes_xyxy, keypoints, scores, sigmas, fair=0.3)          # N int64, unique in the frame
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from sdk.detection import is_whole
from sdk.errors import InputError
from sdk.oks import AREA_SHARE, joint_similarity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32Array = NDArray[np.float32]

__all__ = ["Tracker", "box_iou", "keypoint_oks", "same_rows"]


@dataclass
class _Tracks:
    """Those who are known, row by row, in the order in which they came."""

    ids: NDArray[np.int64]  # M
    boxes: Float32Array  # M x 4
    keypoints: Float32Array  # M x K x 2
    scores: Float32Array  # M x K
    steps: Float32Array  # M x 2, the motion of the boxes' middles, pixels a frame
    missed: NDArray[np.int64]  # M, frames in a row without them

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def moved(self) -> Float32Array:  # M x 2
        """How far their motion would have brought them by the new frame, pixels."""
        moved: Float32Array = self.steps * (self.missed[:, None] + 1).astype(np.float32)
        return moved

    def see(self, rows: list[int], boxes: Float32Array, keypoints: Float32Array, scores: Float32Array) -> None:
        """Take in persons of the new frame, in these rows."""
        moved = (boxes - self.boxes[rows]) / (self.missed[rows, None] + 1).astype(np.float32)
        steps = self.steps[rows]
        self.steps[rows] = steps + ((moved[:, :2] + moved[:, 2:]) / 2 - steps) / 2
        self.boxes[rows], self.keypoints[rows], self.scores[rows] = boxes, keypoints, scores
        self.missed[rows] = -1  # 0 after the frame's ageing

    def add(self, ids: NDArray[np.int64], boxes: Float32Array, keypoints: Float32Array, scores: Float32Array) -> None:
        """Take in new persons."""
        self.ids = np.concatenate((self.ids, ids))
        self.boxes = np.concatenate((self.boxes, boxes))
        self.keypoints = np.concatenate((self.keypoints, keypoints))
        self.scores = np.concatenate((self.scores, scores))
        self.steps = np.concatenate((self.steps, np.zeros((len(ids), 2), np.float32)))
        self.missed = np.concatenate((self.missed, np.full(len(ids), -1)))

    def age(self, patience: int) -> None:
        """A frame has passed; who was missed for more than `patience` frames is forgotten."""
        self.missed += 1
        kept = self.missed <= patience
        if not kept.all():
            for each in fields(self):
                setattr(self, each.name, getattr(self, each.name)[kept])


class Tracker:
    """Keeps tracks of one video. `patience`: frames a person may be missing before the id is given up."""

    def __init__(self, *, min_likeness: float = 0.2, patience: int = 30) -> None:
        likely = isinstance(min_likeness, Real) and 0 < min_likeness <= 1
        if not likely or not is_whole(patience, 0):
            raise InputError(
                "tracker: min_likeness must be in (0, 1] and patience a whole number, not negative "
                f"(got {min_likeness!r}, {patience!r})"
            )
        self.min_likeness = min_likeness
        self.patience = patience
        self._tracks: _Tracks | None = None
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
        count = len(boxes_xyxy)
        if self._tracks is None:
            shape = keypoints.shape[1:]
            self._tracks = _Tracks(
                np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros((0, *shape), np.float32),
                np.zeros((0, shape[0]), np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.int64),
            )  # fmt: skip
        tracks, ids = self._tracks, np.zeros(count, np.int64)
        if count and len(tracks):
            rows, known = self._pairs(boxes_xyxy, keypoints, scores, np.asarray(sigmas), fair)
            if rows:
                ids[rows] = tracks.ids[known]
                tracks.see(known, boxes_xyxy[rows], keypoints[rows], scores[rows])
        new = np.flatnonzero(ids == 0)
        if len(new):
            ids[new] = np.arange(self._next_id, self._next_id + len(new))
            self._next_id += len(new)
            tracks.add(ids[new], boxes_xyxy[new], keypoints[new], scores[new])
        tracks.age(self.patience)
        return ids

    def reset(self) -> None:
        """Forget all tracks, as at the start of another video; ids count from 1 again."""
        self._tracks = None
        self._next_id = 1

    def _pairs(
        self,
        boxes: Float32Array,  # N x 4
        keypoints: Float32Array,  # N x K x 2
        scores: Float32Array,  # N x K
        sigmas: NDArray[np.float64],  # K
        fair: float,
    ) -> tuple[list[int], list[int]]:
        """The persons of the frame who are known, and the tracks that they are, by their rows."""
        tracks = self._tracks
        assert tracks is not None, "there are tracks to pair"
        moved, there = tracks.moved, tracks.boxes.reshape(-1, 2, 2)
        corners = there[:, 1] - there[:, 0]
        areas = corners[:, 0] * corners[:, 1]
        # where each was, and where its motion would have brought it
        iou = box_iou(boxes, np.concatenate((there, there + moved[:, None])).reshape(-1, 4))
        joints = np.concatenate((tracks.keypoints, tracks.keypoints + moved[:, None]))
        counted = (scores >= fair)[:, None] & (tracks.scores >= fair)
        oks = keypoint_oks(
            keypoints, joints, np.concatenate((counted, counted), axis=1), np.concatenate((areas, areas)), sigmas
        )
        twice = ((iou + oks) / 2).reshape(len(boxes), 2, len(tracks))
        likeness = np.maximum(twice[:, 0], twice[:, 1]).ravel()
        order = np.argsort(-likeness, kind="stable")
        rows: list[int] = []
        known: list[int] = []
        for place, alike in zip(order.tolist(), likeness[order].tolist(), strict=True):
            if alike < self.min_likeness:
                break
            row, column = divmod(place, len(tracks))
            if row not in rows and column not in known:
                rows.append(row)
                known.append(column)
        return rows, known


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
    common = _area(high - low)
    union = _area(first[:, 2:] - first[:, :2])[:, None] + _area(second[:, 2:] - second[:, :2]) - common
    overlap: Float32Array = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return overlap.astype(np.float32, copy=False)


def _area(sides: Float32Array) -> Float32Array:  # ... x 2 -> ...
    """Of rectangles; a side below 0 is none."""
    sides = np.maximum(sides, 0)
    area: Float32Array = sides[..., 0] * sides[..., 1]
    return area


def keypoint_oks(
    first: Float32Array,  # N x K x 2
    second: Float32Array,  # M x K x 2
    counted: NDArray[np.bool_],  # N x M x K
    areas: Float32Array,  # M, of the second's boxes, square pixels
    sigmas: NDArray[np.float64],  # K
) -> Float32Array:
    """N x M: object keypoint similarity over the counted joints; 0 where none counts."""
    areas_px2 = np.maximum(AREA_SHARE * areas.astype(np.float64), 1.0)
    joints = joint_similarity(first[:, None], second[None], areas_px2, sigmas)
    joints *= counted
    oks: Float32Array = (joints.sum(axis=2) / np.maximum(counted.sum(axis=2), 1)).astype(np.float32)
    return oks

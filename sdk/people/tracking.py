"""Identities over frames. No detector, no looks of persons; where they will be next is `sdk.people.following`'s.

Persons of a new frame are matched to known tracks greedily, the most alike pair first. Likeness is the mean of the IoU
of the boxes and the OKS of the joints, so that neither a lost limb nor a jumping box alone breaks a track; it is taken
to where a person was and to where the motion seen so far would have brought it, and the greater counts. So persons who
cross or are hidden for a while keep their ids, those who stop meanwhile too. Ids are an array aligned with the rows of
the frame; they are never used as an index. A joint's spread has no say: it was tried (`benchmarks/identities.py`), and
changed nothing. What is computed is defined in `cpp_ext/host/persons.h`.

    tracker = Tracker()
    ids = tracker.update(boxes_xyxy, keypoints, scores, sigmas, fair=0.3)          # N int64, unique in the frame
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from sdk import _native
from sdk.errors import InputError
from sdk.numeric import is_number, is_whole
from sdk.oks import AREA_SHARE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Float32Array = NDArray[np.float32]
    PersonRows = tuple[Float32Array, Float32Array, Float32Array]  # boxes N x 4, keypoints N x K x 2, scores N x K

__all__ = ["Tracker", "box_iou", "same_rows"]


@dataclass
class _Tracks:
    """Those who are known, row by row, in the order in which they came."""

    ids: NDArray[np.int64]  # M
    boxes: Float32Array  # M x 4
    keypoints: Float32Array  # M x K x 2
    scores: Float32Array  # M x K
    steps: Float32Array  # M x 2, the motion of the boxes' middles, pixels a frame
    missed: NDArray[np.int64]  # M, frames in a row without them

    @classmethod
    def of_new(cls, ids: NDArray[np.int64], persons: PersonRows) -> _Tracks:
        """Persons who were not known before."""
        return cls(ids, *persons, np.zeros((len(ids), 2), np.float32), np.zeros(len(ids), np.int64))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def rows(self) -> tuple[Float32Array, Float32Array, Float32Array, Float32Array, NDArray[np.int64]]:
        """All but the ids, as the native ops take them."""
        return self.boxes, self.keypoints, self.scores, self.steps, self.missed

    def add(self, others: _Tracks) -> None:
        """Take in more."""
        for each in fields(self):
            setattr(self, each.name, np.concatenate((getattr(self, each.name), getattr(others, each.name))))

    def forget(self, patience: int) -> None:
        """Forget who was missed for more than `patience` frames."""
        kept = self.missed <= patience
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name)[kept])


class Tracker:
    """Keeps tracks of one video. `patience`: frames a person may be missing before the id is given up."""

    def __init__(self, *, min_likeness: float = 0.2, patience: int = 30) -> None:
        likely = is_number(min_likeness) and 0 < min_likeness <= 1
        if not likely or not is_whole(patience, 0):
            raise InputError(
                "tracker: min_likeness must be in (0, 1] and patience a whole number, not negative "
                f"(got {min_likeness!r}, {patience!r})"
            )
        self.min_likeness = min_likeness
        self.patience = patience
        self._tracks: _Tracks | None = None
        self._next_id = 1
        self._sigmas: tuple[float, ...] = ()
        self._kernels = np.zeros(0)  # of these sigmas

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
        persons = _float32(boxes_xyxy), _float32(keypoints), _float32(scores)
        tracks = _no_tracks(persons) if self._tracks is None else self._tracks
        track_of = np.empty(len(boxes_xyxy), np.int32)
        known = self._pair(track_of, persons, tracks, sigmas, fair)
        self._tracks = tracks  # not before: persons that are refused say nothing of those to come
        longest = _native.see_persons(tracks.rows, persons, track_of)
        ids = tracks.ids.take(track_of) if known == len(track_of) else self._with_new(track_of, persons)
        if longest > self.patience:
            tracks.forget(self.patience)
        return ids

    def reset(self) -> None:
        """Forget all tracks, as at the start of another video; ids count from 1 again."""
        self._tracks = None
        self._next_id = 1

    def _pair(
        self, track_of: NDArray[np.int32], persons: PersonRows, tracks: _Tracks, sigmas: Sequence[float], fair: float
    ) -> int:
        """Write which track each person of the frame is, by its row, or -1; how many are one."""
        told = tuple(sigmas)  # itself, where it is one: a list may be another one by now
        if told is not self._sigmas:
            self._sigmas, self._kernels = told, 2 * (2 * np.asarray(sigmas, np.float64)) ** 2
        return _native.pair_persons(track_of, persons, tracks.rows, self._kernels, AREA_SHARE, fair, self.min_likeness)

    def _with_new(self, track_of: NDArray[np.int32], persons: PersonRows) -> NDArray[np.int64]:
        """The ids where some persons are new, who get theirs."""
        assert self._tracks is not None, "there are tracks to add to"
        new = track_of < 0
        ids = np.empty(len(track_of), np.int64)
        ids[~new] = self._tracks.ids[track_of[~new]]
        ids[new] = given = np.arange(self._next_id, self._next_id + np.count_nonzero(new))
        self._next_id += len(given)
        boxes, keypoints, scores = persons
        self._tracks.add(_Tracks.of_new(given, (boxes[new], keypoints[new], scores[new])))
        return ids


def same_rows(
    ids: NDArray[np.int64],  # N, of a frame
    before: NDArray[np.int64],  # M, of an earlier one
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows whose person was there before, and that person's rows then; ids that are not positive are nobody's."""
    rows, olds = np.nonzero((ids[:, None] == before[None]) & (ids > 0)[:, None])
    return rows, olds


def box_iou(first: Float32Array, second: Float32Array) -> Float32Array:  # N x 4, M x 4, xyxy
    """N x M: intersection over union; 0 where the union has no area."""
    iou = np.empty((len(first), len(second)), np.float32)
    _native.box_iou(iou, _float32(first), _float32(second))
    return iou


def _no_tracks(persons: PersonRows) -> _Tracks:
    """Nobody known, of whom as much would be known as of these persons."""
    boxes, keypoints, scores = (each[:0].copy() for each in persons)  # rows of a caller may be read-only
    return _Tracks.of_new(np.zeros(0, np.int64), (boxes, keypoints, scores))


def _float32(rows: Float32Array) -> Float32Array:
    """As the native ops take them; a copy only where they are not so."""
    return np.ascontiguousarray(rows, np.float32)

"""Who of those followed is still there: by what his own joints say, frame after frame. No detector, no identities.

Two questions are asked of each person, in numbers of his own. *Was somebody there at all?* By the detector's score, how
well his joints fill the box, and how high his surest ones score; asked in his third to sixth frame. *Has he left?* By
how far the score of his surest third lies below what it was, and how well his joints fill the box. So who is half
hidden and scores low from the beginning stays, and who scores low all at once goes.

    presence = Presence.of_found(box_scores)                        # N persons, row by row
    presence.saw(boxes, keypoints, scores, fair=0.3, size_hw=(480, 640))
    presence.stays                                                 # N bool
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.geometry import boxes_from_keypoints

__all__ = ["Presence", "moved_boxes"]

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Chosen on the clips of `benchmarks/following.py --seed 0` with the bundled network: of persons half visible 91 % are
# followed through 24 frames, of whole ones 99 %; of false detections 7 %, of persons who left 5 %.
PACE = 0.35  # how much of a running mean is the newest frame's
CLEAR = 0.5  # of the score of his surest joints: from there on a joint is one of his
LIKELY = 0.71  # logit(detector's score) + FILL_COUNTS * fill + SURE_COUNTS * log(surest / fair) of who is there
FILL_COUNTS, SURE_COUNTS = 2.0, 0.5
ASKED = range(3, 7)  # in which of his frames it is asked whether he is there at all
LEFT = 0.05  # log(level / what it was) + FILL_STAYS * fill of somebody who is there
FILL_STAYS = 1.8
IN_VIEW = 0.25  # of his joints inside the frame, else he has left it
RUN_OUT = 1 / 3  # of his joints out of the frame since the last detection: it is time for another
WORSE = -0.35  # log(level / what it was): he may go soon
LOWEST = 1e-3  # of `fair`, below which no score counts as lower


@dataclass
class Presence:
    """The persons of a frame, row by row. Each field has N entries; N may be 0."""

    found: Float64Array  # logit of the detector's score; 0 where there is none, which is a score of 1
    frames: NDArray[np.int64]  # in which he was seen
    likely: Float64Array  # the mean of FILL_COUNTS * fill + SURE_COUNTS * log(surest / fair)
    fill: Float64Array  # running mean of the IoU of his box with his joints' box
    level: Float64Array  # running mean of log(score of his surest third / fair)
    usual: Float64Array  # the level that he had
    view: Float64Array  # share of his joints inside the frame
    view_found: Float64Array  # as it was at the last detection
    known: Bools  # somebody was there
    missed: NDArray[np.int64]  # detections in a row that did not find him

    @classmethod
    def of_found(cls, box_scores: Float32Array) -> Presence:
        """Persons who were just found."""
        count = len(box_scores)
        zeros = {each.name: np.zeros(count) for each in fields(cls)}
        whole = {name: np.zeros(count, np.int64) for name in ("frames", "missed")}
        return cls(**{**zeros, **whole, "found": _logit(box_scores), "known": np.zeros(count, bool)})

    def __len__(self) -> int:
        return len(self.frames)

    def rows(self, chosen: Any) -> Presence:
        """Some of them, by numbers or a mask; copies."""
        return Presence(**{each.name: getattr(self, each.name)[chosen] for each in fields(self)})

    def put(self, rows: Any, others: Presence) -> None:
        """Others' knowledge in place of what is known of these rows."""
        for each in fields(self):
            getattr(self, each.name)[rows] = getattr(others, each.name)

    def found_again(self, box_scores: Float32Array, missed: Bools) -> None:  # N, N
        """A detector looked: whom it found is usually what he is now; whom it `missed` is as he was."""
        self.found = np.where(missed, self.found, np.maximum(self.found, _logit(box_scores)))
        self.usual = np.where(missed, self.usual, (self.usual + self.level) / 2)
        self.view_found = self.view.copy()
        self.missed = np.where(missed, self.missed + 1, 0)

    def saw(
        self,
        boxes: Float32Array,  # N x 4 xyxy, that were looked at
        keypoints: Float32Array,  # N x K x 2
        scores: Float32Array,  # N x K
        fair: float,
        size_hw: tuple[int, int] | None,  # None: unknown
    ) -> None:
        """Take in a frame."""
        if not len(self):
            return
        ordered = np.sort(scores / np.float32(fair), axis=1)[:, ::-1]
        joints = scores.shape[1]
        surest = np.maximum(ordered[:, : max(1, joints // 7)].mean(axis=1), LOWEST)
        third = np.maximum(ordered[:, : max(1, round(joints / 3))].mean(axis=1), LOWEST)
        clear = scores >= np.float32(fair * CLEAR) * surest[:, None]
        fill = np.nan_to_num(_overlap(boxes, boxes_from_keypoints(keypoints, clear.astype(np.float32), 1.0)))
        first = self.frames == 0
        self.frames += 1
        self.likely += (FILL_COUNTS * fill + SURE_COUNTS * np.log(surest) - self.likely) / self.frames
        self.fill += np.where(first, 1, PACE) * (fill - self.fill)
        self.level += np.where(first, 1, PACE) * (np.log(third) - self.level)
        self.usual = np.where(first, self.level, np.maximum(self.usual, self.level))
        self.view = _share_inside(keypoints, clear, size_hw)
        self.view_found = np.where(first, self.view, self.view_found)
        self.known |= (self.frames >= ASKED.stop - 1) & ~self.doubtful

    @property
    def doubtful(self) -> Bools:
        """Who was probably never there."""
        asked = ~self.known & (self.frames >= ASKED.start)
        return asked & (self.found + self.likely < LIKELY)

    @property
    def gone(self) -> Bools:
        """Who was there and has left."""
        return (self.level - self.usual + FILL_STAYS * self.fill < LEFT) | (self.view < IN_VIEW)

    @property
    def stays(self) -> Bools:
        return ~(self.doubtful | self.gone)

    @property
    def running_out(self) -> Bools:
        """Whose joints have gone out of the frame since the last detection."""
        return self.view <= self.view_found - RUN_OUT

    @property
    def worse(self) -> Bools:
        """Who scores much less than he did."""
        return self.level - self.usual < WORSE


def moved_boxes(
    boxes: Float32Array,  # N x 4 xyxy, that this frame's joints were found in
    keypoints: Float32Array,  # N x K x 2
    scores: Float32Array,  # N x K
    before: tuple[Float32Array, Float32Array] | None,  # the same of the frame before, where it is known
    fair: float,
) -> Float32Array:
    """N x 4: where to look for these persons next.

    The box around a person's fair joints, as far as he has them: for the share of joints that are not, the box he had,
    moved as his fair joints moved. Of somebody half hidden few are, and a box around few would come and go with them.
    """
    trusted = scores >= fair
    share = trusted.mean(axis=1, keepdims=True).astype(np.float32)
    carried = boxes if before is None else boxes + np.tile(_motion(keypoints, trusted, before, fair), 2)
    around = boxes_from_keypoints(keypoints, scores, fair)
    usable = ~np.isnan(around).any(axis=1, keepdims=True)
    return np.where(usable, share * np.nan_to_num(around) + (1 - share) * carried, carried).astype(np.float32)


def _motion(
    keypoints: Float32Array, trusted: Bools, before: tuple[Float32Array, Float32Array], fair: float
) -> Float32Array:  # N x 2
    """How far the joints that are fair in both frames moved: their mean, 0 where there are none."""
    both = (trusted & (before[1] >= fair))[..., None]
    moved = ((keypoints - before[0]) * both).sum(axis=1) / np.maximum(both.sum(axis=1), 1)
    return np.asarray(moved, np.float32)


def _overlap(first: Float32Array, second: Float32Array) -> Float64Array:  # N x 4 each, xyxy
    """N: intersection over union, row by row; NaN where a box is."""
    common = np.clip(np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2]), 0, None)
    areas = [np.prod(each[:, 2:] - each[:, :2], axis=1, dtype=np.float64) for each in (first, second)]
    shared = np.prod(common, axis=1, dtype=np.float64)
    overlap: Float64Array = shared / np.maximum(areas[0] + areas[1] - shared, 1e-9)
    return overlap


def _share_inside(keypoints: Float32Array, clear: Bools, size_hw: tuple[int, int] | None) -> Float64Array:  # N
    if size_hw is None:
        return np.ones(len(keypoints))
    inside = ((keypoints >= 0) & (keypoints < np.array(size_hw[::-1], np.float32))).all(axis=2)
    share: Float64Array = (inside & clear).sum(axis=1) / np.maximum(clear.sum(axis=1), 1)
    return share


def _logit(box_scores: Float32Array) -> Float64Array:
    """The evidence of a detector's score; a score of 1 is none: callers and detectors without scores give it."""
    told = np.clip(box_scores.astype(np.float64), 0.01, 0.97)
    return np.where(box_scores >= 1, 0.0, np.log(told / (1 - told)))

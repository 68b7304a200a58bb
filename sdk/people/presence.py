"""Who of those followed is still there: by what his own joints say, frame after frame. No detector, no identities.

Two questions are asked of each person, in numbers of his own. *Was somebody there at all?* By the detector's score, how
well his joints fill the box, and how high they score; asked in his third to sixth frame. *Has he left?* By how far his
joints' mean score lies below what it was, and how well they fill the box. So who is half hidden and scores low from the
beginning stays, and who scores low all at once goes.

    presence = Presence.of_found(box_scores)                        # N persons, row by row
    presence.saw(boxes, keypoints, scores, fair=0.3, size_hw=(480, 640))
    presence.stays                                                 # N bool
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.geometry import boxes_around

__all__ = ["Presence", "moved_boxes"]

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Chosen on the clips of `benchmarks/following.py --seed 0` with the bundled network: of persons half visible 85 % are
# followed through 24 frames, of whole ones 98 %; of false detections 9 %, of persons who left 5 %.
PACE = 0.35  # how much of a running mean is the newest frame's
CLEAR = 0.5  # of the mean score of his joints: from there on a joint is one of his
LIKELY = 1.6  # logit(detector's score) + FILL_COUNTS * fill + SCORE_COUNTS * log(mean score / fair) of who is there
FILL_COUNTS, SCORE_COUNTS = 4.0, 1.0
ASKED = range(3, 7)  # in which of his frames it is asked whether he is there at all
LEFT = -0.6  # log(level / what it was) + FILL_STAYS * fill of somebody who is there
FILL_STAYS = 0.6
IN_VIEW = 0.25  # of his joints inside the frame, else he has left it
RUN_OUT = 1 / 3  # of his joints out of the frame since the last detection: it is time for another
WORSE = -0.35  # log(level / what it was): he may go soon
LOWEST = 1e-3  # of `fair`, below which no score counts as lower


PERSON = np.dtype(
    [
        ("found", np.float64),  # logit of the detector's score; 0 where there is none, which is a score of 1
        ("frames", np.int64),  # in which he was seen
        ("likely", np.float64),  # the mean of FILL_COUNTS * fill + SCORE_COUNTS * log(mean score / fair)
        ("fill", np.float64),  # running mean of the IoU of his box with his joints' box
        ("level", np.float64),  # running mean of log(mean score of his joints / fair)
        ("usual", np.float64),  # the level that he had
        ("view", np.float64),  # share of his joints inside the frame
        ("view_found", np.float64),  # as it was at the last detection
        ("known", np.bool_),  # somebody was there
        ("missed", np.int64),  # detections in a row that did not find him
    ]
)


class Presence:
    """The persons of a frame, row by row: N of PERSON, in one table, which a row is taken from at once. N may be 0."""

    def __init__(self, table: NDArray[np.void]) -> None:
        self.table = table

    @classmethod
    def of_found(cls, box_scores: Float32Array) -> Presence:
        """Persons who were just found."""
        table = np.zeros(len(box_scores), PERSON)
        table["found"] = _logit(box_scores)
        return cls(table)

    def __len__(self) -> int:
        return len(self.table)

    def rows(self, chosen: Any) -> Presence:
        """Some of them, by numbers or a mask; copies."""
        return Presence(self.table[chosen])

    def put(self, rows: Any, others: Presence) -> None:
        """Others' knowledge in place of what is known of these rows."""
        self.table[rows] = others.table

    def found_again(self, box_scores: Float32Array, missed: Bools) -> None:  # N, N
        """A detector looked: whom it found is usually what he is now; whom it `missed` is as he was."""
        they, met = self.table, ~missed
        they["found"][met] = np.maximum(they["found"], _logit(box_scores))[met]
        they["usual"][met] = ((they["usual"] + they["level"]) / 2)[met]
        they["view_found"] = they["view"]
        they["missed"] = np.where(missed, they["missed"] + 1, 0)

    def saw(
        self,
        boxes: Float32Array,  # N x 4 xyxy, that were looked at
        keypoints: Float32Array,  # N x K x 2
        scores: Float32Array,  # N x K
        fair: float,
        size_hw: tuple[int, int] | None,  # None: unknown
    ) -> None:
        """Take in a frame."""
        they = self.table
        if not len(they):
            return
        mean = np.maximum(_mean(np.maximum(scores, 0)) / np.float32(fair), LOWEST)
        told = np.log(mean)
        clear = scores >= np.float32(fair * CLEAR) * mean[:, None]
        fill = np.fmax(_overlap(boxes, boxes_around(keypoints, clear)), 0)  # of no box NaN
        frames, level = they["frames"], they["level"]
        first = frames == 0
        pace = np.where(first, 1, PACE)
        frames += 1
        they["likely"] += (FILL_COUNTS * fill + SCORE_COUNTS * told - they["likely"]) / frames
        they["fill"] += pace * (fill - they["fill"])
        level += pace * (told - level)
        they["usual"] = np.where(first, level, np.maximum(they["usual"], level))
        they["view"] = view = _share_inside(keypoints, clear, size_hw)
        they["view_found"][first] = view[first]
        they["known"] |= (frames >= ASKED.stop - 1) & ~self.doubtful

    @property
    def known(self) -> Bools:
        known: Bools = self.table["known"]
        return known

    @property
    def missed(self) -> NDArray[np.int64]:
        missed: NDArray[np.int64] = self.table["missed"]
        return missed

    @property
    def doubtful(self) -> Bools:
        """Who was probably never there."""
        they = self.table
        asked = ~they["known"] & (they["frames"] >= ASKED.start)
        doubtful: Bools = asked & (they["found"] + they["likely"] < LIKELY)
        return doubtful

    @property
    def gone(self) -> Bools:
        """Who was there and has left."""
        they = self.table
        less = they["level"] - they["usual"] + FILL_STAYS * they["fill"] < LEFT
        gone: Bools = less | (they["view"] < IN_VIEW)
        return gone

    @property
    def stays(self) -> Bools:
        return ~(self.doubtful | self.gone)

    @property
    def running_out(self) -> Bools:
        """Whose joints have gone out of the frame since the last detection."""
        out: Bools = self.table["view"] <= self.table["view_found"] - RUN_OUT
        return out

    @property
    def worse(self) -> Bools:
        """Who scores much less than he did."""
        worse: Bools = self.table["level"] - self.table["usual"] < WORSE
        return worse


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
    share = _mean(trusted.astype(np.float32))[:, None]
    carried = boxes
    if before is not None:
        motion = _motion(keypoints, trusted, before, fair)
        carried = boxes + np.concatenate((motion, motion), axis=1)
    around = boxes_around(keypoints, trusted)
    nowhere = np.isnan(around[:, :1])
    return np.where(nowhere, carried, share * around + (1 - share) * carried)


def _motion(
    keypoints: Float32Array, trusted: Bools, before: tuple[Float32Array, Float32Array], fair: float
) -> Float32Array:  # N x 2
    """How far the joints that are fair in both frames moved: their mean, 0 where there are none."""
    both = trusted & (before[1] >= fair)
    moved = np.add.reduce((keypoints - before[0]) * both[..., None], axis=1)
    return np.asarray(moved / np.maximum(_count(both), 1)[:, None], np.float32)


def _overlap(first: Float32Array, second: Float32Array) -> Float64Array:  # N x 4 each, xyxy
    """N: intersection over union, row by row; NaN where a box is."""
    common = np.maximum(np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2]), 0)
    mine, its, shared = (
        np.multiply(sides[:, 0], sides[:, 1], dtype=np.float64)
        for sides in (first[:, 2:] - first[:, :2], second[:, 2:] - second[:, :2], common)
    )
    overlap: Float64Array = shared / np.maximum(mine + its - shared, 1e-9)
    return overlap


def _share_inside(keypoints: Float32Array, clear: Bools, size_hw: tuple[int, int] | None) -> Float64Array:  # N
    if size_hw is None:
        return np.ones(len(keypoints))
    inside = (keypoints >= 0) & (keypoints < np.array(size_hw[::-1], np.float32))
    share: Float64Array = _count(inside[..., 0] & inside[..., 1] & clear) / np.maximum(_count(clear), 1)
    return share


def _count(marked: Bools) -> NDArray[np.intp]:  # N x K -> N
    counted: NDArray[np.intp] = np.add.reduce(marked, axis=1, dtype=np.intp)
    return counted


def _mean(values: Float32Array) -> Float32Array:  # N x K -> N
    """As numpy's own, without its 4 us of Python."""
    mean: Float32Array = np.add.reduce(values, axis=1) / np.float32(values.shape[1])
    return mean


def _logit(box_scores: Float32Array) -> Float64Array:
    """The evidence of a detector's score; a score of 1 is none: callers and detectors without scores give it."""
    told = np.minimum(np.maximum(box_scores.astype(np.float64), 0.01), 0.97)
    return np.where(box_scores >= 1, 0.0, np.log(told / (1 - told)))

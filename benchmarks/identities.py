"""What a joint's spread would do for identities: `Tracker` as it is, and with joint similarities that go by the spread.

    python benchmarks/identities.py [--persons 4 8 14] [--clips 2] [--frames 120] [--strides 1 2 4]

The bundled network, with spread, on `walks.py` (720p, known truth), the detector in every frame; every rule gets the
same poses. A stride of 4 leaves out three frames of four. With s^2 = (2 sigma)^2 area, v the variances of a joint in
both frames, axis by axis: *widened* is a kernel of s^2 + v in place of s^2; *weighed* a mean of joints by
s^2 / (s^2 + v), which is how much of the kernel's height a Gaussian of v leaves; *both* together is the mean
similarity of two places that are known so far. *Wider* is the control: a kernel of 1.5 s^2, without spread.

A switch is as in `pipeline.py`. Under one's own id: of the frames in which a person is to be seen, those in which he
has the id that is his, one id a person and one person an id, chosen for the most of all.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.estimator_overhead import print_machine  # noqa: E402
from benchmarks.pipeline import DETECTOR, found_in  # noqa: E402
from benchmarks.walks import walk  # noqa: E402
from sdk.people.tracking import Tracker, box_iou  # noqa: E402


@dataclass(frozen=True)
class Rule:
    widened: bool = False
    weighed: bool = False
    scale: float = 1.0  # of the kernel


RULES = {
    "as it is": Rule(),
    "widened": Rule(widened=True),
    "weighed": Rule(weighed=True),
    "both": Rule(widened=True, weighed=True),
    "wider": Rule(scale=1.5),
}
Frame = tuple[Any, dict[int, NDArray[np.float32]]]  # poses, and who is there to be seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, nargs="+", default=[4, 8, 14])
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--strides", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    print_machine()
    sums: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(3, np.int64))
    for persons, clip in estimated(arguments):
        for stride in arguments.strides:
            for name in RULES:
                told = figures(clip[::stride], name)
                for group in (f"{persons} persons", f"a frame of {stride}", "all"):
                    sums[f"{group:15} {name}"] += told
    for name, (switches, own, there) in sorted(sums.items()):
        print(f"{name:26} {switches:5} switches, {100 * own / there:.2f} % of {there} under one's own id")


def estimated(arguments: Any) -> Iterator[tuple[int, list[Frame]]]:
    from sdk import PoseEstimator

    rules = {"detector": DETECTOR, "device": "cpu", "threads": arguments.threads, "spread": True}
    with PoseEstimator(**rules) as estimate:
        for persons in arguments.persons:
            for seed in range(arguments.clips):
                pictures = walk(persons, arguments.frames, seed)
                yield persons, [(estimate(picture), truth) for picture, truth in pictures]


def figures(clip: list[Frame], rule: str) -> NDArray[np.int64]:
    """Switches, frames of persons under their own ids, and frames of persons."""
    from scipy.optimize import linear_sum_assignment

    last: dict[int, int] = {}
    together: dict[tuple[int, int], int] = defaultdict(int)  # person, id -> frames
    switches = 0
    all_ids = identified([poses for poses, _ in clip], RULES[rule])
    for (poses, truth), ids in zip(clip, all_ids, strict=True):
        for person, row in found_in(poses.keypoints, truth):
            switches += last.get(person, ids[row]) != ids[row]
            last[person] = ids[row]
            together[person, ids[row]] += 1
    table = np.zeros(np.max([*together, (0, 0)], axis=0) + 1, np.int64)
    for pair, frames in together.items():
        table[pair] = frames
    own = table[linear_sum_assignment(table, maximize=True)].sum()
    return np.array([switches, own, sum(len(truth) for _, truth in clip)], np.int64)


def identified(clip: list[Any], rule: Rule) -> Iterator[NDArray[np.int64]]:
    tracker = Tracker() if rule == Rule() else RuledTracker(rule)
    for poses in clip:
        if isinstance(tracker, RuledTracker):
            tracker.spread = poses.spread
        ids = tracker.update(
            poses.boxes, poses.keypoints, poses.scores, poses.skeleton.tolerances, poses.score_scale.fair
        )
        if isinstance(tracker, RuledTracker):
            tracker.spreads |= dict(zip(ids.tolist(), poses.spread, strict=True))
        yield ids


class RuledTracker(Tracker):
    """`Tracker` whose joints are similar by a rule: its pairs are made in numpy. The caller sets the spreads."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        self.spread = np.zeros((0, 0, 2), np.float32)  # N x K x 2, of the frame's persons
        self.spreads: dict[int, NDArray[np.float32]] = {}  # id -> K x 2, as that person was seen last

    def _pair(self, track_of: NDArray[np.int32], persons: Any, sigmas: Any, fair: float) -> int:
        boxes, keypoints, scores = persons
        tracks = self._tracks
        moved = tracks.steps * (tracks.missed[:, None] + 1).astype(np.float32)
        corners = tracks.boxes.reshape(-1, 2, 2)
        counted = (scores >= fair)[:, None] & (tracks.scores >= fair)
        areas = np.multiply(*(corners[:, 1] - corners[:, 0]).T)
        likeness = np.zeros((len(boxes), len(tracks)), np.float32)
        for by in (np.zeros_like(moved), moved):  # where each was, and where its motion would have brought it
            iou = box_iou(boxes, (corners + by[:, None]).reshape(-1, 4))
            oks = self._similarity(keypoints, tracks.keypoints + by[:, None], counted, areas, np.asarray(sigmas))
            likeness = np.maximum(likeness, (iou + oks) / 2)
        track_of[:] = -1
        for place in np.argsort(-likeness, axis=None, kind="stable").tolist():
            row, column = divmod(place, len(tracks))
            if likeness[row, column] >= self.min_likeness and track_of[row] < 0 and column not in track_of:
                track_of[row] = column
        return int((track_of >= 0).sum())

    def _similarity(self, first: Any, second: Any, counted: Any, areas: Any, sigmas: Any) -> NDArray[np.float32]:
        from sdk.oks import AREA_SHARE

        olds = np.array([self.spreads[each] for each in self._tracks.ids.tolist()]).reshape(*second.shape)
        area_px2 = np.maximum(AREA_SHARE * areas.astype(np.float64), 1.0)
        kernel = self.rule.scale * ((2 * sigmas) ** 2 * area_px2[:, None])[..., None]  # M x K x 1
        wide = kernel + self.spread[:, None].astype(np.float64) ** 2 + olds.astype(np.float64) ** 2
        apart = (first[:, None].astype(np.float64) - second) ** 2
        alike = np.exp(-(apart / (2 * (wide if self.rule.widened else kernel))).sum(axis=3))
        weights = counted * (np.sqrt((kernel / wide).prod(axis=3)) if self.rule.weighed else 1.0)
        return np.asarray((weights * alike).sum(axis=2) / np.maximum(weights.sum(axis=2), 1e-9), np.float32)


if __name__ == "__main__":
    main()

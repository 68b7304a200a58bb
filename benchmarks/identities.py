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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.estimator_overhead import print_machine  # noqa: E402
from benchmarks.pipeline import DETECTOR, found_in  # noqa: E402
from benchmarks.walks import walk  # noqa: E402


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
    from sdk.people import tracking

    tracker, spreads, plain = tracking.Tracker(), {}, tracking.keypoint_oks
    for poses in clip:
        olds = [] if tracker._tracks is None else [spreads[each] for each in tracker._tracks.ids.tolist()]
        similar = plain if rule == Rule() else similar_by(rule, poses.spread, olds)
        with patch.object(tracking, "keypoint_oks", similar):
            ids = tracker.update(
                poses.boxes, poses.keypoints, poses.scores, poses.skeleton.tolerances, poses.score_scale.fair
            )
        spreads |= dict(zip(ids.tolist(), poses.spread, strict=True))
        yield ids


def similar_by(
    rule: Rule,
    new: NDArray[np.float32],  # N x K x 2
    olds: list[NDArray[np.float32]],  # K x 2 each
) -> Callable[..., NDArray[np.float32]]:
    """`keypoint_oks` by the spreads of persons and of tracks, whose places come twice: as they were, and moved."""

    def similarity(first: Any, second: Any, counted: Any, areas: Any, sigmas: Any) -> NDArray[np.float32]:
        from sdk.oks import AREA_SHARE

        area_px2 = np.maximum(AREA_SHARE * areas.astype(np.float64), 1.0)
        kernel = rule.scale * ((2 * sigmas) ** 2 * area_px2[:, None])[..., None]  # M x K x 1
        wide = kernel + new[:, None].astype(np.float64) ** 2 + np.concatenate((olds, olds)).astype(np.float64) ** 2
        apart = (first[:, None].astype(np.float64) - second) ** 2
        alike = np.exp(-(apart / (2 * (wide if rule.widened else kernel))).sum(axis=3))
        weights = counted * (np.sqrt((kernel / wide).prod(axis=3)) if rule.weighed else 1.0)
        return np.asarray((weights * alike).sum(axis=2) / np.maximum(weights.sum(axis=2), 1e-9), np.float32)

    return similarity


if __name__ == "__main__":
    main()

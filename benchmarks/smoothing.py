"""What smoothing does to joints, on rendered figures with known truth: jitter, error and lag, found and smoothed.

    python benchmarks/smoothing.py [--clips 6] [--frames 60]

The bundled network on walkers and on figures that stand, with noise in the pictures and in the boxes. Jitter: the
median second difference of a joint's error. Error: the mean distance, less each joint's own median. Both in sizes of
the person (the root of his box's area). Lag: frames by which the joints of walkers follow the truth, by regression on
its speed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.estimator_overhead import print_machine  # noqa: E402

NOISE, BOX_NOISE_PX = 4.0, 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--frames", type=int, default=60)
    arguments = parser.parse_args()
    print_machine()
    for still in (False, True):
        clips = list(estimated(arguments.clips, arguments.frames, still=still))
        rows = {
            "as found": [clip.told for clip in clips],
            "smoothed": [clip.smoothed(with_spread=False) for clip in clips],
            "smoothed, with spread": [clip.smoothed(with_spread=True) for clip in clips],
        }
        for name, told in rows.items():
            jitter, error, lag = np.mean([clip.figures(found) for clip, found in zip(clips, told, strict=True)], axis=0)
            lags = "" if still else f", lag {lag:.2f} frames"
            print(f"{'standing' if still else 'walking':9} {name:22} jitter {jitter:.5f}, error {error:.5f}{lags}")


class Estimated:
    """A clip's joints, found and true: the truth is of `known`, those of the network's that the figure has."""

    def __init__(self, poses: list[Any], truth: list[Any], boxes: list[Any], fair: float, known: list[int]) -> None:
        self.poses, self.truth, self.boxes, self.fair = poses, np.stack(truth), np.stack(boxes), fair
        self.known = known
        self.told = np.stack([each.keypoints[0] for each in poses])
        self.size_px = float(np.sqrt(np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1)).mean())

    def smoothed(self, *, with_spread: bool) -> Any:
        from sdk.people.smoothing import Smoother, Smoothing

        smoother, ids = Smoother(Smoothing(), self.fair), np.ones(1, np.int64)
        return np.stack(
            [
                smoother.smoothed(
                    ids, each.boxes, each.keypoints, each.scores, None, each.spread if with_spread else None
                )[0]
                for each in self.poses
            ]
        )

    def figures(self, found: Any) -> tuple[float, float, float]:
        """Jitter, error, lag."""
        error = (found[:, self.known] - self.truth) / self.size_px
        error = error - np.median(error, axis=0)
        speed = np.gradient(self.truth, axis=0) / self.size_px
        jitter = float(np.median(np.linalg.norm(np.diff(error, 2, axis=0), axis=2)))
        lag = -float((error * speed).sum() / max(float((speed * speed).sum()), 1e-9))
        return jitter, float(np.linalg.norm(error, axis=2).mean()), lag


def estimated(clips: int, frames: int, *, still: bool) -> Iterator[Estimated]:
    from sdk import PoseEstimator
    from sdk.joints import match_joints
    from sdk.media.figures import FIGURE_SKELETON, rendered_clip
    from sdk.skeletons import skeleton_by_name

    with PoseEstimator(device="cpu", threads=1, spread=True) as estimate:
        places = match_joints(skeleton_by_name(FIGURE_SKELETON).joints, estimate.recipe.skeleton.joints).places
        drawn = [place for place in places if place is not None]
        known = [joint for joint, place in enumerate(places) if place is not None]
        for seed in range(clips):
            rng = np.random.default_rng(seed)
            shown = list(rendered_clip(seed + 50 * still, 2 if still else frames, (300, 400)))
            poses, truth, boxes = [], [], []
            for frame, joints in shown[:1] * frames if still else shown:
                low, high = joints.min(axis=0), joints.max(axis=0)
                box = np.concatenate([low - 0.15 * (high - low), high + 0.15 * (high - low)])
                boxes.append(box + rng.normal(0, BOX_NOISE_PX, 4))
                noisy = frame + rng.normal(0, NOISE, frame.shape[:2])[..., None]
                poses.append(estimate(np.clip(noisy, 0, 255).astype(np.uint8), [boxes[-1]]))
                truth.append(joints[drawn])
            yield Estimated(poses, truth, boxes, poses[0].score_scale.fair, known)


if __name__ == "__main__":
    main()

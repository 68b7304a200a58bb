"""Clips of persons who walk, 1280 x 720, with known truth: for `pipeline.py`. Rendered figures on a drawn scene.

Walkers go both ways at heights of 210 to 430 pixels, cross, stop, leave the picture and come back; who is hidden behind
others for the most part does not count as there. Seeded; nothing is downloaded.

    for picture, truth in walk(persons=4, frames=60, seed=0): ...     # H x W x 3 BGR; {person: 14 x 2 joints, pixels}
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdk.media.figures import joints_from_pose, random_background, walking_pose
from sdk.media.mannequin import Wardrobe, draw_figure

__all__ = ["SIZE_HW", "box_of", "walk"]

Frame = NDArray[np.uint8]
Joints = NDArray[np.float32]  # 14 x 2
SIZE_HW = (720, 1280)
SIDES = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 12, 13]  # joints of a mirrored figure
STRIDE_FRAMES = 36
HIDDEN = 0.6  # share of a person's box behind nearer ones from which on nobody can be asked to see him
NOISE = 2.0  # grey levels, of a camera


@dataclass(frozen=True)
class _Walker:
    height_px: float
    ground_px: float
    start_px: float
    step_px: float  # to the right a frame; he turns at the edges, a little outside of the picture
    phase: float
    wardrobe: Wardrobe
    stops: tuple[int, int]  # first and last frame of a halt

    def joints(self, frame: int) -> Joints:
        first, last = self.stops
        walked = frame - min(max(frame - first, 0), last - first)
        reach = SIZE_HW[1] + 0.5 * self.height_px
        way = (self.start_px + self.step_px * walked + 0.25 * self.height_px) % (2 * reach)
        rightwards = (way < reach) == (self.step_px > 0)
        x = (way if way < reach else 2 * reach - way) - 0.25 * self.height_px
        pose = walking_pose(self.phase + math.tau * walked / STRIDE_FRAMES)
        joints = joints_from_pose(pose, (0.0, 0.0), self.height_px)
        if rightwards:
            joints = joints[SIDES] * np.array([-1, 1], np.float32)
        return joints + np.array([x, self.ground_px - joints[10:12, 1].max()], np.float32)


def walk(persons: int, frames: int, seed: int) -> Iterator[tuple[Frame, dict[int, Joints]]]:
    """`frames` pictures of `persons` walkers, and who is there to be seen."""
    rng = np.random.default_rng([seed, persons])
    scene = random_background(rng, SIZE_HW)
    walkers = sorted((_drawn(rng) for _ in range(persons)), key=lambda each: each.ground_px)  # the farthest first
    for index in range(frames):
        picture, all_joints = scene.copy(), [each.joints(index) for each in walkers]
        for walker, joints in zip(walkers, all_joints, strict=True):
            draw_figure(picture, joints, walker.height_px, walker.wardrobe, 1)
        grain = rng.normal(0, NOISE, (*SIZE_HW, 1))
        yield np.clip(picture + grain, 0, 255).astype(np.uint8), _seen(all_joints)


def box_of(joints: Joints) -> NDArray[np.float32]:
    """4, xyxy: the extent of the joints."""
    return np.concatenate([joints.min(axis=0), joints.max(axis=0)]).astype(np.float32)


def _drawn(rng: np.random.Generator) -> _Walker:
    height = float(rng.uniform(210, 430))
    first = int(rng.integers(10, 80))
    return _Walker(
        height_px=height,
        ground_px=SIZE_HW[0] * 0.6 + 0.62 * height * rng.uniform(0.95, 1.05),
        start_px=float(rng.uniform(0, 2 * SIZE_HW[1])),
        step_px=float(rng.uniform(2.5, 7.0) * height / 320),
        phase=float(rng.uniform(0, math.tau)),
        wardrobe=Wardrobe.drawn(rng),
        stops=(first, first + int(rng.integers(0, 15))),
    )


def _seen(all_joints: list[Joints]) -> dict[int, Joints]:
    """Those at least half in the picture and not hidden by nearer ones, which are the later in the list."""
    boxes = [box_of(joints) for joints in all_joints]
    told = {}
    for person, joints in enumerate(all_joints):
        inside = ((joints >= 0) & (joints < np.array(SIZE_HW[::-1]))).all(axis=1).mean()
        hidden = max((_share(boxes[person], nearer) for nearer in boxes[person + 1 :]), default=0.0)
        if inside >= 0.5 and hidden < HIDDEN:
            told[person] = joints
    return told


def _share(box: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """How much of `box` lies in `other`."""
    common = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None).prod()
    return float(common / (box[2:] - box[:2]).prod())

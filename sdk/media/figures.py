"""Rendered figures: a person with known joints, for the demo and as a small part of training batches.

Not a model of a human body: poses, clothes and backgrounds vary enough for a network trained on photographs to find the
joints. They are in CrowdPose order (`FIGURE_SKELETON` of `sdk.skeletons`). Seeded; `sdk.media.mannequin` draws.

    frame, keypoints = rendered_figure(np.random.default_rng(1), (240, 320))       # H x W x 3 BGR, 14 x 2 pixels
    for frame, keypoints in rendered_clip(seed=0, frames=48): ...
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.media.mannequin import Wardrobe, draw_figure

__all__ = [
    "FIGURE_SKELETON",
    "Pose",
    "drawn_pose",
    "joints_from_pose",
    "random_background",
    "rendered_clip",
    "rendered_figure",
    "walking_pose",
]

Frame = NDArray[np.uint8]
Joints = NDArray[np.float32]
FIGURE_SKELETON = "crowdpose14"
GROUND = 0.90  # of a clip's height: where the feet stand
STRIDE_FRAMES = 48  # two steps
# The scene of a clip, BGR: skies (above, below), what stands before them, and where it begins, in parts of the height.
SKIES = (((232, 190, 140), (206, 220, 248)), ((214, 178, 150), (190, 214, 250)), ((240, 214, 176), (232, 240, 250)))
SUN, HILLS = (214, 238, 255), ((196, 176, 150), (160, 150, 116), (118, 128, 88))
MEADOW, MEADOW_FROM, PATH, PATH_FROM, PATH_TO = (98, 138, 104), 0.80, (166, 188, 206), 0.86, 0.985

# Lengths in parts of the body's height (Drillis and Contini's proportions, rounded).
HEAD, NECK, TORSO, UPPER_ARM, FOREARM, THIGH, SHIN = 0.15, 0.045, 0.29, 0.165, 0.16, 0.235, 0.235
SHOULDER_HALF, HIP_HALF = 0.105, 0.06


@dataclass(frozen=True)
class Pose:
    """Angles in degrees, 0 = hanging down, positive towards the picture's right; `facing` 1 front, -1 back view."""

    trunk: float
    head: float
    arms: tuple[float, float]  # upper arms: left, right
    elbows: tuple[float, float]  # added to the upper arm's
    legs: tuple[float, float]
    knees: tuple[float, float]
    turn: float = 0.0  # about the upright axis: 0 = frontal, 90 = profile
    facing: int = 1


def drawn_pose(rng: np.random.Generator) -> Pose:
    """A random pose: standing, walking, jumping, arms anywhere."""
    spread = rng.uniform(0.3, 1.0)

    def pair(centre: float, width: float) -> tuple[float, float]:
        a, b = rng.normal(0, width * spread, 2)
        return centre + float(a), -centre + float(b)

    facing = 1 if rng.random() < 0.7 else -1
    elbows = rng.uniform(-100, 100, 2) * spread
    knees = rng.uniform(-80, 30, 2) * spread * rng.choice([-1, 1])
    return Pose(
        trunk=float(rng.normal(0, 12)),
        head=float(rng.normal(0, 12)),
        arms=pair(25, 55),
        elbows=(float(elbows[0]), float(elbows[1])),
        legs=pair(8, 25),
        knees=(float(knees[0]), float(knees[1])),
        turn=float(rng.uniform(0, 75)),
        facing=facing,
    )


def joints_from_pose(
    pose: Pose,
    hips_xy: tuple[float, float],
    height_px: float,
) -> Joints:
    """14 x 2 pixels, CrowdPose order. A front view has the figure's left on the picture's right."""

    def reach(start: NDArray[np.float64], angle: float, length: float) -> NDArray[np.float64]:
        turn = math.radians(angle)
        return start + height_px * length * np.array([math.sin(turn), math.cos(turn)])

    width = math.cos(math.radians(pose.turn)) * pose.facing
    hips = np.array(hips_xy, np.float64)
    chest = reach(hips, 180 - pose.trunk, TORSO)
    across = np.array([math.cos(math.radians(pose.trunk)), math.sin(math.radians(pose.trunk))]) * height_px * width
    shoulders = chest + across * SHOULDER_HALF, chest - across * SHOULDER_HALF
    hip_joints = hips + across * HIP_HALF, hips - across * HIP_HALF
    neck = reach(chest, 180 - pose.trunk, NECK)
    top = reach(neck, 180 - pose.trunk - pose.head, HEAD)
    side = 1 if pose.facing > 0 else -1
    elbows = [reach(shoulders[i], side * pose.arms[i], UPPER_ARM) for i in (0, 1)]
    wrists = [reach(elbows[i], side * (pose.arms[i] + pose.elbows[i]), FOREARM) for i in (0, 1)]
    knees = [reach(hip_joints[i], side * pose.legs[i], THIGH) for i in (0, 1)]
    ankles = [reach(knees[i], side * (pose.legs[i] + pose.knees[i]), SHIN) for i in (0, 1)]
    order = [*shoulders, *elbows, *wrists, *hip_joints, *knees, *ankles, top, neck]
    return np.stack(order).astype(np.float32)


def random_background(rng: np.random.Generator, size_hw: tuple[int, int]) -> Frame:
    """Smooth colour noise, a horizon and some blocks."""
    import cv2

    height, width = size_hw
    coarse = int(rng.integers(2, 12))
    noise = rng.integers(0, 256, (coarse, coarse, 3)).astype(np.uint8)
    frame = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    flat = np.full_like(frame, rng.integers(40, 216, 3).astype(np.uint8))
    frame = cv2.addWeighted(frame, float(rng.uniform(0.1, 0.7)), flat, 0.5, 0)
    for _ in range(int(rng.integers(0, 6))):
        x, y = rng.integers(-width // 4, width), rng.integers(-height // 4, height)
        w, h = rng.integers(width // 16 + 1, width // 2 + 2), rng.integers(height // 16 + 1, height // 2 + 2)
        cv2.rectangle(frame, (int(x), int(y)), (int(x + w), int(y + h)), rng.integers(0, 256, 3).tolist(), -1)
    grain = rng.normal(0, rng.uniform(1, 10), (height // 2, width // 2)).astype(np.float32)
    grained: Frame = np.clip(frame + cv2.resize(grain, (width, height))[..., None], 0, 255).astype(np.uint8)
    return grained


def rendered_figure(rng: np.random.Generator, size_hw: tuple[int, int]) -> tuple[Frame, Joints]:
    """A picture of one random figure and its 14 x 2 joints in pixels."""
    frame = random_background(rng, size_hw)
    height_px = float(rng.uniform(0.6, 0.85)) * size_hw[0]
    pose = drawn_pose(rng)
    hips = size_hw[1] * rng.uniform(0.42, 0.58), size_hw[0] * rng.uniform(0.45, 0.55)
    joints = joints_from_pose(pose, hips, height_px)
    draw_figure(frame, joints, height_px, Wardrobe.drawn(rng), pose.facing)
    return frame, joints


def rendered_clip(seed: int, frames: int, size_hw: tuple[int, int] = (360, 480)) -> Iterator[tuple[Frame, Joints]]:
    """A person who walks across and waves: `frames` pictures with their joints."""
    if seed < 0:
        raise InputError(f"the seed of a rendered figure must not be negative (got {seed})")
    rng = np.random.default_rng(seed)
    scene, wardrobe = _scene(rng, size_hw), Wardrobe.matched(rng)
    height_px, ground = 0.72 * size_hw[0], GROUND * size_hw[0]
    for index in range(frames):
        pose = walking_pose(math.tau * index / STRIDE_FRAMES)
        joints = joints_from_pose(pose, (0.0, 0.0), height_px)
        part = index / max(1, frames - 1)
        joints += np.array([size_hw[1] * (0.68 - 0.36 * part), ground - joints[10:12, 1].max()], np.float32)
        frame = scene.copy()
        _shadow(frame, joints, height_px)
        draw_figure(frame, joints, height_px, wardrobe, pose.facing)
        yield frame, joints


def walking_pose(phase: float) -> Pose:
    """A moment of a walk to the left: a leg that swings forward bends its knee, the arm follows the other leg."""
    swing, wave = 23 * math.sin(phase), math.sin(3 * phase)
    left, right = max(0.0, -math.cos(phase)), max(0.0, math.cos(phase))
    return Pose(
        trunk=-2.0 - 1.5 * math.sin(2 * phase),
        head=2 * math.sin(phase),
        arms=(20 - 1.1 * swing, -118 - 6 * wave),
        elbows=(-30 - 0.5 * swing, -38 - 26 * wave),
        legs=(swing, -swing),
        knees=(6 + 44 * left**1.5, 6 + 44 * right**1.5),
        turn=46 + 6 * math.sin(phase),
    )


def _scene(rng: np.random.Generator, size_hw: tuple[int, int]) -> Frame:
    """An evening: sky, a low sun, hills one behind another, and a path to walk on."""
    import cv2

    height, width = size_hw
    top, low = (np.array(colour, np.float64) for colour in SKIES[rng.integers(len(SKIES))])
    part = np.linspace(0, 1, height)[:, None, None]
    frame = np.broadcast_to((1 - part) * top + part * low, (height, width, 3)).astype(np.uint8).copy()
    sun = round(width * rng.uniform(0.15, 0.85)), round(height * 0.30)
    cv2.circle(frame, sun, round(0.08 * height), SUN, -1, cv2.LINE_AA)
    for place, colour in enumerate(HILLS):
        hill = _ridge(rng, width, place) * np.array([1, height])
        cv2.fillPoly(frame, [np.round(hill).astype(np.int32)], colour, cv2.LINE_AA)
    frame[round(height * MEADOW_FROM) :] = MEADOW
    frame[round(height * PATH_FROM) : round(height * PATH_TO)] = PATH
    return np.clip(frame + rng.normal(0, 2.0, (height, width, 1)), 0, 255).astype(np.uint8)


def _ridge(rng: np.random.Generator, width: int, place: int) -> NDArray[np.float64]:
    """The outline of a hill, x in pixels and y in parts of the height: three waves, closed below."""
    x = np.arange(width, dtype=np.float64)
    turns = x / width * math.tau * (0.6 + 0.3 * place)
    waves = sum((np.sin(turns * k + rng.uniform(0, math.tau)) / k for k in (1, 2, 3)), np.zeros(width))
    crest = np.stack([x, 0.52 + 0.10 * place + 0.05 * waves], axis=1)
    return np.concatenate([[[0.0, 1.0]], crest, [[float(width), 1.0]]])


def _shadow(frame: Frame, joints: Joints, height_px: float) -> None:
    """Where the feet meet the ground, a darker oval."""
    import cv2

    feet, dark = joints[10:12], frame.copy()
    middle = round(float(feet[:, 0].mean())), round(float(feet[:, 1].max() + 0.035 * height_px))
    wide = round(0.10 * height_px + float(np.ptp(feet[:, 0])) / 2)
    cv2.ellipse(dark, middle, (wide, round(0.025 * height_px)), 0, 0, 360, (60, 70, 70), -1, cv2.LINE_AA)
    frame[:] = cv2.addWeighted(frame, 0.65, dark, 0.35, 0)

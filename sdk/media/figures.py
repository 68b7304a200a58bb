"""Rendered figures: a person of capsules with known joints, for the demo and as a small part of training batches.

Not a model of a human body: limb lengths, clothes, light and backgrounds vary enough for a network trained on
photographs to find the joints. Joints are in CrowdPose order (`sdk.skeletons`, "crowdpose14"). Seeded; cv2 draws.

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

__all__ = [
    "Pose",
    "Wardrobe",
    "drawn_pose",
    "joints_from_pose",
    "random_background",
    "rendered_clip",
    "rendered_figure",
]

Frame = NDArray[np.uint8]
Joints = NDArray[np.float32]
SUBPIXEL_BITS = 4

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


@dataclass(frozen=True)
class Wardrobe:
    """BGR colours and thickness of a figure."""

    skin: tuple[int, int, int]
    shirt: tuple[int, int, int]
    trousers: tuple[int, int, int]
    shoes: tuple[int, int, int]
    hair: tuple[int, int, int]
    stout: float
    long_sleeves: bool
    long_trousers: bool

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Wardrobe:
        """Random clothes."""

        def colour() -> tuple[int, int, int]:
            b, g, r = rng.integers(20, 236, 3)
            return int(b), int(g), int(r)

        light = rng.uniform(0.35, 1.0)
        skin = (int(140 * light), int(175 * light), int(225 * light))
        dark = int(rng.integers(10, 90))
        hair = (dark // 3, dark // 2, dark)
        return cls(
            skin, colour(), colour(), colour(), hair, float(rng.uniform(0.85, 1.25)), rng.random() < 0.5,
            rng.random() < 0.6,
        )  # fmt: skip


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


def draw_figure(frame: Frame, joints: Joints, height_px: float, wardrobe: Wardrobe, facing: int) -> None:
    """Draw the figure of 14 x 2 `joints` into `frame`, far limbs first."""
    unit = height_px * wardrobe.stout
    left_first = (0, 1) if facing < 0 else (1, 0)
    for i in left_first:
        _leg(frame, joints, i, unit, wardrobe)
    _arm(frame, joints, left_first[0], unit, wardrobe)
    _trunk(frame, joints, unit, wardrobe)
    _head(frame, joints, height_px, wardrobe, facing)
    _arm(frame, joints, left_first[1], unit, wardrobe)


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
    """A figure that walks across and waves: `frames` pictures with their joints."""
    if seed < 0:
        raise InputError(f"the seed of a rendered figure must not be negative (got {seed})")
    rng = np.random.default_rng(seed)
    background, wardrobe = random_background(rng, size_hw), Wardrobe.drawn(rng)
    height_px = 0.72 * size_hw[0]
    for index in range(frames):
        phase = 2 * math.pi * index / 48
        swing, wave = 24 * math.sin(phase), math.sin(2 * phase)
        pose = Pose(
            trunk=3 * math.sin(phase),
            head=5 * math.sin(phase / 2),
            arms=(70 + 50 * wave, -25 + swing),
            elbows=(40 + 40 * wave, -20 - 10 * math.sin(phase)),
            legs=(12 + swing * 0.6, -12 + swing * 0.6),
            knees=(-14 * max(0.0, math.sin(phase)), 14 * max(0.0, -math.sin(phase))),
            turn=25 + 15 * math.sin(phase / 2),
        )
        part = index / max(1, frames - 1)
        hips = size_hw[1] * (0.38 + 0.24 * part), size_hw[0] * (0.53 + 0.01 * math.sin(2 * phase))
        joints = joints_from_pose(pose, hips, height_px)
        frame = background.copy()
        draw_figure(frame, joints, height_px, wardrobe, pose.facing)
        yield frame, joints


def _capsule(
    frame: Frame, start: NDArray[np.float32], end: NDArray[np.float32], radius_px: float, colour: tuple[int, ...]
) -> None:
    import cv2

    scale = 1 << SUBPIXEL_BITS
    a, b = (tuple(round(float(v) * scale) for v in point) for point in (start, end))
    thickness = max(1, round(2 * radius_px))
    cv2.line(frame, a, b, colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def _limb(
    frame: Frame,
    points: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
    radii_px: tuple[float, float],
    colours: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    _capsule(frame, points[1], points[2], radii_px[1], colours[1])
    _capsule(frame, points[0], points[1], radii_px[0], colours[0])


def _arm(frame: Frame, joints: Joints, i: int, unit: float, wardrobe: Wardrobe) -> None:
    lower = wardrobe.shirt if wardrobe.long_sleeves else wardrobe.skin
    _limb(frame, (joints[i], joints[2 + i], joints[4 + i]), (0.03 * unit, 0.022 * unit), (wardrobe.shirt, lower))
    hand = joints[4 + i] + 0.25 * (joints[4 + i] - joints[2 + i])
    _capsule(frame, joints[4 + i], hand, 0.02 * unit, wardrobe.skin)


def _leg(frame: Frame, joints: Joints, i: int, unit: float, wardrobe: Wardrobe) -> None:
    lower = wardrobe.trousers if wardrobe.long_trousers else wardrobe.skin
    _limb(
        frame, (joints[6 + i], joints[8 + i], joints[10 + i]), (0.042 * unit, 0.031 * unit), (wardrobe.trousers, lower)
    )
    toes = joints[10 + i] + np.array([0.03 * unit * (1 if i == 0 else -1), 0.03 * unit], np.float32)
    _capsule(frame, joints[10 + i], toes, 0.024 * unit, wardrobe.shoes)


def _trunk(frame: Frame, joints: Joints, unit: float, wardrobe: Wardrobe) -> None:
    import cv2

    scale = 1 << SUBPIXEL_BITS
    corners = np.stack([joints[0], joints[1], joints[7], joints[6]])
    cv2.fillPoly(frame, [np.round(corners * scale).astype(np.int32)], wardrobe.shirt, cv2.LINE_AA, SUBPIXEL_BITS)
    for a, b in ((0, 1), (0, 6), (1, 7)):
        _capsule(frame, joints[a], joints[b], 0.034 * unit, wardrobe.shirt)
    _capsule(frame, joints[6], joints[7], 0.045 * unit, wardrobe.trousers)


def _head(frame: Frame, joints: Joints, height_px: float, wardrobe: Wardrobe, facing: int) -> None:
    import cv2

    chest, top, neck = (joints[0] + joints[1]) / 2, joints[12], joints[13]
    _capsule(frame, chest, neck, 0.025 * height_px, wardrobe.skin)
    axis = top - neck
    angle = math.degrees(math.atan2(float(axis[1]), float(axis[0])))
    long, short = float(np.hypot(*axis)) / 2, 0.052 * height_px

    def oval(centre: NDArray[np.float32], axes: tuple[float, float], colour: tuple[int, ...]) -> None:
        box = (float(centre[0]), float(centre[1])), (2 * axes[0], 2 * axes[1]), angle
        cv2.ellipse(frame, box, colour, -1, cv2.LINE_AA)

    centre = (top + neck) / 2
    oval(centre, (long, short), wardrobe.hair)
    if facing > 0:
        oval(centre - 0.12 * axis, (long * 0.76, short * 0.82), wardrobe.skin)

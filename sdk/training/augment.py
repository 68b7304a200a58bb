"""Augmentation of one person: geometry in a single affine, then colour, blur and cut-out on the crop.

Everything is drawn from the generator that is passed in, so a sample depends on its seed alone, not on which worker
makes it. The affine is the one of `sdk.geometry` (box padding, aspect, bilinear, 0 outside) with rotation, scale,
shift and mirror added; with `Augmentation.none()` the crop is the one that the deployed estimator takes.

    crop, keypoints = augmented_crop(person, (128, 128), 1.25, skeleton, Augmentation(), np.random.default_rng(7))
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import TrainingError
from sdk.geometry import crop_affines, inverse_affines
from sdk.skeletons import Skeleton

__all__ = ["Augmentation", "PersonImage", "augmented_crop", "body_halves"]

UPPER_WORDS = ("nose", "eye", "ear", "head", "neck", "thorax", "shoulder", "elbow", "wrist")


@dataclass(frozen=True)
class PersonImage:
    """One annotated person. `image` may be a part of the photograph, shrunk; all numbers are in its pixels."""

    image: NDArray[np.uint8]  # H x W x 3, BGR
    keypoints: NDArray[np.float32]  # K x 3: x, y, visibility
    box_xyxy: NDArray[np.float32]  # 4


@dataclass(frozen=True)
class Augmentation:
    """Probabilities (0..1) and ranges. `scale` is in powers of e, `shift` in parts of the crop's side."""

    flip: float = 0.5
    half_body: float = 0.1
    rotate: float = 0.7
    rotation_deg: float = 60.0
    scale: float = 0.3
    shift: float = 0.08
    colour: float = 0.7
    grey: float = 0.1
    blur: float = 0.1
    cut_out: float = 0.4

    def __post_init__(self) -> None:
        for name in ("flip", "half_body", "rotate", "colour", "grey", "blur", "cut_out"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise TrainingError(f"augmentation '{name}' is a probability, 0 to 1 (got {value})")
        for name in ("rotation_deg", "scale", "shift"):
            if getattr(self, name) < 0:
                raise TrainingError(f"augmentation '{name}' must not be negative (got {getattr(self, name)})")

    @classmethod
    def none(cls) -> Augmentation:
        """No augmentation: the crop of the deployed estimator."""
        return cls(**{field.name: 0.0 for field in fields(cls)})


def augmented_crop(
    person: PersonImage,
    size_hw: tuple[int, int],
    padding: float,
    skeleton: Skeleton,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The crop (h x w x 3, BGR) and its K x 3 keypoints in crop pixels."""
    import cv2

    box = _chosen_box(person, skeleton, augmentation, rng)
    mirror = rng.random() < augmentation.flip
    affine = _drawn_affine(box, size_hw, padding, augmentation, mirror, rng)
    crop = cv2.warpAffine(person.image, affine, (size_hw[1], size_hw[0]), flags=cv2.INTER_LINEAR)
    keypoints = person.keypoints.astype(np.float32)
    keypoints[:, :2] = keypoints[:, :2] @ affine[:, :2].T + affine[:, 2]
    if mirror:
        keypoints = keypoints[list(skeleton.flip_order)]
    return _photometric(crop, augmentation, rng), keypoints


def body_halves(skeleton: Skeleton) -> tuple[list[int], list[int]]:
    """Joint indices of the upper and of the lower body, told by their names."""
    upper = [j for j, name in enumerate(skeleton.joints) if any(word in name for word in UPPER_WORDS)]
    return upper, [j for j in range(len(skeleton.joints)) if j not in upper]


def _chosen_box(
    person: PersonImage, skeleton: Skeleton, augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The person's box, or one about half of the body when chance says so and three of its joints are annotated."""
    if rng.random() >= augmentation.half_body:
        return person.box_xyxy
    half = body_halves(skeleton)[int(rng.integers(2))]
    points = person.keypoints[half][person.keypoints[half, 2] > 0, :2]
    if len(points) < 3:
        return person.box_xyxy
    low, high = points.min(axis=0), points.max(axis=0)
    whole = float((person.box_xyxy[2:] - person.box_xyxy[:2]).max())
    radius = max(0.75 * float((high - low).max()), 0.2 * whole)
    centre = (low + high) / 2
    return np.concatenate([centre - radius, centre + radius]).astype(np.float32)


def _drawn_affine(
    box_xyxy: NDArray[np.float32],
    size_hw: tuple[int, int],
    padding: float,
    augmentation: Augmentation,
    mirror: bool,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """2 x 3, image -> crop: the deployed affine, then rotation, scale and shift about the crop's centre, and mirror."""
    height, width = size_hw
    base = inverse_affines(crop_affines(box_xyxy[None], size_hw, padding))[0].astype(np.float64)
    angle = 0.0
    if rng.random() < augmentation.rotate:
        angle = math.radians(float(np.clip(rng.normal() / 2, -1, 1)) * augmentation.rotation_deg)
    factor = math.exp(rng.uniform(-augmentation.scale, augmentation.scale))
    shift = rng.uniform(-augmentation.shift, augmentation.shift, 2) * (width, height)
    turn = factor * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = np.array([width / 2, height / 2])
    affine = np.hstack([turn @ base[:, :2], (turn @ (base[:, 2] - centre) + centre + shift)[:, None]])
    if mirror:
        affine[0] *= -1
        affine[0, 2] += width - 1
    return affine


def _photometric(
    crop: Any,  # uint8 h x w x 3, BGR
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    import cv2

    if rng.random() < augmentation.colour:
        gain = rng.uniform(0.7, 1.3) * rng.uniform(0.85, 1.15, 3)
        levels = np.arange(256)[:, None] * gain + rng.uniform(-25, 25)
        crop = cv2.LUT(crop, np.clip(levels, 0, 255).astype(np.uint8).reshape(1, 256, 3))
    if rng.random() < augmentation.grey:
        crop = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if rng.random() < augmentation.blur:
        crop = cv2.GaussianBlur(crop, (3, 3), float(rng.uniform(0.4, 1.2)))
    if rng.random() < augmentation.cut_out:
        height, width = crop.shape[:2]
        side = int(rng.integers(max(1, height // 10), max(2, height // 3)))
        breadth = int(rng.integers(max(1, width // 10), max(2, width // 3)))
        top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - breadth + 1))
        crop[top : top + side, left : left + breadth] = rng.integers(0, 256, 3)
    return np.asarray(crop, np.uint8)

"""Augmentation of one person, drawn: geometry as a single affine, and how the crop will look, as numbers.

Everything is drawn from the generator that is passed in, so a sample depends on its seed alone, not on which worker
makes it. The affine is the one of `sdk.geometry` (box padding, aspect) with rotation, scale, shift and mirror added;
with `Augmentation.none()` the crop is the one that the deployed estimator takes. The pixels are cut by `sdk.ops.crop`;
`sdk.training.looks` applies the look to a batch of crops, on whatever device they are.

    drawn = drawn_sample(person, (128, 128), 1.25, skeleton, Augmentation(), np.random.default_rng(7))
    drawn.affine, drawn.keypoints, drawn.weights, drawn.look
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sdk.errors import TrainingError
from sdk.geometry import crop_affines, inverse_affines
from sdk.skeletons import Skeleton
from sdk.training.looks import PATCHES, plain_look
from sdk.training.persons import PersonImage

__all__ = ["Augmentation", "Drawn", "body_halves", "drawn_sample"]

UPPER_WORDS = ("nose", "eye", "ear", "head", "neck", "thorax", "shoulder", "elbow", "wrist")
FEWEST_JOINTS = 3  # that a part of a body must show to be a person of its own
CLOSE_UP = (0.35, 0.75)  # side of a close-up, in sides of the person's box
PROBABILITIES = (
    "flip", "half_body", "close_up", "rotate", "turn", "colour", "grey", "blur", "motion_blur", "coarse", "cut_out",
)  # fmt: skip


@dataclass(frozen=True)
class Augmentation:
    """Probabilities (0..1) and ranges. `scale` is in powers of e, `shift` in parts of the crop's side.

    `turn`: any orientation, instead of `rotate`'s up to `rotation_deg`. `close_up`: a part of the person about one of
    its joints. `coarse`: as if taken from far, half or a quarter of the resolution.
    """

    flip: float = 0.5
    half_body: float = 0.1
    close_up: float = 0.0
    rotate: float = 0.7
    rotation_deg: float = 60.0
    turn: float = 0.0
    scale: float = 0.3
    shift: float = 0.08
    colour: float = 0.7
    grey: float = 0.1
    blur: float = 0.1
    motion_blur: float = 0.0
    coarse: float = 0.0
    cut_out: float = 0.4

    def __post_init__(self) -> None:
        for name in PROBABILITIES:
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise TrainingError(f"augmentation '{name}' is a probability, 0 to 1 (got {value})")
        for name in ("rotation_deg", "scale", "shift"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TrainingError(
                    f"augmentation '{name}' must be finite and not negative (got {getattr(self, name)})"
                )

    @classmethod
    def none(cls) -> Augmentation:
        """No augmentation: the crop of the deployed estimator."""
        return cls(**{field.name: 0.0 for field in fields(cls)})


@dataclass(frozen=True)
class Drawn:
    """A sample as it was drawn."""

    affine: NDArray[np.float32]  # 2 x 3, crop -> picture pixels
    keypoints: NDArray[np.float32]  # K x 3: x, y in crop pixels, visibility
    weights: NDArray[np.float32]  # K
    look: NDArray[np.float32]  # sdk.training.looks


def drawn_sample(
    person: PersonImage,
    size_hw: tuple[int, int],
    padding: float,
    skeleton: Skeleton,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> Drawn:
    """The sample that `rng` draws of the person."""
    box = _chosen_box(person, skeleton, augmentation, rng)
    mirror = rng.random() < augmentation.flip
    affine = _drawn_affine(box, size_hw, padding, augmentation, mirror, rng)
    keypoints, weights = person.keypoints.astype(np.float32), person.weights
    keypoints[:, :2] = keypoints[:, :2] @ affine[:, :2].T + affine[:, 2]
    if mirror:
        order = list(skeleton.flip_order)
        keypoints, weights = keypoints[order], weights[order]
    back = inverse_affines(affine[None].astype(np.float32))[0]
    return Drawn(back, keypoints, weights, _drawn_look(size_hw, augmentation, rng))


def body_halves(skeleton: Skeleton) -> tuple[list[int], list[int]]:
    """Joint indices of the upper and of the lower body, told by their names."""
    upper = [j for j, name in enumerate(skeleton.joints) if any(word in name for word in UPPER_WORDS)]
    return upper, [j for j in range(len(skeleton.joints)) if j not in upper]


def _chosen_box(
    person: PersonImage, skeleton: Skeleton, augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The person's box, or one about a part of the body when chance says so and enough of its joints are annotated."""
    chance = rng.random()
    whole = float((person.box_xyxy[2:] - person.box_xyxy[:2]).max())
    annotated = person.keypoints[:, 2] > 0
    if chance < augmentation.half_body:
        half = body_halves(skeleton)[int(rng.integers(2))]
        points = person.keypoints[half][annotated[half], :2]
        if len(points) < FEWEST_JOINTS:
            return person.box_xyxy
        low, high = points.min(axis=0), points.max(axis=0)
        return _square((low + high) / 2, max(0.75 * float((high - low).max()), 0.2 * whole))
    if chance < augmentation.half_body + augmentation.close_up and annotated.any():
        centre = person.keypoints[rng.choice(np.flatnonzero(annotated)), :2]
        radius = rng.uniform(*CLOSE_UP) * whole / 2
        shown = (np.abs(person.keypoints[annotated, :2] - centre) < radius).all(axis=1)
        if shown.sum() >= FEWEST_JOINTS:
            return _square(centre, radius)
    return person.box_xyxy


def _square(centre: NDArray[np.float32], radius: float) -> NDArray[np.float32]:
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
    if rng.random() < augmentation.turn:
        angle = rng.uniform(-math.pi, math.pi)
    factor = math.exp(rng.uniform(-augmentation.scale, augmentation.scale))
    shift = rng.uniform(-augmentation.shift, augmentation.shift, 2) * (width, height)
    turn = factor * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = np.array([width / 2, height / 2])
    affine = np.hstack([turn @ base[:, :2], (turn @ (base[:, 2] - centre) + centre + shift)[:, None]])
    if mirror:
        affine[0] *= -1
        affine[0, 2] += width - 1
    return affine


def _drawn_look(size_hw: tuple[int, int], augmentation: Augmentation, rng: np.random.Generator) -> NDArray[np.float32]:
    look = plain_look()
    if rng.random() < augmentation.colour:
        look["gain"] = rng.uniform(0.7, 1.3) * rng.uniform(0.85, 1.15, 3)
        look["offset"] = rng.uniform(-25, 25)
    look["grey"] = rng.random() < augmentation.grey
    if rng.random() < augmentation.blur:
        look["blur_px"] = rng.uniform(0.4, 1.6)
    if rng.random() < augmentation.motion_blur:
        length, angle = rng.uniform(2, 4), rng.uniform(0, math.pi)
        look["motion_px"] = length * math.cos(angle), length * math.sin(angle)
    if rng.random() < augmentation.coarse:
        look["coarse"] = rng.choice((2, 4))
    if rng.random() < augmentation.cut_out:
        for patch in range(int(rng.integers(1, PATCHES + 1))):
            look["patch"][0, patch] = _drawn_patch(size_hw, rng)
    return look.view(np.float32)


def _drawn_patch(size_hw: tuple[int, int], rng: np.random.Generator) -> tuple[float, ...]:
    """Top, left, bottom, right and colour of a patch over the crop."""
    height, width = size_hw
    tall = int(rng.integers(max(1, height // 10), max(2, height // 3)))
    wide = int(rng.integers(max(1, width // 10), max(2, width // 3)))
    top, left = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
    return (top, left, top + tall, left + wide, *rng.integers(0, 256, 3).tolist())

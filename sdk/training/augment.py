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
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import TrainingError
from sdk.geometry import crop_affines, inverse_affines
from sdk.skeletons import Skeleton
from sdk.training.looks import END, PATCHES, plain_look
from sdk.training.persons import PersonImage

__all__ = ["Augmentation", "Drawn", "body_halves", "drawn_sample"]

UPPER_WORDS = ("nose", "eye", "ear", "head", "neck", "thorax", "shoulder", "elbow", "wrist")
FEWEST_JOINTS = 3  # that a part of a body must show to be a person of its own
CLOSE_UP = (0.35, 0.75)  # side of a close-up, in sides of the person's box
BESIDE = (0.5, 0.9)  # how far a crop beside the person lies from his middle, in sides of his box
KEPT = (0.35, 0.8)  # of the person's box, where the picture ends
ENDS = (0.15, 0.2, 0.15, 0.5)  # how often it ends at the left, top, right and bottom of what is kept
BEYOND = 1e4  # pixels: farther than any picture reaches
PROBABILITIES = (
    "flip", "half_body", "close_up", "beside", "cut_off", "rotate", "turn",
    "colour", "grey", "blur", "motion_blur", "coarse", "cut_out",
)  # fmt: skip


@dataclass(frozen=True)
class Augmentation:
    """Probabilities (0..1) and ranges. `scale` is in powers of e, `shift` in parts of the crop's side.

    `turn`: any orientation, instead of `rotate`'s up to `rotation_deg`. `close_up`: a part of the person about one of
    its joints. `beside`: next to the person, where few of his joints are or none. `cut_off`: the picture ends within
    him, and the box with it. `coarse`: as if taken from far, half or a quarter of the resolution.
    """

    flip: float = 0.5
    half_body: float = 0.1
    close_up: float = 0.0
    beside: float = 0.0
    cut_off: float = 0.0
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
    box, beyond = _chosen_box(person, skeleton, augmentation, rng)
    if beyond is not None:  # a picture ends along the rows and columns of its crops
        augmentation = replace(augmentation, rotate=0.0, turn=0.0)
    mirror = rng.random() < augmentation.flip
    affine = _drawn_affine(box, size_hw, padding, augmentation, mirror, rng)
    keypoints, weights = person.keypoints.astype(np.float32), person.weights
    keypoints[:, :2] = keypoints[:, :2] @ affine[:, :2].T + affine[:, 2]
    if mirror:
        order = list(skeleton.flip_order)
        keypoints, weights = keypoints[order], weights[order]
    look = _drawn_look(size_hw, augmentation, rng)
    if beyond is not None:
        low, high = hidden_part = _hidden_part(beyond, affine, size_hw)
        look["patch"][0, END, :4] = hidden_part.ravel()
        hidden = ((keypoints[:, 1::-1] >= low) & (keypoints[:, 1::-1] < high)).all(axis=1)
        weights = weights * ~hidden
    back = inverse_affines(affine[None].astype(np.float32))[0]
    return Drawn(back, keypoints, weights, look.view(np.float32))


def body_halves(skeleton: Skeleton) -> tuple[list[int], list[int]]:
    """Joint indices of the upper and of the lower body, told by their names."""
    upper = [j for j, name in enumerate(skeleton.joints) if any(word in name for word in UPPER_WORDS)]
    return upper, [j for j in range(len(skeleton.joints)) if j not in upper]


def _chosen_box(
    person: PersonImage, skeleton: Skeleton, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """The person's box, or, as chance says, another; and two corners of what the picture does not show, if it ends."""
    chance = rng.random()
    for share, choose in (
        (augmentation.half_body, _half_body),
        (augmentation.close_up, _close_up),
        (augmentation.beside, _beside),
    ):
        if chance < share:
            return choose(person, skeleton, rng), None
        chance -= share
    return _cut_off(person.box_xyxy, rng) if chance < augmentation.cut_off else (person.box_xyxy, None)


def _half_body(person: PersonImage, skeleton: Skeleton, rng: np.random.Generator) -> NDArray[np.float32]:
    """About the joints of half the body; the whole box where too few are annotated."""
    half = body_halves(skeleton)[int(rng.integers(2))]
    points = person.keypoints[half][person.keypoints[half, 2] > 0, :2]
    if len(points) < FEWEST_JOINTS:
        return person.box_xyxy
    low, high = points.min(axis=0), points.max(axis=0)
    return _square((low + high) / 2, max(0.75 * float((high - low).max()), 0.2 * _side(person)))


def _close_up(person: PersonImage, skeleton: Skeleton, rng: np.random.Generator) -> NDArray[np.float32]:
    """About one joint; the whole box where too few would be seen."""
    annotated = person.keypoints[:, 2] > 0
    if not annotated.any():
        return person.box_xyxy
    centre = person.keypoints[rng.choice(np.flatnonzero(annotated)), :2]
    radius = rng.uniform(*CLOSE_UP) * _side(person) / 2
    shown = (np.abs(person.keypoints[annotated, :2] - centre) < radius).all(axis=1)
    return _square(centre, radius) if shown.sum() >= FEWEST_JOINTS else person.box_xyxy


def _beside(person: PersonImage, skeleton: Skeleton, rng: np.random.Generator) -> NDArray[np.float32]:
    """Next to the person, in the picture."""
    angle, far = rng.uniform(-math.pi, math.pi), rng.uniform(*BESIDE) * _side(person)
    middle = (person.box_xyxy[:2] + person.box_xyxy[2:]) / 2
    centre = np.clip(middle + far * np.array([math.cos(angle), math.sin(angle)]), 0, person.image.shape[1::-1])
    return _square(centre, rng.uniform(*CLOSE_UP) * _side(person) / 2)


def _cut_off(
    box_xyxy: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The part of the box that a picture shows which ends within it, and what it does not show."""
    end = int(rng.choice(4, p=ENDS))
    box, beyond = box_xyxy.copy(), np.array([-BEYOND, -BEYOND, BEYOND, BEYOND], np.float32)
    other = (end + 2) % 4
    box[end] = box[other] + rng.uniform(*KEPT) * (box[end] - box[other])
    beyond[other] = box[end]
    return box, beyond.reshape(2, 2)


def _hidden_part(
    beyond: NDArray[np.float32], affine: NDArray[np.float64], size_hw: tuple[int, int]
) -> NDArray[np.float64]:
    """2 x 2: top and left, bottom and right, in the crop, of a part of the picture between two corners."""
    corners = (beyond @ affine[:, :2].T + affine[:, 2])[:, ::-1]
    return np.clip(np.round([corners.min(axis=0), corners.max(axis=0)]), 0, size_hw)


def _side(person: PersonImage) -> float:
    """The longer one of the person's box, pixels."""
    return float((person.box_xyxy[2:] - person.box_xyxy[:2]).max())


def _square(centre: NDArray[Any], radius: float) -> NDArray[np.float32]:
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


def _drawn_look(size_hw: tuple[int, int], augmentation: Augmentation, rng: np.random.Generator) -> NDArray[Any]:
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
    return look


def _drawn_patch(size_hw: tuple[int, int], rng: np.random.Generator) -> tuple[float, ...]:
    """Top, left, bottom, right and colour of a patch over the crop."""
    height, width = size_hw
    tall = int(rng.integers(max(1, height // 10), max(2, height // 3)))
    wide = int(rng.integers(max(1, width // 10), max(2, width // 3)))
    top, left = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
    return (top, left, top + tall, left + wide, *rng.integers(0, 256, 3).tolist())

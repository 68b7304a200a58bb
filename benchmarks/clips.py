"""Clips with known truth for following persons: photographs under a drifting camera, and rendered figures that walk.

A clip starts with one person as a real detector found him (RTMDet-nano or YOLOX-nano, in turns; whom it does not find
is no clip), or with a box on background, and says for each frame whether that person is there. Nothing is downloaded:
`../shared/data` beside the checkout, and `sdk.media.figures`. Seeded.

    for clip in all_clips(shared, persons=150): ...         # clip.kind, clip.frames, clip.box, clip.score, clip.there
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sdk.media.figures import drawn_pose, joints_from_pose, random_background, walking_pose
from sdk.media.mannequin import Wardrobe, draw_figure
from sdk.people.detector import Detector
from sdk.people.tracking import box_iou

Frame = NDArray[np.uint8]
Detect = Callable[[Frame], tuple[Any, Any]]

FRAMES = 24  # of a clip
LEAVING = range(6, 13)  # the frames in which somebody goes, where a clip is of that
HALVES = ("desk", "edge", "side", "behind a sign", "half in a photograph")
FOUND_IOU = 0.4  # of a detector's box with what is visible of a person
NOISE = 3.0  # grey levels, of a camera


@dataclass(frozen=True)
class Clip:
    """`joints` 14 x 2 a frame, pixels, NaN where not visible; None of a photograph's other joint sets or background."""

    kind: str
    frames: list[Frame]
    box: NDArray[np.float32]  # 4, xyxy, of the detection in the first frame
    score: float
    there: list[bool]
    joints: list[NDArray[np.float32]] | None = None


@dataclass(frozen=True)
class World:
    """A picture, and what of a person in it can be seen: `joints` K x 2 (NaN: not), `box` of what is visible."""

    picture: Frame
    joints: NDArray[np.float32]
    box: NDArray[np.float32]  # 4
    view: tuple[int, int] | None = None  # height and width of what the camera sees, from the top left; None: all


def detectors(shared: Path) -> list[Detect]:
    names = ("rtmdet-nano-person", "yolox-nano-coco80")
    return [Detector(shared / "models" / f"{name}.onnx", threads=1) for name in names]


def all_clips(shared: Path, persons: int, seed: int = 0) -> Iterator[Clip]:
    """Every kind; `persons` photographs and a fifth as many figures are tried."""
    finders = cycle(detectors(shared))
    for index, (picture, joints) in enumerate(_annotated(shared, persons, seed)):
        rng = np.random.default_rng([seed, 1, index])
        for kind, world in _worlds(picture, joints, rng):
            yield from _found(kind, world, next(finders), rng)
    for index in range(persons // 5):
        rng = np.random.default_rng([seed, 2, index])
        picture, joints = _figure_picture(rng)
        for kind, world in _worlds(picture, joints, rng):
            yield from _found(f"figure: {kind}", world, next(finders), rng)
    yield from walkers_that_leave(finders, persons // 5, seed)
    yield from _samples(shared, finders, seed)
    yield from _background(shared, finders, persons, seed)


def is_half(kind: str) -> bool:
    return kind.removeprefix("figure: ") in HALVES


def _annotated(shared: Path, most: int, seed: int) -> Iterator[tuple[Frame, NDArray[np.float32]]]:
    """Photographs of one annotated person each, and 14 x 2 joints."""
    folder = shared / "data" / "lspet"
    listed = json.loads((folder / "val.json").read_text())
    names = {each["id"]: each["file_name"] for each in listed["images"]}
    order = np.random.default_rng(seed).permutation(len(listed["annotations"]))[:most]
    for annotation in (listed["annotations"][row] for row in order):
        triples = np.array(annotation["keypoints"], np.float32).reshape(-1, 3)
        if (triples[:, 2] > 0).sum() >= 11:
            yield cv2.imread(str(folder / names[annotation["image_id"]])), _seen(triples)


def _seen(triples: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(triples[:, 2:] > 0, triples[:, :2], np.nan).astype(np.float32)


def _worlds(picture: Frame, joints: NDArray[np.float32], rng: np.random.Generator) -> Iterator[tuple[str, World]]:
    """The person whole, and half of him before and behind things."""
    height, width = picture.shape[:2]
    yield "whole", World(picture, joints, box_of(joints))
    if np.isnan(joints[[0, 1, 6, 7, 12]]).any():
        return
    waist = int(np.clip(joints[6:8, 1].mean(), 16, height - 8))
    middle = int(np.clip(joints[6:8, 0].mean(), 16, width - 8))
    if joints[12, 1] < joints[[0, 1], 1].mean() < waist:  # upright
        desk = (0, waist, width, height)
        yield "desk", _covered(picture, joints, desk, rng)
        upper = np.where(joints[:, 1:] < waist, joints, np.nan)
        yield "edge", World(picture, joints, _within(box_of(upper), (0, 0, width, waist)), view=(waist, width))
        yield "behind a sign", _covered(picture, joints, (0, 0, width, waist), rng)
    left = np.where(joints[:, :1] < middle, joints, np.nan)
    if (~np.isnan(left[:, 0])).sum() >= 5:
        yield "side", World(picture, joints, _within(box_of(left), (0, 0, middle, height)), view=(height, middle))
    yield "leaves behind something", World(picture, joints, box_of(joints))
    yield "leaves the picture", World(picture, joints, box_of(joints))


def _covered(picture: Frame, joints: Any, area: tuple[int, int, int, int], rng: np.random.Generator) -> World:
    """Something stands before the upper or the lower part of the picture."""
    x1, y1, x2, y2 = area
    shown = picture.copy()
    shown[y1:y2, x1:x2] = _texture(rng, y2 - y1, x2 - x1)
    hidden = (joints >= (x1, y1)).all(axis=1) & (joints < (x2, y2)).all(axis=1)
    visible = np.where(hidden[:, None], np.nan, joints).astype(np.float32)
    height, width = picture.shape[:2]
    seen = (0, y2, width, height) if y1 == 0 else (0, 0, width, y1)
    return World(shown, visible, _within(box_of(visible), seen))


def _texture(rng: np.random.Generator, height: int, width: int) -> Frame:
    coarse = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def box_of(joints: NDArray[np.float32]) -> NDArray[np.float32]:  # K x 2, NaN: not seen
    """The joints' extent and 15 % of it at each side."""
    low, high = np.nanmin(joints, axis=0), np.nanmax(joints, axis=0)
    return np.concatenate([low - 0.15 * (high - low), high + 0.15 * (high - low)]).astype(np.float32)


def _within(box: NDArray[np.float32], area: tuple[int, int, int, int]) -> NDArray[np.float32]:
    return np.clip(box, area[:2] * 2, area[2:] * 2).astype(np.float32)


def _found(kind: str, world: World, detect: Detect, rng: np.random.Generator) -> Iterator[Clip]:
    """The clip of a world, where the detector finds the person in its first frame."""
    clip = _filmed(kind, world, rng)
    boxes, scores = detect(clip.frames[0])
    if len(boxes):
        overlap = box_iou(world.box[None], boxes)[0]
        if overlap.max() >= FOUND_IOU:
            yield replace(clip, box=boxes[overlap.argmax()], score=float(scores[overlap.argmax()]))


def _filmed(kind: str, world: World, rng: np.random.Generator) -> Clip:
    """A camera that drifts and zooms a little; in clips of leaving somebody goes out of sight."""
    height, width = world.view or world.picture.shape[:2]
    size = float(max(world.box[2:] - world.box[:2]))
    sway, phase = rng.uniform(0.02, 0.08, 2) * size, rng.uniform(0, 2 * np.pi, 2)
    frames, joints, there = [], [], []
    cloth = _texture(rng, *world.picture.shape[:2])
    wide = np.concatenate([world.picture, random_background(rng, world.picture.shape[:2])], axis=1)
    for index in range(FRAMES):
        gone = np.clip((index - LEAVING.start + 1) / len(LEAVING), 0, 1)
        move = sway * (np.sin(2 * np.pi * index / FRAMES + phase) - np.sin(phase))
        if kind.endswith("the picture"):
            move[0] -= gone * (world.box[2] + 8)
        zoom = 1 + 0.04 * np.sin(np.pi * index / FRAMES)
        affine = np.array([[zoom, 0, move[0]], [0, zoom, move[1]]], np.float32)
        picture = wide if kind.endswith("the picture") else world.picture
        if kind.endswith("something"):
            picture = picture.copy()
            edge = int(gone * picture.shape[1])
            picture[:, :edge] = cloth[:, :edge]
        frame = cv2.warpAffine(picture, affine, world.picture.shape[1::-1], borderMode=cv2.BORDER_REFLECT_101)
        frames.append(noisy(frame[:height, :width], rng))
        joints.append((world.joints @ affine[:, :2].T + affine[:, 2]).astype(np.float32))
        there.append("leaves" not in kind or gone < 1)
    return Clip(kind, frames, world.box, 1.0, there, joints)


def noisy(frame: Frame, rng: np.random.Generator) -> Frame:
    grain = rng.normal(0, NOISE, frame.shape[:2])[..., None]
    return np.clip(frame + grain, 0, 255).astype(np.uint8)


def _figure_picture(rng: np.random.Generator) -> tuple[Frame, NDArray[np.float32]]:
    frame = random_background(rng, (300, 360))
    height_px, pose = float(rng.uniform(0.55, 0.8)) * 300, drawn_pose(rng)
    joints = joints_from_pose(pose, (rng.uniform(140, 220), 155), height_px)
    draw_figure(frame, joints, height_px, Wardrobe.drawn(rng), pose.facing)
    return frame, joints


def walkers_that_leave(finders: Iterator[Detect], count: int, seed: int) -> Iterator[Clip]:
    """Rendered figures who walk out of the picture, or are gone from one frame to the next."""
    for index in range(count):
        rng = np.random.default_rng([seed, 3, index])
        scene, height_px = random_background(rng, (300, 360)), float(rng.uniform(0.5, 0.75)) * 300
        wardrobe, phase, vanishes = Wardrobe.drawn(rng), rng.uniform(0, 6), index % 2 == 0
        kind = "figure: is gone at once" if vanishes else "figure: walks out"
        frames, joints, there = [], [], []
        for at in range(FRAMES):
            speed = 2.0 if vanishes else 16.0
            pose = walking_pose(phase + 0.15 * at)
            walker = joints_from_pose(pose, (170.0 - speed * at, 150.0), height_px)
            frame = scene.copy()
            is_there = at < LEAVING.stop if vanishes else bool((walker[:, 0] > 0).any())
            if is_there:
                draw_figure(frame, walker, height_px, wardrobe, pose.facing)
            frames.append(noisy(frame, rng))
            joints.append(walker)
            there.append(is_there)
        boxes, scores = next(finders)(frames[0])
        overlap = box_iou(box_of(joints[0])[None], boxes)[0] if len(boxes) else np.zeros(1)
        if overlap.max() >= FOUND_IOU:
            yield Clip(kind, frames, boxes[overlap.argmax()], float(scores[overlap.argmax()]), there, joints)


def _samples(shared: Path, finders: Iterator[Detect], seed: int) -> Iterator[Clip]:
    """The annotated persons of the sample photographs, 64 pixels tall and more, as their own picture shows them."""
    for picture, persons in _sample_pictures(shared):
        for index, (box, joints) in enumerate(persons):
            if box[3] - box[1] < 64 or np.isnan(joints).all():
                continue
            rng = np.random.default_rng([seed, 4, index])
            seen = (~np.isnan(joints[:, 0])).mean()
            for detect in (next(finders), next(finders)):
                yield from _found(
                    "whole" if seen > 0.6 else "half in a photograph", World(picture, joints, box), detect, rng
                )


def _sample_pictures(shared: Path) -> Iterator[tuple[Frame, list[tuple[NDArray[np.float32], NDArray[np.float32]]]]]:
    """The pictures of COCO and CrowdPose, whose persons are all annotated: (box 4, joints K x 2) each."""
    for name in ("coco", "crowdpose"):
        folder = shared / "data" / "samples" / name
        listed = json.loads((folder / f"test_{name}.json").read_text())
        for image in listed["images"]:
            mine = [each for each in listed["annotations"] if each["image_id"] == image["id"]]
            persons = []
            for each in mine:
                x, y, w, h = each["bbox"]
                box = np.array([x, y, x + w, y + h], np.float32)
                persons.append((box, _seen(np.array(each["keypoints"], np.float32).reshape(-1, 3))))
            yield cv2.imread(str(folder / image["file_name"])), persons


def _background(shared: Path, finders: Iterator[Detect], count: int, seed: int) -> Iterator[Clip]:
    """What a detector takes for a person on person-free pictures, and, since that is rare, boxes placed beside the
    persons of photographs, with the scores of those that are rare."""
    scores = []
    for index in range(2 * count):
        rng = np.random.default_rng([seed, 5, index])
        picture = random_background(rng, (300, 360))
        for box, score in zip(*next(finders)(picture), strict=True):
            scores.append(float(score))
            yield _beside(picture, box, float(score), rng)
    drawn = np.random.default_rng([seed, 6])
    for picture, joints in _annotated(shared, count, seed + 1):
        height, width = picture.shape[:2]
        for _ in range(8):
            tall = drawn.uniform(0.35, 0.9) * height
            wide = tall * drawn.uniform(0.35, 0.7)
            x, y = drawn.uniform(0, max(1, width - wide)), drawn.uniform(0, max(1, height - tall))
            box = np.array([x, y, x + wide, y + tall], np.float32)
            if _share_of(box, box_of(joints)) < 0.05:
                yield _beside(picture, box, float(drawn.choice(scores)), drawn)
                break


def _share_of(box: Any, other: Any) -> float:
    """How much of `box` lies in `other`."""
    common = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None).prod()
    return float(common / (box[2:] - box[:2]).prod())


def _beside(picture: Frame, box: Any, score: float, rng: np.random.Generator) -> Clip:
    joints = np.full((14, 2), np.nan, np.float32)
    clip = _filmed("background", World(picture, joints, box), rng)
    return replace(clip, score=score, there=[False] * FRAMES)

"""Do two forms of one network agree? Crops to ask both on, and the distance between the keypoints they answer.

The crops are of photographs when the caller has some; else they are rendered, and every message says so.

    crops = comparison_crops(recipe, images=Path("photos"))
    distance_px = keypoint_distance(outputs_of_one, outputs_of_other, recipe)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdk import ops
from sdk.errors import DatasetError
from sdk.geometry import crop_affines
from sdk.recipe import Recipe

__all__ = ["ComparisonCrops", "comparison_crops", "keypoint_distance", "rendered_picture"]

RENDERED, PHOTOGRAPHS = 4, 16
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class ComparisonCrops:
    """Network inputs and where they come from, in words."""

    crops: Float32Array  # N x 3 x h x w, normalised
    source: str


def comparison_crops(recipe: Recipe, images: Path | None = None) -> ComparisonCrops:
    """Up to 16 crops of the photographs in `images`, each taken whole; without `images`, 4 rendered figures."""
    frames = [rendered_picture(seed) for seed in range(RENDERED)] if images is None else _photographs(images)
    source = f"{len(frames)} rendered figures (no --images given)"
    if images is not None:
        source = f"{len(frames)} photographs of '{images}'"
    return ComparisonCrops(np.concatenate([_crop(frame, recipe) for frame in frames]), source)


def keypoint_distance(one: Sequence[Float32Array], other: Sequence[Float32Array], recipe: Recipe) -> float:
    """Mean distance, in crop pixels, between the keypoints that two sets of outputs mean."""
    return float(np.linalg.norm(_keypoints(one, recipe) - _keypoints(other, recipe), axis=-1).mean())


def _keypoints(outputs: Sequence[Float32Array], recipe: Recipe) -> Float32Array:
    """N x K x 2 crop pixels: the largest bin of each axis, or the largest cell of the heatmap."""
    if recipe.output.split_ratio is not None:
        bins = [output.argmax(axis=-1) for output in outputs]  # x, y: N x K
        return np.stack(bins, axis=-1).astype(np.float32) / recipe.output.split_ratio
    heatmap: Float32Array = outputs[0]  # N x K x h/4 x w/4
    cells = heatmap.reshape(*heatmap.shape[:2], -1).argmax(axis=-1)
    rows, columns = np.unravel_index(cells, heatmap.shape[2:])
    cells_px = np.float32(recipe.input.width / heatmap.shape[3])
    return np.stack([columns, rows], axis=-1).astype(np.float32) * cells_px


def _crop(frame: NDArray[np.uint8], recipe: Recipe) -> Float32Array:  # H x W x 3
    height, width = frame.shape[:2]
    boxes_xyxy = np.array([[0, 0, width, height]], np.float32)
    affines = crop_affines(boxes_xyxy, recipe.input.size_hw, padding=1.0)
    crops: Float32Array = ops.crop(
        frame,
        affines,
        recipe.input.size_hw,
        mean=recipe.input.mean,
        std=recipe.input.std,
        channel_order=recipe.input.colour,
    )
    return crops


def _photographs(folder: Path) -> list[NDArray[np.uint8]]:
    import cv2

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    step = max(1, len(paths) // PHOTOGRAPHS)
    frames = []
    for path in paths[::step][:PHOTOGRAPHS]:
        frame = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if frame is None:
            raise DatasetError(f"image '{path}' cannot be read; remove it, or choose another --images")
        frames.append(frame.astype(np.uint8, copy=False))
    if not frames:
        raise DatasetError(f"'{folder}' must be a folder with photographs ({', '.join(sorted(SUFFIXES))})")
    return frames


def rendered_picture(seed: int) -> NDArray[np.uint8]:
    """A 256 x 192 picture with a photograph's statistics: 1/f noise, and a figure of limbs in front of it."""
    import cv2

    rng = np.random.default_rng(seed)
    picture = np.full((256, 192, 3), rng.uniform(60, 180, 3), np.float32)
    for cells in (4, 8, 16, 32, 64):
        noise = rng.normal(0, 160 / cells, (cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(noise, (192, 256), interpolation=cv2.INTER_CUBIC)
    joints = np.array([[96, 40], [96, 90], [96, 150], [70, 215], [122, 215], [50, 130], [142, 130]], np.float32)
    joints += rng.normal(0, 10, joints.shape)
    for start, end in ((0, 1), (1, 2), (2, 3), (2, 4), (1, 5), (1, 6)):
        colour = tuple(float(value) for value in rng.uniform(0, 255, 3))
        points = [tuple(int(value) for value in joints[index]) for index in (start, end)]
        cv2.line(picture, points[0], points[1], colour, thickness=int(rng.integers(12, 24)), lineType=cv2.LINE_AA)
    return np.clip(picture, 0, 255).astype(np.uint8)

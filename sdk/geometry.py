"""From boxes to crops and back: the one place that knows centre, scale, padding and aspect. numpy only.

The convention is mmpose's top-down affine without rotation (and that of the SimCC code): the box is widened about its
centre to the aspect of the network's input, scaled by the padding, and its centre lands on (w / 2, h / 2) of the crop.
Integer coordinates are pixel centres, as in OpenCV.

    affines = crop_affines(boxes_xyxy, size_hw=(256, 192), padding=1.25)      # crop -> frame pixels
    frame_xy = apply_affines(affines, crop_xy)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError

__all__ = ["apply_affines", "boxes_from_keypoints", "check_boxes", "crop_affines", "inverse_affines"]

Float32Array = NDArray[np.float32]
MAX_COORDINATE_PX = 2.0**30  # the crop op moves no farther


def check_boxes(boxes_xyxy: object) -> Float32Array:
    """A copy of the boxes as N x 4 float32 xyxy in frame pixels; one box may come bare, as 4 numbers.

    InputError names the first box that is not a box.
    """
    try:
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused below
            boxes = np.array(boxes_xyxy, dtype=np.float32, order="C")
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a torch tensor that requires grad
        raise InputError(f"boxes must be an N x 4 array of numbers, xyxy in pixels ({error})") from error
    if boxes.size == 0:
        return np.zeros((0, 4), np.float32)
    if boxes.shape == (4,):
        boxes = boxes[None]
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        scored = boxes.ndim == 2 and boxes.shape[1] > 4
        mend = "; give the first four columns, and scores as box_scores" if scored else ""
        raise InputError(f"boxes must have the shape N x 4, xyxy in pixels (got {boxes.shape}){mend}")
    _check_each_box(boxes)
    return boxes


def _check_each_box(boxes: Float32Array) -> None:  # N x 4 xyxy
    for index in np.flatnonzero(~np.isfinite(boxes).all(axis=1)):
        raise InputError(f"box {index} must be finite numbers (got {boxes[index].tolist()})")
    for index in np.flatnonzero((np.abs(boxes) > MAX_COORDINATE_PX).any(axis=1)):
        raise InputError(
            f"box {index} must lie within 2^30 pixels of the frame's corner (got {boxes[index].tolist()}); "
            "give x1, y1, x2, y2 in frame pixels"
        )
    for axis, low, high in (("x", 0, 2), ("y", 1, 3)):
        for index in np.flatnonzero(boxes[:, high] <= boxes[:, low]):
            raise InputError(
                f"box {index} has no area: {axis}2 must exceed {axis}1 "
                f"(got {axis}1={boxes[index, low]}, {axis}2={boxes[index, high]})"
            )


def crop_affines(
    boxes_xyxy: Float32Array,  # N x 4, frame pixels
    size_hw: tuple[int, int],
    padding: float,
) -> Float32Array:
    """N x 2 x 3 float32, crop -> frame pixels, for checked boxes (mmpose `bbox_xyxy2cs` and `get_warp_matrix`)."""
    height, width = size_hw
    x1, y1, x2, y2 = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4).T
    scale = np.maximum(x2 - x1, (y2 - y1) * (width / height)) * (padding / width)  # frame pixels per crop pixel
    affines = np.zeros((len(scale), 2, 3), np.float32)
    affines[:, 0, 0] = affines[:, 1, 1] = scale
    affines[:, 0, 2] = (x1 + x2 - scale * width) / 2
    affines[:, 1, 2] = (y1 + y2 - scale * height) / 2
    return affines


def inverse_affines(affines: Float32Array) -> Float32Array:  # N x 2 x 3
    """N x 2 x 3 float32: the maps the other way."""
    linear = np.linalg.inv(np.asarray(affines[:, :, :2], np.float64))
    shift = -linear @ np.asarray(affines[:, :, 2:], np.float64)
    return np.concatenate([linear, shift], axis=2).astype(np.float32)


def apply_affines(
    affines: Float32Array,  # N x 2 x 3
    points: Float32Array,  # N x K x 2
) -> Float32Array:
    """N x K x 2: each person's points through that person's affine."""
    moved = points @ affines[:, :, :2].transpose(0, 2, 1) + affines[:, None, :, 2]
    return moved.astype(np.float32)


def boxes_from_keypoints(
    keypoints: Float32Array,  # N x K x 2, frame pixels
    scores: Float32Array,  # N x K
    threshold: float,
    margin: float = 0.15,
) -> Float32Array:
    """N x 4 xyxy around the joints scoring at least `threshold`, `margin` of the extent added at each side.

    A person with fewer than two such joints, or all of them in a row or column, gets a row of NaN.
    """
    seen = (scores >= threshold)[..., None]
    low = np.where(seen, keypoints, np.inf).min(axis=1, initial=np.inf)
    high = np.where(seen, keypoints, -np.inf).max(axis=1, initial=-np.inf)
    with np.errstate(invalid="ignore"):
        extent = high - low
        boxes = np.concatenate([low - margin * extent, high + margin * extent], axis=1)
    boxes[(extent <= 0).any(axis=1)] = np.nan
    return boxes.astype(np.float32)

"""From boxes to crops and back. What a box must be and how its crop lies is computed in cpp_ext/shared/box_math.h, for
every caller alike; the words for what is no box are here.

The convention is mmpose's top-down affine without rotation (and that of the SimCC code): the box is widened about its
centre to the aspect of the network's input, scaled by the padding, and its centre lands on (w / 2, h / 2) of the crop.
Integer coordinates are pixel centres, as in OpenCV.

    affines = crop_affines(boxes_xyxy, size_hw=(256, 192), padding=1.25)      # crop -> frame pixels
    frame_xy = apply_affines(affines, crop_xy)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sdk.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32Array = NDArray[np.float32]

__all__ = [
    "apply_affines",
    "bad_box",
    "box_array",
    "boxes_around",
    "boxes_from_keypoints",
    "check_boxes",
    "crop_affines",
    "inverse_affines",
    "placed_boxes",
]

NUMBERS = frozenset(np.dtype(code) for code in "?bBhHiIlLqQefd")  # what the native code reads as it is
NOT_FINITE, TOO_FAR, NO_WIDTH = (
    1,
    2,
    3,
)  # `sdk::BoxFault` in cpp_ext/shared/box_math.h; 4 is a box without height


def check_boxes(boxes_xyxy: object) -> Float32Array:
    """A copy of the boxes as N x 4 float32 xyxy in frame pixels; one box may come bare, as 4 numbers.

    InputError names the first box that is not a box.
    """
    from sdk import _native

    given = box_array(boxes_xyxy)
    boxes = np.empty(given.shape, np.float32)
    fault, row = _native.check_boxes(boxes, given)
    if fault:
        raise bad_box(boxes, fault, row)
    return boxes


def box_array(boxes_xyxy: object) -> NDArray[Any]:
    """The boxes as an N x 4 array of a type that the native code reads, not yet judged; an array is not copied."""
    if type(boxes_xyxy) is np.ndarray and boxes_xyxy.dtype in NUMBERS:
        boxes = boxes_xyxy
    else:
        try:
            with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused later
                boxes = np.array(boxes_xyxy, dtype=np.float32, order="C")
        except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a torch tensor that requires grad
            raise InputError(f"boxes must be an N x 4 array of numbers, xyxy in pixels ({error})") from error
    if boxes.ndim == 2 and boxes.shape[1] == 4:
        return boxes
    if boxes.size == 0:
        return np.zeros((0, 4), np.float32)
    if boxes.shape == (4,):
        return boxes[None]
    scored = boxes.ndim == 2 and boxes.shape[1] > 4
    mend = "; give the first four columns, and scores as box_scores" if scored else ""
    raise InputError(f"boxes must have the shape N x 4, xyxy in pixels (got {boxes.shape}){mend}")


def bad_box(boxes: Float32Array, fault: int, row: int) -> InputError:  # N x 4
    """What is wrong with the box in this row, by the native code's number for it."""
    x1, y1, x2, y2 = boxes[row]
    if fault == NOT_FINITE:
        return InputError(f"box {row} must be finite numbers (got {boxes[row].tolist()})")
    if fault == TOO_FAR:
        return InputError(
            f"box {row} must lie within 2^30 pixels of the frame's corner (got {boxes[row].tolist()}); "
            "give x1, y1, x2, y2 in frame pixels"
        )
    axis, low, high = ("x", x1, x2) if fault == NO_WIDTH else ("y", y1, y2)
    return InputError(f"box {row} has no area: {axis}2 must exceed {axis}1 (got {axis}1={low}, {axis}2={high})")


def crop_affines(
    boxes_xyxy: NDArray[Any],  # N x 4, frame pixels
    size_hw: tuple[int, int],
    padding: float,
) -> Float32Array:
    """N x 2 x 3 float32, crop -> frame pixels, for checked boxes (mmpose `bbox_xyxy2cs` and `get_warp_matrix`)."""
    from sdk import _native

    boxes = np.asarray(boxes_xyxy).reshape(-1, 4)
    if boxes.dtype not in NUMBERS:
        boxes = boxes.astype(np.float64)
    affines = np.empty((len(boxes), 2, 3), np.float32)
    _native.affines_from_boxes(affines, boxes, size_hw, padding)
    return affines


def placed_boxes(
    boxes: NDArray[Any],  # N x 4, as box_array gives them
    size_hw: tuple[int, int],
    padding: float,
) -> tuple[Float32Array, Float32Array]:
    """What `check_boxes` gives, and the `crop_affines` of it, in one native call: each frame needs both."""
    from sdk import _native

    count = len(boxes)
    checked, affines = np.empty((count, 4), np.float32), np.empty((count, 2, 3), np.float32)
    fault, row = _native.place_boxes(checked, affines, boxes, size_hw, padding)
    if fault:
        raise bad_box(checked, fault, row)
    return checked, affines


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
    return boxes_around(keypoints, scores >= threshold, margin)


def boxes_around(
    keypoints: Float32Array,  # N x K x 2, frame pixels
    counted: NDArray[np.bool_],  # N x K
    margin: float = 0.15,
) -> Float32Array:
    """As `boxes_from_keypoints`, around the joints that are counted."""
    from sdk import _native

    boxes = np.empty((len(keypoints), 4), np.float32)
    _native.boxes_around(
        boxes, np.ascontiguousarray(keypoints, np.float32), np.ascontiguousarray(counted, np.bool_), margin
    )
    return boxes

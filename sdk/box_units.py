"""Boxes of other units than pixels, or in another order than x, y, width, height: told by what most of them do.

One odd box is a person's own; what most boxes of a file do is the file's. It judges, and changes no number.

    problem = unit_problem(boxes_xyxy, sizes_wh, keypoints)      # None, or what most boxes do, and the mend
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.floating]

__all__ = ["SHARES", "beyond_picture", "unit_problem"]


SHARES = "they look like shares of the picture, 0 to 1: multiply them by its width and height"
CORNERS = "they look like x1, y1, x2, y2 where x, y, width, height is meant: take x1 and y1 off the others"
OTHERS = "boxes and joints are not of one picture, or not in one unit: check both"
BEYOND = 0.1  # of a box's own side, over the picture's edge: more than a detector's rounding
OF_CORNERS = 0.25  # of boxes beyond their picture are enough where each is wider than its x and higher than its y
ABOUT = 0.25  # of a box's sides, about it: where its joints still are its own


def unit_problem(
    boxes_xyxy: FloatArray,  # N x 4
    sizes_wh: FloatArray | None = None,  # N x 2, of the boxes' pictures; not finite where it is not known
    keypoints: FloatArray | None = None,  # N x K x 3: x, y, visibility
) -> str | None:
    """What most boxes do that no box in pixels does; None where most are plain."""
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    extent = boxes[:, 2:] - boxes[:, :2]
    tiny = np.all((extent <= 1) & (boxes[:, 2:] <= 2), axis=1)
    if _most(tiny):
        return f"most boxes are under a pixel (such as {_size(extent[tiny][0])}); {SHARES}"
    if sizes_wh is not None:
        known = np.isfinite(sizes_wh).all(axis=1)
        beyond = known & beyond_picture(boxes, sizes_wh)
        if known.any() and beyond[known].mean() > (OF_CORNERS if (extent > boxes[:, :2]).all() else 0.5):
            row = int(np.flatnonzero(beyond)[0])
            place, picture = _place(boxes[row, 2:]), _size(np.asarray(sizes_wh[row], np.float64))
            return f"boxes leave their picture (such as one to {place} in one of {picture}); {CORNERS}"
    if keypoints is not None and len(boxes):
        lost = _without_joints(boxes, extent, np.asarray(keypoints, np.float64))
        if _most(lost):
            return f"most boxes do not hold the joints annotated with them; {OTHERS}"
    return None


def beyond_picture(boxes_xyxy: FloatArray, sizes_wh: FloatArray) -> NDArray[np.bool_]:  # N x 4, N x 2 -> N
    """Which boxes reach beyond the right or the lower edge of their picture."""
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    over = boxes[:, 2:] - sizes_wh > BEYOND * (boxes[:, 2:] - boxes[:, :2])
    return np.asarray(over.any(axis=1), bool)


def _without_joints(boxes: FloatArray, extent: FloatArray, keypoints: FloatArray) -> NDArray[np.bool_]:
    """Of the boxes with annotated joints: whether most of these lie elsewhere."""
    low, high = boxes[:, None, :2] - ABOUT * extent[:, None], boxes[:, None, 2:] + ABOUT * extent[:, None]
    seen = keypoints[..., 2] > 0
    inside = ((keypoints[..., :2] >= low) & (keypoints[..., :2] <= high)).all(axis=2) & seen
    counts = seen.sum(axis=1)
    return np.asarray((inside.sum(axis=1) < counts / 2)[counts > 0], bool)


def _most(mask: NDArray[np.bool_]) -> bool:
    return len(mask) > 0 and bool(mask.mean() > 0.5)


def _size(values: FloatArray) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _place(values: FloatArray) -> str:
    return ", ".join(f"{value:.4g}" for value in values)

"""Which box is cropped: the annotation-box conventions of the protocols, in one place, and nothing else.

A published figure depends on how its code cleaned the boxes, by up to a pixel a side. Detections are taken as they are
by all of them. The geometry after this (aspect, padding, affine) is the same everywhere and lives in `sdk.geometry`.

    convention = convention_of(recipe)                     # 'paper', 'mmpose' or 'plain'
    boxes_xyxy = boxes_from_annotations(xywh, sizes_wh, convention)

Sources: paper: leeyegy/SimCC `lib/dataset/coco.py` (HRNet's code) and `lib/dataset/mpii.py`; mmpose 1.x:
`datasets/datasets/base/base_coco_style_dataset.py`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sdk.recipe import Recipe

__all__ = ["Convention", "boxes_from_annotations", "boxes_from_mpii", "convention_of"]

Convention = Literal["paper", "mmpose", "plain"]
Float64Array = NDArray[np.float64]

MPII_UNIT_PX = 200.0  # MPII's `scale` is the person's height in units of 200 px
MPII_DOWN = 15.0  # the centre moves down by 15 px per unit of scale, so that feet stay in the crop


def convention_of(recipe: Recipe) -> Convention:
    """The convention of the code that published the recipe's figure."""
    if recipe.layout in ("simcc", "tokenpose"):
        return "paper"
    return "mmpose" if recipe.layout == "mmpose" else "plain"


def boxes_from_annotations(
    boxes_xywh: Float64Array,  # N x 4
    sizes_wh: Float64Array,  # N x 2, the images' sizes in pixels
    convention: Convention,
) -> Float64Array:  # N x 4 xyxy; a box without area stays one
    """COCO-format annotation boxes as the convention crops them."""
    low, extent, limit = boxes_xywh[:, :2], boxes_xywh[:, 2:], sizes_wh - 1.0
    if convention == "paper":
        low = np.maximum(low, 0.0)
        high = np.minimum(limit, low + np.maximum(0.0, extent - 1.0))
    elif convention == "mmpose":
        low, high = np.clip(low, 0.0, limit), np.clip(low + extent, 0.0, limit)
    else:
        high = low + extent
    return np.concatenate([low, high], axis=1)


def boxes_from_mpii(
    centres: Float64Array,  # N x 2, 1-based as MPII counts
    scales: Float64Array,  # N
) -> Float64Array:  # N x 4 xyxy, 0-based
    """MPII's centre and scale as a square box: both the paper's code and mmpose crop 1.25 of it."""
    middle = centres + np.stack([np.zeros_like(scales), MPII_DOWN * scales], axis=1) - 1.0
    half = (MPII_UNIT_PX * scales / 2)[:, None]
    return np.concatenate([middle - half, middle + half], axis=1)

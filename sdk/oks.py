"""Object keypoint similarity: how alike two poses are, joint by joint, and the area that it is measured against.

A joint's similarity is exp(-d^2 / (2 area (2 sigma)^2)), with d the distance and sigma the joint's own of the skeleton
(COCO). A pose's OKS is a mean of it; which joints count is the caller's to say.

    joints = joint_similarity(found_xy, truth_xy, areas_px2, skeleton.tolerances)        # N x K, 0 to 1
    areas_px2 = areas_from_boxes(boxes_xyxy)                                         # where none is annotated
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.floating]
    Float64Array = NDArray[np.float64]

__all__ = ["AREA_SHARE", "areas_from_boxes", "joint_similarity"]


AREA_SHARE = 0.53  # of a person's box, where an annotation has no area (crowdposetools)


def joint_similarity(
    first: FloatArray,  # ... x K x 2, pixels
    second: FloatArray,  # ... x K x 2
    areas_px2: FloatArray,  # ...
    sigmas: Sequence[float] | Float64Array,  # K
) -> Float64Array:  # ... x K
    """Similarity of each joint, 1 where both lie on one place; NaN where a place is. Shapes broadcast as numpy's do."""
    apart = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    apart *= apart
    squared = apart[..., 0] + apart[..., 1]
    areas = np.asarray(areas_px2, np.float64)[..., None] + np.spacing(1)
    similarity: Float64Array = np.exp(-squared / (2 * (2 * np.asarray(sigmas, np.float64)) ** 2 * areas))
    return similarity


def areas_from_boxes(boxes_xyxy: FloatArray) -> Float64Array:  # ... x 4 -> ...
    """The area that persons of these boxes are taken to have."""
    boxes = np.asarray(boxes_xyxy, np.float64)
    areas: Float64Array = AREA_SHARE * (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return areas

"""One person to learn from: the part of a photograph about a box, with joints and box in its pixels; or a rendered one.

The part is never resampled unless it is far larger than the crop, so that a training crop is interpolated once, as the
deployed one is.

    person = person_from_picture(annotation, shrink_above_px=160.0)        # PersonImage, or why there is none
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sdk.errors import DatasetError
from sdk.media.figures import FIGURE_SKELETON, rendered_figure
from sdk.media.sources import Unreadable
from sdk.recipe import Recipe
from sdk.skeletons import skeleton_by_name
from sdk.training.labels import Annotation

__all__ = ["SHRINK_ABOVE", "PersonImage", "person_from_picture", "rendered_person"]

REACH = 1.25  # region kept about a box, in longer sides of the box either way: enough for scale, shift and rotation
SHRINK_ABOVE = 1.25  # a box longer than this many crop sides is shrunk when it is read


@dataclass(frozen=True)
class PersonImage:
    """One annotated person. `image` may be a part of the photograph, shrunk; all numbers are in its pixels."""

    image: NDArray[np.uint8]  # H x W x 3, BGR
    keypoints: NDArray[np.float32]  # K x 3: x, y, visibility
    box_xyxy: NDArray[np.float32]  # 4
    weights: NDArray[np.float32]  # K: how much each label counts


def person_from_picture(
    annotation: Annotation, shrink_above_px: float, *, reach: float = REACH
) -> PersonImage | Unreadable:
    """The person's region of its picture, or why there is none. A joint outside the picture counts nothing."""
    image = annotation.picture.read()
    if isinstance(image, Unreadable):
        return image
    box, keypoints = annotation.box_xyxy.copy(), annotation.keypoints.copy()
    inside = ((keypoints[:, :2] >= -0.5) & (keypoints[:, :2] <= np.array(image.shape[1::-1]) - 0.5)).all(axis=1)
    side = float((box[2:] - box[:2]).max())
    centre = (box[:2] + box[2:]) / 2
    low = np.clip(np.floor(centre - reach * side), 0, None).astype(int)
    high = np.ceil(centre + reach * side).astype(int)
    image = image[low[1] : max(high[1], low[1] + 1), low[0] : max(high[0], low[0] + 1)]
    if image.size == 0:
        return Unreadable(f"the box of annotation {annotation.identity} lies outside it")
    box -= np.tile(low, 2)
    keypoints[:, :2] -= low
    person = PersonImage(np.ascontiguousarray(image), keypoints, box.astype(np.float32), annotation.weights * inside)
    return _shrunk(person, side, shrink_above_px)


def rendered_person(recipe: Recipe, seed: int, index: int) -> PersonImage:
    """Rendered figure `index` as a person; its box is the joints' extent and 15 % a side, as in the photographs.

    Joints of the recipe that figures do not have are not annotated.
    """
    drawn = skeleton_by_name(FIGURE_SKELETON).joints
    names = recipe.skeleton.joints
    if not set(drawn) & set(names):
        raise DatasetError(f"rendered figures have none of the recipe's joints ({', '.join(names)}); set figures = 0")
    side = round(1.6 * max(recipe.input.size_hw))
    frame, joints = rendered_figure(np.random.default_rng((seed, index)), (side, side))
    keypoints = np.zeros((len(names), 3), np.float32)
    for row, name in enumerate(names):
        if name in drawn:
            keypoints[row] = (*joints[drawn.index(name)], 2)
    low, high = joints.min(axis=0), joints.max(axis=0)
    margin = 0.15 * (high - low)
    known = (keypoints[:, 2] > 0).astype(np.float32)
    return PersonImage(frame, keypoints, np.concatenate([low - margin, high + margin]), known)


def _shrunk(person: PersonImage, side_px: float, above_px: float) -> PersonImage:
    """The person, no longer than `above_px`."""
    import cv2

    factor = above_px / side_px
    if factor >= 1:
        return person
    image = np.asarray(cv2.resize(person.image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)
    keypoints = person.keypoints.copy()
    keypoints[:, :2] = (keypoints[:, :2] + 0.5) * factor - 0.5
    box = ((person.box_xyxy + 0.5) * factor - 0.5).astype(np.float32)
    return replace(person, image=image, keypoints=keypoints, box_xyxy=box)

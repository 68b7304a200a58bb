"""Poses drawn on a frame: coloured as `looks` says, opacity and joint size by confidence, thickness by size. cv2 draws.

A dark rim keeps every colour visible on any ground. A joint below the threshold is not drawn, nor is a limb that ends
in one. What a score means comes with the poses. Style `openpose` is another picture altogether (`openpose`).

    cv2.imwrite("out.png", draw_poses(frame_bgr, poses))
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.media.looks import RIM, SIDE_COLOURS, Colour, Part, parts_of
from sdk.media.openpose import openpose_picture
from sdk.numeric import is_finite
from sdk.poses import Poses, ScoreScale
from sdk.runtime.frames import bgr_from_frame, check_frame, crop_options
from sdk.skeletons import Skeleton

__all__ = ["STYLES", "Style", "confidences", "draw_poses"]

Frame = NDArray[np.uint8]
Float32Array = NDArray[np.float32]
Style = Literal["overlay", "openpose"]
STYLES: tuple[str, ...] = get_args(Style)

SUBPIXEL_BITS = 4
FRAME_PART, PERSON_PART = 1 / 260, 1 / 52  # limb thickness as part of the frame's and of the person's diagonal
FAINTEST = 0.35  # opacity at the threshold


def draw_poses(
    frame: object,  # uint8 H x W x 3; NV12: (H * 3/2) x W
    poses: Poses,
    threshold: float | None = None,
    *,
    boxes: bool = False,
    pixel_format: str = "bgr",
    style: str = "overlay",
    spread: bool = False,
) -> Frame:
    """A copy of `frame` with the poses on it; joints scoring below `threshold` are left out, `boxes` drawn if asked.

    The copy is RGB if the frame is, else BGR. Style `openpose`: a black picture of the frame's size with the poses as
    ControlNet takes them, without boxes. `spread`: an ellipse of one spread about each joint of which it is told. With
    depths, what is farther is drawn first.
    """
    if spread and poses.spread is None:
        raise InputError("spread cannot be drawn: these poses tell none; make the estimator with spread=True")
    crop_options(pixel_format)  # refuses an unknown format
    if style not in STYLES:
        raise InputError(f"style must be one of {', '.join(STYLES)} (got {style!r})")
    if threshold is not None and not is_finite(threshold):
        raise InputError(f"threshold must be a number, or None for the network's own (got {threshold!r})")
    picture = bgr_from_frame(check_frame(frame, pixel_format), pixel_format).copy()
    certain = confidences(poses.scores, poses.score_scale, threshold)
    certain[~np.isfinite(poses.keypoints).all(axis=2)] = 0
    if style == "openpose":
        picture = openpose_picture(picture.shape[:2], poses.keypoints, certain > 0, poses.skeleton)
    else:
        _draw_all(picture, poses, certain, boxes=boxes, spread=spread)
    return np.ascontiguousarray(picture[:, :, ::-1]) if pixel_format == "rgb" else picture


def _draw_all(
    picture: Frame,
    poses: Poses,
    certain: Float32Array,  # N x K
    *,
    boxes: bool,
    spread: bool,
) -> None:
    order = np.argsort(poses.keypoints[..., 1].max(axis=1, initial=-np.inf), kind="stable")  # nearer persons last
    for row in order.tolist():
        unit = _unit_px(picture, poses.boxes[row], poses.keypoints[row][certain[row] > 0])
        if boxes and np.isfinite(poses.boxes[row]).all():
            _draw_box(picture, poses.boxes[row], unit)
        if spread and poses.spread is not None:
            _draw_spreads(picture, poses.keypoints[row], poses.spread[row], certain[row], unit)
        depths = np.zeros(len(certain[row])) if poses.depths is None else np.nan_to_num(poses.depths[row])
        _draw_person(picture, poses.keypoints[row], certain[row], depths, poses.skeleton, unit)
        if poses.track_ids is not None:
            _draw_label(picture, f"{int(poses.track_ids[row])}", poses.keypoints[row], certain[row], unit)


def confidences(
    scores: Float32Array,  # N x K
    scale: ScoreScale,
    threshold: float | None = None,
) -> Float32Array:
    """N x K in 0..1: 0 below the threshold (the scale's `fair` by default), rising to 1 at `sure` and above."""
    low = scale.fair if threshold is None else threshold
    span = max(scale.sure - low, 1e-6)
    rising = FAINTEST + (1 - FAINTEST) * np.clip((scores - low) / span, 0, 1)
    certain: Float32Array = np.where(scores >= low, rising, 0).astype(np.float32)
    return certain


def _unit_px(frame: Frame, box: Float32Array, keypoints: Float32Array) -> float:
    """Thickness of a limb in pixels: by the frame's size, thinner on small persons. `box` 4, `keypoints` seen x 2."""
    if not len(keypoints):
        return 1.0
    extent = np.minimum(keypoints.max(axis=0) - keypoints.min(axis=0), np.maximum(box[2:] - box[:2], 1) * 2)
    by_frame = float(np.hypot(*frame.shape[:2])) * FRAME_PART
    by_person = float(np.hypot(*extent)) * PERSON_PART
    return max(1.0, min(by_frame, by_person))


def _draw_box(frame: Frame, box: Float32Array, unit: float) -> None:  # box 4, xyxy
    import cv2

    low, high = (_fixed_point(frame, corner) for corner in np.round(box).reshape(2, 2))  # whole pixels: crisp
    thickness = max(1, round(0.4 * unit))
    for colour, width in ((RIM, thickness + 2), (SIDE_COLOURS["middle"], thickness)):
        cv2.rectangle(frame, low, high, colour, width, cv2.LINE_8, SUBPIXEL_BITS)


def _draw_person(
    frame: Frame,
    keypoints: Float32Array,  # K x 2
    certain: Float32Array,  # K
    depths: NDArray[np.floating[Any]],  # K, zeros where none are known
    skeleton: Skeleton,
    unit: float,
) -> None:
    for part in parts_of(skeleton):
        members = np.array(part.joints)
        seen = keypoints[members[certain[members] > 0]]
        if len(seen):
            extent = float(np.hypot(*(seen.max(axis=0) - seen.min(axis=0))))
            _draw_part(frame, keypoints, certain, depths, part, part.thickness(unit, extent))


def _draw_part(
    frame: Frame,
    keypoints: Float32Array,  # K x 2
    certain: Float32Array,  # K
    depths: NDArray[np.floating[Any]],  # K
    part: Part,
    unit: float,
) -> None:
    """Limbs, then joints: what is farther first, and of equals the less certain."""

    def limb_order(limb: tuple[int, int, Colour]) -> tuple[float, float]:
        return -float(depths[limb[0]] + depths[limb[1]]), float(min(certain[limb[0]], certain[limb[1]]))

    for a, b, colour in sorted(part.limbs, key=limb_order):
        strength = float(min(certain[a], certain[b]))
        if strength > 0:
            _draw_limb(frame, keypoints[[a, b]], colour, strength, unit)
    size = 0.55 if part.small_joints else 1.0
    for joint, colour in sorted(
        zip(part.joints, part.colours, strict=True), key=lambda pair: (-depths[pair[0]], certain[pair[0]])
    ):
        if certain[joint] > 0:
            _draw_joint(frame, keypoints[joint], colour, float(certain[joint]), unit * size)


def _draw_spreads(
    frame: Frame,
    keypoints: Float32Array,  # K x 2
    spreads: Float32Array,  # K x 2
    certain: Float32Array,  # K
    unit: float,
) -> None:
    """A thin ellipse of one spread about each drawn joint."""
    import cv2

    thickness = max(1, round(0.3 * unit))
    for joint in np.flatnonzero((certain > 0) & np.isfinite(spreads).all(axis=1)).tolist():
        axes = _fixed_point(frame, spreads[joint])
        for colour, width in ((RIM, thickness + 2), (SIDE_COLOURS["middle"], thickness)):
            at = _fixed_point(frame, keypoints[joint])
            cv2.ellipse(frame, at, axes, 0, 0, 360, colour, width, cv2.LINE_AA, SUBPIXEL_BITS)


def _draw_limb(frame: Frame, ends: Float32Array, colour: Colour, strength: float, unit: float) -> None:
    import cv2

    start, end = (_fixed_point(frame, point) for point in ends)
    reach = unit * 2 + 2
    low, high = ends.min(axis=0) - reach, ends.max(axis=0) + reach
    with_limb = _Region(frame, low, high)
    if with_limb.empty:
        return
    a, b = with_limb.shifted(start), with_limb.shifted(end)
    thickness = max(1, round(unit))
    if unit >= 1:  # thinner lines would be all rim
        rim = thickness + 2 * max(1, round(0.25 * unit))
        cv2.line(with_limb.pixels, a, b, RIM, rim, cv2.LINE_AA, SUBPIXEL_BITS)
    cv2.line(with_limb.pixels, a, b, colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
    with_limb.blend(strength)


def _draw_joint(frame: Frame, point: Float32Array, colour: Colour, strength: float, unit: float) -> None:
    radius = unit * (0.55 + 0.65 * strength) + min(0.5, 0.5 * unit)
    rim = radius + max(0.8, 0.28 * unit)
    with_joint = _Region(frame, point - rim - 1, point + rim + 2)
    if not with_joint.empty:
        discs = ((rim, RIM), (radius, colour)) if unit >= 1 else ((radius, colour),)
        _draw_discs(with_joint.pixels, with_joint.placed(point), discs)
        with_joint.blend(strength)


def _draw_discs(frame: Frame, centre_xy: Float32Array, discs: tuple[tuple[float, Colour], ...]) -> None:
    """Discs (radius in pixels, colour) on one centre, each pixel by its covered part; small, cv2's are diamonds."""
    x, y = (np.arange(size, dtype=np.float32) - at for size, at in zip(frame.shape[1::-1], centre_xy, strict=True))
    distance = np.hypot(x, y[:, None])[..., None]  # h x w x 1, pixels
    drawn = frame.astype(np.float32)
    for radius, colour in discs:
        drawn += np.clip(radius + 0.5 - distance, 0, 1) * (np.array(colour, np.float32) - drawn)
    frame[:] = drawn + 0.5


def _draw_label(
    frame: Frame,
    text: str,
    keypoints: Float32Array,  # K x 2
    certain: Float32Array,  # K
    unit: float,
) -> None:
    import cv2

    seen = keypoints[certain > 0]
    if not len(seen):
        return
    scale, weight = max(0.35, 0.16 * unit), max(1, round(0.3 * unit))
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, weight)
    x = float(np.clip(seen[:, 0].mean() - width / 2, 0, max(0, frame.shape[1] - width)))
    y = float(np.clip(seen[:, 1].min() - 5 * unit, height + 1, frame.shape[0]))
    for colour, extra in ((RIM, 2 + weight), (SIDE_COLOURS["middle"], 0)):
        cv2.putText(
            frame, text, (round(x), round(y)), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, weight + extra, cv2.LINE_AA
        )


class _Region:
    """A copy of a part of the frame to draw on, then blended back: opacity without a copy of the whole frame."""

    def __init__(self, frame: Frame, low: Float32Array, high: Float32Array) -> None:
        height, width = frame.shape[:2]
        x1, y1, x2, y2 = np.clip(np.concatenate([low, high]), 0, [width, height, width, height])
        self._origin = int(x1), int(y1)
        self._target = frame[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))]
        self.pixels = self._target.copy()
        self.empty = self.pixels.size == 0

    def shifted(self, point: tuple[int, int]) -> tuple[int, int]:
        """A fixed-point position of the frame, in the region."""
        return point[0] - (self._origin[0] << SUBPIXEL_BITS), point[1] - (self._origin[1] << SUBPIXEL_BITS)

    def placed(self, point: Float32Array) -> Float32Array:  # 2
        """A position of the frame, in the region."""
        return point - np.array(self._origin, np.float32)

    def blend(self, strength: float) -> None:
        import cv2

        self._target[:] = cv2.addWeighted(self.pixels, strength, self._target, 1 - strength, 0)


def _fixed_point(frame: Frame, point: Float32Array) -> tuple[int, int]:
    """`point` (2) with SUBPIXEL_BITS fraction bits, kept within four frames so that cv2's integers suffice."""
    limit = 4 * max(frame.shape[:2])
    x, y = (round(float(np.clip(value, -limit, limit)) * (1 << SUBPIXEL_BITS)) for value in point)
    return x, y

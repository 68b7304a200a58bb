"""PCK, the share of joints near their annotation: of the torso (LSP, custom data) and of the head (MPII, PCKh).

Only annotated joints (visibility above 0) enter. A joint that was not predicted (NaN) is a miss. Values are per cent.

    torsos = torso_px(truth, boxes_xyxy, skeleton)
    pck(predicted, truth, torsos, 0.2).mean           # 40.25: micro-average over every annotated joint

PCK's rule is strict (distance under threshold x torso). PCKh's is not (distance up to threshold x head), and its mean
leaves out pelvis and thorax, as in the MPII evaluation of HRNet's code (`lib/dataset/mpii.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdk.skeletons import Skeleton

__all__ = ["MPII_GROUPS", "MPII_LEFT_OUT", "Pck", "joint_hits", "pck", "pckh", "torso_px"]

FloatArray = NDArray[np.floating]

FALLBACK_SHARE = 0.35  # of the person's longer side, where no torso diagonal is annotated
BOX_MARGIN = 1.3  # annotation boxes are the joints' extent and 15 % of it at each side
SMALLEST_TORSO_PX = 1.0

MPII_GROUPS: dict[str, tuple[str, ...]] = {
    "head": ("head_top",),
    "shoulder": ("left_shoulder", "right_shoulder"),
    "elbow": ("left_elbow", "right_elbow"),
    "wrist": ("left_wrist", "right_wrist"),
    "hip": ("left_hip", "right_hip"),
    "knee": ("left_knee", "right_knee"),
    "ankle": ("left_ankle", "right_ankle"),
}
MPII_LEFT_OUT = ("pelvis", "thorax")


@dataclass(frozen=True)
class Pck:
    """Shares in per cent. `mean` and a joint's entry are NaN where nothing was annotated."""

    mean: float
    per_joint: NDArray[np.float64]  # K
    counted: NDArray[np.int64]  # K, annotated joints


def pck(
    predicted: FloatArray,  # N x K x 2, frame pixels
    truth: FloatArray,  # N x K x 3: x, y, visibility
    torso_px: FloatArray,  # N
    threshold: float,
) -> Pck:
    """The share of annotated joints closer than `threshold` torsos, over all persons and joints together."""
    near = joint_hits(predicted, truth, threshold * np.asarray(torso_px, np.float64), strict=True)
    return _shares(near, truth[..., 2] > 0)


def pckh(
    predicted: FloatArray,  # N x K x 2, frame pixels
    truth: FloatArray,  # N x K x 3: x, y, visibility
    head_px: FloatArray,  # N, MPII's head sizes
    threshold: float,
    skeleton: Skeleton,
) -> Pck:
    """The share of annotated joints within `threshold` heads; the mean leaves out pelvis and thorax."""
    near = joint_hits(predicted, truth, threshold * np.asarray(head_px, np.float64), strict=False)
    annotated = truth[..., 2] > 0
    result = _shares(near, annotated)
    counts = np.array([name not in MPII_LEFT_OUT for name in skeleton.joints])
    return Pck(_shares(near[:, counts], annotated[:, counts]).mean, result.per_joint, result.counted)


def torso_px(
    truth: FloatArray,  # N x K x 3: x, y, visibility
    boxes_xyxy: FloatArray,  # N x 4, the annotation's boxes
    skeleton: Skeleton,
) -> NDArray[np.float64]:  # N
    """The longer shoulder-to-opposite-hip diagonal when all four are annotated, else 0.35 x longer box side / 1.3."""
    boxes = np.asarray(boxes_xyxy, np.float64)
    fallback = FALLBACK_SHARE * np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) / BOX_MARGIN
    names = ("left_shoulder", "right_hip", "right_shoulder", "left_hip")
    if not set(names) <= set(skeleton.joints):
        return np.maximum(fallback, SMALLEST_TORSO_PX)
    corners = np.asarray(truth, np.float64)[:, [skeleton.joints.index(name) for name in names]]
    sides = np.linalg.norm(corners[:, [0, 2], :2] - corners[:, [1, 3], :2], axis=2).max(axis=1)
    torsos: NDArray[np.float64] = np.where((corners[..., 2] > 0).all(axis=1), sides, fallback)
    return np.maximum(torsos, SMALLEST_TORSO_PX)


def joint_hits(
    predicted: FloatArray,  # N x K x 2, frame pixels
    truth: FloatArray,  # N x K x 3: x, y, visibility
    reach_px: FloatArray,  # N
    *,
    strict: bool,
) -> NDArray[np.bool_]:  # N x K
    """Annotated joints whose prediction lies closer than `reach_px`, or, unless `strict`, just as close."""
    offsets = np.asarray(predicted, np.float64)[..., :2] - np.asarray(truth, np.float64)[..., :2]
    distances, reach = np.linalg.norm(offsets, axis=2), np.asarray(reach_px, np.float64)[:, None]
    hits: NDArray[np.bool_] = (distances < reach if strict else distances <= reach) & (truth[..., 2] > 0)
    return hits


def _shares(near: NDArray[np.bool_], annotated: NDArray[np.bool_]) -> Pck:  # both N x K; near only where annotated
    counted = annotated.sum(axis=0)
    right = near.sum(axis=0)
    with np.errstate(invalid="ignore"):
        per_joint = 100.0 * right / np.where(counted > 0, counted, np.nan)
    mean = 100.0 * float(right.sum()) / int(counted.sum()) if counted.sum() else float("nan")
    return Pck(mean, per_joint, counted.astype(np.int64))

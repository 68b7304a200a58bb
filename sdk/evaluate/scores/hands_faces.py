"""How hands and faces are scored: PCK of the box, AUC and EPE of hands, NME of faces. From mmpose's definitions.

Only annotated joints (visibility above 0) enter. PCK here is a mean over joints of each joint's share, the longer side
of the annotated box its measure; AUC is PCK's mean over thresholds 0, 0.05 .. 0.95 of 30 pixels. NME is the mean
distance over all joints of all faces, in per cent of the distance between two annotated joints of the face. (PCK of
bodies, a micro-average by the torso, is in `pck`.)

    shares = box_pck(predicted, truth, box_sides_px(boxes_xyxy), 0.2)
    auc(predicted, truth), end_point_error_px(predicted, truth)
    nme(predicted, truth, measure_px(truth, skeleton.nme_joints)).mean
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdk.evaluate.scores.pck import joint_hits

__all__ = [
    "AUC_PX",
    "AUC_THRESHOLDS",
    "Nme",
    "auc",
    "box_pck",
    "box_sides_px",
    "end_point_error_px",
    "measure_px",
    "nme",
    "share_of_joints",
]

FloatArray = NDArray[np.floating]
Float64Array = NDArray[np.float64]

AUC_PX = 30.0
AUC_THRESHOLDS = np.arange(20) / 20


@dataclass(frozen=True)
class Nme:
    """Per cent of the measure. `per_face` and `per_joint` are NaN where nothing counts."""

    mean: float
    per_joint: Float64Array  # K
    per_face: Float64Array  # N
    sums: Float64Array  # N, of the counted joints
    counted: NDArray[np.int64]  # N


def box_sides_px(boxes_xyxy: FloatArray) -> Float64Array:  # N x 4 -> N
    """The longer side of each box."""
    boxes = np.asarray(boxes_xyxy, np.float64)
    return np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])


def box_pck(
    predicted: FloatArray,  # N x K x 2, frame pixels
    truth: FloatArray,  # N x K x 3: x, y, visibility
    sides_px: FloatArray,  # N
    threshold: float,
) -> Float64Array:  # K, per cent
    """Each joint's share closer than `threshold` boxes; NaN where it is annotated in nobody."""
    hits = joint_hits(predicted, truth, threshold * np.asarray(sides_px, np.float64), strict=True)
    return share_of_joints(hits, truth[..., 2] > 0)


def auc(predicted: FloatArray, truth: FloatArray) -> float:  # N x K x 2, N x K x 3
    """The mean over AUC_THRESHOLDS of PCK by 30 pixels, per cent."""
    sides = np.full(len(truth), AUC_PX)
    return float(np.mean([_mean(box_pck(predicted, truth, sides, float(t))) for t in AUC_THRESHOLDS]))


def end_point_error_px(predicted: FloatArray, truth: FloatArray) -> float:  # N x K x 2, N x K x 3
    """The mean distance of annotated joints, frame pixels."""
    annotated = truth[..., 2] > 0
    return float(_distances(predicted, truth)[annotated].mean()) if annotated.any() else float("nan")


def measure_px(truth: FloatArray, joints: tuple[int, int]) -> Float64Array:  # N x K x 3 -> N
    """The distance between two joints as annotated; 0 where one is not."""
    one, other = (np.asarray(truth[:, joint], np.float64) for joint in joints)
    both = (one[:, 2] > 0) & (other[:, 2] > 0)
    distance: Float64Array = np.where(both, np.linalg.norm(one[:, :2] - other[:, :2], axis=1), 0.0)
    return distance


def nme(predicted: FloatArray, truth: FloatArray, measures_px: FloatArray) -> Nme:  # N x K x 2, N x K x 3, N
    """Normalised mean error; a face without a measure does not count."""
    measures = np.asarray(measures_px, np.float64)
    counts = (truth[..., 2] > 0) & (measures > 0)[:, None]
    errors = np.where(counts, 100 * _distances(predicted, truth) / np.maximum(measures, np.spacing(1))[:, None], 0.0)
    with np.errstate(invalid="ignore"):
        per_joint, per_face = (
            errors.sum(axis) / np.where(counts.any(axis), counts.sum(axis), np.nan) for axis in (0, 1)
        )
    total = int(counts.sum())
    mean = float(errors.sum()) / total if total else float("nan")
    return Nme(mean, per_joint, per_face, errors.sum(axis=1), counts.sum(axis=1))


def share_of_joints(
    hits: NDArray[np.bool_],  # N x K
    annotated: NDArray[np.bool_],  # N x K
    weights: NDArray[np.integer] | None = None,  # N, how often each counts
) -> Float64Array:  # K, per cent
    """The share of the annotated that hit, joint by joint."""
    each = np.ones(len(hits)) if weights is None else np.asarray(weights, np.float64)
    counted = each @ annotated
    share: Float64Array = 100 * (each @ hits) / np.where(counted > 0, counted, np.nan)
    return share


def _distances(predicted: FloatArray, truth: FloatArray) -> Float64Array:  # N x K
    offsets = np.asarray(predicted, np.float64)[..., :2] - np.asarray(truth, np.float64)[..., :2]
    distances: Float64Array = np.linalg.norm(offsets, axis=2)
    return distances


def _mean(shares: Float64Array) -> float:  # K
    known = shares[np.isfinite(shares)]
    return float(known.mean()) if known.size else float("nan")

"""Object keypoint similarity: of predictions with their annotation and with each other, and what is built on it.

    keep = nms_keep(keypoints, scores, areas_px2, sigmas, threshold=0.9)      # one image's persons, best first

OKS of two poses is the mean over joints of `sdk.oks.joint_similarity`. Between two predictions the area is the
mean of both persons' crop areas and every joint counts (HRNet's `lib/nms/nms.py`, mmpose's `evaluation/functional`);
against an annotation it is the annotation's area and annotated joints count (pycocotools).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdk.oks import joint_similarity

__all__ = ["joint_oks", "mean_of_annotated", "nms_keep", "person_oks", "person_scores", "soft_nms_keep"]

FloatArray = NDArray[np.floating]
Float64Array = NDArray[np.float64]

SOFT_LIMIT = 20  # persons that soft OKS-NMS keeps of an image, as in the paper's code; COCO counts 20 too


def person_scores(
    joint_scores: FloatArray,  # N x K
    box_scores: FloatArray,  # N
    threshold: float,
) -> Float64Array:  # N
    """Box score x mean of the joint scores above `threshold`; 0 where no joint is above it."""
    scores = np.asarray(joint_scores, np.float64)
    counts = scores > threshold
    mean = np.where(counts, scores, 0.0).sum(axis=1) / np.maximum(counts.sum(axis=1), 1)
    result: Float64Array = np.asarray(box_scores, np.float64) * mean
    return result


def joint_oks(
    predicted: FloatArray,  # N x K x 2, frame pixels
    truth: FloatArray,  # N x K x 3: x, y, visibility
    areas_px2: FloatArray,  # N
    sigmas: tuple[float, ...],
) -> Float64Array:  # N x K
    """Similarity of each joint with its annotation, 0 to 1; NaN where it is not annotated."""
    similarity = joint_similarity(predicted[..., :2], truth[..., :2], areas_px2, sigmas)
    similarity = np.where(np.isnan(similarity), 0.0, similarity)
    return np.where(truth[..., 2] > 0, similarity, np.nan)


def person_oks(
    predicted: FloatArray,  # N x K x 2, frame pixels
    truth: FloatArray,  # N x K x 3: x, y, visibility
    areas_px2: FloatArray,  # N
    sigmas: tuple[float, ...],
) -> Float64Array:  # N
    """OKS of each prediction with its annotation; NaN where no joint is annotated."""
    return mean_of_annotated(joint_oks(predicted, truth, areas_px2, sigmas), axis=1)


def mean_of_annotated(similarity: Float64Array, axis: int) -> Float64Array:
    """The mean of what is annotated, NaN where nothing is."""
    counted = np.isfinite(similarity).sum(axis=axis)
    return np.where(counted > 0, np.nansum(similarity, axis=axis) / np.maximum(counted, 1), np.nan)


def nms_keep(
    keypoints: FloatArray,  # N x K x 2, frame pixels
    scores: FloatArray,  # N
    areas_px2: FloatArray,  # N
    sigmas: tuple[float, ...],
    threshold: float,
) -> list[int]:
    """Rows that greedy OKS-NMS keeps, best first: a row goes when its OKS with a kept one exceeds `threshold`."""
    overlap = _overlaps(keypoints, areas_px2, sigmas)
    order = _best_first(scores)
    keep: list[int] = []
    while len(order):
        best, order = int(order[0]), order[1:]
        keep.append(best)
        order = order[overlap[best, order] <= threshold]
    return keep


def soft_nms_keep(
    keypoints: FloatArray,  # N x K x 2, frame pixels
    scores: FloatArray,  # N
    areas_px2: FloatArray,  # N
    sigmas: tuple[float, ...],
    threshold: float,
) -> list[int]:
    """Rows that soft OKS-NMS keeps, in its order: overlap lowers the rank by exp(-OKS^2 / threshold), 20 are kept.

    The persons' scores stay what they were, as in the paper's code: only rank and count change.
    """
    overlap = _overlaps(keypoints, areas_px2, sigmas)
    order = _best_first(scores)
    ranks = np.asarray(scores, np.float64)[order]
    keep: list[int] = []
    while len(order) and len(keep) < SOFT_LIMIT:
        best, order = int(order[0]), order[1:]
        keep.append(best)
        ranks = ranks[1:] * np.exp(-(overlap[best, order] ** 2) / threshold)
        again = _best_first(ranks)
        order, ranks = order[again], ranks[again]
    return keep


def _overlaps(keypoints: FloatArray, areas_px2: FloatArray, sigmas: tuple[float, ...]) -> Float64Array:  # N x N
    """OKS of every pair of an image's predictions."""
    count, areas = len(keypoints), np.asarray(areas_px2, np.float64)
    one, other = np.divmod(np.arange(count * count), max(1, count))
    means = (areas[one] + areas[other]) / 2
    overlaps: Float64Array = joint_similarity(keypoints[one], keypoints[other], means, sigmas).mean(axis=1)
    return overlaps.reshape(count, count)


def _best_first(scores: FloatArray) -> NDArray[np.intp]:
    return np.argsort(-np.asarray(scores, np.float64), kind="stable")

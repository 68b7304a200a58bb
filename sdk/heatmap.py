"""Decoding of the heatmap baselines, by SimpleBaseline's rule. SimCC outputs are decoded by `sdk.ops.decode` instead.

Per joint: the first maximum of its heatmap; a quarter pixel towards the higher neighbour along each axis, unless the
maximum lies on the border (or one beside it, as in the authors' code); where no value is positive, the corner (0, 0).
The score is the maximum. NaN never wins; a heatmap of NaN scores 0.

    persons = decode_heatmaps(heatmaps, affines, size_hw=(256, 192))       # N x K x 3: x, y in frame pixels, score
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdk.geometry import apply_affines

__all__ = ["decode_heatmaps", "merge_flipped"]

Float32Array = NDArray[np.float32]


def decode_heatmaps(
    heatmaps: Float32Array,  # N x K x h' x w'
    affines: Float32Array,  # N x 2 x 3, crop -> frame pixels
    size_hw: tuple[int, int],
) -> Float32Array:
    """N x K x 3 float32: x and y in frame pixels, score."""
    count, joints, height, width = heatmaps.shape
    if count == 0:
        return np.zeros((0, joints, 3), np.float32)
    finite = np.where(np.isnan(heatmaps), -np.inf, heatmaps).astype(np.float32)
    flat = finite.reshape(count, joints, -1)
    best = flat.argmax(axis=2)
    scores = np.take_along_axis(flat, best[..., None], axis=2)[..., 0]
    points = np.stack([best % width, best // width], axis=2) * (scores > 0)[..., None]
    points = points + _quarter_offsets(finite, points)
    stride_xy = np.array([size_hw[1] / width, size_hw[0] / height], np.float32)
    frame_xy = apply_affines(affines, (points * stride_xy).astype(np.float32))
    scores = np.where(np.isfinite(scores), scores, 0)
    persons: Float32Array = np.concatenate([frame_xy, scores[..., None]], axis=2).astype(np.float32)
    return persons


def merge_flipped(
    heatmaps: Float32Array,  # N x K x h' x w'
    flipped: Float32Array,  # N x K x h' x w', of the mirrored crops
    flip_order: tuple[int, ...],
    shift: bool,
) -> Float32Array:
    """N x K x h' x w': the mean of both, the mirrored one turned back and, with `shift`, moved right by one column."""
    turned = flipped[:, list(flip_order), :, ::-1]
    if shift:
        turned = np.concatenate([turned[..., :1], turned[..., :-1]], axis=3)
    merged: Float32Array = ((heatmaps + turned) * np.float32(0.5)).astype(np.float32)
    return merged


def _quarter_offsets(
    heatmaps: Float32Array,  # N x K x h' x w', no NaN
    points: NDArray[np.int64],  # N x K x 2, column and row of the maximum
) -> Float32Array:
    height, width = heatmaps.shape[2:]
    column, row = points[..., 0], points[..., 1]
    inside = (column > 1) & (column < width - 1) & (row > 1) & (row < height - 1)
    c, r = np.where(inside, column, 1), np.where(inside, row, 1)
    if height < 3 or width < 3:
        return np.zeros(points.shape, np.float32)
    n, k = np.indices(column.shape)
    with np.errstate(invalid="ignore"):
        across = heatmaps[n, k, r, c + 1] - heatmaps[n, k, r, c - 1]
        down = heatmaps[n, k, r + 1, c] - heatmaps[n, k, r - 1, c]
    signs = np.nan_to_num(np.sign(np.stack([across, down], axis=2)), nan=0.0)
    offsets: Float32Array = (0.25 * signs * inside[..., None]).astype(np.float32)
    return offsets

"""Label codecs of SimCC (paper, section 3): joint coordinates to target distributions over bins, and back.

A coordinate c (crop pixels, integer = pixel centre) falls into bin round(c x k), k the split ratio. The target over
the bins of one axis is then smoothed:

    equal     1 - eps on that bin, eps shared by all others       (Szegedy et al., CVPR 2016)
    gaussian  proportional to exp(-(b - c k)^2 / (2 s^2))          s = width_px x k
    laplace   proportional to exp(-|b - c k| / s)

Gaussian and Laplace centre on the unrounded coordinate. `width_px` is in crop pixels, so one setting serves every split
ratio. Nothing here knows images or networks; torch is imported where used.

    target_x, target_y, weights = targets_from_keypoints(keypoints, bins_xy, split_ratio, Smoothing("gaussian", 3.0))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sdk.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Smoothing",
    "absent_joints",
    "bins_from_coordinates",
    "coordinates_from_bins",
    "joint_weights",
    "soft_labels",
    "targets_from_keypoints",
]

SmoothingKind = Literal["equal", "gaussian", "laplace"]


@dataclass(frozen=True)
class Smoothing:
    """`width` is eps for 'equal', else a standard deviation or a Laplace scale in crop pixels."""

    kind: SmoothingKind = "gaussian"
    width: float = 3.0

    def __post_init__(self) -> None:
        if self.kind not in ("equal", "gaussian", "laplace"):
            raise TrainingError(f"smoothing kind must be equal, gaussian or laplace (got '{self.kind}')")
        if not self.width > 0 or (self.kind == "equal" and self.width >= 1):
            rule = "between 0 and 1 for kind 'equal'" if self.kind == "equal" else "positive, in crop pixels"
            raise TrainingError(f"smoothing width must be {rule} (got {self.width})")


def bins_from_coordinates(
    coordinates_px: Tensor,  # any shape, crop pixels
    split_ratio: float,
) -> Tensor:
    """The nearest bin of each coordinate, int64; off-crop coordinates give bins off the axis."""
    return (coordinates_px * split_ratio).round().long()


def coordinates_from_bins(
    bins: Tensor,  # any shape
    split_ratio: float,
) -> Tensor:
    """Crop pixels of each bin: what the decode op computes before its affine."""
    return bins.float() / split_ratio


def joint_weights(
    keypoints: Tensor,  # N x K x 3: x, y in crop pixels, visibility
    bins_xy: tuple[int, int],
    split_ratio: float,
) -> Tensor:
    """N x K float: 1 where a joint is annotated and both of its bins lie on the crop, else 0."""
    bins = bins_from_coordinates(keypoints[..., :2], split_ratio)
    inside = (bins >= 0) & (bins < bins.new_tensor(bins_xy))
    return ((keypoints[..., 2] > 0) & inside.all(dim=-1)).float()


def absent_joints(
    keypoints: Tensor,  # N x K x 3: x, y in crop pixels, visibility
    size_wh: tuple[int, int],
    margin_px: float,
) -> Tensor:
    """N x K float: 1 where a joint is annotated and lies off the crop by more than the margin, else 0."""
    last = keypoints.new_tensor(size_wh) - 1
    off = (keypoints[..., :2] < -margin_px) | (keypoints[..., :2] > last + margin_px)
    return ((keypoints[..., 2] > 0) & off.any(dim=-1)).float()


def soft_labels(
    coordinates_px: Tensor,  # N x K, crop pixels
    bins: int,
    split_ratio: float,
    smoothing: Smoothing,
    wider: Tensor | None = None,  # N x K factors of the width
) -> Tensor:
    """N x K x bins, each row a distribution. Rows of joints off the crop are only to be used with weight 0."""
    import torch

    axis = torch.arange(bins, dtype=torch.float32, device=coordinates_px.device)
    if smoothing.kind == "equal":
        hit = axis == bins_from_coordinates(coordinates_px, split_ratio)[..., None]
        labels = torch.where(hit, 1.0 - smoothing.width, smoothing.width / (bins - 1))
        return labels / labels.sum(dim=-1, keepdim=True)
    scale = smoothing.width * split_ratio * (1.0 if wider is None else wider[..., None])
    distance = (axis - coordinates_px.float()[..., None] * split_ratio) / scale
    energy = -0.5 * distance.square() if smoothing.kind == "gaussian" else -distance.abs()
    return energy.softmax(dim=-1)


def targets_from_keypoints(
    keypoints: Tensor,  # N x K x 3: x, y in crop pixels, visibility
    bins_xy: tuple[int, int],
    split_ratio: float,
    smoothing: Smoothing,
    wider: Tensor | None = None,  # N x K factors of the labels' width
) -> tuple[Tensor, Tensor, Tensor]:
    """Targets along x (N x K x Wx) and y (N x K x Hy), and the joints' weights (N x K)."""
    x = soft_labels(keypoints[..., 0], bins_xy[0], split_ratio, smoothing, wider)
    y = soft_labels(keypoints[..., 1], bins_xy[1], split_ratio, smoothing, wider)
    return x, y, joint_weights(keypoints, bins_xy, split_ratio)

"""Losses: KL divergence over both axes (the paper), RTMPose's variant, and the heatmap loss of the ablation.

loss = simcc_loss((logits_x, logits_y), (target_x, target_y), weights)                      # the paper
loss = simcc_loss(outputs, targets, weights, beta=10.0, soften_targets=True)                # RTMPose
loss = label_loss(outputs, (keypoints, weights), (128, 128), recipe, settings)              # as the recipe has it
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sdk.recipe import Recipe
from sdk.training.codecs import absent_joints, joint_weights, targets_from_keypoints
from sdk.training.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["heatmap_loss", "heatmap_targets", "kl_divergence", "label_loss", "simcc_loss"]

HEATMAP_SIGMA_CELLS = 2.0  # SimpleBaseline's
ABSENT_MARGIN = 0.05  # of the crop's width: a joint less far off it may still show


def label_loss(
    outputs: Any,  # of the network: (N x K x Wx, N x K x Hy), or N x K x h x w
    labels: tuple[Tensor, Tensor],  # N x K x 3 crop pixels and visibility; N x K, how much each counts
    size_hw: tuple[int, int],  # of the crops
    recipe: Recipe,
    settings: Settings,
) -> Tensor:
    """The loss of labels on crops of `size_hw`."""
    keypoints, counts = labels
    absent = counts * absent_joints(keypoints, (size_hw[1], size_hw[0]), ABSENT_MARGIN * size_hw[1])
    ratio = recipe.output.split_ratio
    if ratio is None:
        stride = size_hw[1] / outputs.shape[3]
        targets = heatmap_targets(keypoints, tuple(outputs.shape[2:]), stride, HEATMAP_SIGMA_CELLS)
        targets = targets.where(absent[..., None, None] == 0, 0.0)  # whose Gaussian may reach the crop's edge
        there = counts * joint_weights(keypoints, (size_hw[1], size_hw[0]), 1.0)
        return heatmap_loss(outputs, targets, there + settings.absent * absent)
    bins_xy = (int(size_hw[1] * ratio), int(size_hw[0] * ratio))
    smoothing = settings.smoothing
    if smoothing.kind != "equal":  # a width is in pixels of the recipe's crop: it shrinks with the stage
        smoothing = replace(smoothing, width=smoothing.width * size_hw[1] / recipe.input.width)
    wider = 1 + settings.unsure * (1 - counts).clamp_min(0)
    x, y, inside = targets_from_keypoints(keypoints, bins_xy, ratio, smoothing, wider)
    x, y = (axis.where(absent[..., None] == 0, 1 / axis.shape[-1]) for axis in (x, y))
    weights = counts * inside + settings.absent * absent
    return simcc_loss(outputs, (x, y), weights, settings.beta, settings.soften_targets)


def kl_divergence(
    logits: Tensor,  # N x K x bins
    targets: Tensor,  # N x K x bins, distributions
    beta: float = 1.0,
    soften_targets: bool = False,
) -> Tensor:
    """N x K: KL(target || softmax(beta x logits)); RTMPose also takes the softmax of beta x targets."""
    from torch.nn.functional import log_softmax

    if soften_targets:
        targets = (targets * beta).softmax(dim=-1)
    log_targets = targets.clamp_min(1e-12).log()
    return (targets * (log_targets - log_softmax(logits.float() * beta, dim=-1))).sum(dim=-1)


def simcc_loss(
    outputs: tuple[Tensor, Tensor],  # N x K x Wx, N x K x Hy
    targets: tuple[Tensor, Tensor],  # the same shapes
    weights: Tensor,  # N x K
    beta: float = 1.0,
    soften_targets: bool = False,
) -> Tensor:
    """Sum over the two axes of the weighted mean KL divergence; 0 when no joint carries weight."""
    pairs = zip(outputs, targets, strict=True)
    per_joint = sum(kl_divergence(logits, target, beta, soften_targets) for logits, target in pairs)
    return (weights * per_joint).sum() / weights.sum().clamp_min(1.0)


def heatmap_targets(
    keypoints: Tensor,  # N x K x 3: x, y in crop pixels, visibility
    size_hw: tuple[int, int],  # of the heatmap
    stride_px: float,
    sigma_cells: float,
) -> Tensor:
    """N x K x h x w: a Gaussian of peak 1 on each joint's exact place, where SimpleBaseline's lies on the nearest cell.

    Cell (i, j) lies on pixel (i, j) x stride.
    """
    import torch

    height, width = size_hw
    device = keypoints.device
    dx = torch.arange(width, device=device) - keypoints[..., 0, None] / stride_px
    dy = torch.arange(height, device=device) - keypoints[..., 1, None] / stride_px
    squared = dy.square()[..., :, None] + dx.square()[..., None, :]
    return torch.exp(-squared / (2 * sigma_cells**2))


def heatmap_loss(
    heatmaps: Tensor,  # N x K x h x w
    targets: Tensor,  # the same
    weights: Tensor,  # N x K
) -> Tensor:
    """Weighted mean squared error over all cells of the joints that carry weight."""
    squared = (heatmaps.float() - targets).square().mean(dim=(2, 3))
    return (weights * squared).sum() / weights.sum().clamp_min(1.0)

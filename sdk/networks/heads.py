"""Heads on a feature map: heatmaps, SimCC's linear classifiers, RTMPose's gated attention unit.

Every width follows from the feature map's size, the number of joints and the number of bins. Heads on keypoint tokens
are in `tokenpose`.

    head = LinearSimccHead(2048, feature_hw=(8, 6), joints=17, bins_xy=(384, 512), deconv=(256, 256, 256),
                           maps_per_joint=1)
    simcc_x, simcc_y = head(features)     # N x 17 x 384, N x 17 x 512
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["GauHead", "HeatmapHead", "LinearSimccHead", "ScaleNorm", "deconvolutions"]


class HeatmapHead(nn.Module):
    """Deconvolutions (may be none), then a 1x1 convolution to K heatmaps."""

    def __init__(self, channels: int, joints: int, deconv: Sequence[int]) -> None:
        super().__init__()
        self.deconv = deconvolutions(channels, deconv)
        self.final = nn.Conv2d(deconv[-1] if deconv else channels, joints, 1)

    def forward(self, features: Tensor) -> Tensor:  # N x C x h x w
        heatmap: Tensor = self.final(self.deconv(features))
        return heatmap


class LinearSimccHead(nn.Module):
    """Deconvolutions (may be none), a 1x1 convolution to `maps_per_joint` x K maps, flattened, one linear an axis."""

    def __init__(
        self,
        channels: int,
        *,
        feature_hw: tuple[int, int],
        joints: int,
        bins_xy: tuple[int, int],
        deconv: Sequence[int],
        maps_per_joint: int,
    ) -> None:
        super().__init__()
        height, width = (size * 2 ** len(deconv) for size in feature_hw)
        self.joints = joints
        self.deconv = deconvolutions(channels, deconv)
        self.final = nn.Conv2d(deconv[-1] if deconv else channels, joints * maps_per_joint, 1)
        self.classify_x = nn.Linear(maps_per_joint * height * width, bins_xy[0])
        self.classify_y = nn.Linear(maps_per_joint * height * width, bins_xy[1])

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:  # N x C x h x w
        maps = self.final(self.deconv(features))
        tokens = maps.reshape(-1, self.joints, self.classify_x.in_features)
        return self.classify_x(tokens), self.classify_y(tokens)


class ScaleNorm(nn.Module):
    """Each token divided by the root mean square of its values, times one learned gain (Nguyen and Salazar, 2019)."""

    SMALLEST = 1e-5  # no token is divided by less

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1))
        self.scale = dim**-0.5

    def forward(self, x: Tensor) -> Tensor:  # N x K x dim
        norm = torch.linalg.vector_norm(x, dim=2, keepdim=True) * self.scale
        normalised: Tensor = x / norm.clamp(min=self.SMALLEST) * self.g
        return normalised


class GatedAttention(nn.Module):
    """Gated attention unit over K tokens (Hua et al., 2022) with squared-ReLU attention and a scaled shortcut."""

    def __init__(self, dim: int, attention: int, expansion: int) -> None:
        super().__init__()
        self.widths = [dim * expansion, dim * expansion, attention]
        self.ln = ScaleNorm(dim)
        self.uv = nn.Linear(dim, sum(self.widths), bias=False)
        self.gamma = nn.Parameter(torch.ones(2, attention))
        self.beta = nn.Parameter(torch.zeros(2, attention))
        self.o = nn.Linear(dim * expansion, dim, bias=False)
        self.res_scale = nn.ParameterDict({"scale": nn.Parameter(torch.ones(dim))})
        self.sqrt_attention = attention**0.5

    def forward(self, x: Tensor) -> Tensor:  # N x K x dim
        u, v, base = torch.split(F.silu(self.uv(self.ln(x))), self.widths, dim=2)
        query, key = (base * self.gamma[i] + self.beta[i] for i in range(2))
        weights = torch.relu(query @ key.transpose(1, 2) / self.sqrt_attention).square()
        result: Tensor = self.o(u * (weights @ v)) + x * self.res_scale["scale"]
        return result


class GauHead(nn.Module):
    """RTMPose's head: large convolution to K maps, ScaleNorm, linear, gated attention, one linear an axis."""

    def __init__(
        self,
        channels: int,
        *,
        feature_hw: tuple[int, int],
        joints: int,
        bins_xy: tuple[int, int],
        kernel: int,
        hidden: int,
        attention: int,
        expansion: int,
    ) -> None:
        super().__init__()
        self.final = nn.Conv2d(channels, joints, kernel, padding=kernel // 2)
        self.norm = ScaleNorm(feature_hw[0] * feature_hw[1])
        self.reduce = nn.Linear(feature_hw[0] * feature_hw[1], hidden, bias=False)
        self.gau = GatedAttention(hidden, attention, expansion)
        self.classify_x = nn.Linear(hidden, bins_xy[0], bias=False)
        self.classify_y = nn.Linear(hidden, bins_xy[1], bias=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:  # N x C x h x w
        tokens = self.gau(self.reduce(self.norm(self.final(features).flatten(2))))
        return self.classify_x(tokens), self.classify_y(tokens)


def deconvolutions(channels: int, widths: Sequence[int]) -> nn.Sequential:
    """One 4x4 transposed convolution of stride 2 with batch normalisation and ReLU per width."""
    layers: list[nn.Module] = []
    for before, after in zip([channels, *widths], widths):  # noqa: B905 - the first list is one longer by design
        layers += [
            nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)

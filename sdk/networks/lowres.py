"""The project's own network for low resolution: a residual backbone and a head that marginalises.

Backbone: a stem at stride 2, four residual stages at strides 4 to 32, and a small neck that adds each coarser map to
the finer one. Head: one 1x1 convolution gives each joint, each cell and each bin inside a cell a logit, for x and for
y; the log-sum-exp over the rows is the logit of a bin along x, over the columns along y. A softmax over bins is then
the marginal of a softmax over the plane, so the two 1-D classifications of SimCC come from maps that convolutions
shift along with the person: no layer learns a weight for each place, and any input size works.

    backbone = LowRes(channels=(32, 48, 96, 192, 256), depths=(1, 1, 1, 1), neck=(128, 96))
    head = MarginalHead(96, joints=14, bins_a_cell=16, depth=1)
    simcc_x, simcc_y = head(backbone(crops))          # N x 3 x 128 x 128 -> two N x 14 x 256
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LowRes", "MarginalHead", "blur_matrix", "log_sum_exp"]


class LowRes(nn.Module):
    """Strides 2, 4, 8, 16, 32, then the neck back up: `neck` holds the channels at stride 16, 8 (and 4)."""

    def __init__(self, channels: Sequence[int], depths: Sequence[int], neck: Sequence[int]) -> None:
        super().__init__()
        self.stem = convolution(3, channels[0], 3, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(before, after, 3, 2), *[Residual(after) for _ in range(depth)])
            for before, after, depth in zip(channels, channels[1:], depths, strict=False)
        )
        coarse = [channels[-1], *neck]
        fine = list(reversed(channels[1:-1]))
        self.neck = nn.ModuleList(Merge(*widths) for widths in zip(coarse, fine, neck, strict=False))
        self.channels = neck[-1]
        self.stride = 32 >> len(neck)

    def forward(self, crops: Tensor) -> Tensor:  # N x 3 x h x w
        x: Tensor = self.stem(crops)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        for merge, fine in zip(self.neck, reversed(maps[:-1]), strict=False):
            x = merge(x, fine)
        return x


class MarginalHead(nn.Module):
    """`depth` 3x3 convolutions, the 1x1 convolution, the log-sum-exp over rows and over columns, and a blur.

    Nothing ties the last bin of a cell to the first of the next, so the largest bin would often be one at a border. A
    Gaussian of `blur_bins` over the logits ties them; it leaves a parabola, the logits of a Gaussian label, as it is.
    """

    def __init__(
        self,
        channels: int,
        joints: int,
        bins_a_cell: int,
        depth: int,
        *,
        blur_bins: float = 0.0,
        bins_xy: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.joints, self.bins, self.blur_bins = joints, bins_a_cell, blur_bins
        self._blurs: dict[int, Tensor] = {}
        for bins in bins_xy if blur_bins else ():  # made here, an exporter's trace meets it as the constant it is
            self._blur(bins)
        self.refine = nn.Sequential(*[convolution(channels, channels, 3) for _ in range(depth)])
        self.final = nn.Conv2d(channels, 2 * joints * bins_a_cell, 1)
        nn.init.normal_(self.final.weight, std=0.01)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:  # N x C x h x w
        along_x, along_y = self.final(self.refine(features)).float().chunk(2, dim=1)
        return self._bins(log_sum_exp(along_x, dim=2)), self._bins(log_sum_exp(along_y, dim=3))

    def _blur(self, bins: int) -> Tensor:
        """bins x bins, made once; not a buffer, for it is no weight and depends on the input's size."""
        if bins not in self._blurs:
            self._blurs[bins] = torch.from_numpy(blur_matrix(bins, self.blur_bins))
        return self._blurs[bins]

    def _bins(self, marginal: Tensor) -> Tensor:  # N x (K x bins a cell) x cells
        """N x K x (cells x bins a cell), in the order of pixels."""
        cells = marginal.shape[2]
        split = marginal.reshape(-1, self.joints, self.bins, cells).transpose(2, 3)
        logits = split.reshape(-1, self.joints, cells * self.bins)
        if self.blur_bins == 0:
            return logits
        blur = self._blur(cells * self.bins).to(logits)
        with torch.autocast(logits.device.type, enabled=False):  # half precision would cost a tenth of a logit
            return logits @ blur


def log_sum_exp(x: Tensor, dim: int) -> Tensor:
    """The logarithm of the sum of exponentials, its largest term taken out in the open.

    ONNX's own operator leaves that to whoever runs it, and a compiler that does not overflows FP16 at a logit of 11.
    """
    largest = x.amax(dim=dim, keepdim=True).detach()
    total: Tensor = (x - largest).exp().sum(dim=dim).log() + largest.squeeze(dim)
    return total


def blur_matrix(bins: int, sigma_bins: float) -> NDArray[np.float32]:
    """bins x bins: `logits @ matrix` is the logits under a Gaussian, the first and last bin repeated outside."""
    reach = int(np.ceil(4 * sigma_bins))
    taps = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / sigma_bins))
    matrix = np.zeros((bins, bins))
    for target in range(bins):
        sources = np.clip(np.arange(target - reach, target + reach + 1), 0, bins - 1)
        np.add.at(matrix[:, target], sources, taps / taps.sum())
    return matrix.astype(np.float32)


class Residual(nn.Module):
    """Two 3x3 convolutions and the shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels, 3)
        self.second = convolution(channels, channels, 3, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Merge(nn.Module):
    """The coarser map, doubled, plus the finer one, both to `out` channels; then one 3x3 convolution."""

    def __init__(self, coarse: int, fine: int, out: int) -> None:
        super().__init__()
        self.coarse = convolution(coarse, out, 1, activate=False)
        self.fine = convolution(fine, out, 1, activate=False)
        self.smooth = convolution(out, out, 3)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        doubled = F.interpolate(self.coarse(coarse), scale_factor=2.0, mode="nearest")
        merged: Tensor = self.smooth(F.silu(doubled + self.fine(fine)))
        return merged


def convolution(before: int, after: int, kernel: int, stride: int = 1, *, activate: bool = True) -> nn.Sequential:
    """Convolution without bias, batch normalisation and, if asked, SiLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(after),
    ]
    return nn.Sequential(*layers, *([nn.SiLU(inplace=True)] if activate else []))

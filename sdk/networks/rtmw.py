"""RTMW (Jiang et al., 2024): the neck and the head that stand between CSPNeXt and the whole body's classifiers.

The neck carries coarse maps down to fine ones and back up (path aggregation). The head gives each joint a token half of
which is read off the map of stride 32 and half off the one of stride 16, before RTMPose's gated attention unit. With a
third axis (RTMW3D) it is one classifier more.

    neck = Pafpn(widths=(192, 384, 768), blocks=2)                    # of RTMW-m
    head = RtmwHead((384, 768), feature_hw=(8, 6), joints=133, bins=(384, 512), kernel=7, hidden=256, attention=128,
                    expansion=2)
    simcc_x, simcc_y = head(neck(maps))                               # maps of strides 8, 16, 32
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdk.networks.cspnext import ConvNormAct, PartialStage
from sdk.networks.heads import GatedAttention, ScaleNorm

__all__ = ["Pafpn", "RtmwHead"]


class Pafpn(nn.Module):
    """Maps of strides 8, 16, 32 with `widths` channels to maps of strides 16 and 32 with their own widths."""

    def __init__(self, widths: tuple[int, int, int], blocks: int) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.reduce_layers = nn.ModuleList([ConvNormAct(coarse, middle, 1), ConvNormAct(middle, fine, 1)])
        self.top_down_blocks = nn.ModuleList(_joining(width, width, blocks) for width in (middle, fine))
        self.downsamples = nn.ModuleList(ConvNormAct(width, width, 3, stride=2) for width in (fine, middle))
        self.bottom_up_blocks = nn.ModuleList(_joining(width, 2 * width, blocks) for width in (fine, middle))

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        fine, middle, coarse = maps
        coarse = self.reduce_layers[0](coarse)
        middle = self.reduce_layers[1](self.top_down_blocks[0](torch.cat([_doubled(coarse), middle], dim=1)))
        fine = self.top_down_blocks[1](torch.cat([_doubled(middle), fine], dim=1))
        of_16 = self.bottom_up_blocks[0](torch.cat([self.downsamples[0](fine), middle], dim=1))
        of_32 = self.bottom_up_blocks[1](torch.cat([self.downsamples[1](of_16), coarse], dim=1))
        return of_16, of_32


class RtmwHead(nn.Module):
    """Maps of strides 16 and 32 to one output an axis: along x and y and, of three `bins`, along z."""

    def __init__(
        self,
        widths: tuple[int, int],
        *,
        feature_hw: tuple[int, int],  # of stride 32
        joints: int,
        bins: tuple[int, ...],
        kernel: int,
        hidden: int,
        attention: int,
        expansion: int,
    ) -> None:
        super().__init__()
        fine, coarse = widths
        carried, cells = coarse // 4, feature_hw[0] * feature_hw[1]
        self.carry = _Rectified(carried, carried, kernel)
        self.final = _Rectified(coarse, joints, kernel)
        self.final_fine = _Rectified(carried + fine, joints, kernel)
        self.norm, self.norm_fine = ScaleNorm(cells), ScaleNorm(4 * cells)
        self.reduce = nn.Linear(cells, hidden // 2, bias=False)
        self.reduce_fine = nn.Linear(4 * cells, hidden // 2, bias=False)
        self.gau = GatedAttention(hidden, attention, expansion)
        self.axes = "xyz"[: len(bins)]
        for axis, count in zip(self.axes, bins, strict=True):
            self.add_module(f"classify_{axis}", nn.Linear(hidden, count, bias=False))

    def forward(self, maps: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        of_16, of_32 = maps
        fine = torch.cat([self.carry(F.pixel_shuffle(of_32, 2)), of_16], dim=1)
        coarse_half = self.reduce(self.norm(self.final(of_32).flatten(2)))
        fine_half = self.reduce_fine(self.norm_fine(self.final_fine(fine).flatten(2)))
        tokens = self.gau(torch.cat([coarse_half, fine_half], dim=2))
        return tuple(self.get_submodule(f"classify_{axis}")(tokens) for axis in self.axes)


class _Rectified(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:  # N x C x h x w
        return F.relu(self.bn(self.conv(x)))


def _joining(width: int, channels_out: int, blocks: int) -> PartialStage:
    """The stage that makes one map of two joined ones of `width` channels each."""
    return PartialStage(2 * width, channels_out, blocks, identity=False, attention=False)


def _doubled(x: Tensor) -> Tensor:  # N x C x h x w -> N x C x 2h x 2w
    return F.interpolate(x, scale_factor=2, mode="nearest")

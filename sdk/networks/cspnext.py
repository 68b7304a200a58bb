"""CSPNeXt, five strides (Lyu et al., RTMDet, 2022), the backbone of RTMPose (Jiang et al., 2023).

Cross-stage-partial stages of blocks with a 5x5 depthwise convolution, SiLU, channel attention and spatial pyramid
pooling in the last stage. It ends at stride 32, or gives the maps of strides 8, 16 and 32 to a neck (`pafpn`), and
knows nothing of joints.

    backbone = CSPNeXt(deepen=0.33, widen=0.5)        # RTMPose-s
    features = backbone(crops)                        # N x 512 x h/32 x w/32
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CSPNeXt", "ConvNormAct", "PartialStage"]

# channels in, channels out, blocks, identity shortcut in the blocks, spatial pyramid pooling; before widen and deepen
STAGES = (
    (64, 128, 3, True, False),
    (128, 256, 6, True, False),
    (256, 512, 6, True, False),
    (512, 1024, 3, False, True),
)
POOL_KERNELS = (5, 9, 13)


class CSPNeXt(nn.Module):
    """`deepen` scales the number of blocks, `widen` the channels (t 0.167/0.375, s 0.33/0.5, m 0.67/0.75, l 1/1).

    `pyramid` gives the maps of the last three stages, of `widths` channels each, instead of the last alone.
    """

    stride = 32

    def __init__(self, deepen: float, widen: float, *, pyramid: bool = False) -> None:
        super().__init__()
        stem = int(STAGES[0][0] * widen)
        self.stem = nn.Sequential(
            ConvNormAct(3, stem // 2, 3, stride=2),
            ConvNormAct(stem // 2, stem // 2, 3),
            ConvNormAct(stem // 2, stem, 3),
        )
        stages = [
            _stage(int(before * widen), int(after * widen), max(round(blocks * deepen), 1), identity, pooling)
            for before, after, blocks, identity, pooling in STAGES
        ]
        self.stage1, self.stage2, self.stage3, self.stage4 = stages
        self.widths = tuple(int(after * widen) for _, after, *_ in STAGES[1:])
        self.channels = self.widths[-1]
        self.pyramid = pyramid

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:  # N x 3 x h x w
        of_8: Tensor = self.stage2(self.stage1(self.stem(x)))
        of_16: Tensor = self.stage3(of_8)
        of_32: Tensor = self.stage4(of_16)
        return (of_8, of_16, of_32) if self.pyramid else of_32


class ConvNormAct(nn.Module):
    """Convolution, batch normalisation, SiLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:  # N x C x h x w
        return F.silu(self.bn(self.conv(x)))


class _Separable(nn.Module):
    """5x5 depthwise, then 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise_conv = ConvNormAct(channels, channels, 5, groups=channels)
        self.pointwise_conv = ConvNormAct(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # N x C x h x w
        result: Tensor = self.pointwise_conv(self.depthwise_conv(x))
        return result


class _Block(nn.Module):
    """3x3, then separable 5x5, with or without a shortcut."""

    def __init__(self, channels: int, *, identity: bool) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(channels, channels, 3)
        self.conv2 = _Separable(channels)
        self.identity = identity

    def forward(self, x: Tensor) -> Tensor:  # N x C x h x w
        result: Tensor = self.conv2(self.conv1(x))
        return result + x if self.identity else result


class _ChannelAttention(nn.Module):
    """Each channel times the hard sigmoid of a linear map of all channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # N x C x h x w
        return x * F.hardsigmoid(self.fc(F.adaptive_avg_pool2d(x, 1)))


class PartialStage(nn.Module):
    """Half the channels through the blocks, half past them; a neck's stages are without attention."""

    def __init__(
        self, channels_in: int, channels_out: int, blocks: int, *, identity: bool, attention: bool = True
    ) -> None:
        super().__init__()
        half = channels_out // 2
        self.main_conv = ConvNormAct(channels_in, half, 1)
        self.short_conv = ConvNormAct(channels_in, half, 1)
        self.final_conv = ConvNormAct(2 * half, channels_out, 1)
        self.blocks = nn.Sequential(*(_Block(half, identity=identity) for _ in range(blocks)))
        self.attention = _ChannelAttention(2 * half) if attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # N x C x h x w
        joined = torch.cat([self.blocks(self.main_conv(x)), self.short_conv(x)], dim=1)
        result: Tensor = self.final_conv(self.attention(joined))
        return result


class _PyramidPooling(nn.Module):
    """The input and its max-pools of three sizes, joined by a 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = ConvNormAct(channels, half, 1)
        self.poolings = nn.ModuleList(nn.MaxPool2d(kernel, 1, kernel // 2) for kernel in POOL_KERNELS)
        self.conv2 = ConvNormAct(half * (1 + len(POOL_KERNELS)), channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # N x C x h x w
        x = self.conv1(x)
        result: Tensor = self.conv2(torch.cat([x, *(pooling(x) for pooling in self.poolings)], dim=1))
        return result


def _stage(channels_in: int, channels_out: int, blocks: int, identity: bool, pooling: bool) -> nn.Sequential:
    layers: list[nn.Module] = [ConvNormAct(channels_in, channels_out, 3, stride=2)]
    if pooling:
        layers.append(_PyramidPooling(channels_out))
    layers.append(PartialStage(channels_out, channels_out, blocks, identity=identity))
    return nn.Sequential(*layers)

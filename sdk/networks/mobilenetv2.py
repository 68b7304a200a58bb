"""MobileNetV2 (Sandler et al., CVPR 2018), as mmpose builds it; it ends at stride 32 and knows nothing of joints.

backbone = MobileNetV2(widen=1.0)
features = backbone(crops)            # N x 1280 x h/32 x w/32
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MobileNetV2"]

# expansion, channels before widening, blocks, stride of the first
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobileNetV2(nn.Module):
    """`widen` scales the channels; the last convolution never has fewer than 1280."""

    stride = 32

    def __init__(self, widen: float) -> None:
        super().__init__()
        width = _in_eights(32 * widen)
        self.conv1 = _ConvNorm(3, width, 3, stride=2)
        stages = []
        for expansion, channels, blocks, stride in STAGES:
            after = _in_eights(channels * widen)
            stages.append(_stage(width, after, blocks, stride, expansion))
            width = after
        self.layer1, self.layer2, self.layer3, self.layer4, self.layer5, self.layer6, self.layer7 = stages
        self.channels = int(1280 * max(widen, 1.0))
        self.conv2 = _ConvNorm(width, self.channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # N x 3 x h x w
        x = self.conv1(x)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4, self.layer5, self.layer6, self.layer7):
            x = stage(x)
        features: Tensor = self.conv2(x)
        return features


class _ConvNorm(nn.Module):
    """Convolution, batch normalisation and, unless `linear`, ReLU6."""

    def __init__(
        self, before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(after)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:  # N x C x h x w
        x = self.bn(self.conv(x))
        return x if self.linear else F.relu6(x)


class _InvertedResidual(nn.Module):
    """1x1 up, 3x3 depthwise, 1x1 down; a shortcut where the shape stays."""

    def __init__(self, before: int, after: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = _in_eights(before * expansion)
        up = [_ConvNorm(before, hidden, 1)] if expansion != 1 else []
        depthwise = _ConvNorm(hidden, hidden, 3, stride=stride, groups=hidden)
        self.conv = nn.Sequential(*up, depthwise, _ConvNorm(hidden, after, 1, linear=True))
        self.shortcut = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:  # N x C x h x w
        result: Tensor = self.conv(x)
        return x + result if self.shortcut else result


def _stage(before: int, after: int, blocks: int, stride: int, expansion: int) -> nn.Sequential:
    first = _InvertedResidual(before, after, stride, expansion)
    return nn.Sequential(first, *(_InvertedResidual(after, after, 1, expansion) for _ in range(blocks - 1)))


def _in_eights(channels: float) -> int:
    """The nearest multiple of eight, at least eight, and never below nine tenths of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded

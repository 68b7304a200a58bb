"""ResNet (He et al., CVPR 2016) with the stride on the 3x3 convolution, as SimpleBaseline and mmpose use it.

One ResNet for every head; it ends at its last feature map (stride 32) and knows nothing of joints. `BasicBlock` and
`Bottleneck` are HRNet's and TokenPose's blocks too.

    backbone = ResNet(depth=50)
    features = backbone(crops)            # N x 2048 x h/32 x w/32
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sdk.errors import RecipeError

__all__ = ["BasicBlock", "Bottleneck", "ResNet", "block_sequence"]

BLOCKS_OF_DEPTH = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(channels_in, channels, stride)

    def forward(self, x: Tensor) -> Tensor:  # N x C x h x w
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut; four times `channels` come out."""

    expansion = 4

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.downsample = _shortcut(channels_in, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:  # N x C x h x w
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return torch.relu(self.bn3(self.conv3(x)) + shortcut)


Block = type[BasicBlock] | type[Bottleneck]


class ResNet(nn.Module):
    """The four stages of a ResNet; `depth` is 18, 34, 50, 101 or 152."""

    stride = 32

    def __init__(self, depth: int) -> None:
        super().__init__()
        if depth not in BLOCKS_OF_DEPTH:
            raise RecipeError(f"network.backbone.depth must be one of {sorted(BLOCKS_OF_DEPTH)} (got {depth})")
        block: Block = Bottleneck if depth >= 50 else BasicBlock
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        widths = [64 * 2**stage for stage in range(4)]
        self.layer1, self.layer2, self.layer3, self.layer4 = _stages(block, widths, BLOCKS_OF_DEPTH[depth])
        self.channels = widths[-1] * block.expansion

    def forward(self, x: Tensor) -> Tensor:  # N x 3 x h x w
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        features: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return features


def block_sequence(block: Block, channels_in: int, channels: int, count: int, stride: int = 1) -> nn.Sequential:
    """`count` blocks, the first from `channels_in` and with `stride`."""
    first = block(channels_in, channels, stride)
    rest = [block(channels * block.expansion, channels) for _ in range(count - 1)]
    return nn.Sequential(first, *rest)


def _stages(block: Block, widths: Sequence[int], counts: Sequence[int]) -> list[nn.Sequential]:
    channels_in = [64, *(width * block.expansion for width in widths)]
    return [
        block_sequence(block, channels_in[i], widths[i], counts[i], stride=1 if i == 0 else 2)
        for i in range(len(counts))
    ]


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Sequential | None:
    """A projection where the shape changes, else None (the identity)."""
    if stride == 1 and channels_in == channels_out:
        return None
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
        nn.BatchNorm2d(channels_out),
    )

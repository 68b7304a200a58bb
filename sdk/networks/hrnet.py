"""HRNet (Sun et al., CVPR 2019): parallel branches at strides 4, 8, 16, 32 that exchange features again and again.

Only the highest-resolution branch leaves the network (stride 4, `width` channels), as in HRNet's pose networks and in
SimCC's; heads are elsewhere.

    backbone = HRNet(width=32)
    features = backbone(crops)            # N x 32 x h/4 x w/4
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sdk.networks.resnet import BasicBlock, Bottleneck, block_sequence

__all__ = ["HRNet"]

MODULES_OF_STAGE = (1, 4, 3)  # stages 2, 3, 4
BLOCKS = 4  # residual blocks of a branch in a module, and of the first stage


class HRNet(nn.Module):
    """`width` is the number of channels at stride 4 (32 or 48); every further branch doubles it."""

    stride = 4

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channels = width
        self.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.layer1 = block_sequence(Bottleneck, 64, 64, BLOCKS)
        widths = [[width * 2**branch for branch in range(branches)] for branches in (2, 3, 4)]
        self.transition1 = _transition([256], widths[0])
        self.stage2 = _stage(widths[0], MODULES_OF_STAGE[0])
        self.transition2 = _transition(widths[0], widths[1])
        self.stage3 = _stage(widths[1], MODULES_OF_STAGE[1])
        self.transition3 = _transition(widths[1], widths[2])
        self.stage4 = _stage(widths[2], MODULES_OF_STAGE[2], last=True)

    def forward(self, x: Tensor) -> Tensor:  # N x 3 x h x w
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        branches = [self.layer1(x)]
        for transition, stage in (
            (self.transition1, self.stage2),
            (self.transition2, self.stage3),
            (self.transition3, self.stage4),
        ):
            branches = stage(_crossed(transition, branches))
        features: Tensor = branches[0]
        return features


class _Exchange(nn.Module):
    """Residual blocks in each branch, then every output branch sums all branches brought to its size."""

    def __init__(self, widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(block_sequence(BasicBlock, width, width, BLOCKS) for width in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_path(widths, source, target) for source in range(len(widths))) for target in range(outputs)
        )

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        branches = [blocks(x) for blocks, x in zip(self.branches, branches, strict=True)]
        return [torch.relu(_sum_of_paths(list(paths.children()), branches)) for paths in self.fuse_layers]


def _sum_of_paths(paths: Sequence[nn.Module], branches: Sequence[Tensor]) -> Tensor:
    total: Tensor = paths[0](branches[0])
    for path, x in zip(paths[1:], branches[1:], strict=True):
        total = total + path(x)
    return total


def _path(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """From branch `source` to the size and width of branch `target`."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(
            nn.Conv2d(widths[source], widths[target], 1, bias=False),
            nn.BatchNorm2d(widths[target]),
            nn.Upsample(scale_factor=float(2 ** (source - target)), mode="nearest"),
        )
    steps = target - source
    halvings = [_halving(widths[source], widths[source], activated=True) for _ in range(steps - 1)]
    return nn.Sequential(*halvings, _halving(widths[source], widths[target], activated=False))


def _halving(channels_in: int, channels_out: int, *, activated: bool) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(channels_in, channels_out, 3, 2, 1, bias=False),
        nn.BatchNorm2d(channels_out),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if activated else nn.Sequential(*layers)


def _stage(widths: Sequence[int], modules: int, *, last: bool = False) -> nn.Sequential:
    outputs = [len(widths)] * modules
    if last:
        outputs[-1] = 1
    return nn.Sequential(*(_Exchange(widths, count) for count in outputs))


def _transition(before: Sequence[int], after: Sequence[int]) -> nn.ModuleList:
    """What brings the branches of one stage to those of the next; the new branch grows out of the last old one."""
    layers = nn.ModuleList()
    for index, width in enumerate(after):
        if index >= len(before):
            layers.append(nn.Sequential(_halving(before[-1], width, activated=True)))
        elif before[index] == width:
            layers.append(nn.Identity())
        else:
            layers.append(
                nn.Sequential(nn.Conv2d(before[index], width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
            )
    return layers


def _crossed(transition: nn.ModuleList, branches: Sequence[Tensor]) -> list[Tensor]:
    last = len(branches) - 1
    return [layer(branches[min(index, last)]) for index, layer in enumerate(transition)]

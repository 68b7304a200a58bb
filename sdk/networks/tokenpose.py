"""TokenPose-S (Li et al., ICCV 2021): a convolutional stem, image patches, one learned token a joint, a transformer.

The backbone ends at the keypoint tokens. v1 and v2 of the paper differ in the patch size alone. Position embeddings are
two-dimensional sines, added to the patch tokens before every layer; they are part of a checkpoint. The SimCC variant's
code was never published: by the SimCC paper it puts two linear classifiers where TokenPose has its heatmap head.

    tokens = TokenPose(size_hw=(256, 192), joints=17, patch_hw=(4, 3), dim=192, depth=12, heads=8, mlp_ratio=3)(crops)
    simcc_x, simcc_y = TokenSimccHead(192, bins_xy=(384, 512))(tokens)      # tokens: N x 17 x 192
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdk.errors import RecipeError
from sdk.networks.resnet import Bottleneck, block_sequence

__all__ = ["TokenHeatmapHead", "TokenPose", "TokenSimccHead"]

STEM_STRIDE = 4
STEM_CHANNELS = 256


class TokenPose(nn.Module):
    """From crops to keypoint tokens, N x joints x dim."""

    def __init__(
        self,
        *,
        size_hw: tuple[int, int],
        joints: int,
        patch_hw: tuple[int, int],
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: int,
    ) -> None:
        super().__init__()
        self.channels = dim
        self.patch_hw = patch_hw
        self.joints = joints
        grid_hw = _grid(size_hw, patch_hw)
        self.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.layer1 = block_sequence(Bottleneck, 64, 64, 4)
        self.patch_to_embedding = nn.Linear(STEM_CHANNELS * patch_hw[0] * patch_hw[1], dim)
        self.keypoint_token = nn.Parameter(torch.zeros(1, joints, dim))
        self.pos_embedding = nn.Parameter(_sine_positions(grid_hw, dim), requires_grad=False)
        self.layers = nn.ModuleList(_Layer(dim, heads, dim * mlp_ratio) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:  # N x 3 x h x w
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        patches = self.patch_to_embedding(_patches(self.layer1(x), self.patch_hw))
        tokens = torch.cat([self.keypoint_token.expand(patches.shape[0], -1, -1), patches], dim=1)
        positions = F.pad(self.pos_embedding, (0, 0, self.joints, 0))  # keypoint tokens have none
        for layer in self.layers:
            tokens = layer(tokens + positions)
        keypoint_tokens: Tensor = tokens[:, : self.joints]
        return keypoint_tokens


class TokenHeatmapHead(nn.Module):
    """TokenPose's own head: each keypoint token, normalised, to a heatmap at stride 4.

    By one linear layer, or by two with `hidden` values between them (0: by one).
    """

    def __init__(self, dim: int, *, hidden: int, heatmap_hw: tuple[int, int]) -> None:
        super().__init__()
        self.heatmap_hw = heatmap_hw
        between: list[nn.Module] = [nn.Linear(dim, hidden), nn.LayerNorm(hidden)] if hidden else []
        last = nn.Linear(hidden or dim, heatmap_hw[0] * heatmap_hw[1])
        self.layers = nn.Sequential(nn.LayerNorm(dim), *between, last)

    def forward(self, tokens: Tensor) -> Tensor:  # N x K x dim
        maps: Tensor = self.layers(tokens)
        return maps.reshape(-1, tokens.shape[1], *self.heatmap_hw)


class TokenSimccHead(nn.Module):
    """Two linear classifiers on the keypoint tokens (SimCC paper, table 2)."""

    def __init__(self, dim: int, *, bins_xy: tuple[int, int]) -> None:
        super().__init__()
        self.classify_x = nn.Linear(dim, bins_xy[0])
        self.classify_y = nn.Linear(dim, bins_xy[1])

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:  # N x K x dim
        return self.classify_x(tokens), self.classify_y(tokens)


class _Layer(nn.Module):
    """Self-attention and a two-layer perceptron, each on normalised tokens and with a shortcut."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = dim**-0.5  # of the whole width, not of one head: as TokenPose-S was trained
        self.attention_norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp_in = nn.Linear(dim, hidden)
        self.mlp_out = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:  # N x T x dim
        tokens = tokens + self.to_out(self._attended(self.attention_norm(tokens)))
        result: Tensor = tokens + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(tokens))))
        return result

    def _attended(self, tokens: Tensor) -> Tensor:  # N x T x dim
        _, count, dim = tokens.shape
        query, key, value = (
            part.reshape(-1, count, self.heads, dim // self.heads).transpose(1, 2)
            for part in self.to_qkv(tokens).chunk(3, dim=-1)
        )
        weights = torch.softmax(query @ key.transpose(2, 3) * self.scale, dim=-1)
        attended: Tensor = (weights @ value).transpose(1, 2).reshape(-1, count, dim)
        return attended


def _patches(features: Tensor, patch_hw: tuple[int, int]) -> Tensor:  # N x C x h x w
    """N x patches x (patch pixels, row by row, each with its C channels)."""
    _, channels, height, width = features.shape
    rows, columns = height // patch_hw[0], width // patch_hw[1]
    grid = features.reshape(-1, channels, rows, patch_hw[0], columns, patch_hw[1])
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(-1, rows * columns, patch_hw[0] * patch_hw[1] * channels)


def _grid(size_hw: tuple[int, int], patch_hw: tuple[int, int]) -> tuple[int, int]:
    """Patches down and across."""
    rows, columns = (size // (STEM_STRIDE * patch) for size, patch in zip(size_hw, patch_hw, strict=True))
    if (rows * patch_hw[0] * STEM_STRIDE, columns * patch_hw[1] * STEM_STRIDE) != tuple(size_hw):
        raise RecipeError(
            f"network.backbone.patch_hw must divide the input at stride {STEM_STRIDE} "
            f"(got patches of {patch_hw[0]}x{patch_hw[1]} for {size_hw[0]}x{size_hw[1]})"
        )
    return rows, columns


def _sine_positions(grid_hw: tuple[int, int], dim: int) -> Tensor:
    """1 x patches x dim: the first half of the width tells the row, the second the column (Carion et al., 2020)."""
    rows, columns = grid_hw
    down, across = _sines(rows, dim // 2), _sines(columns, dim // 2)
    both = torch.cat([down[:, None].expand(-1, columns, -1), across[None].expand(rows, -1, -1)], dim=2)
    return both.reshape(1, rows * columns, dim)


def _sines(count: int, width: int) -> Tensor:
    """count x width: sines at even places, cosines at odd ones, of 2 pi (i + 1) / count at falling frequencies."""
    angle = 2 * math.pi * torch.arange(1, count + 1, dtype=torch.float32) / (count + 1e-6)
    frequency = 10000.0 ** -(2 * torch.div(torch.arange(width), 2, rounding_mode="floor") / width)
    phase = angle[:, None] * frequency
    return torch.where(torch.arange(width) % 2 == 0, phase.sin(), phase.cos())

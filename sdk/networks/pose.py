"""A backbone, perhaps a neck, and a head: what every recipe's network is.

network = PoseNetwork(ResNet(50), HeatmapHead(2048, 17, (256, 256, 256)), size_hw=(256, 192))
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["PoseNetwork"]


class PoseNetwork(nn.Module):
    """Crops to (simcc_x, simcc_y), with a third axis simcc_z too, or to one heatmap. `size_hw` is the input's size."""

    def __init__(
        self, backbone: nn.Module, head: nn.Module, size_hw: tuple[int, int], neck: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.size_hw = size_hw

    def forward(self, crops: Tensor) -> Any:  # N x 3 x h x w
        features = self.backbone(crops)
        return self.head(features if self.neck is None else self.neck(features))

"""What a recipe says of its network: the tables `network.backbone`, `network.neck` and `network.head`, by their `kind`.

Here a kind is a table; the torch module that is built of it is in `sdk.networks`, and so is which parts go together.

    Network(CSPNeXt("cspnext", 0.167, 0.375), GauHead("gau", kernel=7, hidden=256, attention=128, expansion=2))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sdk.strict import Count, Within

__all__ = [
    "Backbone",
    "CSPNeXt",
    "GauHead",
    "HRNet",
    "Head",
    "HeatmapHead",
    "LinearSimccHead",
    "LowRes",
    "MarginalHead",
    "MobileNetV2",
    "Network",
    "Pafpn",
    "ResNet",
    "RtmwHead",
    "TokenHeatmapHead",
    "TokenPose",
    "TokenSimccHead",
]

Depth = Annotated[int, Within(0, 1024)]  # layers; none is allowed
Blur = Annotated[float, Within(0, 64)]  # pixels of the crop; 3 ships
Factor = Annotated[float, Within(0, 16, above=True)]  # of depths and widths; published networks: 0.167 to 1.33


@dataclass(frozen=True)
class ResNet:
    """He et al., CVPR 2016, as in SimpleBaseline (stride on the 3x3); `depth` 18, 34, 50, 101 or 152."""

    kind: Literal["resnet"]
    depth: Count


@dataclass(frozen=True)
class HRNet:
    """Sun et al., CVPR 2019; `width` 32 or 48. Its highest-resolution branch feeds the head."""

    kind: Literal["hrnet"]
    width: Count


@dataclass(frozen=True)
class MobileNetV2:
    """Sandler et al., CVPR 2018, as in mmpose."""

    kind: Literal["mobilenetv2"]
    widen: Factor


@dataclass(frozen=True)
class CSPNeXt:
    """The backbone of RTMPose (Jiang et al., 2023; Lyu et al., RTMDet, 2022), P5."""

    kind: Literal["cspnext"]
    deepen: Factor
    widen: Factor


@dataclass(frozen=True)
class TokenPose:
    """Li et al., ICCV 2021, TokenPose-S: a convolutional stem, patches (v1: 4x3, v2: 2x2), and one token a joint."""

    kind: Literal["tokenpose"]
    patch_hw: tuple[Count, Count]
    dim: Count
    depth: Count
    heads: Count
    mlp_ratio: Count


@dataclass(frozen=True)
class LowRes:
    """The project's own for low resolution: residual stages at strides 4 to 32, a neck back up (`networks/lowres`)."""

    kind: Literal["lowres"]
    channels: tuple[Count, ...]  # of the stem and the four stages
    depths: tuple[Depth, ...]  # residual blocks of the stages
    neck: tuple[Count, ...]  # channels at stride 16, 8, 4: as many as there are steps up


@dataclass(frozen=True)
class Pafpn:
    """Path aggregation over CSPNeXt's strides 8, 16 and 32, as RTMW has it; the head reads 16 and 32."""

    kind: Literal["pafpn"]
    blocks: int  # in each of its partial stages


Backbone = ResNet | HRNet | MobileNetV2 | CSPNeXt | TokenPose | LowRes


@dataclass(frozen=True)
class HeatmapHead:
    """Deconvolutions (may be none), then a 1x1 convolution to K heatmaps (SimpleBaseline, HRNet)."""

    kind: Literal["heatmap"]
    deconv: tuple[Count, ...]


@dataclass(frozen=True)
class LinearSimccHead:
    """SimCC (paper, section 3): a 1x1 convolution to `maps_per_joint` x K maps, flattened, one linear layer an axis."""

    kind: Literal["simcc"]
    deconv: tuple[Count, ...]
    maps_per_joint: Count


@dataclass(frozen=True)
class GauHead:
    """RTMPose's head: large convolution, ScaleNorm, gated attention unit, one linear layer an axis."""

    kind: Literal["gau"]
    kernel: Count
    hidden: Count
    attention: Count
    expansion: Count


@dataclass(frozen=True)
class RtmwHead:
    """RTMW's head: `gau` on maps of two strides, each giving half of a token; it goes with neck pafpn."""

    kind: Literal["rtmw"]
    kernel: int
    hidden: int
    attention: int
    expansion: int


@dataclass(frozen=True)
class TokenHeatmapHead:
    """TokenPose's own head: each keypoint token through an MLP to a heatmap."""

    kind: Literal["token-heatmap"]
    hidden: Count


@dataclass(frozen=True)
class TokenSimccHead:
    """TokenPose with SimCC (paper, table 2): two linear classifiers on the keypoint tokens."""

    kind: Literal["token-simcc"]


@dataclass(frozen=True)
class MarginalHead:
    """SimCC without a linear layer: log-sum-exp of maps over rows and over columns (`networks/lowres`)."""

    kind: Literal["marginal"]
    depth: Depth  # 3x3 convolutions before the maps
    blur_px: Blur = 3.0  # Gaussian over the bins' logits, a standard deviation in crop pixels


Head = HeatmapHead | LinearSimccHead | GauHead | RtmwHead | TokenHeatmapHead | TokenSimccHead | MarginalHead


@dataclass(frozen=True)
class Network:
    backbone: Backbone
    head: Head
    neck: Pafpn | None = None

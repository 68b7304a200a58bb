"""What network a checkpoint's keys and shapes belong to: kind, depth, width, head, joints, bins, input size.

It reads names and shapes, never values; it builds nothing and loads nothing. A mismatch's error uses it to name the
recipe that would fit.

    found = found_in_shapes({key: tuple(tensor.shape) for key, tensor in state.items()})
    found.network, found.joints, found.bins_xy, found.size_hw
    nearest_recipe(found)                     # ('rtmpose-s-256x192', ())
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sdk.networks.layouts import sdk_key
from sdk.recipe import Recipe
from sdk.recipe_networks import (
    Backbone,
    CSPNeXt,
    GauHead,
    Head,
    HeatmapHead,
    HRNet,
    LinearSimccHead,
    LowRes,
    MarginalHead,
    MobileNetV2,
    Network,
    Pafpn,
    ResNet,
    RtmwHead,
    TokenHeatmapHead,
    TokenPose,
    TokenSimccHead,
)

__all__ = ["Found", "found_in_shapes", "layout_of_keys", "nearest_recipe", "recipes_that_fit"]

Shapes = Mapping[str, tuple[int, ...]]

JOINT_COUNTS = (17, 14, 16, 26)  # likely ones, likeliest first, for heads whose maps do not say
CSPNEXT_SIZES = ((0.167, 0.375), (0.33, 0.5), (0.67, 0.75), (1.0, 1.0), (1.33, 1.25))
MOBILENET_WIDTHS = (1.0, 0.35, 0.5, 0.75, 1.4)
TOKENPOSE_HEADS = 8  # not in the shapes; TokenPose-S has eight
SPLIT_RATIOS = (2.0, 3.0, 1.5, 1.0, 4.0)  # likely ones, likeliest first, for heads that do not say


@dataclass(frozen=True)
class Found:
    """`size_hw` and `bins_xy` are None where the shapes do not say (fully convolutional heatmap networks)."""

    layout: str
    network: Network
    joints: int
    bins_xy: tuple[int, int] | None
    size_hw: tuple[int, int] | None
    bins_z: int | None = None  # of a third axis

    @property
    def split_ratio(self) -> float | None:
        if self.bins_xy is None or self.size_hw is None:
            return None
        return self.bins_xy[0] / self.size_hw[1]

    def __str__(self) -> str:
        backbone = ", ".join(f"{key} {value}" for key, value in vars(self.network.backbone).items() if key != "kind")
        parts = [
            f"{self.network.backbone.kind} ({backbone})",
            *([f"neck {self.network.neck.kind}"] if self.network.neck is not None else []),
            f"head {self.network.head.kind}",
            f"{self.joints} joints",
        ]
        if self.bins_xy is not None:
            bins = (*self.bins_xy, *([] if self.bins_z is None else [self.bins_z]))
            parts.append(f"{' x '.join(map(str, bins))} bins")
        if self.size_hw is not None:
            parts.append(f"input {self.size_hw[0]}x{self.size_hw[1]}")
        return ", ".join(parts)


def layout_of_keys(shapes: Shapes) -> str:
    """The layout whose naming these keys have."""
    if any(key.startswith("features.") for key in shapes):
        return "tokenpose"
    if any(key.startswith(("head.final.", "head.layers.", "head.classify_")) for key in shapes):
        return "sdk"
    return "mmpose" if any(key.startswith(("backbone.", "head.")) for key in shapes) else "simcc"


def found_in_shapes(shapes: Shapes, size_hw: tuple[int, int] | None = None) -> Found | None:
    """The network these keys belong to, or None. `size_hw`, where known, settles what the shapes leave open."""
    layout = layout_of_keys(shapes)
    ours = {sdk_key(key, layout): shape for key, shape in shapes.items()}
    try:
        return _found(ours, layout, size_hw)
    except (KeyError, IndexError, ZeroDivisionError):  # keys of a network we know, but not all of them
        return None


def nearest_recipe(found: Found, recipes: Mapping[str, Recipe]) -> tuple[str, tuple[str, ...]] | None:
    """The recipe that agrees with `found` in most, and in what it differs; None if no recipe has its backbone."""
    same_kind = {
        name: _differences(found, recipe)
        for name, recipe in recipes.items()
        if recipe.design.backbone.kind == found.network.backbone.kind
    }
    if not same_kind:
        return None
    best = min(same_kind, key=lambda name: (len(same_kind[name]), recipes[name].layout != found.layout, name))
    return best, same_kind[best]


def recipes_that_fit(found: Found, recipes: Mapping[str, Recipe]) -> tuple[str, ...]:
    """The recipes that `found` agrees with in everything that its shapes say."""
    return tuple(name for name, recipe in recipes.items() if recipe.network and not _differences(found, recipe))


def _differences(found: Found, recipe: Recipe) -> tuple[str, ...]:
    network = recipe.design
    bins_xy = recipe.bins_xy if recipe.output.kind == "simcc" else None
    agreed = {
        "backbone": found.network.backbone == network.backbone,
        "neck": found.network.neck == network.neck,
        "head": found.network.head == network.head,
        "joints": found.joints == recipe.joints,
        "bins": found.bins_xy in (None, bins_xy),
        "third axis": found.bins_z == (recipe.output.depth.bins if recipe.output.depth is not None else None),
        "input size": found.size_hw in (None, recipe.input.size_hw),
    }
    return tuple(name for name, same in agreed.items() if not same)


def _found(ours: Shapes, layout: str, size_hw: tuple[int, int] | None) -> Found | None:
    backbone = _backbone(ours, size_hw)
    if backbone is None:
        return None
    classified = {"head.classify_x.weight", "head.classify_y.weight"} <= set(ours)
    bins_xy = (ours["head.classify_x.weight"][0], ours["head.classify_y.weight"][0]) if classified else None
    head = _head(ours, backbone, bins_xy, size_hw)
    if head is None:
        return None
    size_hw = size_hw or _size(ours, backbone, head, bins_xy)
    bins_z = ours["head.classify_z.weight"][0] if "head.classify_z.weight" in ours else None
    return Found(layout, Network(backbone, head, _neck(ours)), _joints(ours, backbone, head), bins_xy, size_hw, bins_z)


def _backbone(ours: Shapes, size_hw: tuple[int, int] | None) -> Backbone | None:
    if "backbone.keypoint_token" in ours:
        return _tokenpose(ours, size_hw)
    if "backbone.transition1.0.0.weight" in ours:
        return HRNet("hrnet", ours["backbone.transition1.0.0.weight"][0])
    if "backbone.stem.2.conv.weight" in ours:
        return _cspnext(ours)
    if "backbone.layer7.0.conv.0.conv.weight" in ours:
        widths = (w for w in MOBILENET_WIDTHS if ours["backbone.layer7.0.conv.2.conv.weight"][0] == round(40 * w) * 8)
        return MobileNetV2("mobilenetv2", next(widths, 1.0))
    if "backbone.layer4.0.conv1.weight" in ours:
        return _resnet(ours)
    return _lowres(ours) if "backbone.neck.0.coarse.0.weight" in ours else None


def _lowres(ours: Shapes) -> LowRes:
    stages = range(_count(ours, "backbone.stages.{}.0.0.weight"))
    necks = range(_count(ours, "backbone.neck.{}.coarse.0.weight"))
    return LowRes(
        kind="lowres",
        channels=(ours["backbone.stem.0.weight"][0], *(ours[f"backbone.stages.{i}.0.0.weight"][0] for i in stages)),
        depths=tuple(_count(ours, f"backbone.stages.{i}.{{}}.first.0.weight", start=1) for i in stages),
        neck=tuple(ours[f"backbone.neck.{i}.coarse.0.weight"][0] for i in necks),
    )


def _resnet(ours: Shapes) -> ResNet | None:
    counts = tuple(_count(ours, f"backbone.layer{stage}.{{}}.conv1.weight") for stage in range(1, 5))
    bottleneck = "backbone.layer1.0.conv3.weight" in ours
    known: dict[tuple[tuple[int, ...], bool], int] = {
        ((2, 2, 2, 2), False): 18,
        ((3, 4, 6, 3), False): 34,
        ((3, 4, 6, 3), True): 50,
        ((3, 4, 23, 3), True): 101,
        ((3, 8, 36, 3), True): 152,
    }
    depth = known.get((counts, bottleneck))
    return None if depth is None else ResNet("resnet", depth)


def _cspnext(ours: Shapes) -> CSPNeXt | None:
    widen = ours["backbone.stem.2.conv.weight"][0] / 64
    blocks = _count(ours, "backbone.stage2.1.blocks.{}.conv1.conv.weight")
    if blocks == 0:
        return None
    deepen = next((d for d, _ in CSPNEXT_SIZES if max(round(6 * d), 1) == blocks), blocks / 6)
    return CSPNeXt("cspnext", deepen, widen)


def _neck(ours: Shapes) -> Pafpn | None:
    blocks = _count(ours, "neck.top_down_blocks.0.blocks.{}.conv1.conv.weight")
    return Pafpn("pafpn", blocks) if blocks else None


def _tokenpose(ours: Shapes, size_hw: tuple[int, int] | None) -> TokenPose:
    dim = ours["backbone.keypoint_token"][2]
    area = ours["backbone.patch_to_embedding.weight"][1] // 256
    patches = ours["backbone.pos_embedding"][1]
    return TokenPose(
        kind="tokenpose",
        patch_hw=_patch(area, patches, size_hw),
        dim=dim,
        depth=_count(ours, "backbone.layers.{}.to_qkv.weight"),
        heads=TOKENPOSE_HEADS,
        mlp_ratio=ours["backbone.layers.0.mlp_in.weight"][0] // dim,
    )


def _patch(area: int, patches: int, size_hw: tuple[int, int] | None) -> tuple[int, int]:
    """The patch of `area` cells that tiles the features into `patches`, the grid of patches as square as may be."""
    height, width = (size // 4 for size in size_hw) if size_hw else (4.0, 3.0)
    pairs = [(h, area // h) for h in range(1, area + 1) if area % h == 0]
    if size_hw is not None:
        pairs = [(h, w) for h, w in pairs if (height // h) * (width // w) == patches] or pairs
    return min(pairs, key=lambda pair: abs(math.log((height / pair[0]) / (width / pair[1]))))


def _head(
    ours: Shapes, backbone: Backbone, bins_xy: tuple[int, int] | None, size_hw: tuple[int, int] | None
) -> Head | None:
    if isinstance(backbone, TokenPose):
        hidden = ours["head.layers.1.weight"][0] if "head.layers.3.weight" in ours else 0
        return TokenSimccHead("token-simcc") if bins_xy else TokenHeatmapHead("token-heatmap", hidden)
    if "head.gau.uv.weight" in ours:
        return _gau_head(ours)
    if "head.final.weight" not in ours:
        return None
    if isinstance(backbone, LowRes):
        return MarginalHead("marginal", _count(ours, "head.refine.{}.0.weight"))
    deconv = tuple(
        ours[f"head.deconv.{index}.weight"][1] for index in (0, 3, 6, 9) if f"head.deconv.{index}.weight" in ours
    )
    if bins_xy is None:
        return HeatmapHead("heatmap", deconv)
    maps = _maps_per_joint(ours, _stride(backbone) // 2 ** len(deconv), bins_xy, size_hw)
    return LinearSimccHead("simcc", deconv, maps)


def _gau_head(ours: Shapes) -> GauHead | RtmwHead:
    """A head with a gated attention unit: on one stride, or on two."""
    width, hidden = ours["head.gau.uv.weight"]
    attention = ours["head.gau.gamma"][1]
    expansion = (width - attention) // (2 * hidden)
    if "head.final_fine.conv.weight" in ours:
        return RtmwHead("rtmw", ours["head.final.conv.weight"][2], hidden, attention, expansion)
    return GauHead("gau", ours["head.final.weight"][2], hidden, attention, expansion)


def _maps_per_joint(ours: Shapes, stride: int, bins_xy: tuple[int, int], size_hw: tuple[int, int] | None) -> int:
    """Maps per joint: from the input's size where it is known, else the choice that gives a plausible split ratio."""
    maps, values = ours["head.final.weight"][0], ours["head.classify_x.weight"][1]
    if size_hw is not None:
        return values // (math.ceil(size_hw[0] / stride) * math.ceil(size_hw[1] / stride))
    for joints in JOINT_COUNTS:
        per_joint = maps // joints
        if maps % joints == 0 and values % per_joint == 0:
            ratio = math.sqrt(bins_xy[0] * bins_xy[1] / (values / per_joint)) / stride
            if 1 <= ratio <= 4:
                return per_joint
    return 1


def _joints(ours: Shapes, backbone: Backbone, head: Head) -> int:
    if isinstance(backbone, TokenPose):
        return ours["backbone.keypoint_token"][1]
    if isinstance(head, MarginalHead):
        return _marginal_joints(ours, _stride(backbone))
    if isinstance(head, RtmwHead):
        return ours["head.final.conv.weight"][0]
    per_joint = head.maps_per_joint if isinstance(head, LinearSimccHead) else 1
    return ours["head.final.weight"][0] // per_joint


def _marginal_joints(ours: Shapes, stride: int) -> int:
    """Joints of maps that hold, twice, every bin of a cell for every joint: by the likeliest split ratio."""
    maps = ours["head.final.weight"][0] // 2
    counts = [maps / (ratio * stride) for ratio in SPLIT_RATIOS]
    return int(next((count for count in counts if count in JOINT_COUNTS), counts[0]))


def _size(ours: Shapes, backbone: Backbone, head: Head, bins_xy: tuple[int, int] | None) -> tuple[int, int] | None:
    """The input's size from the number of cells a classifier sees and the ratio of its bins, where they say it."""
    if bins_xy is None:
        return None
    if isinstance(backbone, TokenPose):
        cells, stride = ours["backbone.pos_embedding"][1] * math.prod(backbone.patch_hw), 4
    elif isinstance(head, GauHead | RtmwHead):
        cells, stride = ours["head.reduce.weight"][1], _stride(backbone)
    elif isinstance(head, LinearSimccHead):
        cells = ours["head.classify_x.weight"][1] // head.maps_per_joint
        stride = _stride(backbone) // 2 ** len(head.deconv)
    else:
        return None
    across = round(math.sqrt(cells * bins_xy[0] / bins_xy[1]))
    down = cells // max(across, 1)
    return (down * stride, across * stride) if across * down == cells else None


def _stride(backbone: Backbone) -> int:
    if isinstance(backbone, LowRes):
        return 32 >> len(backbone.neck)
    return 4 if isinstance(backbone, HRNet | TokenPose) else 32


def _count(ours: Shapes, pattern: str, start: int = 0) -> int:
    """How many keys of the pattern there are, numbered on from `start`."""
    count = 0
    while pattern.format(start + count) in ours:
        count += 1
    return count

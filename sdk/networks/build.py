"""From a recipe to a torch module. No weights here (`checkpoints`, `randomness`), no graph (`sdk.toolchain.export`).

torch is imported inside the functions, so that this can be imported without it.

    network = network_from_recipe(recipe_by_name("rtmpose-s-256x192"))
    simcc_x, simcc_y = network(crops)          # crops: N x 3 x 256 x 192
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sdk import recipe_networks as words
from sdk.errors import MissingDependencyError, RecipeError
from sdk.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

__all__ = ["check_torch", "network_from_recipe"]

OLDEST_TORCH = (2, 6)  # before it, torch.load(weights_only=True) could be made to run code (CVE-2025-32434)


def network_from_recipe(recipe: Recipe) -> nn.Module:
    """The recipe's network in eval mode: N x 3 x h x w -> (simcc_x, simcc_y[, simcc_z]), or one heatmap, a quarter."""
    check_torch()
    from sdk.networks.pose import PoseNetwork

    _check_parts(recipe)
    backbone = _backbone(recipe)
    return PoseNetwork(backbone, _head(recipe, backbone), recipe.input.size_hw, _neck(recipe, backbone)).eval()


def check_torch() -> None:
    """MissingDependencyError unless a torch is installed that loads checkpoints safely."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "networks need torch, which is not installed; pip install 'simcc-edge-sdk[build]'"
        ) from error
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < OLDEST_TORCH:
        raise MissingDependencyError(
            f"networks need torch {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or later, which reads checkpoints without "
            f"running code (got {torch.__version__}); pip install --upgrade torch"
        )


def _backbone(recipe: Recipe) -> nn.Module:
    from sdk.networks import cspnext, hrnet, lowres, mobilenetv2, resnet, tokenpose

    match recipe.design.backbone:
        case words.ResNet(depth=depth):
            return resnet.ResNet(depth)
        case words.HRNet(width=width):
            return hrnet.HRNet(width)
        case words.MobileNetV2(widen=widen):
            return mobilenetv2.MobileNetV2(widen)
        case words.CSPNeXt(deepen=deepen, widen=widen):
            return cspnext.CSPNeXt(deepen, widen, pyramid=recipe.design.neck is not None)
        case words.LowRes(channels=channels, depths=depths, neck=neck):
            return lowres.LowRes(channels, depths, neck)
        case words.TokenPose() as design:
            values = {key: value for key, value in asdict(design).items() if key != "kind"}
            return tokenpose.TokenPose(size_hw=recipe.input.size_hw, joints=recipe.joints, **values)


def _check_parts(recipe: Recipe) -> None:
    """RecipeError where backbone, neck and head do not go together."""
    head, body, neck = recipe.design.head, recipe.design.backbone, recipe.design.neck
    on_tokens = isinstance(head, words.TokenHeatmapHead | words.TokenSimccHead)
    if on_tokens != isinstance(body, words.TokenPose):
        raise RecipeError(
            f"recipe '{recipe.name}': head '{head.kind}' does not fit backbone '{body.kind}'; heads "
            "token-heatmap and token-simcc go with tokenpose, and only with it"
        )
    if isinstance(head, words.RtmwHead) != (neck is not None) or (neck and not isinstance(body, words.CSPNeXt)):
        raise RecipeError(
            f"recipe '{recipe.name}': backbone '{body.kind}', neck '{neck.kind if neck else 'none'}' and head "
            f"'{head.kind}' do not fit; neck pafpn goes between backbone cspnext and head rtmw, and only there"
        )
    if recipe.output.depth is not None and not isinstance(head, words.RtmwHead):
        raise RecipeError(
            f"recipe '{recipe.name}': head '{head.kind}' has two axes and output.depth asks for a third; head rtmw has "
            "it, or build the engine from a graph that has (--onnx)"
        )


def _neck(recipe: Recipe, backbone: Any) -> nn.Module | None:
    from sdk.networks import rtmw

    neck = recipe.design.neck
    return None if neck is None else rtmw.Pafpn(backbone.widths, neck.blocks)


def _head(recipe: Recipe, backbone: Any) -> nn.Module:
    from sdk.networks import heads, lowres, tokenpose

    match recipe.design.head:
        case words.HeatmapHead(deconv=deconv):
            return heads.HeatmapHead(backbone.channels, recipe.joints, deconv)
        case words.LinearSimccHead(deconv=deconv, maps_per_joint=maps):
            return heads.LinearSimccHead(
                backbone.channels, deconv=deconv, maps_per_joint=maps, **_widths(recipe, backbone)
            )
        case words.GauHead() | words.RtmwHead() as design:
            return _gated_head(design, recipe, backbone)
        case words.TokenHeatmapHead(hidden=hidden):
            heatmap_hw = (recipe.input.height // 4, recipe.input.width // 4)
            return tokenpose.TokenHeatmapHead(backbone.channels, hidden=hidden, heatmap_hw=heatmap_hw)
        case words.MarginalHead(depth=depth, blur_px=blur_px):
            cell_bins = backbone.stride * recipe.bins_xy[0] / recipe.input.width
            if cell_bins != int(cell_bins):
                raise RecipeError(
                    f"recipe '{recipe.name}': head 'marginal' needs whole bins in a cell of {backbone.stride} pixels "
                    f"(got {cell_bins}); choose another split ratio"
                )
            blur_bins = blur_px * recipe.bins_xy[0] / recipe.input.width
            return lowres.MarginalHead(
                backbone.channels, recipe.joints, int(cell_bins), depth, blur_bins=blur_bins, bins_xy=recipe.bins_xy
            )
        case words.TokenSimccHead():
            return tokenpose.TokenSimccHead(backbone.channels, bins_xy=recipe.bins_xy)


def _gated_head(design: words.GauHead | words.RtmwHead, recipe: Recipe, backbone: Any) -> nn.Module:
    from sdk.networks import heads, rtmw

    values = {key: value for key, value in asdict(design).items() if key != "kind"} | _widths(recipe, backbone)
    if isinstance(design, words.GauHead):
        return heads.GauHead(backbone.channels, **values)
    del values["bins_xy"]
    return rtmw.RtmwHead(backbone.widths[1:], bins=recipe.bins, **values)


def _widths(recipe: Recipe, backbone: Any) -> dict[str, Any]:
    """What a SimCC head's sizes follow from."""
    height, width = (-(-size // backbone.stride) for size in recipe.input.size_hw)
    return {"feature_hw": (height, width), "joints": recipe.joints, "bins_xy": recipe.bins_xy}

"""Parameters and multiply-adds of a recipe's network, counted on torch's meta device: nothing is allocated or computed.

Multiply-adds of convolutions and linear layers only, of one crop: what pose papers call GFLOPs.

    cost_of(recipe_by_name("rtmpose-s-256x192")).macs / 1e9
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdk.networks.build import check_torch, network_from_recipe
from sdk.recipe import Input, Network, Output, Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Cost", "cost_of"]


@dataclass(frozen=True)
class Cost:
    """`macs`: multiply-adds of one crop."""

    parameters: int
    macs: int


_known: dict[tuple[Network, int, Input, Output], Cost] = {}  # recipes that differ in weights alone cost the same


def cost_of(recipe: Recipe) -> Cost:
    """The cost of one forward pass of one crop."""
    key = (recipe.network, recipe.joints, recipe.input, recipe.output)
    if key not in _known:
        _known[key] = _counted(recipe)
    return _known[key]


def _counted(recipe: Recipe) -> Cost:
    check_torch()
    import torch
    from torch import nn

    with torch.device("meta"):
        network = network_from_recipe(recipe)
        crop = torch.empty(1, 3, *recipe.input.size_hw)
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    macs: list[int] = []
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):  # no weighted layer, and slow on the meta device
                module.add_module(name, nn.Identity())
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            module.register_forward_hook(lambda m, i, o: macs.append(_macs(m, i, o)))
    with torch.inference_mode():
        network(crop)
    return Cost(parameters, sum(macs))


def _macs(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    """Every weight times the places it is used at; of a transposed convolution, the places of its input."""
    from torch import nn

    layer: Any = module
    if isinstance(module, nn.Linear):
        return int(layer.weight.numel() * (output.numel() // layer.out_features))
    places = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
    return int(layer.weight.numel() * places.shape[-2] * places.shape[-1])

"""Parameters and multiply-adds of a recipe's network, counted on torch's meta device: nothing is allocated or computed.

Multiply-adds of convolutions and linear layers only, of one crop: what pose papers call GFLOPs.

    cost_of(recipe_by_name("rtmpose-s-256x192")).macs / 1e9
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from sdk.networks.build import check_torch, network_from_recipe
from sdk.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Cost", "cost_of"]


@dataclass(frozen=True)
class Cost:
    """`macs`: multiply-adds of one crop."""

    parameters: int
    macs: int


@cache
def cost_of(recipe: Recipe) -> Cost:
    """The cost of one forward pass of one crop."""
    check_torch()
    import torch
    from torch import nn

    with torch.device("meta"):
        network = network_from_recipe(recipe)
        crop = torch.empty(1, 3, *recipe.input.size_hw)
    counted: list[int] = []
    weighted = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    for module in weighted:
        module.register_forward_hook(lambda m, i, o: counted.append(_macs(m, i, o)))
    with torch.inference_mode():
        network(crop)
    learned = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return Cost(learned, sum(counted))


def _macs(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    """Every weight times the places it is used at; of a transposed convolution, the places of its input."""
    from torch import nn

    layer: Any = module
    if isinstance(module, nn.Linear):
        return int(layer.weight.numel() * (output.numel() // layer.out_features))
    places = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
    return int(layer.weight.numel() * places.shape[-2] * places.shape[-1])

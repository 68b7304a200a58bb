"""Parameters and multiply-adds of a recipe's network, counted as an empty batch goes through it: nothing is computed.

Multiply-adds of convolutions and linear layers only, of one crop: what pose papers call GFLOPs.

    cost_of(recipe_by_name("rtmpose-s-256x192")).macs / 1e9

The catalogue's costs are kept beside its recipes, as counting them takes torch and seconds: `keep_costs()` counts them
anew, and a test compares.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sdk.errors import RecipeError
from sdk.files import write_text
from sdk.networks.build import check_torch, network_from_recipe
from sdk.reading import TABLE_BYTES, json_from_file
from sdk.recipe import Input, Output, Recipe, catalogue
from sdk.recipe_networks import Network
from sdk.resources import catalogue_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Cost", "cost_of", "keep_costs", "kept_costs"]

KEPT = "costs.json"  # in the catalogue's folder


@dataclass(frozen=True)
class Cost:
    """`macs`: multiply-adds of one crop."""

    parameters: int
    macs: int


_known: dict[tuple[Network, int, Input, Output], Cost] = {}  # recipes that differ in weights alone cost the same


def cost_of(recipe: Recipe) -> Cost:
    """The cost of one forward pass of one crop."""
    key = (recipe.design, recipe.joints, recipe.input, recipe.output)
    if key not in _known:
        _known[key] = _counted(recipe)
    return _known[key]


def kept_costs() -> dict[str, Cost]:
    """The costs of the catalogue's recipes, by name, as they were counted."""
    table = json_from_file(catalogue_folder("engines") / KEPT, "table of costs", RecipeError, largest=TABLE_BYTES)
    return {name: Cost(**cost) for name, cost in table.items()}


def keep_costs() -> None:
    """Count the whole catalogue and keep that."""
    table = {name: asdict(cost_of(recipe)) for name, recipe in catalogue().items()}
    write_text(catalogue_folder("engines") / KEPT, json.dumps(table, indent=1) + "\n")


def _counted(recipe: Recipe) -> Cost:
    check_torch()
    import torch
    from torch import nn

    with torch.device("meta"):  # neither filled nor, below, ever read
        network = network_from_recipe(recipe)
    network = network.to_empty(device="cpu")
    macs: list[int] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            module.register_forward_hook(lambda m, i, o: macs.append(_macs(m, i, o)))
    with torch.inference_mode():
        network(torch.empty(0, 3, *recipe.input.size_hw))  # no crop at all: shapes go through, numbers do not
    return Cost(sum(p.numel() for p in network.parameters() if p.requires_grad), sum(macs))


def _macs(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    """Every weight times the places it is used at; of a transposed convolution, the places of its input."""
    from torch import nn

    weight: Any = module.weight
    if isinstance(module, nn.Linear):
        return int(weight.numel() * math.prod(output.shape[1:-1]))
    places = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
    return int(weight.numel() * math.prod(places.shape[2:]))

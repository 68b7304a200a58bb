"""Torch modules of the networks, and the checkpoints that fill them. Build time only: the run time never imports this.

    network = network_from_recipe(recipe)
    load_checkpoint(network, recipe, weights_file(recipe))

torch is imported when a network is first built or a checkpoint first read, not here.
"""

from sdk.networks.build import network_from_recipe
from sdk.networks.checkpoints import load_checkpoint
from sdk.networks.cost import Cost, cost_of, kept_costs
from sdk.networks.randomness import random_weights
from sdk.networks.weights import weights_file, weights_path

__all__ = [
    "Cost",
    "cost_of",
    "kept_costs",
    "load_checkpoint",
    "network_from_recipe",
    "random_weights",
    "weights_file",
    "weights_path",
]

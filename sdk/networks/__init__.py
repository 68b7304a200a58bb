"""Torch modules of the networks, and the checkpoints that fill them. Build time only: the run time never imports this.

    network = network_from_recipe(recipe)
    load_checkpoint(network, recipe, weights_file(recipe))

torch is imported when a network is first built, not here.
"""

from sdk.networks.build import network_from_recipe, random_weights

__all__ = ["network_from_recipe", "random_weights"]

"""Random weights that behave like trained ones: for timing, and for tests of everything downstream of a checkpoint.

Every weight follows from its name, its shape and the seed. The statistics of batch normalisation are those of one pass
of seeded, picture-like noise, as after training, so activations neither die nor explode at any depth and the outputs
depend on the input; with statistics drawn from a formula they do not, beyond some twenty layers.

    random_weights(network, seed=0)
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["random_weights"]

CALIBRATION_PIXELS = 4 * 256 * 192  # in a batch; enough for the statistics of the coarsest maps
GAIN = 2.0  # of a weighted layer: what follows it halves the mean square


def random_weights(network: nn.Module, seed: int) -> None:
    """Fill every parameter and buffer; the same weights on the same machine for the same seed."""
    import torch

    from sdk.networks.pose import PoseNetwork

    assert isinstance(network, PoseNetwork), "random_weights takes a network of network_from_recipe"
    with torch.no_grad():
        state = network.state_dict()
        for key, tensor in state.items():
            normalises = f"{key.rpartition('.')[0]}.running_mean" in state
            tensor.copy_(torch.from_numpy(_value(key, tuple(tensor.shape), seed, normalises=normalises)))
        with _one_thread(), _collecting(network):
            network(_noise(network.size_hw, seed))


def _value(key: str, shape: tuple[int, ...], seed: int, *, normalises: bool) -> NDArray[np.float32]:
    """One tensor: matrices and kernels of variance GAIN / fan-in, gains about 1, offsets about 0.

    The offsets of batch normalisation are about 1: with them most of a rectifier's inputs are positive, and rounding
    errors do not grow from layer to layer as they do about 0. Attention's gains are small, as its square is taken.
    """
    noise = np.random.default_rng([seed, zlib.crc32(key.encode())]).standard_normal(shape)
    leaf = key.rsplit(".", 1)[-1]
    centre = {"running_var": 1.0, "weight": 1.0, "g": 1.0, "scale": 1.0, "gamma": 0.3}.get(leaf, 0.0)
    if leaf in ("running_mean", "running_var", "num_batches_tracked"):
        value = np.full(shape, centre)
    elif leaf == "bias" and normalises:
        value = 1 + 0.1 * noise
    elif len(shape) >= 2 and leaf not in ("gamma", "beta"):
        value = noise * np.sqrt(GAIN / np.prod(shape[1:]))
    else:
        value = centre + 0.1 * noise
    return np.asarray(value, np.float32)


def _noise(size_hw: tuple[int, int], seed: int) -> Tensor:
    """N x 3 x h x w of unit variance, most of it at coarse scales, as in pictures."""
    import torch
    from torch.nn import functional as F

    height, width = size_hw
    count = int(np.clip(-(-CALIBRATION_PIXELS // (height * width)), 2, 64))
    rng = np.random.default_rng([seed, height, width])
    total = torch.zeros(count, 3, height, width)
    for cell in (32, 8, 2, 1):
        shape = (count, 3, -(-height // cell), -(-width // cell))
        coarse = torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
        total += F.interpolate(coarse, size=(height, width), mode="nearest")
    return total / 2


@contextmanager
def _collecting(network: nn.Module) -> Iterator[None]:
    """Batch normalisation takes the statistics of the passes made within, exactly."""
    from torch import nn

    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = None  # the plain average of all passes
        layer.train()
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order, whatever the number of cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

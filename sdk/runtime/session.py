"""What a session is: an open engine on one device, numpy in and numpy out. Cropping and decoding are the pipeline's.

simcc_x, simcc_y = session.run(crops)              # crops N x 3 x h x w float32; sdk.runtime.opening opens one
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.manifest import Engine
from sdk.recipe import Recipe
from sdk.runtime.closing import Closing

__all__ = ["Session", "check_crops", "expected_tensors"]

Float32Array = NDArray[np.float32]


class Session(Closing, Protocol):
    """What an engine looks like once it is open, whatever runs it."""

    @property
    def engine(self) -> Engine: ...

    @property
    def recipe(self) -> Recipe: ...

    @property
    def device(self) -> str: ...

    @property
    def max_batch(self) -> int: ...

    def run(self, crops: Float32Array) -> tuple[Float32Array, ...]:
        """crops N x 3 x h x w -> (simcc_x N x K x Wx, simcc_y N x K x Hy), or (heatmap N x K x h/4 x w/4,)."""
        ...


def check_crops(crops: object, recipe: Recipe) -> Float32Array:
    """`crops` as a contiguous N x 3 x h x w float32 array of the recipe's size; InputError otherwise."""
    shape = (3, *recipe.input.size_hw)
    if not isinstance(crops, np.ndarray) or crops.dtype != np.float32 or crops.shape[1:] != shape:
        got = f"{crops.dtype} {crops.shape}" if isinstance(crops, np.ndarray) else type(crops).__name__
        raise InputError(f"crops must be float32 with the shape N x {' x '.join(map(str, shape))} (got {got})")
    return np.ascontiguousarray(crops)


def expected_tensors(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that an engine of `recipe` takes and gives; -1 where any size will do."""
    sizes = [(-1, -1)] if recipe.output.kind == "heatmap" else [(bins,) for bins in recipe.bins]
    outputs = {name: (-1, recipe.joints, *size) for name, size in zip(recipe.output.names, sizes, strict=True)}
    return {recipe.input.name: (-1, 3, *recipe.input.size_hw), **outputs}

"""Arrays of Triton's Python backend, right under numpy 1 and numpy 2 alike.

Triton 2.51 was made for numpy 1. Under numpy 2 its `as_numpy` gives arrays whose every element is the first one, and
its `Tensor` sends no bytes: there DLPack takes their place. Under numpy 1 DLPack is right on the way in alone.

    frames = array_from(tensor)
    tensor = tensor_from(pb_utils, "KEYPOINTS", keypoints)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["array_from", "tensor_from"]

BY_DLPACK = int(np.__version__.partition(".")[0]) > 1


def array_from(tensor: Any) -> NDArray[Any]:
    """What a request's tensor holds."""
    return np.from_dlpack(tensor)


def tensor_from(utils: Any, name: str, values: NDArray[np.float32]) -> Any:
    """A tensor of an answer. `utils`: Triton's module for models."""
    if BY_DLPACK and values.size:  # the strides of an array of nothing are not those that Triton wants
        return utils.Tensor.from_dlpack(name, values)
    return utils.Tensor(name, values)

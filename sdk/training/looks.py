"""How crops look: resolution, blur, colour and patches that hide a part, applied to a batch where it lies.

A look is a record of numbers, drawn by `sdk.training.augment`; applying it is torch's work, the same on the CPU and on
a GPU. In the order of what happens to a picture: taken from far, out of focus, moved, lit, and hidden.

    crops = with_looks(crops, looks)              # N x 3 x h x w float32 grey levels, N x F float32
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["END", "LOOK", "PATCHES", "plain_look", "with_looks"]

PATCHES = 2  # that are drawn
END = PATCHES  # the place of one more, over what lies beyond the picture's end
LOOK = np.dtype(
    [
        ("gain", np.float32, 3),  # of the channels
        ("offset", np.float32),  # grey levels
        ("grey", np.float32),  # 1: without colour
        ("blur_px", np.float32),  # standard deviation of a Gaussian
        ("motion_px", np.float32, 2),  # half of the way that the camera moved, x and y
        ("coarse", np.float32),  # 1, 2 or 4: pixels of the crop in one that was taken
        ("patch", np.float32, (PATCHES + 1, 7)),  # top, left, bottom, right, colour
    ]
)
FIELDS = {  # of a look as numbers
    name: slice(kind[1] // 4, (kind[1] + kind[0].itemsize) // 4) for name, kind in (LOOK.fields or {}).items()
}
BLUR_REACH = 4  # pixels either way: 2.5 standard deviations of the widest
LUMA = (0.114, 0.587, 0.299)  # BGR


def plain_look() -> NDArray[Any]:
    """An array of one record, a look that changes nothing."""
    look = np.zeros(1, LOOK)
    look["gain"], look["coarse"] = 1, 1
    return look


def with_looks(
    crops: Tensor,  # N x 3 x h x w float32, grey levels, BGR
    looks: Tensor,  # N x F float32, on the same device
) -> Tensor:
    """The crops as their looks have them, 0 to 255."""
    for factor in (2, 4):
        crops = _some(crops, looks[:, FIELDS["coarse"]][:, 0] == factor, _coarser, factor)
    blurred = (looks[:, FIELDS["blur_px"]][:, 0] > 0) | (looks[:, FIELDS["motion_px"]] != 0).any(dim=1)
    crops = _some(crops, blurred, _blurred, looks[blurred])
    crops = crops * looks[:, FIELDS["gain"], None, None] + looks[:, FIELDS["offset"], None, None]
    grey = (crops * crops.new_tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    crops = crops.lerp(grey.expand_as(crops), looks[:, FIELDS["grey"], None, None]).clamp(0, 255)
    return _hidden(crops, looks[:, FIELDS["patch"]].reshape(len(looks), -1, 7))


def _some(crops: Tensor, chosen: Tensor, change: Any, value: Any) -> Tensor:
    """The crops, those that are `chosen` changed."""
    if not bool(chosen.any()):
        return crops
    crops = crops.clone()
    crops[chosen] = change(crops[chosen], value)
    return crops


def _coarser(crops: Tensor, factor: int) -> Tensor:
    from torch.nn.functional import avg_pool2d, interpolate

    small = avg_pool2d(crops, factor, ceil_mode=True)
    return interpolate(small, size=crops.shape[2:], mode="bilinear", align_corners=False)


def _blurred(crops: Tensor, looks: Tensor) -> Tensor:
    """Each crop under its own kernel: a Gaussian along the way of the camera."""
    import torch
    from torch.nn.functional import conv2d, pad

    count, side = len(crops), 2 * BLUR_REACH + 1
    axis = torch.arange(side, device=crops.device, dtype=torch.float32) - BLUR_REACH
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    way = looks[:, FIELDS["motion_px"]].view(count, 1, 2, 1, 1)
    steps = torch.linspace(-1, 1, side, device=crops.device).view(1, side, 1, 1)
    deviation = looks[:, FIELDS["blur_px"]].clamp_min(0.5).view(count, 1, 1, 1)
    squared = (x - steps * way[:, :, 0]).square() + (y - steps * way[:, :, 1]).square()
    kernels = torch.exp(-squared / (2 * deviation.square())).sum(dim=1)
    kernels = kernels / kernels.sum(dim=(1, 2), keepdim=True)
    edged = pad(crops, (BLUR_REACH,) * 4, mode="replicate").flatten(0, 1)[None]
    weights = kernels.repeat_interleave(3, dim=0)[:, None]
    return conv2d(edged, weights, groups=3 * count).view(count, 3, *crops.shape[2:])


def _hidden(crops: Tensor, patches: Tensor) -> Tensor:  # N x P x 7
    """The crops behind their patches."""
    import torch

    rows = torch.arange(crops.shape[2], device=crops.device).view(1, -1, 1)
    columns = torch.arange(crops.shape[3], device=crops.device).view(1, 1, -1)
    for index in range(patches.shape[1]):
        top, left, bottom, right, *colour = patches[:, index].T[:, :, None, None]
        inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        crops = torch.where(inside[:, None], torch.stack(colour, dim=1), crops)
    return crops

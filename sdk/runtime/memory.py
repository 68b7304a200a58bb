"""Frames in page-locked memory: a camera or a decoder that writes into one saves the copy before the upload.

On a GPU with its own memory the upload then runs at the full speed of the bus; on a Jetson there is no upload at all.

    frame = pinned_frame(1080, 1920)             # once
    camera.read(frame)                           # again and again
    poses = estimate(frame, boxes)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdk.errors import DeviceError, InputError
from sdk.numeric import is_whole
from sdk.ops_arrays import MAX_SIDE
from sdk.runtime.device import device_from_name
from sdk.runtime.frames import crop_options

__all__ = ["pinned_frame"]


def pinned_frame(height: int, width: int, *, pixel_format: str = "bgr", device: str = "cuda") -> NDArray[np.uint8]:
    """A black uint8 frame in page-locked, device-addressable host memory: H x W x 3, or H * 3/2 x W for NV12.

    It is the caller's: while a submitted call has not returned its poses, the frame must not be written.
    """
    for name, side in (("height", height), ("width", width)):
        if not is_whole(side, 1, MAX_SIDE):
            raise InputError(f"{name} must be a whole number from 1 to {MAX_SIDE} (got {side!r})")
    nv12 = crop_options(pixel_format)["pixel_format"] == "nv12"
    if nv12 and (height % 2 or width % 2):
        raise InputError(f"height and width of an NV12 frame must be even (got {height} x {width})")
    chosen = device_from_name(device)
    if chosen is None or chosen.kind != "cuda":
        raise DeviceError(f"a pinned frame belongs to a CUDA device: device must be 'cuda' or 'cuda:N', not {device!r}")
    from sdk.runtime.cuda.context import device_context
    from sdk.runtime.cuda.memory import shared_array

    opened = device_context(chosen.index)
    shape = (height * 3 // 2, width) if nv12 else (height, width, 3)
    with opened.entered("allocate a pinned frame"):
        frame: NDArray[np.uint8] = shared_array(opened, shape, np.uint8, "hold a frame")
    frame[...] = 0
    return frame

"""What `benchmarks/gpu.py` measures on: frames on the host, page-locked and on the device, and persons in them.

with on_device(street()) as frame: estimate(frame, persons(8))
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["affines_of", "crowd", "on_device", "persons", "pinned_street", "street"]

FRAME_HW = (1080, 1920)


def street(seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (*FRAME_HW, 3), np.uint8)


def pinned_street() -> Any:
    """The same in page-locked memory."""
    from sdk import pinned_frame

    frame = pinned_frame(*FRAME_HW)
    frame[...] = street()
    return frame


def crowd() -> Any:
    """Four rendered figures, which detectors of persons see."""
    from sdk.media.figures import rendered_clip

    half_hw = FRAME_HW[0] // 2, FRAME_HW[1] // 2
    one, two, three, four = (next(rendered_clip(seed, 1, half_hw))[0] for seed in range(4))
    return np.ascontiguousarray(np.vstack([np.hstack([one, two]), np.hstack([three, four])]))


def persons(count: int) -> Any:
    rng = np.random.default_rng(count)
    corner = rng.uniform((0, 0), (FRAME_HW[1] - 200, FRAME_HW[0] - 420), (count, 2))
    return np.concatenate([corner, corner + np.array([180, 400])], axis=1).astype(np.float32)


def affines_of(engine: Any, count: int) -> Any:
    from sdk.geometry import crop_affines

    source = engine.manifest.recipe.input
    return crop_affines(persons(count), source.size_hw, source.box_padding)


class _OnDevice:
    """A frame in device memory, with `__cuda_array_interface__`; its upload is done, so nothing is waited for."""

    def __init__(self, pointer: int, shape: tuple[int, ...]) -> None:
        data = (pointer, True)
        self.__cuda_array_interface__ = {"shape": shape, "typestr": "|u1", "data": data, "version": 3, "stream": None}


@contextmanager
def on_device(frame: Any) -> Iterator[Any]:
    from sdk.runtime.cuda.context import device_context
    from sdk.runtime.cuda.memory import DeviceMemory

    device = device_context(0)
    with device.entered("upload a frame"):
        memory = DeviceMemory(device, frame.nbytes, "hold a frame")
        device.driver.memcpy_htod(memory.pointer, frame)
    try:
        yield _OnDevice(memory.pointer, frame.shape)
    finally:
        with device.entered("free a frame"):
            memory.free()

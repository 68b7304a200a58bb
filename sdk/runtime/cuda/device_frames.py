"""Frames that are in device memory already: read through DLPack or `__cuda_array_interface__`, never copied.

torch and CuPy arrays, PyCUDA's GPUArray, Numba's device arrays and decoders' surfaces come this way. The producer's
work on the frame is waited for on the device, not by the host.

    if is_device_array(frame):
        found = device_frame(frame, stream_handle, 0)     # DeviceFrame(DeviceArray(address, shape, ...), owner)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sdk.errors import InputError
from sdk.ops_arrays import DLPACK_CUDA, MAX_SIDE, DeviceArray, array_from_capsule, array_from_interface, described
from sdk.runtime.cuda.kernels import Mark

__all__ = ["DeviceFrame", "check_device_frame", "device_frame", "is_device_array"]

UINT8 = np.dtype(np.uint8)
LEGACY_STREAM = 1  # in __cuda_array_interface__ version 3


@dataclass(eq=False)
class DeviceFrame:
    """Where a frame lies in device memory. `owner` keeps the memory alive.

    `producer_stream`: a stream whose work must be done before the frame is read; None when the exchange saw to it.
    `ready`: the same for a frame that another thread took over.
    """

    array: DeviceArray
    owner: object
    producer_stream: int | None = None
    ready: Mark | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape


def is_device_array(frame: object) -> bool:
    """Whether `frame` says that it lies in CUDA memory. numpy arrays, which have DLPack too, do not."""
    if isinstance(frame, DeviceFrame):
        return True
    ask = getattr(frame, "__dlpack_device__", None)  # first: torch makes its other table anew each time it is asked
    return (ask is not None and ask()[0] in DLPACK_CUDA) or hasattr(frame, "__cuda_array_interface__")


def device_frame(frame: object, stream: int, index: int) -> DeviceFrame:
    """Where a device array lies, made ready for use on `stream` of cuda:`index`.

    The producer's stream is the calling thread's current one, as torch and CuPy have it.
    """
    if isinstance(frame, DeviceFrame):
        return frame
    ask = getattr(frame, "__dlpack_device__", None)
    if ask is None or ask()[0] not in DLPACK_CUDA:
        return _from_interface(frame)
    found = int(ask()[1])
    if found != index:
        raise InputError(
            f"the frame lies on cuda:{found} and the estimator runs on cuda:{index}; copy the frame, or open the "
            "estimator there"
        )
    return _from_dlpack(frame, stream)


def check_device_frame(array: DeviceArray, *, nv12: bool) -> None:
    """InputError unless `array` has the form of a frame: uint8, whole rows. Whose memory it is the device knows."""
    shape, strides = array.shape, array.strides
    tallest = MAX_SIDE * 3 // 2 if nv12 else MAX_SIDE  # rows
    if nv12:
        wanted = "(H * 3/2) x W with H and W even"
        fits = len(shape) == 2 and shape[0] % 3 == 0 and shape[1] % 2 == 0 and strides[1:] == (1,)
    else:
        wanted, fits = "H x W x 3", len(shape) == 3 and shape[2] == 3 and strides[1:] == (3, 1)
    if not fits or array.dtype != UINT8 or 0 in shape or shape[0] > tallest or shape[1] > MAX_SIDE:
        raise InputError(
            f"a device frame must be {wanted}, uint8, with whole rows, at most {MAX_SIDE} pixels a side "
            f"(got {described(array)}, strides {strides})"
        )


def _from_interface(frame: Any) -> DeviceFrame:
    table = frame.__cuda_array_interface__
    stream = table.get("stream", LEGACY_STREAM)  # version 2 has none: its producers use the default stream
    return DeviceFrame(array_from_interface(table), frame, None if stream is None else int(stream))


def _from_dlpack(frame: Any, stream: int) -> DeviceFrame:
    try:
        capsule = frame.__dlpack__(stream=stream)  # the producer makes `stream` wait for its own work
    except BufferError as error:
        raise InputError(f"the frame's owner, {type(frame).__name__}, does not hand it over: {error}") from error
    return DeviceFrame(array_from_capsule(capsule), (frame, capsule))

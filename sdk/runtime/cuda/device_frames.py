"""Frames that are in device memory already: read through DLPack or `__cuda_array_interface__`, never copied.

torch and CuPy arrays, PyCUDA's GPUArray, Numba's device arrays and decoders' surfaces come this way. The producer's
work on the frame is waited for on the device, not by the host.

    if is_device_array(frame):
        found = device_array(frame, stream_handle, 0)     # DeviceArray(pointer, shape, strides, owner)
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from sdk.errors import InputError
from sdk.runtime.cuda.kernels import Mark
from sdk.runtime.frames import MAX_SIDE

__all__ = ["DeviceArray", "check_device_frame", "device_array", "is_device_array"]

DLPACK_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged
DLPACK_UINT = 1
LEGACY_STREAM, PER_THREAD_STREAM = 1, 2  # in __cuda_array_interface__ version 3


@dataclass(frozen=True)
class DeviceArray:
    """Bytes of a uint8 array in device memory. `strides` in bytes. `owner` keeps the memory alive.

    `producer_stream`: a stream whose work must be done before the frame is read; None when the exchange saw to it.
    `ready`: the same for a frame that another thread took over.
    """

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    owner: object
    producer_stream: int | None = None
    ready: Mark | None = None


def is_device_array(frame: object) -> bool:
    """Whether `frame` says that it lies in CUDA memory. numpy arrays, which have DLPack too, do not."""
    if isinstance(frame, DeviceArray):
        return True
    ask = getattr(frame, "__dlpack_device__", None)  # first: torch makes its other table anew each time it is asked
    return (ask is not None and ask()[0] in DLPACK_CUDA) or hasattr(frame, "__cuda_array_interface__")


def device_array(frame: object, stream: int, index: int) -> DeviceArray:
    """Where a device array lies, made ready for use on `stream` of cuda:`index`. InputError when it is not uint8.

    The producer's stream is the calling thread's current one, as torch and CuPy have it.
    """
    if isinstance(frame, DeviceArray):
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


def check_device_frame(found: DeviceArray, *, nv12: bool) -> None:
    """InputError unless `found` has the form of a frame: uint8, whole rows. Whose memory it is the device knows."""
    shape, strides = found.shape, found.strides
    if nv12:
        wanted = "(H * 3/2) x W with H and W even"
        fits = len(shape) == 2 and shape[0] % 3 == 0 and shape[1] % 2 == 0 and strides[1:] == (1,)
    else:
        wanted, fits = "H x W x 3", len(shape) == 3 and shape[2] == 3 and strides[1:] == (3, 1)
    if not fits or 0 in shape or max(shape) > MAX_SIDE * 3 // 2:
        raise InputError(
            f"a device frame must be {wanted}, uint8, with whole rows, at most {MAX_SIDE} pixels a side "
            f"(got shape {shape}, strides {strides})"
        )


def _from_interface(frame: Any) -> DeviceArray:
    table = frame.__cuda_array_interface__
    shape = tuple(int(size) for size in table["shape"])
    if table["typestr"][1:] != "u1":
        raise InputError(f"a device frame must be uint8 (got typestr {table['typestr']!r})")
    strides = table.get("strides")
    stream = table.get("stream", LEGACY_STREAM)  # version 2 has none: its producers use the default stream
    return DeviceArray(
        pointer=int(table["data"][0]),
        shape=shape,
        strides=tuple(strides) if strides is not None else _packed(shape),
        owner=frame,
        producer_stream=None if stream is None else int(stream),
    )


class _DLDevice(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("index", ctypes.c_int32))


class _DLDataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _DLDevice),
        ("ndim", ctypes.c_int32),
        ("dtype", _DLDataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _from_dlpack(frame: Any, stream: int) -> DeviceArray:
    """The tensor inside a DLPack capsule. The capsule is kept unconsumed: its destructor gives the memory back."""
    try:
        capsule = frame.__dlpack__(stream=stream)  # the producer makes `stream` wait for its own work
    except BufferError as error:
        raise InputError(f"the frame's owner, {type(frame).__name__}, does not hand it over: {error}") from error
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _DLTensor.from_address(int(pointer_of(capsule, b"dltensor")))
    if (tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes) != (DLPACK_UINT, 8, 1):
        raise InputError(f"a device frame must be uint8 (got DLPack type {tensor.dtype.code}, {tensor.dtype.bits} bit)")
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    strides = tuple(tensor.strides[axis] for axis in range(tensor.ndim)) if tensor.strides else _packed(shape)
    return DeviceArray((tensor.data or 0) + tensor.byte_offset, shape, strides, (frame, capsule))


def _packed(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))

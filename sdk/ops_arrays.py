"""What is accepted as an array, and where it lies. No op is here, and no copy is made.

    array = array_from("frame", value)            # numpy's own, or a DeviceArray for memory of a GPU
    if isinstance(array, DeviceArray): ...

Accepted: numpy arrays, `__cuda_array_interface__` (PyCUDA, CuPy, Numba, torch) and DLPack (all of them, and more).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError, MissingDependencyError, SdkError

__all__ = [
    "DLPACK_CUDA",
    "MAX_SIDE",
    "Array",
    "DeviceArray",
    "array_from",
    "array_from_capsule",
    "array_from_interface",
    "cuda_half",
    "described",
    "in_words",
    "is_contiguous",
    "stream_address",
]

MAX_SIDE = 16384  # of a frame and of a crop: the crop op counts pixels in this range
DLPACK_HOST = (1, 3)  # kDLCPU, kDLCUDAHost
DLPACK_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged
DLPACK_KINDS = "iuf"  # of the type codes 0, 1, 2
P = ParamSpec("P")
R = TypeVar("R")


class DeviceArray(NamedTuple):
    """Memory of a GPU, owned by someone else. `strides` are in bytes, as numpy's."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)


Array = NDArray[Any] | DeviceArray


def in_words(op: Callable[P, R]) -> Callable[P, R]:
    """What Python, numpy or the binding says of an argument of another kind, as an InputError too."""

    @wraps(op)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            return op(*arguments, **named)
        except SdkError:
            raise
        except (TypeError, ValueError, OverflowError, IndexError) as error:
            told = str(error).partition("\n")[0]
            raise InputError(f"{op.__name__}: an argument is not of the kind that it takes ({told})") from error

    return call


def cuda_half() -> Any:
    """The submodule `sdk._native.cuda`; MissingDependencyError says how to get it."""
    from sdk import _native

    if _native.cuda is None:
        raise MissingDependencyError(
            f"this build of sdk._native has no CUDA half: when it was built, {_native.WITHOUT_CUDA}; install sdk again "
            "from source with SDK_CUDA_ARCHITECTURES naming the GPU, as in 87 for an Orin, which fetches a compiler "
            "where none is found"
        )
    return _native.cuda


def array_from(name: str, value: Any) -> Array:
    """`value` as numpy's array or as a DeviceArray; InputError names what is accepted."""
    if isinstance(value, np.ndarray):
        return value
    interface = getattr(value, "__cuda_array_interface__", None)
    if interface is not None:
        return array_from_interface(interface)
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        return _from_dlpack(name, value)
    raise InputError(
        f"{name} must be a numpy array, or have DLPack or __cuda_array_interface__ (got {type(value).__name__})"
    )


def array_from_interface(interface: dict[str, Any]) -> DeviceArray:
    """What a `__cuda_array_interface__` tells."""
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    strides = interface.get("strides") or _contiguous_strides(shape, dtype.itemsize)
    return DeviceArray(int(interface["data"][0] or 0), shape, tuple(strides), dtype)


def array_from_capsule(capsule: object) -> DeviceArray:
    """What a DLPack capsule holds, left unconsumed: the memory is given back when the capsule goes."""
    tensor = _DLTensor.from_address(_pointer_in(capsule, b"dltensor"))
    dtype, axes = _dtype_from_dlpack(tensor.dtype), range(tensor.ndim)
    shape = tuple(tensor.shape[axis] for axis in axes)
    if tensor.strides:
        strides = tuple(tensor.strides[axis] * dtype.itemsize for axis in axes)
    else:
        strides = _contiguous_strides(shape, dtype.itemsize)
    return DeviceArray((tensor.data or 0) + tensor.byte_offset, shape, strides, dtype)


def _from_dlpack(name: str, value: Any) -> Array:
    device_type = int(value.__dlpack_device__()[0])
    if device_type in DLPACK_HOST:
        return np.from_dlpack(value)
    if device_type not in DLPACK_CUDA:
        raise InputError(
            f"{name} must be in memory of the CPU or of a CUDA device (got DLPack device type {device_type})"
        )
    return array_from_capsule(value.__dlpack__())


class _DLDataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("dtype", _DLDataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),  # in elements; null where contiguous
        ("byte_offset", ctypes.c_uint64),
    )


_pointer_in = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _dtype_from_dlpack(found: _DLDataType) -> np.dtype[Any]:
    if found.code >= len(DLPACK_KINDS) or found.lanes != 1 or found.bits % 8:
        raise InputError(
            f"an array on a GPU must hold integers or floats (got DLPack type {found.code}, {found.bits} bit)"
        )
    return np.dtype(f"{DLPACK_KINDS[found.code]}{found.bits // 8}")


def _contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    strides = [itemsize]
    for length in shape[:0:-1]:
        strides.append(strides[-1] * length)
    return tuple(reversed(strides))


def is_contiguous(array: Array) -> bool:
    """Whether elements follow one another in C order."""
    if isinstance(array, np.ndarray):
        return array.flags.c_contiguous
    wanted = _contiguous_strides(array.shape, array.dtype.itemsize)
    held = zip(array.shape, array.strides, wanted, strict=True)
    return 0 in array.shape or all(length == 1 or stride == want for length, stride, want in held)


def described(array: object) -> str:
    """Shape, dtype and place, for messages."""
    shape, dtype = getattr(array, "shape", None), getattr(array, "dtype", None)
    if shape is None:
        return type(array).__name__
    place = " on a GPU" if isinstance(array, DeviceArray) else ""
    return f"{' x '.join(map(str, shape)) or 'scalar'} {dtype}{place}"


def stream_address(stream: Any) -> int:
    """The CUDA stream as a number; None is the default stream. Takes integers and PyCUDA, CuPy and torch streams."""
    if stream is None:
        return 0
    if isinstance(stream, int):
        return stream
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for attribute in ("handle", "cuda_stream", "ptr"):
        if hasattr(stream, attribute):
            return int(getattr(stream, attribute))
    raise InputError(f"stream must be a CUDA stream or its address (got {type(stream).__name__})")

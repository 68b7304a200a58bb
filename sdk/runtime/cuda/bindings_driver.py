"""NVIDIA's cuda-bindings behind the names of `pycuda.driver`: the second maker of `sdk.runtime.cuda.driver.Driver`.

Memory is freed when told to be and never by a destructor; a stream and an event go with their last reference, where a
context is current. Nothing is asked of the driver at import.

    driver = BindingsDriver()                    # ImportError without the package or without a driver
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sdk.cuda_devices import driver_is_there

__all__ = ["BindingsDriver", "DriverError", "DriverMemoryError"]

log = logging.getLogger(__name__)

OUT_OF_MEMORY, NOT_READY = 2, 600  # CUresult
HOST, DEVICE = 1, 2  # CUmemorytype


class DriverError(Exception):
    """What the driver answered, as in 'cuMemAlloc failed: out of memory'."""


class DriverMemoryError(DriverError):
    """The driver has no memory for it."""


class BindingsDriver:
    """The driver through cuda-bindings."""

    Error: type[Exception] = DriverError
    MemoryError: type[Exception] = DriverMemoryError

    def __init__(self) -> None:
        from cuda.bindings import driver as cuda

        if not driver_is_there():
            raise ImportError("libcuda.so.1 cannot be loaded")
        self.cuda = cuda
        self.Device = _Devices(self)
        self.Stream: Callable[[int], _Stream] = partial(_Stream, self)
        self.Event: Callable[[], _Event] = partial(_Event, self)
        self.Memcpy2D: Callable[[], _Memcpy2D] = partial(_Memcpy2D, self)
        self.device_attribute = SimpleNamespace(INTEGRATED=cuda.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED)
        self.host_alloc_flags = SimpleNamespace(PORTABLE=1, DEVICEMAP=2)  # CU_MEMHOSTALLOC_*

    def init(self) -> None:
        self.asked("cuInit", 0)

    def asked(self, name: str, *arguments: Any) -> Any:
        """The one value of a driver's call, or None where it gives none; DriverError with what it answered."""
        answer = getattr(self.cuda, name)(*arguments)
        code = answer[0]
        if code:
            raise self.error(name, code)
        return answer[1] if len(answer) == 2 else answer[1:] or None

    def error(self, name: str, code: Any) -> DriverError:
        """What the call of that name answered, as an exception."""
        _, text = self.cuda.cuGetErrorString(code)
        kind = DriverMemoryError if code == OUT_OF_MEMORY else DriverError
        return kind(f"{name} failed: {text.decode() if text else int(code)}")

    def mem_alloc(self, size_bytes: int) -> _Allocation:
        return _Allocation(self, int(self.asked("cuMemAlloc", size_bytes)))

    def mem_get_info(self) -> tuple[int, int]:
        """(free, total) bytes of the current context's device."""
        free, total = self.asked("cuMemGetInfo")
        return int(free), int(total)

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: DTypeLike, mem_flags: int) -> NDArray[Any]:
        """An array in page-locked memory; beneath all its views lies what frees it."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        owner = _HostAllocation(self, int(self.asked("cuMemHostAlloc", max(size, 1), mem_flags)), size)
        return np.asarray(owner).view(dtype).reshape(shape)

    def memset_d8_async(self, dest: int, data: int, size: int, stream: _Stream) -> None:
        self.asked("cuMemsetD8Async", int(dest), data, size, stream.raw)

    def memcpy_htod_async(self, dest: int, src: NDArray[Any], stream: _Stream) -> None:
        self.asked("cuMemcpyHtoDAsync", int(dest), _address(src), src.nbytes, stream.raw)

    def memcpy_dtoh_async(self, dest: NDArray[Any], src: int, stream: _Stream) -> None:
        self.asked("cuMemcpyDtoHAsync", _address(dest), int(src), dest.nbytes, stream.raw)

    def dropped(self, name: str, handle: Any) -> None:
        """Give back what its last reference left, where the thread has a context; else it goes with the context."""
        code, current = self.cuda.cuCtxGetCurrent()
        if not code and int(current):
            code = getattr(self.cuda, name)(handle)[0]
            if code:
                log.debug("%s answered %s", name, code)


class _Devices:
    """`Device(index)` and `Device.count()`."""

    def __init__(self, driver: BindingsDriver) -> None:
        self._driver = driver

    def __call__(self, index: int) -> _Device:
        return _Device(self._driver, index)

    def count(self) -> int:
        return int(self._driver.asked("cuDeviceGetCount"))


class _Device:
    def __init__(self, driver: BindingsDriver, index: int) -> None:
        self._driver = driver
        self._handle = driver.asked("cuDeviceGet", index)

    def name(self) -> str:
        raw: bytes = self._driver.asked("cuDeviceGetName", 256, self._handle)
        return raw.split(b"\0", 1)[0].decode()

    def compute_capability(self) -> tuple[int, int]:
        names = self._driver.cuda.CUdevice_attribute
        return (
            self.get_attribute(names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
            self.get_attribute(names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
        )

    def get_attribute(self, attribute: Any) -> int:
        return int(self._driver.asked("cuDeviceGetAttribute", attribute, self._handle))

    def retain_primary_context(self) -> _Context:
        return _Context(self._driver, self._driver.asked("cuDevicePrimaryCtxRetain", self._handle))


class _Context:
    def __init__(self, driver: BindingsDriver, handle: Any) -> None:
        self._driver = driver
        self._handle = handle
        self._push, self._pop = driver.cuda.cuCtxPushCurrent, driver.cuda.cuCtxPopCurrent  # every call asks both

    def push(self) -> None:
        code = self._push(self._handle)[0]
        if code:
            raise self._driver.error("cuCtxPushCurrent", code)

    def pop(self) -> None:
        code = self._pop()[0]
        if code:
            raise self._driver.error("cuCtxPopCurrent", code)


class _Stream:
    def __init__(self, driver: BindingsDriver, flags: int) -> None:
        self._driver = driver
        self.raw = driver.asked("cuStreamCreate", flags)
        self.handle = int(self.raw)

    def is_done(self) -> bool:
        return _passed(self._driver, "cuStreamQuery", self.raw)

    def __del__(self) -> None:
        if hasattr(self, "raw"):
            self._driver.dropped("cuStreamDestroy", self.raw)


class _Event:
    def __init__(self, driver: BindingsDriver) -> None:
        self._driver = driver
        self.raw = driver.asked("cuEventCreate", 0)

    def record(self, stream: _Stream) -> _Event:
        self._driver.asked("cuEventRecord", self.raw, stream.raw)
        return self

    def query(self) -> bool:
        return _passed(self._driver, "cuEventQuery", self.raw)

    def synchronize(self) -> None:
        self._driver.asked("cuEventSynchronize", self.raw)

    def time_since(self, other: _Event) -> float:
        """Milliseconds since `other` was passed."""
        return float(self._driver.asked("cuEventElapsedTime", other.raw, self.raw))

    def __del__(self) -> None:
        if hasattr(self, "raw"):
            self._driver.dropped("cuEventDestroy", self.raw)


class _Memcpy2D:
    """Rows of pinned memory to the device: set source, target, pitches, width and height; call it with a stream."""

    def __init__(self, driver: BindingsDriver) -> None:
        self._driver = driver
        self._copy = driver.cuda.CUDA_MEMCPY2D()
        self.src_pitch = self.dst_pitch = self.width_in_bytes = self.height = 0

    def set_src_host(self, array: NDArray[np.uint8]) -> None:
        self._source = array  # kept until the copy is dropped
        self._copy.srcMemoryType = self._driver.cuda.CUmemorytype(HOST)
        self._copy.srcHost = _address(array)

    def set_dst_device(self, address: int) -> None:
        self._copy.dstMemoryType = self._driver.cuda.CUmemorytype(DEVICE)
        self._copy.dstDevice = address

    def __call__(self, stream: _Stream) -> None:
        copy = self._copy
        copy.srcPitch, copy.dstPitch = self.src_pitch, self.dst_pitch
        copy.WidthInBytes, copy.Height = self.width_in_bytes, self.height
        self._driver.asked("cuMemcpy2DAsync", copy, stream.raw)


class _Allocation:
    """Device memory; `int` of it is its address."""

    def __init__(self, driver: BindingsDriver, address: int) -> None:
        self._driver = driver
        self._address = address

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        self._driver.asked("cuMemFree", self._address)


class _HostAllocation:
    """Page-locked memory, as numpy takes it."""

    def __init__(self, driver: BindingsDriver, address: int, size_bytes: int) -> None:
        self._driver = driver
        self._address = address
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (size_bytes,), "data": (address, False)}

    def get_device_pointer(self) -> int:
        return int(self._driver.asked("cuMemHostGetDevicePointer", self._address, 0))

    def free(self) -> None:
        self._driver.asked("cuMemFreeHost", self._address)


def _passed(driver: BindingsDriver, name: str, handle: Any) -> bool:
    code = getattr(driver.cuda, name)(handle)[0]
    if code and code != NOT_READY:
        raise driver.error(name, code)
    return not code


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])

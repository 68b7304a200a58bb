"""Device memory and pinned host memory, freed when told to be and never by a destructor on a lost device.

memory = DeviceMemory(device, layout.total_bytes, "hold a lane's buffers")
params = PinnedArray(device, (432,), np.uint8, "hold a frame's parameters")
params.array[:] = 0; params.device_pointer
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sdk.errors import DeviceLostError
from sdk.runtime.cuda.context import DeviceContext, never_freed, out_of_memory

__all__ = ["DeviceMemory", "PinnedArray", "borrowed", "shared_array"]


class DeviceMemory:
    """One zeroed allocation on a device. The context must be entered to make one."""

    def __init__(self, device: DeviceContext, size_bytes: int, purpose: str) -> None:
        self.size_bytes = size_bytes
        self._device = device
        driver = device.driver
        try:
            self._allocation: Any = driver.mem_alloc(size_bytes)
        except driver.MemoryError as error:
            raise out_of_memory(purpose, size_bytes, device.free_bytes()) from error
        self.pointer = int(self._allocation)
        driver.memset_d8_async(self.pointer, 0, size_bytes, device.stream)
        try:
            device.wait(device.stream.is_done, "clear new memory")
        except DeviceLostError:
            self.abandon()
            raise

    def free(self) -> None:
        """Give the memory back; the context must be entered. Twice is allowed."""
        allocation, self._allocation = self._allocation, None
        if allocation is not None:
            allocation.free()

    def abandon(self) -> None:
        """Leave the memory to the end of the process: the device is lost, or this is a forked child."""
        never_freed(self._allocation)


class PinnedArray:
    """A numpy array in page-locked host memory that the device can also address. The context must be entered."""

    def __init__(self, device: DeviceContext, shape: tuple[int, ...], dtype: DTypeLike, purpose: str) -> None:
        array = _pinned_array(device, shape, dtype, purpose)
        array[...] = 0
        self._array: NDArray[Any] | None = array
        self._allocation: Any = _owner(array)
        self.device_pointer = int(self._allocation.get_device_pointer())

    @property
    def array(self) -> NDArray[Any]:
        if self._array is None:
            raise AssertionError("pinned memory is used after it was freed")
        return self._array

    def free(self) -> None:
        """Give the memory back; the context must be entered. No view of the array may be used afterwards."""
        allocation, self._allocation, self._array = self._allocation, None, None
        if allocation is not None:
            allocation.free()

    def abandon(self) -> None:
        """Leave the memory to the end of the process."""
        never_freed(self._allocation)


M = TypeVar("M", DeviceMemory, PinnedArray)


@contextmanager
def borrowed(device: DeviceContext, memory: M) -> Iterator[M]:
    """Memory for the length of a block, however that ends; left alone where the device was lost in it."""
    try:
        yield memory
    finally:
        device.give_back(memory)


def _pinned_array(device: DeviceContext, shape: tuple[int, ...], dtype: DTypeLike, purpose: str) -> NDArray[Any]:
    """An uninitialised page-locked, mapped array, usable from every context. The context must be entered."""
    driver = device.driver
    flags = driver.host_alloc_flags.PORTABLE | driver.host_alloc_flags.DEVICEMAP
    try:
        array: NDArray[Any] = driver.pagelocked_empty(shape, np.dtype(dtype), mem_flags=flags)
    except driver.MemoryError as error:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raise out_of_memory(f"{purpose} in pinned host memory", size, device.free_bytes()) from error
    return array


def shared_array(device: DeviceContext, shape: tuple[int, ...], dtype: DTypeLike, purpose: str) -> NDArray[Any]:
    """A `_pinned_array` for the caller to keep: freed when it and its last view are gone, in whatever thread that is.

    PyCUDA itself would free it only in the thread that opened the device.
    """
    array = _pinned_array(device, shape, dtype, purpose)
    memory = _Memory(array.__array_interface__)
    allocation = _owner(array)
    device.free_with(memory, allocation, allocation.free)
    return np.asarray(memory)


class _Memory:
    """What an array and all its views keep alive, whatever arrays between them numpy leaves out."""

    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface


def _owner(array: NDArray[Any]) -> Any:
    """What holds an array's memory: beneath all views, the object that is no array."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner

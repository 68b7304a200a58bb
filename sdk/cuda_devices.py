"""CUDA devices as the driver names them: for choosing a compiler, and for reports. No CUDA package is needed.

Asks libcuda through ctypes and makes no context. Not for running anything: that is `sdk.runtime`.

    for device in cuda_devices():
        device.name, device.capability, device.memory_mib          # ("Orin", "8.7", 62841)
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

__all__ = [
    "NO_CONTEXT", "CudaDevice", "context_of", "cuda_devices", "current_context", "driver_is_there", "driver_version",
]  # fmt: skip

NO_CONTEXT = 0  # memory of pools and of other processes' exports belongs to none
POINTER_CONTEXT, POINTER_DEVICE = 1, 9  # CUpointer_attribute
COMPUTE_CAPABILITY_MAJOR = 75  # CUdevice_attribute
COMPUTE_CAPABILITY_MINOR = 76


@dataclass(frozen=True)
class CudaDevice:
    """One device. `capability` is the compute capability, as in '8.7'; `pci_bus_id` names it to NVML, as in
    '0000:65:00.0', whatever devices are visible and in which order."""

    index: int
    name: str
    capability: str
    memory_mib: int
    pci_bus_id: str = ""


def cuda_devices() -> tuple[CudaDevice, ...]:
    """All devices, empty where there is no driver or none is visible."""
    driver = _driver()
    count = ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(_device(driver, index) for index in range(count.value))


def driver_is_there() -> bool:
    """Whether a driver's library can be loaded; it need not see a device."""
    return _library() is not None


def driver_version() -> str | None:
    """The newest CUDA version that the driver serves, as in '13.0'; None without a driver."""
    driver = _driver()
    version = ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def current_context() -> int | None:
    """The CUDA context that is current in this thread; None without a driver, or where none is."""
    driver, handle = _driver(), ctypes.c_void_p()
    if driver is None or driver.cuCtxGetCurrent(ctypes.byref(handle)) != 0:
        return None
    return handle.value


def context_of(pointer: int) -> int | None:
    """The CUDA context that an address's memory was allocated in, or `NO_CONTEXT`; None where it is no CUDA memory."""
    driver, handle = _driver(), ctypes.c_void_p()
    if driver is None:
        return None
    address = ctypes.c_uint64(pointer)
    if driver.cuPointerGetAttribute(ctypes.byref(handle), POINTER_CONTEXT, address) == 0:
        return handle.value or NO_CONTEXT
    ordinal = ctypes.c_int()
    known = driver.cuPointerGetAttribute(ctypes.byref(ordinal), POINTER_DEVICE, address) == 0
    return NO_CONTEXT if known else None


@cache
def _library() -> ctypes.CDLL | None:
    """The driver's library, its symbols made global: a PyCUDA built on a machine without a driver may not name it."""
    try:
        return ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return None


@cache
def _driver() -> ctypes.CDLL | None:
    driver = _library()
    return driver if driver is not None and driver.cuInit(0) == 0 else None


def _device(driver: ctypes.CDLL, index: int) -> CudaDevice:
    handle, name, total = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    driver.cuDeviceGet(ctypes.byref(handle), index)
    driver.cuDeviceGetName(name, len(name), handle)
    driver.cuDeviceTotalMem_v2(ctypes.byref(total), handle)
    major, minor = (_attribute(driver, handle, key) for key in (COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR))
    bus = ctypes.create_string_buffer(32)
    driver.cuDeviceGetPCIBusId(bus, len(bus), handle)
    return CudaDevice(index, name.value.decode(), f"{major}.{minor}", total.value >> 20, bus.value.decode())


def _attribute(driver: ctypes.CDLL, handle: ctypes.c_int, key: int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), key, handle)
    return value.value

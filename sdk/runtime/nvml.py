"""What NVML tells of one GPU, through ctypes: power, temperature, memory in use. It changes nothing, makes no context.

    gpu = nvml_device("cuda:0")
    if gpu is not None:
        gpu.watts(), gpu.celsius(), gpu.memory_bytes()         # NaN, NaN, None where this reading failed

NVML counts all GPUs in an order of its own: the PCI bus tells which is meant. A Jetson's GPU is not NVML's before
JetPack 7; `sdk.runtime.power` and `sdk.runtime.temperature` read sysfs there.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from math import nan
from typing import Any

from sdk.cuda_devices import cuda_devices

__all__ = ["NvmlDevice", "nvml_device"]

TEMPERATURE_GPU = 0  # nvmlTemperatureSensors_t


class _Memory(ctypes.Structure):  # nvmlMemory_t
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


@dataclass(frozen=True)
class NvmlDevice:
    """A GPU of NVML's, by its PCI bus."""

    bus: str
    _nvml: Any
    _handle: ctypes.c_void_p

    def watts(self) -> float:
        """The power of the whole GPU."""
        milliwatts = ctypes.c_uint()
        failed = self._nvml.nvmlDeviceGetPowerUsage(self._handle, ctypes.byref(milliwatts))
        return nan if failed else milliwatts.value * 1e-3

    def celsius(self) -> float:
        """The temperature of the die."""
        degrees = ctypes.c_uint()
        failed = self._nvml.nvmlDeviceGetTemperature(self._handle, TEMPERATURE_GPU, ctypes.byref(degrees))
        return nan if failed else float(degrees.value)

    def memory_bytes(self) -> int | None:
        """Memory in use by all processes."""
        memory = _Memory()
        failed = self._nvml.nvmlDeviceGetMemoryInfo(self._handle, ctypes.byref(memory))
        return None if failed else int(memory.used)


def nvml_device(device: str) -> NvmlDevice | None:
    """NVML's view of CUDA device `device`, as 'cuda' or 'cuda:1'; None for another, or where NVML does not know it."""
    if not device.startswith("cuda"):
        return None
    index = int(device.partition(":")[2] or 0)
    buses = [each.pci_bus_id for each in cuda_devices() if each.index == index]
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    handle = ctypes.c_void_p()
    if not buses or nvml.nvmlInit_v2() != 0:
        return None
    if nvml.nvmlDeviceGetHandleByPciBusId_v2(buses[0].encode(), ctypes.byref(handle)) != 0:
        return None
    return NvmlDevice(buses[0], nvml, handle)

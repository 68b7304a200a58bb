"""The calls that the run time asks of a CUDA driver, and who makes them: PyCUDA, else NVIDIA's cuda-bindings.

Whoever makes them, they have the names and meanings of `pycuda.driver`: only these twenty are used, and `Driver` lists
them. PyCUDA is taken where it is installed; it must be compiled against a toolkit, cuda-bindings comes ready.

    driver = cuda_driver()                       # ImportError says what is missing
    driver.init()
    driver.memcpy_htod_async(pointer, pixels, driver.Stream(1))
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, cast

from numpy.typing import DTypeLike, NDArray

from sdk.cuda_devices import driver_is_there
from sdk.runtime.cuda.bindings_driver import BindingsDriver

__all__ = ["INSTALL_BINDING", "Driver", "cuda_driver"]

INSTALL_BINDING = "pip install 'cuda-bindings>=13,<14', or 'simcc-edge-sdk[cuda]' for PyCUDA"

log = logging.getLogger(__name__)


class Driver(Protocol):
    """What the run time asks. A stream, an event, an allocation and a context are whatever the maker makes of them."""

    Error: type[Exception]  # root of what the driver answers; its text is CUDA's
    MemoryError: type[Exception]  # out of memory, on the device or of pinned memory
    Device: Any  # Device(index): name, compute_capability, get_attribute, retain_primary_context; Device.count()
    Stream: Callable[[int], Any]  # flags: handle, is_done
    Event: Callable[[], Any]  # record, query, synchronize, time_since
    Memcpy2D: Callable[[], Any]  # rows from pinned memory to the device
    device_attribute: Any  # INTEGRATED
    host_alloc_flags: Any  # PORTABLE, DEVICEMAP

    def init(self) -> None: ...

    def mem_alloc(self, size_bytes: int) -> Any: ...

    def mem_get_info(self) -> tuple[int, int]: ...

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: DTypeLike, mem_flags: int) -> NDArray[Any]: ...

    def memset_d8_async(self, dest: int, data: int, size: int, stream: Any) -> None: ...

    def memcpy_htod_async(self, dest: int, src: NDArray[Any], stream: Any) -> None: ...

    def memcpy_dtoh_async(self, dest: NDArray[Any], src: int, stream: Any) -> None: ...


def cuda_driver() -> Driver:
    """PyCUDA's driver module, or cuda-bindings behind the same names. ImportError, with what each of them said.

    The driver's library is loaded first, for either package.
    """
    driver_is_there()
    try:
        with warnings.catch_warnings():  # PyCUDA guesses at versions; the ImportError that follows names the reason
            warnings.filterwarnings("ignore", message="Failed to import the CUDA driver interface")
            return cast(Driver, import_module("pycuda.driver"))
    except ImportError as pycuda:
        if driver_is_there() and not _is_absent(pycuda, "pycuda"):
            log.warning("PyCUDA is installed and cannot be imported (%s); cuda-bindings is tried in its place", pycuda)
        try:
            return BindingsDriver()
        except ImportError as bindings:
            absent = _is_absent(bindings, "cuda")
            raise ImportError(
                f"PyCUDA: {pycuda}; cuda-bindings: {'not installed' if absent else bindings}"
            ) from bindings


def _is_absent(error: ImportError, package: str) -> bool:
    return isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == package

"""What moving bytes costs on a device with memory of its own, measured once a process: the figures behind a transfer.

with device.entered("measure transfers"):
    costs = transfer_costs(device)
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.runtime.cuda.context import DeviceContext
from sdk.runtime.cuda.memory import DeviceMemory, PinnedArray, borrowed

__all__ = ["TransferCosts", "costs_from_seconds", "transfer_costs"]

log = logging.getLogger(__name__)

ROWS, ROW_BYTES, PITCH = 1536, 2048, 4096  # half the width of a frame as large as 1080p: beyond the caches of one core
COPIES = 8  # in a row: what one more costs is asked, not how long a single one takes to answer
REPEATS = 5


@dataclass(frozen=True)
class TransferCosts:
    """What moving bytes costs on one device, as `sdk::TransferCosts` in cpp_ext/host/packing.h has it."""

    copy_s: float  # of one asynchronous copy among several, whatever its size
    bytes_per_s: float  # host to device
    row_s: float  # of each row of a copy that is not whole rows
    host_copy_s: float  # of one piece copied by the host and handed to the device
    host_bytes_per_s: float
    host_row_s: float


_measuring = threading.Lock()
_known: dict[int, TransferCosts] = {}


def transfer_costs(device: DeviceContext) -> TransferCosts:
    """The device's costs; the first call measures them (tens of milliseconds). The context must be entered."""
    with _measuring:  # by one lane, the others wait: figures taken together would be wrong
        known = _known.get(device.index)
        if known is not None:
            return known
        known = _known[device.index] = _measured(device)
        log.info(
            "cuda:%d takes %.1f GB/s from pinned memory, %.1f us a copy; the host copies %.1f GB/s",
            device.index, known.bytes_per_s / 1e9, 1e6 * known.copy_s, known.host_bytes_per_s / 1e9,
        )  # fmt: skip
    return known


def costs_from_seconds(small: float, whole: float, rows: float) -> tuple[float, float, float]:
    """(seconds a copy, bytes a second, seconds a row) from three timed copies: 1 KiB, 6 MiB whole, 3 MiB in rows. Pure.

    Differences that noise turned round count as nothing: a row never costs less than none.
    """
    bytes_per_s = (ROWS * PITCH) / max(whole - small, 1e-9)
    row = max(0.0, rows - small - ROWS * ROW_BYTES / bytes_per_s) / ROWS
    return small, bytes_per_s, row


def _rows_copy(
    driver: Any, source: NDArray[np.uint8], source_pitch: int, target: int, target_pitch: int, rows: int, row_bytes: int
) -> Any:
    """A PyCUDA copy of `rows` rows from pinned memory to the device; call it with a stream."""
    copy = driver.Memcpy2D()
    copy.set_src_host(source)
    copy.set_dst_device(target)
    copy.src_pitch, copy.dst_pitch = source_pitch, target_pitch
    copy.width_in_bytes, copy.height = row_bytes, rows
    return copy


def _measured(device: DeviceContext) -> TransferCosts:
    with borrowed(device, PinnedArray(device, (ROWS, PITCH), np.uint8, "measure transfers")) as host:
        copy_s, bytes_per_s, row_s = _host_costs(host.array)
        with borrowed(device, DeviceMemory(device, ROWS * PITCH, "measure transfers")) as memory:
            bus_costs, issue_s = _bus_costs(device, host.array, memory.pointer)
    return TransferCosts(*bus_costs, copy_s + issue_s, bytes_per_s, row_s)


def _host_costs(pixels: NDArray[np.uint8]) -> tuple[float, float, float]:  # ROWS x PITCH, pinned
    """(seconds a copy, bytes a second, seconds a row) of the host's copies into pinned memory."""
    other = np.ones((ROWS, PITCH), np.uint8)
    return costs_from_seconds(
        _host_seconds(lambda: np.copyto(pixels[:1, :1024], other[:1, :1024])),
        _host_seconds(lambda: np.copyto(pixels, other)),
        _host_seconds(lambda: np.copyto(pixels[:, :ROW_BYTES], other[:, :ROW_BYTES])),
    )


def _bus_costs(
    device: DeviceContext,
    pixels: NDArray[np.uint8],  # ROWS x PITCH, pinned
    target: int,
) -> tuple[tuple[float, float, float], float]:
    """(seconds a copy, bytes a second, seconds a row) of uploads, and the host's seconds to ask for one."""
    driver, stream = device.driver, device.driver.Stream(1)
    in_rows = _rows_copy(driver, pixels[:, :ROW_BYTES], PITCH, target, PITCH, ROWS, ROW_BYTES)
    small, issue_s = _copy_seconds(device, stream, lambda: driver.memcpy_htod_async(target, pixels[0, :1024], stream))
    whole, _ = _copy_seconds(device, stream, lambda: driver.memcpy_htod_async(target, pixels, stream))
    rows, _ = _copy_seconds(device, stream, lambda: in_rows(stream))
    return costs_from_seconds(small, whole, rows), issue_s


def _copy_seconds(device: DeviceContext, stream: Any, issue: Callable[[], object]) -> tuple[float, float]:
    """Seconds of one copy among `COPIES` in a row: by the device's clock, and the host's to ask for it. Medians."""
    before, after = device.driver.Event(), device.driver.Event()
    spent = []
    for _ in range(1 + REPEATS):
        start = perf_counter()
        before.record(stream)
        for _ in range(COPIES):
            issue()
        issued = perf_counter() - start
        after.record(stream)
        device.wait(after.query, "copy a test pattern")
        spent.append((1e-3 * float(after.time_since(before)) / COPIES, issued / COPIES))
    on_device, on_host = zip(*spent[1:], strict=True)
    return float(median(on_device)), float(median(on_host))


def _host_seconds(run: Callable[[], object]) -> float:
    """The median of a few runs after one to warm up."""
    run()
    spent = []
    for _ in range(REPEATS):
        start = perf_counter()
        run()
        spent.append(perf_counter() - start)
    return float(median(spent))

"""Electrical power while something runs: Jetson's INA3221 in sysfs, `tegrastats`, or NVML; or a reason there is none.

    meter, reason = find_power_meter(device="cuda:0")
    with PowerLog(meter) as log: ...
    log.joules([(start, end)])

A meter reads the whole board (Jetson's VDD_IN) or the whole GPU, never one process: nothing else should run beside it.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, nan
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from types import TracebackType

__all__ = ["Meter", "PowerLog", "find_power_meter", "sysfs_meter", "watts_from_tegrastats"]

BOARD_RAILS = ("VDD_IN", "POM_5V_IN", "SYS5V")  # Orin; Nano and TX; older boards
PERIOD_SECONDS = 0.1
HWMON = Path("/sys/class/hwmon")


@dataclass(frozen=True)
class Meter:
    """Where power is read, and how, in watts."""

    source: str
    watts: Callable[[], float]  # NaN where this reading failed
    close: Callable[[], None] = lambda: None


def find_power_meter(device: str, hwmon: Path = HWMON) -> tuple[Meter | None, str]:
    """The meter that fits `device`, and its source; or None and why."""
    meter = sysfs_meter(hwmon) or _tegrastats_meter()
    if meter is None and device.startswith("cuda"):
        meter = _nvml_meter(int(device.partition(":")[2] or 0))
    if meter is None:
        return None, "unavailable (no INA3221 in sysfs, no tegrastats, and no NVML device in use)"
    return meter, meter.source


def sysfs_meter(hwmon: Path) -> Meter | None:
    """Jetson's input rail, from INA3221's voltage (mV) and current (mA)."""
    for label in sorted(hwmon.glob("hwmon*/in*_label")):
        name = _word(label)
        if name in BOARD_RAILS:
            number = label.name.removeprefix("in").removesuffix("_label")
            volt, ampere = label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input")
            if volt.is_file() and ampere.is_file():
                return Meter(f"{name}, INA3221", partial(_product_watts, volt, ampere))
    return None


def _product_watts(millivolt: Path, milliampere: Path) -> float:
    return int(_word(millivolt)) * int(_word(milliampere)) * 1e-6


def watts_from_tegrastats(line: str) -> float | None:
    """The input rail's present power in a line of `tegrastats`, as in 'VDD_IN 4513mW/4480mW'."""
    for rail in BOARD_RAILS:
        match = re.search(rf"\b{rail} (\d+)(?:mW)?/", line)
        if match:
            return int(match[1]) * 1e-3
    return None


class PowerLog:
    """Samples of a meter in the background, ten a second."""

    def __init__(self, meter: Meter | None) -> None:
        self._meter = meter
        self._samples: list[tuple[float, float]] = []  # seconds of perf_counter, watts
        self._stop = Event()
        self._thread: Thread | None = None

    def __enter__(self) -> PowerLog:
        if self._meter is not None:
            self._thread = Thread(target=self._sample, args=(self._meter,), daemon=True, name="sdk-power")
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None and self._meter is not None:
            self._thread.join()
            self._meter.close()

    def joules(self, spans: Sequence[tuple[float, float]]) -> float | None:
        """Energy of the spans (start, end), from the mean power within them; None without a sample in them."""
        within = [watts for at, watts in self._samples if _within(at, spans) and isfinite(watts)]
        if not within:
            return None
        return sum(within) / len(within) * sum(end - start for start, end in spans)

    def _sample(self, meter: Meter) -> None:
        while not self._stop.wait(PERIOD_SECONDS):
            self._samples.append((perf_counter(), meter.watts()))


def _within(at: float, spans: Sequence[tuple[float, float]]) -> bool:
    return any(start <= at <= end for start, end in spans)


@dataclass(frozen=True)
class _Tegrastats:
    """A running `tegrastats`, a line a reading."""

    process: subprocess.Popen[str]

    def watts(self) -> float:
        assert self.process.stdout is not None, "opened with a pipe"
        found = watts_from_tegrastats(self.process.stdout.readline())
        return nan if found is None else found

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def _tegrastats_meter() -> Meter | None:
    tool = shutil.which("tegrastats")
    if tool is None:
        return None
    command = [tool, "--interval", str(int(1000 * PERIOD_SECONDS))]
    running = _Tegrastats(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    return Meter("tegrastats", running.watts, running.close)


def _nvml_meter(index: int) -> Meter | None:
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    handle, milliwatts = ctypes.c_void_p(), ctypes.c_uint()
    if nvml.nvmlInit_v2() != 0 or nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) != 0:
        return None
    if nvml.nvmlDeviceGetPowerUsage(handle, ctypes.byref(milliwatts)) != 0:
        return None

    def watts() -> float:
        failed = nvml.nvmlDeviceGetPowerUsage(handle, ctypes.byref(milliwatts))
        return nan if failed else milliwatts.value * 1e-3

    return Meter(f"NVML, device {index}", watts)


def _word(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""

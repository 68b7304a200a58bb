"""Electrical power while something runs: Jetson's INA3221 in sysfs, `tegrastats`, or NVML; or a reason there is none.

    meter, reason = find_power_meter(device="cuda:0")
    with PowerLog(meter) as log: ...
    log.joules([(start, end)])

A meter reads a whole board (the rail VDD_IN, or the sum of a module's rails where no rail is the input) or a whole GPU,
never one process: nothing else should run beside it. A meter that gives no number is not taken.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, nan
from pathlib import Path
from threading import Event, Thread
from time import perf_counter, sleep
from types import TracebackType

from sdk.runtime.nvml import nvml_device
from sdk.runtime.sysfs import HWMON, number_in, word_in

__all__ = ["Meter", "PowerLog", "find_power_meter", "sysfs_meter", "watts_from_tegrastats"]

INPUT_RAILS = ("VDD_IN", "POM_5V_IN")  # Orin Nano and NX; Nano: all that the module takes
MODULE_RAILS = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO")  # AGX Orin has no rail for the whole
PERIOD_SECONDS = (
    0.01  # sensors answer at once; an INA3221 has a new number every 2 to 35 ms, a GPU's NVML every 25 to 100
)
TEGRASTATS_MS = 100
PATIENCE_SECONDS = 2.0  # for a meter's first number; tegrastats takes a moment to start


@dataclass(frozen=True)
class Meter:
    """Where power is read, and how, in watts. `close` also ends a reading that waits."""

    source: str
    watts: Callable[[], float]  # NaN where this reading failed
    close: Callable[[], None] = lambda: None


def find_power_meter(device: str, hwmon: Path = HWMON) -> tuple[Meter | None, str]:
    """The first meter that fits `device` and gives numbers, and its source; or None and why."""
    silent = []
    for meter in _meters(device, hwmon):
        if _gives_numbers(meter):
            return meter, meter.source
        meter.close()
        silent.append(meter.source)
    if silent:
        return None, f"unavailable: no number came from {', nor from '.join(silent)}"
    return None, "unavailable (no INA3221 in sysfs, no tegrastats, and no NVML device in use)"


def sysfs_meter(hwmon: Path) -> Meter | None:
    """Jetson's power, from INA3221's voltages (mV) and currents (mA)."""
    channels: dict[str, tuple[Path, Path]] = {}
    for label in sorted(hwmon.glob("hwmon*/in*_label")):
        number = label.name.removeprefix("in").removesuffix("_label")
        volt, ampere = label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input")
        if volt.is_file() and ampere.is_file():
            channels.setdefault(word_in(label), (volt, ampere))
    rails = _rails(channels)
    if not rails:
        return None
    return Meter(f"{' + '.join(rails)}, INA3221", partial(_sum_watts, [channels[rail] for rail in rails]))


def watts_from_tegrastats(line: str) -> float | None:
    """The present power in a line of `tegrastats`, as in 'VDD_IN 4513mW/4480mW'; None where no known rail is in it."""
    found = {rail: int(milliwatts) for rail, milliwatts in re.findall(r"\b([A-Z][A-Z0-9_]+) (\d+)(?:mW)?/\d", line)}
    rails = _rails(found)
    return sum(found[rail] for rail in rails) * 1e-3 if rails else None


class PowerLog:
    """Samples of a meter in the background, a hundred a second."""

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
            self._meter.close()  # first: the thread may wait for a reading
            self._thread.join()

    def watts(self, spans: Sequence[tuple[float, float]]) -> float | None:
        """Mean power within the spans (start, end); None without a sample in them."""
        within = [watts for at, watts in self._samples if _within(at, spans) and isfinite(watts)]
        return sum(within) / len(within) if within else None

    def joules(self, spans: Sequence[tuple[float, float]]) -> float | None:
        """Energy of the spans, from the mean power within them; None without a sample in them."""
        watts = self.watts(spans)
        return None if watts is None else watts * sum(end - start for start, end in spans)

    def _sample(self, meter: Meter) -> None:
        while not self._stop.wait(PERIOD_SECONDS):
            self._samples.append((perf_counter(), meter.watts()))


def _within(at: float, spans: Sequence[tuple[float, float]]) -> bool:
    return any(start <= at <= end for start, end in spans)


def _meters(device: str, hwmon: Path) -> Iterator[Meter]:
    """Meters that are there, the best first; each is opened when the one before was not taken."""
    candidates: list[Callable[[], Meter | None]] = [partial(sysfs_meter, hwmon), _tegrastats_meter]
    if device.startswith("cuda"):
        candidates.append(partial(_nvml_meter, device))
    for opened in candidates:
        meter = opened()
        if meter is not None:
            yield meter


def _gives_numbers(meter: Meter) -> bool:
    deadline = perf_counter() + PATIENCE_SECONDS
    while not isfinite(meter.watts()):
        if perf_counter() >= deadline:
            return False
        sleep(PERIOD_SECONDS)
    return True


def _rails(names: Mapping[str, object]) -> list[str]:
    """The rails whose sum is the board's or the module's power: the input where there is one."""
    inputs = [rail for rail in INPUT_RAILS if rail in names]
    return inputs[:1] or [rail for rail in MODULE_RAILS if rail in names]


def _sum_watts(channels: Sequence[tuple[Path, Path]]) -> float:  # mV, mA
    return sum(number_in(volt) * number_in(ampere) for volt, ampere in channels) * 1e-6


class _Tegrastats:
    """A running `tegrastats`, read in the background: a reading never waits for it."""

    def __init__(self, tool: str) -> None:
        command = [tool, "--interval", str(TEGRASTATS_MS)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._latest = nan
        Thread(target=self._read, daemon=True, name="sdk-tegrastats").start()

    def watts(self) -> float:
        """What was said since the last reading."""
        latest, self._latest = self._latest, nan
        return latest

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None, "opened with a pipe"
        for line in self._process.stdout:
            found = watts_from_tegrastats(line)
            if found is not None:
                self._latest = found


def _tegrastats_meter() -> Meter | None:
    tool = shutil.which("tegrastats")
    if tool is None:
        return None
    running = _Tegrastats(tool)
    return Meter("tegrastats", running.watts, running.close)


def _nvml_meter(device: str) -> Meter | None:
    gpu = nvml_device(device)
    return None if gpu is None else Meter(f"NVML, GPU {gpu.bus}", gpu.watts)

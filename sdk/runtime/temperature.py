"""How hot the device is: NVML's GPU, or the kernel's thermal zones and sensors; or nothing where none is told.

    thermometer = find_thermometer("cuda:0")
    if thermometer is not None:
        thermometer.source, thermometer.celsius()              # 'GPU-therm', 51.5; NaN where this reading failed

Of a Jetson's zones the GPU's is taken, else the hottest junction; of a desktop's CPU the package. It only reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path

from sdk.runtime.nvml import nvml_device
from sdk.runtime.sysfs import HWMON, number_in, word_in

__all__ = ["Thermometer", "find_thermometer"]

THERMAL = Path("/sys/class/thermal")
# Names of zones in the order of what they tell of the device: Orin, Xavier, then a PC's processor and a Raspberry's.
GPU_ZONES = ("gpu-thermal", "GPU-therm")
ZONES = ("tj-thermal", "Tboard_tegra", "x86_pkg_temp", "cpu-thermal", "CPU-therm", "cpu_thermal")
PROCESSORS = ("k10temp", "coretemp")  # drivers of hwmon whose first channel is the package


@dataclass(frozen=True)
class Thermometer:
    """Where a temperature is read, and how."""

    source: str
    celsius: Callable[[], float]  # NaN where this reading failed


def find_thermometer(device: str, thermal: Path = THERMAL, hwmon: Path = HWMON) -> Thermometer | None:
    """The first that fits `device` and gives a number."""
    gpu = nvml_device(device)
    found = [] if gpu is None else [Thermometer(f"GPU {gpu.bus}", gpu.celsius)]
    zones = {word_in(path / "type"): path / "temp" for path in sorted(thermal.glob("thermal_zone*"))}
    wanted = (*GPU_ZONES, *ZONES) if device.startswith("cuda") else ZONES
    found += [Thermometer(name, partial(_celsius, zones[name])) for name in wanted if name in zones]
    chips = {word_in(path / "name"): path / "temp1_input" for path in sorted(hwmon.glob("hwmon*"))}
    found += [Thermometer(name, partial(_celsius, chips[name])) for name in PROCESSORS if name in chips]
    return next((each for each in found if isfinite(each.celsius())), None)


def _celsius(path: Path) -> float:
    """Sysfs has thousandths of a degree; NaN where it cannot be read now."""
    return number_in(path) * 1e-3

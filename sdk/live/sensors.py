"""What the machine tells beside the pipeline: temperature, power, the device's memory. None where it tells nothing.

with Sensors("cuda:0") as sensors:
    sensors.readings()                         # {"celsius": 51.5, "watts": 9.8, "memory_bytes": ..., ...}
"""

from __future__ import annotations

import os
from math import isfinite
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

from sdk.runtime.nvml import NvmlDevice, nvml_device
from sdk.runtime.power import Meter, find_power_meter
from sdk.runtime.temperature import Thermometer, find_thermometer

__all__ = ["Sensors"]

STATM = Path("/proc/self/statm")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Sensors:
    """The meters of one device. They are looked for in the background: a power meter may take seconds to answer."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._gpu: NvmlDevice | None = None
        self._power: Meter | None = None
        self._thermometer: Thermometer | None = None
        self._watts: float | None = None  # a meter that runs by itself has no number between two of its lines
        self._finding = Thread(target=self._find, name="sdk-live-sensors", daemon=True)

    def __enter__(self) -> Sensors:
        self._finding.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finding.join()
        if self._power is not None:
            self._power.close()

    def readings(self) -> dict[str, Any]:
        """The numbers of now, and where they come from."""
        thermometer, power = self._thermometer, self._power
        if power is not None:
            watts = _number(power.watts())
            self._watts = self._watts if watts is None else watts
        return {
            "celsius": None if thermometer is None else _number(thermometer.celsius()),
            "celsius_of": None if thermometer is None else thermometer.source,
            "watts": self._watts,
            "watts_of": None if power is None else power.source,
            "memory_bytes": None if self._gpu is None else self._gpu.memory_bytes(),
            "resident_bytes": _resident_bytes(),
        }

    def _find(self) -> None:
        self._gpu = nvml_device(self._device)
        self._thermometer = find_thermometer(self._device)
        self._power, _ = find_power_meter(self._device)


def _number(value: float) -> float | None:
    return round(value, 2) if isfinite(value) else None


def _resident_bytes() -> int | None:
    """What of this process is in memory."""
    try:
        return int(STATM.read_text(encoding="utf-8").split()[1]) * PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None

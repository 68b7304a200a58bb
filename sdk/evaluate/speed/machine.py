"""What a figure was measured on: processor, clocks, GPU, power mode, versions. It asks and changes nothing.

    machine_facts()["processor"], machine_facts()["packages"]["onnxruntime"]

What cannot be found out is "unavailable", never left out: a missing clock must not look like a fixed one.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from sdk import __version__
from sdk.cores import allowed_cores
from sdk.cuda_devices import cuda_devices, driver_version

__all__ = ["machine_facts", "machine_rows"]

UNAVAILABLE = "unavailable"
PACKAGES = ("numpy", "onnxruntime", "tensorrt", "tensorrt-rtx", "pycuda", "cuda-bindings", "torch", "rtmlib")
SYS = Path("/sys/devices/system/cpu")


def machine_facts() -> dict[str, Any]:
    """Facts as plain tables, for a report."""
    return {
        "sdk": __version__,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": allowed_cores(),
        "clock_mhz": _clock_mhz(),
        "governor": _text(SYS / "cpu0/cpufreq/scaling_governor"),
        "load_1_minute": round(os.getloadavg()[0], 2),
        "gpus": [f"{device.name}, compute capability {device.capability}" for device in cuda_devices()] or UNAVAILABLE,
        "cuda_driver": driver_version() or UNAVAILABLE,
        "jetson": _text(Path("/etc/nv_tegra_release")),
        "power_mode": _power_mode(),
        "packages": _packages(),
    }


def machine_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts as rows of text: one for each entry of a table, a list with commas."""
    rows = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            rows += [(f"{name}, {key}", str(each)) for key, each in value.items()]
        else:
            rows.append((name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows


def _processor() -> str:
    for line in _text(Path("/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or UNAVAILABLE


def _clock_mhz() -> dict[str, float] | str:
    """Now and at most, from cpufreq; now alone where only /proc/cpuinfo tells."""
    now, most = (_text(SYS / f"cpu0/cpufreq/{name}") for name in ("scaling_cur_freq", "cpuinfo_max_freq"))
    if now.isdigit() and most.isdigit():
        return {"now": int(now) / 1000, "max": int(most) / 1000}
    for line in _text(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("cpu MHz"):
            return {"now": float(line.partition(":")[2])}
    return UNAVAILABLE


def _power_mode() -> str:
    """Jetson's `nvpmodel`, in its own words."""
    tool = shutil.which("nvpmodel")
    if tool is None:
        return UNAVAILABLE
    try:
        answer = subprocess.run([tool, "-q"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{UNAVAILABLE} (nvpmodel: {error})"
    return " ".join(answer.stdout.split())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return UNAVAILABLE


def _packages() -> dict[str, str]:
    """Versions of what is installed; OpenCV has several distributions, so the module says which one is in use."""
    versions = {name: version for name in PACKAGES if (version := _version(name)) is not None}
    try:
        import cv2
    except ImportError:
        return versions
    return {**versions, "cv2": cv2.__version__}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

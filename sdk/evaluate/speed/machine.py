"""What a figure was measured on: processor, clocks, GPU, power mode, versions. It asks and changes nothing.

    machine_facts()["processor"], machine_facts()["packages"]["onnxruntime"]

What cannot be found out is "unavailable", never left out: a missing clock must not look like a fixed one.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from time import sleep
from typing import Any

from sdk import __version__
from sdk.cores import allowed_cores
from sdk.cuda_devices import cuda_devices, driver_version

__all__ = ["machine_clocks", "machine_facts", "machine_rows", "tell_if_busy"]

log = logging.getLogger(__name__)

UNAVAILABLE = "unavailable"
WATCH_SECONDS = 0.2
BUSY_PERCENT = 25.0  # of the cores' time; an idle desktop takes 1 to 5
PACKAGES = ("numpy", "onnxruntime", "tensorrt", "tensorrt-rtx", "pycuda", "cuda-bindings", "torch", "rtmlib")
SYS = Path("/sys/devices/system/cpu")
DEVFREQ = Path("/sys/class/devfreq")  # of a Jetson's GPU: 17000000.gpu, 17000000.ga10b


def machine_facts() -> dict[str, Any]:
    """Facts as plain tables, for a report. It watches the cores for a moment: ask before the work, not after it."""
    load, watched = round(os.getloadavg()[0], 2), _busy_percent()
    return {
        "sdk": __version__,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": allowed_cores(),
        "cores_of_machine": os.cpu_count() or UNAVAILABLE,
        "clock_mhz": _clock_mhz(),
        "governor": _text(SYS / "cpu0/cpufreq/scaling_governor"),
        "load_1_minute": load,
        "busy_percent": watched,
        "busy": _busy_words(load, watched),
        "gpus": [f"{device.name}, compute capability {device.capability}" for device in cuda_devices()] or UNAVAILABLE,
        "cuda_driver": driver_version() or UNAVAILABLE,
        "jetson": _text(Path("/etc/nv_tegra_release")),
        "power_mode": _power_mode(),
        "packages": _packages(),
    }


def tell_if_busy(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts; a busy machine is told in the log, before anybody waits for figures that others have spoiled."""
    if facts["busy"]:
        log.warning("%s", facts["busy"])
    return facts


def machine_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts as rows of text: one for each entry of a table, a list with commas; what is told apart is left out."""
    rows = []
    for name, value in facts.items():
        if name == "busy":
            continue
        if isinstance(value, Mapping):
            rows += [(f"{name.replace('_', ' ')}, {key}", str(each)) for key, each in value.items()]
        else:
            words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((name.replace("_", " "), words))
    return rows


def _busy_words(load: float, busy_percent: float | str) -> str:
    """Why figures of time are not to be believed; empty where nothing speaks against them."""
    cores = os.cpu_count() or 1
    reasons = []
    if load > cores:
        reasons.append(f"a load of {load:g} on {cores} cores")
    if not isinstance(busy_percent, str) and busy_percent > BUSY_PERCENT:
        reasons.append(f"its cores {busy_percent:.0f} % at work before the first call")
    if not reasons:
        return ""
    return f"the machine was busy with other work ({', '.join(reasons)}): measure again when it is idle"


def _busy_percent() -> float | str:
    """How much of the time of the cores this process may use went to others, over a moment in which it sleeps."""
    before = _core_ticks()
    sleep(WATCH_SECONDS)
    after = _core_ticks()
    shares = [
        1 - (after[core][0] - idle) / (after[core][1] - whole)
        for core, (idle, whole) in before.items()
        if core in after and after[core][1] > whole
    ]
    return round(100 * sum(shares) / len(shares), 1) if shares else UNAVAILABLE


def _core_ticks() -> dict[int, tuple[int, int]]:
    """Idle and all ticks of each core this process may use, from /proc/stat."""
    allowed, ticks = os.sched_getaffinity(0), {}
    for line in _text(Path("/proc/stat")).splitlines():
        name, *counts = line.split()
        number = name.removeprefix("cpu")
        if name.startswith("cpu") and number.isdigit() and int(number) in allowed:
            spent = [int(count) for count in counts]
            ticks[int(number)] = (spent[3] + spent[4], sum(spent[:8]))  # idle and waiting for a disk
    return ticks


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


def machine_clocks() -> dict[str, float]:
    """MHz at this moment: the first core's, and a Jetson's GPU's; what cannot be read is left out."""
    clocks = _clock_mhz()
    found = {} if isinstance(clocks, str) else {"cpu": clocks["now"]}
    for path in sorted(DEVFREQ.glob("*gpu*/cur_freq")) + sorted(DEVFREQ.glob("*gp[01]*b/cur_freq")):
        if _text(path).isdigit():
            found["gpu"] = int(_text(path)) / 1e6
    return found


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

"""How many processor cores this process may really use: not all that the machine has, where a container, a cpuset or a
batch system gives fewer. Linux only, without one import beside the standard library.

    allowed_cores()                   # 2 in `docker run --cpus 2` on a machine of 64
    physical_cores()                  # of these, each counted once however many threads of its own it has
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["allowed_cores", "physical_cores", "restricted"]

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
TOPOLOGY = Path("/sys/devices/system/cpu")


def allowed_cores() -> int:
    """Hardware threads that this process may run on, no more than the time that its control groups give it."""
    return max(1, min(len(_affinity()), _quota()))


def physical_cores() -> int:
    """As `allowed_cores`, but threads of one core count once: what arithmetic gains from."""
    places = {(_read(cpu, "physical_package_id") or "0", _read(cpu, "core_id") or str(cpu)) for cpu in _affinity()}
    return max(1, min(len(places), _quota()))


def restricted() -> bool:
    """Whether this process may use fewer cores than the machine has."""
    return allowed_cores() < (os.cpu_count() or 1)


def _affinity() -> set[int]:
    return set(os.sched_getaffinity(0))


def _quota() -> int:
    """Whole cores of the tightest limit of time on the way from this process's control groups up to the root."""
    limits = [limit for folder in _groups() if (limit := _limit_of(folder)) is not None]
    return math.ceil(min(limits)) if limits else os.cpu_count() or 1


def _groups() -> Iterator[Path]:
    """The folders of this process's control groups and those above: version 2's, and version 1's of the processor."""
    for line in (_text(MEMBERSHIP) or "").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0":
            root = CGROUPS
        elif "cpu" in controllers.split(","):
            root = CGROUPS / "cpu"
        else:
            continue
        folder = root / path.lstrip("/")
        yield from (place for place in (folder, *folder.parents) if place == root or root in place.parents)


def _limit_of(folder: Path) -> float | None:
    """Cores' worth of time; None where there is no limit."""
    both = (_text(folder / "cpu.max") or "").split()
    if not both:
        both = [_text(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
    try:
        quota, period = (float(part) for part in both)
    except ValueError:  # 'max', or no such file
        return None
    return quota / period if quota > 0 and period > 0 else None


def _read(cpu: int, name: str) -> str | None:
    return _text(TOPOLOGY / f"cpu{cpu}" / "topology" / name)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None

"""The kernel's sensors as files of sysfs: each holds one word or one whole number, and may not be readable now.

number_in(Path("/sys/class/hwmon/hwmon0/temp1_input")) * 1e-3       # NaN where this reading failed
"""

from __future__ import annotations

from math import nan
from pathlib import Path

__all__ = ["HWMON", "number_in", "word_in"]

HWMON = Path("/sys/class/hwmon")


def number_in(path: Path) -> float:
    """The whole number in a file; NaN where it cannot be read now."""
    try:
        return int(word_in(path))
    except ValueError:
        return nan


def word_in(path: Path) -> str:
    """What a file says; nothing where it cannot be read now."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""

"""What is told of a result of `sdk.Cameras`: its stages' times, and its line in a recording.

for result in cameras:
    times_of(result.poses), line_of(result, "door")
"""

from __future__ import annotations

from typing import Any

from sdk.media import lines
from sdk.people.cameras import CameraPoses
from sdk.poses import Poses

__all__ = ["line_of", "times_of"]


def times_of(poses: Poses) -> dict[str, float]:
    """The stages' times, in milliseconds; words about them are left out."""
    return {name: float(value) for name, value in poses.timings_ms.items() if not isinstance(value, str)}


def line_of(result: CameraPoses, name: str) -> dict[str, Any]:
    """A result with the fields that `sdk predict --jsonl` writes, but for captured, age_ms and counts."""
    return lines.line_of(name, result.frame, result.poses)

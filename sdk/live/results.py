"""What the page and its gauges are told of a result of `sdk.Cameras`.

for result in cameras:
    times_of(result.poses)
"""

from __future__ import annotations

from sdk.poses import Poses

__all__ = ["times_of"]


def times_of(poses: Poses) -> dict[str, float]:
    """The stages' times, in milliseconds; words about them are left out."""
    return {name: float(value) for name, value in poses.timings_ms.items() if not isinstance(value, str)}

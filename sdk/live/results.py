"""What the page's pipeline hands on: a frame of a camera with its poses, as `sdk.Cameras` gives them.

for result in cameras:
    result.camera, result.frame.picture, result.poses
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sdk.poses import Poses

__all__ = ["Result", "Shown", "TakenFrame", "line_of", "times_of"]


class TakenFrame(Protocol):
    """A frame with its number in the source and when it was taken, in seconds of `time.monotonic`."""

    @property
    def picture(self) -> NDArray[np.uint8]: ...
    @property
    def number(self) -> int: ...
    @property
    def time_ms(self) -> float | None: ...
    @property
    def captured_s(self) -> float: ...


class Result(Protocol):
    """A frame of a camera with the persons in it."""

    @property
    def camera(self) -> int: ...
    @property
    def frame(self) -> TakenFrame: ...
    @property
    def poses(self) -> Poses: ...


@dataclass(frozen=True, eq=False)
class Shown:
    """A result as the page shows it."""

    camera: int
    frame: TakenFrame
    poses: Poses


def times_of(poses: Poses) -> dict[str, float]:
    """The stages' times, in milliseconds; words about them are left out."""
    return {name: float(value) for name, value in poses.timings_ms.items() if not isinstance(value, str)}


def line_of(result: Result, name: str) -> dict[str, Any]:
    """A result as `sdk predict --jsonl` writes it."""
    height, width = result.frame.picture.shape[:2]
    return {
        "source": name,
        "frame": result.frame.number,
        "time_ms": result.frame.time_ms,
        "width": width,
        "height": height,
        **result.poses.to_dict(),
    }

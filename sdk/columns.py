"""What a decode may tell beside x, y and the score, and in which columns: depth, spread, second peak. numpy only.

columns = Columns(depth=True, spread=True)
columns.count                               # 6: x, y, score, depth, spread of x, spread of y
depths = columns.depth_of(joints)           # of joints N x K x 6
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError

__all__ = ["Columns", "Depth", "Spread"]

MAX_SHARPNESS = 1e6


@dataclass(frozen=True)
class Depth:
    """What the bins of simcc_z stand for: -`span` to +`span` about the root, in a unit of one's own such as metres.

    `pixels`: `span` is in pixels of the crop, and depths come out in frame pixels.
    """

    span: float
    pixels: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.span < float("inf"):
            raise InputError(f"depth.span must be positive (got {self.span})")


@dataclass(frozen=True)
class Spread:
    """How a row's logits become a standard deviation that holds; see `cpp_ext/shared/spread_math.h`.

    `sharpness`: logits times it are log-probabilities. The variance v of a row, in bins, is taken for
    floor + gain v + curve v^2.
    """

    sharpness: float = 1.0
    gain: float = 1.0
    curve: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.sharpness <= MAX_SHARPNESS:
            raise InputError(f"spread.sharpness must be positive, at most {MAX_SHARPNESS:g} (got {self.sharpness})")
        for name in ("gain", "curve", "floor"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"spread.{name} must be 0 or more, and finite (got {getattr(self, name)})")


@dataclass(frozen=True)
class Columns:
    """Which columns `decode` writes after x, y and the score, in this order: depth (1), spread (2), second (2)."""

    depth: bool = False
    spread: bool = False
    second: bool = False

    @property
    def count(self) -> int:
        return 3 + self.depth + 2 * self.spread + 2 * self.second

    def depth_of(self, joints: NDArray[np.float32]) -> NDArray[np.float32] | None:  # ... x C
        """The depths, ..."""
        return joints[..., 3] if self.depth else None

    def spread_of(self, joints: NDArray[np.float32]) -> NDArray[np.float32] | None:  # ... x C
        """The standard deviations, ... x 2."""
        first = 3 + self.depth
        return joints[..., first : first + 2] if self.spread else None

    def second_of(self, joints: NDArray[np.float32]) -> NDArray[np.float32] | None:  # ... x C
        """The second peaks, ... x 2."""
        return joints[..., -2:] if self.second else None

"""Accuracy by the size of persons: small ones are hard, and a figure over all hides how hard.

for group in by_size(dataset, scores.person_quality):
    group.name, group.persons, group.oks                        # '64 to 128 px', 31, 0.71
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sdk.evaluate.datasets.dataset import Dataset

__all__ = ["SizeGroup", "by_size"]

EDGES_PX = (0.0, 64.0, 128.0, 256.0, 512.0, np.inf)  # of the box's longer side


@dataclass(frozen=True)
class SizeGroup:
    """Persons whose box's longer side lies in a range; `oks` is their mean, NaN where there is nobody."""

    name: str
    persons: int
    oks: float


def by_size(dataset: Dataset, person_quality: NDArray[np.float64]) -> list[SizeGroup]:  # P, NaN without annotation
    """The groups from small to large; persons without an annotation do not count."""
    corners = dataset.boxes_xyxy
    sides = (corners[:, 2:] - corners[:, :2]).max(axis=1)
    groups = []
    for low, high in pairwise(EDGES_PX):
        chosen = person_quality[(sides >= low) & (sides < high) & np.isfinite(person_quality)]
        groups.append(SizeGroup(_name(low, high), len(chosen), float(chosen.mean()) if len(chosen) else float("nan")))
    return groups


def _name(low: float, high: float) -> str:
    if low == 0:
        return f"below {high:.0f} px"
    return f"{low:.0f} px and more" if np.isinf(high) else f"{low:.0f} to {high:.0f} px"

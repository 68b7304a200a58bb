"""Two engines on the same crops: how far the figure fell, how sure that is, and where the joints went.

    comparison = compare(dataset, ours, theirs, our_scores, their_scores, rules)
    comparison.drop, comparison.interval, comparison.moved_share

`drop` is by how much our figure is worse than the reference's, in points; negative where it is better. The interval is
a paired bootstrap over pictures: each sample draws the same pictures for both engines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdk.evaluate.datasets.dataset import Dataset
from sdk.evaluate.scores.scoring import Scores
from sdk.geometry import crop_affines
from sdk.recipe import Recipe

__all__ = ["Comparison", "bins_moved", "bootstrap_drop", "compare"]

Float64Array = NDArray[np.float64]
PersonArray = NDArray[np.float32]

SAMPLES = 500
SEED = 20260101


@dataclass(frozen=True)
class Comparison:
    """An engine against its reference. Shares in per cent, figures in points."""

    headline: str
    ours: float
    reference: float
    interval: tuple[float, float]  # 95 % of the drop
    moved_bins: Float64Array  # P x K, the larger of both axes, in bins
    distance_px: Float64Array  # P x K, frame pixels
    worst: NDArray[np.intp]  # persons, most moved first
    samples: int
    lower_is_better: bool = False  # the headline is an error

    @property
    def drop(self) -> float:
        return (self.reference - self.ours) * (-1 if self.lower_is_better else 1)

    @property
    def moved_share(self) -> float:
        """Joints that moved by more than one bin along an axis."""
        return 100 * float((self.moved_bins > 1 + 1e-3).mean()) if self.moved_bins.size else 0.0

    @property
    def distance_quantiles_px(self) -> Mapping[str, float]:
        """How far joints lie apart, in frame pixels."""
        at = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
        return {name: float(np.percentile(self.distance_px, share)) for name, share in at.items()}


def compare(
    dataset: Dataset,
    ours: PersonArray,  # P x K x 3
    theirs: PersonArray,  # P x K x 3
    our_scores: Scores,
    their_scores: Scores,
    recipe: Recipe,
    *,
    samples: int = SAMPLES,
) -> Comparison:
    """The comparison of two engines' predictions for the same persons."""
    moved = bins_moved(dataset, ours, theirs, recipe)
    distance = np.linalg.norm(ours[..., :2].astype(np.float64) - theirs[..., :2], axis=2)
    return Comparison(
        our_scores.headline,
        our_scores.figures[our_scores.headline],
        their_scores.figures[their_scores.headline],
        bootstrap_drop(our_scores, their_scores, len(dataset.pictures), samples),
        moved,
        distance,
        np.argsort(-moved.mean(axis=1), kind="stable"),
        samples,
        our_scores.lower_is_better,
    )


def bootstrap_drop(ours: Scores, reference: Scores, pictures: int, samples: int) -> tuple[float, float]:
    """The middle 95 % of the drop over `samples` draws of the pictures; NaN where no draw has a figure."""
    rng = np.random.default_rng(SEED)
    drops, sign = [], -1 if ours.lower_is_better else 1
    for _ in range(samples):
        counts = np.bincount(rng.integers(0, pictures, pictures), minlength=pictures)
        drops.append(sign * (reference.resampled(counts) - ours.resampled(counts)))
    known = np.asarray(drops)[np.isfinite(drops)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return float(low), float(high)


def bins_moved(dataset: Dataset, ours: PersonArray, theirs: PersonArray, recipe: Recipe) -> Float64Array:  # P x K
    """The larger of a joint's movements along x and y, in bins (in crop pixels for heatmap engines)."""
    affines = crop_affines(dataset.boxes_xyxy.astype(np.float32), recipe.input.size_hw, recipe.input.box_padding)
    bins_a_pixel = (recipe.output.split_ratio or 1.0) / affines[:, 0, 0].astype(np.float64)
    apart = np.abs(ours[..., :2].astype(np.float64) - theirs[..., :2]).max(axis=2)
    moved: Float64Array = apart * bins_a_pixel[:, None]
    return moved

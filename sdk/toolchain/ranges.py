"""Activation ranges from histograms: how far INT8 should reach for a tensor, by four methods and the best of them.

A `Histogram` holds the magnitudes of a tensor in bounded memory: its top is a power of two that doubles (bins merge in
pairs, exactly) when a larger value comes, so one pass over the crops is enough. Nothing here runs a network
(`sdk.toolchain.calibrate`) or writes a graph (`sdk.toolchain.quantize`). numpy only.

    histogram = Histogram()
    histogram.add(activations)
    reach = candidate_ranges(histogram)          # {"max": 6.1, "percentile": 4.4, "entropy": 4.0, "mse": 4.7}
    error = quantisation_error(held_out, reach["mse"])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LEVELS",
    "METHODS",
    "Histogram",
    "Method",
    "best_method",
    "candidate_ranges",
    "quantisation_error",
]

Method = Literal["max", "percentile", "entropy", "mse", "auto"]
LEVELS = 127  # symmetric INT8: codes -127..127 on either side of zero
PERCENTILE = 99.99  # of all values; 99.9 clips SiLU peaks that carry joints, 99.999 is max on 512 crops
_BINS = 4096  # after a doubling at least half are in use: 16 or more bins to an INT8 step
_SMALLEST_TOP = 2.0**-100  # bins per unit stay a float32 number; INT8 has no scale for what is smaller
_MSE_STEPS = 128
_ENTROPY_STEP = 16


@dataclass
class Histogram:
    """Magnitudes of one tensor. Exact zeros are counted apart: INT8 represents them at any range."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    top: float = 0.0  # upper edge of the last bin, a power of two, never below `_SMALLEST_TOP`
    seen_max: float = 0.0
    zeros: int = 0

    @property
    def total(self) -> int:
        return int(self.counts.sum()) + self.zeros

    @property
    def used(self) -> int:
        """Bins up to the one that holds the largest value seen."""
        return max(1, int(np.ceil(self.seen_max / self.top * _BINS))) if self.top else 0

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin."""
        return np.asarray((np.arange(_BINS) + 0.5) * (self.top / _BINS), np.float64)

    def add(self, values: NDArray[np.float32]) -> None:  # any shape, finite
        """Count the magnitudes of `values`."""
        magnitudes = np.abs(values.ravel())
        peak = float(magnitudes.max(initial=0.0))
        if peak > self.top:
            self._grow(max(2.0 ** np.ceil(np.log2(peak)), _SMALLEST_TOP))
        if self.top == 0.0:
            self.zeros += magnitudes.size
            return
        self.seen_max = max(self.seen_max, peak)
        bins = np.minimum((magnitudes * np.float32(_BINS / self.top)).astype(np.int32), _BINS - 1)
        counts = np.bincount(bins, minlength=_BINS)
        zeros = magnitudes.size - int(np.count_nonzero(magnitudes))
        counts[0] -= zeros
        self.zeros += zeros
        self.counts += counts

    def quantile(self, share: float) -> float:
        """The magnitude below which `share` of all values lie, at the resolution of a bin; never above the maximum."""
        reached = np.searchsorted(np.cumsum(self.counts) + self.zeros, share * self.total)
        return min(float(reached + 1) * self.top / _BINS, self.seen_max)

    def _grow(self, top: float) -> None:
        if self.top:
            merge = int(min(top / self.top, _BINS))
            merged = self.counts.reshape(-1, merge).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros(_BINS - len(merged), np.int64)])
        self.top = float(top)


def candidate_ranges(histogram: Histogram) -> dict[str, float]:
    """The range each method would choose; every one within (0, largest value seen]."""
    return {name: min(method(histogram), histogram.seen_max) for name, method in METHODS.items()}


def best_method(candidates: Mapping[str, float], held_out: Histogram) -> tuple[str, dict[str, float]]:
    """The method whose range errs least on held-out values, and every method's error. Ties: the first named."""
    errors = {name: quantisation_error(held_out, amax) for name, amax in candidates.items()}
    return min(errors, key=lambda name: errors[name]), errors


def quantisation_error(histogram: Histogram, amax: float) -> float:
    """Noise power over signal power when the values are rounded to INT8 over [-amax, amax]."""
    centres, counts = histogram.centres, histogram.counts
    power = float(counts @ np.square(centres))
    return float(counts @ _squared_error(centres, amax)) / power if power else 0.0


def _squared_error(values: NDArray[np.float64], amax: float) -> NDArray[np.float64]:
    step = amax / LEVELS
    error: NDArray[np.float64] = np.square(values - np.minimum(np.rint(values / step), LEVELS) * step)
    return error


def _range_by_max(histogram: Histogram) -> float:
    return histogram.seen_max


def _range_by_percentile(histogram: Histogram) -> float:
    return histogram.quantile(PERCENTILE / 100)


def _range_by_mse(histogram: Histogram) -> float:
    """The range of least squared error on the histogram itself."""
    used = histogram.used
    centres, counts = histogram.centres[:used], histogram.counts[:used].astype(np.float64)
    ranges = histogram.seen_max * np.geomspace(0.05, 1.0, _MSE_STEPS)
    errors = [float(counts @ _squared_error(centres, amax)) for amax in ranges]
    return float(ranges[int(np.argmin(errors))])


def _range_by_entropy(histogram: Histogram) -> float:
    """The range of least Kullback-Leibler divergence between the clipped values and their INT8 image."""
    used = histogram.used
    counts = histogram.counts[:used].astype(np.float64)
    if used <= LEVELS + 1:
        return histogram.seen_max
    stops = [*range(LEVELS + 1, used, _ENTROPY_STEP), used]
    divergences = [_divergence(counts, stop) for stop in stops]
    return float(stops[int(np.argmin(divergences))] * histogram.top / _BINS)


def _divergence(counts: NDArray[np.float64], stop: int) -> float:
    reference = counts[:stop].copy()
    occupied = reference > 0
    level = np.arange(stop) * (LEVELS + 1) // stop
    mass = np.bincount(level, reference, LEVELS + 1)
    spread = np.bincount(level, occupied, LEVELS + 1)
    image = np.where(occupied, (mass / np.maximum(spread, 1))[level], 0.0)
    reference[-1] += counts[stop:].sum()
    both = (reference > 0) & (image > 0)
    missed = reference[~both].sum() / reference.sum()  # clipped mass that lands where the image has none
    p, q = reference[both] / reference.sum(), image[both] / image.sum()
    return float(np.sum(p * np.log(p / q))) + float(missed) * 30.0


METHODS: dict[str, Callable[[Histogram], float]] = {
    "max": _range_by_max,
    "percentile": _range_by_percentile,
    "entropy": _range_by_entropy,
    "mse": _range_by_mse,
}

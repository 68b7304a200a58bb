"""Whether stated spreads hold: the share of labelled joints within them, and what calibration makes it so. numpy only.

    rule = fitted({1.0: variances, 2.0: sharper_variances}, errors)      # an sdk.columns.Spread
    found = reliability(spreads_px, errors_px)
    found.covered                                     # share of the coordinates within one spread; 0.68 is true

A coordinate is one joint along one axis. One spread is the half-width of the interval that holds 68.3 % of them, as a
Gaussian's standard deviation does; errors are no Gaussian's, so that the shares of other widths are told beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from sdk.columns import Spread
from sdk.errors import DatasetError

__all__ = ["ONE_SPREAD", "Reliability", "fitted", "reliability"]

Floats = NDArray[np.float64]

ONE_SPREAD = 2 * NormalDist().cdf(1) - 1  # 68.27 %
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, ONE_SPREAD, 0.8, 0.9, 0.95)
GROUPS = 8
LEAST = 1e-6  # bins^2; a row with all its weight in one bin states nothing
FEWEST = 200  # coordinates; 68 % of fewer is known to no better than 3 points
# Curve and floor of the calibration, over its gain: bins^-2 and bins^2.
CURVES = (0.0, *np.geomspace(1e-4, 1.0, 17))
FLOORS = (0.0, *np.geomspace(0.25, 256.0, 11))


@dataclass(frozen=True)
class Reliability:
    """Shares of coordinates within multiples of their spread, and within one spread by the size of it."""

    count: int
    levels: tuple[float, ...]  # that a Gaussian's multiples would hold
    held: tuple[float, ...]  # that they hold
    spreads_px: tuple[float, ...]  # mean spread of each of GROUPS groups of equal size, ascending
    covered_by_spread: tuple[float, ...]  # share of each group within one spread

    @property
    def covered(self) -> float:
        return self.held[self.levels.index(ONE_SPREAD)]


def reliability(spreads: Floats, errors: Floats) -> Reliability:  # M each, the same unit; errors are distances
    """How the spreads hold against the errors. DatasetError where there are too few to say."""
    _check(errors)
    ratio = errors / spreads
    held = tuple(float(np.mean(ratio <= NormalDist().inv_cdf((1 + level) / 2))) for level in LEVELS)
    groups = np.array_split(np.argsort(spreads, kind="stable"), GROUPS)
    means = tuple(float(spreads[group].mean()) for group in groups)
    return Reliability(len(errors), LEVELS, held, means, tuple(float(np.mean(ratio[group] <= 1)) for group in groups))


def fitted(variances: dict[float, Floats], errors: Floats) -> Spread:
    """The rule under which one spread is the 68.3 % quantile of the errors, given the variance: by quantile regression.

    `variances`: for each sharpness tried, what the rows state, M in bins^2. `errors`: M distances along an axis, bins.
    """
    _check(errors)
    best, chosen = np.inf, Spread()
    for sharpness, stated in variances.items():
        for curve in CURVES:
            for floor in FLOORS:
                shape = np.sqrt(np.maximum(floor + stated * (1 + curve * stated), LEAST))
                scale = _quantile_scale(shape, errors)
                loss = _pinball(scale * shape, errors)
                if loss < best * (1 - 1e-6):  # of equals, the plainer
                    gain = scale * scale
                    best, chosen = loss, Spread(sharpness, gain, gain * curve, gain * floor)
    return chosen


def _quantile_scale(shape: Floats, errors: Floats) -> float:
    """The scale c at which the pinball loss of c x shape is least: a quantile of errors / shape, weighted by shape."""
    ratio = errors / shape
    order = np.argsort(ratio)
    weight = np.cumsum(shape[order])
    return float(ratio[order][np.searchsorted(weight, ONE_SPREAD * weight[-1])])


def _pinball(stated: Floats, errors: Floats) -> float:
    over = errors - stated
    return float(np.mean(np.maximum(ONE_SPREAD * over, (ONE_SPREAD - 1) * over)))


def _check(errors: Floats) -> None:
    if len(errors) < FEWEST:
        raise DatasetError(
            f"a spread must be held against at least {FEWEST} labelled coordinates, two a joint (got {len(errors)}); "
            "give more annotated persons"
        )

"""Histograms of activations, and the ranges that each method makes of one."""

import numpy as np
import pytest

pytest.importorskip("onnx")

from sdk.toolchain.ranges import METHODS, Histogram, best_method, candidate_ranges, quantisation_error

pytestmark = pytest.mark.torch


def noise(count, scale=1.0, seed=0):
    return (np.random.default_rng(seed).standard_normal(count) * scale).astype(np.float32)


def test_a_growing_histogram_counts_as_if_its_top_had_been_known():
    parts = [noise(5000, scale, seed) for seed, scale in enumerate((0.1, 1.0, 30.0, 0.5))]
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    values = np.abs(np.concatenate(parts))
    expected, _ = np.histogram(values, bins=len(histogram.counts), range=(0, histogram.top))
    assert np.abs(np.cumsum(histogram.counts) - np.cumsum(expected)).max() <= 2  # a value on an edge, in float32
    assert histogram.total == values.size
    assert histogram.seen_max == values.max()
    assert histogram.top / 2 < values.max() <= histogram.top


def test_zeros_are_counted_apart():
    histogram = Histogram()
    histogram.add(np.zeros(100, np.float32))
    histogram.add(np.concatenate([np.zeros(50), np.ones(50)]).astype(np.float32))
    assert histogram.zeros == 150
    assert histogram.total == 200
    assert histogram.counts.sum() == 50


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_quantiles_are_those_of_the_values(share):
    values = noise(20000)
    histogram = Histogram()
    histogram.add(values)
    assert histogram.quantile(share) == pytest.approx(np.quantile(np.abs(values), share), abs=2 * histogram.top / 4096)


DISTRIBUTIONS = {
    "normal": noise(20000),
    "with outliers": np.concatenate([noise(20000), noise(5, 30.0)]),
    "uniform": np.random.default_rng(1).uniform(-3, 3, 20000).astype(np.float32),
    "relu": np.maximum(noise(20000), 0),
    "two values": np.array([0.25, 4.0], np.float32),
}


@pytest.mark.parametrize("values", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_every_method_stays_within_what_was_seen(values):
    histogram = Histogram()
    histogram.add(values)
    ranges = candidate_ranges(histogram)
    assert list(ranges) == list(METHODS)
    assert all(0 < amax <= histogram.seen_max for amax in ranges.values())
    assert ranges["max"] == pytest.approx(float(np.abs(values).max()))


@pytest.mark.parametrize("peak", [1e-30, 1e-37, 1e-40, 1e-45], ids=lambda peak: f"{peak:g}")
def test_activations_near_nothing_are_counted(peak):
    histogram = Histogram()
    histogram.add(np.array([peak, 0, peak / 1000], np.float32))
    assert histogram.total == 3
    assert histogram.seen_max == np.float32(peak)
    assert all(0 < amax <= histogram.seen_max for amax in candidate_ranges(histogram).values())
    histogram.add(noise(1000))
    assert candidate_ranges(histogram)["max"] == histogram.seen_max > 1


def test_clipped_values_cost_the_entropy_range_something():
    """Half of the values lie at the top: a range that clips them all loses half of what there is to tell."""
    histogram = Histogram()
    histogram.add(np.concatenate([noise(5000, 0.05), np.linspace(3.9, 4.0, 5000, dtype=np.float32)]))
    assert candidate_ranges(histogram)["entropy"] > 3.8


def test_outliers_are_clipped_by_all_but_max():
    histogram = Histogram()
    histogram.add(DISTRIBUTIONS["with outliers"])
    ranges = candidate_ranges(histogram)
    assert ranges["max"] > 15
    assert max(ranges["entropy"], ranges["percentile"]) < 15
    assert ranges["mse"] < ranges["max"]


def test_a_uniform_tensor_is_hardly_clipped():
    histogram = Histogram()
    histogram.add(DISTRIBUTIONS["uniform"])
    assert all(amax > 2.9 for amax in candidate_ranges(histogram).values())


def test_the_mse_range_is_the_best_of_a_fine_search():
    values = noise(20000, 2.0).astype(np.float64)
    histogram = Histogram()
    histogram.add(values.astype(np.float32))
    chosen = candidate_ranges(histogram)["mse"]

    def error(amax):
        step = amax / 127
        return np.mean((values - np.clip(np.rint(values / step), -127, 127) * step) ** 2)

    best = min(error(amax) for amax in np.linspace(0.3, 1, 200) * np.abs(values).max())
    assert error(chosen) <= 1.02 * best


def test_the_error_of_a_histogram_is_that_of_its_values():
    values = noise(50000)
    histogram = Histogram()
    histogram.add(values)
    step = 2.5 / 127
    exact = np.square(values - np.clip(np.rint(values / step), -127, 127) * step).sum() / np.square(values).sum()
    assert quantisation_error(histogram, 2.5) == pytest.approx(exact, rel=0.02)


def test_the_best_method_is_judged_on_held_out_values():
    seen, held_out = Histogram(), Histogram()
    seen.add(noise(20000))
    held_out.add(noise(20000, 3.0))  # wider than what was seen: the widest range errs least
    assert best_method(candidate_ranges(seen), held_out)[0] == "max"

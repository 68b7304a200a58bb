"""The reduction that CPU lanes, GPU lanes and warps share: any order, any grouping, one winner."""

import numpy as np
import pytest

pytestmark = pytest.mark.native

native = pytest.importorskip("sdk._native", exc_type=ImportError)
hypothesis = pytest.importorskip("hypothesis")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

NO_BIN = 0x7FFFFFFF
NONE = (float("-inf"), NO_BIN, 0.0)

# Few values, so that ties abound; None is a logit that is not finite.
LOGITS = st.lists(st.sampled_from([None, -3.0, -0.0, 0.0, 1.5, 1.5000001, 80.0]), min_size=1, max_size=24)


def peaks_of(logits):
    return [NONE if value is None else (np.float32(value).item(), bin_, 1.0) for bin_, value in enumerate(logits)]


def folded(peaks, data):
    """Merged two by two, neighbours or not, in a drawn order, until one is left."""
    peaks = list(peaks)
    while len(peaks) > 1:
        a = peaks.pop(data.draw(st.integers(0, len(peaks) - 1)))
        b = peaks.pop(data.draw(st.integers(0, len(peaks) - 1)))
        peaks.append(native.merge_peaks(a, b))
    return peaks[0]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(logits=LOGITS, data=st.data())
def test_any_order_and_grouping_finds_the_first_largest(logits, data):
    value, bin_, total = folded(peaks_of(logits), data)
    finite = [(np.float32(v).item(), i) for i, v in enumerate(logits) if v is not None]
    if not finite:
        assert (bin_, total) == (NO_BIN, 0.0)
        return
    largest = max(v for v, _ in finite)
    assert value == largest
    assert bin_ == min(i for v, i in finite if v == largest)
    expected = sum(np.exp(v - largest) for v, _ in finite)
    assert total == pytest.approx(expected, rel=1e-6 * len(finite))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(a=st.floats(-(2.0**100), 2.0**100, width=32), b=st.floats(-(2.0**100), 2.0**100, width=32))
def test_merging_commutes(a, b):
    assert native.merge_peaks((a, 3, 1.0), (b, 7, 2.0)) == native.merge_peaks((b, 7, 2.0), (a, 3, 1.0))


def test_nothing_is_the_neutral_element():
    peak = (2.5, 4, 1.75)
    assert native.merge_peaks(peak, NONE) == native.merge_peaks(NONE, peak) == peak
    assert native.merge_peaks(NONE, NONE) == NONE


def test_the_softmax_sum_weighs_the_loser():
    for distance in np.linspace(0, 100, 1001, dtype=np.float32):
        total = native.merge_peaks((0.0, 0, 1.0), (-float(distance), 1, 1.0))[2]
        assert total == pytest.approx(1 + np.exp(-np.float64(distance)), rel=2e-7)

"""A few seconds of the fuzzer; tests/sanitize_ops.sh runs it longer, under the sanitizers."""

import pytest

pytestmark = pytest.mark.native

pytest.importorskip("sdk._native", exc_type=ImportError)


def test_three_seconds_of_fuzzing_find_nothing():
    from fuzz.fuzz_ops import fuzz

    assert fuzz(3, seed=20) > 0

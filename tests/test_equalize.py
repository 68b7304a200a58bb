"""Equalisation: which tensors, by which factors, and that no output changes."""

import numpy as np
import pytest

pytest.importorskip("onnx")

from sdk.errors import CalibrationError
from sdk.toolchain.equalize import equalisable_tensors, equalised_graph_from_graph, equalising_factors
from sdk.toolchain.graphs import graph_session
from sdk.toolchain.quantize import qdq_graph_from_graph
from tests.support.int8 import NOISE, SIZE, Builder, noise_crops, table_for, values_of

pytestmark = [pytest.mark.torch, pytest.mark.native]


def test_equalisable_tensors(tiny_model):
    found = equalisable_tensors(tiny_model)
    assert found == {"depthwise.relu": "/depthwise", "pair.relu": "/pair", "gated": "/gated"}


def test_equalising_changes_no_output_and_evens_the_channels(tiny_model):
    inputs = noise_crops()
    names = list(equalisable_tensors(tiny_model))
    peaks = {name: np.abs(v).max(axis=(0, 2, 3)) for name, v in values_of(tiny_model, names, inputs).items()}
    factors = equalising_factors(tiny_model, peaks)
    even = equalised_graph_from_graph(tiny_model, factors)
    for f, e in zip(*(graph_session(m).run(None, {"input": inputs}) for m in (even, tiny_model)), strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-3, atol=1e-4)
    evened = {name: np.abs(v).max(axis=(0, 2, 3)) for name, v in values_of(even, names, inputs).items()}
    for name in names:
        np.testing.assert_allclose(evened[name] * np.array(factors[name]), peaks[name], rtol=1e-4)
        assert np.std(np.log(evened[name][peaks[name] > 0])) <= np.std(np.log(peaks[name][peaks[name] > 0])) + 1e-6


def test_factors_stay_within_what_fp16_weights_bear(tiny_model):
    """One channel a million times the others, and one a millionth; a channel that is never active keeps 1."""
    peaks = np.ones(16, np.float32)
    peaks[3], peaks[5], peaks[7] = 1e6, 1e-6, 0.0
    factors = np.array(equalising_factors(tiny_model, {"pair.relu": peaks})["pair.relu"])
    assert (factors.min(), factors.max()) == (1 / 16, 16.0)
    assert (factors[3], factors[5], factors[7]) == (16.0, 1 / 16, 1.0)


def test_layer_norm_divides_in_its_gain_and_bias():
    b = Builder()
    x = b.conv("input", "stem", 3, 8, 3)
    x = b.node("Reshape", [x, b.constant("shape", np.array([0, 8, -1], np.int64))], "tokens")
    gain, shift = (b.constant(n, b.random.normal(1, 0.5, SIZE * SIZE).astype(np.float32)) for n in ("gain", "shift"))
    x = b.node("LayerNormalization", [x, gain, shift], "norm", axis=-1)
    b.matmul(x, "simcc_x", SIZE * SIZE, 64)
    b.matmul(x, "simcc_y", SIZE * SIZE, 64)
    model = b.model(["simcc_x", "simcc_y"])
    peaks = np.abs(values_of(model, ["norm"], noise_crops())["norm"]).max(axis=(0, 1))
    factors = equalising_factors(model, {"norm": peaks})
    even = equalised_graph_from_graph(model, factors)
    for f, e in zip(*(graph_session(m).run(None, {"input": noise_crops()}) for m in (even, model)), strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-3, atol=1e-4)


def test_factors_of_another_graph_are_refused(tiny_model):
    with pytest.raises(CalibrationError, match="tensor 'block' cannot be equalised in this graph; calibrate again"):
        equalised_graph_from_graph(tiny_model, {"block": (1.0,) * 8})


def test_quantising_an_equalised_table_runs(tiny_model):
    inputs = noise_crops()
    peaks = {n: np.abs(v).max(axis=(0, 2, 3)) for n, v in values_of(tiny_model, ["pair.relu", "gated"], inputs).items()}
    table = table_for(tiny_model, inputs, equalisation=equalising_factors(tiny_model, peaks))
    found = graph_session(qdq_graph_from_graph(tiny_model, table)[0]).run(None, {"input": inputs})
    expected = graph_session(tiny_model).run(None, {"input": inputs})
    for f, e in zip(found, expected, strict=True):
        assert np.square(f - e).sum() / np.square(e).sum() < NOISE

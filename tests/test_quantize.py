"""Placement of Q/DQ, scales, weights as INT8, bias correction, equalisation, and the typed graph that comes of it."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import helper, numpy_helper

from sdk.errors import CalibrationError, InputError
from sdk.toolchain.correction import bias_corrections
from sdk.toolchain.equalize import equalisable_tensors, equalised_graph_from_graph, equalising_factors
from sdk.toolchain.graphs import graph_session, producers, serialized
from sdk.toolchain.placement import PROTECTED, GraphView, PlacementOptions, placement_of
from sdk.toolchain.quantize import (
    SMALLEST_SCALE,
    QuantizeOptions,
    int8_graph_from_graph,
    qdq_graph_from_graph,
    scale_from_range,
)
from sdk.toolchain.table import TABLE_FORMAT, CalibrationTable, DataNote, TensorRange, graph_sha256
from tests.support.int8 import SIZE, Builder, tiny_graph, tiny_recipe

pytestmark = [pytest.mark.torch, pytest.mark.native]


NOISE = 9 * (8 / 127) ** 2 / 12  # over signal: 9 tensors, each rounded to 127 steps of a range 8 times its RMS


def crops(count=4, size=SIZE, channels=3):
    return np.random.default_rng(2).standard_normal((count, channels, size, size)).astype(np.float32)


def values_of(model, names, inputs):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    return dict(zip(names, graph_session(copy).run(list(names), {"input": inputs}), strict=True))


def table_for(model, inputs, equalisation=None):
    """A table of the exact ranges and means on `inputs`."""
    even = equalised_graph_from_graph(model, equalisation or {})
    names = placement_of(even, PlacementOptions(quantise_all=True)).tensors
    inner = [name for name in names if name != "input"]
    values = values_of(even, inner, inputs) | {"input": inputs}
    tensors = {}
    for name in names:
        value = values[name]
        mean = np.moveaxis(value, 1 if value.ndim == 4 else -1, 0).reshape(
            value.shape[1 if value.ndim == 4 else -1], -1
        )
        peak = float(np.abs(value).max())
        tensors[name] = TensorRange(peak, "max", {"max": peak}, {"max": 0.0}, {}, tuple(map(float, mean.mean(axis=1))))
    data = DataNote("noise", 4, 4, 0, 0, 0.0, "0" * 64)
    return CalibrationTable(
        TABLE_FORMAT, "tiny-32x32", graph_sha256(model), "max", data, tensors, {}, equalisation=equalisation or {}
    )


@pytest.fixture(scope="module")
def model():
    return tiny_graph()


@pytest.fixture(scope="module")
def table(model):
    return table_for(model, crops())


# Placement


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("/stem", PROTECTED["stem"]),
        ("/last", PROTECTED["last_conv"]),
        ("/gate", PROTECTED["pooled"]),
        ("/simcc_x", PROTECTED["classifier"]),
        ("/simcc_y", PROTECTED["classifier"]),
    ],
)
def test_protected_nodes_stay_float_with_their_reason(model, node, reason):
    assert placement_of(model).floats[node] == reason


def test_everything_else_is_int8(model):
    names = [node.name for node in placement_of(model).int8]
    assert names == ["/first", "/second", "/depthwise", "/pair", "/after", "/mixed", "/side", "/joined"]


def test_quantise_all_protects_nothing(model):
    placement = placement_of(model, PlacementOptions(quantise_all=True))
    assert placement.floats == {}
    assert placement.int8_share == 1.0


def test_int8_share_counts_multiply_accumulates(model):
    placement = placement_of(model)
    macs = {node.name: node.macs for node in GraphView(model).weighted()}
    assert macs["/stem"] == 16 * 16 * 8 * 3 * 9
    assert macs["/depthwise"] == 16 * 16 * 8 * 9
    assert macs["/simcc_x"] == 14 * 256 * 64
    assert placement.int8_share == sum(macs[n.name] for n in placement.int8) / sum(macs.values())


def test_residual_branches_are_the_ones_that_are_no_weighted_output(model):
    assert placement_of(model).residuals == (("/sum", "stem.relu"), ("/merge", "joined.silu"))


def test_both_inputs_of_a_residual_add_are_as_the_int8_kernel_wants_them(model, table):
    """The skip is quantised before the Add; the weighted op's own output is not."""
    quantised, placement = qdq_graph_from_graph(model, table)
    makers, nodes = producers(quantised), {node.name: node for node in quantised.graph.node}
    for name, skip in placement.residuals:
        main, other = sorted(nodes[name].input, key=lambda tensor: tensor == f"{skip}_dequantized")
        assert other == f"{skip}_dequantized"
        assert makers[other].op_type == "DequantizeLinear"
        assert makers[makers[other].input[0]].input[0] == skip
        assert makers[main].op_type != "DequantizeLinear"


def residual_graph():
    """A block as CSPNeXt's: both inputs of the Add come from a convolution through its activation."""
    b = Builder()
    x = b.node("Relu", [b.conv("input", "stem", 3, 8, 3, 2)], "stem.relu")
    x = b.node("Relu", [b.conv(x, "entry", 8, 8, 3)], "entry.relu")
    inner = b.node("Relu", [b.conv(x, "inner", 8, 8, 3)], "inner.relu")
    x = b.node("Relu", [b.conv(b.node("Add", [x, inner], "sum"), "exit", 8, 8, 3)], "exit.relu")
    x = b.conv(x, "last", 8, 14)
    x = b.node("Reshape", [x, b.constant("shape", np.array([0, 14, -1], np.int64))], "flat")
    for axis in "xy":
        b.matmul(x, f"simcc_{axis}", SIZE * SIZE // 4, 64)
    return b.model(["simcc_x", "simcc_y"])


@pytest.mark.parametrize(
    ("patterns", "residuals"),
    [
        ((), (("/sum", "entry.relu"),)),
        (("/entry",), (("/sum", "entry.relu"),)),
        (("/inner",), ()),
        (("/entry", "/inner"), ()),
    ],
    ids=["all INT8", "the skip's maker float", "the main branch float", "both float"],
)
def test_what_stays_float_takes_residual_pairs_away_and_makes_none(patterns, residuals):
    model = residual_graph()
    table = table_for(model, crops())
    quantised, placement = qdq_graph_from_graph(model, table, QuantizeOptions(keep_float=patterns))
    assert placement.residuals == residuals
    carry = {node.input[0] for node in quantised.graph.node if node.op_type == "QuantizeLinear"}
    assert ("entry.relu" in carry) == ("/inner" not in patterns)
    assert graph_session(quantised).run(None, {"input": crops()})[0].shape == (4, 14, 64)


@pytest.mark.parametrize("wider", ["mixed.silu", "both"])
def test_tensors_joined_by_pool_and_concat_share_the_wider_scale(model, table, wider):
    assert placement_of(model).shared == (("mixed.silu", "both"),)
    amax = 2 * max(table.tensors[name].amax for name in ("mixed.silu", "both"))
    uneven = replace(table, tensors={**table.tensors, wider: replace(table.tensors[wider], amax=amax)})
    quantised, _ = qdq_graph_from_graph(model, uneven)
    scales = {t.name: numpy_helper.to_array(t) for t in quantised.graph.initializer if t.name.endswith("_scale")}
    assert scales["mixed.silu_scale"] == scales["both_scale"] == scale_from_range(amax)


@pytest.mark.parametrize(("mode", "shares"), [("nearest", True), ("linear", False)])
def test_a_resize_shares_a_scale_only_where_it_makes_no_new_values(mode, shares):
    b = Builder()
    x = b.node("Relu", [b.conv("input", "stem", 3, 8, 3, 2)], "stem.relu")
    low = b.node("Relu", [b.conv(x, "low", 8, 8, 3, 2)], "low.relu")
    b.conv(low, "side", 8, 8)
    scales = b.constant("scales", np.array([1, 1, 2, 2], np.float32))
    up = b.node("Resize", [low, "", scales], "up", mode=mode)
    x = b.node("Relu", [b.conv(up, "after", 8, 8, 3)], "after.relu")
    x = b.conv(x, "last", 8, 14)
    b.matmul(b.node("Reshape", [x, b.constant("shape", np.array([0, 14, -1], np.int64))], "flat"), "simcc_x", 256, 64)
    placement = placement_of(b.model(["simcc_x", "side"]), PlacementOptions(quantise_all=True))
    assert (("low.relu", "up") in placement.shared) == shares
    assert {"low.relu", "up"} <= set(placement.tensors)


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [(("/fir*",), {"/first"}), (("/pair", "/after"), {"/pair", "/after"}), (("*",), {"/first", "/joined", "/stem"})],
    ids=["star", "two", "all"],
)
def test_keep_float_patterns(model, patterns, kept):
    placement = placement_of(model, PlacementOptions(keep_float=patterns))
    assert kept <= set(placement.floats)
    assert kept.isdisjoint(node.name for node in placement.int8)


def test_a_pattern_that_matches_nothing_is_refused(model):
    with pytest.raises(
        InputError, match=r"'/nothing\*' matches no convolution or matrix product; names are like /stem"
    ):
        placement_of(model, PlacementOptions(keep_float=("/nothing*",)))


def attention_graph(squared):
    """A convolution, then query and key, their product, and ReLU squared (gated) or softmax after it."""
    b = Builder()
    x = b.conv("input", "stem", 3, 8, 3)
    x = b.conv(x, "body", 8, 8, 3)
    x = b.conv(x, "last", 8, 8)
    x = b.node("Reshape", [x, b.constant("shape", np.array([0, 8, -1], np.int64))], "tokens")
    query, key = b.matmul(x, "query", SIZE * SIZE, 16), b.matmul(x, "key", SIZE * SIZE, 16)
    scores = b.node("MatMul", [query, b.node("Transpose", [key], "key.t", perm=[0, 2, 1])], "scores")
    if squared:
        positive = b.node("Relu", [scores], "positive")
        weights = b.node("Mul", [positive, positive], "square")
    else:
        weights = b.node("Softmax", [scores], "soft", axis=-1)
    mixed = b.node("MatMul", [weights, query], "mix")
    b.matmul(mixed, "simcc_x", 16, 64)
    b.matmul(mixed, "simcc_y", 16, 64)
    return b.model(["simcc_x", "simcc_y"])


def test_gated_attention_stays_float():
    floats = placement_of(attention_graph(squared=True)).floats
    assert floats["/query"] == floats["/key"] == PROTECTED["gated"]
    assert floats["/last"] == PROTECTED["last_conv"]


def test_softmax_attention_quantises_its_linear_layers():
    placement = placement_of(attention_graph(squared=False))
    assert {"/query", "/key", "/last"} <= {node.name for node in placement.int8}
    assert placement.floats["/scores"] == placement.floats["/mix"] == "both factors are activations"


# Q/DQ


def test_nothing_is_quantised_behind_a_weighted_op_or_inside_an_activation(model, table):
    quantised, _ = qdq_graph_from_graph(model, table, QuantizeOptions(quantise_all=True))
    makers = producers(quantised)
    for node in quantised.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] != "input":
            assert makers[node.input[0]].op_type not in ("Conv", "MatMul", "Gemm", "Sigmoid")


def test_weights_are_int8_with_a_scale_a_channel(model, table):
    quantised, placement = qdq_graph_from_graph(model, table)
    constants = {t.name: numpy_helper.to_array(t) for t in quantised.graph.initializer}
    floats = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in placement.int8:
        codes, scale = constants[f"{node.name}.weight_int8"], constants[f"{node.name}.weight_scale"]
        assert codes.dtype == np.int8
        assert codes.min() >= -127
        assert scale.shape == (codes.shape[0],)
        assert node.weight not in constants
        error = np.abs(codes * scale[:, None, None, None] - floats[node.weight])
        assert (error <= scale[:, None, None, None] / 2 * (1 + 1e-6)).all()


def test_every_zero_point_is_zero(model, table):
    quantised, _ = qdq_graph_from_graph(model, table)
    zeros = [numpy_helper.to_array(t) for t in quantised.graph.initializer if t.name.endswith("_zero")]
    assert zeros
    assert all(z.dtype == np.int8 and not z.any() for z in zeros)


@pytest.mark.parametrize(
    ("amax", "scale"),
    [(127.0, 1.0), (254.0, 2.0), (0.0, SMALLEST_SCALE), (1e-9, SMALLEST_SCALE), (1e12, 65504.0)],
    ids=["one", "two", "zero", "tiny", "huge"],
)
def test_scale_of_a_range(amax, scale):
    assert float(scale_from_range(amax)) == scale


def test_scales_are_fp16_numbers_that_do_not_clip():
    amax = np.exp(np.random.default_rng(3).uniform(np.log(1e-2), np.log(1e4), 1000)).astype(np.float32)
    scale = scale_from_range(amax)
    assert (scale.astype(np.float16).astype(np.float32) == scale).all()
    assert (scale * 127 >= amax * (1 - 1e-6)).all()
    assert (scale * 127 <= amax * (1 + 2**-9)).all()  # one FP16 step


def test_graphs_are_asked_as_they_are_written(model, table):
    """ONNX Runtime may not put INT8 kernels of its own in the place of Q/DQ."""
    options = graph_session(qdq_graph_from_graph(model, table)[0]).get_session_options()
    assert options.get_session_config_entry("session.disable_quant_qdq") == "1"


def test_the_int8_graph_stays_near_the_float_one(model, table):
    inputs = crops()
    expected = graph_session(model).run(None, {"input": inputs})
    found = graph_session(qdq_graph_from_graph(model, table)[0]).run(None, {"input": inputs})
    for f, e in zip(found, expected, strict=True):
        assert np.square(f - e).sum() / np.square(e).sum() < NOISE


def test_the_typed_graph_is_fp16_around_int8(model, table):
    from sdk.toolchain.precision import layer_precisions

    typed, placement = int8_graph_from_graph(model, table)
    precisions = layer_precisions(typed)
    assert {name for name, kind in precisions.items() if kind == "int8"} == {n.name for n in placement.int8}
    assert precisions["/stem"] == precisions["/simcc_x"] == "fp16"
    scales = [t for t in typed.graph.initializer if "_scale" in t.name]
    assert scales
    assert {t.data_type for t in scales} == {onnx.TensorProto.FLOAT16}
    found = graph_session(typed).run(None, {"input": crops()})
    expected = graph_session(qdq_graph_from_graph(model, table)[0]).run(None, {"input": crops()})
    for f, e in zip(found, expected, strict=True):
        assert np.square(f - e).sum() / np.square(e).sum() < NOISE


@pytest.mark.tensorrt
def test_the_typed_graph_compiles(model, table):
    from sdk.toolchain.compile import CompileOptions, plan_from_graph

    typed, _ = int8_graph_from_graph(model, table)
    assert len(plan_from_graph(serialized(typed), "tensorrt-rtx", CompileOptions())) > 10_000


def test_an_older_opset_is_raised(table):
    older = tiny_graph(opset=17)
    quantised, _ = qdq_graph_from_graph(older, table_for(older, crops()))
    assert [o.version for o in quantised.opset_import if o.domain == ""] == [19]


def test_only_chosen_tensors_are_quantised(model, table):
    quantised, placement = qdq_graph_from_graph(model, table, QuantizeOptions(int8_tensors=frozenset({"block"})))
    assert [node.name for node in placement.int8] == ["/depthwise"]
    assert placement.floats["/pair"] == "sensitivity: outside the accuracy budget"
    assert sum(node.op_type == "QuantizeLinear" for node in quantised.graph.node) == 1


def test_a_tensor_without_a_range_is_named(model, table):
    short = replace(table, tensors={name: t for name, t in table.tensors.items() if name != "block"})
    with pytest.raises(CalibrationError, match=r"tensor 'block' has no range \(1 missing\); calibrate again"):
        qdq_graph_from_graph(model, short)


# Bias correction: exact where each channel is constant over pixels

LAYERS = {
    "conv 3x3": ("Conv", (6, 4, 3, 3), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1]}),
    "conv 5x5 stride 2": ("Conv", (6, 4, 5, 5), {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2], "strides": [2, 2]}),
    "conv in groups": ("Conv", (6, 2, 3, 3), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "group": 2}),
    "depthwise": ("Conv", (4, 1, 3, 3), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "group": 4}),
    "transposed": ("ConvTranspose", (4, 6, 4, 4), {"kernel_shape": [4, 4], "strides": [2, 2]}),
    "matmul": ("MatMul", (4, 6), {}),
    "gemm": ("Gemm", (4, 6), {}),
    "gemm transposed": ("Gemm", (6, 4), {"transB": 1}),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_bias_correction_is_the_mean_error_of_the_output(layer):
    op, shape, attributes = LAYERS[layer]
    random = np.random.default_rng(5)
    weight, bias = random.normal(0, 1, shape).astype(np.float32), random.normal(0, 1, 6).astype(np.float32)
    error = random.normal(0, 0.01, shape).astype(np.float32)
    means = random.normal(0, 1, 4).astype(np.float32)
    b = Builder()
    data = b.conv("input", "data", 4, 4)
    inputs = np.broadcast_to(means[None, :, None, None], (1, 4, 8, 8)).astype(np.float32)
    if "Conv" not in op:
        data = b.node("GlobalAveragePool", [data], "pool")
        data = b.node("Flatten", [data], "flat")
    out = b.node(op, [data, b.constant("w", weight)], "out", **attributes)
    if op == "Conv" and shape[0] == 4:
        bias = bias[:4]
    if op == "MatMul":
        out = b.node("Add", [out, b.constant("bias", bias)], "biased")
    model = b.model([out], size=8, channels=4)
    node = next(n for n in GraphView(model).weighted() if n.name == "/out")
    data_values = values_of(model, [data], inputs)[data]
    channel_mean = data_values.mean(axis=(0, *range(2, data_values.ndim)))
    entry = TensorRange(1.0, "max", {}, {}, {}, tuple(map(float, channel_mean)))
    table = CalibrationTable(TABLE_FORMAT, "r", "", "max", DataNote("", 1, 1, 0, 0, 0.0, ""), {data: entry}, {})

    shift = bias_corrections(model, [node], table, {"/out": error})["/out"]

    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    tensor = next(t for t in moved.graph.initializer if t.name == "w")
    tensor.CopyFrom(numpy_helper.from_array(weight + error, "w"))
    before, after = (graph_session(m).run([out], {"input": inputs})[0] for m in (model, moved))
    measured = (after - before).mean(axis=(0, *range(2, after.ndim)))
    tolerance = 0.35 * np.abs(measured).max() if op == "ConvTranspose" else 1e-5  # its taps at the border are fewer
    np.testing.assert_allclose(shift, measured, atol=tolerance)


def test_bias_correction_lowers_the_mean_error(model, table):
    inputs = crops(16)
    expected = values_of(model, ["second"], inputs)["second"].mean(axis=(0, 2, 3))
    errors = []
    for correct in (False, True):
        options = QuantizeOptions(correct_bias=correct)
        found = values_of(qdq_graph_from_graph(model, table, options)[0], ["second"], inputs)["second"]
        errors.append(np.abs(found.mean(axis=(0, 2, 3)) - expected).max())
    assert errors[1] < errors[0]


# Equalisation


def test_equalisable_tensors(model):
    found = equalisable_tensors(model)
    assert found == {"depthwise.relu": "/depthwise", "pair.relu": "/pair", "gated": "/gated"}


def test_equalising_changes_no_output_and_evens_the_channels(model):
    inputs = crops()
    names = list(equalisable_tensors(model))
    peaks = {name: np.abs(v).max(axis=(0, 2, 3)) for name, v in values_of(model, names, inputs).items()}
    factors = equalising_factors(model, peaks)
    even = equalised_graph_from_graph(model, factors)
    for f, e in zip(*(graph_session(m).run(None, {"input": inputs}) for m in (even, model)), strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-3, atol=1e-4)
    evened = {name: np.abs(v).max(axis=(0, 2, 3)) for name, v in values_of(even, names, inputs).items()}
    for name in names:
        np.testing.assert_allclose(evened[name] * np.array(factors[name]), peaks[name], rtol=1e-4)
        assert np.std(np.log(evened[name][peaks[name] > 0])) <= np.std(np.log(peaks[name][peaks[name] > 0])) + 1e-6


def test_factors_stay_within_what_fp16_weights_bear(model):
    """One channel a million times the others, and one a millionth; a channel that is never active keeps 1."""
    peaks = np.ones(16, np.float32)
    peaks[3], peaks[5], peaks[7] = 1e6, 1e-6, 0.0
    factors = np.array(equalising_factors(model, {"pair.relu": peaks})["pair.relu"])
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
    peaks = np.abs(values_of(model, ["norm"], crops())["norm"]).max(axis=(0, 1))
    factors = equalising_factors(model, {"norm": peaks})
    even = equalised_graph_from_graph(model, factors)
    for f, e in zip(*(graph_session(m).run(None, {"input": crops()}) for m in (even, model)), strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-3, atol=1e-4)


def test_factors_of_another_graph_are_refused(model):
    with pytest.raises(CalibrationError, match="tensor 'block' cannot be equalised in this graph; calibrate again"):
        equalised_graph_from_graph(model, {"block": (1.0,) * 8})


def test_quantising_an_equalised_table_runs(model):
    inputs = crops()
    peaks = {n: np.abs(v).max(axis=(0, 2, 3)) for n, v in values_of(model, ["pair.relu", "gated"], inputs).items()}
    table = table_for(model, inputs, equalisation=equalising_factors(model, peaks))
    found = graph_session(qdq_graph_from_graph(model, table)[0]).run(None, {"input": inputs})
    expected = graph_session(model).run(None, {"input": inputs})
    for f, e in zip(found, expected, strict=True):
        assert np.square(f - e).sum() / np.square(e).sum() < NOISE


def test_the_recipe_of_these_tests_reads_back():
    assert tiny_recipe().bins_xy == (64, 64)

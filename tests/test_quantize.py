"""The graph with Q/DQ: residual branches, scales, weights as INT8, bias correction, and the typed graph of it."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import numpy_helper

from sdk.errors import CalibrationError
from sdk.toolchain.correction import bias_corrections
from sdk.toolchain.graphs import graph_session, producers, serialized
from sdk.toolchain.placement import GraphView, placement_of
from sdk.toolchain.quantize import (
    SMALLEST_SCALE,
    QuantizeOptions,
    int8_graph_from_graph,
    qdq_graph_from_graph,
    scale_from_range,
)
from sdk.toolchain.table import TABLE_FORMAT, CalibrationTable, DataNote, TensorRange
from tests.support.int8 import NOISE, SIZE, Builder, noise_crops, table_for, tiny_graph, tiny_recipe, values_of

pytestmark = [pytest.mark.torch, pytest.mark.native]


@pytest.fixture(scope="module")
def table(tiny_model):
    return table_for(tiny_model, noise_crops())


def test_both_inputs_of_a_residual_add_are_as_the_int8_kernel_wants_them(tiny_model, table):
    """The skip is quantised before the Add; the weighted op's own output is not."""
    quantised, placement = qdq_graph_from_graph(tiny_model, table)
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
    table = table_for(model, noise_crops())
    quantised, placement = qdq_graph_from_graph(model, table, QuantizeOptions(keep_float=patterns))
    assert placement.residuals == residuals
    carry = {node.input[0] for node in quantised.graph.node if node.op_type == "QuantizeLinear"}
    assert ("entry.relu" in carry) == ("/inner" not in patterns)
    assert graph_session(quantised).run(None, {"input": noise_crops()})[0].shape == (4, 14, 64)


@pytest.mark.parametrize("wider", ["mixed.silu", "both"])
def test_tensors_joined_by_pool_and_concat_share_the_wider_scale(tiny_model, table, wider):
    assert placement_of(tiny_model).shared == (("mixed.silu", "both"),)
    amax = 2 * max(table.tensors[name].amax for name in ("mixed.silu", "both"))
    uneven = replace(table, tensors={**table.tensors, wider: replace(table.tensors[wider], amax=amax)})
    quantised, _ = qdq_graph_from_graph(tiny_model, uneven)
    scales = {t.name: numpy_helper.to_array(t) for t in quantised.graph.initializer if t.name.endswith("_scale")}
    assert scales["mixed.silu_scale"] == scales["both_scale"] == scale_from_range(amax)


# Q/DQ


def test_nothing_is_quantised_behind_a_weighted_op_or_inside_an_activation(tiny_model, table):
    quantised, _ = qdq_graph_from_graph(tiny_model, table, QuantizeOptions(quantise_all=True))
    makers = producers(quantised)
    for node in quantised.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] != "input":
            assert makers[node.input[0]].op_type not in ("Conv", "MatMul", "Gemm", "Sigmoid")


def test_weights_are_int8_with_a_scale_a_channel(tiny_model, table):
    quantised, placement = qdq_graph_from_graph(tiny_model, table)
    constants = {t.name: numpy_helper.to_array(t) for t in quantised.graph.initializer}
    floats = {t.name: numpy_helper.to_array(t) for t in tiny_model.graph.initializer}
    for node in placement.int8:
        codes, scale = constants[f"{node.name}.weight_int8"], constants[f"{node.name}.weight_scale"]
        assert codes.dtype == np.int8
        assert codes.min() >= -127
        assert scale.shape == (codes.shape[0],)
        assert node.weight not in constants
        error = np.abs(codes * scale[:, None, None, None] - floats[node.weight])
        assert (error <= scale[:, None, None, None] / 2 * (1 + 1e-6)).all()


def test_every_zero_point_is_zero(tiny_model, table):
    quantised, _ = qdq_graph_from_graph(tiny_model, table)
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


def test_graphs_are_asked_as_they_are_written(tiny_model, table):
    """ONNX Runtime may not put INT8 kernels of its own in the place of Q/DQ."""
    options = graph_session(qdq_graph_from_graph(tiny_model, table)[0]).get_session_options()
    assert options.get_session_config_entry("session.disable_quant_qdq") == "1"


def test_the_int8_graph_stays_near_the_float_one(tiny_model, table):
    inputs = noise_crops()
    expected = graph_session(tiny_model).run(None, {"input": inputs})
    found = graph_session(qdq_graph_from_graph(tiny_model, table)[0]).run(None, {"input": inputs})
    for f, e in zip(found, expected, strict=True):
        assert np.square(f - e).sum() / np.square(e).sum() < NOISE


def test_the_typed_graph_is_fp16_around_int8(tiny_model, table):
    from sdk.toolchain.precision import layer_precisions

    typed, placement = int8_graph_from_graph(tiny_model, table)
    precisions = layer_precisions(typed)
    assert {name for name, kind in precisions.items() if kind == "int8"} == {n.name for n in placement.int8}
    assert precisions["/stem"] == precisions["/simcc_x"] == "fp16"
    scales = [t for t in typed.graph.initializer if "_scale" in t.name]
    assert scales
    assert {t.data_type for t in scales} == {onnx.TensorProto.FLOAT16}
    found = graph_session(typed).run(None, {"input": noise_crops()})
    expected = graph_session(qdq_graph_from_graph(tiny_model, table)[0]).run(None, {"input": noise_crops()})
    for f, e in zip(found, expected, strict=True):
        assert np.square(f - e).sum() / np.square(e).sum() < NOISE


@pytest.mark.tensorrt
def test_the_typed_graph_compiles(tiny_model, table):
    from sdk.toolchain.compile import CompileOptions, plan_from_graph

    typed, _ = int8_graph_from_graph(tiny_model, table)
    assert len(plan_from_graph(serialized(typed), "tensorrt-rtx", CompileOptions())) > 10_000


def test_an_older_opset_is_raised(table):
    older = tiny_graph(opset=17)
    quantised, _ = qdq_graph_from_graph(older, table_for(older, noise_crops()))
    assert [o.version for o in quantised.opset_import if o.domain == ""] == [19]


def test_only_chosen_tensors_are_quantised(tiny_model, table):
    quantised, placement = qdq_graph_from_graph(tiny_model, table, QuantizeOptions(int8_tensors=frozenset({"block"})))
    assert [node.name for node in placement.int8] == ["/depthwise"]
    assert placement.floats["/pair"] == "sensitivity: outside the accuracy budget"
    assert sum(node.op_type == "QuantizeLinear" for node in quantised.graph.node) == 1


def test_a_tensor_without_a_range_is_named(tiny_model, table):
    short = replace(table, tensors={name: t for name, t in table.tensors.items() if name != "block"})
    with pytest.raises(CalibrationError, match=r"tensor 'block' has no range \(1 missing\); calibrate again"):
        qdq_graph_from_graph(tiny_model, short)


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


def test_bias_correction_lowers_the_mean_error(tiny_model, table):
    inputs = noise_crops(16)
    expected = values_of(tiny_model, ["second"], inputs)["second"].mean(axis=(0, 2, 3))
    errors = []
    for correct in (False, True):
        options = QuantizeOptions(correct_bias=correct)
        found = values_of(qdq_graph_from_graph(tiny_model, table, options)[0], ["second"], inputs)["second"]
        errors.append(np.abs(found.mean(axis=(0, 2, 3)) - expected).max())
    assert errors[1] < errors[0]


def test_the_recipe_of_these_tests_reads_back():
    assert tiny_recipe().bins_xy == (64, 64)

"""FP32 matrix products written for Turing: the same numbers, none left that TensorRT-RTX does not build; it builds."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper, numpy_helper

from sdk import trt
from sdk.errors import GraphError
from sdk.toolchain.graphs import graph_session, serialized
from sdk.toolchain.precision import element_types, fp16_graph_from_graph
from sdk.toolchain.turing import MOST_PRODUCTS, turing_graph_from_graph

RTX = "tensorrt-rtx"
needs_rtx = pytest.mark.skipif(trt.flavour(RTX).problem is not None, reason="needs tensorrt-rtx: it compiles anywhere")
PRODUCTS = {"MatMul", "Gemm", "Einsum"}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def graph(inputs, nodes, stored, opset=19):
    """A model of these nodes; `inputs`: name -> shape with 'N' for the batch. The last node's output is the graph's."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    out = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    weights = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    made = helper.make_graph(nodes, "products", values, [out], weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 9
    return onnx.shape_inference.infer_shapes(model)


def product(op, left, right, *more, **attributes):
    return [helper.make_node(op, [left, right, *more], ["y"], name="product", **attributes)]


W = noise(32, 48)
CASES = {  # name -> (inputs, nodes, stored)
    "rows": ({"x": ("N", 32)}, product("MatMul", "x", "w"), {"w": W}),
    "tokens": ({"x": ("N", 17, 32)}, product("MatMul", "x", "w"), {"w": W}),
    "heads of tokens": ({"x": ("N", 4, 17, 32)}, product("MatMul", "x", "w"), {"w": W}),
    "one feature out": ({"x": ("N", 5, 32)}, product("MatMul", "x", "w"), {"w": W[:, :1].copy()}),
    "gemm": ({"x": ("N", 32)}, product("Gemm", "x", "w"), {"w": W}),
    "gemm, turned, scaled, a bias": (
        {"x": ("N", 32)},
        product("Gemm", "x", "w", "b", transB=1, alpha=0.5, beta=2.0),
        {"w": W.T.copy(), "b": noise(48, seed=1)},
    ),
    "gemm, one bias for all": ({"x": ("N", 32)}, product("Gemm", "x", "w", "b"), {"w": W, "b": noise(1, seed=1)}),
    "gemm, a bias of one row": ({"x": ("N", 32)}, product("Gemm", "x", "w", "b"), {"w": W, "b": noise(1, 48, seed=1)}),
    "attention": ({"x": ("N", 17, 32), "z": ("N", 32, 9)}, product("MatMul", "x", "z"), {}),
    "attention of heads": ({"x": ("N", 4, 17, 8), "z": ("N", 4, 8, 17)}, product("MatMul", "x", "z"), {}),
    "a stored left side": ({"z": ("N", 32, 9)}, product("MatMul", "w", "z"), {"w": noise(1, 17, 32)}),
}


def feed_of(inputs, count=3):
    shapes = {name: [count if size == "N" else size for size in shape] for name, shape in inputs.items()}
    return {name: noise(*shape, seed=index + 2) for index, (name, shape) in enumerate(shapes.items())}


def products_in_fp32(model):
    types = element_types(model)
    return [n.name for n in model.graph.node if n.op_type in PRODUCTS and types[n.input[0]] == TensorProto.FLOAT]


@pytest.mark.parametrize(("inputs", "nodes", "stored"), CASES.values(), ids=CASES)
def test_the_numbers_are_the_products(inputs, nodes, stored):
    """Both add 32 numbers in float32, in whatever order: they differ by the rounding of such a sum at most."""
    model = graph(inputs, nodes, stored)
    written = turing_graph_from_graph(model)
    onnx.checker.check_model(written, full_check=True)
    feed = feed_of(inputs)
    (expected,), (found,) = (graph_session(each).run(None, feed) for each in (model, written))
    sizes = graph({**inputs}, nodes, {name: np.abs(array) for name, array in stored.items()})
    (size,) = graph_session(sizes).run(None, {name: np.abs(array) for name, array in feed.items()})
    assert found.shape == expected.shape and not products_in_fp32(written) and products_in_fp32(model)
    assert (np.abs(found - expected) <= 33 * np.finfo(np.float32).eps * size).all()


@needs_rtx
@pytest.mark.parametrize("case", ["heads of tokens", "gemm, turned, scaled, a bias", "attention"])
def test_they_build_for_turing(case):
    inputs, nodes, stored = CASES[case]
    shapes = {n: tuple(tuple(b if s == "N" else s for s in shape) for b in (1, 2, 4)) for n, shape in inputs.items()}
    settings = trt.BuildSettings(shapes, compute_capabilities=("7.5", "8.6"))
    written = turing_graph_from_graph(graph(inputs, nodes, stored))
    assert trt.build_plan(RTX, serialized(written), settings).plan


def test_products_in_fp16_and_the_given_graph_stay_as_they_are():
    inputs, nodes, stored = CASES["tokens"]
    half = fp16_graph_from_graph(graph(inputs, nodes, stored))
    before = serialized(half)
    assert [n.op_type for n in turing_graph_from_graph(half).graph.node] == [n.op_type for n in half.graph.node]
    assert serialized(half) == before


def test_weights_that_another_node_takes_stay():
    both = [*product("MatMul", "x", "w"), helper.make_node("MatMul", ["y", "w"], ["z"], name="again")]
    both += [
        helper.make_node("ReduceSum", ["w"], ["total"], name="total"),
        helper.make_node("Add", ["z", "total"], ["a"]),
    ]
    model = graph({"x": ("N", 4, 8)}, both, {"w": noise(8, 8)})
    feed = feed_of({"x": ("N", 4, 8)})
    (expected,), (found,) = (graph_session(each).run(None, feed) for each in (model, turing_graph_from_graph(model)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


LONG = MOST_PRODUCTS // 1000 + 1
REFUSED = {
    "too many": (
        ({"x": ("N", 100, LONG), "z": ("N", LONG, 10)}, product("MatMul", "x", "z"), {}), 19, "10.0 million numbers",
    ),
    "unknown many": (
        ({"x": ("N", "T", 8), "z": ("N", 8, 9)}, product("MatMul", "x", "z"), {}), 19, "an unknown number",
    ),
    "einsum": (
        ({"x": ("N", 4, 8), "z": ("N", 8, 4)}, product("Einsum", "x", "z", equation="nij,njk->nik"), {}),
        19, r"'product' \(Einsum\) is not a plain product",
    ),
    "gemm of a row's own bias": (
        ({"x": (4, 32)}, product("Gemm", "x", "w", "b"), {"w": W, "b": noise(4, 1)}), 19, "another bias to each row",
    ),
    "gemm of activations": (({"x": (4, 8), "z": (8, 4)}, product("Gemm", "x", "z"), {}), 19, "no stored right side"),
    "an old opset": (CASES["tokens"], 11, "opset 11, below 13"),
}  # fmt: skip


@pytest.mark.parametrize(("case", "opset", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_written_otherwise_is_refused_in_words(case, opset, message):
    with pytest.raises(GraphError, match=f"(?s){message}.*--precision fp16, leave 7.5 out, or use --compiler tensorrt"):
        turing_graph_from_graph(graph(*case, opset=opset))

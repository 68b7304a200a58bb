"""Typed FP16 graphs: what becomes FP16, what stays FP32, and that a network made to overflow comes through."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch
pytest.importorskip("onnx")


from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from sdk.errors import GraphError, InputError  # noqa: E402
from sdk.toolchain.comparison import keypoint_distance  # noqa: E402
from sdk.toolchain.graphs import graph_session, name_nodes  # noqa: E402
from sdk.toolchain.islands import find_islands  # noqa: E402
from sdk.toolchain.precision import (  # noqa: E402
    fp16_graph_from_graph,
    layer_precisions,
    stored_graph_from_graph,
    with_constants_named,
)
from sdk.toolchain.turing import turing_graph_from_graph  # noqa: E402

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
WIDTH = 48


def graph(nodes, constants=(), *, outputs=("y",), shape=("batch", 17, WIDTH)):
    """A float graph x -> outputs of nodes (op, inputs, outputs[, attributes])."""
    made = [helper.make_node(op, list(i), list(o), **(rest[0] if rest else {})) for op, i, o, *rest in nodes]
    model = helper.make_model(
        helper.make_graph(
            made,
            "g",
            [helper.make_tensor_value_info("x", FLOAT, shape)],
            [helper.make_tensor_value_info(name, FLOAT, [None] * len(shape)) for name in outputs],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
        ),
        opset_imports=[helper.make_opsetid("", 19)],
        ir_version=9,
    )
    name_nodes(model)
    return model


AXES = ("axes", np.array([-1], np.int64))
TWO = ("two", np.float32(2))
WEIGHT = ("w", np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32))
MEAN = {"axes": [-1]}

# name: (nodes, constants, ops that must stay FP32, ops that must not)
ISLANDS = {
    "ScaleNorm by ReduceL2": (
        [
            ("MatMul", ("x", "w"), ("a",)),
            ("ReduceL2", ("a", "axes"), ("n",)),
            ("Clip", ("n", "eps"), ("c",)),
            ("Div", ("a", "c"), ("d",)),
            ("Relu", ("d",), ("y",)),
        ],
        [WEIGHT, AXES, ("eps", np.float32(1e-5))],
        {"ReduceL2", "Clip", "Div"},
        {"MatMul", "Relu"},
    ),
    "RMSNorm by Pow, mean, root and reciprocal": (
        [
            ("Pow", ("x", "two"), ("s",)),
            ("ReduceMean", ("s", "axes"), ("m",)),
            ("Add", ("m", "eps"), ("e",)),
            ("Sqrt", ("e",), ("r",)),
            ("Reciprocal", ("r",), ("i",)),
            ("Mul", ("x", "i"), ("n",)),
            ("Tanh", ("n",), ("y",)),
        ],
        [TWO, AXES, ("eps", np.float32(1e-6))],
        {"Pow", "ReduceMean", "Add", "Sqrt", "Reciprocal", "Mul"},
        {"Tanh"},
    ),
    "LayerNorm taken apart": (
        [
            ("ReduceMean", ("x", "axes"), ("m",)),
            ("Sub", ("x", "m"), ("d",)),
            ("Mul", ("d", "d"), ("s",)),
            ("ReduceMean", ("s", "axes"), ("v",)),
            ("Sqrt", ("v",), ("r",)),
            ("Div", ("d", "r"), ("n",)),
            ("Relu", ("n",), ("y",)),
        ],
        [AXES],
        {"Mul", "Sqrt", "Div"},
        {"Sub", "Relu"},
    ),
    "squared attention, up to the output": (
        [
            ("MatMul", ("x", "w"), ("k",)),
            ("Transpose", ("k",), ("t",), {"perm": [0, 2, 1]}),
            ("MatMul", ("x", "t"), ("qk",)),
            ("Div", ("qk", "two"), ("l",)),
            ("Relu", ("l",), ("r",)),
            ("Mul", ("r", "r"), ("s",)),
            ("MatMul", ("s", "x"), ("y",)),
        ],
        [WEIGHT, TWO],
        {"Div", "Relu", "Mul"},
        {"Transpose"},
    ),
    "a cube, up to the tanh": (
        [("Pow", ("x", "three"), ("c",)), ("Add", ("c", "x"), ("a",)), ("Tanh", ("a",), ("y",))],
        [("three", np.float32(3))],
        {"Pow", "Add"},
        {"Tanh"},
    ),
    "a cube of an INT8 linear layer, which stays INT8": (
        [
            ("DequantizeLinear", ("w8", "fine", "zero"), ("w",)),
            ("QuantizeLinear", ("x", "scale", "zero"), ("q",)),
            ("DequantizeLinear", ("q", "scale", "zero"), ("d",)),
            ("MatMul", ("d", "w"), ("m",)),
            ("Pow", ("m", "three"), ("c",)),
            ("Tanh", ("c",), ("y",)),
        ],
        [
            ("w8", np.random.default_rng(0).integers(-127, 128, (WIDTH, WIDTH)).astype(np.int8)),
            ("scale", np.float32(2**-5)),
            ("fine", np.float32(2**-12)),
            ("zero", np.int8(0)),
            ("three", np.float32(3)),
        ],
        {"Pow"},
        {"MatMul", "DequantizeLinear"},
    ),
    "log-sum-exp": (
        [("ReduceLogSumExp", ("x", "axes"), ("l",), {"keepdims": 1}), ("Relu", ("l",), ("y",))],
        [AXES],
        {"ReduceLogSumExp"},
        {"Relu"},
    ),
    "a softmax taken apart": (
        [
            ("Exp", ("x",), ("e",)),
            ("ReduceSum", ("e", "axes"), ("s",)),
            ("Div", ("e", "s"), ("d",)),
            ("Relu", ("d",), ("y",)),
        ],
        [AXES],
        {"Exp", "ReduceSum", "Div"},
        {"Relu"},
    ),
    "a constant beyond FP16": (
        [("Add", ("x", "huge"), ("a",)), ("Relu", ("a",), ("y",))],
        [("huge", np.float32(1e6))],
        {"Add"},
        {"Relu"},
    ),
    "a constant below FP16": (
        [("Add", ("x", "tiny"), ("a",)), ("Relu", ("a",), ("y",))],
        [("tiny", np.float32(1e-9))],
        {"Add"},
        {"Relu"},
    ),
    "nothing": ([("MatMul", ("x", "w"), ("a",)), ("Relu", ("a",), ("y",))], [WEIGHT], set(), {"MatMul", "Relu"}),
}


@pytest.mark.parametrize("renamed", [False, True], ids=["own names", "names without meaning"])
@pytest.mark.parametrize("case", ISLANDS.values(), ids=ISLANDS)
def test_islands_are_found_by_pattern(case, renamed):
    nodes, constants, inside, outside = case
    model = graph(nodes, constants)
    for index, node in enumerate(model.graph.node if renamed else ()):
        node.name = f"n{index}"
    found = find_islands(model)
    ops = {node.name: node.op_type for node in model.graph.node}
    assert inside <= {ops[name] for name in found}
    assert not outside & ({ops[name] for name in found} - inside)


@pytest.mark.parametrize("case", ISLANDS.values(), ids=ISLANDS)
def test_fp16_graphs_run_and_keep_their_types(case):
    nodes, constants, inside, _ = case
    model = graph(nodes, constants)
    typed = fp16_graph_from_graph(model)
    assert [v.type.tensor_type.elem_type for v in (*typed.graph.input, *typed.graph.output)] == [FLOAT, FLOAT]
    kinds = {node.op_type for node in typed.graph.node if layer_precisions(typed)[node.name] == "fp32"}
    assert kinds >= inside
    x = np.random.default_rng(1).standard_normal((2, 17, WIDTH)).astype(np.float32)
    expected, found = (graph_session(m).run(None, {"x": x})[0] for m in (model, typed))
    assert np.abs(found - expected).max() <= 2e-3 * max(1.0, np.abs(expected).max())


def test_weights_are_stored_in_fp16_once_for_each_type_that_needs_them():
    model = graph(
        [
            ("MatMul", ("x", "w"), ("a",)),
            ("Pow", ("a", "three"), ("p",)),
            ("MatMul", ("p", "w"), ("y",)),
        ],
        [WEIGHT, ("three", np.float32(3))],
    )
    typed = fp16_graph_from_graph(model)
    stored = {tensor.name: tensor.data_type for tensor in typed.graph.initializer}
    assert stored == {"w_fp16": HALF, "w": FLOAT, "three": FLOAT}


def test_an_output_that_is_used_inside_as_well_is_cast_only_for_the_caller():
    model = graph([("Relu", ("x",), ("y",)), ("Sigmoid", ("y",), ("z",))], outputs=("y", "z"))
    typed = fp16_graph_from_graph(model)
    sigmoid = next(node for node in typed.graph.node if node.op_type == "Sigmoid")
    assert sigmoid.input[0] == "y_fp16"
    x = np.random.default_rng(1).standard_normal((2, 17, WIDTH)).astype(np.float32)
    assert [array.dtype for array in graph_session(typed).run(None, {"x": x})] == [np.float32, np.float32]


def test_inputs_that_must_be_float32_stay_so():
    nodes = [("Resize", ("x", "", "scales"), ("r",), {"mode": "nearest"}), ("Relu", ("r",), ("y",))]
    model = graph(nodes, [("scales", np.array([1, 1, 2, 2], np.float32))], shape=("batch", 3, 8, 8))
    typed = fp16_graph_from_graph(model)
    assert {t.name: t.data_type for t in typed.graph.initializer} == {"scales": FLOAT}
    assert set(layer_precisions(typed).values()) == {"fp16", "other"}


def test_q_and_dq_take_fp16_scales():
    constants = [("s", np.float32(0.1)), ("z", np.int8(0)), WEIGHT]
    nodes = [
        ("QuantizeLinear", ("x", "s", "z"), ("q",)),
        ("DequantizeLinear", ("q", "s", "z"), ("d",)),
        ("MatMul", ("d", "w"), ("y",)),
    ]
    typed = fp16_graph_from_graph(graph(nodes, constants))
    assert {t.data_type for t in typed.graph.initializer if t.name.startswith("s")} == {HALF}
    assert layer_precisions(typed)[typed.graph.node[-2].name] == "int8"


def test_patterns_keep_nodes_in_fp32():
    model = graph([("MatMul", ("x", "w"), ("a",)), ("Relu", ("a",), ("y",))], [WEIGHT])
    name = model.graph.node[0].name
    typed = fp16_graph_from_graph(model, keep_fp32=["*MatMul*"])
    assert layer_precisions(typed)[name] == "fp32"
    assert layer_precisions(fp16_graph_from_graph(model, keep_fp32=["/MatMul_?"]))[name] == "fp32"
    for pattern in ("*/nowhere", "*matmul*"):
        with pytest.raises(InputError, match="' matches no node of the graph; names are like /MatMul_0"):
            fp16_graph_from_graph(model, keep_fp32=[pattern])


def test_branches_are_refused():
    then = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["t"])], "t", [], [helper.make_tensor_value_info("t", FLOAT, None)]
    )
    model = graph([("If", ("c",), ("y",), {"then_branch": then, "else_branch": then})], [("c", np.array(True))])
    with pytest.raises(GraphError, match="holds a subgraph"):
        with_constants_named(model)


OVERFLOWS = {
    "a square and its root": ([("Mul", ("x", "x"), ("s",)), ("Sqrt", ("s",), ("y",))], 300, 300),
    "the norm of 48 features of 40": ([("ReduceL2", ("x", "axes"), ("y",))], 40, 40 * WIDTH**0.5),
    "log-sum-exp of 48 times 20": ([("ReduceLogSumExp", ("x", "axes"), ("y",))], 20, 20 + np.log(WIDTH)),
}


@pytest.mark.parametrize(("nodes", "value", "expected"), OVERFLOWS.values(), ids=OVERFLOWS)
def test_rounding_shows_what_fp16_storage_overflows(nodes, value, expected):
    model = graph(nodes, [AXES])
    x = np.full((1, 17, WIDTH), value, np.float32)
    with_islands, without = (
        graph_session(stored_graph_from_graph(fp16_graph_from_graph(model, islands=islands))).run(None, {"x": x})[0]
        for islands in (True, False)
    )
    assert np.allclose(with_islands, expected)
    assert np.isinf(without).all()


@pytest.fixture(scope="module")
def stress():
    """(recipe, network, its float graph, crops N x 3 x h x w)."""
    torch = pytest.importorskip("torch")
    from sdk.recipe import recipe_by_name
    from sdk.toolchain.export import graph_from_network
    from tests.support.stress import stress_network

    torch.set_num_threads(1)
    recipe = recipe_by_name("rtmpose-t-256x192")
    network = stress_network(recipe)
    crops = np.random.default_rng(1).standard_normal((8, 3, *recipe.input.size_hw)).astype(np.float32)
    return recipe, network, graph_from_network(network, recipe), crops


def distance_in_fp16(stress, *, islands):
    """Mean keypoint distance in px between FP32 and FP16 as memory stores it; infinite when an output is not finite."""
    recipe, _, model, crops = stress
    typed = fp16_graph_from_graph(model, islands=islands)
    exact = graph_session(model).run(None, {"input": crops})
    stored = graph_session(stored_graph_from_graph(typed)).run(None, {"input": crops})
    if not all(np.isfinite(array).all() for array in stored):
        return np.inf
    return keypoint_distance(stored, exact, recipe)


def test_the_stress_network_is_one(stress):
    from tests.support.stress import stress_of

    _, network, _, crops = stress
    rms, logit = stress_of(network, crops)
    assert rms > 64
    assert logit > 300


def test_the_stress_network_comes_through_fp16(stress):
    assert distance_in_fp16(stress, islands=True) <= 0.1


def test_the_stress_network_comes_through_fp16_as_it_is_written_for_turing(stress):
    """Its islands are attention and norms in FP32: the same sums in another order."""
    recipe, _, model, crops = stress
    typed = fp16_graph_from_graph(model)
    given, written = (graph_session(m).run(None, {"input": crops}) for m in (typed, turing_graph_from_graph(typed)))
    assert keypoint_distance(written, given, recipe) <= 1e-3
    for found, expected in zip(written, given, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_without_islands_the_stress_network_does_not(stress):
    assert distance_in_fp16(stress, islands=False) > 10


def test_the_cpu_session_runs_the_stress_network_in_fp16(stress):
    recipe, _, model, crops = stress
    exact, typed = (graph_session(m).run(None, {"input": crops}) for m in (model, fp16_graph_from_graph(model)))
    assert all(np.isfinite(array).all() for array in typed)
    assert keypoint_distance(typed, exact, recipe) <= 0.1


@pytest.mark.tensorrt
def test_the_stress_network_compiles(stress):
    from sdk import trt

    if trt.flavour("tensorrt-rtx").problem:
        pytest.skip("needs tensorrt-rtx, which compiles without a device")
    recipe, _, model, _ = stress
    shapes = {"input": tuple((n, 3, *recipe.input.size_hw) for n in (1, 4, 16))}
    typed = fp16_graph_from_graph(model)
    assert trt.build_plan("tensorrt-rtx", typed.SerializeToString(), trt.BuildSettings(shapes)).plan


def test_most_of_a_real_network_is_fp16():
    pytest.importorskip("torch")
    from sdk.networks import network_from_recipe, random_weights
    from sdk.recipe import recipe_by_name
    from sdk.toolchain.export import graph_from_network

    recipe = recipe_by_name("rtmpose-t-256x192")
    network = network_from_recipe(recipe)
    random_weights(network, 0)
    typed = fp16_graph_from_graph(graph_from_network(network, recipe))
    precisions = layer_precisions(typed)
    fp32 = [name for name, kind in precisions.items() if kind == "fp32"]
    assert all(name.startswith("/head/") for name in fp32)
    assert sum(kind == "fp16" for kind in precisions.values()) > 5 * len(fp32)
    convolutions = [node.name for node in typed.graph.node if node.op_type == "Conv"]
    assert {precisions[name] for name in convolutions} == {"fp16"}

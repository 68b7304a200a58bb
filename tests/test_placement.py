"""Where Q/DQ goes: what stays float and why, residual branches, scales that are shared, patterns."""

import numpy as np
import pytest

pytest.importorskip("onnx")

from sdk.errors import InputError
from sdk.toolchain.placement import PROTECTED, GraphView, PlacementOptions, placement_of
from tests.support.int8 import SIZE, Builder

pytestmark = [pytest.mark.torch, pytest.mark.native]


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
def test_protected_nodes_stay_float_with_their_reason(tiny_model, node, reason):
    assert placement_of(tiny_model).floats[node] == reason


def test_everything_else_is_int8(tiny_model):
    names = [node.name for node in placement_of(tiny_model).int8]
    assert names == ["/first", "/second", "/depthwise", "/pair", "/after", "/mixed", "/side", "/joined"]


def test_quantise_all_protects_nothing(tiny_model):
    placement = placement_of(tiny_model, PlacementOptions(quantise_all=True))
    assert placement.floats == {}
    assert placement.int8_share == 1.0


def test_int8_share_counts_multiply_accumulates(tiny_model):
    placement = placement_of(tiny_model)
    macs = {node.name: node.macs for node in GraphView(tiny_model).weighted()}
    assert macs["/stem"] == 16 * 16 * 8 * 3 * 9
    assert macs["/depthwise"] == 16 * 16 * 8 * 9
    assert macs["/simcc_x"] == 14 * 256 * 64
    assert placement.int8_share == sum(macs[n.name] for n in placement.int8) / sum(macs.values())


def test_residual_branches_are_the_ones_that_are_no_weighted_output(tiny_model):
    assert placement_of(tiny_model).residuals == (("/sum", "stem.relu"), ("/merge", "joined.silu"))


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
def test_keep_float_patterns(tiny_model, patterns, kept):
    placement = placement_of(tiny_model, PlacementOptions(keep_float=patterns))
    assert kept <= set(placement.floats)
    assert kept.isdisjoint(node.name for node in placement.int8)


def test_a_pattern_that_matches_nothing_is_refused(tiny_model):
    with pytest.raises(
        InputError, match=r"'/nothing\*' matches no convolution or matrix product; names are like /stem"
    ):
        placement_of(tiny_model, PlacementOptions(keep_float=("/nothing*",)))


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

"""Which layers of a detector keep a higher precision: its tail in any typed graph, some others in INT8.

The tail makes boxes and scores of the last convolutions' numbers. It stays FP32: of 640 pixels, FP16 has steps of half
a one. It takes in a convolution that only means a distribution (DFL), whose weights are 0 to 15.

    tail, heads = tail_of(model)               # names of nodes
    kept = float_in_int8(model)                # the heads, the stem, and what is depthwise
"""

from __future__ import annotations

import onnx

from sdk.toolchain.graphs import attribute_of, initializers, producers

__all__ = ["float_in_int8", "tail_of"]

WEIGHTED = {"Conv", "ConvTranspose", "MatMul", "Gemm"}
MOVES = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice", "Identity"}
SCALES = {"Mul", "Div", "Add", "Sub"}  # by constants, as a graph with its normalisation inside


def tail_of(model: onnx.ModelProto) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(nodes behind the last weighted ones, those weighted ones) of a graph with named nodes."""
    weights, makers = initializers(model), producers(model)
    tail: dict[str, None] = {}
    heads: dict[str, None] = {}
    waiting = [output.name for output in model.graph.output]
    seen = set(waiting)
    while waiting:
        node = makers.get(waiting.pop())
        if node is None:
            continue
        weighted = node.op_type in WEIGHTED and node.input[1] in weights
        if weighted and not _takes_shares(node, makers):
            heads[node.name] = None
            continue
        tail[node.name] = None
        fresh = [name for name in node.input if name and name not in seen]
        seen.update(fresh)
        waiting.extend(fresh)
    return tuple(tail), tuple(heads)


def float_in_int8(model: onnx.ModelProto) -> tuple[str, ...]:
    """The last convolutions, the first, and the depthwise ones.

    Depthwise convolutions are 4 to 7 % of the nano detectors' work, and one scale for all their channels is most of
    what INT8 costs: with them RTMDet-nano found 18 of 28 persons and YOLOX-nano 1, without them 28 and 24.
    """
    _, heads = tail_of(model)
    depthwise = [
        node.name for node in model.graph.node if node.op_type == "Conv" and attribute_of(node, "group", 1) > 1
    ]
    return tuple(dict.fromkeys((*heads, *_stem(model), *depthwise)))


def _stem(model: onnx.ModelProto) -> list[str]:
    """Weighted nodes that see nothing but the picture, moved or scaled at most."""
    weights, plain = initializers(model), {value.name for value in model.graph.input}
    stem = []
    for node in model.graph.node:
        if node.op_type in MOVES | SCALES and all(name in plain for name in node.input if name and name not in weights):
            plain.update(node.output)
        elif node.op_type in WEIGHTED and node.input[0] in plain:
            stem.append(node.name)
    return stem


def _takes_shares(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> bool:
    """Whether what a weighted node takes has just passed a softmax: it is a mean, no layer of the network."""
    maker = makers.get(node.input[0])
    while maker is not None and maker.op_type in MOVES:
        maker = makers.get(maker.input[0])
    return maker is not None and maker.op_type == "Softmax"

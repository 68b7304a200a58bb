"""Where Q/DQ go in a float graph, and where not: TensorRT's rules of explicit quantisation, for pose networks.

Quantised: the data input of a convolution or matrix product with constant weights, and the residual branch into an Add.
Float: what `PROTECTED` names, matrix products of two activations, and what the caller keeps. Nothing is put on a
weighted op's output, nor between it and its activation. Tensors joined by Concat, MaxPool, Resize or reshaping share
one scale, so that TensorRT carries INT8 through. Reads a graph, changes nothing (`sdk.toolchain.quantize` does).

    placement = placement_of(model, PlacementOptions(keep_float=("*/fpn/*",)))
    placement.int8_share          # 0.93 of the multiply-accumulates
    placement.floats["cls_x"]     # "protected: SimCC classifier"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx

from sdk.errors import GraphError
from sdk.toolchain.graphs import attribute_of, constants, consumers, names_matching, producers

__all__ = ["PROTECTED", "GraphView", "Placement", "PlacementOptions", "WeightedNode", "placement_of"]

PROTECTED = {
    "stem": "protected: stem",
    "classifier": "protected: SimCC classifier",
    "last_conv": "protected: last convolution before the head",
    "gated": "protected: gated attention unit and its norms",
    "pooled": "one pixel a channel: nothing to gain",
}
_WEIGHTED = {"Conv": 1, "ConvTranspose": 1, "MatMul": 1, "Gemm": 1}  # operator -> index of the weight input
_POINTWISE = {"Relu", "Sigmoid", "Mul", "HardSigmoid", "HardSwish", "Clip", "Gelu", "Erf", "LeakyRelu", "Cast"}
_CARRIES_SCALE = {"Concat", "MaxPool", "Resize", "Reshape", "Transpose", "Slice", "Split", "Squeeze", "Unsqueeze"}
_CARRIES_SCALE |= {"Flatten", "Identity", "Pad", "Gather", "Expand", "DepthToSpace"}


@dataclass(frozen=True)
class PlacementOptions:
    """`keep_float`: shell patterns of node names. `quantise_all` lifts every protection, for study."""

    keep_float: tuple[str, ...] = ()
    quantise_all: bool = False
    int8_tensors: frozenset[str] | None = None  # only nodes that read one of these; None: no such limit


@dataclass(frozen=True)
class WeightedNode:
    """A convolution or matrix product with constant weights. `axis`: the weight's output channels, None: per tensor."""

    name: str
    op: str
    data: str
    weight: str
    output: str
    axis: int | None
    macs: int  # multiply-accumulates for one crop


@dataclass(frozen=True)
class Placement:
    """The INT8 nodes, the float ones with the reason, the residual inputs, and the tensors that share a scale."""

    int8: tuple[WeightedNode, ...]
    floats: Mapping[str, str]  # node -> reason
    residuals: tuple[tuple[str, str], ...]  # (Add node, tensor)
    shared: tuple[tuple[str, ...], ...]
    macs: int
    int8_macs: int

    @property
    def tensors(self) -> tuple[str, ...]:
        """Activation tensors that carry Q/DQ, each once, in the order of the graph."""
        return tuple(dict.fromkeys([*(node.data for node in self.int8), *(tensor for _, tensor in self.residuals)]))

    @property
    def int8_share(self) -> float:
        return self.int8_macs / self.macs if self.macs else 0.0


@dataclass
class GraphView:
    """A graph's lookups: constants, producers, consumers, shapes for one crop."""

    model: onnx.ModelProto
    constants: dict[str, onnx.TensorProto] = field(init=False)
    producer: dict[str, onnx.NodeProto] = field(init=False)
    consumers: dict[str, list[onnx.NodeProto]] = field(init=False)
    order: dict[str, int] = field(init=False)  # tensor -> position of its producer
    _shapes: dict[str, tuple[int, ...]] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.constants = constants(self.model)
        self.producer, self.consumers = producers(self.model), consumers(self.model)
        self.order = {name: at for at, node in enumerate(self.model.graph.node) for name in node.output}

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        return list(self.model.graph.node)

    @property
    def data_inputs(self) -> set[str]:
        return {value.name for value in self.model.graph.input} - set(self.constants)

    @property
    def outputs(self) -> set[str]:
        return {value.name for value in self.model.graph.output}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of every tensor for a batch of one."""
        if self._shapes is None:
            self._shapes = _shapes_for_one_crop(self.model)
        return self._shapes

    def weighted(self) -> Iterator[WeightedNode]:
        """Every convolution and matrix product with constant weights, in the order of the graph."""
        for node in self.nodes:
            if node.op_type in _WEIGHTED and node.input[1] in self.constants and node.input[0] not in self.constants:
                yield self._weighted(node)

    def _weighted(self, node: onnx.NodeProto) -> WeightedNode:
        weight = self.constants[node.input[1]]
        dims, groups = list(weight.dims), attribute_of(node, "group", 1)
        output, data = node.output[0], node.input[0]
        pixels = int(np.prod(self.shapes[data if node.op_type == "ConvTranspose" else output][2:]))
        rows = pixels if "Conv" in node.op_type else int(np.prod(self.shapes[data][:-1]))
        return WeightedNode(
            name=name_of(node),
            op=node.op_type,
            data=data,
            weight=node.input[1],
            output=output,
            axis=_weight_axis(node, dims, groups),
            macs=rows * int(np.prod(dims)),
        )


def name_of(node: onnx.NodeProto) -> str:
    """A node's name, or its first output where it has none."""
    return str(node.name or node.output[0])


def placement_of(model: onnx.ModelProto, options: PlacementOptions | None = None) -> Placement:
    """The placement for a float graph. InputError where a pattern matches no node."""
    options = options or PlacementOptions()
    view = GraphView(model)
    weighted = list(view.weighted())
    floats = _kept_by_pattern(weighted, options.keep_float)
    if not options.quantise_all:
        floats = {**_protected(view, weighted), **floats}
    if options.int8_tensors is not None:
        rest = (n for n in weighted if n.name not in floats and n.data not in options.int8_tensors)
        floats |= {node.name: "sensitivity: outside the accuracy budget" for node in rest}
    int8 = tuple(node for node in weighted if node.name not in floats)
    residuals = tuple(_residuals(view, weighted, int8))
    if options.int8_tensors is not None:
        residuals = tuple(pair for pair in residuals if pair[1] in options.int8_tensors)
    tensors = {node.data for node in int8} | {tensor for _, tensor in residuals}
    products = {name_of(n): m for n, m in _products_of_activations(view)}
    return Placement(
        int8=int8,
        floats=floats | dict.fromkeys(products, "both factors are activations"),
        residuals=residuals,
        shared=_sharing(view, tensors),
        macs=sum(node.macs for node in weighted) + sum(products.values()),
        int8_macs=sum(node.macs for node in int8),
    )


def _kept_by_pattern(weighted: list[WeightedNode], patterns: tuple[str, ...]) -> dict[str, str]:
    kept: dict[str, str] = {}
    for pattern in patterns:
        matches = names_matching(pattern, [node.name for node in weighted], "convolution or matrix product")
        kept |= dict.fromkeys(matches, f"kept float by the pattern '{pattern}'")
    return kept


def _protected(view: GraphView, weighted: list[WeightedNode]) -> dict[str, str]:
    by_name = {node.name: node for node in weighted}
    floats = {node.name: PROTECTED["stem"] for node in weighted if node.data in view.data_inputs}
    attends, gated = any(_products_of_activations(view)), _has_gated_attention(view)
    if gated or not attends:  # a transformer's last convolution is far from its head
        convolutions = {name: node for name, node in by_name.items() if node.op == "Conv"}  # RTMW has two last ones
        last = {name for out in view.outputs for name in _nearest_weighted(view, out, convolutions)}
        floats |= dict.fromkeys(sorted(last), PROTECTED["last_conv"])
    if gated:
        floats |= {node.name: PROTECTED["gated"] for node in weighted if node.op in ("MatMul", "Gemm")}
    floats |= {node.name: PROTECTED["pooled"] for node in weighted if set(view.shapes[node.data][2:]) == {1}}
    floats |= {name: PROTECTED["classifier"] for out in view.outputs for name in _nearest_weighted(view, out, by_name)}
    return floats


def _nearest_weighted(view: GraphView, tensor: str, by_name: Mapping[str, WeightedNode]) -> list[str]:
    """Weighted nodes from which `tensor` is reached without passing another."""
    waiting, seen, found = [tensor], set(), []
    while waiting:
        name = waiting.pop()
        node = view.producer.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if name_of(node) in by_name:
            found.append(name_of(node))
        else:
            waiting.extend(node.input)
    return found


def _has_gated_attention(view: GraphView) -> bool:
    """A product of two activations, scaled, then ReLU, then a square: RTMPose's gated attention unit."""
    for product, _ in _products_of_activations(view):
        waiting = [product.output[0]]
        while waiting:
            for node in view.consumers.get(waiting.pop(), []):
                if node.op_type == "Relu" and any(map(_squares, view.consumers.get(node.output[0], []))):
                    return True
                if node.op_type in ("Mul", "Div", "Add", "Cast") and not _squares(node):
                    waiting.extend(node.output)
    return False


def _squares(node: onnx.NodeProto) -> bool:
    return node.op_type == "Pow" or (node.op_type == "Mul" and node.input[0] == node.input[1])


def _products_of_activations(view: GraphView) -> Iterator[tuple[onnx.NodeProto, int]]:
    for node in view.nodes:
        if node.op_type == "MatMul" and not any(name in view.constants for name in node.input):
            inner = view.shapes[node.input[0]][-1]
            yield node, int(np.prod(view.shapes[node.output[0]])) * inner


def _residuals(
    view: GraphView, weighted: list[WeightedNode], int8: tuple[WeightedNode, ...]
) -> Iterator[tuple[str, str]]:
    """The skip input of each Add whose other, main input comes from an INT8 node, through its activation at most.

    Which is which follows from the graph alone, so that what stays float takes pairs away and never makes others:
    a calibration table has ranges for the pairs of the whole graph.
    """
    outputs, quantised = ({node.output for node in nodes} for nodes in (weighted, int8))
    for node in view.nodes:
        if node.op_type != "Add" or any(name in view.constants for name in node.input):
            continue
        inputs = sorted(node.input, key=lambda name: view.order.get(name, -1))
        skips = [name for name in inputs if _origin(view, name) not in _WEIGHTED]
        mains = [name for name in inputs if _through_activation(view, name) & outputs]
        pair = next(((skip, main) for skip in skips for main in mains if main != skip), None)
        if pair is not None and len(view.shapes[pair[0]]) == 4 and _through_activation(view, pair[1]) & quantised:
            yield name_of(node), pair[0]


def _through_activation(view: GraphView, tensor: str) -> set[str]:
    """`tensor`, and what it is before the pointwise ops that made it."""
    reached, waiting = set(), [(tensor, 0)]
    while waiting:
        name, depth = waiting.pop()
        reached.add(name)
        node = view.producer.get(name)
        if node is not None and node.op_type in _POINTWISE and depth < 3:
            waiting.extend((i, depth + 1) for i in node.input)
    return reached


def _sharing(view: GraphView, tensors: set[str]) -> tuple[tuple[str, ...], ...]:
    """Classes of INT8 tensors that reach one another through ops that only move values."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for node in view.nodes:
        if node.op_type in _CARRIES_SCALE and not _blends(node):
            moved = node.input if node.op_type == "Concat" else node.input[:1]
            for name in [*moved, *node.output]:
                parent[root(name)] = root(node.output[0])
    classes: dict[str, list[str]] = {}
    for name in sorted(tensors, key=lambda n: view.order.get(n, -1)):
        classes.setdefault(root(name), []).append(name)
    return tuple(tuple(members) for members in classes.values() if len(members) > 1)


def _blends(node: onnx.NodeProto) -> bool:
    """A Resize that interpolates makes new values; INT8 does not pass through it unchanged."""
    return node.op_type == "Resize" and attribute_of(node, "mode", b"nearest") != b"nearest"


def _origin(view: GraphView, tensor: str) -> str | None:
    """The operator that made `tensor`'s values, behind those that only move them; None for an input of the graph."""
    node = view.producer.get(tensor)
    while node is not None and node.op_type in _CARRIES_SCALE and node.op_type != "Concat":
        node = view.producer.get(node.input[0])
    return None if node is None else str(node.op_type)


def _weight_axis(node: onnx.NodeProto, dims: list[int], groups: int) -> int | None:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if groups == 1 else None
    if node.op_type == "Gemm":
        return 0 if attribute_of(node, "transB", 0) else 1
    return len(dims) - 1 if len(dims) == 2 else None


def _shapes_for_one_crop(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in copy.graph.input:
        first = value.type.tensor_type.shape.dim[0]
        first.Clear()
        first.dim_value = 1
    for value in copy.graph.output:
        value.type.tensor_type.shape.Clear()
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    for node in graph.node:
        if node.op_type in _WEIGHTED and not all(shapes.get(node.output[0], (0,))):
            raise GraphError(
                f"graph node '{name_of(node)}': its output shape cannot be inferred for one crop; export with opset 17+"
            )
    return shapes

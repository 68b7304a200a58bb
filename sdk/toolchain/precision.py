"""Typed graphs: precision written into the types of an ONNX graph, so that no builder flag decides it.

FP16: the whole interior in float16, weights included; input and output tensors stay float32; what FP16 cannot hold
stays FP32 (`sdk.toolchain.islands`). A graph with Q/DQ may be given too: its float part becomes FP16. INT8 itself is
`sdk.toolchain.quantize`'s work.

    typed = fp16_graph_from_graph(model)
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdk.errors import GraphError
from sdk.toolchain.graphs import array_of, name_nodes, names_matching, opset_of
from sdk.toolchain.islands import find_islands

__all__ = [
    "element_types",
    "fp16_graph_from_graph",
    "island_notes",
    "layer_precisions",
    "stored_graph_from_graph",
    "with_constants_named",
]

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
APART = {"ReduceL2": ("Mul", "Sqrt"), "ReduceSumSquare": ("Mul", ""), "ReduceLogSumExp": ("Exp", "Log")}
FREE = {"Shape", "Size"}  # read no values: any type will do

log = logging.getLogger(__name__)


def fp16_graph_from_graph(
    model: onnx.ModelProto, *, islands: bool = True, keep_fp32: Sequence[str] = (), because: str | None = None
) -> onnx.ModelProto:
    """A typed FP16 graph of a float32 graph. `keep_fp32`: patterns of node names that stay FP32 as well, `because`.

    `islands=False` leaves the FP32 islands out; it is there to show what they are for.
    """
    source = with_constants_named(model)
    kept = find_islands(source) if islands else {}
    for pattern in keep_fp32:
        matches = names_matching(pattern, [node.name for node in source.graph.node], "node of the graph")
        kept |= dict.fromkeys(matches, because or f"asked for by '{pattern}'")
    typed = _Converter(source, kept).convert()
    onnx.checker.check_model(typed, full_check=True)
    for note in _told(kept):
        log.info("%s", note)
    return typed


def island_notes(model: onnx.ModelProto) -> tuple[str, ...]:
    """What `fp16_graph_from_graph` leaves in FP32, one sentence a reason."""
    return tuple(_told(find_islands(with_constants_named(model))))


def layer_precisions(model: onnx.ModelProto) -> dict[str, str]:
    """Node name -> 'int8', 'fp16', 'fp32' or 'other' (integers, booleans, Q/DQ and casts), from the graph's types."""
    types = element_types(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for node in model.graph.node:
        feeds = [makers[name].op_type for name in node.input[:2] if name in makers]
        kinds = [types.get(name) for name in node.output]
        if node.op_type in ("Cast", "QuantizeLinear", "DequantizeLinear"):
            found[node.name] = "other"
        elif feeds and feeds[0] == "DequantizeLinear" and node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            found[node.name] = "int8"
        else:
            found[node.name] = "fp16" if HALF in kinds else "fp32" if FLOAT in kinds else "other"
    return found


def stored_graph_from_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that rounds to FP16 wherever a typed graph stores FP16: what a GPU's memory would hold.

    ONNX Runtime on the CPU computes FP16 nodes in float32 and may skip the rounding between them, so it need not show
    an overflow. This graph does: compound reductions are taken apart as TensorRT takes them apart, then every FP16
    tensor is rounded.
    """
    typed = with_constants_named(model)
    _take_reductions_apart(typed)
    types = element_types(typed)
    for tensor in typed.graph.initializer:
        if tensor.data_type == HALF:
            tensor.CopyFrom(numpy_helper.from_array(array_of(tensor).astype(np.float32), tensor.name))
    nodes: list[onnx.NodeProto] = []
    for node in typed.graph.node:
        nodes.extend(_rounded(node, types))
    del typed.graph.node[:]
    typed.graph.node.extend(nodes)
    del typed.graph.value_info[:]
    return typed


def with_constants_named(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with Constant nodes as initializers and every node named. GraphError for graphs with subgraphs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = []
    for node in copy.graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise GraphError(f"node '{node.name}' ({node.op_type}) holds a subgraph; export the graph without branches")
        if node.op_type == "Constant":
            copy.graph.initializer.append(_initializer(node))
        else:
            nodes.append(node)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    name_nodes(copy)
    return copy


class _Converter:
    """Walks a graph once, in order, and writes it anew with types and casts."""

    def __init__(self, model: onnx.ModelProto, kept: Mapping[str, str]) -> None:
        self._model = model
        self._kept = kept
        self._opset = opset_of(model)
        self._types = element_types(model)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._outputs = {value.name for value in model.graph.output}
        self._names: dict[tuple[str, int], str] = {}  # (float tensor, type) -> the name it has in that type
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}

    def convert(self) -> onnx.ModelProto:
        for value in self._model.graph.input:
            self._names[value.name, FLOAT] = value.name
        for node in self._model.graph.node:
            self._write(node, FLOAT if node.name in self._kept else HALF)
        typed = onnx.ModelProto()
        typed.CopyFrom(self._model)
        del typed.graph.node[:], typed.graph.initializer[:], typed.graph.value_info[:]
        typed.graph.node.extend(self._nodes)
        typed.graph.initializer.extend(self._weights.values())
        return typed

    def _write(self, node: onnx.NodeProto, kind: int) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        schema = onnx.defs.get_schema(node.op_type, self._opset)
        for index, name in enumerate(node.input):
            if name and node.op_type not in FREE:
                wanted = kind if _may_be_half(schema, schema.inputs, index) else FLOAT
                copy.input[index] = self._as(name, wanted)
        self._nodes.append(copy)
        for index, name in enumerate(node.output):
            if name and self._types[name] == FLOAT:
                made = kind if _may_be_half(schema, schema.outputs, index) else FLOAT
                copy.output[index] = self._stored(name, made)
        _set_attributes(copy, kind)

    def _stored(self, name: str, kind: int) -> str:
        """Name under which a node stores its float output; an FP16 output of the graph is cast back behind it."""
        if kind == FLOAT or name not in self._outputs:
            self._names[name, kind] = name
            return name
        inner = f"{name}_fp16"
        self._names |= {(name, HALF): inner, (name, FLOAT): name}
        self._nodes.append(_cast(inner, name, FLOAT))
        return inner

    def _as(self, name: str, wanted: int) -> str:
        """Name of the tensor in the type wanted, cast or converted when it is stored in the other."""
        if name in self._constants:
            return self._constant_as(name, wanted)
        if self._types[name] != FLOAT:
            return name
        if (name, wanted) not in self._names:
            other = f"{name}_{'fp16' if wanted == HALF else 'fp32'}"
            self._nodes.append(_cast(name, other, wanted))
            self._names[name, wanted] = other
        return self._names[name, wanted]

    def _constant_as(self, name: str, wanted: int) -> str:
        tensor = self._constants[name]
        if tensor.data_type != FLOAT or wanted == FLOAT:
            self._weights.setdefault(name, tensor)
            return name
        other = f"{name}_fp16"
        if other not in self._weights:
            self._weights[other] = numpy_helper.from_array(array_of(tensor).astype(np.float16), other)
        return other


def _may_be_half(schema: Any, parameters: Sequence[Any], index: int) -> bool:
    """Whether the operator's definition lets this input or output be float16; Resize's scales, for one, may not."""
    parameter = parameters[min(index, len(parameters) - 1)]
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    if schema.name == "Resize" and index > 0 and parameters is not schema.outputs:
        return False
    return "tensor(float16)" in allowed.get(parameter.type_str, [parameter.type_str])


def _set_attributes(node: onnx.NodeProto, kind: int) -> None:
    """Attributes that name the float type: Cast's target, ConstantOfShape's value."""
    if kind == FLOAT:
        return
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
            attribute.i = HALF
        elif node.op_type == "ConstantOfShape" and attribute.t.data_type == FLOAT:
            attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float16)))


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"/cast/{target}", to=kind)


def _initializer(node: onnx.NodeProto) -> onnx.TensorProto:
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        return tensor
    dtype = np.float32 if attribute.name.startswith("value_float") else np.int64
    return numpy_helper.from_array(np.asarray(value, dtype), node.output[0])


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor; GraphError when one cannot be told."""
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {tensor.name: tensor.data_type for tensor in inferred.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    for node in inferred.graph.node:
        for name in node.output:
            if name and not types.get(name):
                raise GraphError(f"the type of tensor '{name}', made by node '{node.name}', cannot be told")
    return types


def _take_reductions_apart(model: onnx.ModelProto) -> None:
    """Compound reductions as the elementwise operators and the sum that TensorRT makes of them, each a tensor."""
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes.extend(_apart(node) if node.op_type in APART else [node])
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _apart(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    before, after = APART[node.op_type]
    data, out = node.input[0], node.output[0]
    total = f"{out}_sum" if after else out
    inputs = [data, data] if before == "Mul" else [data]
    yield helper.make_node(before, inputs, [f"{out}_terms"], name=f"{node.name}/terms")
    reduction = helper.make_node("ReduceSum", [f"{out}_terms", *node.input[1:]], [total], name=f"{node.name}/sum")
    reduction.attribute.extend(node.attribute)
    yield reduction
    if after:
        yield helper.make_node(after, [total], [out], name=f"{node.name}/{after.lower()}")


def _rounded(node: onnx.NodeProto, types: Mapping[str, int]) -> Iterator[onnx.NodeProto]:
    """The node in float32, each of its FP16 outputs rounded to FP16 and back."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for attribute in copy.attribute:
        if copy.op_type == "Cast" and attribute.name == "to" and attribute.i == HALF:
            attribute.i = FLOAT
    halves = [index for index, name in enumerate(node.output) if types.get(name) == HALF]
    for index in halves:
        copy.output[index] = f"{node.output[index]}_exact"
    yield copy
    for index in halves:
        name = node.output[index]
        yield helper.make_node("Cast", [f"{name}_exact"], [f"{name}_half"], name=f"/round/{name}", to=HALF)
        yield helper.make_node("Cast", [f"{name}_half"], [name], name=f"/back/{name}", to=FLOAT)


def _told(kept: Mapping[str, str]) -> list[str]:
    return [f"{count} layers stay FP32: {reason}" for reason, count in Counter(kept.values()).items()]

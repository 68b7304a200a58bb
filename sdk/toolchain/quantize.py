"""INT8 as types: Q/DQ into a float graph from a calibration table, then FP16 for the rest.

Weights are stored as INT8 with one scale a channel, activations get one symmetric scale a tensor. Scales are FP16
numbers, never below the smallest normal one, in the FP32 form of the graph too: both forms hold the same INT8 codes.
What is quantised is `sdk.toolchain.placement`'s decision; ranges come from `sdk.toolchain.table`.

    typed, placement = qdq_graph_from_graph(model, table)         # Q/DQ, the rest FP32: runs anywhere
    typed, placement = int8_graph_from_graph(model, table)        # Q/DQ, the rest FP16: what is compiled
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from sdk.errors import CalibrationError
from sdk.toolchain.correction import bias_corrections
from sdk.toolchain.equalize import equalised_graph_from_graph
from sdk.toolchain.graphs import OPSET, opset_of
from sdk.toolchain.placement import GraphView, Placement, PlacementOptions, WeightedNode, name_of, placement_of
from sdk.toolchain.precision import fp16_graph_from_graph
from sdk.toolchain.ranges import LEVELS
from sdk.toolchain.table import CalibrationTable, tensors_within

__all__ = ["QuantizeOptions", "int8_graph_from_graph", "qdq_graph_from_graph", "scale_from_range"]

SMALLEST_SCALE = 2.0**-14  # the smallest normal FP16 number
_LARGEST_SCALE = 65504.0
_ZERO = "int8_zero"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QuantizeOptions:
    """What may be quantised. `max_drop`: points of AP (or of OKS agreement) the INT8 set may cost, by the table's
    sensitivity; None: everything the placement allows."""

    keep_float: tuple[str, ...] = ()
    quantise_all: bool = False
    max_drop: float | None = None
    correct_bias: bool | None = None  # None: as the table's trial found best
    int8_tensors: frozenset[str] | None = None  # quantise only what reads these; None: no such limit


def int8_graph_from_graph(
    model: onnx.ModelProto, table: CalibrationTable, options: QuantizeOptions | None = None
) -> tuple[onnx.ModelProto, Placement]:
    """The typed INT8 graph of a float graph: Q/DQ, FP16 with FP32 islands for the rest; and the placement."""
    quantised, placement = qdq_graph_from_graph(model, table, options)
    log.info("%s", _told(placement))
    return fp16_graph_from_graph(quantised), placement


def qdq_graph_from_graph(
    model: onnx.ModelProto, table: CalibrationTable, options: QuantizeOptions | None = None
) -> tuple[onnx.ModelProto, Placement]:
    """The float graph with Q/DQ, its float parts FP32, and the placement it follows."""
    options = options or QuantizeOptions()
    model = equalised_graph_from_graph(_at_opset(model), table.equalisation)
    chosen = options.int8_tensors if options.max_drop is None else tensors_within(table, options.max_drop)
    placement = placement_of(model, PlacementOptions(options.keep_float, options.quantise_all, chosen))
    ranges = ranges_of(placement, table)
    writer = _Writer(model)
    for node in placement.int8:
        writer.quantise_weight(node)
    if table.correct_bias if options.correct_bias is None else options.correct_bias:
        writer.move_biases(bias_corrections(model, placement.int8, table, writer.weight_errors))
    for tensor, amax in ranges.items():
        writer.quantise_activation(tensor, amax, placement)
    return writer.finished(), placement


def ranges_of(placement: Placement, table: CalibrationTable) -> dict[str, float]:
    """Range of every INT8 tensor; those that share a scale take the widest of them."""
    missing = [name for name in placement.tensors if name not in table.tensors]
    if missing:
        raise CalibrationError(
            f"calibration table: tensor '{missing[0]}' has no range ({len(missing)} missing); calibrate again"
        )
    ranges = {name: table.tensors[name].amax for name in placement.tensors}
    for members in placement.shared:
        widest = max(ranges[name] for name in members)
        ranges |= dict.fromkeys(members, widest)
    return ranges


def scale_from_range(amax: NDArray[np.float32] | float) -> NDArray[np.float32]:
    """INT8 step for each range: an FP16 number, rounded up so that no value is clipped by rounding, never subnormal."""
    wanted = np.clip(np.asarray(amax, np.float64) / LEVELS, SMALLEST_SCALE, _LARGEST_SCALE)
    scale = wanted.astype(np.float16)
    up = np.nextafter(scale, np.float16(_LARGEST_SCALE))
    rounded: NDArray[np.float32] = np.where(scale.astype(np.float64) < wanted, up, scale).astype(np.float32)
    return rounded


def _at_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model, of an opset whose Q/DQ take FP16 scales."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if opset_of(model) < OPSET:
        copy = onnx.version_converter.convert_version(copy, OPSET)
    copy.ir_version = max(copy.ir_version, 9)
    return copy


def _told(placement: Placement) -> str:
    """What is INT8 and what stays float, in one line."""
    reasons = Counter(placement.floats.values())
    kept = "; ".join(f"{count} float ({reason})" for reason, count in reasons.items())
    nodes, share = len(placement.int8), 100 * placement.int8_share
    return f"INT8: {nodes} nodes, {share:.1f} % of the multiply-accumulates; {kept or 'none float'}"


class _Writer:
    """Edits a copy of a model; new nodes are gathered and put in order at the end."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.view = GraphView(self.model)
        self.weight_errors: dict[str, NDArray[np.float32]] = {}  # node -> INT8 weight minus float weight
        self._nodes = {name_of(node): node for node in self.model.graph.node}
        self._before: dict[str, list[onnx.NodeProto]] = {}  # tensor -> nodes to put right after its producer
        self._front: list[onnx.NodeProto] = []

    def quantise_weight(self, node: WeightedNode) -> None:
        weight = onnx.numpy_helper.to_array(self.view.constants[node.weight]).astype(np.float32)
        codes, scale = _codes(weight, node.axis)
        self.weight_errors[node.name] = codes * _along(scale, node.axis, weight.ndim) - weight
        prefix = f"{node.name}.weight"
        self._constant(f"{prefix}_int8", codes)
        self._constant(f"{prefix}_scale", scale)
        self._constant(f"{prefix}_zero", np.zeros(scale.shape, np.int8))
        axis: dict[str, Any] = {} if node.axis is None else {"axis": node.axis}
        inputs = [f"{prefix}_int8", f"{prefix}_scale", f"{prefix}_zero"]
        self._front.append(
            onnx.helper.make_node("DequantizeLinear", inputs, [f"{prefix}_float"], f"{prefix}_dequantize", **axis)
        )
        self._nodes[node.name].input[1] = f"{prefix}_float"

    def quantise_activation(self, tensor: str, amax: float, placement: Placement) -> None:
        scale, code, value = (f"{tensor}_{part}" for part in ("scale", "int8", "dequantized"))
        self._constant(scale, scale_from_range(amax))
        if _ZERO not in self.view.constants:
            self._constant(_ZERO, np.zeros((), np.int8))
        self._before[tensor] = [
            onnx.helper.make_node("QuantizeLinear", [tensor, scale, _ZERO], [code], f"{tensor}_quantize"),
            onnx.helper.make_node("DequantizeLinear", [code, scale, _ZERO], [value], f"{tensor}_dequantize"),
        ]
        for node in placement.int8:
            if node.data == tensor:
                self._nodes[node.name].input[0] = value
        for name, skip in placement.residuals:
            if skip == tensor:
                inputs = self._nodes[name].input
                inputs[list(inputs).index(tensor)] = value

    def move_biases(self, corrections: Mapping[str, NDArray[np.float32]]) -> None:
        """Subtract each node's mean output error from its bias: its own, or that of the Add after a MatMul."""
        for name, shift in corrections.items():
            node = self._nodes[name]
            holder, index = node, 2
            if node.op_type == "MatMul":
                holder, index = self._bias_of_product(node)
            bias = (
                onnx.numpy_helper.to_array(self.view.constants[holder.input[index]]) if len(holder.input) > index else 0
            )
            new = f"{name}.bias_corrected"
            self._constant(new, np.asarray(bias - shift, np.float32))
            if len(holder.input) > index:
                holder.input[index] = new
            else:
                holder.input.append(new)

    def finished(self) -> onnx.ModelProto:
        graph = self.model.graph
        nodes = [*self._front]
        for value in graph.input:
            nodes += self._before.get(value.name, [])
        for node in graph.node:
            nodes.append(node)
            for name in node.output:
                nodes += self._before.get(name, [])
        nodes = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        kept = [type(tensor).FromString(tensor.SerializeToString()) for tensor in kept]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        del graph.value_info[:]
        onnx.checker.check_model(self.model)
        return self.model

    def _bias_of_product(self, node: onnx.NodeProto) -> tuple[onnx.NodeProto, int]:
        add = next(n for n in self.view.consumers[node.output[0]] if n.op_type == "Add")
        return add, next(i for i, name in enumerate(add.input) if name in self.view.constants)

    def _constant(self, name: str, array: NDArray[Any]) -> None:
        tensor = onnx.numpy_helper.from_array(np.asarray(array, order="C"), name)
        self.model.graph.initializer.append(tensor)
        self.view.constants[name] = tensor


def _codes(weight: NDArray[np.float32], axis: int | None) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """INT8 codes of a weight and its scale: one a channel along `axis`, or one for all."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = scale_from_range(np.abs(weight).max(axis=others))
    codes = np.rint(weight / _along(scale, axis, weight.ndim))
    return np.clip(codes, -LEVELS, LEVELS).astype(np.int8), scale


def _along(scale: NDArray[np.float32], axis: int | None, ndim: int) -> NDArray[np.float32]:
    return scale if axis is None else scale.reshape([-1 if i == axis else 1 for i in range(ndim)])

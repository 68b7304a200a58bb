"""Bias correction: the mean error that rounded weights put on each output channel, to be taken off its bias.

With `e` the INT8 weight minus the float one and `m` the mean of the input over crops and pixels, output channel o is
off by sum(e[o] * m) on average. Taps that fall on zero padding are weighed by how often they do not. The method is
that of Nagel et al. (ICCV 2019, section 4.2) with measured means. Only computes; `sdk.toolchain.quantize` applies.

    shifts = bias_corrections(model, placement.int8, table, weight_errors)       # node -> one number a channel
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from sdk.toolchain.placement import GraphView, WeightedNode, name_of
from sdk.toolchain.table import CalibrationTable

__all__ = ["bias_corrections"]


def bias_corrections(
    model: onnx.ModelProto,
    nodes: Sequence[WeightedNode],
    table: CalibrationTable,
    weight_errors: Mapping[str, NDArray[np.float32]],  # node -> like its weight
) -> dict[str, NDArray[np.float32]]:
    """Mean output error of each node that has a bias to move it into: node -> one number an output channel."""
    view = GraphView(model)
    protos = {name_of(node): node for node in model.graph.node}
    shifts = {}
    for node in nodes:
        proto, error = protos[node.name], weight_errors[node.name]
        mean = np.asarray(table.tensors[node.data].channel_mean, np.float32)
        if _can_hold_bias(view, proto):
            shifts[node.name] = _mean_output_error(view, node, proto, error, mean)
    return shifts


def _can_hold_bias(view: GraphView, proto: onnx.NodeProto) -> bool:
    if proto.op_type != "MatMul":
        return len(proto.input) < 3 or proto.input[2] in view.constants
    following = view.consumers.get(proto.output[0], [])
    return (
        len(following) == 1 and following[0].op_type == "Add" and any(n in view.constants for n in following[0].input)
    )


def _mean_output_error(
    view: GraphView,
    node: WeightedNode,
    proto: onnx.NodeProto,
    error: NDArray[np.float32],  # like the weight
    mean: NDArray[np.float32],  # one number an input channel
) -> NDArray[np.float32]:
    attributes: dict[str, Any] = {a.name: list(a.ints) or a.i for a in proto.attribute}
    if node.op == "Conv":
        taps = _valid_share(view.shapes[node.data][2:], view.shapes[node.output][2:], error.shape[2:], attributes)
        per_input = (error * taps).sum(axis=tuple(range(2, error.ndim)))  # O x I/groups
        groups = int(attributes.get("group", 1))
        means = np.repeat(mean.reshape(groups, -1), len(per_input) // groups, axis=0)
        return np.asarray((per_input * means).sum(axis=1), np.float32)
    if node.op == "ConvTranspose":
        density = float(np.prod(attributes.get("strides", [1, 1])))
        per_input = error.sum(axis=tuple(range(2, error.ndim))) / density  # I x O/groups
        groups = int(attributes.get("group", 1))
        blocks = (mean.reshape(groups, -1, 1) * per_input.reshape(groups, -1, per_input.shape[1])).sum(axis=1)
        return np.asarray(blocks.ravel(), np.float32)
    matrix = error.T if node.op == "Gemm" and attributes.get("transB", 0) else error
    return (mean @ matrix).astype(np.float32)


def _valid_share(
    size_in: Sequence[int], size_out: Sequence[int], kernel: Sequence[int], attributes: Mapping[str, Any]
) -> NDArray[np.float32]:
    """For each tap of a kernel, the share of output pixels whose tap falls inside the input."""
    rank = len(kernel)
    strides, dilations = attributes.get("strides", [1] * rank), attributes.get("dilations", [1] * rank)
    pads = attributes.get("pads", [0] * (2 * rank))
    share = np.ones((), np.float32)
    for axis in range(rank):
        out = np.arange(size_out[axis])[:, None] * strides[axis] - pads[axis]
        at = out + np.arange(kernel[axis]) * dilations[axis]
        inside = ((at >= 0) & (at < size_in[axis])).mean(axis=0, dtype=np.float32)
        share = share[..., None] * inside
    return share

"""Range equalisation across layers: even out the channels of an activation, so that one INT8 scale fits them all.

Where only weighted ops read an activation, its channel c may be divided by any positive f[c] if the readers' weights
are multiplied by it. Three makers can divide at no cost: a convolution, behind ReLU too, as ReLU(x / f) = ReLU(x) / f;
a layer norm, in its gain and bias; a channel gate, on its N x C x 1 x 1 factor. SiLU and GELU do not scale through. The
factors follow SmoothQuant (Xiao et al., ICML 2023) with equal shares, f = sqrt(activation range / weight range).
Changes no output beyond float rounding; whether it helps is measured (`sdk.toolchain.calibrate`).

    factors = equalising_factors(model, channel_peaks)             # tensor -> one factor a channel
    even = equalised_graph_from_graph(model, factors)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from sdk.errors import CalibrationError
from sdk.toolchain.placement import GraphView, name_of

__all__ = ["equalisable_tensors", "equalised_graph_from_graph", "equalising_factors"]

LIMIT = 16.0  # factors stay within 1/16..16: FP16 weights keep their relative precision
_SCALES_THROUGH = ("Relu", "LeakyRelu", "PRelu")


def equalisable_tensors(model: onnx.ModelProto) -> dict[str, str]:
    """Activation tensor -> the node that makes it and can divide its channels."""
    view = GraphView(model)
    found = {}
    for node in view.nodes:
        if not _divides(view, node):
            continue
        tensor = _activated(view, node.output[0]) if node.op_type == "Conv" else node.output[0]
        readers = view.consumers.get(tensor, [])
        if readers and tensor not in view.outputs and all(_scales_inputs(view, r, tensor) for r in readers):
            found[tensor] = name_of(node)
    return found


def equalising_factors(
    model: onnx.ModelProto,
    channel_peaks: Mapping[str, NDArray[np.float32]],  # tensor -> largest magnitude of each channel
) -> dict[str, tuple[float, ...]]:
    """Factor a channel for every tensor of `channel_peaks`; channels that are never active keep 1."""
    view = GraphView(model)
    factors = {}
    for tensor, peaks in channel_peaks.items():
        weights = np.max([_input_peaks(view, r, len(peaks)) for r in view.consumers[tensor]], axis=0)
        active = (peaks > 0) & (weights > 0)
        raw = np.sqrt(np.where(active, peaks, 1.0) / np.where(active, weights, 1.0))
        raw /= np.exp(np.mean(np.log(raw[active]))) if active.any() else 1.0
        chosen = np.where(active, np.clip(raw, 1 / LIMIT, LIMIT), 1.0)
        factors[tensor] = tuple(float(f) for f in chosen.astype(np.float32))
    return factors


def equalised_graph_from_graph(model: onnx.ModelProto, factors: Mapping[str, Sequence[float]]) -> onnx.ModelProto:
    """A copy of the model with each tensor's channels divided by its factors; the model itself where there are none."""
    if not factors:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    view = GraphView(copy)
    makers = equalisable_tensors(copy)
    protos = {name_of(node): node for node in copy.graph.node}
    for tensor, channel in factors.items():
        if tensor not in makers:
            raise CalibrationError(
                f"calibration table: tensor '{tensor}' cannot be equalised in this graph; calibrate again"
            )
        factor = np.asarray(channel, np.float32)
        _divide(view, protos[makers[tensor]], np.float32(1) / factor)
        for reader in view.consumers[tensor]:
            _scale(view, reader.input[1], *_spread(view, reader, factor))
    return copy


def _divides(view: GraphView, node: onnx.NodeProto) -> bool:
    """Whether the channels of what `node` makes can be divided inside it."""
    if node.op_type == "Mul":
        return _gate(view, node) is not None
    constants = list(node.input[1:])
    own = all(name in view.constants and len(view.consumers[name]) == 1 for name in constants)
    return node.op_type in ("Conv", "LayerNormalization") and own


def _divide(view: GraphView, maker: onnx.NodeProto, inverse: NDArray[np.float32]) -> None:  # one number a channel
    gate = _gate(view, maker) if maker.op_type == "Mul" else None
    if gate is None:
        for name in maker.input[1:]:
            _scale(view, name, inverse, axis=0)
        return
    graph, even, constant = view.model.graph, f"{maker.output[0]}_gate_even", f"{maker.output[0]}_gate_factor"
    graph.initializer.append(onnx.numpy_helper.from_array(inverse.reshape(1, -1, 1, 1), constant))
    at = next(i for i, node in enumerate(graph.node) if node.output[0] == maker.output[0])
    maker.input[list(maker.input).index(gate)] = even
    graph.node.insert(at, onnx.helper.make_node("Mul", [gate, constant], [even], f"{name_of(maker)}_even"))


def _gate(view: GraphView, node: onnx.NodeProto) -> str | None:
    """The input of a product that holds one number a channel, made from the activations; None where there is none."""
    shapes = [view.shapes.get(name, ()) for name in node.input]
    sizes = [len(shape) == 4 and shape[2:] == (1, 1) for shape in shapes]
    if sizes not in ([True, False], [False, True]) or any(name in view.constants for name in node.input):
        return None
    return str(node.input[sizes.index(True)])


def _activated(view: GraphView, tensor: str) -> str:
    following = view.consumers.get(tensor, [])
    if len(following) == 1 and following[0].op_type in _SCALES_THROUGH and tensor not in view.outputs:
        return str(following[0].output[0])
    return tensor


def _scales_inputs(view: GraphView, reader: onnx.NodeProto, tensor: str) -> bool:
    if reader.op_type not in ("Conv", "MatMul", "Gemm"):
        return False
    constant = reader.input[0] == tensor and reader.input[1] in view.constants
    grouped = any(a.name == "group" and a.i > 1 for a in reader.attribute)
    if not constant or (grouped and view.constants[reader.input[1]].dims[1] != 1):
        return False
    return len(view.consumers.get(reader.input[1], [])) == 1


def _spread(view: GraphView, reader: onnx.NodeProto, factor: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """The factors along one axis of the reader's weight."""
    dims = view.constants[reader.input[1]].dims
    if reader.op_type == "Conv":
        return (factor, 1) if dims[1] == len(factor) else (np.repeat(factor, dims[0] // len(factor)), 0)
    transposed = any(a.name == "transB" and a.i for a in reader.attribute)
    return factor, 1 if transposed else 0


def _input_peaks(view: GraphView, reader: onnx.NodeProto, channels: int) -> NDArray[np.float32]:
    weight = np.abs(onnx.numpy_helper.to_array(view.constants[reader.input[1]]))
    _, axis = _spread(view, reader, np.ones(channels, np.float32))
    peaks = weight.max(axis=tuple(i for i in range(weight.ndim) if i != axis)).reshape(channels, -1)
    widest: NDArray[np.float32] = peaks.max(axis=1)
    return widest


def _scale(view: GraphView, constant: str, factor: NDArray[np.float32], axis: int) -> None:
    tensor = view.constants[constant]
    array = onnx.numpy_helper.to_array(tensor)
    shape = [-1 if i == axis else 1 for i in range(array.ndim)]
    tensor.CopyFrom(onnx.numpy_helper.from_array((array * factor.reshape(shape)).astype(array.dtype), tensor.name))

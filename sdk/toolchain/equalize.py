"""Range equalisation across layers: even out the channels of an activation, so that one INT8 scale fits them all.

Where a convolution's output passes ReLU (or nothing) and only other weighted ops read it, channel c may be divided by
any positive f[c] in the producer and multiplied in the readers: ReLU(x / f) = ReLU(x) / f. The factors follow
SmoothQuant (Xiao et al., ICML 2023) with equal shares, f = sqrt(activation range / weight range). SiLU and GELU do not
scale through, so networks built on them are left as they are. Changes no output beyond float rounding.

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
    """Activation tensor -> the convolution that makes it, wherever factors can move across it."""
    view = GraphView(model)
    weighted = {node.name: node for node in view.weighted()}
    found = {}
    for node in weighted.values():
        tensor = _activated(view, node.output)
        readers = view.consumers.get(tensor, [])
        alone = tensor not in view.outputs and all(reader.op_type in ("Conv", "MatMul", "Gemm") for reader in readers)
        own = all(len(view.consumers[name]) == 1 for name in view.producer[node.output].input[1:])
        if node.op == "Conv" and own and readers and alone and all(_scales_inputs(view, r, tensor) for r in readers):
            found[tensor] = node.name
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
        maker = protos[makers[tensor]]
        for name in maker.input[1:]:
            _scale(view, name, 1 / factor, axis=0)
        for reader in view.consumers[tensor]:
            _scale(view, reader.input[1], *_spread(view, reader, factor))
    return copy


def _activated(view: GraphView, tensor: str) -> str:
    following = view.consumers.get(tensor, [])
    if len(following) == 1 and following[0].op_type in _SCALES_THROUGH and tensor not in view.outputs:
        return str(following[0].output[0])
    return tensor


def _scales_inputs(view: GraphView, reader: onnx.NodeProto, tensor: str) -> bool:
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
    peaks: NDArray[np.float32] = weight.max(axis=tuple(i for i in range(weight.ndim) if i != axis))
    return peaks.reshape(channels, -1).max(axis=1)


def _scale(view: GraphView, constant: str, factor: NDArray[np.float32], axis: int) -> None:
    tensor = view.constants[constant]
    array = onnx.numpy_helper.to_array(tensor)
    shape = [-1 if i == axis else 1 for i in range(array.ndim)]
    tensor.CopyFrom(onnx.numpy_helper.from_array((array * factor.reshape(shape)).astype(array.dtype), tensor.name))

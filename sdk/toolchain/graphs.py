"""Small questions about ONNX graphs, asked in several places: tensors in and out, producers, constants, hashes.

for tensor in graph_inputs(model): tensor.name, tensor.dtype, tensor.shape    # 'input', 'float32', ('N', 3, 8, 8)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from sdk.cores import physical_cores, restricted
from sdk.errors import InputError
from sdk.onnx_runtime import onnxruntime

__all__ = [
    "OPSET",
    "GraphTensor",
    "array_of",
    "attribute_of",
    "constants",
    "consumers",
    "described",
    "fixed_batch",
    "graph_inputs",
    "graph_outputs",
    "graph_session",
    "initializers",
    "name_nodes",
    "names_matching",
    "opset_of",
    "producers",
    "rename",
    "serialized",
]

OPSET = 19  # of our graphs: the first whose Q/DQ take FP16 scales; TensorRT 10.3 parses up to 20


@dataclass(frozen=True)
class GraphTensor:
    """A graph's input or output. A symbolic or unknown dimension is a text ('?' when it has no name)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


def graph_inputs(model: onnx.ModelProto) -> tuple[GraphTensor, ...]:
    """Inputs that a caller feeds: initializers listed as inputs, as older files have them, are left out."""
    weights = initializers(model)
    return tuple(_tensor(value) for value in model.graph.input if value.name not in weights)


def graph_outputs(model: onnx.ModelProto) -> tuple[GraphTensor, ...]:
    return tuple(_tensor(value) for value in model.graph.output)


def described(tensors: Iterable[GraphTensor]) -> str:
    """Tensors in one line, for messages."""
    return ", ".join(f"{t.name} {t.dtype} {' x '.join(map(str, t.shape)) or 'scalar'}" for t in tensors) or "none"


def fixed_batch(graph: bytes) -> int | None:
    """The one batch with which a graph of one input runs; None where its declaration leaves it open."""
    (source,) = graph_inputs(onnx.load_from_string(graph))
    return source.shape[0] if isinstance(source.shape[0], int) else None


def initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Tensors whose values the graph holds: initializers, and what Constant nodes give."""
    held = initializers(model)
    for node in model.graph.node:
        value = attribute_of(node, "value") if node.op_type == "Constant" else None
        if value is not None:
            held[node.output[0]] = value
    return held


def attribute_of(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute, `default` where it names none."""
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Tensor name -> the node that makes it."""
    return {name: node for node in model.graph.node for name in node.output if name}


def consumers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Tensor name -> the nodes that take it."""
    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in dict.fromkeys(node.input):
            takers.setdefault(name, []).append(node)
    return takers


def array_of(tensor: onnx.TensorProto) -> Any:
    """A numpy array of an initializer."""
    return numpy_helper.to_array(tensor)


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operator set; 0 when the model names none."""
    return max((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a name of its own, so that a pattern or a report can point at it. Names there are kept."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        name = node.name or f"/{node.op_type}_{index}"
        while name in taken:
            name = f"{name}_{index}"
        node.name = name
        taken.add(name)


def rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Rename tensors everywhere; a tensor that already has one of the new names steps aside."""
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)} - set(names)
    taken |= set(initializers(model)) - set(names)
    aside = {name: f"{name}_inner" for name in names.values() if name in taken}
    moves = {**aside, **names}
    for node in model.graph.node:
        node.input[:] = [moves.get(name, name) for name in node.input]
        node.output[:] = [moves.get(name, name) for name in node.output]
    for holder in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        holder.name = moves.get(holder.name, holder.name)


def names_matching(pattern: str, names: Sequence[str], kind: str) -> list[str]:
    """The names that a shell pattern, told apart by case, matches. InputError where it matches no `kind` at all."""
    matches = [name for name in names if fnmatchcase(name, pattern)]
    if not matches:
        raise InputError(f"pattern '{pattern}' matches no {kind}; names are like {', '.join(names[:3]) or 'none'}")
    return matches


def serialized(model: onnx.ModelProto) -> bytes:
    """The same bytes for the same model, in every process."""
    return bytes(model.SerializeToString(deterministic=True))


def graph_session(model: onnx.ModelProto | bytes, *, threads: int = 2) -> Any:
    """ONNX Runtime on the CPU, for asking graphs at build time; `threads` 0 takes every core.

    Q/DQ runs as it is written, in float: the answer does not hang on a CPU's INT8 kernels (docs/decisions.md).
    """
    options = onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads or (physical_cores() if restricted() else 0)
    options.log_severity_level = 4  # what it refuses reaches the caller as an exception
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    data = model if isinstance(model, bytes) else serialized(model)
    session = onnxruntime().InferenceSession(data, options, providers=["CPUExecutionProvider"])
    batch = next((tensor.shape[0] for tensor in session.get_inputs() if tensor.shape), None)
    return _InPieces(session, batch) if isinstance(batch, int) and batch > 0 else session


class _InPieces:
    """A session of a fixed batch that takes any: in pieces, the last filled up."""

    def __init__(self, session: Any, batch: int) -> None:
        self._session, self._batch = session, batch

    def run(self, names: Sequence[str] | None, feed: dict[str, Any]) -> list[Any]:
        if len(feed) != 1:
            outputs: list[Any] = self._session.run(names, feed)
            return outputs
        ((name, rows),) = feed.items()
        filled = np.concatenate([rows, np.repeat(rows[-1:], -len(rows) % self._batch, axis=0)])
        pieces = [filled[first : first + self._batch] for first in range(0, len(filled), self._batch)]
        runs = [self._session.run(names, {name: piece}) for piece in pieces]
        if len(runs) == 1 and len(rows) == self._batch:
            return list(runs[0])
        return [np.concatenate(parts)[: len(rows)] for parts in zip(*runs, strict=True)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def _tensor(value: onnx.ValueInfoProto) -> GraphTensor:
    kind = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name if kind.elem_type else "unknown"
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in kind.shape.dim)
    return GraphTensor(value.name, dtype, shape)

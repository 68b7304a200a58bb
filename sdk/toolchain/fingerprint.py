"""Which float graph a calibration table belongs to: structure by hash, weights by figures that rounding does not move.

An exporter folds batch norms in float32, and processors round that differently in the last bit: the same checkpoint,
exported on two machines, gives weights that differ by 1e-7 of themselves. To a hash of weights those are two graphs.

    mark = fingerprint_of(model)
    difference(mark, fingerprint_of(other))          # None, or what differs, in words
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

__all__ = ["Fingerprint", "difference", "fingerprint_of", "graph_sha256"]

TOLERANCE = 1e-4  # of a tensor's mean magnitude; other rounding moves it by 1e-7, other training by 1e-2


@dataclass(frozen=True)
class Fingerprint:
    """`weights`: float constant -> its mean magnitude, and its mean under fixed pseudo-random signs."""

    structure_sha256: str
    weights: Mapping[str, tuple[float, float]]


def fingerprint_of(model: onnx.ModelProto) -> Fingerprint:
    """The fingerprint of a float graph."""
    weights = {}
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if _is_weight(array):
            weights[str(tensor.name)] = _figures(array)
    return Fingerprint(_digest(model, with_weights=False), weights)


def difference(one: Fingerprint, other: Fingerprint) -> str | None:
    """What differs between two graphs beyond rounding, or None."""
    if one.structure_sha256 != other.structure_sha256:
        return f"structure {one.structure_sha256[:12]} against {other.structure_sha256[:12]}"
    for name, figures in one.weights.items():
        bound = TOLERANCE * max(figures[0], other.weights[name][0])
        if any(abs(a - b) > bound for a, b in zip(figures, other.weights[name], strict=True)):
            return f"weights '{name}': mean magnitude {figures[0]:.7g} against {other.weights[name][0]:.7g}"
    return None


def graph_sha256(model: onnx.ModelProto) -> str:
    """Digest of what a graph computes, to the bit, and of its tensors' names; not of producer, documents or form."""
    return _digest(model, with_weights=True)


def _is_weight(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f" and array.size > 1


def _figures(array: NDArray[Any]) -> tuple[float, float]:
    exact = array.astype(np.float64).ravel()
    signs = 1.0 - 2.0 * (np.arange(exact.size, dtype=np.uint64) * np.uint64(2654435761) >> np.uint64(16) & np.uint64(1))
    return float(np.abs(exact).mean()), float((exact * signs).mean())


def _digest(model: onnx.ModelProto, *, with_weights: bool) -> str:
    digest = hashlib.sha256()
    for opset in sorted(model.opset_import, key=lambda o: str(o.domain)):
        digest.update(f"opset {opset.domain or 'ai.onnx'} {opset.version};".encode())
    for value in [*model.graph.input, *model.graph.output]:
        digest.update(f"value {value.name} {value.type.tensor_type.elem_type};".encode())
    for tensor in sorted(model.graph.initializer, key=lambda t: str(t.name)):
        digest.update(f"constant {tensor.name};".encode())
        _update_with_tensor(digest, tensor, with_weights=with_weights)
    for node in model.graph.node:
        digest.update(f"node {node.domain}/{node.op_type} {list(node.input)} {list(node.output)};".encode())
        for attribute in sorted(node.attribute, key=lambda a: str(a.name)):
            digest.update(f"attribute {attribute.name};".encode())
            _update_with_attribute(digest, attribute)
    return digest.hexdigest()


def _update_with_attribute(digest: Any, attribute: onnx.AttributeProto) -> None:
    if attribute.HasField("t"):
        _update_with_tensor(digest, attribute.t, with_weights=True)
    else:
        plain = type(attribute)()
        plain.CopyFrom(attribute)
        plain.ClearField("doc_string")
        digest.update(plain.SerializeToString(deterministic=True))


def _update_with_tensor(digest: Any, tensor: onnx.TensorProto, *, with_weights: bool) -> None:
    array: NDArray[Any] = onnx.numpy_helper.to_array(tensor)
    digest.update(f"{array.dtype} {array.shape};".encode())
    if with_weights or not _is_weight(array):
        digest.update(array.tobytes())

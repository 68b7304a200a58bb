"""A detector's graph cut before its non-maximum suppression: its outputs are the boxes and scores of every cell.

The run time suppresses by an op of its own, on any device (`sdk.ops.detections`); TensorRT-RTX builds no
NonMaxSuppression at all. What is cut away is told; whether the rest means the same is proved elsewhere
(`sdk.toolchain.detectors.proof`).

    cut = cut_before_nms(model)                # None: nothing is suppressed inside
    cut.boxes, cut.scores, cut.iou             # names of the tensors, and the overlap that the graph allowed
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from sdk.errors import GraphError
from sdk.toolchain.graphs import array_of, attribute_of, constants, producers

__all__ = ["NMS", "PLUGINS", "Cut", "cut_before_nms", "cut_plugin", "with_outputs"]

PLUGINS = {"EfficientNMS_TRT", "TRTBatchedNMS"}  # of TensorRT, which no other run time has: boxes and scores first
NMS = "NonMaxSuppression"
CHOOSING = {NMS, "TopK", "NonZero"}  # what follows holds rows chosen by their values
BEST = {"ReduceMax", "ArgMax"}
DEFAULT_IOU = 0.0  # of NonMaxSuppression's own definition, where it names none


@dataclass(frozen=True)
class Cut:
    """The tensors that lie before the suppression, and the overlap above which it dropped boxes; None: not told."""

    boxes: str
    scores: str
    iou: float | None
    what: str  # the operator


def cut_plugin(model: onnx.ModelProto) -> Cut | None:
    """Cut, in place, before a suppression that is a plugin of TensorRT's; None where there is none."""
    nodes = [node for node in model.graph.node if node.op_type in PLUGINS]
    if not nodes:
        return None
    if len(nodes) > 1:
        raise GraphError(f"the graph suppresses boxes {len(nodes)} times; export it with one NMS or none")
    boxes, scores = nodes[0].input[:2]
    with_outputs(model, (boxes, scores))
    iou = attribute_of(nodes[0], "iou_threshold")
    return Cut(boxes, scores, None if iou is None else float(iou), nodes[0].op_type)


def cut_before_nms(model: onnx.ModelProto) -> Cut | None:
    """Cut, in place, a simplified graph of fixed sizes before its NonMaxSuppression; None where there is none.

    Boxes are the last tensor on the way to it with a row of four for each cell, before anything chooses rows by their
    values; scores the last with the same rows on a way of their own.
    """
    nodes = [node for node in model.graph.node if node.op_type == NMS]
    if not nodes:
        return None
    if len(nodes) > 1:
        raise GraphError(f"the graph suppresses boxes {len(nodes)} times; export it with one NMS or none")
    (node,) = nodes
    shapes, makers = _shapes(model), producers(model)
    chosen = _after_choosing(model)
    to_boxes = [name for name in _ancestors(node.input[0], makers) if name not in chosen]
    boxes = next((name for name in to_boxes if _rows(shapes.get(name), 4)), None)
    behind = set(_ancestors(boxes, makers)) if boxes else set()
    rows = _rows(shapes[boxes], 4) if boxes else 0
    to_scores = [n for n in _ancestors(node.input[1], makers) if n not in chosen and n not in behind]
    whole = [n for n in to_scores if n not in makers or makers[n].op_type not in BEST]  # not the best class alone
    scores = next((name for name in whole if _columns(shapes.get(name), rows)), None)
    if boxes is None or scores is None:
        raise GraphError(
            f"the graph suppresses boxes by '{node.name or node.output[0]}', and no tensors before it hold a box and "
            "scores for each cell; export it without NMS"
        )
    iou = _constant(model, node.input[3]) if len(node.input) > 3 and node.input[3] else DEFAULT_IOU
    with_outputs(model, (boxes, scores))
    return Cut(boxes, scores, iou, NMS)


def with_outputs(model: onnx.ModelProto, names: tuple[str, ...]) -> None:
    """Give a graph these outputs, in place, and drop what they do not need."""
    makers = producers(model)
    needed = {id(makers[name]) for out in names for name in _ancestors(out, makers) if name in makers}
    kept = [node for node in model.graph.node if id(node) in needed]
    kept = [type(node).FromString(node.SerializeToString()) for node in kept]
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    del model.graph.node[:], model.graph.output[:], model.graph.value_info[:]
    model.graph.node.extend(kept)
    model.graph.output.extend(
        helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), None) for name in names
    )
    used = {name for node in kept for name in node.input}
    tensors = [type(t).FromString(t.SerializeToString()) for t in model.graph.initializer if t.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)


def _ancestors(start: str, makers: dict[str, onnx.NodeProto]) -> Iterator[str]:
    """A tensor and all that it is made of, the nearest first."""
    waiting, seen = [start], {start}
    while waiting:
        name = waiting.pop(0)
        yield name
        node = makers.get(name)
        for source in node.input if node is not None else ():
            if source and source not in seen:
                seen.add(source)
                waiting.append(source)


def _after_choosing(model: onnx.ModelProto) -> set[str]:
    """Tensors whose rows were chosen by their values."""
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type in CHOOSING or found.intersection(node.input):
            found.update(node.output)
    return found


def _rows(shape: tuple[int, ...] | None, columns: int) -> int:
    """M of 1 x M x `columns`; 0 for another shape."""
    return shape[1] if shape is not None and len(shape) == 3 and shape[0] == 1 and shape[2] == columns else 0


def _columns(shape: tuple[int, ...] | None, rows: int) -> int:
    """C of 1 x `rows` x C or 1 x C x `rows`; 0 for another shape."""
    if shape is None or len(shape) != 3 or shape[0] != 1 or rows not in shape[1:]:
        return 0
    return shape[2] if shape[1] == rows else shape[1]


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.elem_type in (TensorProto.FLOAT, 0) and kind.HasField("shape"):
            shapes[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
    return shapes


def _constant(model: onnx.ModelProto, name: str) -> float | None:
    tensor = constants(model).get(name)
    return None if tensor is None else float(np.asarray(array_of(tensor)).ravel()[0])

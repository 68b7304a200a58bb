"""A batch that an exporter baked in, made free: the batch axis followed through the graph, constants with it rewritten.

Exporters that are given one crop write its batch into Reshape and Expand targets, and fold what is broadcast to it into
constants. Each operator's rule says where the batch axis goes; where an operator does not keep it, the graph
cannot be freed, and the reason is told. The result is a proposal: whoever asks proves it with several crops.

    reason = free_batch(model, batch=1)            # None: rewritten in place
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from sdk.toolchain.graphs import array_of, attribute_of, initializers, producers

__all__ = ["free_batch"]

Shape = tuple[int, ...]
FIRST_ONLY = {  # the batch is their first axis by definition
    "Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "MaxPool",
    "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "DepthToSpace", "SpaceToDepth", "Resize", "PRelu",
}  # fmt: skip
RESHAPES = {"Reshape", "Squeeze", "Unsqueeze", "Flatten"}
REDUCING = {
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare", "ArgMax", "ArgMin",
}  # fmt: skip
ALONG = {"Softmax", "LogSoftmax", "Split", "LayerNormalization", "CumSum", "TopK", "LpNormalization"}
Rule = Callable[[onnx.NodeProto, list[str]], int]


class _LostError(Exception):
    """An operator does not keep the batch axis."""


def free_batch(model: onnx.ModelProto, batch: int) -> str | None:
    """Rewrite a graph of a fixed batch, its input declared free already, in place; why it cannot be, or None."""
    shapes = _shapes(model, batch)
    walk = _Walk(model, shapes, batch)
    try:
        walk.go()
    except _LostError as lost:
        return str(lost)
    del model.graph.value_info[:]
    return None


class _Walk:
    def __init__(self, model: onnx.ModelProto, shapes: dict[str, Shape], batch: int) -> None:
        self._model, self._shapes, self._batch = model, shapes, batch
        self._constants = initializers(model)
        self._axis: dict[str, int] = {value.name: 0 for value in model.graph.input if value.name not in self._constants}
        self._source = next(iter(self._axis))
        self._makers = producers(model)
        self._nodes: list[onnx.NodeProto] = []
        self._rules: tuple[tuple[set[str], Rule], ...] = (
            (RESHAPES, self._reshape),
            (FIRST_ONLY, self._stay_first),
            (REDUCING, self._reduced),
            (ALONG, self._along),
            ({"Transpose"}, self._transpose),
            ({"Concat"}, self._concat),
            ({"MatMul", "Gemm"}, self._product),
            ({"Gather"}, self._gather),
            ({"Expand"}, self._expand),
        )

    def go(self) -> None:
        for node in self._model.graph.node:
            found = [(index, name) for index, name in enumerate(node.input) if name in self._axis]
            if found and node.op_type not in ("Shape", "Size"):
                axis = self._followed(node, [name for _, name in found])
                for name in node.output:
                    if name:
                        self._axis[name] = axis
            self._nodes.append(node)
        del self._model.graph.node[:]
        self._model.graph.node.extend(self._nodes)

    def _followed(self, node: onnx.NodeProto, names: list[str]) -> int:
        """The batch axis of the node's outputs."""
        for operators, rule in self._rules:
            if node.op_type in operators:
                return rule(node, names)
        return self._broadcast(node, names)

    def _transpose(self, node: onnx.NodeProto, names: list[str]) -> int:
        perm = list(attribute_of(node, "perm", range(len(self._known(names[0])) - 1, -1, -1)))
        return perm.index(self._axis[names[0]])

    def _stay_first(self, node: onnx.NodeProto, names: list[str]) -> int:
        return 0 if self._axis[names[0]] == 0 else self._lose(node)

    def _along(self, node: onnx.NodeProto, names: list[str]) -> int:
        """Operators that work along one axis, or along all from one on."""
        axis, op = self._axis[names[0]], node.op_type
        touched = attribute_of(node, "axis", 0 if op == "Split" else -1) % len(self._known(names[0]))
        kept = axis < touched if op == "LayerNormalization" else axis != touched
        return axis if kept else self._lose(node)

    def _reshape(self, node: onnx.NodeProto, names: list[str]) -> int:
        """The axis whose place in memory is the batch's: as much lies before it as before."""
        axis, have, gets = self._axis[names[0]], self._known(names[0]), self._known(node.output[0])
        before = prod(have[:axis])
        places = [i for i in range(len(gets)) if prod(gets[:i]) == before and gets[i] % self._batch == 0]
        if not places:
            return self._lose(node)
        place = axis if axis in places else places[0]
        if node.op_type == "Reshape" and node.input[1] in self._constants:
            target = [-1 if i == place else size for i, size in enumerate(gets)]
            self._give_target(node, np.array(target, np.int64))
        elif node.op_type == "Squeeze" and axis in [a % len(have) for a in self._list(node, 1) or range(len(have))]:
            self._merge(node, [-1 if i == place else size for i, size in enumerate(gets)])
        return place

    def _merge(self, node: onnx.NodeProto, target: list[int]) -> None:
        """A batch of one that is squeezed away becomes one with the next axis: a Reshape."""
        node.op_type = "Reshape"
        del node.attribute[:], node.input[1:]
        node.input.append("")
        self._give_target(node, np.array(target, np.int64))

    def _expand(self, node: onnx.NodeProto, names: list[str]) -> int:
        gets, rank = self._known(node.output[0]), len(self._known(names[0]))
        axis = self._axis[names[0]] + len(gets) - rank
        if node.input[1] in self._constants:
            self._give_target(node, np.array([1 if i == axis else size for i, size in enumerate(gets)], np.int64))
        return axis

    def _concat(self, node: onnx.NodeProto, names: list[str]) -> int:
        axis = self._axis[names[0]]
        rank = len(self._known(names[0]))
        if attribute_of(node, "axis", 0) % rank == axis or any(self._axis[name] != axis for name in names):
            return self._lose(node)
        for index, name in enumerate(node.input):
            if name not in self._axis:
                node.input[index] = self._repeated(name, axis, rank)
        return axis

    def _repeated(self, name: str, axis: int, rank: int) -> str:
        """A tensor without a batch, given the input's: exporters fold what is expanded to one crop into a constant."""
        sizes, made = f"{name}_sizes", f"{name}_repeated"
        if made in self._shapes:
            return made
        shape = self._known(name)
        if len(shape) != rank or shape[axis] not in (1, self._batch):
            raise _LostError(f"'{name}' is joined to the batch and has {shape[axis]} rows of its own")
        source = name
        if shape[axis] != 1:
            source = self._first_row(name, axis)
        parts = []
        for place in range(rank):
            parts.append(
                self._batch_size() if place == axis else self._constant(f"{name}_{place}", np.array([1], np.int64))
            )
        self._nodes.append(helper.make_node("Concat", parts, [sizes], axis=0))
        self._nodes.append(helper.make_node("Expand", [source, sizes], [made]))
        self._shapes[made] = shape
        return made

    def _first_row(self, name: str, axis: int) -> str:
        tensor = self._constants.get(name)
        rows = None if tensor is None else array_of(tensor)
        if rows is None or not all(
            np.array_equal(rows.take([0], axis), rows.take([i], axis)) for i in range(self._batch)
        ):
            raise _LostError(f"'{name}' is joined to the batch and differs from crop to crop")
        return self._constant(f"{name}_row", rows.take([0], axis))

    def _batch_size(self) -> str:
        """The input's number of crops, as a tensor."""
        made = "/batch/size"
        if made not in self._shapes:
            self._nodes.append(helper.make_node("Shape", [self._source], [made], name="/batch/Shape", start=0, end=1))
            self._shapes[made] = (1,)
        return made

    def _product(self, node: onnx.NodeProto, names: list[str]) -> int:
        left, right = node.input[0], node.input[1]
        rank = len(self._known(node.output[0]))
        if node.op_type == "Gemm":
            kept = names == [left] and self._axis[left] == 0 and not attribute_of(node, "transA", 0)
            return 0 if kept else self._lose(node)
        axes = set()
        for name in names:
            ranks = len(self._known(name))
            contracted = ranks - 1 if name == left else ranks - 2
            if self._axis[name] == contracted:
                return self._lose(node)
            axes.add(self._axis[name] + rank - ranks)
        return (
            axes.pop() if len(axes) == 1 and (len(names) == 2 or right not in names or rank > 2) else self._lose(node)
        )

    def _gather(self, node: onnx.NodeProto, names: list[str]) -> int:
        axis, rank, touched = self._axis[names[0]], len(self._known(names[0])), attribute_of(node, "axis", 0)
        if node.input[0] not in self._axis or touched % rank == axis:
            return self._lose(node)
        grown = len(self._known(node.output[0])) - rank
        return axis + grown if axis > touched % rank else axis

    def _reduced(self, node: onnx.NodeProto, names: list[str]) -> int:
        rank, axis = len(self._known(names[0])), self._axis[names[0]]
        axes = self._list(node, 1) if node.op_type.startswith("Reduce") else [attribute_of(node, "axis", 0)]
        touched = {a % rank for a in axes} if axes else set(range(rank))
        if axis in touched:
            return self._lose(node)
        return axis if attribute_of(node, "keepdims", 1) else axis - sum(a < axis for a in touched)

    def _broadcast(self, node: onnx.NodeProto, names: list[str]) -> int:
        """Elementwise operators, aligned at the right, and whatever leaves the axes where they are."""
        rank = len(self._known(node.output[0]))
        axes = {self._axis[name] + rank - len(self._known(name)) for name in names}
        axis = axes.pop()
        kept = not axes and 0 <= axis < rank and self._known(node.output[0])[axis] % self._batch == 0
        return axis if kept else self._lose(node)

    def _lose(self, node: onnx.NodeProto) -> int:
        raise _LostError(f"node '{node.name or node.output[0]}' ({node.op_type}) does not keep crops apart")

    def _known(self, name: str) -> Shape:
        if name not in self._shapes:
            raise _LostError(f"the shape of '{name}' cannot be told")
        return self._shapes[name]

    def _list(self, node: onnx.NodeProto, index: int) -> list[int] | None:
        tensor = self._constants.get(node.input[index]) if len(node.input) > index else None
        return None if tensor is None else [int(value) for value in array_of(tensor).ravel()]

    def _give_target(self, node: onnx.NodeProto, array: NDArray[Any]) -> None:
        node.input[1] = self._constant(f"{node.output[0]}_target", array)

    def _constant(self, name: str, array: NDArray[Any]) -> str:
        if name not in self._constants:
            self._model.graph.initializer.append(numpy_helper.from_array(array, name))
            self._constants[name] = self._model.graph.initializer[-1]
        return name


def _shapes(model: onnx.ModelProto, batch: int) -> dict[str, Shape]:
    """Shapes for a batch of this size, wherever they can be inferred whole."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in copy.graph.input:
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = batch
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes

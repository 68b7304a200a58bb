"""FP32 matrix products for Turing GPUs. TensorRT-RTX 1.7 builds none (MatMul, Gemm) for compute capability 7.5, and one
such node fails the build for all targets. Here they are written as what it does build, still in FP32:

- by a stored matrix: a 1x1 convolution over the features;
- of two activations (attention): products element by element, and their sum, where there are few enough.

Products in FP16 are left alone. The plan alone is made of the graph that is written here; the engine keeps its own.

    model = turing_graph_from_graph(model)       # GraphError names what can be written in neither way
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sdk.errors import GraphError
from sdk.toolchain.graphs import array_of, initializers, opset_of
from sdk.toolchain.precision import element_types

__all__ = ["TURING", "turing_graph_from_graph"]

TURING = "7.5"
MOST_PRODUCTS = (
    10_000_000  # a node and person: the GAU of 133 joints has 9.1 million, a layer of TokenPose 14.3 million
)
AXES_AS_INPUTS = 13  # the opset from which Unsqueeze, Squeeze and ReduceSum take their axes as an input
PRODUCTS = ("MatMul", "Gemm", "Einsum", "Attention")
Float32Array = NDArray[np.float32]


def turing_graph_from_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` without FP32 matrix products. GraphError lists those that cannot be written otherwise."""
    written = onnx.ModelProto()
    written.CopyFrom(model)
    _Writer(written).write()
    return written


class _RefusedError(Exception):
    """Why one product cannot be written otherwise."""


class _Writer:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._opset = opset_of(model)
        self._types = element_types(model)
        self._weights = initializers(model)
        self._shapes = _shapes(model)

    def write(self) -> None:
        nodes: list[onnx.NodeProto] = []
        refused: list[str] = []
        for node in self._graph.node:
            try:
                nodes.extend(self._written(node) if self._is_fp32_product(node) else [node])
            except _RefusedError as reason:
                refused.append(f"node '{node.name or node.output[0]}' ({node.op_type}) {reason}")
        if refused:
            raise GraphError(
                f"TensorRT-RTX builds no FP32 matrix product for compute capability {TURING}, and {len(refused)} of "
                f"this graph cannot be written otherwise: {'; '.join(refused[:3])}; build with --precision fp16, leave "
                f"{TURING} out, or use --compiler tensorrt on the device"
            )
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _is_fp32_product(self, node: onnx.NodeProto) -> bool:
        return node.op_type in PRODUCTS and self._types.get(node.input[0]) == TensorProto.FLOAT

    def _written(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        if self._opset < AXES_AS_INPUTS:
            raise _RefusedError(f"is of opset {self._opset}, below {AXES_AS_INPUTS}")
        if node.op_type == "MatMul":
            left, right = node.input
            if right in self._weights and len(self._weights[right].dims) == 2:
                return list(self._convolution(node, left, array_of(self._weights[right]), None))
            return list(self._sums(node, left, right))
        if node.op_type == "Gemm":
            return list(self._convolution(node, node.input[0], *self._gemm_weights(node)))
        raise _RefusedError("is not a plain product")

    def _gemm_weights(self, node: onnx.NodeProto) -> tuple[Float32Array, Float32Array | None]:
        """K x J, and J or None."""
        options: dict[str, Any] = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if options.get("transA", 0) or not all(name in self._weights for name in node.input[1:]):
            raise _RefusedError("has no stored right side, or a transposed left one")
        right, *bias = (array_of(self._weights[name]) for name in node.input[1:])
        weights = (right.T if options.get("transB", 0) else right) * np.float32(options.get("alpha", 1.0))
        if not bias:
            return weights, None
        if bias[0].ndim > 1 and len(bias[0]) > 1:
            raise _RefusedError("adds another bias to each row")
        added = bias[0].reshape(-1) * np.float32(options.get("beta", 1.0))
        return weights, np.broadcast_to(added, weights.shape[1:])

    def _convolution(
        self, node: onnx.NodeProto, left: str, weights: Float32Array, bias: Float32Array | None
    ) -> Iterator[onnx.NodeProto]:
        """left (N x ... x K) by weights (K x J), as a convolution of K to J channels whose kernel is one point."""
        rank, out = len(self._shape(left)), node.output[0]
        if rank > 4:
            raise _RefusedError(f"has a left side of {rank} axes")
        points = max(rank - 2, 1)
        kernel = np.ascontiguousarray(weights.T).reshape(*weights.T.shape, *[1] * points)
        inputs = [f"{out}/features", self._stored(f"{out}/kernel", kernel)]
        inputs += [] if bias is None else [self._stored(f"{out}/bias", np.ascontiguousarray(bias))]
        convolve = helper.make_node("Conv", inputs, [f"{out}/convolved"], name=f"{node.name}/convolution")
        if rank == 2:
            last = self._stored(f"{out}/axis", np.array([2], np.int64))
            yield helper.make_node("Unsqueeze", [left, last], [f"{out}/features"], name=f"{node.name}/features")
            yield convolve
            yield helper.make_node("Squeeze", [f"{out}/convolved", last], [out], name=f"{node.name}/back")
            return
        to, back = [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]
        yield helper.make_node("Transpose", [left], [f"{out}/features"], name=f"{node.name}/features", perm=to)
        yield convolve
        yield helper.make_node("Transpose", [f"{out}/convolved"], [out], name=f"{node.name}/back", perm=back)

    def _sums(self, node: onnx.NodeProto, left: str, right: str) -> Iterator[onnx.NodeProto]:
        """left (... x I x K) by right (... x K x J): ... x I x 1 x K times ... x 1 x J x K, summed over K."""
        shapes, out = (self._shape(left), self._shape(right)), node.output[0]
        rank = len(shapes[0])
        if len(shapes[1]) != rank or rank < 3:
            raise _RefusedError(f"multiplies {len(shapes[0])} axes by {len(shapes[1])}")
        sizes = [*map(max, shapes[0][1:-2], shapes[1][1:-2]), *shapes[0][-2:], shapes[1][-1]]  # without the batch
        if 0 in sizes or prod(sizes) > MOST_PRODUCTS:
            told = "an unknown number of" if 0 in sizes else f"{prod(sizes) / 1e6:.1f} million"
            raise _RefusedError(f"multiplies {told} numbers a person, more than {MOST_PRODUCTS / 1e6:g} million")
        axes = {place: self._stored(f"{out}/axis{place}", np.array([place], np.int64)) for place in (-1, -2, -3)}
        swap = [*range(rank - 2), rank - 1, rank - 2]
        yield helper.make_node("Transpose", [right], [f"{out}/turned"], name=f"{node.name}/turned", perm=swap)
        yield helper.make_node("Unsqueeze", [left, axes[-2]], [f"{out}/rows"], name=f"{node.name}/rows")
        yield helper.make_node(
            "Unsqueeze", [f"{out}/turned", axes[-3]], [f"{out}/columns"], name=f"{node.name}/columns"
        )
        yield helper.make_node("Mul", [f"{out}/rows", f"{out}/columns"], [f"{out}/terms"], name=f"{node.name}/terms")
        yield helper.make_node("ReduceSum", [f"{out}/terms", axes[-1]], [out], name=f"{node.name}/sum", keepdims=0)

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            raise _RefusedError(f"takes '{name}', whose shape is not known")
        return self._shapes[name]

    def _stored(self, name: str, array: NDArray[Any]) -> str:
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor that has one; 0 for a size that is not a number."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return shapes

"""Which nodes of a float graph must stay FP32 when the rest becomes FP16: found by pattern, never by name.

FP16 ends at 65,504. What passes it in pose networks, and how far its FP32 island reaches:
- a sum of squares (ScaleNorm, RMSNorm, a decomposed LayerNorm): with 48 features it overflows above RMS 37. From the
  square to the division (or product) that applies the norm to the data;
- a power of two or more (GAU's relu(q k)^2, GELU's x^3): overflows above 256 (40). From the product of two activations
  that feeds it, if one does, to the next bounded or normalising operator, a convolution, or the output;
- an exponential that is summed (log-sum-exp): overflows above 11; TensorRT takes no maximum away first. To the
  logarithm or division that ends it;
- a constant that FP16 cannot hold: its consumers;
- numbers made from shapes: they address, and addresses must be exact.

    islands = find_islands(model)          # node name -> reason
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from sdk.toolchain.graphs import array_of, consumers, initializers, producers

__all__ = ["find_islands"]

LARGEST = float(np.finfo(np.float16).max)
SMALLEST = float(np.finfo(np.float16).smallest_subnormal)
SUMS_OF_SQUARES = {"ReduceL2", "ReduceSumSquare", "LpNormalization"}
SUMS = {"ReduceSum", "ReduceMean"}
NORM_CHAIN = {"Sqrt", "Reciprocal", "Clip", "Max", "Add", "Mul", "Div", "Pow", "Cast", "Identity"}
BOUNDED = {
    "Sigmoid", "HardSigmoid", "Tanh", "Erf", "Softmax", "LayerNormalization", "InstanceNormalization",
    "GroupNormalization", "BatchNormalization", "Conv", "ConvTranspose", "QuantizeLinear", "Shape", "ArgMax",
}  # fmt: skip
SCALING = {"Relu", "LeakyRelu", "Mul", "Div", "Add", "Sub", "Identity", "Cast"}


def find_islands(model: onnx.ModelProto) -> dict[str, str]:
    """Names of the nodes that stay FP32, each with the reason."""
    return _Finder(model).find()


class _Finder:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._nodes = list(model.graph.node)
        self._constants = initializers(model)
        self._makers = producers(model)
        self._takers = consumers(model)
        self._found: dict[str, str] = {}

    def find(self) -> dict[str, str]:
        for node in self._nodes:
            if reason := self._unfit_constant(node):
                self._keep(node, reason)
            if node.op_type in SUMS_OF_SQUARES:
                self._keep_norm(node)
            elif node.op_type in SUMS and (square := self._square_before(node)):
                self._keep(square, "sum of squares")
                self._keep_norm(node)
            elif node.op_type in ("Exp", "ReduceLogSumExp"):
                self._keep_exponential(node)
            elif self._power(node) >= 2 and not self._feeds_sum(node):
                self._keep_power(node)
        return self._found

    def _keep(self, node: onnx.NodeProto, reason: str) -> None:
        self._found.setdefault(node.name, reason)

    def _keep_norm(self, start: onnx.NodeProto) -> None:
        """The sum, the scalars that follow it, and the operators that bring the norm to the data."""
        queue = [start]
        while queue:
            node = queue.pop()
            self._keep(node, "sum of squares")
            for taker in self._after(node):
                if taker.op_type in NORM_CHAIN:
                    if self._brings_norm(taker, node):
                        self._keep(taker, "sum of squares")
                    else:
                        queue.append(taker)

    def _brings_norm(self, taker: onnx.NodeProto, node: onnx.NodeProto) -> bool:
        """Whether `taker` joins the norm with data that the norm was not made of alone."""
        others = [name for name in taker.input if name and name not in node.output]
        return taker.op_type in ("Div", "Mul") and any(name not in self._constants for name in others)

    def _keep_exponential(self, start: onnx.NodeProto) -> None:
        """The exponential, and what follows it up to the logarithm or the division that makes it small again."""
        queue = [start]
        while queue:
            node = queue.pop()
            self._keep(node, "sum of exponentials")
            if node.op_type in ("Exp", *SUMS, "Add"):
                queue.extend(taker for taker in self._after(node) if taker.op_type in (*SUMS, "Add", "Log", "Div"))

    def _keep_power(self, start: onnx.NodeProto) -> None:
        self._keep(start, "square or higher power")
        for node in self._scaled_product_before(start):
            self._keep(node, "product that is then raised to a power")
        queue = self._after(start)
        seen: set[str] = set()
        while queue:
            node = queue.pop()
            if node.op_type in BOUNDED or node.name in seen:
                continue
            seen.add(node.name)
            self._keep(node, "downstream of a square or higher power, not yet bounded")
            queue.extend(self._after(node))

    def _scaled_product_before(self, start: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Back from a power through scalings and activations to the product of two activations, if there is one."""
        passed: list[onnx.NodeProto] = []
        node: onnx.NodeProto | None = start
        while node is not None:
            node = self._makers.get(node.input[0])
            if node is None or node.op_type not in (*SCALING, "MatMul", "Einsum", "Gemm"):
                return
            passed.append(node)
            if node.op_type not in SCALING:
                if not any(map(self._is_constant, node.input)):
                    yield from passed
                return

    def _is_constant(self, name: str) -> bool:
        """Whether `name` is a constant, an INT8 weight and its scale included."""
        maker = self._makers.get(name)
        stored = maker is not None and maker.op_type == "DequantizeLinear" and maker.input[0] in self._constants
        return name in self._constants or stored

    def _after(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        return [taker for name in node.output for taker in self._takers.get(name, [])]

    def _feeds_sum(self, node: onnx.NodeProto) -> bool:
        return any(taker.op_type in SUMS for taker in self._after(node))

    def _square_before(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        maker = self._makers.get(node.input[0])
        return maker if maker is not None and self._power(maker) >= 2 else None

    def _power(self, node: onnx.NodeProto) -> float:
        """The power to which `node` raises its input; 0 when it raises none."""
        if node.op_type == "Mul" and node.input[0] == node.input[1]:
            return 2
        if node.op_type == "Pow" and node.input[1] in self._constants:
            return float(np.max(array_of(self._constants[node.input[1]])))
        return 0

    def _unfit_constant(self, node: onnx.NodeProto) -> str | None:
        if node.op_type == "Cast" and self._makers.get(node.input[0], node).op_type in ("Shape", "Size", "Gather"):
            return "a number made from a shape"
        for name in node.input:
            tensor = self._constants.get(name)
            if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT or node.op_type == "Resize":
                continue
            sizes = np.abs(array_of(tensor))
            sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
            if sizes.size and (sizes.max() > LARGEST or sizes.max() < SMALLEST):
                return f"constant '{name}' does not fit FP16"
        return None

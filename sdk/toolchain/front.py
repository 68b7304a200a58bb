"""What a graph takes, and its front part put into our form: N x 3 x h x w float32, normalised outside.

Graphs take float32, float16 or uint8 crops, N x 3 x h x w or N x h x w x 3; some subtract a mean and divide by a
deviation themselves, or turn the colour channels round. What lies between the input and the first operator that is
none of these is the front: `a x + b` a channel. It is taken out of the graph and becomes the recipe's mean and standard
deviation, which the fused crop applies for nothing.

    front = front_of(model, size_hw=(256, 192), subject="'end2end.onnx'")
    settled = settle(front, recipe, pixels=None, colour=None, subject="'end2end.onnx'")
    put_in_our_form(model, front, settled)
    feed = front.fed(crops, settled)                # what the original graph takes, of the same crops
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sdk.errors import GraphError
from sdk.recipe import Recipe
from sdk.toolchain.graphs import GraphTensor, array_of, consumers, described, graph_inputs, graph_outputs, initializers

__all__ = ["Front", "Pixels", "Settled", "front_of", "listed", "put_in_our_form", "settle"]

Pixels = Literal["normalised", "0..255", "0..1"]
Layout = Literal["N x 3 x h x w", "N x h x w x 3"]
Array = NDArray[Any]
DTYPES = ("float32", "float16", "uint8")
TO_NCHW, TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]
CLOSE = 5e-3  # of a mean or a deviation: 0.485 and 0.225 are rounded to as much


@dataclass(frozen=True)
class Front:
    """The input and what follows. `scale`, `bias`: of each channel, in the input's order; None without arithmetic."""

    name: str
    dtype: str
    layout: Layout
    size_hw: tuple[int, int]
    batch: int | None  # fixed by the declaration
    body: str  # the tensor with which the network proper begins
    nodes: tuple[int, ...]  # between input and body, by place in the graph
    body_layout: Layout
    turns: bool  # the channels are turned round on the way
    scale: Array | None
    bias: Array | None
    batch_norm: bool  # the network proper begins with a batch normalisation, which may be one of plain pixels

    @property
    def mean(self) -> tuple[float, ...] | None:
        """Subtracted inside, in the input's own unit."""
        return None if self.scale is None or self.bias is None else tuple(float(v) for v in -self.bias / self.scale)

    @property
    def std(self) -> tuple[float, ...] | None:
        return None if self.scale is None else tuple(float(v) for v in 1 / self.scale)

    def fed(self, crops: NDArray[np.uint8], settled: Settled) -> Array:  # N x h x w x 3, in the recipe's colour order
        """The same crops as the original graph takes them."""
        values = crops.astype(np.float64)
        if settled.pixels == "0..1":
            values /= 255
        elif settled.pixels == "normalised":
            values = (values - settled.recipe.input.mean) / settled.recipe.input.std
        ordered = values.transpose(0, 3, 1, 2) if self.layout == "N x 3 x h x w" else values
        return np.ascontiguousarray(ordered.astype(self.dtype))


@dataclass(frozen=True)
class Settled:
    """How the input's values are to be read, and the recipe of the graph in our form."""

    pixels: Pixels
    recipe: Recipe
    notes: tuple[str, ...]


def front_of(model: onnx.ModelProto, size_hw: tuple[int, int] | None, subject: str, dtype: str | None = None) -> Front:
    """The front of a graph in float32; `dtype`: of its input as the file has it. GraphError where it takes no crops."""
    inputs = graph_inputs(model)
    source = inputs[0] if len(inputs) == 1 and len(inputs[0].shape) == 4 else None
    kind = dtype or (source.dtype if source else "")
    layout = None if source is None else _layout(source.shape, size_hw)
    if source is None or layout is None or kind not in DTYPES:
        h, w = size_hw or ("h", "w")
        raise GraphError(
            f"{subject} must have one input, crops of float32, float16 or uint8 with the shape N x 3 x {h} x {w} or "
            f"N x {h} x {w} x 3; {listed(model)}"
        )
    found = _sizes(source, layout)
    if size_hw is None and not all(isinstance(size, int) for size in found):
        raise GraphError(f"{subject} does not say its input size ({described(inputs)}); give --size HxW or a RECIPE")
    height, width = size_hw or (int(found[0]), int(found[1]))
    batch = source.shape[0] if isinstance(source.shape[0], int) and source.shape[0] > 0 else None
    walk = _Walk(model, source.name, layout)
    return Front(source.name, kind, layout, (height, width), batch, *walk.result())


def settle(front: Front, recipe: Recipe, *, pixels: Pixels | None, colour: str | None, subject: str) -> Settled:
    """What the input's values are, from what the graph says, what is asked for by name, and the recipe."""
    if front.dtype == "uint8" and pixels in ("normalised", "0..1"):
        raise GraphError(f"{subject} takes uint8, which can hold grey levels only; leave --pixels {pixels} out")
    inside = front.mean is not None and pixels != "normalised"
    if front.batch_norm and front.mean is None and front.dtype != "uint8" and pixels is None:
        raise GraphError(
            f"{subject} begins with a batch normalisation of its input, which may be one of plain pixels; say what it "
            "is fed with, --pixels 0..255, 0..1 or normalised"
        )
    if front.dtype != "uint8" and not inside and pixels in (None, "normalised"):
        return Settled("normalised", recipe, _turned(front))
    unit = {"0..255": 1.0, "0..1": 255.0}[pixels] if pixels and pixels != "normalised" else None
    if unit is None:
        unit = 1.0 if front.dtype == "uint8" else _unit(front, recipe, subject)
    mean = np.asarray(front.mean or (0, 0, 0)) * unit
    std = np.asarray(front.std or (1, 1, 1)) * unit
    order = _order(front, recipe, mean, colour, subject)
    used = replace(
        recipe,
        input=replace(recipe.input, mean=_triple(mean), std=_triple(std), colour=order),
    )
    where = "taken out of the graph and done by the crop" if inside else "of plain pixels"
    notes = (
        f"the graph takes {front.dtype} pixels, {'0..255' if unit == 1.0 else '0..1'}: normalisation {where}, "
        f"mean {_numbers(mean)}, std {_numbers(std)}",
    )
    return Settled("0..255" if unit == 1.0 else "0..1", used, (*notes, *_turned(front)))


def put_in_our_form(model: onnx.ModelProto, front: Front, settled: Settled) -> tuple[str, ...]:
    """Give `model` an input N x 3 x h x w float32 in place of its front. What was changed, a sentence each."""
    notes = []
    value = next(value for value in model.graph.input if value.name == front.name)
    keep = settled.pixels == "normalised" and front.scale is not None
    body, layout = (front.name, front.layout) if keep else (front.body, front.body_layout)
    added: list[onnx.NodeProto] = []
    tensor = front.name
    if not keep and front.turns:
        tensor = _add(model, added, "Gather", tensor, axis=1, indices=[2, 1, 0])
    if layout == "N x h x w x 3":
        tensor = _add(model, added, "Transpose", tensor, perm=TO_NHWC)
    if front.layout != "N x 3 x h x w":
        notes.append(f"the graph takes {front.layout}: its crops are given as N x 3 x h x w")
    kept = [node for place, node in enumerate(model.graph.node) if keep or place not in front.nodes]
    for node in kept:
        node.input[:] = [tensor if name == body else name for name in node.input]
    del model.graph.node[:]
    model.graph.node.extend([*added, *kept])
    value.CopyFrom(helper.make_tensor_value_info(front.name, TensorProto.FLOAT, ["batch", 3, *front.size_hw]))
    del model.graph.value_info[:]
    return tuple(notes)


def listed(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]] | None = None) -> str:
    """Inputs and outputs in one line, for messages; `shapes`: as measured."""
    outputs = graph_outputs(model)
    if shapes:
        outputs = tuple(GraphTensor(t.name, t.dtype, shapes.get(t.name, t.shape)) for t in outputs)
    return f"inputs: {described(graph_inputs(model))}; outputs: {described(outputs)}"


class _Walk:
    """From the input through casts, transpositions, channel turns and arithmetic to the first other operator."""

    def __init__(self, model: onnx.ModelProto, start: str, layout: Layout) -> None:
        self._takers = consumers(model)
        self._outputs = {value.name for value in model.graph.output}
        self._constants = {name: array_of(tensor) for name, tensor in initializers(model).items() if _small(tensor)}
        self._constants |= {n.output[0]: helper.get_node_attr_value(n, "value") for n in _constants(model)}
        self._places = {id(node): place for place, node in enumerate(model.graph.node)}
        self._tensor, self._axis = start, 1 if layout == "N x 3 x h x w" else 3
        self._scale, self._bias = np.ones(3), np.zeros(3)  # in the order that the channels have at the tensor
        self._turned = self._counted = False
        self._nodes: list[int] = []
        while self._step():
            pass

    def result(self) -> tuple[str, tuple[int, ...], Layout, bool, Array | None, Array | None, bool]:
        layout: Layout = "N x 3 x h x w" if self._axis == 1 else "N x h x w x 3"
        order = [2, 1, 0] if self._turned else [0, 1, 2]
        scale, bias = (self._scale[order], self._bias[order]) if self._counted else (None, None)
        batch_norm = {node.op_type for node in self._takers.get(self._tensor, [])} == {"BatchNormalization"}
        return self._tensor, tuple(self._nodes), layout, self._turned, scale, bias, batch_norm

    def _step(self) -> bool:
        takers = self._takers.get(self._tensor, [])
        if len(takers) != 1 or self._tensor in self._outputs:
            return False
        node = takers[0]
        takes = {
            "Cast": self._cast, "Identity": lambda node: True, "Transpose": self._transpose, "Gather": self._gather,
            "Slice": self._slice, "Add": self._count, "Sub": self._count, "Mul": self._count, "Div": self._count,
        }  # fmt: skip
        if node.op_type not in takes or not takes[node.op_type](node):
            return False
        self._nodes.append(self._places[id(node)])
        self._tensor = node.output[0]
        return True

    def _cast(self, node: onnx.NodeProto) -> bool:
        return bool(helper.get_node_attr_value(node, "to") == TensorProto.FLOAT)

    def _transpose(self, node: onnx.NodeProto) -> bool:
        perm = [attribute.ints for attribute in node.attribute if attribute.name == "perm"]
        if self._axis != 3 or not perm or list(perm[0]) != TO_NCHW:
            return False
        self._axis = 1
        return True

    def _gather(self, node: onnx.NodeProto) -> bool:
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        indices = self._constants.get(node.input[1])
        return self._turn(axis % 4 == self._axis and indices is not None and _list(indices) == [2, 1, 0])

    def _slice(self, node: onnx.NodeProto) -> bool:
        starts, ends, axes, steps = (_list(self._constants.get(name)) for name in [*node.input[1:], "", ""][:4])
        backwards = steps == [-1] and starts in ([-1], [2]) and len(ends) == 1 and (ends[0] < -3)
        return self._turn(backwards and [axis % 4 for axis in axes] == [self._axis])

    def _turn(self, met: bool) -> bool:
        if met:
            self._turned = not self._turned
            self._scale, self._bias = self._scale[::-1], self._bias[::-1]
        return met

    def _count(self, node: onnx.NodeProto) -> bool:
        """Take `x op c`, or `c op x` where that is the same, into scale and bias."""
        first = node.input[0] == self._tensor
        values = self._channels(self._constants.get(node.input[1] if first else node.input[0]))
        if values is None or (not first and node.op_type in ("Sub", "Div")) or node.input[0] == node.input[1]:
            return False
        scale, bias = self._scale, self._bias
        if node.op_type in ("Add", "Sub"):
            bias = bias + values if node.op_type == "Add" else bias - values
        else:
            factor = values if node.op_type == "Mul" else 1 / np.where(values == 0, np.nan, values)
            scale, bias = scale * factor, bias * factor
        if not (np.isfinite(scale).all() and np.isfinite(bias).all() and (scale > 0).all()):
            return False
        self._scale, self._bias, self._counted = scale, bias, True
        return True

    def _channels(self, constant: Any) -> Array | None:
        """A constant as a value for each channel; None where it varies otherwise."""
        if constant is None:
            return None
        array = np.asarray(constant, np.float64)
        if array.ndim > 4:
            return None
        array = array.reshape((1,) * (4 - array.ndim) + array.shape)
        others = [size for axis, size in enumerate(array.shape) if axis != self._axis]
        if others != [1, 1, 1] or array.shape[self._axis] not in (1, 3):
            return None
        return np.broadcast_to(array.ravel(), (3,)).copy()


def _layout(shape: Sequence[int | str], size_hw: tuple[int, int] | None) -> Layout | None:
    """The layout that fits; N x 3 x h x w where the declaration leaves both open."""
    for layout, places in (("N x 3 x h x w", (1, 2, 3)), ("N x h x w x 3", (3, 1, 2))):
        found = [shape[place] for place in places]
        if all(
            isinstance(have, str) or want in (None, have)
            for have, want in zip(found, (3, *(size_hw or (None, None))), strict=True)
        ):
            return layout  # type: ignore[return-value]
    return None


def _sizes(source: GraphTensor, layout: Layout) -> tuple[int | str, int | str]:
    return (source.shape[2], source.shape[3]) if layout == "N x 3 x h x w" else (source.shape[1], source.shape[2])


def _unit(front: Front, recipe: Recipe, subject: str) -> float:
    """Grey levels to one of the input's units, where the recipe's own numbers are the graph's in one unit."""
    mean, std = np.asarray(front.mean), np.asarray(front.std)
    for unit in (1.0, 255.0):
        for order in (slice(None), slice(None, None, -1)):
            if _close(mean[order] * unit, recipe.input.mean) and _close(std[order] * unit, recipe.input.std):
                return unit
    raise GraphError(
        f"{subject} subtracts {_numbers(mean)} and divides by {_numbers(std)} inside, not as the recipe "
        f"'{recipe.name}' (mean {_numbers(recipe.input.mean)}, std {_numbers(recipe.input.std)}): say what it is fed "
        "with, --pixels 0..255, 0..1 or normalised"
    )


def _order(front: Front, recipe: Recipe, mean: Array, colour: str | None, subject: str) -> Any:
    """The colour order of the input: as asked for, else as the graph's mean beside the recipe's tells it."""
    if colour is not None:
        return colour
    straight, turned = _close(mean, recipe.input.mean), _close(mean[::-1], recipe.input.mean)
    if front.mean is None or straight == turned:  # the mean tells nothing
        straight, turned = not front.turns, False
    if straight:
        return recipe.input.colour
    if turned and front.turns:
        return "bgr" if recipe.input.colour == "rgb" else "rgb"
    raise GraphError(
        f"{subject} subtracts {_numbers(mean)} inside{' and turns the channels round' if front.turns else ''}, beside "
        f"the mean {_numbers(recipe.input.mean)} of '{recipe.name}' in {recipe.input.colour} order: say what the graph "
        "is fed with, --colour rgb or bgr"
    )


def _turned(front: Front) -> tuple[str, ...]:
    return ("the graph turns the colour channels round inside: the recipe's order is that of its input",) * front.turns


def _add(model: onnx.ModelProto, nodes: list[onnx.NodeProto], op: str, tensor: str, **values: Any) -> str:
    made = f"{tensor}_{op.lower()}"
    inputs = [tensor]
    if "indices" in values:
        indices = numpy_helper.from_array(np.array(values.pop("indices"), np.int64), f"{made}_indices")
        model.graph.initializer.append(indices)
        inputs.append(indices.name)
    nodes.append(helper.make_node(op, inputs, [made], name=f"/front/{op}", **values))
    return made


def _constants(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    nodes = (node for node in model.graph.node if node.op_type == "Constant" and node.attribute[0].name == "value")
    return [node for node in nodes if _small(node.attribute[0].t)]


def _small(tensor: onnx.TensorProto) -> bool:
    return int(np.prod(tensor.dims)) <= 4


def _list(array: Any) -> list[int]:
    return [] if array is None else np.asarray(array).ravel().tolist()


def _close(one: Any, other: Any) -> bool:
    return np.allclose(one, other, rtol=CLOSE, atol=CLOSE)


def _triple(values: Array) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _numbers(values: Any) -> str:
    return " ".join(f"{float(value):.6g}" for value in values)

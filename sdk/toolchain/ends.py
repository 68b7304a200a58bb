"""What a graph gives, and its end put into our form: SimCC logits N x K x bins, one tensor an axis (or one heatmap).

The outputs are found among those of the file, whatever their names, order and layout: N x K x W, N x W x K,
K x N x W, with or without further axes of one. Probabilities (a softmax inside) become logits again; whatever else the
graph gives is dropped. Where a graph gives decoded joints only, the tensors behind their argmax are taken.

    ends = ends_of(model, measured, wanted, names=(), subject="'end2end.onnx'")
    notes = put_ends_in_our_form(model, ends)
    logits = ends[0].seen(array)                   # an output of the original graph, N x K x W
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sdk.errors import GraphError
from sdk.recipe import Recipe
from sdk.toolchain.front import listed
from sdk.toolchain.graphs import producers

__all__ = ["End", "bins_seen", "ends_of", "inner_ends", "put_ends_in_our_form", "wanted_ends"]

Array = NDArray[Any]
Shape = tuple[int, ...]
PASSED = {"Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}
LEAST_LOG = 1e-30  # a probability of zero has no logarithm
SUM_CLOSE = 5e-3  # of a row of probabilities: FP16 sums 768 of them to within 2e-3
LARGEST_SPLIT = 8.0  # bins a pixel; published networks have 1.5 to 3


@dataclass(frozen=True)
class End:
    """One output that is used. `order`: the transposition that makes it N x K x W, after axes of one are gone."""

    name: str  # in the file
    target: str  # in our form
    shape: Shape  # K, bins; of a heatmap K, h, w
    order: tuple[int, ...] | None  # None: only a reshape
    probabilities: bool

    def seen(self, array: Array) -> Array:
        """An output of the original graph as N x K x W."""
        turned = array if self.order is None else array.reshape(_three(array.shape, self.shape)).transpose(self.order)
        return np.asarray(turned.reshape(-1, *self.shape), np.float64)


def wanted_ends(recipe: Recipe) -> dict[str, Shape]:
    """Name -> K and bins, or K, h and w, of every tensor that the recipe needs."""
    height, width = recipe.input.size_hw
    sizes = [(height // 4, width // 4)] if recipe.output.kind == "heatmap" else [(bins,) for bins in recipe.bins]
    return {name: (recipe.joints, *size) for name, size in zip(recipe.output.names, sizes, strict=True)}


def ends_of(
    model: onnx.ModelProto,
    measured: Mapping[str, Array],
    wanted: Mapping[str, Shape],
    *,
    names: Sequence[str],
    known: Mapping[str, str],
    batch: int,
    subject: str,
) -> tuple[tuple[End, ...], tuple[str, ...]]:
    """The outputs for `wanted`, in its order, and what was assumed. GraphError where they cannot be told apart.

    `names`: as asked for, in the order of `wanted`. `known`: name in the file -> name in our form, of its deploy files.
    """
    fits = {
        target: {name: order for name, array in measured.items() if (order := _order(array.shape, shape, batch)) != ()}
        for target, shape in wanted.items()
    }
    chosen, notes = _chosen(fits, wanted, names, known, subject)
    if chosen is None:
        needs = ", ".join(f"{batch} x {' x '.join(map(str, shape))}" for shape in wanted.values())
        shapes = {name: tuple(array.shape) for name, array in measured.items()}
        raise GraphError(
            f"{subject} does not give what the recipe needs: for a batch of {batch} its outputs must be {needs} "
            f"(joints and bins in any order); {listed(model, shapes)}"
        )
    ends = tuple(
        End(
            name,
            target,
            wanted[target],
            fits[target][name] or None,
            _sums_to_one(measured[name], fits[target][name], wanted[target]),
        )
        for target, name in chosen.items()
    )
    if len({end.probabilities for end in ends}) > 1:
        raise GraphError(f"{subject} gives probabilities on one axis and logits on the other; export both alike")
    return ends, notes


def inner_ends(model: onnx.ModelProto) -> tuple[str, ...]:
    """Tensors that the graph itself takes the largest bin of: the logits behind decoded joints."""
    given = {value.name for value in model.graph.output}
    makers = producers(model)
    found = (node.input[0] for node in model.graph.node if node.op_type in ("ArgMax", "TopK"))
    return tuple(name for name in dict.fromkeys(found) if name in makers and name not in given)


def bins_seen(
    measured: Mapping[str, Array], size_hw: tuple[int, int], batch: int
) -> list[tuple[str, str, int, int, int]]:
    """(x, y, K, bins along x, bins along y) of each pair of outputs that can be a SimCC pair of this input size."""
    height, width = size_hw
    found = []
    for x, y in ((x, y) for x in measured for y in measured if x != y):
        for joints, bins in _readings(measured[x].shape, batch):
            ratio = bins / width
            same = (joints, round(ratio * height)) in _readings(measured[y].shape, batch)
            if same and 1 <= ratio <= LARGEST_SPLIT and int(height * ratio) == round(ratio * height):
                found.append((x, y, joints, bins, int(height * ratio)))
    return found


def put_ends_in_our_form(model: onnx.ModelProto, ends: Sequence[End]) -> tuple[str, ...]:
    """Leave these outputs only, as logits N x K x W under our names. What was changed, a sentence each."""
    notes = []
    makers = producers(model)
    results = []
    for end in ends:
        tensor = end.name
        if end.probabilities:
            tensor, note = _as_logits(model, makers, end.name)
            notes.append(note)
        if end.order is not None:
            notes.append(f"output '{end.name}' is turned to N x K x bins")
        results.append(_turned(model, tensor, end))
    del model.graph.output[:]
    for end, tensor in zip(ends, results, strict=True):
        model.graph.node.append(
            helper.make_node("Identity", [tensor], [f"{end.target}/out"], name=f"/end/{end.target}")
        )
        model.graph.output.append(
            helper.make_tensor_value_info(f"{end.target}/out", TensorProto.FLOAT, ["batch", *end.shape])
        )
    return tuple(dict.fromkeys(notes))


def _chosen(
    fits: Mapping[str, Mapping[str, Any]],
    wanted: Mapping[str, Shape],
    names: Sequence[str],
    known: Mapping[str, str],
    subject: str,
) -> tuple[dict[str, str] | None, tuple[str, ...]]:
    """Target -> name in the file, or None; and what was assumed on the way."""
    if names:
        if len(names) != len(wanted) or not all(n in fits[target] for n, target in zip(names, wanted, strict=False)):
            shown = ", ".join(f"{target} {' x '.join(map(str, shape))}" for target, shape in wanted.items())
            raise GraphError(f"{subject}: --outputs must name one tensor for each of {shown} (got {', '.join(names)})")
        return dict(zip(wanted, names, strict=True)), ()
    told = {target: name for name, target in known.items() if target in wanted and name in fits[target]}
    if len(told) == len(wanted):
        return {target: told[target] for target in wanted}, ("outputs named by pipeline.json",)
    if all(target in fits[target] for target in wanted):
        return {target: target for target in wanted}, ()
    if not all(fits.values()):
        return None, ()
    rivals = {name for names_of in fits.values() for name in names_of}
    if len(rivals) == len(wanted) and all(len(names_of) == 1 for names_of in fits.values()):
        return {target: next(iter(names_of)) for target, names_of in fits.items()}, (_by("shape", fits),)
    return _told_apart(fits, rivals, subject)


def _told_apart(
    fits: Mapping[str, Mapping[str, Any]], rivals: set[str], subject: str
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Outputs of one shape: by an x or a y in their names, else in their order where there are no more than needed."""
    hints = {target: [n for n in names if _axis(n) == target[-1]] for target, names in fits.items()}
    if len(rivals) == len(fits) and all(len(names) == 1 for names in hints.values()):
        chosen = {target: names[0] for target, names in hints.items()}
        return chosen, (f"outputs told apart by their names: {_pairs(chosen)}",)
    if len(rivals) > len(fits):
        raise GraphError(
            f"{subject} has more outputs of the shapes that are needed than are needed ({', '.join(sorted(rivals))}); "
            "name the two with --outputs X,Y"
        )
    free = list(next(iter(fits.values())))
    chosen = {}
    for target, names in fits.items():
        chosen[target] = next(name for name in free if name in names and name not in chosen.values())
    return chosen, (
        f"outputs of one shape taken in their order, x first ({_pairs(chosen)}); --outputs X,Y says otherwise",
    )


def _by(what: str, fits: Mapping[str, Mapping[str, Any]]) -> str:
    return f"outputs found by {what}: {_pairs({target: next(iter(names)) for target, names in fits.items()})}"


def _pairs(chosen: Mapping[str, str]) -> str:
    return ", ".join(f"{target} = '{name}'" for target, name in chosen.items())


def _axis(name: str) -> str | None:
    letters = re.findall(r"(?<![A-Za-z])[xyz](?![A-Za-z])", name.lower())
    return letters[-1] if letters else None


def _order(shape: Shape, wanted: Shape, batch: int) -> tuple[int, ...] | None:
    """The transposition that makes `shape` N x K x W; None where a reshape does; () where nothing does."""
    if len(shape) < 2:
        return ()
    if tuple(shape) == (batch, *wanted) or (batch * wanted[0], *wanted[1:]) == tuple(shape):
        return None
    if len(wanted) != 2:
        return ()
    three = _three(shape, wanted)
    joints, bins = wanted
    known: dict[Shape, tuple[int, ...] | None] = {
        (batch, bins, joints): (0, 2, 1),
        (joints, batch, bins): (1, 0, 2),
        (batch, joints, bins): None,
    }
    return known.get(three, ())


def _three(shape: Shape, wanted: Shape) -> Shape:
    """`shape` without axes of one beyond the batch: three axes where it can be."""
    sizes = list(shape)
    while len(sizes) > 3 and 1 in sizes[1:]:
        sizes.pop(len(sizes) - 1 - sizes[::-1].index(1))
    return tuple(sizes if len(sizes) != 2 else (1, *sizes))


def _readings(shape: Shape, batch: int) -> list[tuple[int, int]]:
    """(K, bins) that a shape can mean; bins are more than joints' axes in no published network fewer than K."""
    three = _three(shape, ()) if len(shape) >= 2 else ()
    if len(three) != 3:
        return []
    a, b, c = three
    found = [(b, c)] if a == batch else []
    found += [(c, b)] if a == batch and c < b else []
    found += [(a, c)] if b == batch and a != batch else []
    return found


def _sums_to_one(array: Array, order: tuple[int, ...] | None, wanted: Shape) -> bool:
    """Whether an output's rows are probabilities: none negative, each of sum one."""
    if len(wanted) != 2:
        return False
    rows = End("", "", wanted, order or None, False).seen(array)
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=-1), 1, atol=SUM_CLOSE))


def _as_logits(model: onnx.ModelProto, makers: Mapping[str, onnx.NodeProto], name: str) -> tuple[str, str]:
    """The tensor without its softmax; where there is no such operator, the logarithm of the probabilities."""
    chain = list(_back(makers, name))
    if chain and chain[-1].op_type == "Softmax":
        logits = chain[-1].input[0]
        tensor = logits
        for node in reversed(chain[:-1]):  # what moves the values about is done to the logits instead
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name, copy.input[0], copy.output[0] = "", tensor, f"{node.output[0]}_of_logits"
            model.graph.node.append(copy)
            tensor = copy.output[0]
        return tensor, "softmax inside the graph taken out"
    least = numpy_helper.from_array(np.array(LEAST_LOG, np.float32), f"{name}_least")
    model.graph.initializer.append(least)
    above, logits = f"{name}_above", f"{name}_log"
    model.graph.node.append(helper.make_node("Max", [name, least.name], [above]))
    model.graph.node.append(helper.make_node("Log", [above], [logits]))
    return logits, "the graph gives probabilities: their logarithms serve as logits"


def _back(makers: Mapping[str, onnx.NodeProto], name: str) -> Iterator[onnx.NodeProto]:
    """Back from an output through operators that only move values, to the first other one."""
    node = makers.get(name)
    while node is not None:
        yield node
        if node.op_type not in PASSED:
            return
        node = makers.get(node.input[0])


def _turned(model: onnx.ModelProto, tensor: str, end: End) -> str:
    """Nodes that make an output N x K x W."""
    joints, rest = end.shape[0], end.shape[1:]
    if end.order is None:
        return _reshaped(model, tensor, (-1, joints, *rest), "rows")
    before = (-1, *rest, joints) if end.order == (0, 2, 1) else (joints, -1, *rest)
    flat = _reshaped(model, tensor, before, "axes")
    turned = f"{tensor}_turned"
    model.graph.node.append(helper.make_node("Transpose", [flat], [turned], perm=end.order))
    return turned


def _reshaped(model: onnx.ModelProto, tensor: str, shape: Shape, what: str) -> str:
    target = numpy_helper.from_array(np.array(shape, np.int64), f"{tensor}_{what}_shape")
    model.graph.initializer.append(target)
    model.graph.node.append(helper.make_node("Reshape", [tensor, target.name], [f"{tensor}_{what}"]))
    return f"{tensor}_{what}"

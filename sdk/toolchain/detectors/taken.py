"""A detector's graph made elsewhere, in our form: one fixed input 1 x 3 x h x w, outputs before any suppression.

What it is, is told by the same rules as of a file that the run time opens (`sdk.people.detector_forms`). The graph in
our form must find on pictures what the file's own graph finds there, or it is refused. All of it happens in a child
process with limits. Changes are told in the log and in `notes`, which the engine's manifest keeps.

    taken = detector_from_graph(Path("yolov8n.onnx"), DetectorTold())
    taken.model, taken.recipe, taken.notes
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sdk.detection import DetectionForm, Part
from sdk.detector_recipe import DetectorRecipe, detector_from_table
from sdk.errors import GraphError
from sdk.people.detector import FREE_SIZE_HW
from sdk.people.detector_forms import SIZES, GraphSeen, TensorSeen, Understood, size_of_metadata, understood
from sdk.strict import strict_from_table, table_from
from sdk.toolchain.detectors.cut import NMS, PLUGINS, Cut, cut_before_nms, cut_plugin, with_outputs
from sdk.toolchain.detectors.proof import Finding, check_same, finding_of
from sdk.toolchain.foreign import file_bytes, running, slimmed
from sdk.toolchain.front import listed
from sdk.toolchain.graph_files import graph_file
from sdk.toolchain.graphs import described, graph_inputs, graph_outputs, graph_session, opset_of, rename, serialized
from sdk.toolchain.limits import limited
from sdk.toolchain.opsets import in_our_form

__all__ = [
    "DetectorTold",
    "TakenDetector",
    "detector_facts",
    "detector_from_graph",
    "look_in_child",
    "take",
    "take_in_child",
]

UNSUPPRESSED = {"yolo-e2e": "yolov8"}  # a kind with its NMS inside -> what is left of it without; others stay

Array = NDArray[Any]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DetectorTold:
    """What the caller says of a graph made elsewhere; None leaves it to the graph."""

    kind: str = "auto"
    size_hw: tuple[int, int] | None = None
    person_class: int | None = None
    images: str | None = None  # a folder of photographs, for the proof


@dataclass(frozen=True)
class TakenDetector:
    """A graph in our form and its recipe."""

    model: onnx.ModelProto
    recipe: DetectorRecipe
    notes: tuple[str, ...]


def detector_from_graph(path: Path, told: DetectorTold, recipe: DetectorRecipe | None = None) -> TakenDetector:
    """The graph of an ONNX file, a deploy zip or a deploy folder in our form, proved. GraphError says what is amiss.

    With a recipe, the graph must be what the recipe says; without, one is made of what the graph says.
    """
    request = {
        "path": str(path),
        "told": table_from(told),
        "recipe": None if recipe is None else recipe.to_table(),
    }
    facts, content = limited(__name__, "take_in_child", request, subject=f"'{path}'", size=file_bytes(path))
    taken = detector_from_table(facts["recipe"], f"'{path}'")
    return TakenDetector(onnx.load_from_string(content), taken, tuple(facts["notes"]))


def take_in_child(request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """`take` on plain data, for the child process."""
    where = f"'{request['path']}'"
    recipe = None if request["recipe"] is None else detector_from_table(request["recipe"], where)
    told = strict_from_table(DetectorTold, request["told"], where=where, error=GraphError)
    taken = take(Path(request["path"]), told, recipe)
    return {"recipe": taken.recipe.to_table(), "notes": list(taken.notes)}, serialized(taken.model)


def take(path: Path, told: DetectorTold, recipe: DetectorRecipe | None) -> TakenDetector:
    """As `detector_from_graph`, in this process and without its limits."""
    subject = f"'{path}'"
    if recipe is not None and told.person_class is None:
        told = replace(told, person_class=recipe.form.person_class)
    file = graph_file(path, beyond=PLUGINS)
    notes: list[str] = []
    plugged = cut_plugin(file.model)
    original, size_hw = file.model, _size_hw(file.model, told, recipe, subject)
    seen = _seen(original, subject) if plugged is None else None
    theirs = None if seen is None else understood(seen, told.kind, size_hw=size_hw, person_class=told.person_class)
    model, changed = in_our_form(original, subject)
    notes += changed
    model = _fixed(model, size_hw, subject)
    cut = plugged or cut_before_nms(model)
    if cut is not None:
        model = slimmed(model, subject)
        notes.append(f"cut before its own suppression ({cut.what}): boxes '{cut.boxes}', scores '{cut.scores}'")
    kind = told.kind if theirs is None else UNSUPPRESSED.get(theirs.kind, theirs.kind) if cut else theirs.kind
    ours = understood(_seen(model, subject), kind, size_hw=size_hw, person_class=told.person_class)
    made = _recipe(path, told, ours, cut, recipe, model)
    with_outputs(model, made.outputs)
    if recipe is not None:
        made = _named_as(model, made, recipe)
    final = finding_of(model, made)
    if seen is not None and theirs is not None:
        images = None if told.images is None else Path(told.images)
        notes.append(check_same(final, _finding_of_file(seen, theirs), subject, images))
    if recipe is not None and (cut is None or cut.iou is None):  # else the overlap that the graph allowed is kept
        made = replace(made, iou=recipe.iou)
    notes.insert(0, f"taken for '{ours.kind}'")
    for note in notes:
        log.info("'%s': %s", path.name, note)
    return TakenDetector(_declared(model, final, made), made, tuple(notes))


def look_in_child(request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """What a graph would be taken for, for the child process: nothing where it is no detector's."""
    path = Path(request["path"])
    file = graph_file(path, beyond=PLUGINS)
    subject = f"'{path}'"
    told = strict_from_table(DetectorTold, request["told"], where=subject, error=GraphError)
    try:
        plugged = cut_plugin(file.model)
        size_hw = _size_hw(file.model, told, None, subject, free=FREE_SIZE_HW)
        leaves_open = _leaves_size_open(file.model)
        found = understood(_seen(file.model, subject), told.kind, size_hw=size_hw, person_class=told.person_class)
    except GraphError as error:
        return {"kind": None, "problem": str(error)}, b""
    outputs = {output.name: list(output.shape) for output in graph_outputs(file.model)}
    suppresses = plugged is not None or any(node.op_type == NMS for node in file.model.graph.node)
    return {
        "file": str(path),
        "kind": found.kind,
        "input": table_from(found.input),
        "size_open": leaves_open,
        "form": table_from(found.form),
        "outputs": outputs,
        "opset": opset_of(file.model),
        "suppresses": suppresses,
        "person_class": found.form.person_class,
    }, b""


def detector_facts(path: Path, size_hw: tuple[int, int] | None = None) -> dict[str, Any]:
    """What `sdk inspect` shows of a detector's graph; its `kind` is None, and `problem` says why, where it is none.

    `size_hw`: of a graph that leaves it open; None looks at it as the run time would open it.
    """
    request = {"path": str(path), "told": table_from(DetectorTold(size_hw=size_hw))}
    facts, _ = limited(__name__, "look_in_child", request, subject=f"'{path}'", size=file_bytes(path))
    return facts


def _size_hw(
    model: onnx.ModelProto,
    told: DetectorTold,
    recipe: DetectorRecipe | None,
    subject: str,
    free: tuple[int, int] | None = None,
) -> tuple[int, int]:
    """The input's size: the graph's own, or for a graph of free size the one told, the recipe's or its metadata's."""
    pictures = [tensor for tensor in graph_inputs(model) if len(tensor.shape) == 4]
    if len(pictures) != 1:
        raise GraphError(f"{subject} must take one picture, 1 x 3 x h x w; {listed(model)}")
    wanted = told.size_hw or (recipe.input.size_hw if recipe else None)
    known = wanted or size_of_metadata({entry.key: entry.value for entry in model.metadata_props}) or free
    declared = pictures[0].shape[2:]
    if known is None and not all(isinstance(side, int) for side in declared):
        raise GraphError(f"{subject} leaves its input size open ({described(pictures)}); give --size HxW or a RECIPE")
    sides = [have if isinstance(have, int) else want for have, want in zip(declared, known or declared, strict=True)]
    if wanted is not None and tuple(sides) != tuple(wanted):
        raise GraphError(f"{subject} takes {sides[0]}x{sides[1]} only (asked for {wanted[0]}x{wanted[1]})")
    return int(sides[0]), int(sides[1])


def _leaves_size_open(model: onnx.ModelProto) -> bool:
    """Whether a build must be told the size: neither the input declares it nor the metadata."""
    (picture,) = (tensor for tensor in graph_inputs(model) if len(tensor.shape) == 4)
    told = size_of_metadata({entry.key: entry.value for entry in model.metadata_props})
    return told is None and not all(isinstance(side, int) for side in picture.shape[2:])


def _fixed(model: onnx.ModelProto, size_hw: tuple[int, int], subject: str) -> onnx.ModelProto:
    """A simplified copy that takes one picture of this size, the frame's size beside it being the input's own."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for tensor in graph_inputs(fixed):
        value = next(value for value in fixed.graph.input if value.name == tensor.name)
        if tensor.name == SIZES:
            sizes = np.array([size_hw[::-1]]).astype(tensor.dtype)
            fixed.graph.input.remove(value)
            fixed.graph.initializer.append(numpy_helper.from_array(sizes, SIZES))
        else:
            value.CopyFrom(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, [1, 3, *size_hw]))
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    del fixed.graph.value_info[:]
    return slimmed(fixed, subject)


def _seen(model: onnx.ModelProto, subject: str) -> GraphSeen:
    """A graph on ONNX Runtime; GraphError, here or when it is asked, where it does not run there."""
    inputs = tuple(TensorSeen(tensor.name, tensor.dtype, tensor.shape) for tensor in graph_inputs(model))
    names = [output.name for output in graph_outputs(model)]
    with running(model, subject):
        session = graph_session(model)

    def run(feed: Mapping[str, Array]) -> Sequence[Array]:
        with running(model, subject):
            arrays: Sequence[Array] = session.run(names, feed)
        return arrays

    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return GraphSeen(subject, inputs, tuple(names), run, metadata)


def _finding_of_file(seen: GraphSeen, found: Understood) -> Finding:
    """Of a file's own graph, fed as it was understood."""
    return Finding(found.input, found.form, found.iou, lambda feed: seen.run({**feed, **found.fed}))


def _recipe(
    path: Path,
    told: DetectorTold,
    found: Understood,
    cut: Cut | None,
    recipe: DetectorRecipe | None,
    model: onnx.ModelProto,
) -> DetectorRecipe:
    """The recipe of what was found; with one asked for, that one, where it says the same."""
    outputs, form = _used(found, model)
    height, width = found.input.size_hw
    size = str(height) if height == width else f"{height}x{width}"
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem).strip("-._") or "detector"
    made = DetectorRecipe(
        name=stem if stem.endswith(f"-{size}") else f"{stem}-{size}",
        description=f"a detector of the kind '{found.kind}', made elsewhere",
        source=path.name,
        licence="unknown",
        input=found.input,
        outputs=outputs,
        form=form,
        iou=found.iou if cut is None or cut.iou is None else float(f"{cut.iou:.6g}"),  # written in float32
        score_threshold=found.threshold,
    )
    if recipe is None:
        return made
    differs = [
        name
        for name, ours, theirs in (
            ("input", made.input, replace(recipe.input, name=made.input.name)),
            ("form", made.form, replace(recipe.form, person_class=made.form.person_class)),
        )
        if ours != theirs
    ]
    if differs or len(outputs) != len(recipe.outputs):
        key = differs[0] if differs else "outputs"
        raise GraphError(
            f"'{path}' is not what the recipe '{recipe.name}' says: its {key} is {getattr(made, key)}, the recipe's "
            f"{getattr(recipe, key)}; leave RECIPE out to take the graph for what it is"
        )
    source = replace(recipe.input, name=made.input.name)
    return replace(recipe, input=source, outputs=outputs, form=form, iou=made.iou)


def _used(found: Understood, model: onnx.ModelProto) -> tuple[tuple[str, ...], DetectionForm]:
    """The outputs that the form reads, and the form with them alone."""
    form, every = found.form, [output.name for output in graph_outputs(model)]
    places = sorted({part.output for part in (form.boxes, form.scores, form.label) if part is not None})

    def moved(part: Part) -> Part:
        return replace(part, output=places.index(part.output))

    label = None if form.label is None else moved(form.label)
    alone = replace(form, boxes=moved(form.boxes), scores=moved(form.scores), label=label)
    return tuple(every[place] for place in places), alone


def _named_as(model: onnx.ModelProto, made: DetectorRecipe, recipe: DetectorRecipe) -> DetectorRecipe:
    """The graph, in place, with the tensor names of the recipe that was asked for."""
    rename(model, dict(zip((made.input.name, *made.outputs), (recipe.input.name, *recipe.outputs), strict=True)))
    return replace(made, input=replace(made.input, name=recipe.input.name), outputs=recipe.outputs)


def _declared(model: onnx.ModelProto, ours: Finding, recipe: DetectorRecipe) -> onnx.ModelProto:
    """The graph with its outputs declared as they are."""
    arrays = ours.run({recipe.input.name: np.zeros((1, 3, *recipe.input.size_hw), np.float32)})
    del model.graph.output[:]
    for name, array in zip(recipe.outputs, arrays, strict=True):
        kind = helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)
        model.graph.output.append(helper.make_tensor_value_info(name, kind, np.shape(array)))
    onnx.checker.check_model(model, full_check=True)
    return model

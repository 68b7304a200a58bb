"""Graphs made elsewhere: put into the SDK's form, whatever form they came in, and proved against what they were.

The graph of a file runs as it is, on ONNX Runtime, on crops fed as its own convention has it; the graph in our form
(N x 3 x h x w float32 in, logits N x K x bins out, opset 19 or 20, any batch) must give the same poses, or it is
refused. All of that happens in a child process with limits (`sdk.toolchain.limits`). Changes are told in the log and in
`notes`, which an engine's manifest keeps.

    taken = graph_from_file(Path("end2end.onnx"), recipe)
    taken.model, taken.recipe, taken.batch, taken.notes
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from sdk.errors import GraphError, MissingDependencyError
from sdk.recipe import Recipe, recipe_from_table
from sdk.runtime.ort_session import onnxruntime_errors
from sdk.strict import strict_from_table, table_from
from sdk.toolchain.batch import free_batch
from sdk.toolchain.conventions import Told, agreed, recipe_from_graph_facts, with_told
from sdk.toolchain.deploy import DeployFacts, deploy_facts
from sdk.toolchain.ends import End, bins_seen, ends_of, inner_ends, put_ends_in_our_form, wanted_ends
from sdk.toolchain.front import Front, Settled, front_of, listed, put_in_our_form, settle
from sdk.toolchain.graph_files import GraphFile, graph_file
from sdk.toolchain.graphs import graph_inputs, graph_session, name_nodes, rename, serialized
from sdk.toolchain.limits import limited
from sdk.toolchain.opsets import in_our_form, written_out
from sdk.toolchain.proof import Proof, first_line, proof_crops

__all__ = [
    "Original",
    "Taken",
    "any_crops",
    "file_bytes",
    "graph_from_file",
    "running",
    "slim",
    "slimmed",
    "take",
    "take_file",
    "take_in_child",
]

TOLERANCE = {"float32": 1e-3, "float16": 1e-2}  # of the largest output; FP16 of two trained networks: 6e-4
FREE_BATCH = "export it with a dynamic batch (torch.onnx.export: dynamic_shapes, or dynamic_axes with dynamo=False)"

ASSUMED = ("one crop after another", "outputs of one shape")  # notes that a user may want to act upon

Array = NDArray[Any]
Rows = list[Array]  # an array for each end: crops x K x bins

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Taken:
    """A graph in our form. `recipe`: what it takes and gives now. `batch`: the only one it runs with; None, any."""

    model: onnx.ModelProto
    recipe: Recipe
    batch: int | None
    notes: tuple[str, ...]


def graph_from_file(path: Path, recipe: Recipe | None = None, told: Told | None = None) -> Taken:
    """The graph of an ONNX file, a deploy zip or a deploy folder in our form, proved. GraphError says what is amiss.

    Without a recipe, one is made of what the graph, the files beside it and `told` say.
    """
    request = {
        "path": str(path),
        "recipe": None if recipe is None else recipe.to_table(),
        "told": table_from(told or Told()),
    }
    facts, content = limited(__name__, "take_in_child", request, subject=f"'{path}'", size=file_bytes(path))
    taken = recipe_from_table(facts["recipe"], f"'{path}'")
    return Taken(onnx.load_from_string(content), taken, facts["batch"], tuple(facts["notes"]))


def take_in_child(request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """`take` on plain data, for the child process."""
    where = f"'{request['path']}'"
    recipe = None if request["recipe"] is None else recipe_from_table(request["recipe"], where)
    taken = take(Path(request["path"]), recipe, strict_from_table(Told, request["told"], where=where, error=GraphError))
    facts = {"recipe": taken.recipe.to_table(), "batch": taken.batch, "notes": list(taken.notes)}
    return facts, serialized(taken.model)


def take(path: Path, recipe: Recipe | None, told: Told) -> Taken:
    """As `graph_from_file`, in this process and without its limits."""
    taken = take_file(graph_file(path), recipe, told)
    for note in taken.notes:
        log.log(logging.WARNING if note.startswith(ASSUMED) else logging.INFO, "'%s': %s", path.name, note)
    return taken


def take_file(file: GraphFile, recipe: Recipe | None, told: Told) -> Taken:
    """The graph of a file that is read already, in our form, proved. Nothing is logged."""
    subject, deploy = f"'{file.path}'", deploy_facts(file)
    notes = [f"{deploy.told()} (pipeline.json)"] if deploy != DeployFacts() else []
    original = Original(file, subject, told.outputs)
    model, changed = in_our_form(original.model, subject)
    size_hw = recipe.input.size_hw if recipe is not None else told.size_hw or deploy.size_hw
    front = front_of(model, size_hw, subject, original.dtype)
    colour = told.colour
    if recipe is None:
        recipe, said = _made_recipe(original, front, told, deploy, file.name)
        colour = recipe.input.colour  # a convention and deploy files say what the graph is fed with
    else:
        recipe, said = with_told(recipe, told)
        agreed(recipe, deploy, told, subject)
    settled = settle(front, recipe, pixels=told.pixels, colour=colour, subject=subject)
    ends, found = _ends(original, front, recipe, told, deploy)
    if original.given:  # tensors from inside the graph, which in our form are outputs too
        model, _ = in_our_form(original.model, subject)
    notes += [*said, *changed, *original.notes, *settled.notes, *found]
    unused = [value.name for value in model.graph.output if value.name not in {end.name for end in ends}]
    notes += [f"outputs that nothing needs are dropped: {', '.join(unused)}"] if unused else []
    notes += put_in_our_form(model, front, settled)
    notes += put_ends_in_our_form(model, ends)
    recipe, scored = _scored(settled.recipe, ends, subject)
    rename(model, {front.name: recipe.input.name, **{f"{end.target}/out": end.target for end in ends}})
    crops = proof_crops(recipe)
    proof = Proof(recipe, ends, crops, original.rows(crops, front, settled, ends), TOLERANCE[original.precision])
    model, batch, freed = _with_batch(model, proof, front.batch, subject)
    return Taken(model, recipe, batch, (*notes, *scored, *freed))


def slim(model: onnx.ModelProto) -> onnx.ModelProto:
    """Simplified: constants folded, dead nodes dropped, every node named. Tensor names in and out are kept."""
    try:
        import onnxslim
    except ImportError as error:
        raise MissingDependencyError(
            "graphs are simplified by onnxslim, which is not installed; pip install 'simcc-edge-sdk[build]'"
        ) from error

    small: onnx.ModelProto = onnxslim.slim(model)
    name_nodes(small)
    onnx.checker.check_model(small)
    return small


@contextmanager
def running(model: onnx.ModelProto, subject: str) -> Iterator[None]:
    """A graph made elsewhere, at work: GraphError where it does not run on ONNX Runtime."""
    try:
        yield
    except onnxruntime_errors() as error:
        raise GraphError(f"{subject} does not run on ONNX Runtime ({first_line(error)}); {listed(model)}") from error


def slimmed(model: onnx.ModelProto, subject: str) -> onnx.ModelProto:
    """As `slim`, of a graph made elsewhere: GraphError where it cannot be done."""
    try:
        return slim(model)
    except MissingDependencyError:
        raise
    except Exception as error:  # onnxslim has no error type of its own
        raise GraphError(f"{subject} cannot be simplified ({first_line(error)}); export it anew") from error


class Original:
    """The graph as it is in its file, on ONNX Runtime."""

    def __init__(self, file: GraphFile, subject: str, outputs: tuple[str, ...]) -> None:
        self.model, self.subject = file.model, subject
        self.given, self._session = False, None
        self.notes: tuple[str, ...] = ()
        inputs = graph_inputs(self.model)
        self.dtype = inputs[0].dtype if inputs else None
        halves = [t.data_type == onnx.TensorProto.FLOAT16 for t in self.model.graph.initializer]
        self.precision = "float16" if any(halves) or self.dtype == "float16" else "float32"
        made = {name for node in self.model.graph.node for name in node.output}
        self.give(tuple(name for name in outputs if name in made))

    def give(self, names: tuple[str, ...]) -> None:
        """Make tensors from inside the graph outputs as well."""
        have = {value.name for value in self.model.graph.output}
        added = [name for name in names if name not in have]
        if added:
            known = {value.name: value for value in onnx.shape_inference.infer_shapes(self.model).graph.value_info}
            self.model.graph.output.extend(known[name] for name in added if name in known)
            self.given, self._session = True, None

    def run(self, feed: Array) -> dict[str, Array]:
        """Every output, by name."""
        with running(self.model, self.subject):
            session = self._opened()
            arrays = session.run(None, {session.get_inputs()[0].name: feed})
        return {output.name: np.asarray(array) for output, array in zip(session.get_outputs(), arrays, strict=True)}

    def rows(self, crops: NDArray[np.uint8], front: Front, settled: Settled, ends: tuple[End, ...]) -> Rows:
        """What each end gives for each crop by itself."""
        batch = front.batch or 1
        runs = [self.run(front.fed(np.repeat(crop[None], batch, axis=0), settled)) for crop in crops]
        return [np.concatenate([end.seen(outputs[end.name])[:1] for outputs in runs]) for end in ends]

    def _opened(self) -> Any:
        if self._session is None:
            try:
                self._session = graph_session(self.model)
            except onnxruntime_errors() as error:
                plain = written_out(self.model)
                if plain is self.model:
                    raise
                self.notes = (f"compared in the words of its operators' definitions ({first_line(error)})",)
                self._session = graph_session(plain)
        return self._session


def _made_recipe(
    original: Original, front: Front, told: Told, deploy: DeployFacts, name: str
) -> tuple[Recipe, tuple[str, ...]]:
    """A recipe of the graph's own outputs and of what else is known."""
    batch = front.batch or 1
    found = bins_seen(original.run(any_crops(front, batch)), front.size_hw, batch)
    readings = sorted({(joints, bins / front.size_hw[1]) for _, _, joints, bins, _ in found})
    if not readings:
        original.give(inner_ends(original.model))
        found = bins_seen(original.run(any_crops(front, batch)), front.size_hw, batch)
        readings = sorted({(joints, bins / front.size_hw[1]) for _, _, joints, bins, _ in found})
    if told.skeleton is not None and len(readings) > 1:
        readings = [reading for reading in readings if reading[0] == len(told.skeleton.joints)]
    if len(readings) != 1:
        raise GraphError(
            f"'{name}' has {'no' if not readings else 'several'} pairs of outputs that can be SimCC's two axes for "
            f"crops of {front.size_hw[0]}x{front.size_hw[1]}; give a RECIPE; {listed(original.model)}"
        )
    ((joints, ratio),) = readings
    subject = f"'{name}'"
    return recipe_from_graph_facts(
        told, deploy, name=name, size_hw=front.size_hw, joints=joints, ratio=ratio, subject=subject
    )


def _ends(
    original: Original, front: Front, recipe: Recipe, told: Told, deploy: DeployFacts
) -> tuple[tuple[End, ...], tuple[str, ...]]:
    batch = front.batch or 1
    crops = any_crops(front, batch)
    find = partial(
        ends_of,
        wanted=wanted_ends(recipe),
        names=told.outputs,
        known=deploy.outputs,
        batch=batch,
        subject=original.subject,
    )
    try:
        return find(original.model, original.run(crops))
    except GraphError:
        inner = inner_ends(original.model)
        if not inner or told.outputs:
            raise
        original.give(inner)
        ends, notes = find(original.model, original.run(crops))
        return ends, (
            *notes,
            f"the graph decodes by itself: {', '.join(end.name for end in ends)} are taken from inside",
        )


def _with_batch(
    model: onnx.ModelProto, proof: Proof, declared: int | None, subject: str
) -> tuple[onnx.ModelProto, int | None, tuple[str, ...]]:
    """The first form of the graph that gives what the original gives: any batch, a freed batch, its own batch."""
    only = declared or 1
    free = _attempt(lambda: slimmed(_declared(model, proof, None), subject))
    reason = free if isinstance(free, str) else proof.differs(free, None)
    if not isinstance(free, str) and reason is None:
        return free, None, (f"its batch of {only} is freed",) if declared else ()
    fixed = slimmed(_declared(model, proof, only), subject)
    if problem := proof.differs(fixed, only):
        raise GraphError(
            f"{subject} cannot be put into the SDK's form: {problem}, beside the file's own graph on ONNX Runtime; "
            f"export it anew, with opset 19 or 20 ({FREE_BATCH})"
        )
    freed = _declared(fixed, proof, None)
    why = free_batch(freed, only)
    why = why or proof.differs(freed, None)
    if why is None:
        name_nodes(freed)
        return freed, None, (f"its batch of {only}, baked into the graph, is freed",)
    return (
        fixed,
        only,
        (
            f"one crop after another: the graph runs with a batch of {only} only ({why}); to run persons together, "
            f"{FREE_BATCH}",
        ),
    )


def _attempt(work: Callable[[], onnx.ModelProto]) -> onnx.ModelProto | str:
    try:
        return work()
    except GraphError as error:
        return str(error)


def _declared(model: onnx.ModelProto, proof: Proof, batch: int | None) -> onnx.ModelProto:
    """A copy whose input and outputs are declared with this batch, or any."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    first = "batch" if batch is None else batch
    shapes = {
        proof.recipe.input.name: (3, *proof.recipe.input.size_hw),
        **{end.target: end.shape for end in proof.ends},
    }
    for value in (*copy.graph.input, *copy.graph.output):
        shape = [first, *shapes[value.name]]
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, shape))
    del copy.graph.value_info[:]
    return copy


def _scored(recipe: Recipe, ends: tuple[End, ...], subject: str) -> tuple[Recipe, tuple[str, ...]]:
    """The score rule for a graph with its softmax inside: the recipe's rule on probabilities."""
    if not any(end.probabilities for end in ends) or recipe.output.score == "min_softmax":
        return recipe, ()
    if recipe.output.score == "mean_logit":
        raise GraphError(
            f"{subject} gives probabilities, and no score rule is their mean (mean_logit was asked for); give --score "
            "min_softmax, the smaller of the two"
        )
    used = replace(recipe, output=replace(recipe.output, score="min_softmax"))
    return used, ("scores are min_softmax: min_logit on the probabilities that the graph gave",)


def any_crops(front: Front, batch: int) -> Array:
    """Crops of the graph's own layout and type, for asking shapes."""
    height, width = front.size_hw
    shape = (batch, 3, height, width) if front.layout == "N x 3 x h x w" else (batch, height, width, 3)
    rng = np.random.default_rng(0)
    if front.dtype == "uint8":
        return rng.integers(0, 256, shape).astype(np.uint8)
    return rng.standard_normal(shape).astype(front.dtype)


def file_bytes(path: Path) -> int:
    """Bytes that a path stands for, data beside an ONNX file included."""
    files = path.iterdir() if path.is_dir() else [path, *path.parent.glob("*.data"), *path.parent.glob("*.bin")]
    return sum(file.stat().st_size for file in files if file.is_file())

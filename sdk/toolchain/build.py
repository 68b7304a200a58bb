"""`sdk build-engine` as a function: recipe and weights, or an ONNX file, to an engine folder.

    engine = build_engine(BuildOptions(recipe, onnx=Path("end2end.onnx"), precision="fp16"))

A second build of the same thing reuses the first; two processes building the same engine take turns.
"""

from __future__ import annotations

import hashlib
import logging
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdk import __version__
from sdk.detector_recipe import DetectorRecipe
from sdk.errors import GraphError, InputError
from sdk.launches import kept_launches, tell_if_more
from sdk.manifest import (
    FORMAT,
    GRAPH_NAME,
    AnyManifest,
    BatchRange,
    CalibrationNote,
    CompilerNote,
    DetectorEngine,
    DetectorManifest,
    Engine,
    Manifest,
    Precision,
    SpreadNote,
    WeightsNote,
    open_any_engine,
    sha256_of_file,
)
from sdk.recipe import Recipe
from sdk.runtime.counting import counted_launches
from sdk.strict import table_from
from sdk.toolchain.compile import CompileOptions, choose_compiler, compiler_note, plan_from_graph
from sdk.toolchain.engine import check_output, content_key, engine_lock, recover_engine, reusable_engine, write_engine
from sdk.toolchain.graphs import fixed_batch
from sdk.trt import CompilerName

if TYPE_CHECKING:
    from sdk.toolchain.conventions import Told
    from sdk.toolchain.foreign import Taken

__all__ = [
    "BuildOptions",
    "TypedGraph",
    "build_engine",
    "engine_from_typed",
    "float_graph",
    "rebuild_engine",
    "report",
    "source_engine",
    "with_graph",
]

WEIGHT_ONLY = (
    "TensorRT-RTX documents INT8 as weight-only: weights are kept in 8 bits and multiplied in floating point; there is "
    "no speed to expect, and many plans are no smaller than fp16's. compiler 'tensorrt' computes in INT8 (docs/int8.md)"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildOptions:
    """One build. Weights come from exactly one of: the recipe's URL, `weights`, `random_seed`, `onnx`, `engine`.

    Without a recipe, one is made of what the graph of `onnx`, the files beside it and `told` say.
    """

    recipe: Recipe | None
    precision: Precision = "fp32"
    weights: Path | None = None
    random_seed: int | None = None
    onnx: Path | None = None
    told: Told | None = None  # what the graph of `onnx` does not say
    taken: Taken | None = None  # the graph of `onnx` in our form, once it is read
    engine: Engine | None = None  # in fp32, whose graph it is
    images: Path | None = None  # photographs for the comparison of graph and network
    compile: CompileOptions = field(default_factory=CompileOptions)
    keep_float: tuple[str, ...] = ()  # patterns of node names that stay one precision higher
    calibration: Path | None = None  # table for int8; None: the catalogue's
    quantise_all: bool = False
    max_drop: float | None = None  # points that INT8 may cost
    notes: tuple[str, ...] = ()  # for the manifest
    output: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("weights", "random_seed", "onnx", "engine") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"weights must come from one place (got {' and '.join(given)})")
        if self.max_drop is not None and not 0 <= self.max_drop < float("inf"):
            raise InputError(f"the largest drop must be a number of points, 0 or more (got {self.max_drop})")

    @property
    def known_recipe(self) -> Recipe:
        """The recipe, which a graph made elsewhere may yet have to give (`with_graph`)."""
        assert self.recipe is not None, "a graph without a recipe is read before its recipe is asked for"
        return self.recipe

    @property
    def folder(self) -> Path:
        """Where the engine goes: `output`, or `<recipe>.<precision>` in the current folder."""
        return self.output or Path(f"{self.known_recipe.name}.{self.precision}")


@dataclass(frozen=True)
class TypedGraph:
    """A typed graph's bytes, and what the manifest says of its making."""

    recipe: Recipe | DetectorRecipe
    precision: Precision
    graph: bytes
    opset: int
    weights: WeightsNote
    calibration: CalibrationNote | None = None
    notes: tuple[str, ...] = ()
    spread: SpreadNote | None = None


def build_engine(options: BuildOptions) -> Engine:
    """The engine, built or reused. Nothing is left behind when it fails or is interrupted."""
    started = time.perf_counter()
    if options.recipe is not None or options.output is not None:
        check_output(options.folder)
    options = with_graph(options)
    check_output(options.folder)
    compiler = choose_compiler(options.compile)
    engine = engine_from_typed(_typed_graph(options), compiler, options.compile, options.folder, options.force)
    assert isinstance(engine, Engine), "the recipe of a pose network makes an engine of one"
    report(engine, time.perf_counter() - started)
    counted_launches(engine)
    return engine


def with_graph(options: BuildOptions) -> BuildOptions:
    """The options with the graph of `onnx` read and proved, and its recipe in place of the one asked for."""
    if options.onnx is None or options.taken is not None:
        return options
    from sdk.toolchain.foreign import graph_from_file

    taken = graph_from_file(options.onnx, options.recipe, options.told)
    notes = tuple(dict.fromkeys((*options.notes, *taken.notes)))
    return replace(options, recipe=taken.recipe, taken=taken, notes=notes)


def rebuild_engine(
    folder: Path, options: CompileOptions, output: Path | None = None, *, force: bool = False
) -> Engine | DetectorEngine:
    """The engine in `folder`, its typed graph compiled anew for this machine, in place or in `output`."""
    started = time.perf_counter()
    source = source_engine(folder)
    check_output(output or folder)
    manifest = source.manifest
    compiler = choose_compiler(options)
    typed = TypedGraph(
        manifest.recipe,
        manifest.precision,
        source.graph_path.read_bytes(),
        manifest.opset,
        manifest.weights,
        manifest.calibration,
        manifest.notes,
        manifest.spread if isinstance(manifest, Manifest) else None,
    )
    before = kept_launches(source)
    engine = engine_from_typed(typed, compiler, options, output or folder, force)
    report(engine, time.perf_counter() - started)
    now = counted_launches(engine) if isinstance(engine, Engine) else None
    if now is not None:
        tell_if_more(before, now)
    return engine


def source_engine(folder: Path) -> Engine | DetectorEngine:
    """The engine to rebuild, put back first where a killed rebuild had moved it aside."""
    recover_engine(folder)
    return open_any_engine(folder)


def engine_from_typed(
    typed: TypedGraph, compiler: CompilerName | None, options: CompileOptions, folder: Path, force: bool
) -> Engine | DetectorEngine:
    """The engine of a typed graph: compiled and written, or the one of the same content that is there already."""
    batch = fixed_batch(typed.graph)
    if batch is not None:  # whatever was asked for: a note of the engine says why
        options = replace(options, batch=BatchRange(batch, batch, batch))
    note = None if compiler is None else compiler_note(compiler, options)
    key = content_key(_facts(typed, note, options))
    with engine_lock(folder):
        engine = None if force else reusable_engine(folder, key)
        if engine is not None and typed.spread in (None, getattr(engine.manifest, "spread", None)):
            log.info("engine '%s' is there already, built of the same content; --force rebuilds it", folder)
            return engine
        files = {GRAPH_NAME: typed.graph}
        if note is not None:
            log.info("compiling with %s %s for target %s", note.name, note.version, note.target)
            if note.name == "tensorrt-rtx" and typed.precision == "int8":
                log.info("%s", WEIGHT_ONLY)
            files[note.plan] = plan_from_graph(typed.graph, note.name, options)
        return write_engine(folder, files, lambda hashes: _manifest(typed, note, options, key, hashes))


def _typed_graph(options: BuildOptions) -> TypedGraph:
    from sdk.toolchain.graphs import opset_of, serialized
    from sdk.toolchain.precision import fp16_graph_from_graph, island_notes

    model, weights = float_graph(options)
    if options.precision == "fp32":
        return TypedGraph(
            options.known_recipe, "fp32", serialized(model), opset_of(model), weights, notes=options.notes
        )
    calibration = None
    if options.precision == "int8":
        from sdk.toolchain.int8 import Int8Options, typed_int8

        chosen = Int8Options(options.calibration, options.keep_float, options.quantise_all, options.max_drop)
        quantised = typed_int8(model, options.known_recipe, chosen)
        typed, calibration = quantised.graph, quantised.note
    else:
        typed = fp16_graph_from_graph(model, keep_fp32=options.keep_float)
    _check_stored(model, typed, options)
    notes = (*island_notes(model), *options.notes)
    return TypedGraph(
        options.known_recipe, options.precision, serialized(typed), opset_of(typed), weights, calibration, notes
    )


def float_graph(options: BuildOptions) -> tuple[Any, WeightsNote]:
    """The float graph that a build starts from, and where its weights come from. Of options `with_graph`."""
    if options.engine is not None:
        import onnx

        return onnx.load_from_string(options.engine.graph_path.read_bytes()), options.engine.manifest.weights
    if options.onnx is None:
        from sdk.toolchain.export import graph_from_recipe

        return graph_from_recipe(
            options.known_recipe, weights=options.weights, random_seed=options.random_seed, images=options.images
        )
    assert options.taken is not None, "the graph is read first"
    digest = sha256_of_file(options.onnx) if options.onnx.is_file() else None
    return options.taken.model, WeightsNote("onnx", options.onnx.name, digest)


def _check_stored(model: Any, typed: Any, options: BuildOptions) -> None:
    """GraphError when FP16 storage turns an output into inf or NaN; the log tells how far the keypoints moved."""
    from sdk.toolchain.comparison import comparison_crops, keypoint_distance
    from sdk.toolchain.graphs import graph_session
    from sdk.toolchain.precision import stored_graph_from_graph

    recipe = options.known_recipe
    crops = comparison_crops(recipe, options.images)
    feed = {recipe.input.name: crops.crops}
    exact = graph_session(model).run(None, feed)
    stored = graph_session(stored_graph_from_graph(typed)).run(None, feed)
    if not all(np.isfinite(array).all() for array in stored):
        raise GraphError(
            f"'{recipe.name}' overflows in FP16 on {crops.source}: its outputs hold inf or NaN; build it in fp32, or "
            "keep the layers that overflow in FP32 with --keep-float PATTERN"
        )
    if options.random_seed is not None:  # bins of random weights tie nearly: a distance would mean nothing
        return
    distance_px = keypoint_distance(stored, exact, recipe)
    log.info("%s moves keypoints by %.4f px on average on %s", options.precision.upper(), distance_px, crops.source)


def _facts(typed: TypedGraph, note: CompilerNote | None, options: CompileOptions) -> dict[str, Any]:
    """Everything that decides the engine's bytes."""
    return {
        "format": FORMAT,
        "sdk": __version__,
        "graph": hashlib.sha256(typed.graph).hexdigest(),
        "recipe": typed.recipe.to_table(),
        "precision": typed.precision,
        "batch": table_from(options.batch),
        "weights": table_from(typed.weights),
        "calibration": table_from(typed.calibration),
        "compiler": table_from(note),
    }


def _manifest(
    typed: TypedGraph, note: CompilerNote | None, options: CompileOptions, key: str, hashes: Mapping[str, str]
) -> AnyManifest:
    facts: dict[str, Any] = {
        "format": FORMAT,
        "precision": typed.precision,
        "opset": typed.opset,
        "batch": options.batch,
        "weights": typed.weights,
        "files": dict(hashes),
        "key": key,
        "created_by": f"simcc-edge-sdk {__version__}",
        "compiler": note,
        "calibration": typed.calibration,
        "notes": typed.notes,
    }
    if isinstance(typed.recipe, DetectorRecipe):
        return DetectorManifest(recipe=typed.recipe, **facts)
    return Manifest(recipe=typed.recipe, spread=typed.spread, **facts)


def report(engine: Engine | DetectorEngine, seconds: float) -> None:
    """What was built, in the log."""
    manifest = engine.manifest
    sizes = ", ".join(f"{name} {(engine.folder / name).stat().st_size / 1e6:.1f} MB" for name in manifest.files)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    log.info(
        "engine '%s' (%s): %s; %.1f s, peak memory %d MiB", engine.folder, manifest.precision, sizes, seconds, peak_mib
    )
    if manifest.weights.kind == "random":
        log.warning("engine '%s' has random weights: for timing and tests, its poses mean nothing", engine.folder)

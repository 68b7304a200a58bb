"""`sdk build-engine` as a function: recipe and weights, or an ONNX file, to an engine folder.

    engine = build_engine(BuildOptions(recipe, onnx=Path("end2end.onnx"), precision="fp16"))

A second build of the same thing reuses the first; two processes building the same engine take turns.
"""

from __future__ import annotations

import hashlib
import logging
import resource
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sdk import __version__
from sdk.errors import InputError
from sdk.manifest import (
    FORMAT,
    GRAPH_NAME,
    CalibrationNote,
    CompilerNote,
    Engine,
    Manifest,
    Precision,
    WeightsNote,
    sha256_of_file,
)
from sdk.recipe import Recipe
from sdk.strict import table_from
from sdk.toolchain.compile import CompileOptions, choose_compiler, compiler_note, plan_from_graph
from sdk.toolchain.engine import check_output, content_key, engine_lock, reusable_engine, write_engine

__all__ = ["BuildOptions", "build_engine"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildOptions:
    """One build. Weights come from exactly one of: the recipe's URL, `weights`, `random_seed`, `onnx`."""

    recipe: Recipe
    precision: Precision = "fp32"
    weights: Path | None = None
    random_seed: int | None = None
    onnx: Path | None = None
    images: Path | None = None  # photographs for the comparison of graph and network
    compile: CompileOptions = field(default_factory=CompileOptions)
    output: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("weights", "random_seed", "onnx") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"weights must come from one place (got {' and '.join(given)})")

    @property
    def folder(self) -> Path:
        """Where the engine goes: `output`, or `<recipe>.<precision>` in the current folder."""
        return self.output or Path(f"{self.recipe.name}.{self.precision}")


@dataclass(frozen=True)
class _Typed:
    """A typed graph's bytes and what the manifest says of their making."""

    graph: bytes
    opset: int
    weights: WeightsNote
    calibration: CalibrationNote | None = None
    notes: tuple[str, ...] = ()


def build_engine(options: BuildOptions) -> Engine:
    """The engine, built or reused. Nothing is left behind when it fails or is interrupted."""
    started = time.perf_counter()
    check_output(options.folder)
    compiler = choose_compiler(options.compile)
    note = None if compiler is None else compiler_note(compiler, options.compile)
    typed = _typed_graph(options)
    key = content_key(_facts(options, typed, note))
    with engine_lock(options.folder):
        engine = None if options.force else reusable_engine(options.folder, key)
        if engine is not None:
            log.info("engine '%s' is there already, built of the same content; --force rebuilds it", options.folder)
            return engine
        files = {GRAPH_NAME: typed.graph}
        if note is not None:
            log.info("compiling with %s %s for target %s", note.name, note.version, note.target)
            files[note.plan] = plan_from_graph(typed.graph, note.name, options.compile)
        engine = _written(options, typed, note, key, files)
    _report(engine, time.perf_counter() - started)
    return engine


def _typed_graph(options: BuildOptions) -> _Typed:
    from sdk.toolchain.graphs import opset_of, serialized

    model, weights = _float_graph(options)
    return _Typed(serialized(model), opset_of(model), weights)


def _float_graph(options: BuildOptions) -> tuple[Any, WeightsNote]:
    from sdk.toolchain.foreign import graph_from_file

    assert options.onnx is not None
    model = graph_from_file(options.onnx, options.recipe)
    return model, WeightsNote("onnx", options.onnx.name, sha256_of_file(options.onnx))


def _facts(options: BuildOptions, typed: _Typed, note: CompilerNote | None) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "sdk": __version__,
        "graph": hashlib.sha256(typed.graph).hexdigest(),
        "recipe": options.recipe.to_table(),
        "precision": options.precision,
        "batch": table_from(options.compile.batch),
        "weights": table_from(typed.weights),
        "calibration": table_from(typed.calibration),
        "compiler": table_from(note),
    }


def _written(
    options: BuildOptions, typed: _Typed, note: CompilerNote | None, key: str, files: dict[str, bytes]
) -> Engine:
    draft = Manifest(
        format=FORMAT,
        recipe=options.recipe,
        precision=options.precision,
        opset=typed.opset,
        batch=options.compile.batch,
        weights=typed.weights,
        files={},
        key=key,
        created_by=f"simcc-edge-sdk {__version__}",
        compiler=note,
        calibration=typed.calibration,
        notes=typed.notes,
    )
    return write_engine(options.folder, files, lambda hashes: replace(draft, files=dict(hashes)))


def _report(engine: Engine, seconds: float) -> None:
    manifest = engine.manifest
    sizes = ", ".join(f"{name} {(engine.folder / name).stat().st_size / 1e6:.1f} MB" for name in manifest.files)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    log.info(
        "engine '%s' (%s): %s; %.1f s, peak memory %d MiB", engine.folder, manifest.precision, sizes, seconds, peak_mib
    )
    if manifest.weights.kind == "random":
        log.warning("engine '%s' has random weights: for timing and tests, its poses mean nothing", engine.folder)

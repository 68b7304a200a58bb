"""`sdk build-engine`: a recipe and weights, or an ONNX file, to an engine folder; or an engine compiled anew here.

Of pose networks and of person detectors, which is told by the name, or by the graph.

sdk build-engine rtmpose-s-256x192 --precision fp16
sdk build-engine rtmpose-s-256x192 --onnx end2end.onnx --precision fp16 --compiler tensorrt-rtx
sdk build-engine rtmdet-nano-person-320
sdk build-engine --onnx yolov8n.onnx --precision int8 --calibration photos/
sdk build-engine --rebuild rtmpose-s-256x192.fp16
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sdk.cli._numbers import finite
from sdk.cli._recipes import (
    GRAPH_OPTIONS,
    add_graph_arguments,
    add_recipe_arguments,
    add_weights_arguments,
    check_seed,
    detector_from,
    float_engine_from,
    is_detector,
    recipe_of_graph,
    told_from,
    weights_from,
)
from sdk.errors import UsageError
from sdk.manifest import DEFAULT_BATCH, BatchRange, DetectorEngine, Engine, Precision
from sdk.resources import bundled_engines

if TYPE_CHECKING:
    from sdk.toolchain.compile import CompileOptions

__all__ = ["add_arguments", "run"]

ONE = BatchRange(1, 1, 1)  # a detector's batch: one frame
OF_ITS_OWN = (  # what an engine holds already, and a rebuild therefore does not take
    "recipe", "recipe_file", "weights", "onnx", "images", "precision", "keep_float", "calibration", "quantize_all",
    "max_drop", "form", "person_class", *GRAPH_OPTIONS,
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    add_weights_arguments(parser)
    add_graph_arguments(parser)
    parser.add_argument(
        "--rebuild", type=Path, metavar="ENGINE", help="compile an engine's own typed graph for this machine"
    )
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8", "auto"), help="default fp16")
    parser.add_argument(
        "--keep-float", action="append", default=[], metavar="PATTERN", help="nodes that stay FP32, in int8 FP16"
    )
    _add_int8_arguments(parser)
    _add_compiler_arguments(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="the engine folder; default ./RECIPE.PRECISION")
    parser.add_argument("--force", action="store_true", help="build even if the same engine is there")
    parser.add_argument("--json", action="store_true", help="the engine's manifest on stdout")


def _add_int8_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="F",
        help="table for int8, of a detector pictures too; default: the catalogue's",
    )
    parser.add_argument("--quantize-all", action="store_true", help="int8 without protected layers, for study")
    parser.add_argument("--max-drop", type=finite, metavar="POINTS", help="what int8 may cost; default 0.5 if measured")


def _add_compiler_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--compiler", choices=("auto", "tensorrt", "tensorrt-rtx", "none"), default="auto")
    for name in ("min", "opt", "max"):
        parser.add_argument(f"--{name}-batch", type=int, metavar="N", help=f"default {getattr(DEFAULT_BATCH, name)}")
    parser.add_argument("--workspace", type=int, metavar="MiB", help="most scratch memory a layer may use")
    parser.add_argument("--optimization-level", type=int, metavar="0..5", help="how long the compiler searches")
    parser.add_argument("--timing-cache", type=Path, metavar="F", help="tactic timings kept between builds (tensorrt)")
    parser.add_argument(
        "--compute-capability",
        nargs="+",
        default=[],
        metavar="X.Y",
        help="targets of tensorrt-rtx, or current; default: Ampere and newer",
    )
    parser.add_argument("--dla-core", type=int, metavar="N", help="run what the DLA can on this core (tensorrt)")


def run(arguments: argparse.Namespace) -> int:
    check_seed(arguments)
    if arguments.rebuild is not None:
        engine = _rebuilt(arguments)
    else:
        engine = _detector(arguments) if is_detector(arguments) else _built(arguments)
    if arguments.json:
        print(json.dumps({"folder": str(engine.folder), **engine.manifest.to_table()}, indent=1))
    else:
        print(engine.folder)
    return 0


def _detector(arguments: argparse.Namespace) -> DetectorEngine:
    from sdk.toolchain.detectors.build import build_detector

    precision: Precision | Literal["auto"] = arguments.precision or "fp16"
    if precision == "auto":
        raise UsageError("--precision auto is for pose networks; build a detector in fp32, fp16 or int8")
    for name in ("max_drop", "quantize_all"):
        if getattr(arguments, name) not in (None, False):
            raise UsageError(f"--{name.replace('_', '-')} is for pose networks; a build says what a detector loses")
    for name in ("min_batch", "opt_batch", "max_batch"):
        if getattr(arguments, name) not in (None, 1):
            raise UsageError(f"--{name.replace('_', '-')} must be 1: a detector takes one frame at a time")
    _check_int8_arguments(arguments, precision)
    return build_detector(
        replace(
            detector_from(arguments),
            precision=precision,
            images=arguments.images,
            keep_float=tuple(arguments.keep_float),
            calibration=arguments.calibration,
            compile=_compile_options(arguments, ONE),
            output=arguments.output,
            force=arguments.force,
        )
    )


def _built(arguments: argparse.Namespace) -> Engine:
    from sdk.toolchain.build import BuildOptions, build_engine

    asked: Precision | Literal["auto"] = arguments.precision or "fp16"
    _check_int8_arguments(arguments, asked)
    precision: Precision = "fp16" if asked == "auto" else asked
    weights, seed = weights_from(arguments)
    source, told = float_engine_from(arguments), told_from(arguments)
    options = BuildOptions(
        recipe=recipe_of_graph(arguments) if source is None else source.manifest.recipe,
        told=told,
        precision=precision,
        weights=weights,
        random_seed=seed,
        onnx=arguments.onnx,
        engine=source,
        images=arguments.images,
        keep_float=tuple(arguments.keep_float),
        calibration=arguments.calibration,
        quantise_all=arguments.quantize_all,
        max_drop=arguments.max_drop,
        notes=() if source is None else source.manifest.notes,
        compile=_compile_options(arguments, DEFAULT_BATCH),
        output=arguments.output,
        force=arguments.force,
    )
    if asked == "auto":
        from sdk.toolchain.auto import build_auto

        return build_auto(options)
    return build_engine(options)


def _check_int8_arguments(arguments: argparse.Namespace, precision: str) -> None:
    given = [("--calibration", arguments.calibration), ("--max-drop", arguments.max_drop)]
    given.append(("--quantize-all", arguments.quantize_all or None))
    for name, value in given:
        if value is not None and precision not in ("int8", "auto"):
            raise UsageError(f"{name} is for --precision int8 or auto (got {precision})")


def _rebuilt(arguments: argparse.Namespace) -> Engine | DetectorEngine:
    from sdk.toolchain.build import rebuild_engine, source_engine

    for name in OF_ITS_OWN:
        if getattr(arguments, name) not in (None, [], (), False):
            raise UsageError(f"--rebuild compiles what the engine holds: leave {name.replace('_', '-')} out")
    folder, output = arguments.rebuild, arguments.output
    if not folder.exists() and str(folder) in bundled_engines():  # what is installed stays: a copy here is compiled
        folder, output = bundled_engines()[str(folder)], output or folder
    options = _compile_options(arguments, source_engine(folder).manifest.batch)
    return rebuild_engine(folder, options, output, force=arguments.force)


def _compile_options(arguments: argparse.Namespace, batch: BatchRange) -> CompileOptions:
    from sdk.toolchain.compile import CompileOptions

    return CompileOptions(
        compiler=arguments.compiler,
        batch=_batch(arguments, batch),
        workspace_mib=arguments.workspace,
        optimization_level=arguments.optimization_level,
        timing_cache=arguments.timing_cache,
        compute_capabilities=tuple(arguments.compute_capability),
        dla_core=arguments.dla_core,
    )


def _batch(arguments: argparse.Namespace, default: BatchRange) -> BatchRange:
    """What is given, and defaults moved so that the range holds together."""
    low = default.min if arguments.min_batch is None else arguments.min_batch
    high = max(default.max, low) if arguments.max_batch is None else arguments.max_batch
    best = min(max(default.opt, low), high) if arguments.opt_batch is None else arguments.opt_batch
    return BatchRange(low, best, high)

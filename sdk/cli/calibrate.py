"""`sdk calibrate`: activation ranges of real crops into a calibration table, and what INT8 costs layer by layer; or,
with --spread, an engine's stated spread held against labelled persons and kept in its manifest.

sdk calibrate rtmpose-s-256x192 --data train.json --output calibration/rtmpose-s-256x192.json --sensitivity
sdk build-engine rtmpose-s-256x192 --precision int8 --calibration calibration/rtmpose-s-256x192.json --max-drop 0.5
sdk calibrate rtmpose-s-256x192.fp16 --spread --data train.json --pictures photos
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdk.cli._numbers import finite
from sdk.cli._paths import refuse_overwriting
from sdk.cli._recipes import (
    GRAPH_OPTIONS,
    add_graph_arguments,
    add_recipe_arguments,
    detector_from,
    float_engine_from,
    is_detector,
    recipe_of_graph,
    told_from,
    weights_from,
)
from sdk.errors import UsageError
from sdk.resources import bundled_engines
from sdk.strict import table_from

if TYPE_CHECKING:
    import onnx

    from sdk.manifest import Engine
    from sdk.toolchain.build import BuildOptions
    from sdk.toolchain.crops import CropSet
    from sdk.toolchain.table import CalibrationTable

__all__ = ["add_arguments", "run"]

CROPS_AT_A_TIME = 8
CURVE_CROPS = 256
GROUP_CROPS = 64  # for the sensitivity of one group
COPIED = "a copy of the engine that ships with the SDK, its spread calibrated"
OF_GRAPHS = ("weights", "recipe_file", "onnx", "form", "person_class", *GRAPH_OPTIONS)
OF_CROPS = ("pictures", "boxes", "jitter", "batch", "no_equalise", "sensitivity", "sensitivity_crops", "chart")

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--weights", metavar="F", help="a checkpoint; default: the recipe's released weights")
    add_graph_arguments(parser)
    parser.add_argument(
        "--data", type=Path, required=True, metavar="COCO.json|DIR", help="annotated persons, or photographs"
    )
    parser.add_argument(
        "--pictures", type=Path, metavar="DIR", help="where a COCO.json's pictures lie, if not beside it"
    )
    parser.add_argument("--boxes", type=Path, metavar="F", help="boxes other than those of --data, in COCO's format")
    parser.add_argument(
        "--images",
        type=int,
        default=512,
        metavar="N",
        help="crops, or a detector's pictures, to calibrate with (default 512)",
    )
    parser.add_argument(
        "--method", choices=("max", "percentile", "entropy", "mse", "auto"), help="of finding ranges (default auto)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of crops (default 0)")
    parser.add_argument(
        "--jitter", type=finite, default=0.0, metavar="SHARE", help="move box sides by up to this share"
    )
    parser.add_argument("--batch", type=_count, metavar="N", help=f"crops at a time (default {CROPS_AT_A_TIME})")
    parser.add_argument("--no-equalise", action="store_true", help="do not try range equalisation")
    parser.add_argument("--sensitivity", action="store_true", help="measure what quantising each layer group costs")
    parser.add_argument("--sensitivity-crops", type=_count, metavar="N", help=f"for each group (default {GROUP_CROPS})")
    parser.add_argument("--chart", type=Path, metavar="F.png", help="draw the sensitivity")
    parser.add_argument("--output", type=Path, metavar="F.json", help="the table; not with --spread")
    parser.add_argument(
        "--spread",
        action="store_true",
        help="calibrate the spread of the engine in RECIPE's place, in its manifest; of a bundled one, in a copy here",
    )
    parser.add_argument(
        "--partly", action="store_true", help="with --spread: --data lacks joints of the network; the others serve"
    )
    parser.add_argument("--device", help="with --spread: auto, cpu, cuda or cuda:N (default auto)")
    parser.add_argument("--json", action="store_true", help="a summary on stdout, for machines")


def run(arguments: argparse.Namespace) -> int:
    from sdk.locks import held

    if arguments.spread:
        return _spread(arguments)
    if arguments.output is None:
        raise UsageError("name the table to write: --output F.json")
    if arguments.device is not None:
        raise UsageError("--device is for --spread; ranges are found on the CPU: leave it out")
    if arguments.partly:
        raise UsageError("--partly is for --spread; ranges need boxes and no joints: leave it out")
    if is_detector(arguments):
        return _detector(arguments)
    _check_chart(arguments)
    source = _source(arguments)
    read = [arguments.data if arguments.data.is_file() else None, arguments.boxes, source.weights, source.onnx]
    refuse_overwriting({"--output": arguments.output, "--chart": arguments.chart}, read)
    with held(arguments.output):
        table = _calibrated(arguments, source)
    _show(table, arguments)
    return 0


def _detector(arguments: argparse.Namespace) -> int:
    """Ranges of whole pictures, letterboxed, for a detector."""
    from sdk.locks import held
    from sdk.toolchain.detectors.build import float_detector
    from sdk.toolchain.detectors.calibrate import PictureSet, calibrate_detector
    from sdk.toolchain.precision import with_constants_named
    from sdk.toolchain.table import write_table

    for name in OF_CROPS:
        if getattr(arguments, name):
            raise UsageError(
                f"--{name.replace('_', '-')} is for pose networks; a detector is calibrated on the pictures below "
                "--data DIR, whole and one by one"
            )
    if not arguments.data.is_dir():
        raise UsageError(f"--data must be a folder of photographs for a detector (got '{arguments.data}')")
    source = detector_from(arguments)
    refuse_overwriting({"--output": arguments.output}, [source.onnx])
    with held(arguments.output):
        taken, _ = float_detector(source)
        pictures = PictureSet.below(arguments.data, taken.recipe, count=arguments.images, seed=arguments.seed)
        table = calibrate_detector(
            with_constants_named(taken.model), pictures, arguments.data.name, arguments.method or "auto"
        )
        write_table(table, arguments.output)
    _show(table, arguments)
    return 0


def _spread(arguments: argparse.Namespace) -> int:
    """Hold an engine's spread against labelled persons, and keep the calibration in its manifest."""
    from sdk.evaluate.datasets.dataset import DatasetOptions
    from sdk.evaluate.datasets.loading import load_dataset
    from sdk.evaluate.spread import SpreadRun, calibrated
    from sdk.runtime.opening import engine_from
    from sdk.toolchain.engine import check_output, keep_spread, placed_engine

    if arguments.output is not None or arguments.recipe is None:
        raise UsageError("--spread takes an engine in RECIPE's place and writes its manifest: leave --output out")
    for name in ("method", *OF_CROPS, *OF_GRAPHS):
        if name != "pictures" and getattr(arguments, name) not in (None, (), False, 0.0):
            raise UsageError(f"--spread runs an engine as it is: leave --{name.replace('_', '-')} out")
    engine = engine_from(arguments.recipe)
    copy = _copy_here(engine, Path(arguments.recipe))
    if copy is not None:
        check_output(copy)
        log.info("'%s' ships with the SDK and stays as it is: a copy is calibrated, './%s'", arguments.recipe, copy)
    pictures = arguments.pictures or arguments.data.parent
    options = DatasetOptions("custom", arguments.data, pictures, partly=arguments.partly)
    dataset = load_dataset(options, engine.manifest.recipe)
    show = sys.stderr.isatty() and not arguments.quiet
    run = SpreadRun(arguments.device or "auto", arguments.images, arguments.seed, progress=show)
    note = calibrated(engine, dataset, run, arguments.data.name)
    if copy is None:
        engine = keep_spread(engine, note)
    else:
        engine = placed_engine(replace(engine, manifest=replace(engine.manifest, spread=note)), copy, COPIED)
    if arguments.json:
        print(json.dumps(table_from(note), indent=1))
    else:
        print(engine.folder)
        log.info("one spread holds %.1f %% of the coordinates of %d joints", 100 * note.covered, note.joints)
    return 0


def _copy_here(engine: Engine, named: Path) -> Path | None:
    """Where a copy goes of a bundled engine given by name, for what is installed stays; None for a folder."""
    bundled = not named.exists() and engine.folder in bundled_engines().values()
    return Path(engine.folder.name) if bundled else None


def _calibrated(arguments: argparse.Namespace, source: BuildOptions) -> CalibrationTable:
    """The table, written, and its chart."""
    from sdk.toolchain.build import float_graph, with_graph
    from sdk.toolchain.calibrate import CalibrateOptions, calibrate
    from sdk.toolchain.crops import CropSet, people_from_data
    from sdk.toolchain.table import write_table

    source = with_graph(source)
    people = people_from_data(arguments.data, arguments.boxes, source.known_recipe, arguments.pictures)
    crops = CropSet.drawn(
        people, source.known_recipe, count=arguments.images, seed=arguments.seed, jitter=arguments.jitter
    )
    model, _ = float_graph(source)
    options = CalibrateOptions(
        method=arguments.method or "auto",
        batch=CROPS_AT_A_TIME if arguments.batch is None else arguments.batch,
        equalise=not arguments.no_equalise,
        source=arguments.data.name,
        state=arguments.output.with_name(f".{arguments.output.name}.state.npz"),
    )
    table = calibrate(model, crops, options)
    if arguments.sensitivity:
        table = _with_sensitivity(model, table, crops, arguments)
    write_table(table, arguments.output)
    if arguments.chart is not None:
        from sdk.toolchain.sensitivity import draw_sensitivity

        draw_sensitivity(table, arguments.chart)
    return table


def _check_chart(arguments: argparse.Namespace) -> None:
    if arguments.chart is None:
        return
    if not arguments.sensitivity:
        raise UsageError("--chart draws the sensitivity: give --sensitivity as well")
    from sdk.toolchain.sensitivity import check_chart

    check_chart(arguments.chart)


def _source(arguments: argparse.Namespace) -> BuildOptions:
    """The graph to calibrate, as a build takes it: a recipe and weights, an ONNX file, or an fp32 engine's graph."""
    from sdk.toolchain.build import BuildOptions

    engine = float_engine_from(arguments)
    if engine is not None:
        return BuildOptions(engine.manifest.recipe, engine=engine)
    weights, seed = weights_from(arguments)
    told = told_from(arguments)
    return BuildOptions(recipe_of_graph(arguments), weights=weights, random_seed=seed, onnx=arguments.onnx, told=told)


def _with_sensitivity(
    model: onnx.ModelProto, table: CalibrationTable, crops: CropSet, arguments: argparse.Namespace
) -> CalibrationTable:
    from sdk.toolchain.sensitivity import measure_sensitivity

    groups = crops.some(range(min(arguments.sensitivity_crops or GROUP_CROPS, len(crops))))
    curve = crops.some(range(min(CURVE_CROPS, len(crops))))
    return replace(table, sensitivity=measure_sensitivity(model, table, groups, curve_crops=curve))


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1 (got '{text}')")
    return int(text)


def _show(table: CalibrationTable, arguments: argparse.Namespace) -> None:
    methods = [tensor.method for tensor in table.tensors.values()]
    counts = {name: methods.count(name) for name in sorted(set(methods))}
    if arguments.json:
        facts = {"file": str(arguments.output), "tensors": len(methods), "images": table.data.images, "methods": counts}
        facts["structure_sha256"] = table.graph.structure_sha256
        print(json.dumps(facts, indent=1))
        return
    print(arguments.output)
    log.info("%d tensors, %d crops; methods kept: %s", len(methods), table.data.images, counts)
    if table.sensitivity is not None:
        for point in table.sensitivity.curve:
            ap = "" if point.ap_loss is None else f", AP {-point.ap_loss:+.2f}"
            log.info(
                "%5.1f %% of the work in INT8: keypoints move %.2f px, OKS agreement -%.2f%s",
                100 * point.int8_share, point.distance_px, point.oks_loss, ap,
            )  # fmt: skip

"""`sdk build-engine` of a detector as a function: a published graph, or one made elsewhere, to an engine folder.

engine = build_detector(DetectorBuild(detector_by_name("rtmdet-nano-person-320"), precision="fp16"))
engine = build_detector(DetectorBuild(None, onnx=Path("yolov8n.onnx")))
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass, field, replace
from glob import escape
from pathlib import Path

import numpy as np
import onnx

from sdk.detector_recipe import DetectorRecipe
from sdk.errors import CalibrationError, GraphError, InputError
from sdk.manifest import CalibrationNote, DetectorEngine, Precision, WeightsNote, sha256_of_file
from sdk.networks import weights_file
from sdk.people.detector_forms import blob_of, known_pictures
from sdk.toolchain.build import TypedGraph, engine_from_typed, report
from sdk.toolchain.compile import CompileOptions, choose_compiler
from sdk.toolchain.detectors.calibrate import PictureSet, calibrate_detector
from sdk.toolchain.detectors.proof import Finding, finding_of, moved
from sdk.toolchain.detectors.tail import float_in_int8, tail_of
from sdk.toolchain.detectors.taken import DetectorTold, TakenDetector, detector_from_graph
from sdk.toolchain.engine import check_output
from sdk.toolchain.graphs import opset_of, serialized
from sdk.toolchain.placement import Placement
from sdk.toolchain.precision import fp16_graph_from_graph, stored_graph_from_graph, with_constants_named
from sdk.toolchain.quantize import QuantizeOptions, qdq_graph_from_graph
from sdk.toolchain.table import CalibrationTable, check_graph, table_from_file

__all__ = ["DetectorBuild", "build_detector", "float_detector"]

TAIL = "they make boxes and scores of the last convolutions' numbers"
FOUND = 0.95  # of the persons that FP32 finds: below it is told aloud
DETECTS = 0.5  # and below this nothing is built

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DetectorBuild:
    """One build. The graph comes from `onnx`, else from where the recipe says it is published."""

    recipe: DetectorRecipe | None
    onnx: Path | None = None
    told: DetectorTold = field(default_factory=DetectorTold)
    precision: Precision = "fp16"
    images: Path | None = None  # photographs for the proof
    keep_float: tuple[str, ...] = ()
    calibration: Path | None = None  # for int8: a table, or a folder of pictures
    compile: CompileOptions = field(default_factory=CompileOptions)
    output: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.recipe is None and self.onnx is None:
            raise InputError("a detector's engine needs a recipe, or the graph of an ONNX file")
        if self.precision == "int8" and self.calibration is None:
            raise InputError("precision int8 of a detector needs --calibration: a folder of photographs, or a table")


def build_detector(options: DetectorBuild) -> DetectorEngine:
    """The engine, built or reused. Nothing is left behind when it fails or is interrupted."""
    started = time.perf_counter()
    if options.output is not None:
        check_output(options.output)
    taken, weights = float_detector(options)
    folder = options.output or Path(f"{taken.recipe.name}.{options.precision}")
    check_output(folder)
    compiler = choose_compiler(options.compile)
    typed = _typed(taken, weights, options)
    engine = engine_from_typed(typed, compiler, options.compile, folder, options.force)
    assert isinstance(engine, DetectorEngine), "the recipe of a detector makes an engine of one"
    report(engine, time.perf_counter() - started)
    return engine


def float_detector(options: DetectorBuild) -> tuple[TakenDetector, WeightsNote]:
    """The float graph that a build starts from, in our form, and where it comes from."""
    recipe, path = options.recipe, options.onnx
    source = path.name if path is not None else ""
    if path is None:
        assert recipe is not None, "the options hold one of both"
        path = weights_file(recipe)
        source = recipe.weights.url if recipe.weights is not None else path.name
    told = replace(options.told, images=None if options.images is None else str(options.images))
    taken = detector_from_graph(path, told, recipe)
    return taken, WeightsNote("onnx", source, sha256_of_file(path) if path.is_file() else None)


def _typed(taken: TakenDetector, weights: WeightsNote, options: DetectorBuild) -> TypedGraph:
    recipe, notes, calibration = taken.recipe, taken.notes, None
    model = with_constants_named(taken.model)
    typed = model
    if options.precision != "fp32":
        tail, _ = tail_of(model)
        quantised = model
        if options.precision == "int8":
            table, name, digest = _table(model, recipe, options)
            kept = (*map(escape, float_in_int8(model)), *options.keep_float)
            quantised, placement = qdq_graph_from_graph(model, table, QuantizeOptions(kept, correct_bias=True))
            calibration = _note(table, name, digest, placement)
        own = () if options.precision == "int8" else options.keep_float
        typed = fp16_graph_from_graph(quantised, keep_fp32=(*map(escape, tail), *own), because=TAIL)
        notes = (*notes, f"{len(tail)} layers stay FP32: {TAIL}", _compared(model, typed, recipe, options))
    graph = serialized(typed)
    return TypedGraph(recipe, options.precision, graph, opset_of(typed), weights, calibration, notes)


def _table(model: onnx.ModelProto, recipe: DetectorRecipe, options: DetectorBuild) -> tuple[CalibrationTable, str, str]:
    """The ranges, what they are called, and their sha256: of a table, or of the pictures of a folder, seen now."""
    path = options.calibration
    assert path is not None, "the options hold one for int8"
    if not path.is_dir():
        table = table_from_file(path)
        check_graph(table, model, str(path), recipe.name)
        return table, path.name, sha256_of_file(path)
    pictures = PictureSet.below(path, recipe)
    table = calibrate_detector(model, pictures, path.name)
    return table, path.name, hashlib.sha256(repr(table).encode()).hexdigest()


def _note(table: CalibrationTable, name: str, digest: str, placement: Placement) -> CalibrationNote:
    details = {
        "int8_nodes": len(placement.int8),
        "int8_share_of_macs": round(placement.int8_share, 4),
        "float": dict(placement.floats),
    }
    return CalibrationNote(name, digest, table.method, table.data.images, details)


def _compared(model: onnx.ModelProto, typed: onnx.ModelProto, recipe: DetectorRecipe, options: DetectorBuild) -> str:
    """How far the precision moves boxes, in a sentence; GraphError where FP16 storage overflows."""
    ours = finding_of(stored_graph_from_graph(typed), recipe)
    _check_finite(ours, recipe)
    images = options.images
    if images is None and options.calibration is not None and options.calibration.is_dir():
        images = options.calibration
    distance, found, expected = moved(ours, finding_of(model, recipe), images)
    where = "rendered figures" if images is None else f"rendered figures and '{images.name}'"
    told = (
        f"{options.precision.upper()} finds {found} of the {expected} persons that FP32 finds in {where}, their boxes "
        f"{distance:.2f} px apart on average"
    )
    if found < DETECTS * expected:
        mend = "fp32" if options.precision == "fp16" else "fp16, or calibrate with more photographs"
        raise CalibrationError(f"'{recipe.name}': {told}; build it in {mend}")
    log.log(logging.WARNING if found < FOUND * expected else logging.INFO, "%s", told)
    return told


def _check_finite(ours: Finding, recipe: DetectorRecipe) -> None:
    for picture in known_pictures():
        outputs = ours.run({recipe.input.name: blob_of(picture, recipe.input)})
        if not all(np.isfinite(array).all() for array in outputs):
            raise GraphError(
                f"'{recipe.name}' overflows in FP16 on rendered figures: outputs hold inf or NaN; build it in fp32, or "
                "keep the layers that overflow in FP32 with --keep-float PATTERN"
            )

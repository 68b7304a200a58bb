"""INT8 as a step of a build: find the table, refuse a foreign one, quantise inside the budget, say what was done.

typed = typed_int8(model, recipe, Int8Options(max_drop=0.5))
typed.graph, typed.note        # the typed graph, and its provenance for the manifest
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from sdk.errors import CalibrationError
from sdk.manifest import CalibrationNote, sha256_of_file
from sdk.recipe import Recipe
from sdk.resources import catalogue_folder
from sdk.toolchain.placement import Placement
from sdk.toolchain.quantize import QuantizeOptions, int8_graph_from_graph
from sdk.toolchain.table import CalibrationTable, check_graph, point_within, table_from_file

__all__ = ["DEFAULT_MAX_DROP", "Int8Options", "TypedInt8", "budget_problem", "table_path", "typed_int8"]

DEFAULT_MAX_DROP = 0.5  # points, where the table knows what sets of layers cost

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Int8Options:
    """`table` None: the catalogue's. `max_drop` None: half a point if the table has a sensitivity, else no limit."""

    table: Path | None = None
    keep_float: tuple[str, ...] = ()
    quantise_all: bool = False
    max_drop: float | None = None


@dataclass(frozen=True)
class TypedInt8:
    """A typed INT8 graph and its provenance."""

    graph: onnx.ModelProto
    note: CalibrationNote


def table_path(recipe: Recipe, chosen: Path | None) -> Path:
    """The table to use: the chosen one, or the catalogue's of that name. CalibrationError says how to make one."""
    path = chosen or catalogue_folder("calibration") / f"{recipe.name}.json"
    if chosen is None and not path.is_file():
        raise CalibrationError(
            f"no calibration table ships for '{recipe.name}': make one with `sdk calibrate {recipe.name} --data "
            f"COCO.json|DIR --output {recipe.name}.json` and give it with --calibration"
        )
    return path


def typed_int8(model: onnx.ModelProto, recipe: Recipe, options: Int8Options) -> TypedInt8:
    """The typed INT8 graph of a float graph by its calibration table."""
    path = table_path(recipe, options.table)
    table = table_from_file(path)
    check_graph(table, model, str(path), recipe.name)
    for warning in table.warnings:
        log.warning("calibration table '%s': %s", path.name, warning)
    max_drop = _budget(table, options)
    if problem := budget_problem(table, max_drop):
        raise CalibrationError(f"calibration table '{path.name}': {problem}; give a larger --max-drop, or build fp16")
    quantising = QuantizeOptions(options.keep_float, options.quantise_all, max_drop)
    graph, placement = int8_graph_from_graph(model, table, quantising)
    drop = None if options.keep_float or options.quantise_all else _measured_drop(table, max_drop)
    note = CalibrationNote(
        table=path.name,
        sha256=sha256_of_file(path),
        method=table.method,
        images=table.data.images,
        details=_details(table, placement, max_drop, drop),
    )
    return TypedInt8(graph, note)


def budget_problem(table: CalibrationTable, max_drop: float | None) -> str | None:
    """Why nothing may be INT8 inside a budget of `max_drop` points, or None. CalibrationError without a sensitivity."""
    if max_drop is None or point_within(table, max_drop) is not None:
        return None
    measured = table.sensitivity.curve if table.sensitivity else ()
    least = min(measured, key=lambda point: point.groups, default=None)
    cost = "none was measured" if least is None else f"the smallest costs {least.points_lost:.2f}"
    return f"no set of INT8 layers costs at most {max_drop:g} points ({cost})"


def _budget(table: CalibrationTable, options: Int8Options) -> float | None:
    if options.max_drop is not None or table.sensitivity is None or options.quantise_all:
        return options.max_drop
    return DEFAULT_MAX_DROP


def _measured_drop(table: CalibrationTable, max_drop: float | None) -> float | None:
    point = None if table.sensitivity is None or max_drop is None else point_within(table, max_drop)
    return None if point is None else point.points_lost


def _details(
    table: CalibrationTable, placement: Placement, max_drop: float | None, drop: float | None
) -> dict[str, Any]:
    details: dict[str, Any] = {
        "int8_nodes": len(placement.int8),
        "int8_share_of_macs": round(placement.int8_share, 4),
        "float": dict(placement.floats),
        "remedies": [trial.remedy for trial in table.trials if trial.kept],
    }
    if max_drop is not None:
        details["max_drop"] = max_drop
    if drop is not None:
        details["measured_drop"] = round(drop, 3)
    return details

"""`sdk models`: the catalogue, one network a line, with its size and cost, its source and its published figures.

Parameters and GFLOPs are computed, not quoted; GFLOPs are multiply-adds of convolutions and linear layers, of one crop.

    sdk models rtmpose --json
    sdk models --detectors
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sdk.detector_recipe import DetectorRecipe, detector_catalogue
from sdk.errors import InputError
from sdk.recipe import Recipe, catalogue
from sdk.recipe_files import names_of_kind
from sdk.resources import bundled_engine_of, bundled_weights

if TYPE_CHECKING:
    from sdk.networks import Cost

__all__ = ["add_arguments", "markdown_from_rows", "rows_from_recipes", "run"]

HEADERS = ("name", "joints", "input", "k", "parameters", "GFLOPs", "weights", "licence", "published", "source")
DETECTOR_HEADERS = ("name", "input", "classes", "weights", "licence", "published", "source")
RIGHT = {"joints", "k", "parameters", "GFLOPs"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `sdk models`."""
    parser.add_argument("part", nargs="?", default="", metavar="PART", help="only names that contain PART")
    parser.add_argument("--detectors", action="store_true", help="the person detectors instead of the pose networks")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="everything, for machines")
    form.add_argument("--markdown", action="store_true", help="a table for a document")


def run(arguments: argparse.Namespace) -> int:
    """Print the catalogue."""
    if arguments.detectors:
        return _detectors(arguments)
    recipes = [recipe for name, recipe in catalogue().items() if arguments.part in name]
    detectors = names_of_kind("detector")
    if not recipes:
        more = "; `sdk models --detectors` lists detectors" if any(arguments.part in n for n in detectors) else ""
        raise InputError(
            f"no recipe's name contains '{arguments.part}'; `sdk models` lists all {len(catalogue())}{more}"
        )
    rows = rows_from_recipes(recipes)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    elif arguments.markdown:
        print(markdown_from_rows(rows))
    else:
        print(_text_from_rows(rows))
    return 0


def _detectors(arguments: argparse.Namespace) -> int:
    """Print the catalogue's detectors."""
    found = [recipe for name, recipe in detector_catalogue().items() if arguments.part in name]
    if not found:
        raise InputError(f"no detector's name contains '{arguments.part}'; leave PART out to see all")
    rows = [
        {
            "name": recipe.name,
            "description": recipe.description,
            "input_hw": list(recipe.input.size_hw),
            "classes": recipe.form.classes,
            "score_threshold": recipe.score_threshold,
            "iou": recipe.iou,
            "source": recipe.source,
            "licence": recipe.licence,
            "published": [asdict(figure) for figure in recipe.published],
            "weights": _weights(recipe),
        }
        for recipe in found
    ]
    lines = [[header.upper() for header in DETECTOR_HEADERS], *map(_detector_cells, rows)]
    if arguments.json:
        print(json.dumps(rows, indent=2))
    elif arguments.markdown:
        print(_markdown([list(DETECTOR_HEADERS), ["---" for _ in DETECTOR_HEADERS], *lines[1:]]))
    else:
        print(_aligned(lines, DETECTOR_HEADERS))
    return 0


def _detector_cells(row: Mapping[str, Any]) -> list[str]:
    """One line of the table of detectors, in the order of DETECTOR_HEADERS."""
    height, width = row["input_hw"]
    published = "; ".join(f"{figure['metric']} {figure['value']} {figure['dataset']}" for figure in row["published"])
    return [
        row["name"], f"{height}x{width}", str(row["classes"]), _availability(row), row["licence"], published,
        row["source"],
    ]  # fmt: skip


def rows_from_recipes(recipes: Sequence[Recipe]) -> list[dict[str, Any]]:
    """What is told of recipes of the catalogue. One whose cost is not kept yet is counted, which takes torch."""
    from sdk.networks import cost_of, kept_costs

    kept = kept_costs()
    return [_row(recipe, kept.get(recipe.name) or cost_of(recipe)) for recipe in recipes]


def _row(recipe: Recipe, cost: Cost) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "description": recipe.description,
        "joints": recipe.joints,
        "joint_set": recipe.skeleton.name,
        "input_hw": list(recipe.input.size_hw),
        "output": recipe.output.kind,
        "split_ratio": recipe.output.split_ratio,
        "parameters": cost.parameters,
        "gflops": cost.macs / 1e9,
        "source": recipe.source,
        "licence": recipe.licence,
        "published": [asdict(figure) for figure in recipe.published],
        "weights": _weights(recipe),
    }


def markdown_from_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table in Markdown, one network a line."""
    lines = [list(HEADERS), ["---:" if header in RIGHT else "---" for header in HEADERS], *map(_cells, rows)]
    return _markdown(lines)


def _text_from_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    return _aligned([[header.upper() for header in HEADERS], *map(_cells, rows)], HEADERS)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _aligned(table: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    widths = [max(len(line[column]) for line in table) for column in range(len(headers))]
    aligned = [
        "  ".join(
            cell.rjust(width) if header in RIGHT else cell.ljust(width)
            for header, cell, width in zip(headers, line, widths, strict=True)
        ).rstrip()
        for line in table
    ]
    return "\n".join(aligned)


def _cells(row: Mapping[str, Any]) -> list[str]:
    """One line of a table, in the order of HEADERS."""
    height, width = row["input_hw"]
    return [
        row["name"],
        str(row["joints"]),
        f"{height}x{width}",
        "heatmap" if row["split_ratio"] is None else f"{row['split_ratio']:g}",
        f"{row['parameters'] / 1e6:.2f} M",
        f"{row['gflops']:.2f}",
        _availability(row),
        row["licence"].split()[0],  # the SPDX name; the rest is in the JSON
        "; ".join(f"{figure['metric']} {figure['value']} {figure['dataset']}" for figure in row["published"]),
        row["source"],
    ]


def _availability(row: Mapping[str, Any]) -> str:
    weights = row["weights"]
    if weights is None:
        return "no"
    if weights["url"] is None:
        return "bundled"
    return "here" if weights["cached"] else "yes"


def _weights(recipe: Recipe | DetectorRecipe) -> dict[str, Any] | None:
    """Where the weights come from and where they are; None where none are released."""
    bundled = bundled_weights(recipe.name) or bundled_engine_of(recipe.name)
    if bundled is not None:
        return {"url": None, "sha256": None, "file": str(bundled), "cached": True}
    if recipe.weights is None:
        return None
    from sdk.networks import weights_path

    path = weights_path(recipe)
    return {**asdict(recipe.weights), "file": str(path), "cached": path.is_file()}

"""How the verbs that build take a recipe: by catalogue name, from a file, or out of an ONNX file's metadata."""

from __future__ import annotations

import argparse
from pathlib import Path

from sdk.errors import EngineError, UsageError
from sdk.manifest import MANIFEST_NAME, Engine, open_engine
from sdk.recipe import Recipe, recipe_by_name, recipe_from_file
from sdk.resources import bundled_engines

__all__ = ["add_recipe_arguments", "add_weights_arguments", "float_engine_from", "recipe_from", "weights_from"]


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """RECIPE and --recipe-file."""
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="a name of the catalogue (`sdk models`)")
    parser.add_argument("--recipe-file", type=Path, metavar="F", help="a TOML file; RECIPE then names one recipe of it")


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """--weights, --seed and --images."""
    parser.add_argument(
        "--weights", metavar="F", help="a checkpoint, or 'random'; default: the recipe's released weights"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default 0)")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="photographs on which forms of the network are compared"
    )


def recipe_from(arguments: argparse.Namespace, onnx: Path | None = None) -> Recipe:
    """The recipe that the arguments name; UsageError when they name none."""
    if arguments.recipe_file is not None:
        return recipe_from_file(arguments.recipe_file, arguments.recipe)
    if arguments.recipe is not None:
        return recipe_by_name(arguments.recipe)
    if onnx is not None and onnx.suffix == ".onnx":
        from sdk.toolchain.export import recipe_from_graph

        if (found := recipe_from_graph(onnx)) is not None:
            return found
    about = f"'{onnx}' does not carry its recipe; " if onnx is not None else ""
    raise UsageError(
        f"{about}name a RECIPE of the catalogue or give --recipe-file F: it holds mean, std, joints and split ratio, "
        "which no graph says"
    )


def float_engine_from(arguments: argparse.Namespace) -> Engine | None:
    """The fp32 engine whose folder, or bundled name, stands where RECIPE does; None for anything else."""
    name = arguments.recipe or ""
    folder = bundled_engines().get(name) or Path(name)
    if not name or not (folder / MANIFEST_NAME).is_file():
        return None
    engine = open_engine(folder)
    if engine.manifest.precision != "fp32":
        raise EngineError(
            f"engine '{folder}' holds an {engine.manifest.precision} graph: only from an fp32 graph can another "
            "precision be made; give an fp32 engine, or the recipe"
        )
    return engine


def weights_from(arguments: argparse.Namespace) -> tuple[Path | None, int | None]:
    """(checkpoint, seed of random weights): one of them, or neither for the recipe's own."""
    if arguments.weights is None:
        return None, None
    if arguments.weights == "random":
        return None, arguments.seed
    return Path(arguments.weights), None

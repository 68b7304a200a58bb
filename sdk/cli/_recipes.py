"""How the verbs that build take a recipe: by catalogue name, from a file, or out of an ONNX file's metadata."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sdk.cli._numbers import finite
from sdk.detector_recipe import detector_by_name, detector_from_file
from sdk.errors import EngineError, UsageError
from sdk.manifest import MANIFEST_NAME, Engine, open_engine
from sdk.recipe import Recipe, recipe_by_name, recipe_from_file
from sdk.recipe_files import names_of_kind, recipe_file
from sdk.resources import bundled_engine_of, bundled_engines

if TYPE_CHECKING:
    from sdk.toolchain.conventions import Told
    from sdk.toolchain.detectors.build import DetectorBuild

__all__ = [
    "GRAPH_OPTIONS",
    "add_graph_arguments",
    "add_recipe_arguments",
    "add_weights_arguments",
    "detector_from",
    "float_engine_from",
    "is_detector",
    "recipe_from",
    "recipe_of_graph",
    "size_hw",
    "told_from",
    "weights_from",
]

GRAPH_OPTIONS = ("convention", "skeleton", "size", "mean", "std", "colour", "padding", "score", "pixels", "outputs")


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """RECIPE and --recipe-file."""
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="a name of the catalogue (`sdk models`)")
    parser.add_argument("--recipe-file", type=Path, metavar="F", help="a TOML file; RECIPE then names one recipe of it")


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """--weights, --seed and --images."""
    parser.add_argument(
        "--weights", metavar="F", help="a checkpoint, or 'random'; default: the recipe's released weights"
    )
    parser.add_argument("--seed", type=int, help="of the weights that --weights random draws (default 0)")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="photographs on which forms of the network are compared"
    )


def add_graph_arguments(parser: argparse.ArgumentParser) -> None:
    """--onnx, and what no graph says by itself (docs/engines.md)."""
    parser.add_argument(
        "--onnx", type=Path, metavar="F", help="a graph made elsewhere: an ONNX file, a deploy zip or its folder"
    )
    parser.add_argument(
        "--form",
        metavar="FORM",
        help="F is a person detector: of this form (docs/detectors.md), or 'auto', as it shows",
    )
    parser.add_argument("--person-class", type=int, metavar="N", help="a detector's class of persons, from 0 on")
    group = parser.add_argument_group("what a graph of --onnx does not say; `sdk inspect F` tells what is needed")
    add = group.add_argument
    add("--convention", choices=("mmpose", "rtmlib", "simcc", "dwpose"), help="colours, means, padding and score of")
    add("--skeleton", metavar="NAME", help="the joints, where no RECIPE names them, as coco17")
    add("--size", type=size_hw, metavar="HxW", help="of the crops, where the graph leaves it open")
    add("--mean", type=_triple, metavar="A,B,C", help="in grey levels, in the order of --colour")
    add("--std", type=_triple, metavar="A,B,C")
    add("--colour", choices=("rgb", "bgr"), help="the order in which the graph takes the channels")
    add("--padding", type=finite, metavar="P", help="of the box, as 1.25")
    add("--score", choices=("min_logit", "min_softmax", "mean_logit"))
    add("--pixels", choices=("normalised", "0..255", "0..1"), help="what its input is fed with")
    add("--outputs", type=_names, default=(), metavar="X,Y", help="the tensors for both axes, inner ones too")


def told_from(arguments: argparse.Namespace) -> Told:
    """What the arguments say of a graph made elsewhere; UsageError where there is none to say it of."""
    from sdk.skeletons import skeleton_by_name
    from sdk.toolchain.conventions import Told

    given = _given(arguments)
    if given and arguments.onnx is None:
        raise UsageError(f"--{given[0]} says something of a graph made elsewhere; give --onnx F as well")
    skeleton = None if arguments.skeleton is None else skeleton_by_name(arguments.skeleton)
    return Told(
        arguments.convention, skeleton, arguments.size, arguments.mean, arguments.std, arguments.colour,
        arguments.padding, arguments.score, arguments.pixels, arguments.outputs,
    )  # fmt: skip


def is_detector(arguments: argparse.Namespace) -> bool:
    """Whether a detector is asked for: by name, by the kind of a recipe file, by --form, or by the graph alone."""
    if arguments.form is not None or arguments.person_class is not None:
        return True
    if arguments.recipe_file is not None:
        return recipe_file(arguments.recipe_file).kind == "detector"
    if arguments.recipe is not None or arguments.onnx is None:
        return arguments.recipe in names_of_kind("detector")
    if _told_of_pose(arguments) or recipe_of_graph(arguments) is not None:
        return False
    from sdk.toolchain.detectors.taken import detector_facts

    return detector_facts(arguments.onnx, arguments.size)["kind"] is not None


def detector_from(arguments: argparse.Namespace) -> DetectorBuild:
    """The detector that the arguments name, as a build takes it; UsageError for what detectors do not take."""
    from sdk.toolchain.detectors.build import DetectorBuild
    from sdk.toolchain.detectors.taken import DetectorTold

    for name in _told_of_pose(arguments):
        raise UsageError(f"--{name} is for pose networks; a detector is told by --form and --person-class")
    recipe = None
    if arguments.recipe_file is not None:
        recipe = detector_from_file(arguments.recipe_file, arguments.recipe)
    elif arguments.recipe is not None:
        recipe = detector_by_name(arguments.recipe)
    if arguments.weights is not None and arguments.onnx is not None:
        raise UsageError("--weights and --onnx exclude each other; a detector's weights are its graph")
    if arguments.weights == "random":
        raise UsageError("--weights random is for pose networks; a detector's graph is not made here")
    graph = arguments.onnx if arguments.weights is None else Path(arguments.weights)
    if recipe is None and graph is None:
        raise UsageError("--form says what the graph of --onnx is; give --onnx F as well")
    told = DetectorTold(arguments.form or "auto", arguments.size, arguments.person_class)
    return DetectorBuild(recipe, onnx=graph, told=told)


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """The recipe that the arguments name; UsageError when they name none."""
    if arguments.recipe_file is not None:
        return recipe_from_file(arguments.recipe_file, arguments.recipe)
    if arguments.recipe is not None:
        return recipe_by_name(arguments.recipe)
    raise UsageError(
        "name a RECIPE of the catalogue or give --recipe-file F: it holds mean, std, joints and split ratio"
    )


def recipe_of_graph(arguments: argparse.Namespace) -> Recipe | None:
    """As `recipe_from`, for a verb with --onnx: the recipe in the graph's metadata will do.

    None where there is none: one is made of what the graph, the files beside it and the options say.
    """
    if arguments.onnx is None or arguments.recipe is not None or arguments.recipe_file is not None:
        return recipe_from(arguments)
    if arguments.onnx.suffix != ".onnx":
        return None
    from sdk.toolchain.export import recipe_from_graph

    return recipe_from_graph(arguments.onnx)


def float_engine_from(arguments: argparse.Namespace) -> Engine | None:
    """The fp32 engine whose folder, or bundled name, stands where RECIPE does; None for anything else.

    Of a bundled recipe that nothing else is said of, the bundled engine: its graph is at hand, and needs no torch.
    """
    name = arguments.recipe
    if not name or arguments.recipe_file is not None:
        return None
    folder: Path | None = Path(name)
    if not (Path(name) / MANIFEST_NAME).is_file():  # a folder here comes first, as wherever an engine is named
        whole = arguments.weights is None and arguments.onnx is None
        folder = bundled_engines().get(name) or (bundled_engine_of(name) if whole else None)
    if folder is None:
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
        return None, arguments.seed or 0
    return Path(arguments.weights), None


def check_seed(arguments: argparse.Namespace) -> None:
    """UsageError for a seed that nothing is drawn with."""
    if arguments.seed is not None and arguments.weights != "random":
        raise UsageError(f"--seed {arguments.seed} is of --weights random; leave it out")


def size_hw(text: str) -> tuple[int, int]:
    """HEIGHTxWIDTH as an option takes it."""
    height, _, width = text.partition("x")
    if not (height.isascii() and height.isdigit() and width.isascii() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"must be HEIGHTxWIDTH, as 256x192 (got '{text}')")
    return int(height), int(width)


def _given(arguments: argparse.Namespace) -> list[str]:
    """What is said of a graph made elsewhere, by the options' names."""
    return [name for name in GRAPH_OPTIONS if getattr(arguments, name) not in (None, ())]


def _told_of_pose(arguments: argparse.Namespace) -> list[str]:
    """Of that, what is said of a pose network's alone."""
    return [name for name in _given(arguments) if name != "size"]


def _triple(text: str) -> tuple[float, float, float]:
    try:
        first, second, third = map(finite, text.split(","))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"must be three numbers, as 123.675,116.28,103.53 (got '{text}')") from None
    return first, second, third


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))

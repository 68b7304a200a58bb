"""What no graph says (mean, colours, padding, score rule): named conventions, and a recipe made of what is known.

A convention is how one well-known code feeds and reads the SimCC graphs it publishes. Nothing is filled in from
elsewhere: what neither the graph, nor the files beside it, nor a convention, nor the caller says is asked for by name.

    told = Told(convention="rtmlib", skeleton=skeleton_by_name("coco17"))
    recipe, notes = recipe_from_graph_facts(
        told, DeployFacts(), name="end2end", size_hw=(256, 192), joints=17, ratio=2.0, subject="'end2end.onnx'"
    )
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from sdk.errors import GraphError, UsageError
from sdk.recipe import ColourOrder, Input, Output, Protocol, Recipe, ScoreRule
from sdk.skeletons import SKELETONS, Skeleton
from sdk.toolchain.deploy import DeployFacts
from sdk.toolchain.front import Pixels

__all__ = ["CONVENTIONS", "Convention", "ConventionName", "Told", "agreed", "recipe_from_graph_facts", "with_told"]

ConventionName = Literal["mmpose", "rtmlib", "simcc", "dwpose"]
Triple = tuple[float, float, float]
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of R, G, B


@dataclass(frozen=True)
class Convention:
    """How one code feeds and reads SimCC graphs. Mean and deviation in the order of `colour`."""

    colour: ColourOrder
    score: ScoreRule
    source: str
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    padding: float = 1.25
    flip_shift: bool = False


CONVENTIONS: Mapping[str, Convention] = {
    "mmpose": Convention("rgb", "min_logit", "open-mmlab/mmpose: PoseDataPreprocessor, get_simcc_maximum"),
    # the pictures stay BGR, and the mean of R is taken from B: so the published demos run, and so their poses come
    "rtmlib": Convention("bgr", "mean_logit", "Tau-J/rtmlib 0.0.16: RTMPose.preprocess, get_simcc_maximum"),
    "dwpose": Convention("bgr", "min_logit", "IDEA-Research/DWPose: annotator/dwpose/onnxpose.py"),
    "simcc": Convention(
        "bgr", "min_softmax", "leeyegy/SimCC: experiments/coco/resnet/simdr, COLOR_RGB false", flip_shift=True
    ),
}


@dataclass(frozen=True)
class Told:
    """What the caller says by name of a graph made elsewhere."""

    convention: ConventionName | None = None
    skeleton: Skeleton | None = None
    size_hw: tuple[int, int] | None = None
    mean: Triple | None = None
    std: Triple | None = None
    colour: ColourOrder | None = None
    padding: float | None = None
    score: ScoreRule | None = None
    pixels: Pixels | None = None
    outputs: tuple[str, ...] = ()


def with_told(recipe: Recipe, told: Told) -> tuple[Recipe, tuple[str, ...]]:
    """A recipe with what the caller says laid over it, and that in words."""
    if told.convention is not None or told.skeleton is not None or told.size_hw is not None:
        raise UsageError(
            f"recipe '{recipe.name}' says convention, joints and size already; leave RECIPE or those options out"
        )
    changes = {"mean": told.mean, "std": told.std, "colour": told.colour, "box_padding": told.padding}
    given = {key: value for key, value in changes.items() if value is not None and value != getattr(recipe.input, key)}
    notes = [f"{key} {_shown(value)} as told, not {_shown(getattr(recipe.input, key))}" for key, value in given.items()]
    recipe = replace(recipe, input=replace(recipe.input, **given))  # type: ignore[arg-type]
    if told.score is not None and told.score != recipe.output.score:
        notes.append(f"score rule {told.score} as told, not {recipe.output.score}")
        recipe = replace(recipe, output=replace(recipe.output, score=told.score))
    return recipe, tuple(notes)


def agreed(recipe: Recipe, deploy: DeployFacts, told: Told, subject: str) -> None:
    """GraphError where the deploy files beside a graph say otherwise than the recipe, and the caller said neither."""
    source, skeleton = recipe.input, recipe.skeleton
    rows = (
        ("mean", deploy.mean, source.mean, told.mean),
        ("std", deploy.std, source.std, told.std),
        ("colour", deploy.colour, source.colour, told.colour),
        ("padding", deploy.padding, source.box_padding, told.padding),
        ("split ratio", deploy.split_ratio, recipe.output.split_ratio, None),
        ("flip pairs", _sorted(deploy.flip_pairs), _sorted(skeleton.flip_pairs), None),
    )
    for name, theirs, ours, said in rows:
        if theirs is not None and said is None and not _equal(theirs, ours):
            raise GraphError(
                f"{subject}: pipeline.json beside it says {name} {_shown(theirs)}, recipe '{recipe.name}' "
                f"{_shown(ours)}; take another recipe, or leave RECIPE out and name --skeleton"
            )


def recipe_from_graph_facts(
    told: Told,
    deploy: DeployFacts,
    *,
    name: str,
    size_hw: tuple[int, int],
    joints: int,
    ratio: float,
    subject: str,
) -> tuple[Recipe, tuple[str, ...]]:
    """A recipe for a graph that came without one, and where each part is from. GraphError names all that is missing."""
    convention = CONVENTIONS.get(told.convention or ("mmpose" if deploy.padding is not None else ""))
    parts = {
        "mean": _first(told.mean, deploy.mean, convention and convention.mean),
        "std": _first(told.std, deploy.std, convention and convention.std),
        "colour": _first(told.colour, deploy.colour, convention and convention.colour),
        "padding": _first(told.padding, deploy.padding, convention and convention.padding),
        "score": _first(told.score, None, convention and convention.score),
    }
    if told.pixels in ("0..255", "0..1"):  # the graph normalises by itself, or not at all
        parts |= {"mean": parts["mean"] or ((0.0,) * 3, ""), "std": parts["std"] or ((1.0,) * 3, "")}
    missing = [f"--{key}" for key, value in parts.items() if value is None]
    if missing:
        raise GraphError(
            f"{subject} does not say {', '.join(missing)} (nor does any graph): name them, or the code whose "
            f"convention it follows, --convention {', '.join(CONVENTIONS)}; or give a RECIPE"
        )
    skeleton = _skeleton(told.skeleton, joints, deploy, subject)
    values = {key: value[0] for key, value in parts.items() if value is not None}
    height, width = size_hw
    recipe = Recipe(
        name=f"{_plain(name)}-{height}x{width}",
        description=f"graph made elsewhere: {name}",
        source=deploy.source or name,
        licence="of the graph's makers",
        input=Input(height, width, values["mean"], values["std"], values["colour"], values["padding"]),
        output=Output("simcc", ratio, values["score"]),
        skeleton=skeleton,
        protocol=Protocol(flip_test=False, flip_shift=bool(convention and convention.flip_shift)),
    )
    origin = {"told": "told", "beside": "pipeline.json", "": f"convention {told.convention or 'mmpose'}"}
    notes = [f"{key} {_shown(value[0])} ({origin[value[1]]})" for key, value in parts.items() if value is not None]
    return recipe, (", ".join([*notes, f"{joints} joints, split ratio {ratio:g} (the graph)"]),)


def _first(told: Any, beside: Any, convention: Any) -> tuple[Any, str] | None:
    """The first of three that is said, and by whom."""
    for value, origin in ((told, "told"), (beside, "beside"), (convention, "")):
        if value is not None:
            return value, origin
    return None


def _skeleton(skeleton: Skeleton | None, joints: int, deploy: DeployFacts, subject: str) -> Skeleton:
    if skeleton is None:
        fitting = [known.name for known in SKELETONS.values() if len(known.joints) == joints]
        raise GraphError(
            f"{subject} has {joints} joints and does not name them: give --skeleton NAME (of {joints} joints: "
            f"{', '.join(fitting) or 'none; write a recipe file'})"
        )
    if len(skeleton.joints) != joints:
        raise GraphError(
            f"{subject} has {joints} joints, skeleton '{skeleton.name}' {len(skeleton.joints)}; name another"
        )
    if deploy.flip_pairs is not None and _sorted(deploy.flip_pairs) != _sorted(skeleton.flip_pairs):
        raise GraphError(
            f"{subject}: the files beside it have the flip pairs {_shown(deploy.flip_pairs)}, skeleton "
            f"'{skeleton.name}' {_shown(skeleton.flip_pairs)}; name another --skeleton"
        )
    return skeleton


def _plain(name: str) -> str:
    """A file's name as a recipe's: no ending, only letters that a recipe's name may have."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", re.sub(r"\.(onnx|zip)$", "", name)).strip("-._")
    return stem or "graph"


def _sorted(pairs: Any) -> Any:
    return None if pairs is None else sorted(tuple(sorted(pair)) for pair in pairs)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(abs(one - other) <= 1e-3 * abs(other)) if isinstance(one, float) and other is not None else one == other


def _shown(value: Any) -> str:
    return (
        " ".join(map(_shown, value))
        if isinstance(value, (tuple, list))
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )

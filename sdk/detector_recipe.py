"""The recipe of a person detector: what it is fed with, how its outputs are read, and where its graph comes from.

A table of a file of kind 'detector' in `engines/`, read as strictly as a pose network's (`sdk.recipe`). Its network is
not made here: its weights are a published graph. How boxes come out of its outputs is the form (`sdk.detection`);
that module also places a frame in its input.

    recipe = detector_by_name("rtmdet-nano-person-320")
    recipe.input.size_hw, recipe.input.colour, recipe.form, recipe.score_threshold
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from sdk.detection import DetectionForm, Place
from sdk.errors import InputError, RecipeError
from sdk.recipe import ColourOrder, GreyLevel, Published, Side, Spread, Weights, name_rule, weights_rules
from sdk.recipe_files import catalogue_of, chosen_name, did_you_mean, names_of_kind, recipe_file
from sdk.strict import Share, Within, strict_from_table, table_from

__all__ = [
    "NMS_IOU",
    "SCORE_THRESHOLD",
    "DetectorInput",
    "DetectorRecipe",
    "detector_by_name",
    "detector_catalogue",
    "detector_from_file",
    "detector_from_table",
]

SCORE_THRESHOLD = 0.3  # as mmpose cuts the boxes of its person detectors
NMS_IOU = 0.65  # of YOLOX's own evaluation; RTMDet's is 0.6


@dataclass(frozen=True)
class DetectorInput:
    """What the graph takes: 1 x 3 x height x width, (grey level - mean) / std in the order of `colour`.

    `place`: where the frame lies, its proportions kept and the rest filled with `border`: in the upper left corner or
    in the centre; or stretched over the whole input. A range of 0..1 is a std of 255.
    """

    height: Side
    width: Side
    mean: tuple[GreyLevel, GreyLevel, GreyLevel]
    std: tuple[Spread, Spread, Spread]
    colour: ColourOrder
    place: Place = "corner"
    border: Annotated[int, Within(0, 255)] = 114  # grey level
    name: str = "images"

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.height, self.width


@dataclass(frozen=True)
class DetectorRecipe:
    """One deployable detector. `name` is `<network>-<height>x<width>`, or `<network>-<side>` of a square input.

    `outputs`: the graph's tensors, in the order in which `form` counts them.
    """

    name: str
    description: str
    source: str
    licence: str
    input: DetectorInput
    outputs: tuple[str, ...]
    form: DetectionForm
    iou: Share = NMS_IOU  # two boxes that overlap by more are one person, where the form has boxes suppressed
    score_threshold: Share = SCORE_THRESHOLD
    weights: Weights | None = None  # a published graph: an ONNX file or a deploy zip
    published: tuple[Published, ...] = ()
    kind: Literal["detector"] = "detector"

    def __post_init__(self) -> None:
        for rule, met in self._rules():
            if not met:
                raise RecipeError(f"detector recipe '{self.name}': {rule}")

    def to_table(self) -> dict[str, Any]:
        """The plain table that `detector_from_table` reads back."""
        table: dict[str, Any] = table_from(self)
        return table

    def _rules(self) -> Iterator[tuple[str, bool]]:
        i = self.input
        yield name_rule(self.name)
        endings = (f"-{i.height}x{i.width}", *([f"-{i.height}"] if i.height == i.width else []))
        yield (
            f"name must end in {' or '.join(map(repr, endings))} (got '{self.name}')",
            self.name.endswith(endings),
        )
        form, tensors = self.form, (i.name, *self.outputs)
        yield (
            f"the graph's input and outputs must have names that differ (got {', '.join(map(repr, tensors))})",
            bool(self.outputs) and all(tensors) and len(set(tensors)) == len(tensors),
        )
        parts = [part.output for part in (form.boxes, form.scores, form.label) if part is not None]
        yield (
            f"form must read outputs of those named, 0 to {len(self.outputs) - 1} (got {max(parts)})",
            max(parts) < len(self.outputs),
        )
        cells = max(form.strides, default=1)
        yield (
            f"height and width must be multiples of the coarsest stride, {cells} (got {i.height}x{i.width})",
            i.height % cells == i.width % cells == 0,
        )
        if self.weights is not None:
            yield from weights_rules(self.weights)


def detector_from_table(table: Mapping[str, Any], where: str) -> DetectorRecipe:
    """A recipe from a plain table (a manifest's snapshot, or one merged table of a file)."""
    try:
        return strict_from_table(DetectorRecipe, table, where=where, error=RecipeError)
    except InputError as error:  # what a form says of its own values
        raise RecipeError(f"{where}: key 'form': {error}") from error


def detector_from_file(path: Path, name: str | None = None) -> DetectorRecipe:
    """The recipe `name` of a TOML file of kind 'detector', or its only one."""
    file = recipe_file(path, "detector")
    return detector_from_table(*file.merged(chosen_name(file, name)))


def detector_catalogue() -> dict[str, DetectorRecipe]:
    """Every detector that ships, by name, in the order of names."""
    return catalogue_of("detector", detector_from_table)


def detector_by_name(name: str) -> DetectorRecipe:
    """The catalogue's detector `name`; RecipeError suggests near names."""
    recipes = detector_catalogue()
    if name not in recipes:
        if name in names_of_kind("pose"):
            raise RecipeError(f"'{name}' is a pose network, and a detector is asked for")
        hint = did_you_mean(name, recipes)
        raise RecipeError(f"detector '{name}' is not in the catalogue{hint} The catalogue has {', '.join(recipes)}")
    return recipes[name]

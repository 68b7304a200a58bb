"""The recipe: everything that decides pixels and bins of one deployable network, and where its weights come from.

A recipe is a table of `engines/<file>.toml` (`sdk.recipe_files`). Strict: an unknown key, a missing key or a wrong type
is an error that names file and key. Person detectors have recipes of their own (`sdk.detector_recipe`). Nothing here
builds a network (`sdk.networks`) or touches a pixel (`sdk.ops`).

    recipe = recipe_by_name("rtmpose-s-256x192")
    recipe.input.size_hw, recipe.output.split_ratio, recipe.skeleton.joints
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from sdk.errors import RecipeError
from sdk.recipe_files import catalogue_of, chosen_name, did_you_mean, names_of_kind, recipe_file, recipes_of
from sdk.recipe_networks import Network
from sdk.skeletons import Skeleton, skeleton_by_name
from sdk.strict import Count, Positive, Share, Within, strict_from_table, table_from

__all__ = [
    "DepthAxis",
    "Input",
    "Output",
    "Protocol",
    "Published",
    "Recipe",
    "ScoreRule",
    "Weights",
    "catalogue",
    "name_rule",
    "recipe_by_name",
    "recipe_from_file",
    "recipe_from_table",
    "recipes_from_file",
    "weights_rules",
]

JOINT_THRESHOLD = 0.2  # of logits and heatmaps: the paper's code and mmpose
# A bin's probability never gets there: median 0.028 of the bundled network on LSPET val, AP 29.9 at 0.2. Up to three
# times a flat guess AP is 37.8, at five times 37.5: every joint enters.
SOFTMAX_JOINT_THRESHOLD = 0.0
ScoreRule = Literal["min_logit", "min_softmax", "mean_logit"]
ColourOrder = Literal["rgb", "bgr"]
Side = Annotated[int, Within(1, 8192)]  # of a crop, pixels
Threshold = Annotated[float, Within(-1e3, 1e3)]  # of scores, which may be logits
GreyLevel = Annotated[float, Within(-1e6, 1e6)]
Spread = Annotated[float, Within(1e-3, 1e6)]  # of grey levels: its inverse is a factor in float32
Padding = Annotated[float, Within(0.1, 10)]  # published networks: 1 to 1.5
SplitRatio = Annotated[float, Within(0, 64, above=True)]  # bins a pixel; published networks: 1.5 to 4


@dataclass(frozen=True)
class Input:
    """The crop: size, grey-level mean and standard deviation in `colour` order, and the padding about a box."""

    height: Side
    width: Side
    mean: tuple[GreyLevel, GreyLevel, GreyLevel]
    std: tuple[Spread, Spread, Spread]
    colour: ColourOrder
    box_padding: Padding
    name: str = "input"

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.height, self.width


@dataclass(frozen=True)
class DepthAxis:
    """A third classification: its `bins` reach from -`span` to +`span` about the middle of the joints `root`.

    `unit` 'm': metres. 'px': pixels of the crop, told in frame pixels.
    """

    bins: Count
    span: Positive
    unit: Literal["m", "px"]
    root: tuple[str, ...]
    name: str = "simcc_z"


@dataclass(frozen=True)
class Output:
    """`kind` simcc: two 1-D classifications with `split_ratio` bins a pixel, and, with `depth`, a third.

    heatmap: no split ratio, no score rule, no depth.
    """

    kind: Literal["simcc", "heatmap"]
    split_ratio: SplitRatio | None = None
    score: ScoreRule | None = None
    x_name: str = "simcc_x"
    y_name: str = "simcc_y"
    heatmap_name: str = "heatmap"
    depth: DepthAxis | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The graph's output tensors, in order: along x, along y and, with a third axis, along z; or the heatmap."""
        if self.kind == "heatmap":
            return (self.heatmap_name,)
        return (self.x_name, self.y_name) if self.depth is None else (self.x_name, self.y_name, self.depth.name)


@dataclass(frozen=True)
class Protocol:
    """How the published figure was measured: flip test, and the one-bin (one-pixel) shift of the mirrored output."""

    flip_test: bool
    flip_shift: bool
    joint_threshold: Threshold | None = None  # joints below it do not enter a person's score; None: by the score rule
    oks_threshold: Share = 0.9  # OKS-NMS


@dataclass(frozen=True)
class Weights:
    """A released checkpoint. `sha256` is the whole digest or its first digits; None where none is published."""

    url: str
    sha256: str | None = None


@dataclass(frozen=True)
class Published:
    """A published figure and where it stands. `value` in points (0..100)."""

    dataset: str
    metric: str
    value: Annotated[float, Within(0, 100)]
    boxes: str
    source: str


@dataclass(frozen=True)
class Recipe:
    """One deployable network. `name` is `<network>-<height>x<width>`."""

    name: str
    description: str
    source: str
    licence: str
    input: Input
    output: Output
    skeleton: Skeleton
    protocol: Protocol
    network: Network | None = None  # absent where a graph is made elsewhere
    weights: Weights | None = None
    layout: Literal["simcc", "tokenpose", "mmpose", "sdk"] = "sdk"  # key names of checkpoints for this network
    published: tuple[Published, ...] = ()

    def __post_init__(self) -> None:
        for rule, met in self._rules():
            if not met:
                raise RecipeError(f"recipe '{self.name}': {rule}")

    @property
    def joints(self) -> int:
        return len(self.skeleton.joints)

    @property
    def joint_threshold(self) -> float:
        """The score that a joint must pass to enter its person's: as told, or what fits the scale of the score rule."""
        told = self.protocol.joint_threshold
        if told is not None:
            return told
        return SOFTMAX_JOINT_THRESHOLD if self.output.score == "min_softmax" else JOINT_THRESHOLD

    @property
    def design(self) -> Network:
        """The network that the recipe describes."""
        if self.network is None:
            raise RecipeError(
                f"recipe '{self.name}' has no key 'network': it serves a graph made elsewhere (`sdk build-engine "
                "--onnx`); to make the network here, name its backbone and head"
            )
        return self.network

    @property
    def bins_xy(self) -> tuple[int, int]:
        """Bins along x and y: the whole part of size x split ratio, as the SimCC code counts them."""
        if self.output.split_ratio is None:
            raise RecipeError(f"recipe '{self.name}' has heatmaps, not bins; use a recipe whose output kind is simcc")
        return int(self.input.width * self.output.split_ratio), int(self.input.height * self.output.split_ratio)

    @property
    def bins(self) -> tuple[int, ...]:
        """Bins along x, along y and, with a third axis, along z: one number an output of kind simcc."""
        depth = self.output.depth
        return self.bins_xy if depth is None else (*self.bins_xy, depth.bins)

    def to_table(self) -> dict[str, Any]:
        """The plain table that `recipe_from_table` reads back."""
        table: dict[str, Any] = table_from(self)
        return table

    def _rules(self) -> Iterator[tuple[str, bool]]:
        i, o = self.input, self.output
        yield name_rule(self.name)
        yield (
            f"name must end in '-{i.height}x{i.width}' (got '{self.name}')",
            self.name.endswith(f"-{i.height}x{i.width}"),
        )
        simcc = o.kind == "simcc"
        yield (
            f"output.split_ratio and output.score belong to kind 'simcc' and only to it (got kind '{o.kind}', "
            f"split_ratio {o.split_ratio}, score {o.score})",
            (o.split_ratio is not None) == simcc and (o.score is not None) == simcc,
        )
        yield (
            f"output.split_ratio must give at least 2 bins along x and along y (got {o.split_ratio})",
            o.split_ratio is None or min(self.bins_xy) > 1,
        )
        if o.depth is not None:
            joints, root = self.skeleton.joints, o.depth.root
            yield f"output.depth belongs to kind 'simcc' and only to it (got kind '{o.kind}')", simcc
            yield (
                f"output.depth.root must name the joints whose middle has depth 0, of {', '.join(joints[:20])} "
                f"(got {', '.join(map(repr, root)) or 'none'})",
                bool(root) and set(root) <= set(joints),
            )
        tensors = (i.name, *o.names)
        yield (
            f"the graph's input and outputs must have names that differ (got {', '.join(map(repr, tensors))})",
            all(tensors) and len(set(tensors)) == len(tensors),
        )
        if self.weights is not None:
            yield from weights_rules(self.weights)


def recipe_from_table(table: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from a plain table (a manifest's snapshot, or one merged table of a file)."""
    if isinstance(table, Mapping) and isinstance(table.get("skeleton"), str):
        table = {**table, "skeleton": table_from(skeleton_by_name(table["skeleton"]))}
    return strict_from_table(Recipe, table, where=where, error=RecipeError)


def recipes_from_file(path: Path) -> dict[str, Recipe]:
    """All recipes of one TOML file, by name. RecipeError names file and key."""
    return recipes_of(recipe_file(path, "pose"), recipe_from_table)


def recipe_from_file(path: Path, name: str | None = None) -> Recipe:
    """The recipe `name` of a TOML file, or its only one; what is wrong with the file's others does not matter."""
    file = recipe_file(path, "pose")
    return recipe_from_table(*file.merged(chosen_name(file, name)))


def catalogue() -> dict[str, Recipe]:
    """Every pose recipe that ships, by name, in the order of names."""
    return catalogue_of("pose", recipe_from_table)


def recipe_by_name(name: str) -> Recipe:
    """The catalogue's recipe `name`; RecipeError suggests near names."""
    recipes = catalogue()
    if name not in recipes:
        if name in names_of_kind("detector"):
            raise RecipeError(f"'{name}' is a detector, and the recipe of a pose network is asked for")
        hint = did_you_mean(name, recipes)
        raise RecipeError(f"recipe '{name}' is not in the catalogue{hint} `sdk models` lists all {len(recipes)}")
    return recipes[name]


def name_rule(name: str) -> tuple[str, bool]:
    """The rule of a recipe's name, and whether it is met: engine folders are called by it."""
    return (
        f"name must be of A-Z, a-z, 0-9, '_', '.' and '-', and begin with a letter or digit (got '{name}')",
        re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII) is not None,
    )


def weights_rules(weights: Weights) -> Iterator[tuple[str, bool]]:
    """The rules of where weights come from, and whether each is met."""
    digest = weights.sha256
    yield f"weights.url must be https (got '{weights.url}')", weights.url.startswith("https://")
    yield (
        f"weights.sha256 must be 7 to 64 lower-case hex digits (got '{digest}')",
        digest is None or re.fullmatch(r"[0-9a-f]{7,64}", digest) is not None,
    )
    yield (
        f"weights.sha256 must be a digest, and '{digest}' is a date; where no digest is published, leave the key out",
        digest is None or re.fullmatch(r"20\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])", digest) is None,
    )

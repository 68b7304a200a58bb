"""The calibration table: activation ranges of one graph, with where they come from. Neutral JSON, read strictly.

It belongs to one float graph, by fingerprint; `check_graph` refuses any other and says what differs. Collecting the
ranges is `sdk.toolchain.calibrate`'s work, choosing what to quantise with them `sdk.toolchain.quantize`'s.

    table = table_from_file(Path("calibration/body17-nano-128x128.json"))
    check_graph(table, model, "calibration/body17-nano-128x128.json", "body17-nano-128x128")
    table.tensors["conv2_input"].amax
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import onnx

from sdk.errors import CalibrationError
from sdk.files import write_text
from sdk.reading import TABLE_BYTES, json_from_file
from sdk.strict import NotNegative, Positive, Share, Within, strict_from_table, table_from
from sdk.toolchain.fingerprint import Fingerprint, difference, fingerprint_of

__all__ = [
    "TABLE_FORMAT",
    "BudgetPoint",
    "CalibrationTable",
    "DataNote",
    "GroupCost",
    "Sensitivity",
    "TensorRange",
    "Trial",
    "check_graph",
    "point_within",
    "table_from_file",
    "tensors_within",
    "write_table",
]

TABLE_FORMAT = 2
Number = Annotated[int, Within(0)]  # of things counted


@dataclass(frozen=True)
class TensorRange:
    """One activation tensor: INT8 spans [-amax, amax]. `error`: noise over signal on held-out crops, by method."""

    amax: Positive
    method: str
    candidates: Mapping[str, Positive]  # method -> amax
    error: Mapping[str, NotNegative]
    quantiles: Mapping[str, NotNegative]  # share of the magnitudes -> magnitude: the histogram in brief
    channel_mean: tuple[float, ...]  # over crops and pixels; bias correction uses it


@dataclass(frozen=True)
class DataNote:
    """The crops the ranges come from."""

    source: str  # file or folder name
    persons: Number  # usable persons found
    images: Number  # crops used, held-out ones included
    held_out: Number
    seed: int
    jitter: Share
    sha256: str  # of every crop used, in order


@dataclass(frozen=True)
class GroupCost:
    """What quantising one tensor and the nodes that read it costs, everything else float."""

    tensor: str
    nodes: tuple[str, ...]
    macs: Number
    distance_px: NotNegative  # mean keypoint distance to the float network, crop pixels
    oks_loss: float  # 100 x (1 - mean OKS with the float network's keypoints)


@dataclass(frozen=True)
class BudgetPoint:
    """The `groups` cheapest groups quantised together."""

    groups: Number
    int8_share: Share  # of the multiply-accumulates
    distance_px: NotNegative
    oks_loss: float
    ap_loss: float | None = None  # points; None without ground truth

    @property
    def points_lost(self) -> float:
        """What a budget is held against: AP, or OKS agreement where there was no ground truth."""
        return self.oks_loss if self.ap_loss is None else self.ap_loss


@dataclass(frozen=True)
class Sensitivity:
    """Groups from cheapest to dearest, and what whole prefixes of that order cost."""

    crops: Number  # that each group was measured on
    curve_crops: Number
    seed: int
    groups: tuple[GroupCost, ...]
    curve: tuple[BudgetPoint, ...]
    float_ap: float | None = None


@dataclass(frozen=True)
class Trial:
    """A remedy tried on held-out crops, all INT8: divergence from the float network's outputs without and with it."""

    remedy: str
    without: NotNegative
    applied: NotNegative
    kept: bool


@dataclass(frozen=True)
class CalibrationTable:
    """`calibration/<name>.json`."""

    format: int
    recipe: str
    graph: Fingerprint
    method: str
    data: DataNote
    tensors: Mapping[str, TensorRange]
    versions: Mapping[str, str]
    equalisation: Mapping[str, tuple[Positive, ...]] = field(default_factory=dict)  # tensor -> factor a channel
    correct_bias: bool = False
    trials: tuple[Trial, ...] = ()
    warnings: tuple[str, ...] = ()
    sensitivity: Sensitivity | None = None


def table_from_file(path: Path) -> CalibrationTable:
    """The table in `path`. CalibrationError names file and key."""
    mend = "make one with `sdk calibrate`"
    document = json_from_file(path, "calibration table", CalibrationError, mend, largest=TABLE_BYTES)
    version = document.get("format") if isinstance(document, dict) else None
    if type(version) is not int or version != TABLE_FORMAT:
        raise CalibrationError(
            f"{path.name}: key 'format' must be {TABLE_FORMAT} (got {version!r}); make the table with this SDK"
        )
    table = strict_from_table(CalibrationTable, document, where=path.name, error=CalibrationError)
    for rule, met in _rules_between_keys(table):
        if not met:
            raise CalibrationError(f"{path.name}: {rule}; calibrate again")
    return table


def _rules_between_keys(table: CalibrationTable) -> Iterator[tuple[str, bool]]:
    """What keys say of each other."""
    data, sensitivity = table.data, table.sensitivity
    yield (
        f"key 'data' must hold held_out <= images <= persons (got {data.held_out}, {data.images}, {data.persons})",
        data.held_out <= data.images <= data.persons,
    )
    for name, tensor in table.tensors.items():
        chosen = tensor.candidates.get(tensor.method)
        yield (
            f"key 'tensors.{name}.amax' must be the candidate of its method '{tensor.method}' (got {tensor.amax}, and "
            f"{chosen} among the candidates)",
            chosen == tensor.amax,
        )
    for name in set(table.equalisation) & set(table.tensors):
        factors, channels = len(table.equalisation[name]), len(table.tensors[name].channel_mean)
        yield (
            f"key 'equalisation.{name}' must hold {channels} factors, one a channel (got {factors})",
            factors == channels,
        )
    if sensitivity is not None:
        most = max((point.groups for point in sensitivity.curve), default=0)
        yield (
            f"key 'sensitivity.curve' must stay within its {len(sensitivity.groups)} groups (got {most})",
            most <= len(sensitivity.groups),
        )


def tensors_within(table: CalibrationTable, max_drop: float) -> frozenset[str]:
    """The tensors of the largest measured INT8 set that, like every smaller one, costs at most `max_drop` points."""
    point = point_within(table, max_drop)
    groups = () if point is None or table.sensitivity is None else table.sensitivity.groups[: point.groups]
    return frozenset(group.tensor for group in groups)


def point_within(table: CalibrationTable, max_drop: float) -> BudgetPoint | None:
    """The point of the curve that `tensors_within` takes; None where even the smallest set costs more.

    Points are of AP, or, where the crops had no ground truth, of OKS agreement with the float network.
    """
    if table.sensitivity is None:
        raise CalibrationError(
            f"calibration table of '{table.recipe}' has no sensitivity, so a budget of {max_drop} points cannot be "
            "kept; calibrate with --sensitivity, or leave --max-drop out"
        )
    chosen = None
    for point in sorted(table.sensitivity.curve, key=lambda p: p.groups):
        if point.points_lost > max_drop:
            break
        chosen = point
    return chosen


def write_table(table: CalibrationTable, path: Path) -> None:
    """Write the table whole or not at all."""
    write_text(path, json.dumps(_rounded(table_from(table)), indent=1) + "\n")


def check_graph(table: CalibrationTable, model: onnx.ModelProto, where: str, recipe: str) -> None:
    """CalibrationError unless the table was made for this float graph of `recipe`, whatever machine exported it."""
    differs = difference(table.graph, fingerprint_of(model))
    if differs is None:
        return
    whose = f"for recipe '{table.recipe}'" if table.recipe != recipe else "for another graph of the recipe"
    raise CalibrationError(
        f"calibration table '{where}' was made {whose}, not for this graph of '{recipe}' ({differs}, table against "
        f"graph); give the table of this one, or make it with `sdk calibrate {recipe} --data ... --output "
        f"{_free_name(recipe, Path(where))}`"
    )


def _free_name(recipe: str, taken: Path) -> str:
    """A name for the right table that does not overwrite the wrong one, which is good for its own network."""
    name = f"{recipe}.json"
    return name if name != taken.name else f"{recipe}.new.json"


def _rounded(value: Any) -> Any:
    """Floats to seven significant digits: what float32 holds, in a file that reads and diffs well."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value

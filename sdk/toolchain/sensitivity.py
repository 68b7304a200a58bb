"""Sensitivity: what quantising each layer group costs on real crops, and what the cheapest ones cost together.

A group is an activation tensor and the weighted nodes that read it: the least Q/DQ can switch. Groups are ordered by
cost per multiply-accumulate; whole prefixes of that order are measured too, because noise does not add up by simple
sums. The result goes into the calibration table, where `--max-drop` finds the largest INT8 set inside a budget.

    table = replace(table, sensitivity=measure_sensitivity(model, table, crops))
    draw_sensitivity(table, Path("sensitivity.png"))
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx

from sdk.errors import CalibrationError, InputError, MissingDependencyError
from sdk.files import whole_file
from sdk.toolchain.crops import CropSet
from sdk.toolchain.judge import Judge
from sdk.toolchain.placement import Placement
from sdk.toolchain.quantize import QuantizeOptions, qdq_graph_from_graph
from sdk.toolchain.table import BudgetPoint, CalibrationTable, GroupCost, Sensitivity

__all__ = ["check_chart", "draw_sensitivity", "measure_sensitivity"]

CURVE_SHARES = (0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.94, 0.97, 1.0)  # of the multiply-accumulates that may be INT8
MOST_DRAWN = 40


def measure_sensitivity(
    model: onnx.ModelProto, table: CalibrationTable, crops: CropSet, *, curve_crops: CropSet | None = None
) -> Sensitivity:
    """Costs of every group on `crops`, and of prefixes of the cheapest groups on `curve_crops` (or the same)."""
    from tqdm import tqdm

    placement = qdq_graph_from_graph(model, table)[1]
    tensors = placement.tensors
    bar = tqdm(total=len(tensors) + len(CURVE_SHARES), desc="sensitivity", leave=False, file=sys.stderr, disable=None)
    with bar:
        judge = Judge(model, crops)
        groups = []
        for tensor in tensors:
            groups.append(_group(model, table, judge, placement, tensor))
            bar.update()
        groups.sort(key=lambda g: max(g.oks_loss, 0.0) / max(g.macs, 1))
        judge = judge if curve_crops is None else Judge(model, curve_crops)
        curve = []
        for count in _prefixes(groups, placement):
            curve.append(_point(model, table, judge, groups, count))
            bar.update()
    return Sensitivity(len(crops), len(judge.people), crops.seed, tuple(groups), tuple(curve), judge.float_ap)


def draw_sensitivity(table: CalibrationTable, path: Path) -> None:
    """A bar chart of the dearest groups beside the curve of the budget, as a picture file."""
    if table.sensitivity is None:
        raise CalibrationError(f"the table of '{table.recipe}' has no sensitivity; calibrate with --sensitivity")
    check_chart(path)
    from matplotlib.figure import Figure

    measured = table.sensitivity
    groups = sorted(measured.groups, key=lambda g: g.oks_loss)[-MOST_DRAWN:]
    figure = Figure(figsize=(13, 2 + 0.22 * len(groups)), layout="constrained")
    bars, budget = figure.subplots(1, 2, width_ratios=(2, 1))
    bars.barh([_short(g.nodes[0] if g.nodes else g.tensor) for g in groups], [g.oks_loss for g in groups])
    bars.set(xlabel="OKS lost to the float network, points", title=f"{table.recipe}: one group in INT8 at a time")
    bars.tick_params(axis="y", labelsize=7)
    shares = [100 * point.int8_share for point in measured.curve]
    budget.plot(shares, [point.oks_loss for point in measured.curve], "o-", label="OKS agreement")
    if measured.float_ap is not None:
        budget.plot(shares, [point.ap_loss or 0.0 for point in measured.curve], "s--", label="AP against ground truth")
    budget.set(xlabel="multiply-accumulates in INT8, %", ylabel="points lost", title="cheapest groups together")
    budget.legend()
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110)


def check_chart(path: Path) -> None:
    """Before any long work: MissingDependencyError without matplotlib, InputError for an ending it cannot draw."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(f"the chart needs matplotlib ({error}); pip install matplotlib") from error
    endings = sorted(Figure().canvas.get_supported_filetypes())
    if path.suffix[1:].lower() not in endings:
        raise InputError(f"chart '{path}' must end in one of {', '.join(endings)} (got '{path.suffix}')")


def _group(
    model: onnx.ModelProto, table: CalibrationTable, judge: Judge, placement: Placement, tensor: str
) -> GroupCost:
    quantised, _ = qdq_graph_from_graph(model, table, QuantizeOptions(int8_tensors=frozenset([tensor])))
    cost = judge.cost_of(quantised)
    nodes = [node for node in placement.int8 if node.data == tensor]
    return GroupCost(
        tensor, tuple(node.name for node in nodes), sum(node.macs for node in nodes), cost.distance_px, cost.oks_loss
    )


def _prefixes(groups: list[GroupCost], placement: Placement) -> list[int]:
    """Numbers of groups whose INT8 share of what may be INT8 first reaches each of `CURVE_SHARES`."""
    reached = np.cumsum([group.macs for group in groups]) / max(placement.int8_macs, 1)
    counts = {int(np.searchsorted(reached, share - 1e-9)) + 1 for share in CURVE_SHARES[:-1]}
    return sorted({min(count, len(groups)) for count in counts} | {len(groups)})


def _point(
    model: onnx.ModelProto, table: CalibrationTable, judge: Judge, groups: list[GroupCost], count: int
) -> BudgetPoint:
    chosen = frozenset(group.tensor for group in groups[:count])
    quantised, placement = qdq_graph_from_graph(model, table, QuantizeOptions(int8_tensors=chosen))
    cost = judge.cost_of(quantised)
    return BudgetPoint(count, placement.int8_share, cost.distance_px, cost.oks_loss, cost.ap_loss)


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"…{name[-59:]}"

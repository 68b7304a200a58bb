"""The files of a run: written whole or not at all.

write_log(Path("log.csv"), rows)
write_curves(Path("curves.png"), rows)
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from sdk.files import whole_file

__all__ = ["CURVES", "GRAPH", "LOG", "RUN_FILES", "STATE", "WEIGHTS", "write_curves", "write_log"]

STATE, WEIGHTS, GRAPH, LOG, CURVES = RUN_FILES = (  # of a run's folder
    "last.pt", "best.safetensors", "network.onnx", "log.csv", "curves.png"
)  # fmt: skip
Row = Mapping[str, float]
COLUMNS = ("epoch", "step", "learning_rate", "loss", "seconds", "pck_0.2", "pck_0.1", "ap")


def write_log(path: Path, rows: Sequence[Row]) -> None:
    """One line an epoch; the validation columns are empty where none was made."""
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows([{key: _shown(row[key]) for key in COLUMNS if key in row} for row in rows])


def write_curves(path: Path, rows: Sequence[Row]) -> None:
    """Loss and validation figures over the epochs, as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharex=True)
    left.plot([row["epoch"] for row in rows], [row["loss"] for row in rows], marker=".")
    left.set(xlabel="epoch", ylabel="training loss")
    for key in ("pck_0.2", "pck_0.1", "ap"):
        measured = [row for row in rows if key in row]
        right.plot([row["epoch"] for row in measured], [row[key] for row in measured], marker=".", label=key)
    right.set(xlabel="epoch", ylabel="points")
    if any("pck_0.2" in row for row in rows):
        right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)  # never over a point
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"

"""Charts as SVG for the pages, by matplotlib: they need no script, no font file and nothing from the net.

    chart = line_chart({"AP50": (recall, precision)}, "recall, %", "precision, %", y_top=100)
    chart.svg, chart.keys                 # inline SVG; (name, CSS colour) of each series, for a legend in HTML

Colours are the page's CSS variables (`--ink`, `--muted`, `--grid`, `--s1` ..), so that one picture serves light and
dark. Numbers are finite or NaN; a NaN breaks a line and leaves a gap elsewhere.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Chart", "dot_chart", "histogram", "line_chart", "scatter_chart", "size_chart", "stacked_bars"]

Float64Array = NDArray[np.float64]
Series = Mapping[str, tuple[Float64Array, Float64Array]]

NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
SERIES = 6  # colours; later series begin anew
INK, MUTED, GRID = "#0a0a01", "#0a0a02", "#0a0a03"  # stand-ins, which `_themed` turns into the page's variables
WIDE, HIGH = 5.0, 2.7  # inches of 72 px: text of 9.5 px is read on a phone, where the page is about as wide
ROW, AROUND = 0.2, 0.75  # inches a row of a chart with names at its left, and what stands about the rows
BEYOND = 99.5  # per cent of the values that a chart shows at least
FAR = 1.5  # times these: only what lies further is left to a number at the edge


@dataclass(frozen=True)
class Chart:
    """Inline SVG, and each series' name and colour."""

    svg: str
    keys: tuple[tuple[str, str], ...] = ()


def line_chart(
    series: Series,
    x_label: str,
    y_label: str,
    *,
    y_top: float | None = None,
    markers: bool = False,
    whole_x: bool = False,
) -> Chart:
    """A line a series. `whole_x`: of what is counted, so that no tick lies between."""
    with _axes(x_label, y_label) as axes:
        for place, (x, y) in enumerate(series.values()):
            axes.plot(x, y, color=_stand_in(place), lw=1.6, marker="o" if markers else None, ms=4)
        axes.grid(axis="y")
        _from_zero(axes, y_top)
        if whole_x:
            axes.xaxis.get_major_locator().set_params(integer=True)
    return Chart(_drawn(axes, f"{y_label} by {x_label}"), _keys(series))


def scatter_chart(series: Series, x_label: str, y_label: str) -> Chart:
    """A dot a value; of values far above all others the axis ends below, and they stand at its edge."""
    with _axes(x_label, y_label) as axes:
        top = max((_most(y) for _, y in series.values()), default=1.0)
        for place, (x, y) in enumerate(series.values()):
            axes.plot(x, np.minimum(y, top), ".", color=_stand_in(place), ms=3, alpha=0.7)
        axes.grid(axis="y")
        _from_zero(axes, 1.03 * top)
    return Chart(_drawn(axes, f"{y_label} by {x_label}"), _keys(series))


def dot_chart(
    names: Sequence[str], series: Mapping[str, Float64Array], label: str, *, top: float | None = None
) -> Chart:
    """A row a name, a dot a series: names are read where bars would hide each other."""
    with _axes(label, "", high=AROUND + ROW * max(1, len(names))) as axes:
        rows = np.arange(len(names))
        for place, values in enumerate(series.values()):
            axes.plot(values, rows, "o", color=_stand_in(place), ms=5, zorder=3)
        axes.grid(axis="both")
        _rows(axes, [name.replace("_", " ") for name in names])
        axes.set_xlim(0, top)
    return Chart(_drawn(axes, label), _keys(series))


def size_chart(groups: Mapping[str, tuple[int, float]], label: str, *, top: float | None = None) -> Chart:
    """A bar a group of (count, value), its value and count written at its end."""
    with _axes(label, "", high=AROUND + 1.5 * ROW * max(1, len(groups))) as axes:
        for row, (count, value) in enumerate(groups.values()):
            axes.barh(row, 0 if np.isnan(value) else value, 0.6, color=_stand_in(0))
            told = "nobody" if not count else f"{value:.2f}, {count} {'person' if count == 1 else 'persons'}"
            axes.annotate(told, (0 if np.isnan(value) else value, row), (4, 0), textcoords="offset points", va="center")
        axes.grid(axis="x")
        _rows(axes, list(groups))
        axes.set_xlim(0, top)
    return Chart(_drawn(axes, label))


def stacked_bars(rows: Mapping[str, Mapping[str, float]], label: str) -> Chart:
    """A bar a row, in pieces; the sum at its end. A piece has one colour in all rows."""
    pieces = list(dict.fromkeys(name for row in rows.values() for name in row))
    with _axes(label, "", high=AROUND + 1.7 * ROW * max(1, len(rows))) as axes:
        for place, row in enumerate(rows.values()):
            start = 0.0
            for piece, value in row.items():
                axes.barh(place, value, 0.6, left=start, color=_stand_in(pieces.index(piece)))
                start += value
            axes.annotate(f"{start:.3g}", (start, place), (4, 0), textcoords="offset points", va="center")
        axes.grid(axis="x")
        _rows(axes, list(rows))
        axes.set_xlim(0, 1.15 * max((sum(row.values()) for row in rows.values()), default=1.0) or 1.0)
    return Chart(_drawn(axes, label), _keys(pieces))


def histogram(
    values: Float64Array, x_label: str, y_label: str, marks: Mapping[str, float] | None = None, *, place: int = 0
) -> Chart:
    """How often each value came; `marks` are lines with a name. What lies far off is counted at the edge."""
    known = values[np.isfinite(values)]
    with _axes(x_label, y_label) as axes:
        low = float(known.min()) if len(known) else 0.0
        high = max([_most(known), *(marks or {}).values()])
        high = high if high > low else low + (abs(low) or 1.0)
        axes.hist(known, np.linspace(low, high, 41), color=_stand_in(place), alpha=0.85)
        _mark(axes, marks or {}, high - low)
        beyond = int((known > high).sum())
        if beyond:
            axes.set_xlabel(f"{x_label} ({beyond} beyond {high:.3g})")
        axes.grid(axis="y")
        axes.set_xlim(low - 0.02 * (high - low), high + 0.04 * (high - low))
        axes.yaxis.get_major_locator().set_params(integer=True)
    return Chart(_drawn(axes, f"{y_label} by {x_label}"))


def _most(values: Float64Array) -> float:
    """Where an axis of values ends: at the largest, unless it lies far from nearly all."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 1.0
    nearly = FAR * float(np.percentile(known, BEYOND))
    return float(min(known.max(), nearly) if nearly > 0 else known.max()) or 1.0


def _mark(axes: Any, marks: Mapping[str, float], span: float) -> None:
    """Lines with a name above; a name that would touch the one before stands a line higher."""
    height, before = 2, -np.inf
    for name, at in marks.items():
        height = height + 11 if at - before < 0.09 * span else 2
        before = at
        axes.axvline(at, color=INK, lw=1, ls=(0, (3, 2)))
        place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axes.annotate(name, (at, 1), (0, height), ha="center", **place)


@contextmanager
def _axes(x_label: str, y_label: str, high: float = HIGH) -> Iterator[Any]:
    """Empty axes in the pages' style; what is drawn on them must be drawn within."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure((WIDE, high), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        yield axes


STYLE: Any = {
    "font.size": 9.5,
    "axes.axisbelow": True,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.color": GRID,
    "ytick.labelcolor": MUTED,
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def _rows(axes: Any, names: list[str]) -> None:
    """Names at the left, the first one uppermost."""
    axes.set_yticks(np.arange(len(names)), names, color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _from_zero(axes: Any, top: float | None) -> None:
    axes.set_ylim(0, top if top is not None else max(axes.get_ylim()[1], 1e-9))


def _stand_in(place: int) -> str:
    return f"#0a0b0{place % SERIES + 1}"


def _keys(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, f"var(--s{place % SERIES + 1})") for place, name in enumerate(names))


def _drawn(axes: Any, about: str) -> str:
    """The figure as an inline element: as wide as it is given room, in the page's colours."""
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({**STYLE, "svg.hashsalt": about}):
        axes.figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None, "matplotlib gives every SVG a view box"
    head = f'<svg {NAMESPACES} {view[0]} role="img"><title>{escape(about, quote=False)}</title>'
    return _themed(re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1))


def _themed(svg: str) -> str:
    for colour, name in ((INK, "ink"), (MUTED, "muted"), (GRID, "grid")):
        svg = svg.replace(colour, f"var(--{name})")
    return re.sub(r"#0a0b0(\d)", r"var(--s\1)", svg)

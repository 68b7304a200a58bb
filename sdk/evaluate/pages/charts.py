"""Charts as SVG text, drawn here so that a report is one file that needs no plotting library, script or network.

    svg = line_chart({"AP50": (recall, precision)}, "recall, %", "precision, %", y_top=100)

Numbers are finite or NaN; a NaN breaks a line and leaves a gap in bars.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

__all__ = ["bar_chart", "histogram", "line_chart", "scatter_chart"]

Float64Array = NDArray[np.float64]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito: told apart by everyone
WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 30, 44


class _Axes:
    """The plotting area: maps values to pixels and collects SVG elements."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float], width: int, height: int) -> None:
        self.width, self.height = width, height
        self.x_range, self.y_range = _widened(x_range), _widened(y_range)
        self.parts: list[str] = []

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - TOP - BOTTOM)

    def frame(
        self, x_label: str, y_label: str, *, x_ticks: bool = True, whole_x: bool = False, whole_y: bool = False
    ) -> None:
        """Grid, tick labels and the names of the axes; `whole`: of what is counted, so that no tick lies between."""
        for value in _ticks(*self.y_range, whole=whole_y):
            level = self.y(value)
            self.parts.append(
                f'<line x1="{LEFT}" x2="{self.width - RIGHT}" y1="{level:.1f}" y2="{level:.1f}" class="grid"/>'
            )
            self.text(LEFT - 6, level + 4, _label(value), "end")
        for value in _ticks(*self.x_range, whole=whole_x) if x_ticks else ():
            self.text(self.x(value), self.height - BOTTOM + 16, _label(value), "middle")
        self.text((LEFT + self.width - RIGHT) / 2, self.height - 6, x_label, "middle")
        middle = (TOP + self.height - BOTTOM) / 2
        self.parts.append(
            f'<text x="14" y="{middle:.1f}" transform="rotate(-90 14 {middle:.1f})" text-anchor="middle">'
            f"{escape(y_label)}</text>"
        )

    def text(self, x: float, y: float, words: str, anchor: str) -> None:
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>')

    def legend(self, names: Sequence[str]) -> None:
        left = float(LEFT)
        for name, colour in zip(names, _cycled(len(names)), strict=True):
            self.parts.append(f'<rect x="{left:.1f}" y="8" width="12" height="12" fill="{colour}"/>')
            self.text(left + 17, 18, name, "start")
            left += 30 + 6.6 * len(name)

    def svg(self, title: str) -> str:
        inside = "".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'width="{self.width}" height="{self.height}" font-family="system-ui, sans-serif" font-size="12">'
            f"<title>{escape(title)}</title><style>.grid{{stroke:#8884;stroke-width:1}}text{{fill:#555}}</style>"
            f"{inside}</svg>"
        )


def line_chart(
    series: Mapping[str, tuple[Float64Array, Float64Array]],
    x_label: str,
    y_label: str,
    *,
    y_top: float | None = None,
    markers: bool = False,
    whole_x: bool = False,
) -> str:
    """Lines through (x, y) of each name; y starts at 0. `whole_x`: x counts something."""
    axes = _axes_of(series, y_top)
    axes.frame(x_label, y_label, whole_x=whole_x)
    axes.legend(list(series))
    for (xs, ys), colour in zip(series.values(), _cycled(len(series)), strict=True):
        for run in _finite_runs(xs, ys):
            path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in run)
            axes.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            if markers:
                axes.parts += [
                    f'<circle cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="3.5" fill="{colour}"/>' for x, y in run
                ]
    return axes.svg(f"{y_label} by {x_label}")


def scatter_chart(series: Mapping[str, tuple[Float64Array, Float64Array]], x_label: str, y_label: str) -> str:
    """Points (x, y) of each name; y starts at 0."""
    axes = _axes_of(series, None)
    axes.frame(x_label, y_label)
    axes.legend(list(series))
    for (xs, ys), colour in zip(series.values(), _cycled(len(series)), strict=True):
        axes.parts += [
            f'<circle cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="1.6" fill="{colour}" fill-opacity="0.6"/>'
            for run in _finite_runs(xs, ys)
            for x, y in run
        ]
    return axes.svg(f"{y_label} by {x_label}")


def bar_chart(labels: Sequence[str], series: Mapping[str, Float64Array], y_label: str, *, y_top: float = 100.0) -> str:
    """A group of bars a label, one bar a name; labels are set at a slant."""
    width = max(WIDTH, LEFT + RIGHT + 18 * len(labels) * max(1, len(series)) + 10 * len(labels))
    axes = _Axes((0.0, float(len(labels))), (0.0, y_top), width, HEIGHT + 40)
    axes.height = HEIGHT
    axes.frame("", y_label, x_ticks=False)
    axes.legend(list(series))
    wide = 0.8 / max(1, len(series))
    for n, (values, colour) in enumerate(zip(series.values(), _cycled(len(series)), strict=True)):
        for at, value in enumerate(values):
            if math.isfinite(value):
                left, top = axes.x(at + 0.1 + n * wide), axes.y(min(float(value), y_top))
                axes.parts.append(
                    f'<rect x="{left:.1f}" y="{top:.1f}" width="{axes.x(wide) - axes.x(0) - 1:.1f}" '
                    f'height="{max(0.0, axes.y(0) - top):.1f}" fill="{colour}"><title>{value:.2f}</title></rect>'
                )
    for at, label in enumerate(labels):
        x, y = axes.x(at + 0.5), HEIGHT - BOTTOM + 12
        axes.parts.append(
            f'<text x="{x:.1f}" y="{y}" text-anchor="end" transform="rotate(-38 {x:.1f} {y})">{escape(label)}</text>'
        )
    axes.height = HEIGHT + 40
    return axes.svg(y_label)


def histogram(values: Float64Array, x_label: str, y_label: str, *, bins: int = 40) -> str:
    """Counts of `values`; what lies above the 99.5th percentile is counted in the last bar."""
    known = values[np.isfinite(values)]
    if not known.size:
        return _Axes((0.0, 1.0), (0.0, 1.0), WIDTH, HEIGHT).svg(f"{x_label}: nothing was measured")
    low, high = float(known.min()), float(np.percentile(known, 99.5))
    counts, edges = np.histogram(np.minimum(known, high), bins=bins, range=_widened((low, high)))
    axes = _Axes((float(edges[0]), float(edges[-1])), (0.0, float(counts.max())), WIDTH, HEIGHT)
    axes.frame(x_label, y_label, whole_y=True)
    for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        x, top = axes.x(float(left)), axes.y(float(count))
        axes.parts.append(
            f'<rect x="{x:.1f}" y="{top:.1f}" width="{max(1.0, axes.x(float(right)) - x - 1):.1f}" '
            f'height="{max(0.0, axes.y(0.0) - top):.1f}" fill="{COLOURS[0]}"/>'
        )
    return axes.svg(x_label)


def _axes_of(series: Mapping[str, tuple[Float64Array, Float64Array]], y_top: float | None) -> _Axes:
    xs = np.concatenate([np.asarray(x, np.float64) for x, _ in series.values()] or [np.zeros(1)])
    ys = np.concatenate([np.asarray(y, np.float64) for _, y in series.values()] or [np.zeros(1)])
    ys = ys[np.isfinite(ys)]
    top = y_top if y_top is not None else 1.05 * float(ys.max(initial=0.0))
    low, high = (float(xs.min()), float(xs.max())) if xs.size else (0.0, 1.0)
    return _Axes((low, high), (0.0, top), WIDTH, HEIGHT)


def _finite_runs(xs: Float64Array, ys: Float64Array) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if math.isfinite(x) and math.isfinite(y):
            runs[-1].append((float(x), float(y)))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _widened(limits: tuple[float, float]) -> tuple[float, float]:
    low, high = limits
    return (low, high) if high > low else (low - 0.5, low + 0.5) if low else (0.0, 1.0)


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """About five round numbers between the limits, whole ones only where so asked."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    step = max(1.0, step) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [step * n for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _label(value: float) -> str:
    return f"{value:.6g}"


def _cycled(count: int) -> list[str]:
    return [COLOURS[n % len(COLOURS)] for n in range(count)]

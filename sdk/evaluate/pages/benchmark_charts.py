"""What of a benchmark is drawn: where a call's time goes, how it spreads, how it runs on.

for title, charts in sections_of(table): ...        # `table` as `sdk.evaluate.speed.benchmark.benchmark` gives it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sdk.evaluate.pages.charts import histogram, line_chart, scatter_chart, stacked_bars
from sdk.evaluate.pages.verify_page import Placed
from sdk.wording import counted

__all__ = ["sections_of"]

Table = Mapping[str, Any]
KINDS = {"estimate": "the whole call", "network": "the network alone", "peer": "the peer"}
SPREADS = 6  # histograms, of the first cases of each kind


def sections_of(table: Table) -> list[tuple[str, list[Placed]]]:
    """The sections that this benchmark has something for."""
    cases = table["cases"]
    sections = {
        "Where a call's time goes": [*_stages(cases), *_device_stages(table.get("device_clock")), *_by_persons(cases)],
        "How latency spreads": [_spread(case) for case in _spreading(cases)],
        "Over time": _over_time(cases),
    }
    return [(name, charts) for name, charts in sections.items() if charts]


def _stages(cases: Sequence[Table]) -> list[Placed]:
    """By the caller's clock, where stages have one: inside one CUDA graph they have none."""
    rows = {}
    for case in cases:
        timed = {name: spent["p50"] for name, spent in case["stages_ms"].items() if not isinstance(spent, str)}
        if timed:
            rows[_short(case)] = timed
    if not rows:
        return []
    about = "The middle of each stage, by the caller's clock; host is what lies between the stages."
    return [Placed("Stages of the whole call", stacked_bars(rows, "milliseconds, p50"), about)]


def _device_stages(clock: Table | None) -> list[Placed]:
    if not clock or not clock["stages_ms"]:
        return []
    rows = {
        counted(int(persons), "person"): {name: spent["p50"] for name, spent in stages.items()}
        for persons, stages in clock["stages_ms"].items()
    }
    about = (
        "Each stage run apart, by the GPU's own clock; inside the one CUDA graph of a frame they cost less together."
    )
    return [Placed("Stages by the device's clock", stacked_bars(rows, "milliseconds, p50"), about)]


def _spreading(cases: Sequence[Table]) -> list[Table]:
    return [case for kind in KINDS for case in cases if case["kind"] == kind][:SPREADS]


def _spread(case: Table) -> Placed:
    latency, place = case["latency_ms"], list(KINDS).index(case["kind"])
    chart = histogram(
        np.array(case["over_time"]["ms"]),
        "milliseconds",
        "calls",
        {at: latency[at] for at in ("p50", "p90", "p99")},
        place=place,
    )
    drawn = len(case["over_time"]["ms"])
    about = f"p50 {latency['p50']:.3f}, p90 {latency['p90']:.3f}, p99 {latency['p99']:.3f} ms of {case['calls']} calls"
    return Placed(
        case["name"], chart, f"{about}." if drawn == case["calls"] else f"{about}; {drawn} of them are drawn."
    )


def _by_persons(cases: Sequence[Table]) -> list[Placed]:
    series = {}
    for kind, label in (("estimate", ""), ("peer", "peer, ")):
        chosen = sorted((case for case in cases if case["kind"] == kind), key=lambda case: int(case["size"]))
        sizes = np.array([case["size"] for case in chosen], np.float64)
        for at in ("p50", "p99") if len(chosen) > 1 else ():
            series[f"{label}{at}"] = (sizes, np.array([case["latency_ms"][at] for case in chosen], np.float64))
    if not series:
        return []
    chart = line_chart(series, "persons in the frame", "milliseconds", markers=True, whole_x=True)
    return [Placed("By persons", chart, "A whole call; p99 is the dearest call in a hundred.")]


def _over_time(cases: Sequence[Table]) -> list[Placed]:
    charts = []
    for kind, words in KINDS.items():
        course = {
            _short(case): (np.array(case["over_time"]["seconds"]), np.array(case["over_time"]["ms"]))
            for case in cases
            if case["kind"] == kind
        }
        if course:
            chart = scatter_chart(course, "seconds since the first call", "milliseconds")
            charts.append(Placed(f"Over time, {words}", chart, "A dot a call: drift, steps and stragglers."))
    return charts


def _short(case: Table) -> str:
    """A case's name without its kind, which the chart tells."""
    return str(case["name"]).rpartition(", ")[2]

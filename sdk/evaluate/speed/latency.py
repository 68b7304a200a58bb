"""Timing of calls side by side: warmed up until steady, interleaved in short turns, every sample kept.

    cases = [Case("network", "network", 1, lambda: {...}), Case("estimate", "estimate", 8, ...)]
    measure(cases, seconds=10.0)
    cases[0].summary()["latency_ms"]["p50"]

A call returns the milliseconds of its stages (or a word where a stage has no time of its own). Turns are interleaved so
that a clock that falls or a neighbour that wakes hits every case alike. Nothing is thrown away after the warm-up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter, sleep
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.runtime.power import PowerLog

__all__ = ["Case", "measure", "spread", "warm_up"]

Call = Callable[[], Mapping[str, float | str]]

TURN_SECONDS = 0.25
PAUSE_SECONDS = 0.02  # idle threads of the case before spin for some milliseconds, then sleep
WINDOW = 8  # calls whose median is held against the window before
STEADY = 0.05
PERCENTILES = (50, 90, 99)
SHOWN_SAMPLES = 400  # of the course over time, in a report


@dataclass
class Case:
    """One thing that is timed. `size` is persons (or crops) a call."""

    name: str
    kind: str
    size: int
    call: Call
    samples_ms: list[float] = field(default_factory=list)
    started_s: list[float] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    spans: list[tuple[float, float]] = field(default_factory=list)
    warm_up_calls: int = 0
    steady: bool = False

    @property
    def busy_seconds(self) -> float:
        return sum(end - start for start, end in self.spans)

    def run(self) -> float:
        """One call, kept; its milliseconds."""
        start = perf_counter()
        stages = self.call()
        spent_ms = 1e3 * (perf_counter() - start)
        self.started_s.append(start)
        self.samples_ms.append(spent_ms)
        for stage, value in stages.items():
            if isinstance(value, str):
                self.words[stage] = value
            else:
                self.stages_ms.setdefault(stage, []).append(float(value))
        return spent_ms

    def turn(self, seconds: float) -> None:
        """Calls for about `seconds`, at least one, after a pause for the case before."""
        sleep(PAUSE_SECONDS)
        start = perf_counter()
        self.run()
        while perf_counter() - start < seconds:
            self.run()
        self.spans.append((start, perf_counter()))

    def summary(self, log: PowerLog | None = None) -> dict[str, Any]:
        """Latency, throughput, stages and energy as plain tables."""
        samples = np.array(self.samples_ms)
        joules = None if log is None else log.joules(self.spans)
        persons = self.size * len(samples)
        return {
            "name": self.name,
            "kind": self.kind,
            "size": self.size,
            "calls": len(samples),
            "warm_up_calls": self.warm_up_calls,
            "steady": self.steady,
            "latency_ms": spread(samples),
            "throughput_a_second": round(persons / self.busy_seconds, 3),
            "stages_ms": {**{name: spread(np.array(times)) for name, times in self.stages_ms.items()}, **self.words},
            "joules_a_person": "unavailable" if joules is None else round(joules / persons, 6),
            "over_time": self._course(samples),
        }

    def _course(self, samples: Any) -> dict[str, list[float]]:
        step = max(1, len(samples) // SHOWN_SAMPLES)
        since = np.array(self.started_s) - self.started_s[0]
        return {
            "seconds": [round(float(at), 4) for at in since[::step]],
            "ms": [round(float(ms), 4) for ms in samples[::step]],
        }


def measure(cases: Sequence[Case], seconds: float, *, on_turn: Callable[[float], object] = lambda share: None) -> None:
    """Warm all cases up, then give them turns until each was busy for `seconds`. `on_turn` hears the share done."""
    for case in cases:
        warm_up(case, limit_seconds=max(1.0, seconds / 2))
    turn = min(TURN_SECONDS, seconds)
    while waiting := [case for case in cases if case.busy_seconds < seconds]:
        for case in waiting:
            case.turn(turn)
        on_turn(sum(min(case.busy_seconds, seconds) for case in cases) / (seconds * len(cases)))


def warm_up(case: Case, limit_seconds: float) -> None:
    """Call until the median of a window is within 5 % of the window's before; what was kept is thrown away."""
    start, windows = perf_counter(), [float("inf")]
    while perf_counter() - start < limit_seconds:
        windows.append(float(np.median([case.run() for _ in range(WINDOW)])))
        if abs(windows[-1] / windows[-2] - 1) < STEADY:
            case.steady = True
            break
    case.warm_up_calls = len(case.samples_ms)
    case.samples_ms, case.started_s, case.stages_ms, case.words = [], [], {}, {}


def spread(samples: NDArray[np.float64]) -> dict[str, float]:
    """Percentiles, mean, least and most, to a tenth of a microsecond."""
    figures = {f"p{at}": float(np.percentile(samples, at)) for at in PERCENTILES}
    figures |= {"mean": float(samples.mean()), "min": float(samples.min()), "max": float(samples.max())}
    return {name: round(value, 4) for name, value in figures.items()}

"""The same call back to back, spaced, and at a camera's rate: clocks fall between frames, which back to back hides.

for pace in PACES:
    kept = paced(call, pace, seconds=10.0)
    kept.samples_ms, kept.missed
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from time import perf_counter, sleep

__all__ = ["PACES", "Pace", "Paced", "paced"]

ROUNDING = 1e-6  # of a period, within which two moments are one


@dataclass(frozen=True)
class Pace:
    """`gap_s`: idle time after each call. `period_s`: from the start of one call to that of the next."""

    name: str
    gap_s: float = 0.0
    period_s: float = 0.0


PACES = (Pace("back to back"), Pace("spaced by 200 ms", gap_s=0.2), Pace("at 30 Hz", period_s=1 / 30))


@dataclass
class Paced:
    """Milliseconds of each call, when the first began and the last idle time ended, and frames passed over."""

    samples_ms: list[float] = field(default_factory=list)
    span: tuple[float, float] = (0.0, 0.0)
    missed: int = 0


def paced(
    call: Callable[[], object],
    pace: Pace,
    seconds: float,
    *,
    clock: Callable[[], float] = perf_counter,
    nap: Callable[[float], None] = sleep,
) -> Paced:
    """Calls at this pace for `seconds`, at least one. Frames that fall due while a call runs are passed over."""
    kept, begun = Paced(), clock()
    due = begun
    while due - begun < seconds or not kept.samples_ms:
        nap(max(0.0, due - clock()))
        start = clock()
        call()
        end = clock()
        kept.samples_ms.append(1e3 * (end - start))
        if not pace.period_s:
            due = end + pace.gap_s
            continue
        frames = max(1, ceil((end - due) / pace.period_s - ROUNDING))
        kept.missed += frames - 1
        due += frames * pace.period_s
    nap(max(0.0, due - clock()))
    kept.span = (begun, clock())
    return kept

"""Calls back to back, spaced, and at a fixed rate, on a clock that only moves when something takes time."""

import pytest

from sdk.evaluate.speed.paces import PACES, Pace, paced

CAMERA = Pace("ten a second", period_s=0.1)


class Clock:
    """Seconds that pass in calls and naps alone."""

    def __init__(self, *call_s):
        self.now, self.call_s, self.starts = 50.0, list(call_s), []

    def __call__(self):
        return self.now

    def nap(self, seconds):
        self.now += seconds

    def call(self):
        self.starts.append(round(self.now - 50.0, 6))
        self.now += self.call_s.pop(0) if len(self.call_s) > 1 else self.call_s[0]


CASES = {  # pace, what calls take, seconds -> starts, frames passed over, the end
    "back to back": (PACES[0], (0.25,), 1.0, [0, 0.25, 0.5, 0.75], 0, 1.0),
    "spaced": (PACES[1], (0.3,), 1.0, [0, 0.5], 0, 1.0),
    "spaced, once at least": (PACES[1], (0.3,), 0.1, [0], 0, 0.5),
    "at a rate": (CAMERA, (0.04,), 0.35, [0, 0.1, 0.2, 0.3], 0, 0.4),
    "a call that takes as long as a frame": (CAMERA, (0.1,), 0.3, [0, 0.1, 0.2], 0, 0.3),
    "a late call passes frames over": (CAMERA, (0.04, 0.25, 0.04), 0.5, [0, 0.1, 0.4], 2, 0.5),
}


@pytest.mark.parametrize(("pace", "call_s", "seconds", "starts", "missed", "end"), CASES.values(), ids=CASES)
def test_calls_start_at_the_pace(pace, call_s, seconds, starts, missed, end):
    clock = Clock(*call_s)
    kept = paced(clock.call, pace, seconds, clock=clock, nap=clock.nap)
    assert clock.starts == pytest.approx(starts) and kept.missed == missed
    assert kept.span == pytest.approx((50.0, 50.0 + end))
    assert kept.samples_ms[0] == pytest.approx(1e3 * call_s[0])

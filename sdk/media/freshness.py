"""When a live frame was captured, and whether it may still be called live.

A frame that comes long after it was captured (a library's backlog after opening, what lay in sockets while a camera
stalled) looks like any other. Where the source stamps its frames, the stamps tell: the one that came soonest after its
stamp sets what the others are measured by.

freshness = Freshness(max_age_s=1.0)
seen = freshness.of(arrived_s, stamp_s)       # seen.captured_s, seen.is_late, seen.hold_s
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

__all__ = ["Freshness", "Seen"]

OUTAGE_S, OUTAGE_STEPS = 1.0, 5.0  # nothing for so long, and for so many usual steps: what comes may have waited
FLUSH_S = 0.5  # without stamps, after opening or an outage: what lay in libraries, sockets and queues is through
STEP_S, HOLD_S = (
    0.01,
    0.02,
)  # without stamps: frames that come closer together are a backlog (1080p decodes in 3 to 5 ms)
STEADY_S = 0.2  # with stamps: frames that have come no sooner after them for so long come as they are captured
SOONER_S = 0.01  # a backlog's frames come by a frame's time sooner, one after the other
SETTLE_S = 1.5  # by then a backlog is through, whatever the stamps say: a source that is back is seen within 2 s
JUMP_S = 10.0  # stamps that run so far ahead of the clock, or backwards, have begun anew
BUCKET_S = 2.0  # the soonest frame of the last one to two counts: cameras are met whose stamps are a tenth too slow


@dataclass(frozen=True)
class Seen:
    """What is known of a frame that came: for `hold_s` another may follow at once that makes this one a backlog's."""

    captured_s: float
    is_late: bool
    hold_s: float = 0.0


class Freshness:
    """Of the frames of one opening of a source; `flush`: what comes first without a stamp may be a backlog."""

    def __init__(self, max_age_s: float, *, flush: bool = False) -> None:
        self._max_age_s = max_age_s
        self._flush = flush
        self._usual_s = 0.0  # from one frame to the next
        self._arrived_s: float | None = None  # the last frame
        self._stamp_s: float | None = None
        self._resumed_s: float | None = None  # the first frame after opening or an outage; None: settled
        self._steady_s = 0.0  # since when no frame has come sooner after its stamp
        self._best_s = inf  # how soon that was
        self._soonest: list[float] = []  # arrival minus stamp, the least of the last bucket and of this one
        self._bucket_s = 0.0

    def of(self, arrived_s: float, stamp_s: float | None) -> Seen:
        """Judge the next frame by when it came and by its stamp, on the source's own clock."""
        step_s = None if self._arrived_s is None else arrived_s - self._arrived_s
        stamp_step_s = None if stamp_s is None or self._stamp_s is None else stamp_s - self._stamp_s
        if step_s is None or step_s >= max(OUTAGE_S, OUTAGE_STEPS * self._usual_s):
            self._flush |= step_s is not None
            self._resumed_s = self._steady_s = arrived_s
            self._best_s = inf
        self._usual_s += 0.2 * ((step_s or 0.0) - self._usual_s)
        if stamp_step_s is not None and step_s is not None and (stamp_step_s < 0 or stamp_step_s - step_s > JUMP_S):
            self._soonest, self._best_s = [], inf
        self._arrived_s, self._stamp_s = arrived_s, stamp_s
        if stamp_s is None:
            return self._unstamped(arrived_s, step_s)
        self._settle(arrived_s, arrived_s - stamp_s)
        age_s = self._age(arrived_s, arrived_s - stamp_s)
        return Seen(arrived_s - age_s, age_s > self._max_age_s, 0.0 if self._resumed_s is None else STEADY_S)

    def _unstamped(self, arrived_s: float, step_s: float | None) -> Seen:
        if self._resumed_s is not None:
            if self._flush and arrived_s - self._resumed_s < FLUSH_S:
                return Seen(arrived_s, is_late=True)
            if self._flush or (step_s or 0.0) >= STEP_S or arrived_s - self._resumed_s >= SETTLE_S:
                self._resumed_s = None
        return Seen(arrived_s, False, 0.0 if self._resumed_s is None else HOLD_S)

    def _settle(self, arrived_s: float, after_s: float) -> None:
        """Look whether frames come as they are captured; how soon they do is then what lateness is measured by."""
        if self._resumed_s is None:
            return
        if after_s < self._best_s - SOONER_S:
            self._steady_s = arrived_s
        self._best_s = min(self._best_s, after_s)
        if arrived_s - self._steady_s >= STEADY_S or arrived_s - self._resumed_s >= SETTLE_S:
            self._resumed_s = None
            self._soonest = [self._best_s]

    def _age(self, arrived_s: float, after_s: float) -> float:
        """How much later than it could have it came; a delay that all frames have in common is not seen."""
        if not self._soonest or arrived_s - self._bucket_s >= BUCKET_S:
            self._soonest = [*self._soonest[-1:], after_s]
            self._bucket_s = arrived_s
        self._soonest[-1] = min(self._soonest[-1], after_s)
        return after_s - min(self._soonest)

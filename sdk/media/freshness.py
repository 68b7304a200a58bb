"""When a live frame was captured, and whether it may still be called live.

A frame that comes long after it was captured (a library's backlog after opening, what lay in sockets while a camera
stalled) looks like any other. Where the source stamps its frames, the stamps tell: the one that came soonest after its
stamp sets what the others are measured by.

freshness = Freshness(max_age_s=1.0)
seen = freshness.of(arrived_s, stamp_s)       # seen.captured_s, seen.is_late, seen.is_settled
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Freshness", "Seen"]

OUTAGE_S, OUTAGE_STEPS = 1.0, 5.0  # nothing for so long, and for so many usual steps: what comes may have waited
FLUSH_S = 0.5  # after an outage, without stamps: what lay in sockets and queues is through
SETTLE_S = 1.5  # after opening or an outage: by then a backlog is through, and what the stamps say holds anew
STEP_S = 0.01  # without stamps: frames that come closer together are a backlog (decoding 1080p takes 3 to 5 ms)
JUMP_S = 10.0  # stamps that run so far ahead of the clock, or backwards, have begun anew
BUCKET_S = 2.0  # the soonest frame of the last one to two counts: cameras are met whose stamps are a tenth too slow


@dataclass(frozen=True)
class Seen:
    """What is known of a frame that came: `is_settled` is False while more of a backlog may follow at once."""

    captured_s: float
    is_late: bool
    is_settled: bool


class Freshness:
    """Of the frames of one opening of a source; `after_outage`: not the first one."""

    def __init__(self, max_age_s: float, *, after_outage: bool = False) -> None:
        self._max_age_s = max_age_s
        self._is_flushing = after_outage
        self._usual_s = 0.0  # from one frame to the next
        self._arrived_s: float | None = None  # the last frame
        self._stamp_s: float | None = None
        self._began_s: float | None = None  # the first frame after the last outage
        self._resumed_s: float | None = None  # the first frame after opening or an outage; None: settled
        self._soonest: list[float] = []  # arrival minus stamp, the least of the last bucket and of this one
        self._bucket_s = 0.0

    def of(self, arrived_s: float, stamp_s: float | None) -> Seen:
        """Judge the next frame by when it came and by its stamp, on the source's own clock."""
        step_s = None if self._arrived_s is None else arrived_s - self._arrived_s
        stamp_step_s = None if stamp_s is None or self._stamp_s is None else stamp_s - self._stamp_s
        if step_s is None or step_s >= max(OUTAGE_S, OUTAGE_STEPS * self._usual_s):
            self._resumed_s = arrived_s
            self._is_flushing |= step_s is not None
        elif self._resumed_s is not None and self._has_settled(arrived_s, step_s, stamp_step_s):
            self._resumed_s = None
        self._usual_s += 0.2 * ((step_s or 0.0) - self._usual_s)
        if stamp_step_s is not None and step_s is not None and (stamp_step_s < 0 or stamp_step_s - step_s > JUMP_S):
            self._soonest = []
        age_s = self._age(arrived_s, stamp_s)
        self._arrived_s, self._stamp_s = arrived_s, stamp_s
        is_late = age_s > self._max_age_s or (stamp_s is None and self._is_flushed_at(arrived_s))
        return Seen(arrived_s - age_s, is_late, self._resumed_s is None)

    def _is_flushed_at(self, arrived_s: float) -> bool:
        """Whether what comes without a stamp may have waited through an outage."""
        self._began_s = arrived_s if self._began_s is None or self._resumed_s == arrived_s else self._began_s
        self._is_flushing &= arrived_s - self._began_s < FLUSH_S
        return self._is_flushing

    def _has_settled(self, arrived_s: float, step_s: float, stamp_step_s: float | None) -> bool:
        """Whether frames come as they are captured again: one step of the clock for one of the stamps."""
        assert self._resumed_s is not None, "asked after opening or an outage"
        if arrived_s - self._resumed_s >= SETTLE_S:
            self._soonest = []  # where all still seem late the stamps stood still during the outage
            return True
        return step_s >= (STEP_S if stamp_step_s is None else max(0.5 * stamp_step_s, 0.001))

    def _age(self, arrived_s: float, stamp_s: float | None) -> float:
        """How long after it could have come it came; a delay that all frames have in common is not seen."""
        if stamp_s is None:
            return 0.0
        late_s = arrived_s - stamp_s
        if not self._soonest or arrived_s - self._bucket_s >= BUCKET_S:
            self._soonest = [*self._soonest[-1:], late_s]
            self._bucket_s = arrived_s
        self._soonest[-1] = min(self._soonest[-1], late_s)
        return late_s - min(self._soonest)

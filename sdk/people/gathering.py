"""When a batch of several cameras begins: arithmetic on the times at which frames came. No clock, no thread, no frame.

A batch takes the newest frame of every camera that has one. It waits for its neighbours until the first of them would
wait longer than half the period of its own frames; not at all for a camera that will give nothing by then, as its pace
tells: a slow or a silent one costs the others nothing.

    gathering = Gathering(8)
    gathering.arrived(3, now_s)
    gathering.starts_s(now_s)            # None: nothing is there; not after now_s: now; else ask again then
    gathering.take()                     # [3]: the cameras of the batch, in the order in which their frames came
"""

from __future__ import annotations

from collections import deque
from statistics import median

from sdk.errors import InputError
from sdk.numeric import is_number

__all__ = ["Gathering", "check_wait"]

UNKNOWN_PERIOD_S = 1 / 30  # of a camera that gave one frame so far
GAPS = 9  # of them the median is the period: four may be off, as when frames are passed over
WAITED_SHARE = 0.5  # of a frame's period that it waits for its neighbours
LATE_SHARE = 0.5  # of its period that a camera may be late before nobody waits for it


class _Pace:
    """How often a camera gives a frame."""

    def __init__(self) -> None:
        self.last_s: float | None = None
        self.gaps_s: deque[float] = deque(maxlen=GAPS)

    def arrived(self, at_s: float) -> None:
        if self.last_s is not None:
            self.gaps_s.append(max(0.0, at_s - self.last_s))
        self.last_s = at_s

    @property
    def period_s(self) -> float:
        return median(self.gaps_s) if self.gaps_s else UNKNOWN_PERIOD_S

    def comes_by(self, until_s: float, now_s: float) -> bool:
        """Whether its next frame is to be there by `until_s`, as far as one can tell at `now_s`."""
        if self.last_s is None:  # it opens still
            return False
        expected_s = self.last_s + self.period_s
        return expected_s <= until_s and now_s <= expected_s + LATE_SHARE * self.period_s


class Gathering:
    """The frames that are there, by camera. `max_wait_s`: in place of half a period, for all cameras."""

    def __init__(self, cameras: int, max_wait_s: float | None = None) -> None:
        self._paces = {camera: _Pace() for camera in range(cameras)}
        self._max_wait_s = check_wait(max_wait_s)
        self._there: dict[int, float] = {}  # camera -> when its oldest frame that was in no batch came

    def arrived(self, camera: int, at_s: float) -> None:
        """A camera's frame is there; it may take the place of one that no batch has taken."""
        self._paces[camera].arrived(at_s)
        self._there.setdefault(camera, at_s)

    def ended(self, camera: int) -> None:
        """Nobody waits for this camera any more; a frame of it that is there stays."""
        del self._paces[camera]

    def starts_s(self, now_s: float) -> float | None:
        """When a batch of what is there begins if nothing else comes; None where nothing is there."""
        if not self._there:
            return None
        until_s = min(at_s + self._waits_s(camera) for camera, at_s in self._there.items())
        awaited = (pace for camera, pace in self._paces.items() if camera not in self._there)
        return until_s if any(pace.comes_by(until_s, now_s) for pace in awaited) else now_s

    def take(self) -> list[int]:
        """The cameras whose frames are there, in the order in which those came; they are there no more."""
        taken = list(self._there)
        self._there.clear()
        return taken

    def _waits_s(self, camera: int) -> float:
        if self._max_wait_s is not None:
            return self._max_wait_s
        pace = self._paces.get(camera)
        return WAITED_SHARE * (UNKNOWN_PERIOD_S if pace is None else pace.period_s)


def check_wait(max_wait_s: object) -> float | None:
    """Seconds, or None for the rule; InputError for anything else."""
    if max_wait_s is None:
        return None
    if is_number(max_wait_s) and 0 <= max_wait_s < 3600:
        return float(max_wait_s)
    raise InputError(
        "max_wait_s must be seconds from 0 to 3600 that a frame may wait for those of other cameras, or None for half "
        f"its period (got {max_wait_s!r})"
    )

"""The clock that live sources wait by, as one object, so that an hour of outages can be lived through in a second.

clock = Clock()
changed = clock.condition()
with changed:
    clock.wait(changed, 5.0)                  # until notified, or for 5 s
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

__all__ = ["CLOCK", "Clock"]


class Clock:
    """The machine's own. A simulated one answers the same calls (`tests/support/sim_clock.py`)."""

    def now(self) -> float:
        """Seconds; they never run backwards."""
        return monotonic()

    def condition(self) -> threading.Condition:
        """What threads that share something wait on."""
        return threading.Condition()

    def wait(self, condition: threading.Condition, timeout_s: float) -> None:
        """Until somebody notifies, or the time is over; `condition` is held."""
        condition.wait(max(timeout_s, 0.0))

    def notify(self, condition: threading.Condition) -> None:
        """Wake all that wait; `condition` is held."""
        condition.notify_all()

    def spawn(self, target: Callable[[], None], name: str) -> threading.Thread:
        """A started thread that no program waits for at its end: it may hang in a library's call."""
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread


CLOCK = Clock()

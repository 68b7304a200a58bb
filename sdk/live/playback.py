"""A recording shown as a camera would show it: each frame at its time, and from the start again at the end.

    player = Playback("clip.mp4", frames, repeat=True)    # frames(): a generator that opens the clip and closes it
    for frame in player: ...                       # frame.captured_s: when it was shown
    player.close()                                 # from any thread

Time goes on however slow who takes frames is: it is live, so newer frames overtake those not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from threading import Event
from time import monotonic

from sdk.media.videos import SourceFrame

__all__ = ["Playback"]

STEP_S = 1 / 25  # between frames that have no times
STILL_S = 1.0  # for which a picture is shown


class Playback:
    """One showing after the other, each opened anew; for one thread, and closed by any."""

    is_live = True

    def __init__(self, name: str, opened: Callable[[], Iterable[SourceFrame]], *, repeat: bool) -> None:
        self.name = name
        self._opened, self._repeat = opened, repeat
        self._closed = Event()

    def close(self) -> None:
        """The frame that is waited for is the last."""
        self._closed.set()

    def __iter__(self) -> Iterator[SourceFrame]:
        number, begun_s = 0, monotonic()
        while not self._closed.is_set():
            due_s, shown = monotonic(), 0
            first_s = due_s
            for frame in self._opened():
                own_s = shown * STEP_S if frame.time_ms is None else frame.time_ms / 1e3
                due_s = max(first_s + own_s, due_s)  # times that fall back do not take the clock along
                if self._closed.wait(max(0.0, due_s - monotonic())):
                    return
                now_s = monotonic()
                yield replace(frame, number=number, time_ms=round(1e3 * (now_s - begun_s), 3), captured_s=now_s)
                number, shown = number + 1, shown + 1
            if not self._repeat or not shown:
                return
            self._closed.wait(STILL_S if shown == 1 else STEP_S)

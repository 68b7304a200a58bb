"""The newest frame of a camera or a live stream, again and again, through stalls, garbage and disconnections.

frames = LiveFrames("door", open_it, Patience(), counts)
for item in frames:                          # SourceFrame; Unreadable as the last item where it is given up
    ...
frames.close()

A thread reads one opening of the source and keeps only the newest frame. Who takes frames tells by our own clock that
nothing comes: libraries know of it two to three times too late, or never. That thread is then left to itself, ends when
its library lets it, and the source is opened anew by another. What it would have been right to give before an outage is
never given after it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from math import inf
from types import TracebackType

from sdk.media.clock import CLOCK, Clock
from sdk.media.feeds import Feed, FeedEndedError, FeedError, Grab
from sdk.media.freshness import Freshness
from sdk.media.kept import Kept
from sdk.media.videos import SourceFrame, Unreadable
from sdk.wording import counted

__all__ = ["Counts", "LiveFrames", "Patience"]

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # from one attempt to open to the next; each is twice the one before
LOOK_S = 0.5  # how often it is asked whether a source that is gone is back: a connection to its port, or its device
MOST_LOST = 25  # frames in a row that cannot be had, and the source counts as gone
MOST_STUCK = 3  # threads that hang in a library's call; no further attempt is made beyond
JOIN_S = 1.0  # what closing waits for a thread; one that hangs ends later
WAITING = "nothing yet"
CHECK = "check that it is connected and free, or name a file"


@dataclass
class Counts:
    """What became of a source's frames: given, replaced by a newer one before they were taken (dropped), too old to be
    called live (late), not decodable (broken); and how often it was opened anew."""

    frames: int = 0
    dropped: int = 0
    late: int = 0
    broken: int = 0
    reconnections: int = 0

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class Patience:
    """How long a live source is waited for; `open_source` says what each of these is."""

    open_timeout_s: float = 15.0
    read_timeout_s: float = 10.0
    max_age_s: float = 1.0
    reconnect: bool = True
    from_start: bool = False


class LiveFrames:
    """An iterator of SourceFrame for one thread at a time; another may close it.

    `is_back`: asked during an outage whether the source can be seen coming back. `flush`: its library may give a
    backlog after opening.
    """

    def __init__(
        self,
        name: str,
        open_it: Callable[[], Feed],
        patience: Patience,
        counts: Counts,
        *,
        is_back: Callable[[], bool | None] = lambda: None,
        flush: bool = False,
        clock: Clock = CLOCK,
    ) -> None:
        self._name, self._open, self._is_back = name, open_it, is_back
        self._patience, self._counts, self._flush, self.clock = patience, counts, flush, clock
        self.changed = clock.condition()
        self._number = 0  # of the next frame that comes
        self._first_s: float | None = None  # when the first frame was captured
        self._last_ms = -1.0
        self._opening: _Opening | None = None
        self._left: list[_Opening] = []  # that may still hang in a library's call
        self._closed = False
        self._items = self._until_left()

    def __iter__(self) -> Iterator[SourceFrame | Unreadable]:
        return self._items

    def close(self) -> None:
        """Let go of the source. A thread that hangs in its library lets go when the library lets it."""
        with self.changed:
            self._closed = True
            opening = self._leave()
            self.clock.notify(self.changed)
        if opening is not None and opening.thread is not threading.current_thread():
            opening.thread.join(JOIN_S)

    def __enter__(self) -> LiveFrames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _until_left(self) -> Iterator[SourceFrame | Unreadable]:
        try:
            yield from self._all()
        finally:
            self.close()

    def _all(self) -> Iterator[SourceFrame | Unreadable]:
        outage = None
        while not self._closed:
            began_s = self.clock.now()
            opening = self._begin()
            while isinstance(found := self._take(opening, outage), SourceFrame):
                if outage is not None:
                    self._tell_return(outage)
                outage = None
                self._counts.frames += 1
                yield found
            self._leave()
            if found is None or self._closed:
                return
            if not self._patience.reconnect or (self._number == 0 and not self._patience.from_start):
                yield Unreadable(found if self._number else f"{self._name} gives no frame ({found}); {CHECK}")
                return
            if outage is None:
                outage = _Outage(self.clock.now(), due_s=began_s + FIRST_PAUSE_S)
                log.warning("'%s': %s; it will be opened again", self._name, found)
            else:
                outage.failed(began_s)
                log.info("'%s': still nothing (%s)", self._name, found)
            self._pause(outage)

    def _begin(self) -> _Opening:
        with self.changed:
            self._opening = _Opening(self, self._open, self._patience, flush=self._flush or self._number > 0)
        return self._opening

    def _leave(self) -> _Opening | None:
        """Leave the thread that reads to itself."""
        with self.changed:
            opening, self._opening = self._opening, None
            if opening is not None:
                self._counts.late += opening.held is not None and not self._closed
                opening.leave()
                self._left.append(opening)
            return opening

    def _take(self, opening: _Opening, outage: _Outage | None) -> SourceFrame | str | None:
        """The newest frame, as soon as there is one; why no more comes, in words; None at the right end, or closed.

        An attempt made while the source was gone may hang though it is back: whoever calls into a dead network calls
        again after 1, 3, 7 and 15 s only. So it is looked at meanwhile, and such an attempt is given up.
        """
        while True:
            looks = outage is not None and outage.is_gone and not opening.has_arrived
            found = self._wait(opening, LOOK_S if looks else None)
            if found is not WAITING or outage is None:
                return found
            outage.saw(self._is_back())
            if outage.has_returned and not opening.has_arrived:
                return "it was gone when it was called, and is back"

    def _wait(self, opening: _Opening, most_s: float | None) -> SourceFrame | str | None:
        """As `_take`, for at most so long; then WAITING."""
        with self.changed:
            until_s = inf if most_s is None else self.clock.now() + most_s
            while not self._closed:
                now_s, held = self.clock.now(), opening.held
                if held is not None and held.ready_s <= now_s:
                    opening.held = None
                    opening.is_taken = True
                    if now_s - held.captured_s <= self._patience.max_age_s:
                        return self._frame_of(held)
                    self._counts.late += 1
                    continue
                if held is None and opening.is_over:
                    return opening.reason()
                if held is None and now_s >= opening.deadline_s:
                    return opening.timed_out(now_s)
                if now_s >= until_s:
                    return WAITING
                next_s = opening.deadline_s if held is None else held.ready_s
                self.clock.wait(self.changed, min(next_s, until_s) - now_s)
            return None

    def _frame_of(self, held: _Held) -> SourceFrame:
        if self._first_s is None:
            self._first_s = held.captured_s
        time_ms = max(round(1e3 * (held.captured_s - self._first_s), 3), round(self._last_ms + 0.001, 3))
        self._last_ms = time_ms
        return SourceFrame(held.grab.picture, held.number, time_ms, self._name, held.captured_s)

    def _pause(self, outage: _Outage) -> None:
        """Wait for the next attempt, or until the source is seen coming back."""
        while not self._closed:
            self._left = [each for each in self._left if not each.is_over]
            outage.saw(self._is_back())
            left_s = outage.due_s - self.clock.now()
            if (outage.has_returned or left_s <= 0) and len(self._left) < MOST_STUCK:
                outage.has_returned = False
                return
            with self.changed:
                if not self._closed:
                    self.clock.wait(self.changed, min(LOOK_S, left_s) if left_s > 0 else LOOK_S)

    def _tell_return(self, outage: _Outage) -> None:
        self._counts.reconnections += 1
        log.warning("'%s': back after %.1f s", self._name, self.clock.now() - outage.since_s)

    def arrived(self, opening: _Opening, grab: Grab, broken: int, freshness: Freshness) -> None:
        """What the thread that reads has read, after so many broken frames."""
        with self.changed:
            if opening.is_left:
                return
            opening.has_arrived = True
            number = self._number + broken
            self._number = number + 1
            self._counts.broken += broken
            arrived_s = self.clock.now()
            opening.deadline_s = arrived_s + self._patience.read_timeout_s
            seen = freshness.of(arrived_s, grab.stamp_s)
            if seen.is_late:
                self._counts.late += 1
                return
            if opening.held is not None:
                is_backlog = opening.held.hold_s > 0
                self._counts.late += is_backlog
                self._counts.dropped += not is_backlog
            opening.held = _Held(grab, number, seen.captured_s, arrived_s, seen.hold_s)
            self.clock.notify(self.changed)


@dataclass
class _Outage:
    """From the moment a source is gone to its next frame; the next attempt to open it is due, and what looks told."""

    since_s: float
    due_s: float
    pause_s: float = FIRST_PAUSE_S
    is_gone: bool = False  # at the last look
    has_returned: bool = False  # since the last attempt: it was gone, and is there

    def failed(self, began_s: float) -> None:
        """An attempt that began then came to nothing."""
        self.due_s = began_s + self.pause_s
        self.pause_s = min(2 * self.pause_s, LONGEST_PAUSE_S)

    def saw(self, is_back: bool | None) -> None:
        """Where it comes back pauses begin anew: a camera that boots takes connections before it has pictures."""
        if is_back is None:
            return
        if is_back and self.is_gone:
            self.has_returned, self.pause_s = True, FIRST_PAUSE_S
        self.is_gone = not is_back


@dataclass(frozen=True, eq=False)
class _Held:
    """The newest frame, until it is taken: not before it has been held, where it may be a backlog's."""

    grab: Grab
    number: int
    captured_s: float
    arrived_s: float
    hold_s: float

    @property
    def ready_s(self) -> float:
        return self.arrived_s + self.hold_s


class _Opening:
    """One opening of the source, read by a thread of its own."""

    def __init__(self, frames: LiveFrames, open_it: Callable[[], Feed], patience: Patience, *, flush: bool) -> None:
        self._frames, self._open, self._patience, self._flush = frames, open_it, patience, flush
        self.held: _Held | None = None
        self.has_arrived = self.is_taken = self.is_left = self.is_over = False
        self._ended = Kept()
        self._feed: Feed | None = None
        self._began_s = frames.clock.now()
        self.deadline_s = self._began_s + patience.open_timeout_s
        self.thread = frames.clock.spawn(self._run, "sdk-live")

    def reason(self) -> str | None:
        """Why it is over; None for an end that is none of a fault. Another error than a feed's is raised."""
        error = self._ended.error
        if isinstance(error, FeedEndedError):
            return None
        if isinstance(error, FeedError):
            return str(error)
        assert error is not None, "a thread that reads ends by an error"
        raise error

    def leave(self) -> None:
        """Nobody takes its frames any more."""
        self.is_left = True
        self.held = None
        if self._feed is not None and not self.is_over:
            self._feed.abort()

    def timed_out(self, now_s: float) -> str:
        if self.is_taken:
            return f"time-out: nothing came for {self._patience.read_timeout_s:g} s"
        return f"time-out: no frame came within {now_s - self._began_s:.0f} s of opening it"

    def _run(self) -> None:
        with self._ended:
            self._feed = self._open()
            try:
                self._read(self._feed)
            finally:
                self._feed.close()
        with self._frames.changed:
            self.is_over = True
            self._frames.clock.notify(self._frames.changed)

    def _read(self, feed: Feed) -> None:
        freshness = Freshness(self._patience.max_age_s, flush=self._flush)
        lost = 0
        while lost < MOST_LOST and not self.is_left:
            grab = feed.read()
            if grab is None:
                lost += 1
                continue
            self._frames.arrived(self, grab, lost, freshness)
            lost = 0
        raise FeedError(f"it gives no more frames ({counted(lost, 'attempt')})")

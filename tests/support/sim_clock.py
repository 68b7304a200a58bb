"""A clock that leaps: whenever every thread of a simulation waits, it is the next moment that one of them waits for.

clock = SimClock()
camera = SimCamera(clock, [Stretch(0, 60), Stretch(120, 200)])        # alive from 0 to 60 s, and from 120 s on
frames = LiveFrames("camera", camera.open, Patience(), counts, is_back=camera.is_back, clock=clock)

Threads are real, and only time is not: an hour of outages takes a second, and the same one every time.
"""

import threading
from dataclasses import dataclass
from math import inf

import numpy as np

from sdk.media.feeds import FeedError, Grab


class SimClock:
    """The calls of `sdk.media.clock.Clock`; all conditions are one."""

    def __init__(self):
        self.time_s = 0.0
        self.changed = threading.Condition()
        self._threads = 1  # the one that made it
        self._waiting = {}  # thread -> until when

    def now(self):
        with self.changed:
            return self.time_s

    def condition(self):
        return self.changed

    def wait(self, condition, timeout_s):
        """Until notified, or `timeout_s` of simulated time; `condition` is held."""
        me = threading.get_ident()
        self._waiting[me] = self.time_s + max(timeout_s, 0.0)
        self._leap()
        while me in self._waiting:
            assert self.changed.wait(60.0), "the simulation stands still"

    def notify(self, condition):
        self._waiting.clear()
        self.changed.notify_all()

    def spawn(self, target, name):
        with self.changed:
            self._threads += 1
        thread = threading.Thread(target=self._run, args=(target,), name=name, daemon=True)
        thread.start()
        return _Joinable(self, thread)

    def sleep(self, seconds):
        """Wait whatever others tell."""
        with self.changed:
            until = self.time_s + seconds
            while self.time_s < until:
                self.wait(self.changed, until - self.time_s)

    def leave(self):
        """The thread that asks waits for others outside of the simulation."""
        with self.changed:
            self._threads -= 1
            self._leap()

    def _run(self, target):
        try:
            target()
        finally:
            self.leave()

    def _leap(self):
        while self._waiting and len(self._waiting) == self._threads:
            self.time_s = max(self.time_s, min(self._waiting.values()))
            assert self.time_s < inf, "all wait for ever"
            for thread, until in list(self._waiting.items()):
                if until <= self.time_s:
                    del self._waiting[thread]
            self.changed.notify_all()


class _Joinable:
    """A thread whose joining is a part of the simulation."""

    def __init__(self, clock, thread):
        self._clock, self._thread = clock, thread

    def __getattr__(self, name):
        return getattr(self._thread, name)

    def join(self, timeout_s):
        until = self._clock.now() + timeout_s
        with self._clock.changed:
            while self._thread.is_alive() and self._clock.time_s < until:
                self._clock.wait(self._clock.changed, min(0.05, until - self._clock.time_s))


@dataclass(frozen=True)
class Stretch:
    """A camera is there from `begin_s` to `end_s`; afterwards it `ends` by: 'error', 'stall', 'nothing', 'garbage', or
    'dark': packets are lost, and whoever calls calls again after 1, 3, 7 and 15 s."""

    begin_s: float
    end_s: float = inf
    ends: str = "error"
    size_hw: tuple = (4, 6)


class SimCamera:
    """A camera of 25 frames a second, in stretches. A picture's pixels are the moment it was captured, in centiseconds.

    `backlog`: frames that come at once after opening, captured up to so many steps before. A stalled one lets go of
    its reader after `hang_s`, or when it is back, with what lay in its sockets, captured before the stall.
    For `boot_s` of each stretch but the first it takes connections and has no pictures.
    """

    def __init__(
        self, clock, stretches, *, backlog=0, hang_s=30.0, stamped=True, step_s=0.04, on_the_way=3, boot_s=0.0
    ):
        self.clock, self.stretches, self.backlog, self.hang_s = clock, stretches, backlog, hang_s
        self.boot_s, self.stamped, self.step_s, self.on_the_way = boot_s, stamped, step_s, on_the_way
        self.open_now = self.opened = self.most_open = 0

    def alive(self, now):
        return next((each for each in self.stretches if each.begin_s <= now < each.end_s), None)

    def last_before(self, now):
        return next((each for each in reversed(self.stretches) if each.end_s <= now), None)

    def next_after(self, now):
        return next((each for each in self.stretches if each.begin_s > now), None)

    def is_back(self):
        return self.alive(self.clock.now()) is not None

    def open(self):
        now = self.clock.now()
        self.opened += 1
        if self.alive(now) is None:
            gone = self.last_before(now)
            if gone is not None and gone.ends == "stall":
                self._hang(now)
            if gone is not None and gone.ends == "dark":
                self._call_again()
            if self.alive(self.clock.now()) is None:
                raise FeedError("connection refused")
        self.clock.sleep(0.1)
        stretch = self.alive(self.clock.now())
        if stretch not in (None, self.stretches[0]) and self.clock.now() < stretch.begin_s + self.boot_s:
            raise FeedError("503 service unavailable")
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        return SimFeed(self)

    def _hang(self, now):
        back = self.next_after(now)
        self.clock.sleep(min(self.hang_s, (back.begin_s if back else inf) - now))

    def _call_again(self):
        for wait_s in (1, 2, 4, 8):
            self.clock.sleep(wait_s)
            if self.alive(self.clock.now()) is not None:
                return


class SimFeed:
    fps, claimed = 25.0, 0

    def __init__(self, camera):
        self.camera, self.clock = camera, camera.clock
        self.stretch = camera.alive(self.clock.now())
        now = self.clock.now()
        self.waiting = [now - camera.step_s * back for back in range(camera.backlog, 0, -1)]

    def read(self):
        camera, clock = self.camera, self.clock
        if self.waiting:
            clock.sleep(0.03 if len(self.waiting) == camera.backlog else 0.004)  # decoding, which begins slowly
            return self._grab(self.waiting.pop(0))
        clock.sleep(camera.step_s)
        now = clock.now()
        stretch = camera.alive(now)
        if stretch is not None and stretch.ends == "stall" and now > stretch.end_s - camera.step_s * camera.on_the_way:
            clock.sleep(stretch.end_s - now)  # these lie in sockets
            stretch, now = None, stretch.end_s
        if stretch is not None:
            self.stretch = stretch
            return self._grab(now)
        gone = camera.last_before(now)
        ends = gone.ends if gone else "error"
        if ends in ("stall", "dark"):
            camera._hang(now)
            if camera.alive(clock.now()) is None:
                raise FeedError("the library's own time-out")
            self.waiting = [gone.end_s - camera.step_s * back for back in range(camera.on_the_way, 0, -1)]
            return self.read()
        if ends == "error":
            raise FeedError("connection reset")
        return None  # nothing, or garbage

    def _grab(self, captured_s):
        height, width = self.stretch.size_hw
        hundredths = round(100 * captured_s) % (1 << 24)
        pixel = [hundredths & 255, hundredths >> 8 & 255, hundredths >> 16]
        picture = np.broadcast_to(np.array(pixel, np.uint8), (height, width, 3)).copy()
        return Grab(picture, captured_s if self.camera.stamped else None)

    def abort(self):
        pass

    def close(self):
        self.camera.open_now -= 1


def captured_of(frame):
    """When the camera took a frame, from its pixels."""
    low, middle, high = (int(value) for value in frame.picture[0, 0])
    return (low + (middle << 8) + (high << 16)) / 100

"""Live sources through stalls, disconnections, garbage and slow readers, on a simulated clock: never a stale frame."""

import threading
import time
from itertools import pairwise

import numpy as np
import pytest

from sdk.errors import InputError, SourceError
from sdk.media.feeds import FeedError, Grab
from sdk.media.freshness import Freshness
from sdk.media.live import Counts, LiveFrames, Patience
from sdk.media.opening import open_source
from sdk.media.videos import SourceFrame, Unreadable
from tests.support.sim_clock import SimCamera, SimClock, Stretch, captured_of

MAX_AGE_S = 1.0


def live(camera, **patience):
    return LiveFrames("camera", camera.open, Patience(**patience), Counts(), is_back=camera.is_back, clock=camera.clock)


def watched(frames, until_s, work_s=0.0):
    """(moment it was given, frame) of what comes until a moment; numbers, times and freshness are held on the way."""
    found, clock = [], frames.clock
    for item in frames:
        assert isinstance(item, SourceFrame), item
        now = clock.now()
        if found:
            assert item.number > found[-1][1].number and item.time_ms > found[-1][1].time_ms
        assert now - captured_of(item) <= MAX_AGE_S + 0.011
        assert abs(item.captured_s - captured_of(item)) < MAX_AGE_S
        found.append((now, item))
        if now >= until_s:
            break
        if work_s:
            clock.sleep(work_s)
    frames.close()
    return found


def gaps(found):
    """Stretches without a frame: (since, until)."""
    times = [now for now, _ in found]
    return [(a, b) for a, b in pairwise(times) if b - a > 1.0]


OUTAGES = [("error", 60.0), ("stall", 60.0), ("stall", 7.0), ("stall", 3.0), ("nothing", 60.0), ("error", 600.0)]


@pytest.mark.parametrize("backlog", [0, 24], ids=["no backlog", "a backlog"])
@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "unstamped"])
@pytest.mark.parametrize(("ends", "out_s"), OUTAGES, ids=str)
def test_frames_come_back_within_two_seconds_and_none_is_older_than_the_outages_end(ends, out_s, stamped, backlog):
    clock = SimClock()
    back_s = 5 + out_s
    camera = SimCamera(clock, [Stretch(0, 5, ends), Stretch(back_s)], stamped=stamped, backlog=backlog)
    frames = live(camera)
    found = watched(frames, back_s + 10)
    ((_, returned),) = gaps(found)
    assert returned - back_s <= 2.0
    after = [captured_of(frame) for now, frame in found if now >= returned]
    assert min(after) >= back_s
    assert clock.now() - frames._last_ms / 1e3 < 1.5 and camera.open_now <= 1


@pytest.mark.parametrize("out_s", [12.0, 16.2, 21.0, 27.5, 40.0, 62.0, 600.0])
def test_a_call_into_a_dead_network_does_not_outlast_its_return(out_s):
    clock = SimClock()
    camera = SimCamera(clock, [Stretch(0, 5, "dark"), Stretch(5 + out_s)])
    ((_, returned),) = gaps(watched(live(camera), out_s + 15))
    assert returned - (5 + out_s) <= 2.0


@pytest.mark.parametrize("boot_s", [0.5, 2.0, 6.0])
def test_a_camera_that_boots_is_not_waited_for_as_one_that_is_gone(boot_s):
    """It takes connections before it has pictures: the attempt that fails then is the first of new ones."""
    clock = SimClock()
    camera = SimCamera(clock, [Stretch(0, 5), Stretch(605)], boot_s=boot_s)
    ((_, returned),) = gaps(watched(live(camera), 650))
    assert returned - 605 <= 2.0 + 2 * boot_s


def test_pauses_grow_from_one_attempt_to_the_next_up_to_half_a_minute():
    clock, begun_s = SimClock(), []

    def fails():
        begun_s.append(clock.now())
        raise FeedError("over")

    camera = LiveFrames("camera", fails, Patience(from_start=True), Counts(), clock=clock)
    closer = clock.spawn(lambda: (clock.sleep(100), camera.close()), "closer")
    assert list(camera) == [] and not closer.is_alive()
    assert np.diff(begun_s) == pytest.approx([1, 1, 2, 4, 8, 16, 30, 30], abs=0.01)


def test_a_backlog_is_never_given_where_stamps_tell_it():
    clock = SimClock()
    frames = live(SimCamera(clock, [Stretch(0)], backlog=24))
    (now, first), *_ = found = watched(frames, 5)
    assert now - captured_of(first) <= 0.21 and 0.3 < now < 0.6
    assert max(now - captured_of(frame) for now, frame in found[1:]) <= 0.05
    assert all(abs(frame.captured_s - captured_of(frame)) < 0.011 for _, frame in found)


def test_a_hundred_disconnections_leave_nothing_behind():
    clock = SimClock()
    camera = SimCamera(clock, [Stretch(4 * k, 4 * k + 2.5, "error") for k in range(101)], backlog=24)
    before = threading.active_count()
    frames = live(camera)
    found = watched(frames, 401.5)
    assert len(gaps(found)) == frames._counts.reconnections == 100
    assert camera.most_open == 1 and threading.active_count() <= before + 1
    assert all(until % 4 <= 2.0 for _, until in gaps(found))
    counts = frames._counts
    assert counts.frames + counts.dropped + counts.late == found[-1][1].number + 1


def test_a_hundred_stalls_never_hold_more_than_a_few_threads():
    clock = SimClock()
    camera = SimCamera(clock, [Stretch(60 * k, 60 * k + 5, "stall") for k in range(101)], hang_s=1e6)
    most, frames = 0, live(camera)
    for _ in frames:
        most = max(most, camera.open_now)
        if clock.now() > 6002:
            break
    assert frames._counts.reconnections + 1 >= 100 and most <= 4
    frames.close()


def test_a_reader_at_half_the_speed_gets_the_newest_for_ten_minutes():
    clock = SimClock()
    frames = live(SimCamera(clock, [Stretch(0)]))
    found = watched(frames, 600, work_s=0.08)
    assert len(found) == pytest.approx(600 / 0.08, rel=0.35)
    assert max(now - captured_of(frame) for now, frame in found[5:]) <= 0.05
    assert frames._counts.dropped > 5000


def test_a_frame_that_waited_for_a_reader_while_its_camera_was_gone_is_late():
    clock = SimClock()
    frames = live(SimCamera(clock, [Stretch(0, 5), Stretch(50)]))
    found = watched(frames, 51, work_s=7.0)
    assert all(now - captured_of(frame) <= MAX_AGE_S for now, frame in found) and frames._counts.late


def test_pictures_of_another_size_are_taken_over():
    clock = SimClock()
    camera = SimCamera(clock, [Stretch(0, 2), Stretch(2, 4, size_hw=(8, 10)), Stretch(10, size_hw=(5, 5))])
    found = watched(live(camera), 14)
    assert {frame.picture.shape[:2] for _, frame in found} == {(4, 6), (8, 10), (5, 5)}


GIVEN_UP = {
    "never there": ({}, [Stretch(1e6)], "camera gives no frame (connection refused); check that it is connected"),
    "not again": ({"reconnect": False}, [Stretch(0, 2)], "connection reset"),
    "stalled": ({"reconnect": False}, [Stretch(0, 2, "stall")], "time-out: nothing came for 10 s"),
    "nothing": ({"reconnect": False}, [Stretch(0, 2, "nothing")], "it gives no more frames (25 attempts)"),
    "opens for ever": ({}, [Stretch(-1, -0.5, "stall")], "time-out: no frame came within 15 s of opening it"),
}


@pytest.mark.parametrize(("patience", "stretches", "message"), GIVEN_UP.values(), ids=GIVEN_UP)
def test_what_is_given_up_says_why(patience, stretches, message):
    clock = SimClock()
    *_, last = live(SimCamera(clock, stretches, hang_s=100), **patience)
    assert isinstance(last, Unreadable) and message in last.reason


def test_a_source_that_is_to_be_waited_for_is():
    clock = SimClock()
    found = watched(live(SimCamera(clock, [Stretch(100)]), from_start=True), 101)
    assert found[0][0] < 102


STATES = {  # the moment of the interrupt, s
    "running": (3.0, [Stretch(0)]),
    "stalled": (9.0, [Stretch(0, 5, "stall")]),
    "reconnecting": (40.0, [Stretch(0, 5, "error")]),
    "opening": (0.0, [Stretch(-1, -0.5, "stall")]),
}


@pytest.mark.parametrize(("at_s", "stretches"), STATES.values(), ids=STATES)
def test_an_interrupt_ends_it_in_every_state(at_s, stretches):
    """As Ctrl-C does: an error raised while a frame is waited for."""

    class Interrupting(SimClock):
        def wait(self, condition, timeout_s):
            if threading.current_thread() is main and self.time_s >= at_s and not self.done:
                self.done = True
                raise KeyboardInterrupt
            super().wait(condition, timeout_s)

    main = threading.current_thread()
    clock = Interrupting()
    clock.done = False
    frames = live(SimCamera(clock, stretches))
    with pytest.raises(KeyboardInterrupt), frames:
        for _ in frames:
            pass
    assert list(frames) == []


def test_closing_from_another_thread_ends_the_wait(monkeypatch):
    begun, ends = threading.Event(), threading.Event()

    def hangs():
        begun.set()
        ends.wait()
        raise FeedError("over")

    monkeypatch.setattr("sdk.media.live.JOIN_S", 0.01)
    frames = LiveFrames("camera", hangs, Patience(), Counts())
    closer = threading.Thread(target=lambda: begun.wait() and frames.close())
    closer.start()
    assert list(frames) == [], "no word of a time-out"
    closer.join()
    ends.set()


def test_an_error_that_is_no_feeds_is_raised_where_frames_are_taken():
    def fails():
        raise ZeroDivisionError("a fault")

    with pytest.raises(ZeroDivisionError, match="a fault"):
        list(LiveFrames("camera", fails, Patience(), Counts()))


def test_stamps_a_tenth_too_slow_make_no_frame_late():
    freshness = Freshness(MAX_AGE_S)
    assert not any(freshness.of(0.04 * k, 0.036 * k).is_late for k in range(25 * 600))


def test_stamps_that_begin_anew_are_taken_over():
    freshness = Freshness(MAX_AGE_S)
    stamps = [0.04 * (k if k < 100 else k - 100 if k < 200 else k + 5000) for k in range(300)]
    seen = [freshness.of(0.04 * k, stamp) for k, stamp in enumerate(stamps)]
    assert not any(each.is_late for each in seen)
    assert [each.captured_s for each in seen] == pytest.approx([0.04 * k for k in range(300)], abs=1e-6)


def noise(number):
    return np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)


def test_arrays_are_a_source():
    pictures = [noise(k) for k in range(3)]
    with open_source(iter(pictures)) as frames:
        found = list(frames)
    assert not frames.is_live and [frame.number for frame in found] == [0, 1, 2] and frames.counts.frames == 3
    assert all(np.array_equal(frame.picture, picture) for frame, picture in zip(found, pictures, strict=True))


def test_arrays_as_a_live_source_give_their_newest():
    def slow():
        for k in range(8):
            time.sleep(0.03)
            yield noise(k)

    with open_source(slow(), live=True, max_age_s=60) as frames:
        found = list(frames)
    assert found and np.array_equal(found[-1].picture, noise(found[-1].number)) and found[-1].age_ms >= 0


REFUSED = {
    "nothing": (lambda: open_source(None), "a source must be a path, a camera's number, a URL or an iterable"),
    "a bool": (lambda: open_source(True), "a source must be a path"),
    "no frames": (lambda: list(open_source([np.zeros((2, 2))])), "frame 0 of the source: frame must be uint8"),
    "a backend": (lambda: open_source(0, backend="vlc"), "backend must be one of auto, opencv, av"),
    "a time": (lambda: open_source(0, read_timeout_s=0), "read_timeout_s must be a number of seconds above 0"),
    "an age": (lambda: open_source(0, max_age_s=-1), "max_age_s must be a number of seconds above 0"),
    "a word": (lambda: open_source(0, reconnect="never"), "reconnect must be True, False or 'always'"),
    "nowhere": (lambda: open_source("none.png"), "does not exist"),
    "a word for live": (
        lambda: open_source(0, live="no"),
        r"live must be True, False or None.* \(got 'no' and False\)",
    ),
    "a word for folders": (lambda: open_source(".", recursive="no"), "recursive True or False"),
    "no name": (lambda: open_source(""), "a source has an empty name; give a path, or '.'"),
    "a long name": (lambda: open_source("a" * 5000), "does not exist"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_source_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_what_could_not_be_read_is_raised_after_what_could(tmp_path):
    cv2 = pytest.importorskip("cv2")
    for name in ("a.png", "c.png"):
        cv2.imwrite(str(tmp_path / name), noise(0))
    (tmp_path / "b.png").write_bytes(b"")
    found = []
    with pytest.raises(SourceError, match=r"b\.png': the file is empty"), open_source(tmp_path) as frames:
        for frame in frames:
            found.append((frame.number, frame.source))
    assert found == [(0, str(tmp_path / "a.png")), (1, str(tmp_path / "c.png"))]


def test_an_open_source_that_is_left_opens_nothing_more(tmp_path):
    with open_source([noise(k) for k in range(5)]) as frames:
        assert next(frames).number == 0
    assert list(frames) == []


def test_a_feed_of_half_pictures_counts_them_broken():
    grabs = iter([Grab(noise(0)), None, None, Grab(noise(1)), None, Grab(noise(2))])

    class Feed:
        fps, claimed = 0.0, 0

        def read(self):
            time.sleep(0.03)
            try:
                return next(grabs)
            except StopIteration:
                raise FeedError("over") from None

        def abort(self):
            pass

        close = abort

    frames = LiveFrames("camera", Feed, Patience(reconnect=False, max_age_s=60), Counts())
    *found, last = frames
    assert [frame.number for frame in found][-1] == 5 and frames._counts.broken == 3 and last.reason == "over"

"""When a batch of several cameras begins, on a clock of the tests' own: nothing here waits or measures."""

import heapq
import random
from dataclasses import dataclass, field
from statistics import mean

import pytest

from sdk.errors import InputError
from sdk.people.gathering import Gathering, check_wait

PERIOD_S = 1 / 30


def gathering(*periods_s, at_s=0.0):
    """Of cameras that gave a frame each of these periods until `at_s`, all taken."""
    made = Gathering(len(periods_s))
    for camera, period_s in enumerate(periods_s):
        for step in range(5, -1, -1):
            made.arrived(camera, at_s - step * period_s)
    made.take()
    return made


def test_nothing_begins_with_nothing():
    assert Gathering(3).starts_s(5.0) is None


def test_a_camera_alone_never_waits():
    one = gathering(PERIOD_S)
    one.arrived(0, PERIOD_S)
    assert one.starts_s(PERIOD_S) == PERIOD_S


def test_a_frame_waits_half_its_period_for_a_camera_that_is_to_give_one_by_then():
    two = gathering(0.04, 0.04)
    two.arrived(0, 0.03)
    assert two.starts_s(0.03) == pytest.approx(0.05)
    two.arrived(1, 0.041)
    assert two.starts_s(0.041) == 0.041
    assert two.take() == [0, 1] and two.starts_s(0.041) is None


WAITED_FOR_BY_NOBODY = {
    "slow": ([0.04, 1.0], lambda two: None),
    "ended": ([0.04, 0.04], lambda two: two.ended(1)),
    "silent for long": ([0.04, 0.04], lambda two: [two.arrived(0, 0.04 * step) for step in range(1, 25)]),
}


@pytest.mark.parametrize("case", WAITED_FOR_BY_NOBODY)
def test_nobody_waits_for_a_camera_that_gives_nothing(case):
    periods_s, then = WAITED_FOR_BY_NOBODY[case]
    two = gathering(*periods_s)
    then(two)
    two.take()
    two.arrived(0, 1.0 if case == "silent for long" else 0.04)
    now_s = 1.0 if case == "silent for long" else 0.04
    assert two.starts_s(now_s) == now_s


def test_nobody_waits_for_a_camera_that_opens_still():
    two = Gathering(2)
    two.arrived(0, 1.0)
    assert two.starts_s(1.0) == 1.0


def test_the_frame_of_a_camera_that_ended_is_taken_all_the_same():
    two = gathering(0.04, 0.04)
    two.arrived(1, 0.01)
    two.ended(1)
    assert two.starts_s(0.01) is not None and two.take() == [1]


def test_a_given_wait_is_that_of_all():
    two = Gathering(2, max_wait_s=0.002)
    for at_s in (0.0, 0.04):
        two.arrived(0, at_s)
        two.arrived(1, at_s)
    two.take()
    two.arrived(0, 0.079)
    assert two.starts_s(0.079) == pytest.approx(0.081)


@pytest.mark.parametrize("given", [-1, True, "1", float("nan"), 1e9], ids=repr)
def test_a_wait_that_is_none_is_refused(given):
    with pytest.raises(InputError, match="max_wait_s must be seconds"):
        check_wait(given)


@dataclass
class Lived:
    """What a simulated while of several cameras came to. A frame's delay is from its coming to its batch's begin."""

    delays_s: list = field(default_factory=list)
    taken: list = field(default_factory=list)  # by camera
    batches: list = field(default_factory=list)  # (began, size)
    there: list = field(default_factory=list)  # the cameras that had a frame within the window of each batch

    @property
    def occupancy(self):
        return sum(size for _, size in self.batches) / sum(self.there)

    @property
    def worst_delay_s(self):
        return sorted(self.delays_s)[int(0.99 * len(self.delays_s))]


def live_through(phases_s, jitter_s, batch_s, seconds=20, period_s=PERIOD_S, stops=()):
    """Cameras at `phases_s`, each frame late by up to `jitter_s`; a batch of n takes batch_s(n). A camera of `stops`
    gives nothing after 5 s."""
    rng = random.Random(len(phases_s))
    arrivals = sorted(
        (phase + step * period_s + rng.uniform(0, jitter_s), camera)
        for camera, phase in enumerate(phases_s)
        for step in range(round((5 if camera in stops else seconds) / period_s))
    )
    gathering, lived, there, first = Gathering(len(phases_s)), Lived(taken=[0] * len(phases_s)), {}, 0
    events = [(at_s, 0, camera) for at_s, camera in arrivals]
    heapq.heapify(events)
    free_s = 0.0
    while events:
        now_s, _, camera = heapq.heappop(events)
        if camera is not None:
            gathering.arrived(camera, now_s)
            there[camera] = now_s
        starts_s = gathering.starts_s(now_s) if now_s >= free_s else None
        if starts_s is not None and starts_s > now_s:
            heapq.heappush(events, (starts_s, 1, None))
        elif starts_s is not None:
            began = min(there.values())
            while arrivals[first][0] < began:
                first += 1
            window = {
                each
                for at_s, each in arrivals[first : first + 4 * len(phases_s)]
                if began <= at_s <= began + period_s / 2
            }
            taken = gathering.take()
            lived.there.append(len(window | set(taken)))
            lived.batches.append((now_s, len(taken)))
            for each in taken:
                lived.delays_s.append(now_s - there.pop(each))
                lived.taken[each] += 1
            free_s = now_s + batch_s(len(taken))
            heapq.heappush(events, (free_s, 1, None))
    return lived


def spread(cameras, seed):
    rng = random.Random(seed)
    return [rng.uniform(0, PERIOD_S) for _ in range(cameras)]


SCENES = {  # phases, jitter, batch's time by its size
    "in step": ([0.0] * 8, 0.004, lambda n: 0.002 + 0.001 * n),
    "each at its own time": (spread(8, 1), 0.004, lambda n: 0.002 + 0.001 * n),
    "each at its own time, others": (spread(8, 2), 0.010, lambda n: 0.002 + 0.001 * n),
    "a plan that is nearly too slow": (spread(8, 3), 0.004, lambda n: 0.010 + 0.002 * n),
    "a plan that is too slow": (spread(8, 4), 0.0, lambda n: 0.030 + 0.004 * n),
}


@pytest.mark.parametrize("scene", SCENES)
def test_eight_cameras_of_30_frames_a_second_share_batches_evenly_and_soon(scene):
    lived = live_through(*SCENES[scene])
    assert lived.occupancy >= 0.9
    assert max(lived.taken) <= 1.01 * min(lived.taken)
    assert lived.worst_delay_s <= PERIOD_S


def test_cameras_in_step_fill_the_batch():
    phases, jitter, batch_s = SCENES["in step"]
    lived = live_through(phases, jitter, batch_s)
    assert mean(size for _, size in lived.batches) >= 0.9 * 8


def test_a_camera_that_falls_silent_costs_the_others_nothing():
    phases, jitter, batch_s = [0.0, 0.0, 0.010], 0.001, lambda n: 0.003
    lived = live_through(phases, jitter, batch_s, stops={2})
    before, after = lived.delays_s[: 3 * 120], lived.delays_s[-2 * 120 :]
    assert max(after) <= 0.002 < max(before)
    assert lived.taken[0] == lived.taken[1] == 600

"""Waiting with a limit, on a clock of the test's own."""

import pytest

from sdk.runtime.cuda.watchdog import NAP_S, wait_until


class Clock:
    def __init__(self):
        self.now, self.naps = 0.0, []

    def __call__(self):
        self.now += 0.0005
        return self.now

    def nap(self, seconds):
        self.naps.append(seconds)
        self.now += seconds


def after(calls):
    remaining = iter([False] * calls)
    return lambda: next(remaining, True)


def test_what_is_done_is_not_waited_for():
    clock = Clock()
    assert wait_until(lambda: True, 5.0, clock=clock, nap=clock.nap) and clock.naps == []


def test_it_naps_between_two_looks():
    clock = Clock()
    assert wait_until(after(40), 5.0, clock=clock, nap=clock.nap)
    assert clock.naps == [NAP_S] * 40


def test_it_gives_up_after_the_time_out():
    clock = Clock()
    assert not wait_until(lambda: False, 0.1, clock=clock, nap=clock.nap)
    assert 0.1 < clock.now < 0.102


def test_done_at_the_last_look_counts():
    clock = Clock()
    assert wait_until(after(1), 0.0, clock=clock, nap=clock.nap) and clock.naps == []


def test_an_error_of_the_device_passes_through():
    def broken():
        raise RuntimeError("an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        wait_until(broken, 5.0)

"""What counts as a number of an option: numpy's too, and no truth value. Each place that takes one holds to it."""

from fractions import Fraction

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.media.drawing import draw_poses
from sdk.media.feeds import How
from sdk.media.opening import open_source
from sdk.numeric import is_finite, is_number, is_whole
from sdk.people.detector import _check_options
from sdk.people.following import check_following, check_time
from sdk.people.gathering import check_wait
from sdk.people.smoothing import Smoother, Smoothing
from sdk.people.tracking import Tracker
from sdk.runtime.ort_session import _intra_threads
from sdk.skeletons import skeleton_by_name
from tests.support.live import poses_of

FRAME = np.zeros((8, 8, 3), np.uint8)
POSES = poses_of(np.zeros((1, 17, 3), np.float32), skeleton_by_name("coco17"))
WHOLE = [1, np.int64(1), np.uint8(1)]
NUMBERS = [*WHOLE, 1.0, np.float16(1), np.float32(1), np.float64(1), Fraction(1)]
NONE = [True, np.True_, "1", None, 1j, np.array([1]), np.timedelta64(1, "s")]


def test_finite_is_what_a_float_can_hold():
    assert all(map(is_finite, [*NUMBERS, Fraction(1, 3), 2**1000]))
    assert not any(map(is_finite, [*NONE, 10**400, float("inf"), np.float32("nan"), np.timedelta64(3)]))


def test_numbers_are_pythons_and_numpys():
    assert all(map(is_number, NUMBERS))
    assert not any(map(is_number, NONE))
    assert all(is_whole(value, 1, 1) for value in WHOLE)
    assert not any(is_whole(value, 0) for value in [*NONE, 1.0, np.float32(1)])
    assert not is_whole(np.uint8(1), 2)
    assert not is_whole(np.int64(1), 0, 0)


TAKES_NUMBERS = {
    "read_timeout_s": lambda value: How(read_timeout_s=value),
    "open_timeout_s": lambda value: How(open_timeout_s=value),
    "max_age_s": lambda value: open_source("0", max_age_s=value),
    "fps": lambda value: Smoothing(fps=value),
    "max_wait_s": check_wait,
    "time_ms": check_time,
    "score_threshold": lambda value: _check_options(value, None, None),
    "threshold": lambda value: draw_poses(FRAME, POSES, value),
    "min_likeness": lambda value: Tracker(min_likeness=value),
}
TAKES_WHOLE = {
    "patience": lambda value: Tracker(patience=value),
    "detect_every": lambda value: check_following(True, value, None),
    "max_persons": lambda value: check_following(True, 1, value),
    "threads": _intra_threads,
    "side": lambda value: _check_options(None, None, (value, 32)),
}


@pytest.mark.parametrize("name", TAKES_NUMBERS)
def test_each_takes_numbers_of_every_kind(name):
    for value in NUMBERS:
        TAKES_NUMBERS[name](value)
    for value in (True, np.True_, "1"):
        with pytest.raises(InputError):
            TAKES_NUMBERS[name](value)


@pytest.mark.parametrize("name", TAKES_WHOLE)
def test_each_takes_whole_numbers_of_every_kind(name):
    for value in WHOLE:
        TAKES_WHOLE[name](value)
    for value in (True, np.True_, 1.0, np.float32(1), "1"):
        with pytest.raises(InputError):
            TAKES_WHOLE[name](value)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.int8, np.uint8, Fraction])
def test_what_is_smoothed_does_not_hang_on_the_numbers_kind(kind):
    """Neither of the options nor of the times, which may go back."""

    def smoothed(of):
        smoother, rng = Smoother(Smoothing(still_hz=of(1), beta=of(6), fps=of(30)), 0.3), np.random.default_rng(0)
        box, scores, times = np.array([[0, 0, 9, 9]], np.float32), np.ones((1, 3), np.float32), (None, 90, 120, 3, 40)
        return [
            smoother.smoothed(np.ones(1), box, rng.uniform(0, 9, (1, 3, 2)), scores, None if at is None else of(at))
            for at in times
        ]

    np.testing.assert_array_equal(smoothed(kind), smoothed(int))

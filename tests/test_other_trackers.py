"""Trackers of the package `trackers`: ids aligned with the rows, whatever order the package gives them back in."""

import builtins
from importlib.util import find_spec

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.people.other_trackers import NAMES, AnyTracker, PackageTracker, tracker_from
from sdk.people.tracking import Tracker
from tests.test_tracking import SIGMAS, person, rows_of

needs_package = pytest.mark.skipif(find_spec("trackers") is None, reason="the package trackers is not installed")


@needs_package
@pytest.mark.parametrize("name", NAMES)
def test_ids_go_with_the_rows_and_are_unique(name):
    """Three persons walk; their rows are shuffled and their scores differ, which makes the package reorder them."""
    rng, tracker = np.random.default_rng(0), PackageTracker(name)
    ids_of: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    for frame in range(20):
        order = rng.permutation(3)
        persons = [person(200 * each + 3 * frame, 50) for each in order]
        scores = np.float32([0.9, 0.4, 0.6])[order]
        ids = tracker.update(*rows_of(persons), SIGMAS, 0.3, scores)
        assert len(set(ids[ids > 0].tolist())) == (ids > 0).sum() and (frame == 0 or (ids > 0).all())
        for row, each in enumerate(order.tolist()):
            ids_of[each].add(int(ids[row]))
    told = [ids - {-1} for ids in ids_of.values()]
    assert [len(ids) for ids in told] == [1, 1, 1] and set.union(*told) == {1, 2, 3}


@needs_package
@pytest.mark.parametrize("name", NAMES)
def test_empty_frames_pass_and_reset_counts_from_1(name):
    tracker = PackageTracker(name)
    for _ in range(2):
        for _ in range(3):
            ids = tracker.update(*rows_of([person(100, 50)]), SIGMAS, 0.3, np.float32([0.8]))
        assert ids.tolist() == [1]
        assert tracker.update(*rows_of([]), SIGMAS, 0.3, np.zeros(0, np.float32)).shape == (0,)
        tracker.reset()


@pytest.mark.parametrize("name", NAMES)
def test_without_the_package_the_mend_is_told(name, monkeypatch):
    real = builtins.__import__

    def without(module, *arguments, **named):
        if module in ("trackers", "supervision"):
            raise ImportError(f"No module named '{module}'")
        return real(module, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=rf"tracker '{name}' is of the package trackers.*pip install.*\[trackers\]"):
        tracker_from(name)


def test_a_tracker_of_ones_own_is_taken_as_it_is():
    own = Tracker()
    assert tracker_from(own) is own and isinstance(own, AnyTracker) and isinstance(tracker_from(True), Tracker)

"""The one-euro filter against its definition, and what it must not do: lag without bound, glide, mix persons."""

import math

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.people.smoothing import NARROW, SPEED_HZ, STALE, UNSURE, Smoother, Smoothing

BOX = np.array([[0, 0, 100, 100]], np.float32)  # of size 100
ONE = np.ones(1, np.int64)


def run(places, *, scores=None, times=None, smoothing=None, ids=None, spread=None):
    """Places T x K x 2 of one person -> smoothed."""
    smoother, out = Smoother(smoothing or Smoothing(), fair=0.3), []
    for index, place in enumerate(places):
        score = np.ones(place.shape[:1], np.float32) if scores is None else scores[index]
        out.append(
            smoother.smoothed(
                ONE if ids is None else np.array([ids[index]]),
                BOX,
                place[None].astype(np.float32),
                score[None],
                None if times is None else times[index],
                None if spread is None else spread[index][None],
            )[0]
        )
    return np.stack(out)


def reference(places, trust, still_hz, beta, seconds):
    """Casiez et al., in float64: one joint, T x 2."""

    def share(hertz):
        return 1 / (1 + 1 / (2 * math.pi * hertz * seconds))

    smooth, speed, out = places[0], np.zeros(2), [places[0]]
    for before, now, weight in zip(places, places[1:], trust[1:], strict=False):
        speed = speed + share(SPEED_HZ) * ((now - before) / (100 * seconds) - speed)
        smooth = smooth + weight * share(still_hz + beta * np.linalg.norm(speed)) * (now - smooth)
        out.append(smooth)
    return np.stack(out)


@pytest.mark.parametrize("fps", [10, 30, 120])
@pytest.mark.parametrize("with_spread", [False, True], ids=["scores", "scores and spread"])
def test_it_is_the_one_euro_filter(fps, with_spread):
    rng = np.random.default_rng(fps)
    places = np.cumsum(rng.normal(0, 3, (40, 5, 2)), axis=0) + 50
    scores = rng.uniform(0.2, 0.6, (40, 5)).astype(np.float32)
    spread = rng.uniform(1, 9, (40, 5, 2)).astype(np.float32) if with_spread else None
    times = [1e3 * index / fps for index in range(40)]
    found = run(places, scores=scores, times=times, smoothing=Smoothing(0.8, 4.0), spread=spread)
    sure = np.clip(scores / 0.3, 0, 1)
    if spread is not None:
        sure = sure * np.clip(100 * NARROW / spread.mean(axis=2), 0, 1)
    for joint in range(5):
        trust = UNSURE + (1 - UNSURE) * sure[:, joint]
        expected = reference(places[:, joint].astype(np.float32).astype(np.float64), trust, 0.8, 4.0, 1 / fps)
        np.testing.assert_allclose(found[:, joint], expected, atol=1e-3)


def test_noise_of_who_stands_goes_down_and_a_step_is_reached():
    rng = np.random.default_rng(0)
    still = 50 + rng.normal(0, 1, (200, 14, 2))
    smoothed = run(still)
    assert np.diff(smoothed[20:], axis=0).std() < 0.3 * np.diff(still[20:], axis=0).std()
    step = np.concatenate([np.full((20, 1, 2), 10.0), np.full((20, 1, 2), 60.0)])
    assert abs(run(step)[26] - 60).max() < 5


def test_the_lag_of_a_steady_walk_is_below_two_frames():
    walk = np.arange(60)[:, None, None] * np.array([3.0, 0.0])  # 0.9 sizes a second
    lag = (walk - run(walk))[-1, 0, 0] / 3
    assert 0 < lag < 2


@pytest.mark.parametrize(
    "times",
    [[0, 33, 2000], [0, 33, 33], [0, 33, 10], [0, 33, math.nan]],
    ids=["a gap", "twice", "backwards", "no number"],
)
def test_time_that_jumps_starts_anew(times):
    places = np.array([[[10.0, 10]], [[11.0, 11]], [[90.0, 90]]])
    np.testing.assert_array_equal(run(places, times=times)[-1], [[90, 90]])


def test_another_identity_starts_anew_and_rows_may_change_places():
    places = np.array([[[10.0, 10]], [[11.0, 11]], [[90.0, 90]]])
    np.testing.assert_array_equal(run(places, ids=[1, 1, 2])[-1], [[90, 90]])
    np.testing.assert_array_equal(run(places, ids=[-1, -1, -1]), places)  # nobody's
    smoother = Smoother(Smoothing(), 0.3)
    boxes, scores = BOX.repeat(2, axis=0), np.ones((2, 1), np.float32)
    two = np.array([[[10.0, 10]], [[500.0, 10]]], np.float32)
    smoother.smoothed(np.array([4, 9]), boxes, two, scores)
    turned = smoother.smoothed(np.array([9, 4]), boxes, two[::-1] + 1, scores)
    assert abs(turned - two[::-1]).max() < 1


def test_a_joint_that_was_hidden_does_not_glide_back():
    places = np.concatenate([np.full((5, 1, 2), 10.0), np.full((STALE + 1, 1, 2), 40.0), np.full((1, 1, 2), 80.0)])
    scores = np.ones((len(places), 1), np.float32)
    scores[5:-1] = 0.05
    np.testing.assert_array_equal(run(places, scores=scores)[-1], [[80, 80]])


@pytest.mark.parametrize("options", [{"fps": 0}, {"still_hz": -1}, {"beta": math.nan}, {"fps": "30"}], ids=str)
def test_settings_that_filter_nothing_are_refused(options):
    with pytest.raises(InputError, match=f"Smoothing: {next(iter(options))} must be a number from"):
        Smoothing(**options)

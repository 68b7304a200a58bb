"""The tracker: ids aligned with rows over births, deaths, permutations; likeness by definition."""

import numpy as np
import pytest

from sdk import _native
from sdk.errors import InputError
from sdk.people.tracking import Tracker, box_iou
from sdk.skeletons import skeleton_by_name
from tests.support.tracking_reference import ReferenceTracker, iou_reference, oks_reference

SIGMAS = skeleton_by_name("crowdpose14").sigmas
SHAPE = np.random.default_rng(0).uniform(0, 1, (14, 2))


def person(x, y, size=100.0, shape=SHAPE):
    """Box 4, keypoints 14 x 2 and scores 14 of one person at (x, y)."""
    keypoints = (np.array([x, y]) + shape * [size / 2, size]).astype(np.float32)
    return np.array([x, y, x + size / 2, y + size], np.float32), keypoints, np.ones(14, np.float32)


def rows_of(persons):
    if not persons:
        return np.zeros((0, 4), np.float32), np.zeros((0, 14, 2), np.float32), np.zeros((0, 14), np.float32)
    boxes, keypoints, scores = zip(*persons, strict=True)
    return np.stack(boxes), np.stack(keypoints), np.stack(scores)


def update(tracker, persons):
    return tracker.update(*rows_of(persons), SIGMAS, 0.3).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_identities_hold_over_births_deaths_and_permutations(seed):
    """Twelve walkers on their own lanes come and go, in random order of rows: one id a walker, while it is there."""
    rng = np.random.default_rng(seed)
    tracker = Tracker(patience=0)
    present, ids_of, used = {}, {}, set()
    for _ in range(60):
        for lane in range(12):
            if rng.random() < 0.15:
                if lane in present:
                    del present[lane], ids_of[lane]
                else:
                    present[lane] = rng.uniform(0, 500)
        lanes = rng.permutation(sorted(present)).tolist()
        for lane in lanes:
            present[lane] += rng.uniform(-6, 6)
        ids = update(tracker, [person(present[lane], lane * 150, 90) for lane in lanes])
        assert len(ids) == len(lanes) == len(set(ids))
        for lane, number in zip(lanes, ids, strict=True):
            if lane in ids_of:
                assert ids_of[lane] == number
            else:
                assert number not in used
            ids_of[lane] = number
        used.update(ids)


@pytest.mark.parametrize("seed", range(50))
def test_no_input_breaks_the_alignment(seed):
    """Crowds of chance, collapsed and repeated persons, off-frame, NaN-free but wild: ids are unique, one a row."""
    rng = np.random.default_rng(seed)
    tracker = Tracker(patience=int(rng.integers(0, 4)))
    for _ in range(15):
        count = int(rng.integers(0, 9))
        persons = [person(*rng.uniform(-200, 200, 2), rng.choice([1e-3, 1.0, 100.0, 1e5])) for _ in range(count)]
        if count and rng.random() < 0.5:
            persons += [persons[0]] * 2
        ids = update(tracker, persons)
        assert len(ids) == len(persons) == len(set(ids)) and all(number > 0 for number in ids)


def test_the_order_of_rows_does_not_matter():
    persons = [person(i * 120, 30 * i) for i in range(6)]
    first, second = Tracker(), Tracker()
    assert update(first, persons) == update(second, persons) == [1, 2, 3, 4, 5, 6]
    order = [4, 2, 0, 5, 1, 3]
    assert update(first, [persons[i] for i in order]) == [i + 1 for i in order]


def test_buffers_that_are_used_again_do_not_move_the_tracks():
    """Two persons change places in the caller's arrays: the ids go with them."""
    here, there = person(0, 0), person(300, 0)
    rows, tracker = rows_of([here, there]), Tracker()
    assert tracker.update(*rows, SIGMAS, 0.3).tolist() == [1, 2]
    for row, turned in zip(rows, rows_of([there, here]), strict=True):
        row[:] = turned
    assert tracker.update(*rows, SIGMAS, 0.3).tolist() == [2, 1]


def test_an_id_outlives_a_gap_as_long_as_patience():
    for gap, same in ((3, True), (4, False)):
        tracker = Tracker(patience=3)
        assert update(tracker, [person(0, 0)]) == [1]
        for _ in range(gap):
            assert update(tracker, []) == []
        assert update(tracker, [person(2, 0)]) == ([1] if same else [2])


@pytest.mark.parametrize("hidden", [0, 4, 20], ids=lambda frames: f"hidden for {frames}")
@pytest.mark.parametrize("speed", [2, 5, 10], ids=lambda speed: f"{speed} px a frame")
def test_persons_who_cross_keep_their_ids(speed, hidden):
    """Two persons walk through each other, the second hidden behind the first as they meet."""
    tracker, end = Tracker(), 59
    rng = np.random.default_rng(0)
    shapes, ids = rng.uniform(0, 1, (2, 14, 2)), []
    for frame in range(end + 1):
        both = [person(speed * at, 100, shape=shape) for at, shape in zip((frame, end - frame), shapes, strict=True)]
        is_hidden = abs(2 * frame - end) < hidden
        ids.append(update(tracker, both[:1] if is_hidden else both))
    assert ids[0] == ids[-1] == [1, 2] and {len(each) for each in ids} <= {1, 2}


def test_a_person_who_stops_while_hidden_keeps_the_id():
    tracker = Tracker()
    for frame in range(10):
        update(tracker, [person(4 * frame, 100)])
    for _ in range(15):
        update(tracker, [])
    assert update(tracker, [person(40, 100)]) == [1]


def test_two_persons_in_like_boxes_are_told_apart_by_their_joints():
    other = np.random.default_rng(9).uniform(0, 1, (14, 2))
    tracker = Tracker()
    assert update(tracker, [person(0, 0), person(0, 0, shape=other)]) == [1, 2]
    assert update(tracker, [person(1, 1, shape=other), person(1, 1)]) == [2, 1]


def test_reset_starts_another_video():
    tracker = Tracker()
    assert update(tracker, [person(0, 0)]) == [1]
    tracker.reset()
    assert update(tracker, [person(300, 0)]) == [1]


@pytest.mark.parametrize("wrong", ["no points", "joints of another number", "fewer boxes"])
def test_persons_who_are_refused_say_nothing_of_those_to_come(wrong):
    tracker, (boxes, keypoints, scores) = Tracker(), rows_of([person(0, 0)])
    given = {
        "no points": (boxes, np.zeros((1, 14, 3), np.float32), scores),
        "joints of another number": (boxes, keypoints[:, :5], scores[:, :5]),
        "fewer boxes": (boxes[:0], keypoints, scores),
    }[wrong]
    with pytest.raises((TypeError, ValueError)):
        tracker.update(*given, SIGMAS, 0.3)
    assert update(tracker, [person(0, 0)]) == update(tracker, [person(1, 0)]) == [1]


def test_likeness_is_a_mean_and_may_just_reach_what_is_asked():
    tracker = Tracker(min_likeness=1)
    assert update(tracker, [person(0, 0)]) == update(tracker, [person(0, 0)]) == [1]
    assert update(tracker, [person(1, 0)]) == [2]


def test_one_person_takes_the_likest_track():
    tracker = Tracker()
    assert update(tracker, [person(0, 0), person(15, 0)]) == [1, 2]
    assert update(tracker, [person(1, 0)]) == [1]


def test_joints_that_are_not_trusted_do_not_count():
    tracker, (box, keypoints, scores) = Tracker(min_likeness=0.99), person(0, 0)
    assert update(tracker, [(box, keypoints, scores)]) == [1]
    wild, unsure = keypoints.copy(), scores.copy()
    wild[:7], unsure[:7] = 500, 0.1
    assert update(tracker, [(box, wild, unsure)]) == [1]


# ---- the native ops, by their definitions


def scene(rng, present, shapes, walk):
    """A frame of those who are there, in a random order: moved, sometimes unsure, twice or somebody else's double."""
    places = rng.permutation(np.flatnonzero(present))
    persons = []
    for each in places:
        box, keypoints, scores = person(*np.round(walk[each]), shape=shapes[each])  # whole pixels: many ties
        keypoints[rng.random(14) < 0.1] += np.float32(rng.normal(0, 30))
        scores[rng.random(14) < 0.2] = rng.choice([0.1, 0.3])
        persons += [(box, keypoints, scores)] * (1 + (rng.random() < 0.1))
    return persons


@pytest.mark.parametrize("seed", range(25))
def test_ids_are_those_of_the_reference(seed):
    """Crowds on a grid who walk, come and go, cross and stand on each other: equally like pairs are the rule."""
    rng = np.random.default_rng(seed)
    options = {"min_likeness": float(rng.choice([0.05, 0.2, 0.6])), "patience": int(rng.integers(0, 5))}
    tracker, reference = Tracker(**options), ReferenceTracker(**options)
    count = int(rng.integers(1, 9))
    shapes, walk = rng.uniform(0, 1, (count, 14, 2)), 20.0 * rng.integers(0, 8, (count, 2))
    shapes[rng.random(count) < 0.5] = SHAPE
    steps = rng.integers(-6, 7, (count, 2))
    for _ in range(12):
        rows = rows_of(scene(rng, rng.random(count) < 0.85, shapes, walk))
        walk += steps
        assert tracker.update(*rows, SIGMAS, 0.3).tolist() == reference.update(*rows, SIGMAS, 0.3)


def test_a_crowd_of_a_hundred_has_the_ids_of_the_reference():
    rng = np.random.default_rng(0)
    tracker, reference = Tracker(), ReferenceTracker()
    walk, shapes = rng.uniform(0, 900, (100, 2)), rng.uniform(0, 1, (100, 14, 2))
    for _ in range(2):
        rows = rows_of([person(*walk[each], shape=shapes[each]) for each in rng.permutation(100)])
        walk += rng.normal(0, 15, (100, 2))
        assert tracker.update(*rows, SIGMAS, 0.3).tolist() == reference.update(*rows, SIGMAS, 0.3)


def pairs_of(persons, tracks, least=0.2, moving=(0, 0), missed=0, sigmas=SIGMAS):
    rows, count = np.empty(len(persons), np.int32), len(tracks)
    more = np.full((count, 2), moving, np.float32), np.full(count, missed, np.int64)
    kernels = 2 * (2 * np.array(sigmas, np.float64)) ** 2
    known = _native.pair_persons(rows, rows_of(persons), (*rows_of(tracks), *more), kernels, 0.53, 0.3, least)
    assert known == (rows >= 0).sum()
    return rows.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_a_likeness_is_the_definitions(seed):
    """The least that is asked for, a little above and below the reference: a pair is made in one of both."""
    rng = np.random.default_rng(seed)
    first, second = person(0, 0), person(*rng.uniform(-15, 15, 2))
    second[2][:] = rng.uniform(0, 0.6, 14)
    area, counted = np.prod(second[0][2:] - second[0][:2]), second[2] >= 0.3
    likeness = (iou_reference(first[0], second[0]) + oks_reference(first[1], second[1], counted, area, SIGMAS)) / 2
    assert 0.05 < likeness < 0.99
    assert pairs_of([first], [second], likeness * (1 - 1e-6)) == [0]
    assert pairs_of([first], [second], likeness * (1 + 1e-6)) == [-1]


PAIRS = {
    "nobody in the frame": ([], [person(0, 0)], []),
    "nobody known": ([person(0, 0)], [], [-1]),
    "equally like persons: the first row": ([person(0, 0)] * 3, [person(0, 0)], [0, -1, -1]),
    "equally like tracks: the first row": ([person(0, 0)], [person(0, 0)] * 3, [0]),
    "all the same: row by row": ([person(0, 0)] * 3, [person(0, 0)] * 2, [0, 1, -1]),
    "the likest first": ([person(9, 0), person(1, 0)], [person(0, 0)], [-1, 0]),
    "mirrored distances": ([person(0, 0), person(10, 0)], [person(5, 0)], [0, -1]),
    "far away": ([person(0, 0)], [person(500, 0)], [-1]),
}


@pytest.mark.parametrize("case", PAIRS)
def test_who_is_paired_with_whom(case):
    persons, tracks, expected = PAIRS[case]
    assert pairs_of(persons, tracks) == expected


def test_motion_is_counted_for_every_frame_that_is_missing():
    assert pairs_of([person(40, 0)], [person(0, 0)], 0.9, moving=(10, 0), missed=3) == [0]
    assert pairs_of([person(40, 0)], [person(0, 0)], 0.9, moving=(10, 0), missed=2) == [-1]


def test_what_is_not_a_number_is_nobody():
    box, keypoints, scores = person(0, 0)
    for wrong in ((box * np.nan, keypoints, scores), (box, keypoints * np.nan, scores)):
        assert pairs_of([wrong, person(0, 0)], [person(0, 0)]) == [-1, 0]


def test_iou_by_its_definition():
    rng = np.random.default_rng(1)
    a, b = (np.sort(rng.uniform(0, 9, (n, 2, 2)), axis=1).reshape(n, 4).astype(np.float32) for n in (5, 4))
    a[0, 2:] = a[0, :2]  # a point
    np.testing.assert_array_equal(box_iou(a, b), [[iou_reference(one, other) for other in b] for one in a])
    assert box_iou(a[:1], a[:1]) == 0


def test_empty_sides_give_empty_tables():
    assert box_iou(np.zeros((0, 4), np.float32), np.zeros((3, 4), np.float32)).shape == (0, 3)


@pytest.mark.parametrize("seed", range(10))
def test_the_rows_that_count_most(seed):
    """Of many equal scores: those who were there, then the surest, then the first, in their order."""
    rng = np.random.default_rng(seed)
    boxes, before = (np.stack([person(*rng.uniform(0, 200, 2))[0] for _ in range(n)]) for n in (12, 3))
    scores = rng.integers(0, 4, 12).astype(np.float32)
    met = (box_iou(boxes, before) >= np.float32(0.3)).any(axis=1)
    order = sorted(range(12), key=lambda row: (not met[row], -scores[row], row))
    for most in range(13):
        rows = np.empty(most, np.int64)
        _native.most_rows(rows, boxes, scores, before, 0.3)
        assert rows.tolist() == sorted(order[:most])


ROWS = rows_of([person(0, 0)])
TRACKS = (*ROWS, np.zeros((1, 2), np.float32), np.zeros(1, np.int64))
KERNELS, ONE = np.ones(14), np.zeros(1, np.int32)
REFUSED = {
    "joints of another number": (
        lambda: _native.pair_persons(ONE, ROWS, TRACKS, np.ones(17), 0.53, 0.3, 0.2), "persons must have a box, and"),
    "a row too few": (
        lambda: _native.pair_persons(ONE[:0], ROWS, TRACKS, KERNELS, 0.53, 0.3, 0.2), "track_of must have a row a per"),
    "no least": (
        lambda: _native.pair_persons(ONE, ROWS, TRACKS, KERNELS, 0.53, 0.3, 0.0), "area_share must be positive"),
    "no step": (
        lambda: _native.see_persons((*ROWS, TRACKS[3][:0], TRACKS[4]), ROWS, ONE), "tracks must have a row each"),
    "a row of no track": (lambda: _native.see_persons(TRACKS, ROWS, ONE + 1), "track_of must hold rows of tracks"),
    "a row below nobody": (lambda: _native.see_persons(TRACKS, ROWS, ONE - 2), "track_of must hold rows of tracks"),
    "a table of another size": (
        lambda: _native.box_iou(np.empty((1, 2), np.float32), ROWS[0], ROWS[0]), "out must be a table of first and"),
    "more rows than there are": (
        lambda: _native.most_rows(np.empty(2, np.int64), ROWS[0], ROWS[2][0, :1], ROWS[0], 0.3), "out at most so many"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_the_native_ops_refuse(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_the_native_ops_convert_nothing():
    """A copy that was written in a track's place would be lost."""
    with pytest.raises(TypeError):
        _native.see_persons((TRACKS[0].astype(np.float64), *TRACKS[1:]), ROWS, ONE)
    with pytest.raises(TypeError):
        _native.pair_persons(ONE, ROWS, (np.tile(TRACKS[0], 2)[:, ::2], *TRACKS[1:]), KERNELS, 0.53, 0.3, 0.2)


def test_arrays_of_another_kind_are_taken_by_the_tracker():
    box, keypoints, scores = rows_of([person(0, 0), person(300, 0)])
    tracker = Tracker()
    assert tracker.update(
        box.astype(np.float64), keypoints[:, ::-1], np.asfortranarray(scores), SIGMAS, 0.3
    ).tolist() == [1, 2]
    assert tracker.update(box, keypoints[:, ::-1].astype(np.float64), scores, list(SIGMAS), 0.3).tolist() == [1, 2]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_options_may_be_numpys_numbers(kind):
    tracker = Tracker(min_likeness=kind(0.5), patience=np.int64(3))
    assert (tracker.min_likeness, tracker.patience) == (0.5, 3)


OUT_OF_RANGE = [
    {"min_likeness": 0}, {"min_likeness": 1.5}, {"min_likeness": float("nan")}, {"min_likeness": "0.5"},
    {"patience": -1}, {"patience": 1.5}, {"patience": float("nan")}, {"patience": None},
]  # fmt: skip


@pytest.mark.parametrize("options", OUT_OF_RANGE, ids=str)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=r"min_likeness must be in \(0, 1\] and patience a whole number, not neg"):
        Tracker(**options)


def test_tolerances_are_those_of_the_call():
    """A list may hold others by the next frame."""
    tracker, tolerances = Tracker(), [0.01] * 14
    first = rows_of([person(0, 0)])
    assert tracker.update(*first, tolerances, 0.3).tolist() == [1]
    assert tracker.update(*first, tolerances, 0.3).tolist() == [1]
    tolerances[:] = [2.0] * 14
    assert tracker.update(*rows_of([person(51, 0)]), tolerances, 0.3).tolist() == [1], "beside his box, but like him"

"""The tracker: ids aligned with rows over births, deaths, permutations; likeness by definition."""

import numpy as np
import pytest

from sdk.errors import InputError
from sdk.people.tracking import Tracker, box_iou, keypoint_oks
from sdk.skeletons import skeleton_by_name

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


def test_iou_and_oks_by_their_definitions():
    rng = np.random.default_rng(1)
    a, b = (np.sort(rng.uniform(0, 9, (n, 2, 2)), axis=1).reshape(n, 4).astype(np.float32) for n in (5, 4))
    keypoints = [rng.uniform(0, 50, (n, 14, 2)).astype(np.float32) for n in (5, 4)]
    counted, areas = rng.random((5, 4, 14)) < 0.7, rng.uniform(100, 4000, 4)
    iou, oks = box_iou(a, b), keypoint_oks(*keypoints, counted, areas, np.array(SIGMAS))
    for i in range(5):
        for j in range(4):
            w = max(0, min(a[i, 2], b[j, 2]) - max(a[i, 0], b[j, 0]))
            h = max(0, min(a[i, 3], b[j, 3]) - max(a[i, 1], b[j, 1]))
            union = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a[i], b[j])) - w * h
            assert iou[i, j] == pytest.approx(w * h / union, abs=1e-5)
            terms = [
                np.exp(-((keypoints[0][i, k] - keypoints[1][j, k]) ** 2).sum() / (2 * areas[j] * 0.53 * (2 * s) ** 2))
                for k, s in enumerate(SIGMAS)
                if counted[i, j, k]
            ]
            assert oks[i, j] == pytest.approx(np.mean(terms), abs=1e-5)
    assert (keypoint_oks(*keypoints, np.zeros_like(counted), areas, np.array(SIGMAS)) == 0).all()


def test_empty_sides_give_empty_tables():
    assert box_iou(np.zeros((0, 4), np.float32), np.zeros((3, 4), np.float32)).shape == (0, 3)


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

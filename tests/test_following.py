"""Between detections: who stays, who goes, where he is looked for next, and when the detector looks again."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdk.errors import InputError
from sdk.people.following import CEILING, IDLE, Follower, most_persons
from sdk.people.smoothing import Smoothing
from sdk.people.tracking import Tracker, box_iou
from sdk.poses import Poses, ScoreScale
from sdk.skeletons import skeleton_by_name
from tests.test_tracking import SHAPE, person, rows_of

SKELETON = skeleton_by_name("crowdpose14")
SIZE_HW = (480, 640)


def poses_of(persons, box_scores=None):
    boxes, keypoints, scores = rows_of(persons)
    given = np.full(len(boxes), 0.8) if box_scores is None else box_scores
    return Poses(keypoints, scores, boxes, np.asarray(given, np.float32), SKELETON, timings_ms={"total": 0.0})


def made(detects=True, detect_every=99, **options):
    return Follower(ScoreScale(0.3, 0.8), Tracker(), detects=detects, detect_every=detect_every, **options)


def seen(follower, persons, box_scores=None, *, frames=1):
    """The follower after frames in which the detector found these; what it hands on."""
    for _ in range(frames):
        follower.next_boxes(SIZE_HW)
        follower.follow(poses_of(persons, box_scores), detected=True)
    return follower.next_boxes(SIZE_HW)


def followed(follower, persons):
    """A frame between detections."""
    return follower.follow(poses_of(persons), detected=False)


def scored(one, factor):
    return one[0], one[1], (one[2] * factor).astype(np.float32)


def half(one, upper=1.0, lower=0.1):
    """Of somebody behind a desk: seven joints that are found, and seven that are guessed inside the box."""
    scores = np.where(np.arange(14) % 2, upper, lower).astype(np.float32)
    return one[0], one[1], scores


# --- where to look next ----------------------------------------------------------------------------------------------


def test_the_next_box_surrounds_the_joints():
    one = person(10, 20)
    (box,), _ = seen(made(), [one])
    low, high = one[1].min(axis=0), one[1].max(axis=0)
    np.testing.assert_allclose(box, [*(low - 0.15 * (high - low)), *(high + 0.15 * (high - low))], rtol=1e-5)


def test_of_half_a_person_the_box_moves_with_the_joints_that_are_found():
    follower, one = made(), person(100, 100)
    handed = seen(follower, [half(one)])
    moved = half((handed[0][0], one[1] + np.float32([6, 2]), one[2]))
    followed(follower, [moved])
    (box,), _ = follower.next_boxes(SIZE_HW)
    around = moved[1][1::2]
    extent = np.ptp(around, axis=0)
    expected = np.concatenate([around.min(axis=0) - 0.15 * extent, around.max(axis=0) + 0.15 * extent])
    carried = handed[0][0] + np.float32([6, 2, 6, 2])
    np.testing.assert_allclose(box, (expected + carried) / 2, rtol=1e-4)


def test_without_a_fair_joint_the_box_stays_where_it_was():
    one = scored(person(100, 100), 0.2)
    (box,), _ = seen(made(), [one], [0.9])
    np.testing.assert_allclose(box, one[0])


# --- who stays -------------------------------------------------------------------------------------------------------

GONE = {
    "scores fell": lambda: scored(person(400, 100), 0.01),
    "left to the right": lambda: person(700, 0),
    "left to the left": lambda: person(-200, 0),
    "left upwards": lambda: person(0, -200),
    "left downwards": lambda: person(0, 600),
}


@pytest.mark.parametrize("make", GONE.values(), ids=GONE)
def test_who_is_gone_has_no_next_box(make):
    follower = made()
    seen(follower, [person(100, 100), person(400, 100)], frames=6)
    persons = [person(100, 100), make()]
    follower.follow(poses_of(persons), detected=True)
    follower.follow(poses_of(persons), detected=False)
    follower._since = 0
    assert len(follower._handed_on(follower._last, SIZE_HW)[0].rows) == 1


def test_half_a_person_stays_though_most_joints_are_not_fair():
    follower = made()
    seen(follower, [half(person(100, 100), lower=0.05)], [0.45])
    for _ in range(40):
        handed = follower.next_boxes(SIZE_HW)
        assert handed is not None and len(handed[0]) == 1
        followed(follower, [half((handed[0][0], *person(100, 100)[1:]), lower=0.05)])


def test_what_a_detector_doubts_and_joints_do_not_confirm_goes_without_another_detection():
    """Joints in a corner of the box, few of them fair: a coat on a hook."""
    follower, (box, keypoints, scores) = made(), person(100, 100)
    keypoints = (keypoints - 100) * np.float32(0.2) + 100
    counts = []
    seen(follower, [(box, keypoints, scores * np.float32(0.25))], [0.32])
    for _ in range(4):
        handed = follower.next_boxes(SIZE_HW)
        assert handed is not None
        counts.append(len(handed[0]))
        followed(follower, [(each, keypoints, scores * np.float32(0.25)) for each in handed[0]])
    assert counts[:2] == [1, 1] and counts[-1] == 0


@pytest.mark.parametrize(("apart", "count"), [(1 / 12, 1), (1 / 7, 2)], ids=["IoU 0.85", "IoU 0.75"])
def test_two_rows_on_one_person_get_the_surer_ones_next_box(apart, count):
    follower, (box, keypoints, scores) = made(), person(100, 100)
    (alone,), _ = seen(follower, [(box, keypoints, scores)])
    moved = keypoints + np.array([apart * (alone[2] - alone[0]), 0], np.float32)
    follower.reset()
    boxes, _ = seen(follower, [(box, keypoints, 0.5 * scores), (box, moved, scores)])
    assert len(boxes) == count and boxes[0, 0] > alone[0] + 1


def test_a_followed_person_keeps_the_detectors_score_a_little_less_each_frame():
    follower, one = made(), person(100, 100)
    _, scores = seen(follower, [one], [0.7])
    assert scores == pytest.approx([0.7 * 0.98])


# --- when the detector looks -----------------------------------------------------------------------------------------


def detections(follower, frames, persons_at):
    """The frames in which the detector was asked; it finds whom `persons_at` gives."""
    asked = []
    for number in range(frames):
        persons = persons_at(number)
        handed = follower.next_boxes(SIZE_HW)
        if handed is None:
            asked.append(number)
            follower.chosen(rows_of(persons)[0], np.full(len(persons), 0.8, np.float32))
            follower.follow(poses_of(persons), detected=True)
        else:
            follower.follow(poses_of(persons[: len(handed[0])]), detected=False)
    return asked


def standing(number):
    return [person(100, 100)]


def nobody(number):
    return []


SCHEDULES = {
    "every third": (3, standing, [0, 3, 6, 9, 12, 15, 18, 21]),
    "every seventh, nobody there": (7, nobody, [0, 5, 10, 15, 20]),
    "every third, nobody there": (3, nobody, [0, 3, 6, 9, 12, 15, 18, 21]),
    "auto": ("auto", standing, [0, CEILING]),
    "auto, nobody there": ("auto", nobody, [0, IDLE, 2 * IDLE, 3 * IDLE, 4 * IDLE]),
}


@pytest.mark.parametrize(("every", "persons_at", "asked"), SCHEDULES.values(), ids=SCHEDULES)
def test_the_detector_looks_on_its_schedule(every, persons_at, asked):
    assert detections(made(detect_every=every), 23, persons_at) == asked


def test_the_detector_looks_at_once_when_somebody_is_lost():
    def persons_at(number):
        left = person(300, 100) if number < 12 else scored(person(300, 100), 0.0)
        return [person(100, 100), left][: 2 if number < 13 else 1]

    follower = made(detect_every=60)
    asked = detections(follower, 20, persons_at)
    assert asked == [0, 13]


@pytest.mark.parametrize("every", [60, "auto"])
def test_the_detector_looks_when_joints_run_out_of_the_frame(every):
    asked = detections(made(detect_every=every), 9, lambda number: [person(560 + 8 * number, 100)])
    assert len(asked) >= 2 and asked[1] < 8


def test_auto_looks_when_somebody_gets_worse():
    def persons_at(number):
        return [scored(person(100, 100), 1.0 if number < 4 else 0.6)]

    assert detections(made(detect_every="auto"), 10, persons_at)[1] < CEILING


def test_without_a_detector_somebody_looks_when_nobody_is_there():
    follower = made(detects=False)
    assert follower.next_boxes(SIZE_HW) is None
    assert seen(follower, [person(100, 100)]) is not None
    follower.follow(poses_of([scored(person(100, 100), 0.0)]), detected=False)
    assert follower.next_boxes(SIZE_HW) is None


# --- what a detection changes ----------------------------------------------------------------------------------------


def test_who_was_followed_well_outlasts_one_detection_that_misses_him():
    follower, one, other = made(detect_every=2), person(100, 100), person(400, 100)
    seen(follower, [one, other], frames=7)
    counts = []
    for _ in range(2):
        follower.next_boxes(SIZE_HW)
        follower._since = 9
        assert follower.next_boxes(SIZE_HW) is None
        boxes, scores = follower.chosen(one[0][None], np.float32([0.8]))
        counts.append(len(boxes))
        follower.follow(poses_of([one, other][: len(boxes)], scores), detected=True)
    assert counts == [2, 1]


def test_a_detector_that_looks_in_every_frame_is_believed():
    follower, one = made(detect_every=1), person(100, 100)
    assert seen(follower, [one], frames=7) is None
    assert len(follower.chosen(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))[0]) == 0


def test_the_most_persons_are_the_surest():
    boxes = np.float32([[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]])
    chosen, scores = most_persons(boxes, np.float32([0.5, 0.9, 0.7]), 2)
    assert chosen[:, 0].tolist() == [20, 40] and scores.tolist() == pytest.approx([0.9, 0.7])
    assert len(most_persons(boxes, np.float32([0.5, 0.9, 0.7]), None)[0]) == 3


# --- properties ------------------------------------------------------------------------------------------------------


@dataclass
class Walker:
    """Walks along its own lane, and may be out of the frame."""

    lane: int
    x: float
    speed: float
    since: int
    until: int

    def at(self, number):
        there = self.since <= number < self.until
        x = self.x + self.speed * (number - self.since)
        return person(x, self.lane * 130, 100, SHAPE) if there and -60 < x < 640 else None


walkers = st.lists(
    st.builds(
        Walker,
        lane=st.integers(0, 2),
        x=st.floats(0, 500),
        speed=st.floats(-6, 6),
        since=st.integers(0, 25),
        until=st.integers(5, 60),
    ),
    max_size=5,
    unique_by=lambda walker: walker.lane,
)


def estimated(boxes, there):
    """What a network finds in each box: the person there who fills it best, and else joints that score nothing."""
    persons = []
    for box in boxes:
        overlap = box_iou(box[None], np.stack([one[0] for one in there]))[0] if there else np.zeros(1)
        if there and overlap.max() > 0.2:
            best = there[int(overlap.argmax())]
            persons.append((box, best[1], best[2]))
        else:
            persons.append((box, np.tile(box[:2] + 1, (14, 1)).astype(np.float32), np.zeros(14, np.float32)))
    return persons


def walked(walkers, every, frames, *, misses, gaps, cut):
    """(number, walkers there, poses) of each frame, with a detector that misses and a video with empty frames."""
    follower = made(detect_every=every)
    for number in range(frames):
        there = [one for one in (walker.at(number) for walker in walkers) if one is not None]
        if number in gaps:
            there = []
        if cut is not None and number >= cut:
            there = [(one[0] + 130, one[1] + 130, one[2]) for one in there]
        handed = follower.next_boxes(SIZE_HW)
        detected = handed is None
        if detected:
            found = [one for index, one in enumerate(there) if (number, index) not in misses]
            boxes = np.stack([one[0] for one in found]) if found else np.zeros((0, 4), np.float32)
            handed = follower.chosen(boxes, np.full(len(boxes), 0.8, np.float32))
        boxes, scores = handed
        poses = follower.follow(poses_of(estimated(boxes, there), scores), detected=detected)
        yield number, there, poses, detected


@settings(max_examples=40, deadline=None)
@given(
    walkers,
    st.sampled_from([1, 3, 10, "auto"]),
    st.sets(st.tuples(st.integers(0, 60), st.integers(0, 3)), max_size=6),
    st.sets(st.integers(0, 60), max_size=8),
    st.none() | st.integers(5, 55),
)
def test_rows_and_ids_hold_together_whatever_walks_flickers_or_is_cut(walkers, every, misses, gaps, cut):
    used, last, silent = set(), set(), 0
    for _, _, poses, detected in walked(walkers, every, 60, misses=misses, gaps=gaps, cut=cut):
        ids = poses.track_ids.tolist()
        assert len(ids) == len(set(ids)) == len(poses.boxes) == len(poses.keypoints) == len(poses.box_scores)
        assert all(number > 0 for number in ids)
        assert np.isfinite(poses.boxes).all() and (poses.boxes[:, 2:] > poses.boxes[:, :2]).all()
        new = set(ids) - used
        assert not new or min(new) > max(used, default=0)  # never an old number for somebody new
        used |= new
        silent = 0 if detected else silent + 1
        assert silent < (CEILING if every == "auto" else every)
        last = set(ids)
    assert last <= used


@settings(max_examples=30, deadline=None)
@given(walkers, st.sampled_from([5, "auto"]))
def test_whoever_is_there_is_followed_without_a_gap_and_under_one_id(walkers, every):
    """Lanes apart, a detector that misses nobody: from his first frame with a row on, a walker well inside has one."""
    ids_of = {}
    for _, there, poses, _ in walked(walkers, every, 60, misses=set(), gaps=set(), cut=None):
        for one in there:
            lane = round(float(one[0][1]) / 130)
            rows = [row for row in range(len(poses)) if np.array_equal(poses.keypoints[row], one[1])]
            if not 20 < one[0][0] < 540:
                ids_of.pop(lane, None)
                continue
            if rows:
                assert ids_of.setdefault(lane, int(poses.track_ids[rows[0]])) == poses.track_ids[rows[0]]
            else:
                assert lane not in ids_of


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6) | st.none(), min_size=2, max_size=30))
def test_smoothed_joints_stay_within_what_was_found_whatever_the_times_are(times):
    follower = made(detects=False, smoothing=Smoothing())
    rng = np.random.default_rng(0)
    low, high = np.full((14, 2), np.inf), np.full((14, 2), -np.inf)
    for time_ms in times:
        follower.next_boxes(SIZE_HW)
        one = person(100 + rng.uniform(-4, 4), 100)
        low, high = np.minimum(low, one[1]), np.maximum(high, one[1])
        poses = follower.follow(poses_of([one]), detected=True, time_ms=time_ms)
        assert (poses.keypoints[0] >= low - 1e-3).all() and (poses.keypoints[0] <= high + 1e-3).all()


def test_options_that_go_with_no_video_are_refused():
    from sdk.people.following import check_following

    for wrong, message in (
        ((True, 0, None), "detect_every must be a whole number of at least 1, or 'auto'"),
        ((None, "auto", None), "needs a tracker above 1"),
        ((True, "never", None), r"got 'never'"),
        ((True, 1, 0), "max_persons must be a whole number"),
        ((None, 1, None, True), "smooth must be True, or a Smoothing, or False, and needs a tracker"),
        ((True, 1, None, 0.5), r"smooth must be .* \(got 0.5\)"),
    ):
        with pytest.raises(InputError, match=message):
            check_following(*wrong)


@pytest.mark.parametrize("time_ms", ["40", float("nan"), float("inf"), 1j, np.zeros(1)], ids=repr)
def test_what_is_no_time_is_refused(time_ms):
    from sdk.people.following import check_time

    with pytest.raises(InputError, match="time_ms must be a number of milliseconds"):
        check_time(time_ms)
    check_time(np.float32(40))

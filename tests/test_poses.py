"""`Poses`: rows by index, identity, representation, and what other programs read of them."""

import json
import pickle
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest

from sdk.errors import InputError, RowError
from sdk.poses import DEFAULTS, Poses
from sdk.skeletons import Skeleton, skeleton_by_name


def poses_of(count, ids=True, seed=0):
    rng = np.random.default_rng(seed)
    return Poses(
        keypoints=rng.uniform(0, 90, (count, 17, 2)).astype(np.float32),
        scores=rng.random((count, 17)).astype(np.float32),
        boxes=rng.uniform(0, 90, (count, 4)).astype(np.float32),
        box_scores=rng.random(count).astype(np.float32),
        skeleton=skeleton_by_name("coco17"),
        track_ids=np.arange(count) * 3 + 1 if ids else None,
        timings_ms={"total": 1.5},
    )


INDICES = {
    "first": (0, [0]),
    "last": (-1, [3]),
    "numpy number": (np.int64(2), [2]),
    "slice": (slice(1, 3), [1, 2]),
    "turned": (slice(None, None, -1), [3, 2, 1, 0]),
    "mask": (np.array([True, False, False, True]), [0, 3]),
    "list of bools": ([False, True, True, False], [1, 2]),
    "list": ([3, 0], [3, 0]),
    "nobody": ([], []),
    "no one in the mask": (np.zeros(4, bool), []),
    "beyond, as slices go": (slice(2, 9), [2, 3]),
}


@pytest.mark.parametrize(("index", "rows"), INDICES.values(), ids=INDICES)
@pytest.mark.parametrize("ids", [True, False], ids=["ids", "no ids"])
def test_an_index_gives_poses_of_those_rows(index, rows, ids):
    whole = poses_of(4, ids)
    some = whole[index]
    assert isinstance(some, Poses) and len(some) == len(rows)
    for name in ("keypoints", "scores", "boxes", "box_scores"):
        found, expected = getattr(some, name), getattr(whole, name)[rows]
        np.testing.assert_array_equal(found, expected)
        assert found.shape == (len(rows), *expected.shape[1:]) and found.dtype == np.float32
    assert (some.track_ids is None) if not ids else some.track_ids.tolist() == whole.track_ids[rows].tolist()
    assert some.skeleton is whole.skeleton and some.timings_ms == whole.timings_ms


def test_poses_of_a_call_are_those_that_the_constructor_makes():
    made = poses_of(3)
    told = {field.name: getattr(made, field.name) for field in fields(made)}
    required = {name: value for name, value in told.items() if name not in DEFAULTS}
    plain = Poses(**required)
    for quick, slow in ((Poses.of_call(**told), made), (Poses.of_call(**required), plain)):
        assert all(vars(quick)[name] is value for name, value in vars(slow).items())
        assert vars(quick).keys() == vars(slow).keys() and repr(quick) == repr(slow) and quick != slow
        again = pickle.loads(pickle.dumps(quick))
        assert repr(again) == repr(slow) and again.to_dict() == slow.to_dict()
        assert replace(quick, track_ids=None).track_ids is None and replace(quick).scores is quick.scores
        with pytest.raises(FrozenInstanceError):
            quick.scores = None


NO_ROWS = {
    "beyond": (4, r"poses\[4\]: out of 4 persons, numbered from 0"),
    "before": (-5, r"poses\[-5\]"),
    "mask of another length": (np.zeros(3, bool), "out of 4 persons"),
    "fraction": (1.5, r"poses\[1\.5\]"),
    "name": ("nose", r"poses\['nose'\]"),
    "two axes": ((0, 1), r"poses\[\(0, 1\)\]"),
    "table": (np.zeros((2, 2), int), "persons are one row each; give a number, a slice, a mask or a list"),
    "slice of words": (slice("a", "b"), r"poses\[slice\('a', 'b', None\)\]"),
    "ragged": ([[1], [2, 3]], r"poses\[\[\[1\], \[2, 3\]\]\]"),
    "nothing": (None, "persons are one row each"),
}


@pytest.mark.parametrize(("index", "message"), NO_ROWS.values(), ids=NO_ROWS)
def test_rows_that_are_not_there_are_told(index, message):
    with pytest.raises(RowError, match=message) as caught:
        poses_of(4)[index]
    assert isinstance(caught.value, IndexError) and isinstance(caught.value, InputError)


def test_two_poses_are_equal_where_they_are_the_same():
    one, other = poses_of(2), poses_of(2)
    assert one == one and one != other  # noqa: PLR0124
    assert len({one, other, one}) == 2


def test_they_unpack_and_count():
    poses = poses_of(3)
    keypoints, scores = poses
    assert keypoints is poses.keypoints and scores is poses.scores and len(poses) == 3 and not poses_of(0)


SHOWN = {
    "some": (poses_of(3), "Poses(3 persons, 17 joints, track ids [1, 4, 7])"),
    "one": (poses_of(1, ids=False), "Poses(1 person, 17 joints)"),
    "nobody": (poses_of(0), "Poses(0 persons, 17 joints, track ids [])"),
    "eight": (poses_of(8), "Poses(8 persons, 17 joints, track ids [1, 4, 7, 10, 13, 16, 19, 22])"),
    "many": (poses_of(9), "Poses(9 persons, 17 joints, track ids [1, 4, 7, 10, 13, 16, 19, 22] and more)"),
}


@pytest.mark.parametrize(("poses", "text"), SHOWN.values(), ids=SHOWN)
def test_their_representation_is_short(poses, text):
    assert repr(poses) == text


@pytest.mark.parametrize("number", [int, np.int64, np.uint16], ids=lambda kind: kind.__name__)
def test_results_are_json_whatever_kind_of_number_the_id_is(number):
    records = json.loads(json.dumps(poses_of(2).to_coco(number(7), number(1))))
    assert [(record["image_id"], record["category_id"]) for record in records] == [(7, 1)] * 2


@pytest.mark.parametrize("ids", [("door", 1), (None, 1), (7, "person"), (float("nan"), 1)], ids=str)
def test_an_id_that_is_no_number_is_refused(ids):
    with pytest.raises(InputError, match="image_id and category_id must be whole numbers, as COCO's are"):
        poses_of(1).to_coco(*ids)


def test_a_result_is_scored_by_box_and_joints():
    poses = poses_of(2)
    for row, record in enumerate(poses.to_coco(1)):
        assert record["score"] == pytest.approx(float(poses.box_scores[row] * poses.scores[row].mean()))
        triples = np.concatenate([poses.keypoints[row], poses.scores[row][:, None]], axis=1).ravel()
        assert record["keypoints"] == [round(float(value), 4) for value in triples]


def test_parts_are_views_with_a_set_of_their_own():
    whole = skeleton_by_name("wholebody133")
    rng = np.random.default_rng(0)
    keypoints, scores = rng.normal(size=(3, 133, 2)).astype(np.float32), rng.random((3, 133)).astype(np.float32)
    boxes = np.tile(np.array([[0, 0, 9, 9]], np.float32), (3, 1))
    poses = Poses(keypoints, scores, boxes, np.ones(3, np.float32), whole, np.arange(3))
    assert list(poses.groups) == ["body", "foot", "face", "left_hand", "right_hand"]
    hand = poses.part("left_hand")
    assert hand.skeleton.name == "wholebody133.left_hand"
    assert np.shares_memory(hand.keypoints, keypoints) and np.shares_memory(hand.scores, scores)
    np.testing.assert_array_equal(hand.keypoints, keypoints[:, 91:112])
    np.testing.assert_array_equal(hand.track_ids, [0, 1, 2])
    np.testing.assert_array_equal(poses.groups["face"][1].scores, scores[1:2, 23:91])
    assert hand.to_coco(1)[0]["keypoints"][:2] == pytest.approx(keypoints[0, 91], abs=1e-3)
    assert poses[[]].part("face").keypoints.shape == (0, 68, 2)


def test_scattered_groups_are_taken_too():
    scattered = Skeleton("three", ("a", "b", "c"), (), (), (0.1,) * 3, groups={"ends": (2, 0)})
    poses = Poses(
        np.arange(6, dtype=np.float32).reshape(1, 3, 2), np.ones((1, 3), np.float32), np.zeros((1, 4), np.float32),
        np.ones(1, np.float32), scattered,
    )  # fmt: skip
    np.testing.assert_array_equal(poses.part("ends").keypoints, [[[4, 5], [0, 1]]])


def test_a_group_that_is_not_there():
    with pytest.raises(InputError, match="skeleton 'coco17' has no group 'tail'; it has none"):
        Poses(
            np.zeros((1, 17, 2), np.float32), np.ones((1, 17), np.float32), np.zeros((1, 4), np.float32),
            np.ones(1, np.float32), skeleton_by_name("coco17"),
        ).part("tail")  # fmt: skip

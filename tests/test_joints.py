"""Joints are matched by name, by one rule, whoever reads the file: verification, training, calibration."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from sdk.coco_joints import UNNAMED, CocoJoints
from sdk.errors import DatasetError
from sdk.evaluate.datasets.dataset import DatasetOptions
from sdk.evaluate.datasets.loading import load_dataset
from sdk.joints import match_joints
from sdk.recipe import recipe_by_name
from sdk.skeletons import SKELETONS, Skeleton

JOINTS = SKELETONS["crowdpose14"].joints
ORDER = np.random.default_rng(0).permutation(14).tolist()
RECIPE = recipe_by_name("body14-nano-128x128")
HEADED = Skeleton("headed", ("head", "neck", "top_head"), (), (), (0.1,) * 3)

MATCHES = {  # listed, wanted -> places
    "as it stands": (("nose", "neck"), ("nose", "neck"), (0, 1)),
    "another order, more listed": (("tail", "neck", "nose"), ("nose", "neck"), (2, 1)),
    "words and cases": (("Left Knee", "right-knee", "NOSE"), ("nose", "right_knee", "left_knee"), (2, 1, 0)),
    "camels, letters": (("leftAnkle", "ankle.R", "L_hip"), ("right_ankle", "left_ankle", "left_hip"), (1, 0, 2)),
    "CrowdPose's head": (("head", "neck"), ("neck", "top_head"), (1, 0)),
    "a head beside the top of the head": (("top_head", "head"), ("head", "top_head"), (1, 0)),
    "a head that is wanted is not the top of the head": (("head",), ("top_head", "head"), (None, 0)),
    "a name twice is taken once": (("nose", "nose"), ("nose",), (0,)),
    "one listed joint serves one": (("Left-Eye",), ("left_eye", "lefteye"), (0, None)),
    "nothing of it": (("a", "b"), ("nose",), (None,)),
}  # fmt: skip


@pytest.mark.parametrize(("listed", "wanted", "places"), MATCHES.values(), ids=MATCHES)
def test_names_are_matched(listed, wanted, places):
    matched = match_joints(listed, wanted)
    assert matched.places == places
    assert matched.missing == tuple(name for name, place in zip(wanted, places, strict=True) if place is None)
    assert set(matched.extra) == {name for place, name in enumerate(listed) if place not in places}


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_every_joint_set_is_known_in_another_spelling(skeleton):
    others = [name.replace("_", "-").upper() for name in reversed(skeleton.joints)]
    assert match_joints(others, skeleton.joints).places == tuple(reversed(range(len(others))))


def document(names, order=ORDER, **category):
    """One person whose joint k lies at (k, 2 k), its keypoints in `order`."""
    points = [value for k in order for value in (20.0 + k, 20.0 + 2 * k, 2)]
    record = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 900.0, "bbox": [10, 10, 40, 60]}
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],
        "annotations": [{**record, "keypoints": points}],
        "categories": [{"id": 1, "name": "person", "keypoints": names, **category}],
    }


def verified(path):
    dataset = load_dataset(DatasetOptions("custom", path, path.parent), RECIPE)
    return dataset.truth.keypoints[0], " ".join(dataset.notes)


def trained(path):
    from sdk.training.labels import annotations_from_coco

    return annotations_from_coco(path, path.parent, RECIPE.skeleton.joints)[0].keypoints, None


def calibrated(path):
    pytest.importorskip("onnx")
    from sdk.toolchain.crops import people_from_data

    return people_from_data(path, None, RECIPE)[0].keypoints, None


VERBS = {"verify": verified, "train": trained, "calibrate": calibrated}
TRUTH = np.array([(20 + k, 20 + 2 * k, 2) for k in range(14)], np.float32)
FILES = {  # the joints that a file lists, what its keypoints' order is, what is told
    "the engine's order": (list(JOINTS), range(14), None),
    "another order": ([JOINTS[k] for k in ORDER], ORDER, None),
    "spelled apart": ([JOINTS[k].replace("_", " ").title() for k in ORDER], ORDER, "spelled differently: 'Left"),
    "CrowdPose's": ([*JOINTS[:12], "head", "neck"], range(14), "'head' for 'top_head'"),
    "no names": ([], range(14), UNNAMED),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("names", "order", "told"), FILES.values(), ids=FILES)
def test_every_verb_matches_them_alike(verb, names, order, told, tmp_path, caplog):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "a.json").write_text(json.dumps(document(names, order)))
    with caplog.at_level(logging.WARNING, "sdk"):
        keypoints, notes = VERBS[verb](tmp_path / "a.json")
    np.testing.assert_array_equal(keypoints, TRUTH)
    said = caplog.text if notes is None else notes
    assert told in said if told else not said


@pytest.mark.parametrize("verb", ["verify", "train"])
def test_a_joint_that_is_not_there_is_named(verb, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "a.json").write_text(json.dumps(document([*JOINTS[:13], "chin"], range(14))))
    with pytest.raises(DatasetError, match=r"lacks joint 'neck' of the recipe's skeleton \(it lists left_sh.* chin"):
        VERBS[verb](tmp_path / "a.json")


@pytest.mark.parametrize(
    "wanted", [("neck", "nose", "left_hip"), ("left_hip", "neck")], ids=["one lacks", "none lacks"]
)
def test_a_file_may_lack_joints_where_that_is_asked_for(wanted, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "a.json").write_text(json.dumps(document(list(JOINTS), range(14))))
    recipe = replace(RECIPE, skeleton=Skeleton("other", wanted, (), (), (0.1,) * len(wanted)))
    dataset = load_dataset(DatasetOptions("custom", tmp_path / "a.json", tmp_path, partly=True), recipe)
    for name, found in zip(wanted, dataset.truth.keypoints[0], strict=True):
        np.testing.assert_array_equal(found, TRUTH[JOINTS.index(name)] if name in JOINTS else 0)
    told = [note for note in dataset.notes if "not annotated" in note]
    assert told == (["every figure is of 2 joints; not annotated: nose"] if "nose" in wanted else [])


def test_calibration_goes_on_without_them(tmp_path, caplog):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "a.json").write_text(json.dumps(document(["chin"], [0])))
    with caplog.at_level(logging.WARNING, "sdk"):
        assert calibrated(tmp_path / "a.json")[0] is None
    assert "lacks joint 'left_shoulder' and 13 more" in caplog.text and "its boxes serve" in caplog.text


def test_a_skeleton_with_a_head_keeps_it(tmp_path):
    """A file's 'head' is the skeleton's own where it has one, in whatever order."""
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "a.json").write_text(json.dumps(document(["top_head", "neck", "head"], [0, 1, 2])))
    recipe = replace(RECIPE, skeleton=HEADED)
    truth = load_dataset(DatasetOptions("custom", tmp_path / "a.json", tmp_path), recipe).truth
    np.testing.assert_array_equal(truth.keypoints[0], TRUTH[[2, 1, 0]])


def test_each_category_has_its_own_order():
    both = document(list(JOINTS), range(14))
    both["categories"].append({"id": 2, "name": "person", "keypoints": list(JOINTS[::-1])})
    joints = CocoJoints.of_file(both, JOINTS)
    from sdk.coco import record_from

    points = both["annotations"][0]["keypoints"]
    first, second, none, dog = (record_from({"category_id": c, "keypoints": points}) for c in (1, 2, None, 9))
    np.testing.assert_array_equal(joints.of_record(first), TRUTH)
    np.testing.assert_array_equal(joints.of_record(second), TRUTH[::-1])
    assert not joints.knows(none) and not joints.knows(dog) and joints.of_record(dog) is None

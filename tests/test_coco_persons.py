"""Which records are persons', of which picture, and in which units: one rule, and every verb keeps it."""

import json

import numpy as np
import pytest

from sdk.box_units import beyond_picture, unit_problem
from sdk.coco import record_from
from sdk.coco_joints import CocoJoints
from sdk.coco_persons import of_pictures, parted_problem, persons_among
from sdk.errors import CalibrationError, DatasetError


def records(*categories, **more):
    return [
        record_from({"category_id": category, "image_id": 1, "bbox": [1, 2, 30, 40], **more}) for category in categories
    ]


PERSONS = {  # categories of records, persons -> places of persons, words of remarks
    "of COCO": ((1, 3, 1), {1}, [0, 2], ["1 record of categories that are no person's left out (there are 1, 3)"]),
    "only 0": ((0, 0), {1}, [0, 1], ["the only category is 0: its records are taken for persons"]),
    "from 0": (
        (0, 1, 79),
        {1},
        [0],
        ["categories count from 0: its records", "2 records of categories that are no person's"],
    ),
    "0 is the file's own": ((0, 1), {0}, [0], ["1 record of categories"]),
    "none told": ((0, 7), frozenset(), [0, 1], []),
    "none said": ((None, None), {1}, [0, 1], []),
    "nothing": ((), {1}, [], []),
}


@pytest.mark.parametrize(("categories", "persons", "expected", "words"), PERSONS.values(), ids=PERSONS)
def test_which_records_are_persons(categories, persons, expected, words):
    found, remarks = persons_among(records(*categories), persons)
    assert [place for place, record in enumerate(found) if record is not None] == expected
    assert len(remarks) == len(words) and all(word in remark for word, remark in zip(words, remarks, strict=True))


def test_persons_of_category_0_get_the_category_of_the_file():
    found, _ = persons_among(records(0), {4})
    assert found[0].category == 4


NAMES = {1: "day/000785.jpg", 2: "day/night-3.png", 3: "000009.jpg"}
PICTURES = {  # image ids as written -> image ids as found, and whether a remark is made
    "ids": ([1, 2, 3], [1, 2, 3], False),
    "ids as texts": (["1", "02", 3.0], [1, 2, 3], False),
    "numbers of stems": ([785, 9], [1, 3], True),
    "stems": (["000785", "night-3"], [1, 2], True),
    "mostly ids": ([1, 2, 785], [1, 2, 785], False),
    "neither": ([50, "dawn"], [50, None], False),
}


@pytest.mark.parametrize(("written", "expected", "told"), PICTURES.values(), ids=PICTURES)
def test_which_picture_a_record_is_of(written, expected, told):
    found, remarks = of_pictures([record_from({"image_id": value}) for value in written], NAMES)
    assert [record.image_id for record in found] == expected and bool(remarks) == told


def test_stems_that_two_pictures_have_name_none():
    found, _ = of_pictures([record_from({"image_id": "a"})], {1: "x/a.jpg", 2: "y/a.jpg"})
    assert found[0].image_id is None


PIXELS = np.array([[10, 20, 60, 120], [100, 30, 180, 200], [200, 50, 310, 230]], float)  # in pictures of 320 x 240
SIZES = np.full((3, 2), (320.0, 240.0))
POINTS = np.stack([PIXELS[:, None, :2] + 5, PIXELS[:, None, 2:] - 5], axis=1)[:, :, 0]
SEEN = np.concatenate([POINTS, np.full((3, 2, 1), 2.0)], axis=2)
CORNERS = PIXELS + PIXELS[:, [0, 1, 0, 1]] * [0, 0, 1, 1]  # x1 y1 x2 y2 taken for x y width height

UNITS = {
    "pixels": (PIXELS, SIZES, SEEN, None),
    "pixels, nothing else known": (PIXELS, None, None, None),
    "sizes not known": (CORNERS, np.full((3, 2), np.inf), None, None),
    "shares": (PIXELS / [320, 240, 320, 240], SIZES, SEEN, "most boxes are under a pixel .* shares of the picture"),
    "corners": (
        CORNERS[1:],
        SIZES[1:],
        SEEN[1:],
        "boxes leave their picture .* where x, y, width, height is meant",
    ),
    "one odd box": (np.array([*PIXELS, [0, 0, 0.5, 0.5]]), None, None, None),
    "joints elsewhere": (PIXELS, SIZES, SEEN * [0.003, 0.003, 1], "do not hold the joints annotated with them"),
    "no joint seen": (PIXELS, SIZES, SEEN * [1, 1, 0], None),
    "none": (np.zeros((0, 4)), np.zeros((0, 2)), np.zeros((0, 2, 3)), None),
}


@pytest.mark.parametrize(("boxes", "sizes", "points", "words"), UNITS.values(), ids=UNITS)
def test_units_are_told_by_what_most_boxes_do(boxes, sizes, points, words):
    problem = unit_problem(boxes, sizes, points)
    if words is None:
        assert problem is None
    else:
        with pytest.raises(ValueError, match=words):
            raise ValueError(problem)


def test_a_box_may_reach_a_little_beyond_its_picture():
    assert beyond_picture(
        np.array([[0, 0, 104, 50], [0, 0, 120, 50], [0, 0, 50, 90]]), np.full((3, 2), (100, 80))
    ).tolist() == [
        False,
        True,
        True,
    ]


JOINTS = ("head", "tail")


@pytest.mark.parametrize(
    ("mine", "others", "words"),
    [
        (
            {"keypoints": [1, 2, 2]},
            {"bbox": [1, 2, 3, 4]},
            "its persons have no boxes: these stand in records of category 2",
        ),
        ({"bbox": [1, 2, 3, 4]}, {"keypoints": [1, 2, 2]}, "its persons have no keypoints: these stand in records"),
        ({"bbox": [1, 2, 3, 4], "keypoints": [1, 2, 2]}, {"bbox": [1, 2, 3, 4]}, None),
        ({}, {}, None),
    ],
    ids=["boxes elsewhere", "joints elsewhere", "together", "nothing"],
)
def test_boxes_and_joints_of_different_categories_are_told(mine, others, words):
    document = {"categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "pose"}]}
    entries = [record_from({"category_id": 1, **mine}), record_from({"category_id": 2, **others})]
    problem = parted_problem(document, entries)
    assert problem is None if words is None else words in problem


TWO_BOXES = [{"category_id": 0, "image_id": 5, "bbox": box} for box in ([0, 0, 50, 80], [60, 0, 40, 80])]
MIXED = {  # joints of the record beside them -> whether they are of several persons
    "of both": ([10, 10, 2, 80, 20, 2, 20, 60, 2], True),
    "of one": ([10, 10, 2, 20, 20, 2, 20, 60, 2], False),
    "of one, and one unseen": ([10, 10, 2, 80, 20, 0, 20, 60, 2], False),
    "of neither": ([10, 90, 2, 80, 95, 2, 20, 99, 2], False),
    "none": ([], False),
}


@pytest.mark.parametrize(("points", "mixed"), MIXED.values(), ids=MIXED)
def test_one_record_with_the_joints_of_several_persons_is_told(points, mixed):
    joints = {"id": 7, "category_id": 1, "image_id": 5, "bbox": [10, 10, 70, 50], "keypoints": points}
    document = {"categories": [{"id": 0, "name": "human"}, {"id": 1, "name": "default", "keypoints": ["a", "b", "c"]}]}
    problem = parted_problem(document, [record_from(entry) for entry in (*TWO_BOXES, joints)])
    assert mixed == (
        problem is not None and problem.startswith("annotation 7 mixes joints of several persons: they lie in 2")
    )


def test_joints_listed_in_another_category_than_the_persons_are_told():
    document = {"categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "pose", "keypoints": list(JOINTS)}]}
    problem = CocoJoints.of_file(document, JOINTS).problem
    assert problem.startswith("lists its joints in category 2, which is not that of its persons' boxes")


def test_joints_of_several_persons_in_one_record_are_told():
    joints = CocoJoints.of_file({"categories": [{"id": 1, "name": "person", "keypoints": list(JOINTS)}]}, JOINTS)
    several, odd = (record_from({"category_id": 1, "keypoints": [1.0] * count}) for count in (12, 9))
    assert joints.of_record(several) is None
    assert joints.why_none(several, "malformed") == "joints of several persons in one record"
    assert joints.why_none(odd, "malformed") == "malformed"


# One file of annotations, spoiled in one way, and the words with which each verb refuses it.

BOX, WHOLE = [20, 10, 40, 60], [[30 + 2 * k, 20 + 3 * k, 2] for k in range(14)]


def document(joints, **change):
    record = {"category_id": 1, "iscrowd": 0, "area": 0, "bbox": BOX, "keypoints": [v for p in WHOLE for v in p]}
    images = [{"id": n, "file_name": f"{n}.png", "width": 100, "height": 80} for n in (1, 2)]
    annotations = [{**record, "id": n, "image_id": n, **change} for n in (1, 2)]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": joints}],
    }


def verify(path):
    from sdk.evaluate.datasets.dataset import DatasetOptions
    from sdk.evaluate.datasets.loading import load_dataset
    from tests.support.engines import SMALL

    return load_dataset(DatasetOptions("custom", path, path.parent), SMALL)


def train(path):
    from sdk.training.labels import annotations_from_coco
    from tests.support.engines import SMALL

    return annotations_from_coco(path, path.parent, SMALL.skeleton.joints)


def calibrate(path):
    pytest.importorskip("sdk._native")
    from sdk.toolchain.crops import people_from_data
    from tests.support.engines import SMALL

    return people_from_data(path, None, SMALL)


VERBS = {"verify": (verify, DatasetError), "train": (train, DatasetError), "calibrate": (calibrate, CalibrationError)}
SPOILED = {  # change of each record -> words of the refusal, or None where the file is taken
    "as it should be": ({}, None),
    "area 0": ({"area": 0}, None),
    "numbers as texts": ({"category_id": "1"}, None),
    "numbers as decimals": ({"category_id": 1.0}, None),
    "category 0": ({"category_id": 0}, None),
    "shares": ({"bbox": [0.2, 0.1, 0.4, 0.6]}, "most boxes are under a pixel"),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("case", SPOILED)
def test_every_verb_takes_or_refuses_a_file_by_the_same_rule(tmp_path, verb, case):
    cv2 = pytest.importorskip("cv2")
    from tests.support.engines import SMALL

    change, words = SPOILED[case]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document(list(SMALL.skeleton.joints), **change)))
    for number in (1, 2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((80, 100, 3), np.uint8))
    read, error = VERBS[verb]
    if words is None:
        assert len(read(path)) == 2
    else:
        with pytest.raises(error, match=words):
            read(path)


@pytest.mark.parametrize("verb", VERBS)
def test_area_0_is_a_missing_area_for_every_verb(tmp_path, verb):
    cv2 = pytest.importorskip("cv2")
    from tests.support.engines import SMALL

    areas = []
    for area in (0, None):
        path = tmp_path / "a.json"
        path.write_text(json.dumps(document(list(SMALL.skeleton.joints), area=area)))
        for number in (1, 2):
            cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((80, 100, 3), np.uint8))
        found = VERBS[verb][0](path)
        areas.append(
            found.truth.areas_px2.tolist()
            if verb == "verify"
            else [vars(p).get("area_px2", vars(p).get("area_px")) for p in found]
        )
    assert areas[0] == areas[1] == [pytest.approx(0.53 * 40 * 60)] * 2

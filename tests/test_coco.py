"""COCO's files: what is refused in words, and what a record says that says it badly."""

import json

import pytest

from sdk.coco import (
    image_from,
    image_names,
    person_categories,
    record_from,
    records_of,
    result_tables,
)
from sdk.errors import DatasetError
from sdk.reading import json_from_file

GOOD = {"id": 5, "image_id": 7, "category_id": 1, "bbox": [1, 2, 30, 40], "area": 9, "keypoints": [1, 2, 2]}


def test_a_record_says_what_it_says():
    record = record_from({**GOOD, "score": 0.5, "iscrowd": 1})
    assert (record.identity, record.image_id, record.category, record.crowd) == (5, 7, 1, True)
    assert record.box_xywh == (1, 2, 30, 40) and record.box_xyxy == (1, 2, 31, 42) and record.has_area
    assert (record.area_px2, record.score, record.keypoints) == (9, 0.5, (1, 2, 2))


NOT_SAID = {  # a record's key and value -> the field that is then None
    "area-null": ("area", None, "area_px2"),
    "area-text": ("area", "big", "area_px2"),
    "area-nan": ("area", float("nan"), "area_px2"),
    "box-null": ("bbox", None, "box_xywh"),
    "box-of-texts": ("bbox", ["a", 2, 3, 4], "box_xywh"),
    "box-of-three": ("bbox", [1, 2, 3], "box_xywh"),
    "box-infinite": ("bbox", [1, 2, float("inf"), 4], "box_xyxy"),
    "box-beyond-floats": ("bbox", [1, 2, 10**400, 4], "box_xyxy"),
    "box-of-truths": ("bbox", [True, 2, 3, 4], "box_xywh"),
    "keypoints-text": ("keypoints", "x", "keypoints"),
    "keypoints-not-in-threes": ("keypoints", [1, 2], "keypoints"),
    "keypoints-nested": ("keypoints", [[1, 2, 2]], "keypoints"),
    "area-of-nothing": ("area", 0, "area_px2"),
    "area-below-nothing": ("area", -3.5, "area_px2"),
    "image-text": ("image_id", "seven", "image_id"),
    "image-half": ("image_id", 7.5, "image_id"),
    "image-not-finite": ("image_id", float("inf"), "image_id"),
    "image-true": ("image_id", True, "image_id"),
    "image-of-other-digits": ("image_id", "\u0667", "image_id"),
    "category-text": ("category_id", "person", "category"),
    "image-a-list": ("image_id", [7], "image_id"),
    "category-a-list": ("category_id", [1], "category"),
    "id-missing": ("id", None, "identity"),
    "score-null": ("score", None, "score"),
}


@pytest.mark.parametrize("case", NOT_SAID)
def test_what_the_format_does_not_allow_is_not_said(case):
    key, value, field = NOT_SAID[case]
    assert getattr(record_from({**GOOD, key: value}), field) is None


@pytest.mark.parametrize("written", [7, 7.0, "7", "007"], ids=repr)
def test_whole_numbers_are_taken_as_tools_write_them(written):
    record = record_from({**GOOD, "id": written, "image_id": written, "category_id": written})
    assert (record.identity, record.image_id, record.category) == (7, 7, 7)
    assert image_from({"id": written, "file_name": "a.jpg", "width": written, "height": 8.0}).size_wh == (7, 8)


PERSONS = {  # categories -> ids of persons
    "by-name": ([{"id": 4, "name": "person"}, {"id": 9, "name": "dog", "keypoints": ["tail"]}], {4}),
    "by-joints": ([{"id": 3, "name": "body", "keypoints": ["nose"]}, {"id": 9, "name": "chair"}], {3}),
    "of-a-list-id": ([{"id": [1], "name": "person", "keypoints": 5}], set()),
    "without-id": ([{"name": "person"}], set()),
    "none": ([], set()),
    "no-list": (None, set()),
    "of-numbers": ([1, 2], set()),
}


@pytest.mark.parametrize("case", PERSONS)
def test_persons_are_told_by_name_else_by_joints(case):
    categories, expected = PERSONS[case]
    assert person_categories({"categories": categories}) == expected


def test_a_record_is_a_person_by_its_category():
    assert record_from({"category_id": 4}).is_person({4})
    assert not record_from({"category_id": 1}).is_person({4})
    assert record_from({}).is_person({4}) and record_from({"category_id": 9}).is_person(frozenset())


def test_images_have_an_id_and_a_name():
    image = image_from({"id": 3, "file_name": "a.jpg", "width": 4, "height": 2, "crowdIndex": 0.5})
    assert (image.identity, image.file_name, image.size_wh, image.crowd_index) == (3, "a.jpg", (4, 2), 0.5)
    assert image_from({"id": 3, "file_name": "a.jpg", "width": 0, "height": 2}).size_wh is None
    assert image_from({"id": "c", "file_name": "a.jpg"}) is None and image_from({"id": 3, "file_name": ""}) is None


REFUSED = {
    "no-file": (None, lambda d, p: d, "the file '.*' cannot be read \\(No such file"),
    "not-json": ("{", lambda d, p: d, "the file '.*' is not JSON"),
    "not-text": (b"\xff\xfe\x00", lambda d, p: d, "the file '.*' is not JSON"),
    "too-deep": ("[" * 100_000, lambda d, p: d, "the file '.*' nests tables or lists deeper than 64"),
    "a-list": (
        [],
        lambda d, p: records_of(d, p, DatasetError),
        "'annotations' must be a list of tables",
    ),
    "of-numbers": (
        {"annotations": [5]},
        lambda d, p: records_of(d, p, DatasetError),
        "'annotations' must be a list of tables",
    ),
    "image-without-name": (
        {"images": [{"id": 1, "file_name": "a"}, {"id": 2}]},
        lambda d, p: image_names(d, p, DatasetError),
        r"images\[1\] must have .* 'file_name' \(got 2, None\)",
    ),
    "results-a-table": ({}, lambda d, p: result_tables(d, p, DatasetError), "detections must be a list of tables"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_coco_file_is_refused(tmp_path, case):
    content, read, message = REFUSED[case]
    path = tmp_path / "file.json"
    if content is not None:
        data = content if isinstance(content, (str, bytes)) else json.dumps(content)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(DatasetError, match=message):
        read(json_from_file(path, "the file", DatasetError), path)

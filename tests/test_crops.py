"""The crops that a calibration is made on: whose they are, how they are drawn, and data that has none."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("onnx")

from sdk.errors import CalibrationError
from sdk.toolchain.calibrate import CalibrateOptions, calibrate
from sdk.toolchain.crops import CropSet, people_from_data
from tests.support.int8 import tiny_graph, tiny_recipe
from tests.support.pictures import turned_jpeg, vast_png

pytestmark = [pytest.mark.torch, pytest.mark.native]
RECIPE = tiny_recipe()


def test_crops_are_those_of_the_run_time_op(people_file, people_crops):
    import cv2

    from sdk import ops
    from sdk.geometry import crop_affines

    batch = next(people_crops.batches(3))
    for person, found in zip(batch.people, batch.inputs, strict=True):
        affines = crop_affines(np.array([person.box_xyxy], np.float32), RECIPE.input.size_hw, 1.25)
        frame = cv2.imread(str(person.image))
        np.testing.assert_array_equal(
            found, ops.crop(frame, affines, (32, 32), mean=RECIPE.input.mean, std=RECIPE.input.std)[0]
        )


def test_drawing_is_seeded_and_without_repetition(people_crops):
    people = list(people_crops.people)
    again = CropSet.drawn(people, RECIPE, count=10, seed=4)
    assert again.people == CropSet.drawn(people, RECIPE, count=10, seed=4).people
    assert again.people != CropSet.drawn(people, RECIPE, count=10, seed=5).people
    assert len({person.image for person in again.people}) == 10


def test_jitter_moves_boxes_the_same_way_in_any_batch(people_crops):
    moved = replace(people_crops, jitter=0.1)
    by_one = np.concatenate([part.affines for part in moved.batches(1)])
    np.testing.assert_array_equal(by_one, np.concatenate([part.affines for part in moved.batches(7)]))
    assert np.abs(by_one - np.concatenate([part.affines for part in people_crops.batches(7)])).max() > 0


def test_jitter_is_the_persons_own_in_any_set(people_crops):
    moved = replace(people_crops, jitter=0.1)
    whole = np.concatenate([part.affines for part in moved.batches(8)])
    some = np.concatenate([part.affines for part in moved.some([11, 4]).batches(8)])
    np.testing.assert_array_equal(some, whole[[11, 4]])
    plain = np.concatenate([part.affines for part in people_crops.batches(8)])
    assert len(np.unique(whole[:, 0, 0] / plain[:, 0, 0])) == len(whole)  # each moved in its own way


def test_a_folder_of_photographs_needs_no_annotations(people_file):
    people = people_from_data(people_file.parent, None, RECIPE)
    assert len(people) == 20
    assert people[0].box_xyxy == (0.0, 0.0, 70.0, 90.0)


def test_boxes_of_a_detector_replace_the_annotated(people_file, tmp_path):
    detections = tmp_path / "detections.json"
    person = {"image_id": 3, "bbox": [1, 2, 30, 40], "score": 0.9, "category_id": 1}
    others = [{**person, "score": 0.29}, {**person, "category_id": 62}, {**person, "image_id": 4, "score": 0.3}]
    detections.write_text(json.dumps([person, *others]))
    people = people_from_data(people_file, detections, RECIPE)
    assert [(p.image.name, p.box_xyxy) for p in people] == [(f"{n}.png", (1.0, 2.0, 31.0, 42.0)) for n in (3, 4)]


def with_annotations(data, tmp_path, change):
    document = json.loads(data.read_text())
    for annotation in document["annotations"]:
        change(annotation)
    for name in data.parent.glob("*.png"):
        (tmp_path / name.name).write_bytes(name.read_bytes())
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(document))
    return path


NO_PERSON = [
    (lambda a: a.update(bbox=[1, 1, 0, 5]), "20 with a box without area"),
    (lambda a: a.update(bbox=None), "20 with no box"),
    (lambda a: a.update(iscrowd=1), "20 with a crowd region"),
    (lambda a: a.update(image_id=999), "20 with no picture"),
    (lambda a: a.update(bbox=["a", 2, 3, 4]), "20 with no box"),
    (lambda a: a.update(image_id=[1]), "20 with no picture"),
    (lambda a: a.update(score=0.001), "20 with a score below 0.3"),
]


@pytest.mark.parametrize(("change", "told"), NO_PERSON, ids=[told for _, told in NO_PERSON])
def test_data_without_a_usable_person_is_refused(people_file, tmp_path, change, told):
    with pytest.raises(CalibrationError, match=f"has no usable person \\({told}\\)"):
        people_from_data(with_annotations(people_file, tmp_path, change), None, RECIPE)


def test_pictures_that_lie_elsewhere_are_named_or_given(people_file, tmp_path):
    """COCO's own layout: annotations/train.json beside train2017/."""
    annotations, pictures = tmp_path / "annotations", tmp_path / "train2017"
    annotations.mkdir()
    pictures.mkdir()
    path = annotations / "train.json"
    path.write_text(people_file.read_text())
    for name in people_file.parent.glob("*.png"):
        (pictures / name.name).write_bytes(name.read_bytes())
    with pytest.raises(
        CalibrationError, match=r"20 with no picture in '.*annotations' or '.*images' or '.*train'.*--pic"
    ):
        people_from_data(path, None, RECIPE)
    assert len(people_from_data(path, None, RECIPE, pictures)) == 20


def test_persons_are_those_of_the_files_person_category(people_file, tmp_path):
    path = with_annotations(people_file, tmp_path, lambda a: a.update(category_id=4 if a["image_id"] == 3 else 62))
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "categories": [{"id": 4, "name": "person"}, {"id": 62, "name": "chair"}]}))
    assert [person.image.name for person in people_from_data(path, None, RECIPE)] == ["3.png"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("images", 5, "key 'images' must be a list of tables"),
        ("images", [5], "key 'images' must be a list of tables"),
        ("images", [{"id": 1}], r"images\[0\] must have a whole number 'id' and a text 'file_name' \(got 1, None\)"),
        ("annotations", None, "key 'annotations' must be a list of tables"),
        ("annotations", [5], "key 'annotations' must be a list of tables"),
        ("annotations", [{}], "no usable person \\(1 with no box\\)"),
    ],
)
def test_a_file_that_is_no_coco_file_is_refused(people_file, tmp_path, key, value, message):
    path = with_annotations(people_file, tmp_path, lambda a: None)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(CalibrationError, match=message):
        people_from_data(path, None, RECIPE)


def test_unusable_areas_and_keypoints_leave_a_box(people_file, tmp_path):
    path = with_annotations(people_file, tmp_path, lambda a: a.update(area=None, keypoints="x", bbox=[1, 2, 30, 40]))
    person = people_from_data(path, None, RECIPE)[0]
    assert person.keypoints is None and person.area_px2 is None
    path = with_annotations(people_file, tmp_path, lambda a: a.update(area=None, bbox=[1, 2, 30, 40]))
    assert people_from_data(path, None, RECIPE)[0].area_px2 == pytest.approx(0.53 * 30 * 40)


def test_annotated_pictures_are_taken_as_stored_and_whole_ones_as_shown(tmp_path):
    stored = np.full((60, 90, 3), 20, np.uint8)  # shown 60 wide, 90 high: dark above, bright below
    stored[:, 45:] = 200
    (tmp_path / "1.jpg").write_bytes(turned_jpeg(stored))
    annotation = {"image_id": 1, "bbox": [60, 0, 30, 60], "keypoints": [1] * 42}  # right of column 60
    table = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [annotation]}
    (tmp_path / "a.json").write_text(json.dumps(table))
    [person] = people_from_data(tmp_path / "a.json", None, RECIPE)
    [batch] = CropSet.drawn([person], RECIPE, count=1).batches(1)
    assert batch.inputs[0, 0, 16, 16] > 0  # the stored picture reaches there, the turned one does not
    [whole] = people_from_data(tmp_path, None, RECIPE)
    assert whole.box_xyxy == (0.0, 0.0, 60.0, 90.0)
    [batch] = CropSet.drawn([whole], RECIPE, count=1).batches(1)
    assert batch.inputs[0, 0, 8, 16] < 0 < batch.inputs[0, 0, 24, 16]


@pytest.mark.parametrize(
    ("content", "reason"), [(b"no", "not an image"), (vast_png(), "it must be at most 16384")], ids=["text", "vast"]
)
def test_a_broken_picture_is_named(people_file, tmp_path, content, reason):
    path = with_annotations(people_file, tmp_path, lambda a: None)
    (tmp_path / "7.png").write_bytes(content)
    crops = CropSet.drawn(people_from_data(path, None, RECIPE), RECIPE, count=20)
    with pytest.raises(CalibrationError, match=rf"picture '.*7\.png' cannot be read \({reason}.*\); remove it"):
        calibrate(tiny_graph(), crops, CalibrateOptions(equalise=False))

"""COCO-format data as it comes: other joint orders, broken images, empty annotations; and strict settings."""

import json
import logging
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from sdk.errors import DatasetError, TrainingError
from sdk.training.augment import Augmentation
from sdk.training.dataset import PersonDataset
from sdk.training.label_files import LabelFile
from sdk.training.labels import annotations_from_coco
from sdk.training.settings import Settings, settings_from_file
from tests.support.pictures import turned_jpeg, vast_png
from tests.support.training import JOINTS, tiny_recipe, write_data

cv2 = pytest.importorskip("cv2")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def data(tmp_path):
    path = write_data(tmp_path, 6)
    return tmp_path, path, json.loads(path.read_text())


def rewritten(path, document):
    path.write_text(json.dumps(document))
    return path


def test_joints_are_found_by_name_in_any_order(data):
    folder, path, document = data
    before = annotations_from_coco(path, folder, tuple(JOINTS))
    order = np.random.default_rng(0).permutation(14)
    document["categories"][0]["keypoints"] = ["tail", *(JOINTS[j] for j in order)]
    for record in document["annotations"]:
        joints = np.reshape(record["keypoints"], (14, 3))[order]
        record["keypoints"] = [1.0, 2.0, 2.0, *joints.ravel().tolist()]
    after = annotations_from_coco(rewritten(path, document), folder, tuple(JOINTS))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a.keypoints, b.keypoints)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [1, 2, 0, 5]}, "no box"),
        ({"bbox": []}, "no box"),
        ({"keypoints": [0.0] * 42}, "no annotated joint"),
        ({"keypoints": [1.0] * 41}, "malformed keypoints"),
        ({"keypoints": []}, "malformed keypoints"),
        ({"keypoints": "x"}, "malformed keypoints"),
        ({"keypoints": None}, "malformed keypoints"),
        ({"bbox": None}, "no box"),
        ({"bbox": ["a", 2, 3, 4]}, "no box"),
        ({"image_id": [1]}, "unknown category or image"),
        ({"keypoints": [float("nan")] * 42}, "malformed keypoints"),
        ({"iscrowd": 1}, "crowd region"),
        ({"category_id": 9}, "unknown category or image"),
        ({"image_id": 99}, "unknown category or image"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_unusable_persons_are_counted_and_skipped(data, caplog, change, reason):
    folder, path, document = data
    document["annotations"][2].update(change)
    with caplog.at_level(logging.WARNING, "sdk"):
        usable = annotations_from_coco(rewritten(path, document), folder, tuple(JOINTS))
    assert [annotation.identity for annotation in usable] == [0, 1, 3, 4, 5]
    assert f"skipped 1 of 6 persons: {reason}" in caplog.text


def test_what_a_record_need_not_say(data):
    folder, path, document = data
    for key, value in (("area", None), ("id", "one"), ("category_id", None)):
        document["annotations"][0][key] = value
    first = annotations_from_coco(rewritten(path, document), folder, tuple(JOINTS))[0]
    assert first.identity is None
    assert first.area_px == pytest.approx(0.53 * float(np.prod(document["annotations"][0]["bbox"][2:])))


def test_only_the_persons_category_needs_the_joints(data):
    folder, path, document = data
    document["categories"].append({"id": 9, "name": "dog", "keypoints": ["tail"]})
    document["annotations"][2]["category_id"] = 9
    assert len(annotations_from_coco(rewritten(path, document), folder, tuple(JOINTS))) == 5


def test_pictures_are_taken_as_stored(data):
    folder, path, document = data
    image = document["images"][0]
    stored = cv2.imread(str(folder / image["file_name"]))
    (folder / "turned.jpg").write_bytes(turned_jpeg(stored))
    image["file_name"] = "turned.jpg"
    person = PersonDataset([LabelFile(rewritten(path, document), folder)], tiny_recipe(), exact=True).person(0)
    assert person.image.shape == stored.shape  # the whole photograph lies within reach
    assert np.abs(person.image.astype(int) - stored).mean() < 8


DAMAGES = {
    "missing": "No such file or directory",
    "empty": "the file is empty",
    "text": "not an image that OpenCV reads",
    "cut": "not an image that OpenCV reads",
    "vast": "it must be at most 16384 pixels a side",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_broken_images_are_reported_and_skipped(data, caplog, damage):
    folder, path, document = data
    image = folder / document["images"][1]["file_name"]
    if damage == "missing":
        image.unlink()
    else:
        image.write_bytes(
            {"empty": b"", "text": b"not a picture", "cut": image.read_bytes()[:60], "vast": vast_png()}[damage]
        )
    with caplog.at_level(logging.WARNING, "sdk"):
        dataset = PersonDataset([LabelFile(path, folder)], tiny_recipe())
    assert [annotation.identity for annotation in dataset.annotations] == [0, 2, 3, 4, 5]
    assert f"image '{image}' cannot be read ({DAMAGES[damage]}" in caplog.text


def test_many_broken_images_are_counted(tmp_path, caplog):
    path = write_data(tmp_path, 9)
    with caplog.at_level(logging.WARNING, "sdk"), pytest.raises(DatasetError, match="no image of the data set could"):
        PersonDataset([LabelFile(path, tmp_path / "elsewhere")], tiny_recipe())
    told = [message for message in caplog.messages if "cannot be read" in message]
    assert len(told) == 5 and "0-0.png' cannot be read (No such file or directory); skipped" in told[0]
    assert caplog.messages[-1] == "and 4 more images like these; 9 persons skipped in all"


def test_a_person_outside_the_picture_is_reported_and_skipped(data, caplog):
    folder, path, document = data
    document["annotations"][1]["bbox"] = [5000, 5000, 10, 10]
    with caplog.at_level(logging.WARNING, "sdk"):
        assert len(PersonDataset([LabelFile(rewritten(path, document), folder)], tiny_recipe())) == 5
    assert "the box of annotation 1 lies outside it" in caplog.text


def test_the_cache_changes_no_sample(data):
    folder, path, _ = data
    recipe = tiny_recipe()
    cached, uncached = (PersonDataset([LabelFile(path, folder)], recipe, cache_gib=gib) for gib in (1.0, 1e-9))
    assert len(cached._cache) == 6
    assert not uncached._cache
    for index in range(6):
        for a, b in zip(*(d.sample(index, 3, Augmentation()) for d in (cached, uncached)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_samples_depend_on_seed_epoch_and_person(data):
    folder, path, _ = data
    recipe = tiny_recipe()
    first, second = (PersonDataset([LabelFile(path, folder)], recipe, seed=seed) for seed in (0, 1))
    crops = [
        first.sample(0, 0, Augmentation()),
        first.sample(0, 1, Augmentation()),
        second.sample(0, 0, Augmentation()),
    ]
    keypoints = [sample[1] for sample in crops]
    assert (keypoints[0] != keypoints[1]).any() and (keypoints[0] != keypoints[2]).any()
    assert sorted(first.order(4).tolist()) == list(range(6))


def test_a_person_far_larger_than_the_crop_is_shrunk_without_moving_joints(tmp_path):
    path = write_data(tmp_path, 1)
    document = json.loads(path.read_text())
    image = cv2.imread(str(tmp_path / document["images"][0]["file_name"]))
    factor = 8
    cv2.imwrite(str(tmp_path / "large.png"), cv2.resize(image, None, fx=factor, fy=factor))
    record = document["annotations"][0]
    joints = np.reshape(record["keypoints"], (14, 3))
    joints[:, :2] = (joints[:, :2] + 0.5) * factor - 0.5
    x, y, w, h = record["bbox"]
    document["images"].append({"id": 1, "file_name": "large.png"})
    corner = [(value + 0.5) * factor - 0.5 for value in (x, y)]
    large = {"id": 1, "image_id": 1, "keypoints": joints.ravel().tolist(), "bbox": [*corner, w * factor, h * factor]}
    document["annotations"].append({**record, **large})
    dataset = PersonDataset([LabelFile(rewritten(path, document), tmp_path)], tiny_recipe())
    assert dataset.person(1).image.shape[0] < 2 * image.shape[0]
    small, shrunk = (dataset.sample(index, 0, Augmentation.none()) for index in (0, 1))
    np.testing.assert_allclose(shrunk[1], small[1], atol=0.6)
    assert np.abs(small[0].astype(int) - shrunk[0]).mean() < 12
    whole, part = PersonDataset([LabelFile(path, tmp_path)], tiny_recipe(), exact=True).person(1), dataset.person(1)
    assert whole.image.shape[0] > 4 * image.shape[0]
    scale = (part.box_xyxy[2] - part.box_xyxy[0]) / (whole.box_xyxy[2] - whole.box_xyxy[0])
    for large_px, small_px in ((whole.box_xyxy, part.box_xyxy), (whole.keypoints[:, :2], part.keypoints[:, :2])):
        np.testing.assert_allclose(small_px, (large_px + 0.5) * scale - 0.5, atol=1e-3)  # pixel centres, not corners


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[", "is not JSON"),
        ("{}", "key 'images' must be a list of tables"),
        ('{"images": [], "annotations": [5], "categories": []}', "key 'annotations' must be a list of tables"),
        (
            '{"images": [{"id": 1}], "annotations": []}',
            "images[0] must have a whole number 'id' and a text 'file_name'",
        ),
        ('{"images": [], "annotations": []}', "key 'categories' must be a list of tables"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}', "holds no usable person"),
        ('{"images": [], "annotations": [], "categories": []}', "holds no usable person"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "keypoints": ["nose"]}]}',
            "lacks joint 'left_shoulder' and 13 more of the recipe's skeleton (it lists nose)",
        ),
    ],
)
def test_a_file_without_persons_is_refused(tmp_path, document, message):
    path = tmp_path / "data.json"
    path.write_text(document)
    with pytest.raises(DatasetError) as error:
        annotations_from_coco(path, tmp_path, tuple(JOINTS))
    assert message in str(error.value)
    with pytest.raises(DatasetError, match="cannot be read"):
        annotations_from_coco(tmp_path / "none.json", tmp_path, tuple(JOINTS))


def test_settings_are_read_strictly(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text('epochs = 3\n[smoothing]\nkind = "laplace"\n[[stages]]\nuntil = 0.5\nheight = 64\nwidth = 64\n')
    settings = settings_from_file(path)
    assert (settings.epochs, settings.smoothing.kind, settings.stages[0].height) == (3, "laplace", 64)
    assert settings.batch == Settings().batch


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "settings.toml: unknown key 'epoch'"),
        ('epochs = "3"', "key 'epochs'"),
        ("[augmentation]\nflip = 2.0", "augmentation 'flip' is a probability"),
        ("=", "is not TOML"),
    ],
)
def test_bad_settings_are_refused(tmp_path, text, message):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(TrainingError) as error:
        settings_from_file(path)
    assert message in str(error.value)


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("bundled-settings*.toml")), ids=lambda path: path.stem)
def test_the_bundled_settings_are_settings(path):
    settings = settings_from_file(path)
    assert settings.figures == 300
    assert all(stage.height < (256 if "small" in path.stem else 128) for stage in settings.stages)


def test_the_settings_of_the_page_are_the_defaults(tmp_path):
    page = (ROOT / "docs" / "training.md").read_text()
    shown = page.split("## Settings")[1].split("```toml\n")[1].split("```")[0]
    path = tmp_path / "settings.toml"
    path.write_text(shown)
    assert settings_from_file(path) == Settings()
    keys = re.findall(r"^(\w+) =", shown.split("[augmentation]")[1], re.MULTILINE)
    assert set(keys) == {field.name for field in fields(Augmentation)}

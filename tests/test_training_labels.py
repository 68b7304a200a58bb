"""Labels of several files in one run: joints by name, weights of files, persons and joints; packs; a teacher."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from sdk.errors import DatasetError, TrainingError
from sdk.recipe import recipe_from_table
from sdk.skeletons import skeleton_by_name
from sdk.training.augment import Augmentation
from sdk.training.dataset import PersonDataset, batch_loader, raw_crop
from sdk.training.label_files import LabelFile, annotations_of_files
from sdk.training.labels import annotations_from_coco
from sdk.training.pack import annotations_from_pack, write_pack
from sdk.training.persons import person_from_picture
from tests.support.training import JOINTS, tiny_recipe, write_data

cv2 = pytest.importorskip("cv2")

COCO17 = skeleton_by_name("coco17").joints
LIMBS = [name for name in JOINTS if name in COCO17]


def recipe17():
    table = tiny_recipe().to_table()
    table["skeleton"] = skeleton_by_name("coco17").name
    return recipe_from_table(table, "tiny")


@pytest.fixture
def data(tmp_path):
    """Fourteen joints of six persons, and a network's seventeen of the same."""
    human = write_data(tmp_path, 6)
    document = json.loads(human.read_text())
    document["categories"][0]["keypoints"] = list(COCO17)
    rng = np.random.default_rng(0)
    for record in document["annotations"]:
        mine = dict(zip(JOINTS, np.reshape(record["keypoints"], (14, 3)), strict=True))
        rows = [mine.get(name, np.array([30.0, 20.0, 2.0])) for name in COCO17]
        record |= {"keypoints": np.ravel(rows).tolist(), "score": rng.uniform(0, 1, 17).round(3).tolist(), "agree": 0.5}
    network = tmp_path / "network.json"
    network.write_text(json.dumps(document))
    return tmp_path, human, network


def test_two_files_with_different_joints_make_one_set(data):
    folder, human, network = data
    files = [LabelFile(human, folder), LabelFile(network, folder, weight=0.5)]
    people = annotations_of_files(files, COCO17)
    assert len(people) == 12
    for person in people[:6]:
        known = [name for name, joint in zip(COCO17, person.keypoints, strict=True) if joint[2] > 0]
        assert sorted(known) == sorted(LIMBS)
        np.testing.assert_array_equal(person.weights, [name in LIMBS for name in COCO17])
    records = json.loads(network.read_text())["annotations"]
    for person, record in zip(people[6:], records, strict=True):
        np.testing.assert_allclose(person.weights, 0.5 * 0.5 * np.array(record["score"]), rtol=1e-6)


def test_one_file_must_have_every_joint_and_all_together_too(data):
    folder, human, _ = data
    with pytest.raises(DatasetError, match="lacks joint 'nose' and 4 more of the recipe's skeleton"):
        annotations_of_files([LabelFile(human, folder)], COCO17)
    with pytest.raises(DatasetError, match="no person has joint 'nose' annotated, nor 4 more"):
        annotations_of_files([LabelFile(human, folder)] * 2, COCO17)
    assert len(annotations_of_files([LabelFile(human, folder)], COCO17, partly=True)) == 6  # to validate on


@pytest.mark.parametrize(
    "change", [{"score": [0.5] * 16}, {"score": [2.0] * 17}, {"agree": -0.1}, {"agree": "much"}, {"score": ["x"] * 17}]
)
def test_weights_that_are_no_shares_are_counted_and_skipped(data, caplog, change):
    folder, _, network = data
    document = json.loads(network.read_text())
    document["annotations"][1] |= change
    network.write_text(json.dumps(document))
    with caplog.at_level(logging.WARNING, "sdk"):
        assert len(annotations_from_coco(network, folder, COCO17)) == 5
    assert "scores of joints, or an `agree`, that are not from 0 to 1" in caplog.text


def test_joints_outside_the_picture_count_nothing(data):
    folder, human, _ = data
    document = json.loads(human.read_text())
    for place, value in ((0, -3.0), (4, 72.0)):  # x of the first joint, y of the second; pictures are 64 x 72
        document["annotations"][0]["keypoints"][place] = value
    human.write_text(json.dumps(document))
    person = PersonDataset([LabelFile(human, folder)], tiny_recipe()).person(0)
    assert person.weights[:3].tolist() == [0, 0, 1]


# ---- packs


@pytest.fixture
def packed(data):
    pytest.importorskip("safetensors")
    folder, _, network = data
    people = annotations_from_coco(network, folder, COCO17)
    path = folder / "people.pack"
    assert write_pack(path, people, recipe17()) == 6
    return path, people


def test_a_pack_gives_the_persons_that_went_into_it(packed):
    path, people = packed
    again = annotations_from_pack(path, COCO17)
    for one, other in zip(people, again, strict=True):
        np.testing.assert_array_equal(one.weights, other.weights)
        cut, direct = person_from_picture(other, 1e9), person_from_picture(one, 1e9)
        scale = (direct.box_xyxy[2] - direct.box_xyxy[0]) / (cut.box_xyxy[2] - cut.box_xyxy[0])
        for mine, theirs in ((cut.keypoints[:, :2], direct.keypoints[:, :2]),):
            moved = (mine - cut.box_xyxy[:2]) * scale
            np.testing.assert_allclose(moved, theirs - direct.box_xyxy[:2], atol=1e-2)
        assert other.area_px == pytest.approx(one.area_px / scale**2, rel=1e-3)


def test_samples_of_a_pack_look_like_those_of_the_photographs(packed, data):
    folder, _, network = data
    path, _ = packed
    sets = [PersonDataset([LabelFile(file, folder)], recipe17()) for file in (network, path)]
    for row in range(6):
        (crop, points, *_), (packed_crop, packed_points, *_) = (s.sample(row, 0, Augmentation.none()) for s in sets)
        np.testing.assert_allclose(points, packed_points, atol=1e-3)
        assert np.abs(crop - packed_crop).mean() < 12  # WebP of a small noisy picture


def test_other_joints_are_matched_by_name(packed):
    path, _ = packed
    person = annotations_from_pack(path, tuple(JOINTS))[0]
    assert [name for name, joint in zip(JOINTS, person.keypoints, strict=True) if joint[2] > 0] == LIMBS
    with pytest.raises(DatasetError, match="has none of the recipe's joints"):
        annotations_from_pack(path, ("tail",))


@pytest.mark.parametrize("damage", ["text", "cut", "other"])
def test_what_is_no_pack_is_refused(packed, tmp_path, damage):
    from safetensors.numpy import save_file

    path, _ = packed
    bad = tmp_path / f"{damage}.pack"
    if damage == "other":
        save_file({"x": np.zeros(3, np.float32)}, bad)
    else:
        bad.write_bytes(b"text" * 9 if damage == "text" else path.read_bytes()[:-200])
    with pytest.raises(DatasetError, match="make it with `sdk train --pack`"):
        annotations_from_pack(bad, COCO17)


# ---- a teacher


@pytest.fixture(scope="module")
def teacher_engine(tmp_path_factory):
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    from sdk.manifest import open_engine
    from sdk.resources import bundled_engines

    return open_engine(bundled_engines()["body14-nano-128x128.fp32"])


@pytest.mark.parametrize("size", [64, 128])
def test_a_teacher_s_joints_lie_where_it_sees_them(teacher_engine, size):
    """Its distributions over the student's bins peak at the joints that it finds in the same crop by itself."""
    torch = pytest.importorskip("torch")
    from sdk.media.figures import rendered_figure
    from sdk.training.teacher import Teacher

    table = tiny_recipe(size=size).to_table()
    table["input"]["box_padding"] = 1.0  # the teacher's is 1.25: it sees more than the student
    student = recipe_from_table(table, "tiny")
    frame, _ = rendered_figure(np.random.default_rng(2003), (200, 200))
    affine = np.array([[180 / size, 0, 10], [0, 180 / size, 10]], np.float32)
    with Teacher(teacher_engine.folder, student, temperature=1.0, device="cpu") as teacher:
        view = teacher.view.affines(affine, (size, size))
        views = raw_crop(frame, view, teacher.view.size_hw)[None]
        x, y, weights = teacher.targets(views, (size, size))
        logits = teacher._session.run(_normalised(views, teacher._session.recipe))
    assert x.shape == y.shape == (1, 14, 2 * size)
    torch.testing.assert_close(x.sum(dim=2), torch.ones(1, 14), rtol=1e-4, atol=0)
    own = np.stack([axis[0].argmax(axis=1) / 2 for axis in logits], axis=1)  # K x 2, the teacher's crop pixels
    in_frame = own @ view[:, :2].T + view[:, 2]
    found = np.stack([axis[0].argmax(dim=1).numpy() / 2 for axis in (x, y)], axis=1) @ affine[:, :2].T + affine[:, 2]
    sure = weights[0].numpy() > 0.9
    assert sure.sum() >= 10
    np.testing.assert_allclose(found[sure], in_frame[sure], atol=1.01 * 180 / size)


def _normalised(views, recipe):
    mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in (recipe.input.mean, recipe.input.std))
    return np.ascontiguousarray((views[:, ::-1] - mean) / std, np.float32)


def test_learning_from_a_teacher_alone_lowers_its_loss(teacher_engine, data, tmp_path):
    torch = pytest.importorskip("torch")
    from sdk.training.settings import Settings
    from sdk.training.teacher import Teacher
    from sdk.training.trainer import Trainer

    folder, human, _ = data
    settings = Settings(epochs=12, batch=6, workers=0, distil=0.999, learning_rate=2e-2, validate_every=12, warmup=0.1)
    settings = replace(settings, augmentation=Augmentation.none(), temperature=1.0)
    recipe = tiny_recipe()
    people = PersonDataset([LabelFile(human, folder)], recipe)
    torch.set_num_threads(1)
    with Teacher(teacher_engine.folder, recipe, temperature=1.0, device="cpu") as teacher:
        run = Trainer(recipe, settings, people, people, tmp_path / "run", teacher=teacher)
        run.fit()
        assert run.rows[-1]["loss"] < 0.9 * run.rows[0]["loss"]
        with pytest.raises(TrainingError, match=r"made otherwise .*teacher"):
            Trainer(recipe, settings, people, people, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skeleton": "hand21"}, "has none of the joints of recipe"),
        ({"output": {"kind": "heatmap"}, "head": {"kind": "heatmap", "deconv": []}}, "both must be SimCC networks"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(teacher_engine, change, message):
    from sdk.training.teacher import Teacher

    table = tiny_recipe().to_table()
    table["network"]["head"] = change.pop("head", table["network"]["head"])
    with pytest.raises(TrainingError, match=message):
        Teacher(teacher_engine.folder, recipe_from_table(table | change, "tiny"), temperature=2.0, device="cpu")


def test_a_loader_gives_what_a_teacher_sees(data):
    pytest.importorskip("torch")
    from sdk.training.views import View

    folder, human, _ = data
    people = PersonDataset([LabelFile(human, folder)], tiny_recipe())
    view = View((64, 48), 1.0)
    batch = next(batch_loader(people, [[0, 1]], 0, Augmentation(), 0, view=view))
    assert batch.views.shape == (2, 3, 64, 48) and batch.crops.shape == (2, 3, 32, 32)
    middle = view.affines(batch.affines, (32, 32)) @ np.array([23.5, 31.5, 1], np.float32)
    np.testing.assert_allclose(middle, batch.affines @ np.array([15.5, 15.5, 1], np.float32), rtol=1e-5)

"""Collecting ranges over real crops, what is refused or warned of, and the table."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import numpy_helper

from sdk.errors import CalibrationError, InputError
from sdk.manifest import open_engine
from sdk.toolchain import calibrate as calibrating
from sdk.toolchain.calibrate import CalibrateOptions, calibrate, observe
from sdk.toolchain.crops import CropSet, people_from_data
from sdk.toolchain.fingerprint import fingerprint_of, graph_sha256
from sdk.toolchain.placement import PlacementOptions, placement_of
from sdk.toolchain.ranges import METHODS
from sdk.toolchain.table import (
    check_graph,
    table_from_file,
    write_table,
)
from tests.support.int8 import changed, tiny_graph, tiny_recipe, write_photographs
from tests.support.pictures import turned_jpeg, vast_png

pytestmark = [pytest.mark.torch, pytest.mark.native]
RECIPE = tiny_recipe()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs"), 20)


@pytest.fixture(scope="module")
def model():
    return tiny_graph()


@pytest.fixture(scope="module")
def crops(data):
    return CropSet.drawn(people_from_data(data, None, RECIPE), RECIPE, count=20)


@pytest.fixture(scope="module")
def table(model, crops):
    return calibrate(model, crops, CalibrateOptions(source="people.json"))


def test_every_tensor_that_may_be_int8_has_a_range(model, table):
    assert set(table.tensors) == set(placement_of(model, PlacementOptions(quantise_all=True)).tensors)
    for tensor in table.tensors.values():
        assert tensor.amax == tensor.candidates[tensor.method]
        assert tensor.error[tensor.method] == min(tensor.error.values())


def test_the_table_says_where_it_comes_from(model, crops, table):
    assert table.graph == fingerprint_of(model)
    assert (table.data.source, table.data.images, table.data.held_out, table.data.seed) == ("people.json", 20, 4, 0)
    assert table.data.sha256 == crops.sha256
    assert {"onnx", "onnxruntime", "simcc-edge-sdk"} <= set(table.versions)


def test_both_remedies_were_tried_and_the_better_kept(table):
    assert [trial.remedy for trial in table.trials] == ["range equalisation", "bias correction"]
    for trial in table.trials:
        assert trial.kept == (trial.applied < trial.without)
    assert bool(table.equalisation) == table.trials[0].kept
    assert table.correct_bias == table.trials[1].kept


def test_calibrating_twice_gives_the_same_table(model, crops, table):
    assert calibrate(model, crops, CalibrateOptions(source="people.json")) == table


@pytest.mark.parametrize("method", list(METHODS))
def test_a_named_method_is_used_for_every_tensor(model, crops, method):
    table = calibrate(model, crops.some(range(5)), CalibrateOptions(method=method, equalise=False))
    assert {tensor.method for tensor in table.tensors.values()} == {method}


def test_channel_means_are_those_of_the_activations(model, crops):
    seen = observe(model, crops, ("input", "block"), batch=3)
    inputs = np.concatenate([part.inputs for part in crops.batches(20)])
    means = seen["input"].channel_sum / seen["input"].values_a_channel
    np.testing.assert_allclose(means, inputs.mean(axis=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen["input"].channel_peak, np.abs(inputs).max(axis=(0, 2, 3)))


def test_an_interrupted_calibration_goes_on_where_it_was(model, crops, tmp_path, monkeypatch, caplog):
    state = tmp_path / "state.npz"
    whole = observe(model, crops, ("input", "block"), batch=1)
    reads = []
    cut = CropSet._crop

    def failing(self, person, affine):
        reads.append(person)
        if len(reads) == 12:
            raise KeyboardInterrupt
        return cut(self, person, affine)

    monkeypatch.setattr(CropSet, "_crop", failing)
    with pytest.raises(KeyboardInterrupt):
        observe(model, crops, ("input", "block"), batch=1, state=state)
    assert state.is_file()
    reads.clear()
    monkeypatch.setattr(CropSet, "_crop", lambda self, person, affine: reads.append(1) or cut(self, person, affine))
    with caplog.at_level(logging.INFO, "sdk"):
        resumed = observe(model, crops, ("input", "block"), batch=1, state=state)
    assert "resuming the calibration after 8 crops" in caplog.text
    assert len(reads) == 12
    assert not state.exists()
    for name, expected in whole.items():
        assert (resumed[name].ranging.counts == expected.ranging.counts).all()
        assert (resumed[name].judging.counts == expected.judging.counts).all()
        np.testing.assert_array_equal(resumed[name].channel_sum, expected.channel_sum)


def test_a_state_of_other_crops_is_not_resumed(model, crops, tmp_path, caplog):
    state = tmp_path / "state.npz"
    seen = observe(model, crops, ("input",), batch=4)
    calibrating._save(state, "of something else", seen, 16)
    fresh = observe(model, crops, ("input",), batch=4, state=state)
    assert "is of another calibration and is not resumed" in caplog.text
    assert fresh["input"].ranging.total == seen["input"].ranging.total


def test_few_crops_are_warned_of(table):
    assert any("calibrating with 20 crops: fewer than 500" in warning for warning in table.warnings)
    assert not any("synthetic" in warning for warning in table.warnings)


def random_picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (90, 70, 3), dtype=np.uint8)


def constant_picture(seed):
    return np.full((90, 70, 3), 40 + seed, np.uint8)


@pytest.mark.parametrize(
    ("picture", "reason"),
    [(random_picture, "neighbouring pixels hardly resemble"), (constant_picture, "100% of the crops are one colour")],
    ids=["random", "constant"],
)
def test_pictures_that_are_no_photographs_are_warned_of(model, tmp_path, picture, reason):
    people = people_from_data(write_photographs(tmp_path, 6, picture=picture), None, RECIPE)
    table = calibrate(model, CropSet.drawn(people, RECIPE, count=6), CalibrateOptions(equalise=False))
    assert any(f"look synthetic: {reason}" in warning for warning in table.warnings)


@pytest.mark.parametrize(
    ("weights", "value", "message"),
    [
        ("second.w", np.nan, r"tensor 'block' is NaN or infinite on a crop of '\d+\.png'"),
        ("first.w", np.inf, r"tensor 'first\.silu' is NaN or infinite on a crop of"),
        ("depthwise.b", -1e9, r"tensor 'depthwise\.relu' is zero on every crop: the network or its weights are dead"),
    ],
    ids=["NaN", "infinite", "dead"],
)
def test_unusable_activations_are_named(model, crops, weights, value, message):
    with pytest.raises(CalibrationError, match=message):
        calibrate(changed(model, weights, value), crops.some(range(6)), CalibrateOptions(equalise=False))


def test_every_fifth_crop_judges_and_sets_no_range(model, crops):
    """Counted over batches: crops 4 and 9 of ten, in batches of four."""
    peaks = [
        observe(model, crops.some(range(at, at + 1)), ("block",))["block"].ranging.seen_max for at in range(len(crops))
    ]
    small, large = np.argsort(peaks)[:8], np.argsort(peaks)[-2:]
    order = [*small[:4], large[1], *small[4:], large[0]]
    seen = observe(model, crops.some(int(at) for at in order), ("block",), batch=4)["block"]
    values = 8 * 16 * 16
    assert (seen.ranging.total, seen.judging.total) == (8 * values, 2 * values)
    assert seen.judging.seen_max == peaks[large[1]]
    assert seen.ranging.seen_max == peaks[small[-1]] < peaks[large[0]]


def reshaped(model, shape):
    """The model with 'block' as another shape, multiplied there by a constant: a tensor to calibrate."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weight = np.ones((8, 8) if shape[-1] == 8 else (shape[-1], 8), np.float32)
    copy.graph.initializer.extend(
        [numpy_helper.from_array(np.array(shape, np.int64), "windows"), numpy_helper.from_array(weight, "by")]
    )
    copy.graph.node.extend(
        [
            onnx.helper.make_node("Reshape", ["block", "windows"], ["parts"], "/parts"),
            onnx.helper.make_node("MatMul", ["parts", "by"], ["mixed_parts"], "/mix"),
        ]
    )
    return copy


def test_the_parts_of_a_crop_side_by_side_are_the_crops(model, crops):
    """A window or a token layout: rows of the first axis one crop after the other."""
    few = crops.some(range(6))
    whole, parts = observe(reshaped(model, (-1, 64, 8)), few, ("block", "parts"), batch=4).values()
    for kind in ("ranging", "judging"):
        np.testing.assert_array_equal(getattr(whole, kind).counts, getattr(parts, kind).counts)


def test_a_tensor_whose_first_axis_is_not_the_crop_is_named(model, crops):
    message = r"tensor 'parts': its first axis must be the crop, .*\(got 8 x 1536 x 1 for 6 crops\); export the graph"
    with pytest.raises(CalibrationError, match=message):
        observe(reshaped(model, (8, -1, 1)), crops.some(range(6)), ("block", "parts"), batch=6)


# Crops


def test_crops_are_those_of_the_run_time_op(data, crops):
    import cv2

    from sdk import ops
    from sdk.geometry import crop_affines

    batch = next(crops.batches(3))
    for person, found in zip(batch.people, batch.inputs, strict=True):
        affines = crop_affines(np.array([person.box_xyxy], np.float32), RECIPE.input.size_hw, 1.25)
        frame = cv2.imread(str(person.image))
        np.testing.assert_array_equal(
            found, ops.crop(frame, affines, (32, 32), mean=RECIPE.input.mean, std=RECIPE.input.std)[0]
        )


def test_drawing_is_seeded_and_without_repetition(crops):
    people = list(crops.people)
    again = CropSet.drawn(people, RECIPE, count=10, seed=4)
    assert again.people == CropSet.drawn(people, RECIPE, count=10, seed=4).people
    assert again.people != CropSet.drawn(people, RECIPE, count=10, seed=5).people
    assert len({person.image for person in again.people}) == 10


def test_jitter_moves_boxes_the_same_way_in_any_batch(crops):
    moved = replace(crops, jitter=0.1)
    by_one = np.concatenate([part.affines for part in moved.batches(1)])
    np.testing.assert_array_equal(by_one, np.concatenate([part.affines for part in moved.batches(7)]))
    assert np.abs(by_one - np.concatenate([part.affines for part in crops.batches(7)])).max() > 0


def test_jitter_is_the_persons_own_in_any_set(crops):
    moved = replace(crops, jitter=0.1)
    whole = np.concatenate([part.affines for part in moved.batches(8)])
    some = np.concatenate([part.affines for part in moved.some([11, 4]).batches(8)])
    np.testing.assert_array_equal(some, whole[[11, 4]])
    plain = np.concatenate([part.affines for part in crops.batches(8)])
    assert len(np.unique(whole[:, 0, 0] / plain[:, 0, 0])) == len(whole)  # each moved in its own way


def test_a_folder_of_photographs_needs_no_annotations(data):
    people = people_from_data(data.parent, None, RECIPE)
    assert len(people) == 20
    assert people[0].box_xyxy == (0.0, 0.0, 70.0, 90.0)


def test_boxes_of_a_detector_replace_the_annotated(data, tmp_path):
    detections = tmp_path / "detections.json"
    person = {"image_id": 3, "bbox": [1, 2, 30, 40], "score": 0.9, "category_id": 1}
    others = [{**person, "score": 0.29}, {**person, "category_id": 62}, {**person, "image_id": 4, "score": 0.3}]
    detections.write_text(json.dumps([person, *others]))
    people = people_from_data(data, detections, RECIPE)
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
def test_data_without_a_usable_person_is_refused(data, tmp_path, change, told):
    with pytest.raises(CalibrationError, match=f"has no usable person \\({told}\\)"):
        people_from_data(with_annotations(data, tmp_path, change), None, RECIPE)


def test_pictures_that_lie_elsewhere_are_named_or_given(data, tmp_path):
    """COCO's own layout: annotations/train.json beside train2017/."""
    annotations, pictures = tmp_path / "annotations", tmp_path / "train2017"
    annotations.mkdir()
    pictures.mkdir()
    path = annotations / "train.json"
    path.write_text(data.read_text())
    for name in data.parent.glob("*.png"):
        (pictures / name.name).write_bytes(name.read_bytes())
    with pytest.raises(
        CalibrationError, match=r"20 with no picture in '.*annotations' or '.*images' or '.*train'.*--pic"
    ):
        people_from_data(path, None, RECIPE)
    assert len(people_from_data(path, None, RECIPE, pictures)) == 20


def test_persons_are_those_of_the_files_person_category(data, tmp_path):
    path = with_annotations(data, tmp_path, lambda a: a.update(category_id=4 if a["image_id"] == 3 else 62))
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
def test_a_file_that_is_no_coco_file_is_refused(data, tmp_path, key, value, message):
    path = with_annotations(data, tmp_path, lambda a: None)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(CalibrationError, match=message):
        people_from_data(path, None, RECIPE)


def test_unusable_areas_and_keypoints_leave_a_box(data, tmp_path):
    path = with_annotations(data, tmp_path, lambda a: a.update(area=None, keypoints="x", bbox=[1, 2, 30, 40]))
    person = people_from_data(path, None, RECIPE)[0]
    assert person.keypoints is None and person.area_px2 is None
    path = with_annotations(data, tmp_path, lambda a: a.update(area=None, bbox=[1, 2, 30, 40]))
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
    ("content", "reason"), [(b"no", "not an image"), (vast_png(), "it has more pixels than")], ids=["text", "vast"]
)
def test_a_broken_picture_is_named(data, tmp_path, model, content, reason):
    path = with_annotations(data, tmp_path, lambda a: None)
    (tmp_path / "7.png").write_bytes(content)
    crops = CropSet.drawn(people_from_data(path, None, RECIPE), RECIPE, count=20)
    with pytest.raises(CalibrationError, match=rf"picture '.*7\.png' cannot be read \({reason}.*\); remove it"):
        calibrate(model, crops, CalibrateOptions(equalise=False))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CropSet.drawn([], RECIPE, count=0), "images must be at least 1"),
        (lambda: CropSet.drawn([], RECIPE, count=4, jitter=0.7), "jitter from 0 to below 0.5"),
        (lambda: CalibrateOptions(method="best"), "method must be one of max, percentile, entropy, mse, auto"),
        (lambda: CalibrateOptions(batch=0), "batch must be at least 1"),
    ],
    ids=["no images", "jitter", "method", "batch"],
)
def test_options_out_of_range(call, message):
    with pytest.raises(InputError, match=message):
        call()


# The table


def test_a_table_reads_back_to_seven_digits(table, tmp_path):
    write_table(table, tmp_path / "t.json")
    found = table_from_file(tmp_path / "t.json")
    assert set(found.tensors) == set(table.tensors)
    for name, tensor in table.tensors.items():
        assert found.tensors[name].amax == pytest.approx(tensor.amax, rel=1e-6)
    write_table(found, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (tmp_path / "t.json").read_text()
    assert [path.name for path in tmp_path.iterdir()] != []


def test_other_weights_are_refused_and_named(model, table):
    other = changed(model, "first.b", 0.5)
    check_graph(table, model, "t.json")
    with pytest.raises(CalibrationError, match=r"another graph \(weights 'first.b': mean magnitude .* against 0.5"):
        check_graph(table, other, "t.json")


def test_another_structure_is_refused(model, table):
    other = onnx.ModelProto()
    other.CopyFrom(model)
    other.graph.node[0].attribute.append(onnx.helper.make_attribute("auto_pad", "NOTSET"))
    with pytest.raises(CalibrationError, match=r"another graph \(structure \w{12} against \w{12}"):
        check_graph(table, other, "t.json")


def test_the_same_weights_rounded_by_another_processor_are_the_same_graph(model, table):
    """As folding a batch norm gives them on another machine: some 1e-7 of themselves apart."""
    rng, other = np.random.default_rng(0), onnx.ModelProto()
    other.CopyFrom(model)
    for tensor in other.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            noisy = (array * (1 + rng.uniform(-6e-7, 6e-7, array.shape))).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(noisy, tensor.name))
    assert graph_sha256(other) != graph_sha256(model)
    check_graph(table, other, "t.json")


OTHERS = {"order": lambda w: w[::-1], "sign": lambda w: -w, "scale": lambda w: w * 1.001}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_weights_of_the_same_magnitude_in_another_order_are_others(model, table, change):
    other = onnx.ModelProto()
    other.CopyFrom(model)
    tensor = next(t for t in other.graph.initializer if numpy_helper.to_array(t).ndim == 4)
    array = np.ascontiguousarray(change(numpy_helper.to_array(tensor)))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    with pytest.raises(CalibrationError, match=r"another graph .weights"):
        check_graph(table, other, "t.json")


def test_the_graph_hash_is_of_content_not_of_form(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.producer_name, copy.doc_string = "someone", "something"
    tensor = copy.graph.initializer[0]
    array = numpy_helper.to_array(tensor)
    tensor.ClearField("raw_data")
    tensor.float_data.extend(array.ravel().tolist())
    assert graph_sha256(copy) == graph_sha256(model)
    pads = next(a for a in copy.graph.node[0].attribute if a.name == "pads")
    pads.ints[0] += 1
    assert graph_sha256(copy) != graph_sha256(model)


def spoiled(**changes):
    def change(document):
        document.update(changes)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoiled(format=3), r"t\.json: key 'format' must be 2 \(got 3\)"),
        (spoiled(colour="red"), r"t\.json: unknown key 'colour'"),
        (spoiled(method=3), r"t\.json: key 'method' must be a text"),
        (lambda d: d.pop("data"), r"t\.json: key 'data' is missing"),
        (lambda d: d["tensors"]["block"].update(amax=0.0), r"key 'tensors\.block\.amax' must be a positive number"),
    ],
    ids=["newer", "unknown", "type", "missing", "zero"],
)
def test_a_spoiled_table_names_file_and_key(table, tmp_path, change, message):
    path = tmp_path / "t.json"
    write_table(table, path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(CalibrationError, match=message):
        table_from_file(path)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot be read"), ("{", "is not JSON"), ("[]", "'format' must be 2")]
)
def test_what_is_no_table_is_refused(tmp_path, content, message):
    path = tmp_path / "t.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CalibrationError, match=message):
        table_from_file(path)


def test_tables_that_ship_read_and_belong_to_the_bundled_graphs():
    from sdk.recipe import catalogue
    from sdk.resources import bundled_engines, catalogue_folder

    paths = sorted(catalogue_folder("calibration").glob("*.json"))
    assert paths
    bundled = {open_engine(folder).manifest.recipe.name: folder for folder in bundled_engines().values()}
    for path in paths:
        shipped = table_from_file(path)
        assert path.stem == shipped.recipe
        assert shipped.recipe in catalogue()
        assert shipped.data.images >= 500
        if shipped.recipe in bundled:
            check_graph(shipped, onnx.load(bundled[shipped.recipe] / "network.onnx"), path.name)

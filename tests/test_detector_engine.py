"""Detectors made into engines: cut before their own NMS, proved, typed, written, opened; and by the command line."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sdk import PoseEstimator
from sdk.cli import main
from sdk.errors import CalibrationError, EngineError, GraphError, InputError
from sdk.manifest import open_detector_engine, open_engine
from sdk.people.detector import Detector
from sdk.people.detector_forms import blob_of

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxslim")
cv2 = pytest.importorskip("cv2")

from sdk.toolchain.compile import CompileOptions  # noqa: E402
from sdk.toolchain.detectors.build import DetectorBuild, build_detector  # noqa: E402
from sdk.toolchain.detectors.proof import check_same, finding_of  # noqa: E402
from sdk.toolchain.detectors.tail import float_in_int8, tail_of  # noqa: E402
from sdk.toolchain.detectors.taken import DetectorTold, look_in_child, take  # noqa: E402
from tests.support import detector_graphs as forms  # noqa: E402
from tests.support.engines import SMALL, pooled_simcc_graph  # noqa: E402

NONE = CompileOptions(compiler="none")


def frame():
    return np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        picture = np.random.default_rng(number).integers(0, 256, (96, 128, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.GaussianBlur(picture, (9, 9), 3))
    return folder


@pytest.mark.parametrize("name", forms.FORMS)
def test_a_graph_of_any_form_finds_the_same_in_our_form(name, tmp_path):
    kind, make = forms.FORMS[name]
    taken = take(make(tmp_path / "d.onnx"), DetectorTold(), None)
    recipe = taken.recipe
    assert taken.notes[0] == f"taken for '{kind}'" and "persons in 4 pictures" in taken.notes[-1]
    assert [value.name for value in taken.model.graph.input] == [recipe.input.name]
    assert tuple(value.name for value in taken.model.graph.output) == recipe.outputs
    boxes, scores = finding_of(taken.model, recipe)(frame())
    np.testing.assert_allclose(boxes, forms.PERSONS * 2, atol=0.02)
    np.testing.assert_allclose(scores, forms.SCORES, atol=2e-3)


def test_a_suppression_inside_is_cut_off_and_the_rest_finds_the_same(tmp_path):
    path = forms.suppressing(tmp_path / "d.onnx", iou=0.55)
    taken = take(path, DetectorTold(), None)
    assert "NonMaxSuppression" not in {node.op_type for node in taken.model.graph.node}
    assert taken.recipe.iou == 0.55 and taken.recipe.form.suppress and len(taken.recipe.outputs) == 2
    boxes, _ = finding_of(taken.model, taken.recipe)(frame())
    np.testing.assert_allclose(boxes, forms.PERSONS * 2, atol=0.02)
    np.testing.assert_allclose(boxes, Detector(path, threads=1)(frame())[0], atol=1e-3)


def test_a_suppression_that_only_tensorrt_runs_is_cut_off_too(tmp_path):
    taken = take(forms.with_plugin(tmp_path / "d.onnx"), DetectorTold(), None)
    assert taken.recipe.iou == 0.55 and not any("own graph finds" in note for note in taken.notes)
    np.testing.assert_allclose(finding_of(taken.model, taken.recipe)(frame())[0], forms.PERSONS * 2, atol=0.02)


def test_a_graph_that_finds_something_else_is_refused(tmp_path):
    taken = take(forms.suppressing(tmp_path / "d.onnx"), DetectorTold(), None)
    finding = finding_of(taken.model, taken.recipe)
    with pytest.raises(GraphError, match=r"on picture 0 it gives 9 boxes, not 3, beside the file's own graph"):
        check_same(replace(finding, form=replace(finding.form, suppress=False)), finding, "'d.onnx'", None)
    moved = replace(finding, input=replace(finding.input, place="centre"))
    with pytest.raises(GraphError, match="on picture 0 it gives"):
        check_same(moved, finding, "'d.onnx'", None)


def test_a_graph_that_suppresses_twice_is_refused(tmp_path):
    path = forms.suppressing(tmp_path / "d.onnx")
    model = onnx.load(path)
    nms = next(node for node in model.graph.node if node.op_type == "NonMaxSuppression")
    second = onnx.NodeProto()
    second.CopyFrom(nms)
    second.name, second.output[0], second.input[3] = "again", "again", "other"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0.4], np.float32), "other"))
    model.graph.node.append(second)
    model.graph.output.append(onnx.helper.make_tensor_value_info("again", onnx.TensorProto.INT64, [None, 3]))
    onnx.save(model, path)
    with pytest.raises(GraphError, match="suppresses boxes 2 times; export it with one NMS or none"):
        take(path, DetectorTold("rtmdet"), None)


def test_an_open_size_has_to_be_told(tmp_path):
    graph = forms.Graph("0..1", free=True)
    graph.gated(forms.decoded_cells(3)[None], slice(4, None), "output0")
    graph.output("output0")
    path = graph.saved(tmp_path / "d.onnx")
    with pytest.raises(GraphError, match=r"leaves its input size open .*; give --size HxW"):
        take(path, DetectorTold(kind="yolov8"), None)
    assert take(path, DetectorTold("yolov8", (128, 128)), None).recipe.input.size_hw == (128, 128)


def test_a_recipe_that_says_something_else_is_refused(tmp_path):
    path = forms.yolox_grid(tmp_path / "d.onnx")
    recipe = take(path, DetectorTold(), None).recipe
    assert take(path, DetectorTold(), replace(recipe, outputs=("cells",))).recipe.outputs == ("cells",)
    other = replace(recipe, input=replace(recipe.input, colour="rgb"))
    with pytest.raises(GraphError, match=r"is not what the recipe 'd-128' says: its input is .*colour='bgr'"):
        take(path, DetectorTold(), other)


def test_the_class_and_the_overlap_of_a_recipe_are_used(tmp_path):
    path = forms.yolov8(tmp_path / "d.onnx")
    made = take(path, DetectorTold(), None).recipe
    dogs = replace(made, iou=0.5, form=replace(made.form, person_class=16))
    taken = take(path, DetectorTold(), dogs)
    assert taken.recipe == dogs
    boxes, scores = finding_of(taken.model, taken.recipe)(frame())
    np.testing.assert_allclose(boxes, forms.DOG[0][None] * 2, atol=0.02)
    np.testing.assert_allclose(scores, [forms.DOG[1]], atol=2e-3)
    assert take(path, DetectorTold(person_class=0), dogs).recipe.form.person_class == 0  # what is told goes before


def test_the_overlap_of_a_suppression_inside_goes_before_the_recipes(tmp_path):
    path = forms.suppressing(tmp_path / "d.onnx", iou=0.55)
    recipe = take(path, DetectorTold(), None).recipe
    assert take(path, DetectorTold(), replace(recipe, iou=0.9)).recipe.iou == 0.55


def test_a_pose_graph_that_runs_at_one_size_alone_is_no_detector_nor_an_end(tmp_path, capsys):
    path = pooled_simcc_graph(tmp_path / "pose.onnx", SMALL)
    model = onnx.load(path)
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], ("h", "w"), strict=True):
        dim.dim_param = name
    onnx.save(model, path)
    assert "does not run on ONNX Runtime" in look_in_child({"path": str(path), "told": {}})[0]["problem"]
    assert main(["inspect", str(path), "--size", "64x48"]) == 0
    page = capsys.readouterr().out
    assert "SimCC, 14 joints, split ratio 2, crops of 64x48" in page and page.splitlines()[-1].endswith(" --size 64x48")
    assert main(["inspect", str(path)]) == 1
    assert "does not say its input size" in capsys.readouterr().err


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    path = forms.suppressing(folder / "d.onnx")
    return build_detector(DetectorBuild(None, onnx=path, precision="fp16", compile=NONE, output=folder / "engine"))


def test_an_engine_is_built_and_opened(engine):
    assert engine.manifest.precision == "fp16" and engine.manifest.batch.max == 1
    detect = Detector(engine.folder, threads=1)
    boxes, scores = detect(frame())
    np.testing.assert_allclose(boxes, forms.PERSONS * 2, atol=0.02)
    assert detect.engine == engine and detect.recipe == engine.manifest.recipe
    np.testing.assert_array_equal(Detector(engine, score_threshold=0.8, threads=1)(frame())[1], scores[:1])


WRONG = {
    "kind": ({"kind": "rtmdet"}, "is an engine and says itself what it is; leave kind 'rtmdet' out"),
    "size": ({"size_hw": (64, 64)}, r"takes 128x128 only \(size_hw was \(64, 64\)\)"),
    "class": ({"person_class": 3}, "knows 1 classes, numbered from 0; person_class must be one of them"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_an_engine_knows_what_it_is(options, message, engine):
    with pytest.raises(InputError, match=message):
        Detector(engine.folder, **options)


def test_a_detectors_engine_is_no_pose_networks(engine, small_engine):
    with pytest.raises(EngineError, match=r"holds the detector 'd-128', and a pose network's is asked for"):
        PoseEstimator(engine.folder)
    with pytest.raises(EngineError, match=r"holds the pose network '.*', and a detector's is asked for"):
        PoseEstimator(small_engine, detector=small_engine)
    with pytest.raises(EngineError, match="holds the pose network"):
        open_detector_engine(small_engine)
    with pytest.raises(EngineError, match="holds the detector"):
        open_engine(engine.folder)
    with PoseEstimator(small_engine, device="cpu", detector=engine, threads=1) as estimate:
        assert len(estimate(frame()).boxes) == 3


def test_int8_leaves_the_tail_the_ends_and_what_is_depthwise(tmp_path, photographs):
    path = forms.convolutional(tmp_path / "d.onnx")
    options = DetectorBuild(
        None, onnx=path, told=DetectorTold("yolox"), precision="int8", calibration=photographs, compile=NONE,
        output=tmp_path / "int8",
    )  # fmt: skip
    engine = build_detector(options)
    float_ = build_detector(replace(options, precision="fp32", calibration=None, output=tmp_path / "fp32"))
    model = onnx.load(float_.graph_path)
    tail, heads = tail_of(model)
    kinds = {node.name: node.op_type for node in model.graph.node}
    assert len(heads) == 6 and "Sigmoid" in {kinds[name] for name in tail}
    assert len(float_in_int8(model)) == 6 + 1 + 3
    note = engine.manifest.calibration
    assert note.details["int8_nodes"] == 3 and note.images == 6 and note.table == "photos"
    runs = [Detector(folder, threads=1) for folder in (tmp_path / "int8", tmp_path / "fp32")]
    blob = blob_of(cv2.imread(str(photographs / "0.png")), engine.manifest.recipe.input)
    (low,), (exact,) = (detect.run(blob) for detect in runs)
    assert 0 < np.abs(low - exact).max() < 0.1 * np.abs(exact).max()


def test_int8_needs_pictures():
    with pytest.raises(InputError, match="needs --calibration: a folder of photographs, or a table"):
        DetectorBuild(None, onnx=forms.SIDE, precision="int8")


def test_a_detector_that_loses_most_persons_is_not_built(tmp_path, monkeypatch):
    from sdk.toolchain.detectors import build

    monkeypatch.setattr(build, "moved", lambda ours, theirs, images: (1.0, 1, 4))
    path = forms.yolov8(tmp_path / "d.onnx", 1)
    with pytest.raises(CalibrationError, match=r"FP16 finds 1 of the 4 persons .*; build it in fp32"):
        build_detector(DetectorBuild(None, onnx=path, precision="fp16", compile=NONE, output=tmp_path / "e"))
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("size", [None, "128x160"])
def test_the_command_of_a_detector_that_leaves_its_size_open_tells_it(tmp_path, capsys, size):
    path = forms.convolutional(tmp_path / "free.onnx")
    model = onnx.load(path)
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], ("h", "w"), strict=True):
        dim.dim_param = name
    onnx.save(model, path)
    assert main(["inspect", str(path), *([] if size is None else ["--size", size])]) == 0
    page, size = capsys.readouterr().out, size or "320x320"
    assert f"  size      left open by the file, and looked at as {size}; a build must be told it\n" in page
    command = page.splitlines()[-1].split()
    assert command == ["sdk", "build-engine", "--onnx", str(path), "--size", size]
    words = [*command[1:], "--compiler", "none", "--precision", "fp32", "--output", str(tmp_path / "e")]
    assert main(words) == 0


def test_the_command_line_builds_calibrates_and_inspects(tmp_path, photographs, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    forms.suppressing(tmp_path / "cart.onnx")
    assert main(["inspect", "cart.onnx"]) == 0
    assert "cart.onnx: a person detector, form 'rtmdet', input of 128x128" in capsys.readouterr().out
    assert main(["build-engine", "--onnx", "cart.onnx", "--compiler", "none", "--precision", "fp32"]) == 0
    assert capsys.readouterr().out.strip() == "cart-128.fp32"
    assert main(["inspect", "cart-128.fp32"]) == 0
    told = capsys.readouterr().out
    assert "detects   persons that score 0.3 and more" in told and "BGR, mean 103.53 116.28 123.675" in told
    forms.convolutional(tmp_path / "net.onnx")
    asked = ["net.onnx", "--form", "yolox"]
    ranges = ["calibrate", "--onnx", *asked, "--data", "photos", "--method", "max", "--output", "ranges.json"]
    assert main(ranges) == 0
    table = json.loads((tmp_path / "ranges.json").read_text())
    assert table["method"] == "max" and {tensor["method"] for tensor in table["tensors"].values()} == {"max"}
    built = ["build-engine", "--onnx", *asked, "--precision", "int8", "--calibration", "ranges.json"]
    assert main([*built, "--compiler", "none", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.split("\n", 1)[1])["calibration"]["table"] == "ranges.json"


USAGE = {
    "random weights": (["yolox-nano-416", "--weights", "random"], 2, "--weights random is for pose networks"),
    "auto precision": (["yolox-nano-416", "--precision", "auto"], 2, "build a detector in fp32, fp16 or int8"),
    "a pose option": (
        ["yolox-nano-416", "--colour", "rgb"],
        2,
        "--colour is for pose networks; a detector is told by --form",
    ),
    "a batch": (["yolox-nano-416", "--max-batch", "4"], 2, "--max-batch must be 1: a detector takes one frame"),
    "a budget": (["yolox-nano-416", "--max-drop", "1"], 2, "--max-drop is for pose networks"),
    "a form of nothing": (["--form", "yolox"], 2, "--form says what the graph of --onnx is; give --onnx F"),
    "no such form": (["--onnx", "d.onnx", "--form", "ssd"], 1, "detector kind must be one of 'auto', 'rtmdet'"),
}


@pytest.mark.parametrize(("arguments", "status", "message"), USAGE.values(), ids=USAGE)
def test_what_a_detector_does_not_take_is_told(arguments, status, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    forms.yolov8(tmp_path / "d.onnx", 1)
    assert main(["build-engine", *arguments, "--compiler", "none"]) == status
    assert message in capsys.readouterr().err


OF_CROPS = {
    "jitter": ["--jitter", "0.1"],
    "crops at a time": ["--batch", "8"],
    "equalisation": ["--no-equalise"],
    "crops for each group": ["--sensitivity-crops", "64"],
    "boxes": ["--boxes", "b.json"],
}


@pytest.mark.parametrize("options", OF_CROPS.values(), ids=OF_CROPS)
def test_what_the_calibration_of_a_detector_does_not_take_is_told(options, tmp_path, capsys):
    asked = ["calibrate", "yolox-nano-416", "--data", str(tmp_path), "--output", str(tmp_path / "ranges.json")]
    assert main([*asked, *options]) == 2
    assert f"{options[0]} is for pose networks; a detector is calibrated on" in capsys.readouterr().err


def test_the_size_that_metadata_tells_is_taken_where_the_graph_leaves_it_open(tmp_path):
    graph = forms.Graph("0..1", free=True)
    graph.gated(forms.decoded_cells(3)[None], slice(4, None), "output0")
    graph.output("output0")
    path = graph.saved(tmp_path / "d.onnx", {"imgsz": "[128, 128]"})
    assert take(path, DetectorTold("yolov8"), None).recipe.input.size_hw == (128, 128)
    assert Detector(path, kind="yolov8", threads=1).size_hw == (128, 128)

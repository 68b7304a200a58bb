"""Person detectors of files: what they are taken for, boxes against annotations, what is refused."""

import json

import numpy as np
import pytest

from sdk.errors import EngineError, GraphError, InputError
from sdk.people.detector import Detector
from sdk.people.detector_forms import blob_of
from sdk.people.tracking import box_iou

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")

DETECTORS = {"rtmdet-nano-person": ("rtmdet", (320, 320)), "yolox-nano-coco80": ("yolox", (416, 416))}


@pytest.fixture(scope="module", params=DETECTORS)
def detector(request, shared):
    return Detector(shared / "models" / f"{request.param}.onnx", threads=1), DETECTORS[request.param]


@pytest.fixture(scope="module")
def coco(shared):
    """[(frame, boxes N x 4 xyxy of persons larger than 32 x 32 pixels)]"""
    folder = shared / "data" / "samples" / "coco"
    table = json.loads((folder / "test_coco.json").read_text())
    found = []
    for image in table["images"]:
        boxes = [a["bbox"] for a in table["annotations"] if a["image_id"] == image["id"] and a["area"] > 32 * 32]
        xywh = np.array(boxes, np.float32)
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        found.append((cv2.imread(str(folder / image["file_name"])), xyxy))
    return found


@pytest.mark.data
def test_the_family_and_the_size_come_from_the_file(detector):
    detect, (kind, size_hw) = detector
    assert (detect.kind, detect.size_hw) == (kind, size_hw)


@pytest.mark.data
def test_annotated_persons_are_found(detector, coco):
    detect, _ = detector
    found = total = surplus = 0
    for frame, truth in coco:
        boxes, scores = detect(frame)
        overlap = box_iou(truth, boxes)
        found, total = found + int((overlap.max(axis=1) > 0.6).sum()), total + len(truth)
        surplus += int((overlap.max(axis=0) < 0.3).sum())
        assert boxes.dtype == scores.dtype == np.float32 and (np.diff(scores) <= 0).all()
        height, width = frame.shape[:2]
        assert (boxes >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
    assert total == 12 and found >= 11 and surplus <= 1


@pytest.mark.data
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 900), (900, 1)])
def test_any_frame_shape_is_taken(detector, size_hw):
    boxes, scores = detector[0](np.full((*size_hw, 3), 114, np.uint8))
    assert boxes.shape == (len(scores), 4)


@pytest.mark.data
def test_a_higher_threshold_keeps_the_better_boxes(shared, coco):
    path = shared / "models" / "rtmdet-nano-person.onnx"
    frame = coco[3][0]
    low, high = (Detector(path, score_threshold=t, threads=1)(frame) for t in (0.1, 0.6))
    assert len(high[1]) < len(low[1]) and (high[1] >= 0.6).all()
    np.testing.assert_array_equal(high[0], low[0][: len(high[0])])


@pytest.mark.data
def test_a_free_size_is_the_users_choice(shared, coco):
    detect = Detector(shared / "models" / "rtmdet-nano-person.onnx", size_hw=(480, 640), threads=1)
    assert detect.size_hw == (480, 640) and len(detect(coco[0][0])[0]) == 1


@pytest.mark.data
def test_a_pose_network_is_no_detector(shared):
    with pytest.raises(
        GraphError, match=r"of no known form \(RTMDet, YOLOX, .*\): its outputs are simcc_x \(1, 14, 256\)"
    ):
        Detector(shared / "models" / "body14-lspet-128x128.onnx")


BAD_ARGUMENTS = {
    "size of a fixed file": ("yolox-nano-coco80", {"size_hw": (320, 320)}, "takes 416x416 only"),
    "size not of 32": ("rtmdet-nano-person", {"size_hw": (300, 300)}, "positive multiples of 32"),
    "unknown kind": ("rtmdet-nano-person", {"kind": "ssd"}, "detector kind must be"),
    "size by one number": (
        "rtmdet-nano-person",
        {"size_hw": 640},
        r"size_hw must be a pair \(height, width\).*got 640",
    ),
    "size of three": ("rtmdet-nano-person", {"size_hw": (3, 320, 320)}, "size_hw must be a pair"),
    "size in words": ("rtmdet-nano-person", {"size_hw": ("a", "b")}, "size_hw must be a pair"),
    "negative size": ("rtmdet-nano-person", {"size_hw": (-32, 320)}, "size_hw must be a pair .* of positive multiples"),
    "threshold": ("rtmdet-nano-person", {"score_threshold": 2}, r"score_threshold must be in 0\.\.1 \(got 2\)"),
    "threshold in words": ("rtmdet-nano-person", {"score_threshold": "a"}, r"must be in 0\.\.1 \(got 'a'\)"),
    "no threshold": ("rtmdet-nano-person", {"score_threshold": float("nan")}, r"must be in 0\.\.1 \(got nan\)"),
    "class beyond": (
        "yolox-nano-coco80",
        {"person_class": 500},
        r"yolox-nano-coco80\.onnx' knows 80 classes, numbered from 0; person_class must be one of them \(got 500\)",
    ),
    "class before": ("yolox-nano-coco80", {"person_class": -1}, r"person_class must be .* from 0 on \(got -1\)"),
    "class by name": ("rtmdet-nano-person", {"person_class": "person"}, r"person_class must be .*\(got 'person'\)"),
}
OTHER_KINDS = {
    "YOLOX as RTMDet": (
        "yolox-nano-coco80",
        "rtmdet",
        r"not of the kind 'rtmdet' \(dets and labels or boxes and scores of cells\): .* 85\)",
    ),
    "YOLOX as one with NMS": ("yolox-nano-coco80", "yolox-nms", "not of the kind 'yolox-nms' .*; try 'auto'"),
    "RTMDet as YOLOX": ("rtmdet-nano-person", "yolox", r"not of the kind 'yolox' \(cells with objectness\)"),
    "a pose network": ("body14-lspet-128x128", "rtmdet", "not of the kind 'rtmdet'"),
}


@pytest.mark.data
@pytest.mark.parametrize(("name", "kind", "message"), OTHER_KINDS.values(), ids=OTHER_KINDS)
def test_a_graph_of_another_kind_is_refused_at_opening(shared, name, kind, message):
    with pytest.raises(GraphError, match=message):
        Detector(shared / "models" / f"{name}.onnx", kind=kind)


@pytest.mark.data
@pytest.mark.parametrize("kind", ["rtmdet", "yolox-nms"])
def test_a_kind_that_fits_is_taken_by_name(shared, kind):
    assert Detector(shared / "models" / "rtmdet-nano-person.onnx", kind=kind, threads=1).kind == kind


def graph_of(path, size=(64, 64), channels=3, batch=1, rows=84, dtype="FLOAT", second=None):
    """A YOLOX-shaped graph of constants: `rows` x 6 for an input of `size`, with a second input if named."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    kind = getattr(TensorProto, dtype)
    inputs = [helper.make_tensor_value_info("x", kind, [batch, channels, *size])]
    inputs += [helper.make_tensor_value_info(second, kind, [1])] if second else []
    grid = helper.make_tensor("grid", TensorProto.FLOAT, [1, rows, 6], np.zeros(rows * 6, np.float32))
    nodes = [helper.make_node("Identity", ["grid"], ["out"])]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, rows, 6])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [grid])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


GRAPHS = {
    "grey": (
        {"channels": 1},
        r"must take one float32 picture, 1 x 3 x h x w \(got 'x' float32 \[1, 1, 64, 64\]",
    ),
    "a batch of four": ({"batch": 4}, r"must take one float32 picture"),
    "FP16": ({"dtype": "FLOAT16"}, r"must take one float32 picture.* tensor\(float16\)"),
    "two inputs": ({"second": "scale"}, r"must take one float32 picture.*'scale'"),
    "other strides": ({"rows": 1085}, r"of no known form .*: its outputs are out \(1, 1085, 6\)"),
}


@pytest.mark.parametrize(("options", "message"), GRAPHS.values(), ids=GRAPHS)
def test_a_graph_that_no_detector_has_is_refused_at_opening(tmp_path, options, message):
    with pytest.raises(GraphError, match=message):
        Detector(graph_of(tmp_path / "d.onnx", **options))


def test_a_small_grid_is_a_detector(tmp_path):
    detect = Detector(graph_of(tmp_path / "d.onnx"), score_threshold=0, threads=2)
    assert detect.kind == "yolox" and detect._session.get_session_options().intra_op_num_threads == 2


DETECTIONS = [  # x1, y1, x2, y2 of a 64 x 64 input, score, class
    (0, 0, 10, 8, 0.5, 0),  # IoU 0.8 with the next
    (0, 0, 10, 10, 0.9, 0),
    (20, 20, 30, 30, 0.3, 0),  # just enough
    (20, 40, 30, 50, 0.29, 0),
    (40, 40, 50, 50, 0.8, 1),
    (60, 10, 60, 20, 0.7, 0),  # no area
]


def rtmdet_of(path):
    """An RTMDet-shaped graph that finds DETECTIONS in any picture of 64 x 64."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    rows = np.array(DETECTIONS, np.float32)[None]
    made = {"dets": rows[..., :5], "labels": rows[..., 5].astype(np.int64)}
    constants = [numpy_helper.from_array(np.ascontiguousarray(value), f"all {name}") for name, value in made.items()]
    nodes = [helper.make_node("Identity", [f"all {name}"], [name]) for name in made]
    outputs = [
        helper.make_tensor_value_info(name, c.data_type, c.dims) for name, c in zip(made, constants, strict=True)
    ]
    inputs = [helper.make_tensor_value_info("x", 1, [1, 3, 64, 64])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_persons_that_score_enough_are_given_in_frame_pixels(tmp_path):
    boxes, scores = Detector(rtmdet_of(tmp_path / "d.onnx"), kind="rtmdet")(np.zeros((128, 100, 3), np.uint8))
    np.testing.assert_array_equal(boxes, [[0, 0, 20, 20], [40, 40, 60, 60]])
    np.testing.assert_array_equal(scores, np.float32([0.9, 0.3]))


def test_a_picture_is_letterboxed_in_grey_and_normalised_as_rtmdet_was_trained(tmp_path):
    detect = Detector(rtmdet_of(tmp_path / "d.onnx"), kind="rtmdet")
    blob = blob_of(np.full((128, 64, 3), (10, 20, 30), np.uint8), detect.recipe.input)
    mean, std = np.array((103.53, 116.28, 123.675)), np.array((57.375, 57.12, 58.395))  # of BGR
    np.testing.assert_allclose(blob[0, :, 63, 31], ((10, 20, 30) - mean) / std, rtol=1e-5)
    np.testing.assert_allclose(blob[0, :, 63, 32], (114 - mean) / std, rtol=1e-5)


@pytest.mark.data
@pytest.mark.parametrize(("name", "options", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_options_that_do_not_fit_are_refused(shared, name, options, message):
    with pytest.raises(InputError, match=message):
        Detector(shared / "models" / f"{name}.onnx", **options)


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match=r"detector 'none\.onnx' does not exist"):
        Detector("none.onnx")


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"broken\.onnx': ONNX Runtime .* refuses it"):
        Detector(tmp_path / "broken.onnx")

"""Person detectors: families by their outputs, boxes against annotations, suppression, what is refused."""

import json

import numpy as np
import pytest

from sdk.errors import EngineError, GraphError, InputError
from sdk.runtime.detector import Detector, decode_yolox, suppress
from sdk.runtime.tracking import box_iou

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
@pytest.mark.parametrize("size_hw", [(1, 1), (7, 900), (900, 7)])
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


def yolox_reference(grid, size_hw):
    """One row at a time, from the definition."""
    rows, index = [], 0
    for stride in (8, 16, 32):
        for y in range(size_hw[0] // stride):
            for x in range(size_hw[1] // stride):
                cx, cy, w, h, objectness, *classes = grid[index].astype(np.float64)
                cx, cy, w, h = (cx + x) * stride, (cy + y) * stride, np.exp(w) * stride, np.exp(h) * stride
                rows.append((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, objectness * classes[0]))
                index += 1
    return np.array(rows)


def test_a_yolox_grid_is_decoded_by_its_definition():
    grid = np.random.default_rng(3).standard_normal((64 * 96 // 64 + 64 * 96 // 256 + 64 * 96 // 1024, 8))
    boxes, scores = decode_yolox(grid.astype(np.float32), (64, 96))
    expected = yolox_reference(grid.astype(np.float32), (64, 96))
    np.testing.assert_allclose(boxes, expected[:, :4], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(scores, expected[:, 4], rtol=1e-5)


def test_a_grid_of_another_size_is_refused():
    with pytest.raises(GraphError, match=r"must have 126 rows \(got 5\)"):
        decode_yolox(np.zeros((5, 85), np.float32), (64, 96))


def suppression_reference(boxes, scores, iou):
    left = sorted(range(len(boxes)), key=lambda i: -scores[i])
    keep = []
    while left:
        best = left.pop(0)
        keep.append(best)
        left = [i for i in left if box_iou(boxes[[best]], boxes[[i]])[0, 0] < iou]
    return keep


@pytest.mark.parametrize("count", [0, 1, 2, 60])
def test_suppression_keeps_what_the_definition_keeps(count):
    rng = np.random.default_rng(count)
    corner = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 60, (count, 2))], axis=1).astype(np.float32)
    scores = rng.random(count).astype(np.float32)
    kept, kept_scores = suppress(boxes, scores, 0.4)
    expected = suppression_reference(boxes, scores, 0.4)
    np.testing.assert_array_equal(kept, boxes[expected])
    np.testing.assert_array_equal(kept_scores, scores[expected])


@pytest.mark.data
def test_a_pose_network_is_no_detector(shared):
    with pytest.raises(GraphError, match=r"neither RTMDet .* nor YOLOX .*: its outputs are simcc_x \(1, 14, 256\)"):
        Detector(shared / "models" / "body14-lspet-128x128.onnx")


BAD_ARGUMENTS = {
    "size of a fixed file": ("yolox-nano-coco80", {"size_hw": (320, 320)}, "takes 416x416 only"),
    "size not of 32": ("rtmdet-nano-person", {"size_hw": (300, 300)}, "positive multiples of 32"),
    "unknown kind": ("rtmdet-nano-person", {"kind": "ssd"}, "detector kind must be"),
    "threshold": ("rtmdet-nano-person", {"score_threshold": 2}, r"score_threshold must be in 0\.\.1 \(got 2\)"),
}


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

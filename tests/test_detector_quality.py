"""What the shared detectors find on annotated photographs, and that their boxes are those of the files' own graphs.

The reference reads a file's outputs by their definition, in float64: RTMDet's after the NMS of its own graph on ONNX
Runtime, YOLOX's by its grid and a greedy NMS. Beside it stands box AP, of pycocotools.
"""

import json
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest

from sdk.people.detector import Detector
from sdk.people.detector_forms import blob_of

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")
cv2 = pytest.importorskip("cv2")

from sdk.toolchain.detectors.proof import THRESHOLD, finding_of  # noqa: E402
from sdk.toolchain.detectors.taken import DetectorTold, take  # noqa: E402

pytestmark = pytest.mark.data
SMALLEST_PX, OVERLAP = 64, 0.5
NEAR_PX = 0.5
LEAST_AP = {"rtmdet-nano-person": 81, "yolox-nano-coco80": 78}  # points; 81.2 and 78.1 on ONNX Runtime 1.32


@pytest.fixture(scope="module")
def coco(shared):
    folder = shared / "data" / "samples" / "coco"
    truth = json.loads((folder / "test_coco.json").read_text())
    return truth, {image["id"]: cv2.imread(str(folder / image["file_name"])) for image in truth["images"]}


@pytest.fixture(scope="module", params=LEAST_AP)
def detector(request, shared):
    return request.param, Detector(shared / "models" / f"{request.param}.onnx", threads=1)


def iou(box, others):
    """Of one box with each of others, xyxy, float64."""
    common = np.clip(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0, None).prod(axis=1)
    areas = [(each[:, 2:] - each[:, :2]).prod(axis=1) for each in (box[None], others)]
    return common / (areas[0] + areas[1] - common)


def suppressed(boxes, scores, overlap):
    """Greedy NMS: the rows that are kept, best first."""
    kept = []
    for row in np.argsort(-scores, kind="stable"):
        if all(iou(boxes[row], boxes[kept_row][None])[0] <= overlap for kept_row in kept):
            kept.append(row)
    return kept


def of_rtmdet(outputs, threshold):
    """dets 1 x N x 5 in input pixels, after the graph's own NMS."""
    dets = np.asarray(outputs[0][0], np.float64)
    return dets[dets[:, 4] >= threshold]


def of_yolox(outputs, threshold, size=416):
    """1 x M x 85: a grid of cells of strides 8, 16 and 32; a person is the first class."""
    table = np.asarray(outputs[0][0], np.float64)
    grids = [np.mgrid[: size // s, : size // s][::-1].reshape(2, -1).T for s in (8, 16, 32)]
    cells, strides = np.concatenate(grids), np.repeat((8, 16, 32), [len(grid) for grid in grids])[:, None]
    centres, sides = (table[:, :2] + cells) * strides, np.exp(table[:, 2:4]) * strides
    boxes, scores = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1), table[:, 4] * table[:, 5]
    likely = scores >= threshold
    boxes, scores = boxes[likely], scores[likely]
    kept = suppressed(boxes, scores, 0.65)
    return np.concatenate([boxes[kept], scores[kept, None]], axis=1)


def expected(name, session, detect, frame, threshold):
    """Boxes N x 4 in frame pixels, inside the frame, of a file's own graph."""
    outputs = session.run(None, {session.get_inputs()[0].name: blob_of(frame, detect.recipe.input)})
    read = of_rtmdet if name.startswith("rtmdet") else of_yolox
    rows = read(outputs, threshold)
    height, width = frame.shape[:2]
    ratio = min(side / own for side, own in zip(detect.size_hw, (height, width), strict=True))
    inner = [round(own * ratio) for own in (width, height)]
    boxes = rows[:, :4] * np.tile([width / inner[0], height / inner[1]], 2)
    return np.clip(boxes, 0, [width, height, width, height])


def test_every_annotated_person_of_64_pixels_is_found(detector, coco):
    (_, detect), (truth, frames) = detector, coco
    found = {number: np.asarray(detect(frame)[0], np.float64) for number, frame in frames.items()}
    asked = [a for a in truth["annotations"] if np.sqrt(a["bbox"][2] * a["bbox"][3]) >= SMALLEST_PX]
    assert len(asked) >= 10
    for annotation in asked:
        x, y, width, height = annotation["bbox"]
        overlap = iou(np.array([x, y, x + width, y + height], np.float64), found[annotation["image_id"]])
        assert overlap.max(initial=0) >= OVERLAP, (annotation["image_id"], annotation["bbox"])


def check_same(boxes, wanted):
    assert len(boxes) == len(wanted) > 0
    apart = np.abs(wanted[:, None] - np.asarray(boxes, np.float64)[None]).max(axis=2)
    assert apart.min(axis=1).max() <= NEAR_PX


def test_boxes_are_those_of_the_files_own_graph(detector, coco, shared):
    (name, detect), (_, frames) = detector, coco
    session = onnxruntime.InferenceSession(str(shared / "models" / f"{name}.onnx"), providers=["CPUExecutionProvider"])
    for frame in frames.values():
        check_same(detect(frame)[0], expected(name, session, detect, frame, detect.score_threshold))


def test_a_graph_cut_before_its_suppression_gives_the_boxes_that_it_gave(coco, shared):
    path = shared / "models" / "rtmdet-nano-person.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    detect = Detector(path, threads=1)
    taken = take(path, DetectorTold(size_hw=detect.size_hw), None)
    assert "NonMaxSuppression" not in {node.op_type for node in taken.model.graph.node}
    find = finding_of(taken.model, taken.recipe)
    for frame in coco[1].values():
        check_same(find(frame)[0], expected("rtmdet", session, detect, frame, THRESHOLD))


def test_box_ap(detector, coco, shared):
    """Of persons of 64 px and more."""
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    (name, _), (truth, frames) = detector, coco
    every = Detector(shared / "models" / f"{name}.onnx", score_threshold=0.01, threads=1)
    results = [
        {"image_id": number, "category_id": 1, "bbox": [*box[:2], *(box[2:] - box[:2])], "score": float(score)}
        for number, frame in frames.items()
        for box, score in zip(*(each.astype(float) for each in every(frame)), strict=True)
    ]
    areas = [{**a, "area": a["bbox"][2] * a["bbox"][3]} for a in truth["annotations"]]
    with redirect_stdout(StringIO()):
        known = COCO()
        known.dataset = {**truth, "annotations": areas}
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(results), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[SMALLEST_PX**2, 1e10]], ["all"]
        evaluation.evaluate(), evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, -1]
    ap = 100 * float(precision[precision > -1].mean())
    assert ap >= LEAST_AP[name]

"""A trained SimCC network on real photographs: built, run by the estimator, scored by PCK of the torso."""

import json

import numpy as np
import pytest

from sdk import PoseEstimator
from sdk.evaluate.scores.pck import pck, torso_px
from tests.support.engines import BODY14

pytestmark = [pytest.mark.data, pytest.mark.native, pytest.mark.torch]
cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

STATED = {0.2: 40.25, 0.1: 16.71}  # models/README.md beside the data: float32, crops by cv2.warpAffine


@pytest.fixture(scope="module")
def persons(lspet):
    """(frame, box 4 xyxy, keypoints 14 x 3) of the 1,006 persons of val.json."""
    table = json.loads((lspet / "val.json").read_text())
    files = {image["id"]: lspet / image["file_name"] for image in table["images"]}
    found = []
    for person in table["annotations"]:
        x, y, w, h = person["bbox"]
        truth = np.array(person["keypoints"], np.float64).reshape(-1, 3)
        found.append((cv2.imread(str(files[person["image_id"]])), [x, y, x + w, y + h], truth))
    return found


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_pck_is_the_stated_one(precision, persons, shared, tmp_path):
    from sdk.toolchain.build import BuildOptions, build_engine
    from sdk.toolchain.compile import CompileOptions

    onnx = shared / "models" / "body14-lspet-128x128.onnx"
    options = CompileOptions(compiler="none")
    engine = build_engine(BuildOptions(BODY14, precision, onnx=onnx, compile=options, output=tmp_path / precision))
    with PoseEstimator(engine, device="cpu") as estimate:
        joints = np.concatenate([estimate(frame, [box]).keypoints for frame, box, _ in persons])
    truth = np.stack([keypoints for _, _, keypoints in persons])
    torsos = torso_px(truth, np.array([box for _, box, _ in persons]), BODY14.skeleton)
    assert len(truth) == 1006
    for threshold, stated in STATED.items():
        assert pck(joints, truth, torsos, threshold).mean == pytest.approx(stated, abs=0.2)

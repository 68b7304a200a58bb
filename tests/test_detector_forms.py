"""Every form that detectors come in: told apart, fed and read as its definition has it; and what is refused."""

import re
import zipfile

import numpy as np
import pytest

from sdk.errors import GraphError, InputError
from sdk.people.detector import Detector

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")
pytest.importorskip("onnx")

from tests.support import detector_graphs as forms


def frame(hw=(256, 256)):
    return np.random.default_rng(0).integers(0, 256, (*hw, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", forms.FORMS)
def test_a_form_is_told_and_its_persons_found(name, tmp_path):
    kind, make = forms.FORMS[name]
    detect = Detector(make(tmp_path / "d.onnx"), threads=1)
    boxes, scores = detect(frame())
    assert detect.kind == kind
    np.testing.assert_allclose(boxes, forms.PERSONS * 2, atol=0.02)
    np.testing.assert_allclose(scores, forms.SCORES, atol=2e-3)


@pytest.mark.parametrize("name", forms.FORMS)
def test_padding_lies_where_the_form_has_it(name, tmp_path):
    """A frame of half the width: in the corner, in the centre, or stretched."""
    kind, make = forms.FORMS[name]
    boxes, _ = Detector(make(tmp_path / "d.onnx"), threads=1)(frame((256, 128)))
    corner, centre, stretched = (0, 2), (32, 2), (0, 1)
    sets = dict.fromkeys(("rt-detr", "rf-detr"), stretched)
    shift, scale = {**sets, **dict.fromkeys(("yolov5", "yolov8", "yolo-e2e"), centre)}.get(kind, corner)
    expected = forms.PERSONS * (scale, 2, scale, 2) - (shift * scale, 0, shift * scale, 0)
    expected = np.clip(expected, 0, (128, 256, 128, 256))
    seen = expected[expected[:, 2] > expected[:, 0]]
    np.testing.assert_allclose(boxes, seen, atol=0.02)


def test_the_name_of_a_form_is_enough_where_a_graph_does_not_tell(tmp_path):
    path = forms.set_of_logits(tmp_path / "d.onnx", "0..1", 30, "a", "b")
    with pytest.raises(GraphError, match=r"can be one of several.*\(a \(1, 300, 4\), b \(1, 300, 30\)\).*name one"):
        Detector(forms.set_of_logits(tmp_path / "e.onnx", "anything", 30, "a", "b"), threads=1)
    assert Detector(path, threads=1).kind == "rt-detr"  # the figures tell it from RF-DETR
    assert Detector(path, kind="d-fine", threads=1).kind == "d-fine"


def test_detr_is_read_through_its_softmax(tmp_path):
    detect = Detector(forms.detr_of_softmax(tmp_path / "d.onnx"), kind="detr", threads=1)
    boxes, scores = detect(frame())
    np.testing.assert_allclose(boxes, forms.PERSONS * 2, atol=0.05)
    np.testing.assert_allclose(scores, forms.SCORES, atol=5e-3)
    assert detect.person_class == 1


def test_the_persons_class_is_the_one_that_the_metadata_names(tmp_path):
    names = {"names": "{0: 'bus', 16: 'person'}", "task": "detect"}
    path = forms.yolov8(tmp_path / "d.onnx", metadata=names)
    detect = Detector(path, threads=1)
    boxes, _ = detect(frame())
    assert detect.person_class == 16 and boxes.tolist() == [(forms.DOG[0] * 2).tolist()]
    assert Detector(path, person_class=0, threads=1).person_class == 0
    with pytest.raises(InputError, match="knows 80 classes, numbered from 0; person_class must be one of them"):
        Detector(path, person_class=80, threads=1)


def shaped(path, *shapes, low=0.0):
    """A graph of constant outputs of these shapes, seeded, that hang on nothing."""
    graph = forms.Graph("0..1")
    rng = np.random.default_rng(1)
    for number, shape in enumerate(shapes):
        graph.node("Identity", [graph.constant(rng.uniform(low, 3, shape).astype(np.float32))], name=f"out{number}")
        graph.output(f"out{number}")
    return graph.saved(path)


REFUSED = {
    "a pose head of keypoints": ([(1, 56, 336)], r"as 'yolov8', scores must lie in 0\.\.1"),
    "a classifier": ([(1, 1000)], r"of no known form .*: its outputs are out0 \(1, 1000\)"),
    "rows of seven": ([(100, 7)], r"its outputs are out0 \(100, 7\)"),
    "boxes alone": ([(1, 300, 4)], r"its outputs are out0 \(1, 300, 4\)"),
    "labels that scores are not told from": ([(1, 300), (1, 300, 4), (1, 300)], r"out0 \(1, 300\), out1 .*, out2"),
    "no such grid": ([(1, 85, 3000)], r"its outputs are out0 \(1, 85, 3000\)"),
    "maps of each stride": ([(1, 16, 16, 85), (1, 8, 8, 85), (1, 4, 4, 85)], r"out0 \(1, 16, 16, 85\), out1"),
}


@pytest.mark.parametrize(("shapes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_understood_is_refused_with_its_shapes(shapes, message, tmp_path):
    with pytest.raises(GraphError, match=message):
        Detector(shaped(tmp_path / "d.onnx", *shapes), threads=1)


def test_a_deploy_zip_and_its_folder_are_opened_in_place(tmp_path):
    folder = tmp_path / "deploy"
    folder.mkdir()
    path = forms.yolox_nms(folder / "end2end.onnx")
    with zipfile.ZipFile(tmp_path / "yolox.zip", "w") as archive:
        archive.write(path, "yolox/end2end.onnx")
    for where in (tmp_path / "yolox.zip", folder):
        detect = Detector(where, threads=1)
        assert detect.kind == "yolox-nms" and len(detect(frame())[0]) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deploy", "yolox.zip"]


def test_a_zip_without_a_graph_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "yolox.zip", "w") as archive:
        archive.writestr("readme.txt", "no graph")
    with pytest.raises(GraphError, match=r"'.*yolox\.zip' must hold exactly one ONNX file \(got none\)"):
        Detector(tmp_path / "yolox.zip")


def test_a_published_detector_is_not_fetched_by_a_running_program(tmp_path, monkeypatch):
    from sdk.detector_recipe import detector_by_name
    from sdk.resources import CACHE_VARIABLE, released_path

    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    with pytest.raises(InputError, match=re.escape("once with `sdk build-engine yolox-nano-416`")):
        Detector("yolox-nano-416")
    place = released_path(detector_by_name("yolox-nano-416").weights.url)
    place.parent.mkdir()
    forms.yolox_grid(place)
    with pytest.raises(InputError, match="takes 128x128 only"):
        Detector("yolox-nano-416")  # whatever lies there is opened as the recipe has it

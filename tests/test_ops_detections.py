"""`sdk.ops.detections` and the letterbox on the CPU: against their float64 references, and in words when misused."""

import platform

import numpy as np
import pytest

from sdk.detection import DetectionForm, Part, letterbox
from sdk.errors import InputError
from tests.support.ops_cases import DETECTION_CASES, MEAN, STD, noise_frame, noise_nv12, unfit_rows
from tests.support.ops_reference import crop_reference, crop_tolerance, detections_reference

pytestmark = pytest.mark.native

ops = pytest.importorskip("sdk.ops", exc_type=ImportError)

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["float32", "float16"])
PLAIN = DETECTION_CASES[0]


@DTYPES
@pytest.mark.parametrize("case", DETECTION_CASES, ids=str)
def test_detections_are_the_reference(case, dtype):
    outputs, arguments = case.outputs(dtype), case.arguments()
    boxes, scores = ops.detections(outputs, case.form, **arguments)
    expected_boxes, expected_scores = detections_reference(outputs, case.form, **arguments)
    assert (boxes.dtype, scores.dtype) == (np.float32, np.float32)
    assert boxes.shape == expected_boxes.shape
    np.testing.assert_allclose(boxes, expected_boxes, rtol=2e-6, atol=2e-6 * max(case.frame_hw))
    np.testing.assert_allclose(scores, expected_scores, rtol=2e-6)


def test_the_cases_find_persons_and_suppress_some():
    found = {}
    for case in DETECTION_CASES:
        candidates = DetectionCandidates(case)
        found[case.name] = (candidates.chosen, candidates.all)
    assert found["rtmdet"][0] > 20 and found["rtmdet"][0] < found["rtmdet"][1]
    assert found["most"][0] == 3
    assert found["nobody"][0] == found["no-rows"][0] == 0
    assert all(chosen for name, (chosen, _) in found.items() if name not in ("nobody", "no-rows"))


class DetectionCandidates:
    """How many rows of a case are chosen, and how many would be without suppression."""

    def __init__(self, case):
        outputs, arguments = case.outputs(), case.arguments()
        free = DetectionForm(**{**vars(case.form), "suppress": False})
        self.chosen = len(ops.detections(outputs, case.form, **arguments)[0])
        self.all = len(ops.detections(outputs, free, **{**arguments, "most": 1024})[0])


@pytest.mark.parametrize(("box", "score"), unfit_rows().values(), ids=unfit_rows())
def test_an_unfit_row_is_never_chosen_and_hides_nothing(box, score):
    outputs, arguments = PLAIN.outputs(), PLAIN.arguments()
    expected = ops.detections(outputs, PLAIN.form, **arguments)
    boxes, scores = (np.concatenate([each, each[:, :1]], axis=1) for each in outputs)
    boxes[0, -1], scores[0, -1] = box, score
    found = ops.detections([boxes, scores], PLAIN.form, **arguments)
    assert all(map(np.array_equal, found, expected))


def test_equal_scores_go_by_row():
    boxes = np.float32([[[0, 0, 10, 10], [1, 0, 11, 10], [50, 0, 60, 10], [20, 0, 30, 10]]])
    scores = np.float32([[[0.5], [0.5], [0.5], [0.5]]])
    found, _ = ops.detections([boxes, scores], PLAIN.form, **{**PLAIN.arguments(), "to_frame": np.eye(2, 3)})
    assert found[:, 0].tolist() == [0, 50, 20]


@pytest.mark.parametrize(("iou", "left"), [(0.49, 1), (0.5, 2)])
def test_only_more_than_the_limit_hides(iou, left):
    boxes, scores = np.float32([[[0, 0, 10, 20], [0, 0, 10, 10]]]), np.float32([[0.9, 0.8]])
    arguments = {**PLAIN.arguments(), "to_frame": np.eye(2, 3), "iou": iou}
    assert len(ops.detections([boxes, scores], PLAIN.form, **arguments)[0]) == left


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32, np.int64])
def test_labels_may_be_of_any_of_these_types(dtype):
    form = DetectionForm("xyxy", Part(0), Part(0, 4), label=Part(1), person_class=2, suppress=False)
    rows = np.random.default_rng(1).uniform(1, 9, (1, 6, 5)).astype(np.float32)
    rows[..., 2:4] += 20
    rows[..., 4] = 0.9
    labels = np.array([[0, 2, 1, 2, 0, 2]], dtype)
    boxes, _ = ops.detections([rows, labels], form, **PLAIN.arguments())
    assert np.array_equal(boxes, rows[0, [1, 3, 5], :4] * 3)


# ---- the letterbox ---------------------------------------------------------------------------------------------------

LETTERBOXES = {
    "720p": ((720, 1280), (320, 320), "corner", (180, 320)),
    "720p-centred": ((720, 1280), (320, 320), "centre", (180, 320)),
    "upright": ((128, 72), (96, 64), "centre", (96, 54)),
    "odd": ((101, 67), (64, 64), "corner", (64, 42)),
    "stretched": ((90, 160), (64, 48), "stretch", (64, 48)),
    "as-it-is": ((32, 32), (32, 32), "corner", (32, 32)),
    "enlarged": ((20, 30), (64, 64), "corner", (43, 64)),
    "one-pixel": ((1, 1), (32, 32), "centre", (32, 32)),
    "a-line": ((1, 4000), (32, 32), "corner", (1, 32)),
}


@DTYPES
@pytest.mark.parametrize(("frame_hw", "size_hw", "place", "inner"), LETTERBOXES.values(), ids=LETTERBOXES)
def test_the_letterbox_is_the_reference(frame_hw, size_hw, place, inner, dtype):
    box, frame = letterbox(frame_hw, size_hw, place), noise_frame(*frame_hw)
    assert box.inner_hw == inner
    options = {"mean": MEAN, "std": STD, "channel_order": "bgr", "border": 114}
    blob = ops.crop(frame, box.crop, size_hw, dtype=dtype, **options)
    expected = crop_reference(frame, box.crop, size_hw, **options)
    assert np.abs(blob - expected).max() <= crop_tolerance(MEAN, STD, dtype)


@pytest.mark.parametrize("name", ["720p", "720p-centred", "upright", "odd", "a-line"])
def test_beside_a_smaller_frame_all_is_the_border_and_inside_none(name):
    frame_hw, size_hw, place, (height, width) = LETTERBOXES[name]
    blob = ops.crop(
        np.full((*frame_hw, 3), 200, np.uint8), letterbox(frame_hw, size_hw, place).crop, size_hw, mean=(0, 0, 0),
        std=(1, 1, 1), border=114,
    )[0, 0]  # fmt: skip
    top, left = ((size_hw[0] - height) // 2, (size_hw[1] - width) // 2) if place == "centre" else (0, 0)
    expected = np.full(size_hw, 114, np.float32)
    expected[top : top + height, left : left + width] = 200
    assert np.array_equal(blob, expected)


@pytest.mark.parametrize("name", ["720p", "720p-centred", "upright", "odd"])
def test_a_box_comes_back_to_where_the_letterbox_put_it(name):
    """Edges: the inner frame's are the frame's."""
    frame_hw, size_hw, place, (height, width) = LETTERBOXES[name]
    top, left = ((size_hw[0] - height) // 2, (size_hw[1] - width) // 2) if place == "centre" else (0, 0)
    boxes = np.float32([[[left, top, left + width, top + height]]])
    to_frame = letterbox(frame_hw, size_hw, place).to_frame
    arguments = {"to_frame": to_frame, "size_hw": size_hw, "frame_hw": frame_hw, "score_threshold": 0.5, "iou": 0.5}
    found, _ = ops.detections([boxes, np.ones((1, 1), np.float32)], PLAIN.form, **arguments)
    np.testing.assert_allclose(found[0], [0, 0, frame_hw[1], frame_hw[0]], atol=1e-4)


def test_the_letterbox_is_opencvs_within_a_grey_level():
    cv2 = pytest.importorskip("cv2")
    most = 1 if platform.machine() == "x86_64" else 1.5  # OpenCV 5.0 for aarch64: 1.25, where ours has x86_64's bits
    for frame_hw, size_hw, _, (height, width) in (LETTERBOXES[name] for name in ("720p", "upright", "odd")):
        frame = noise_frame(*frame_hw)
        ours = ops.crop(
            frame, letterbox(frame_hw, size_hw).crop, size_hw, mean=(0, 0, 0), std=(1, 1, 1), channel_order="bgr"
        )
        theirs = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)
        assert np.abs(ours[0, :, :height, :width] - theirs).max() <= most


@pytest.mark.parametrize("border", [0, 16, 114, 255])
@pytest.mark.parametrize("value_range", ["limited", "full"])
@pytest.mark.parametrize("turned", [False, True], ids=["straight", "turned"])
def test_the_border_of_nv12_is_the_nearest_luma(border, value_range, turned):
    frame = noise_nv12(20, 30)
    affines = np.float32([[[0.7, 0.3 * turned, -4.25], [-0.3 * turned, 0.8, -3.5]], [[1, 0, 500], [0, 1, 0]]])
    options = {
        "mean": MEAN, "std": STD, "pixel_format": "nv12", "yuv_range": value_range, "border": border
    }  # fmt: skip
    crops = ops.crop(frame, affines, (32, 48), **options)
    assert np.abs(crops - crop_reference(frame, affines, (32, 48), **options)).max() <= crop_tolerance(
        MEAN, STD, np.float32
    )


@pytest.mark.parametrize("border", [-1, 256, 1.5, None, True])
def test_a_border_that_is_no_grey_level_is_refused(border):
    with pytest.raises(InputError, match=r"border must be a grey level, 0 to 255 \(got"):
        ops.crop(noise_frame(4, 4), np.zeros((1, 2, 3), np.float32), (2, 2), mean=MEAN, std=STD, border=border)


# ---- misuse ----------------------------------------------------------------------------------------------------------

ROWS = [np.zeros((1, 5, 4), np.float32), np.zeros((1, 5, 1), np.float32)]
GRID = {"box_form": "grid", "strides": (8,), "boxes": Part(0), "scores": Part(1)}
GOOD = {"outputs": ROWS, "form": PLAIN.form, **PLAIN.arguments()}
MISUSE = {
    "threshold": ({"score_threshold": 1.5}, r"score_threshold must be in 0..1 \(got 1.5\)"),
    "nan-threshold": ({"score_threshold": float("nan")}, "score_threshold must be in 0..1"),
    "iou": ({"iou": "half"}, r"iou must be in 0..1 \(got 'half'\)"),
    "most": ({"most": 0}, r"most must be a whole number, 1 to 1024 \(got 0\)"),
    "no-output": ({"outputs": ROWS[:1]}, r"outputs must hold output 1, which the form names \(got 1 outputs\)"),
    "no-batch": ({"outputs": [ROWS[0][0], ROWS[1]]}, r"output 0 must be a numpy array.*\(got 5 x 4 float32\)"),
    "two-pictures": ({"outputs": [np.zeros((2, 5, 4), np.float32), ROWS[1]]}, "output 0 must be a numpy array, 1 x"),
    "doubles": ({"outputs": [ROWS[0].astype(float), ROWS[1]]}, "output 0 must be a numpy array.*5 x 4 float64"),
    "whole-boxes": ({"outputs": [ROWS[0].astype(np.int32), ROWS[1]]}, "output of boxes must be float32 or float16"),
    "other-rows": ({"outputs": [ROWS[0], ROWS[1][:, :4]]}, r"must have the same rows \(got 5, 4\)"),
    "narrow-boxes": ({"outputs": [ROWS[0][..., :3], ROWS[1]]}, r"boxes must have columns 0 to 3 \(got 3 columns\)"),
    "other-grid": ({"form": DetectionForm(**GRID)}, r"for an input of 96 x 160 must have 240 rows \(got 5\)"),
    "turned-frame": ({"to_frame": np.ones((2, 3))}, "to_frame must be 2 x 3, input -> frame pixels, finite"),
    "no-frame": ({"frame_hw": (0, 5)}, r"frame_hw must be a height and a width, 1 to 16384 pixels \(got \(0, 5\)\)"),
    "no-form": ({"form": None}, r"form must be a sdk.detection.DetectionForm \(got NoneType\)"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), MISUSE.values(), ids=MISUSE)
def test_misuse_is_told_in_words(change, message):
    with pytest.raises(InputError, match=message):
        ops.detections(**{**GOOD, **change})


FORMS = {
    "box-form": ({"box_form": "xywh"}, r"box_form must be one of xyxy, cxcywh, grid \(got 'xywh'\)"),
    "units": ({"units": "cells"}, "units must be one of pixels, shares"),
    "activation": ({"activation": "relu"}, "activation must be one of none, sigmoid, softmax"),
    "classes": ({"classes": 0}, "classes must be a whole number from 1 on"),
    "person": ({"person_class": 1}, r"person_class must be one of the 1 classes \(got 1\)"),
    "labels-and-classes": ({"classes": 2, "label": Part(2)}, "classes must be 1 where a label says whose score it is"),
    "objectness": ({"objectness": -1}, r"objectness must be a column, or None \(got -1\)"),
    "one-class-shared": ({"activation": "softmax"}, "activation 'softmax' must have at least 2 classes"),
    "grid-without-strides": ({"box_form": "grid"}, "strides must be given for box_form 'grid'"),
    "strides-without-grid": ({"strides": (8,)}, "strides must be given for box_form 'grid', and for no other"),
    "bad-strides": ({"box_form": "grid", "strides": (8, 0)}, "strides must be at most 4 positive whole numbers"),
    "grid-of-shares": ({"box_form": "grid", "strides": (8,), "units": "shares"}, "units must be 'pixels' for box_form"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), FORMS.values(), ids=FORMS)
def test_a_form_that_nothing_can_have_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        DetectionForm(**{"box_form": "xyxy", "boxes": Part(0), "scores": Part(1), **change})


def test_a_part_and_a_letterbox_are_judged():
    with pytest.raises(InputError, match="a part's output and column must be whole numbers from 0 on"):
        Part(-1)
    with pytest.raises(InputError, match="a letterbox must have positive sides"):
        letterbox((0, 5), (32, 32))
    with pytest.raises(InputError, match=r"place must be one of corner, centre, stretch \(got 'left'\)"):
        letterbox((5, 5), (32, 32), "left")

"""PoseEstimator: opening it, what it refuses, closing, forks, the end of the interpreter; frames it only reads."""

import os
from dataclasses import replace

import numpy as np
import pytest

from sdk import PoseEstimator
from sdk.errors import ClosedError, EngineError, InputError
from sdk.people.tracking import Tracker
from tests.support.engines import BODY14, SMALL, SMALL_HEATMAP
from tests.support.frames import noise, random_boxes

pytestmark = pytest.mark.native
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
cv2 = pytest.importorskip("cv2")


def test_after_close_every_entry_says_so(small):
    estimate = PoseEstimator(small, device="cpu")
    estimate.close()
    estimate.close()
    for call in (lambda: estimate(noise()), lambda: estimate.submit(noise()), lambda: next(estimate.stream([noise()]))):
        with pytest.raises(ClosedError, match="the estimator is closed; make a new PoseEstimator"):
            call()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_told(small):
    """In a real child: the call must end in words, not in a hang."""
    estimate = PoseEstimator(small, device="cpu")
    estimate(noise())
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            estimate(noise())
            message = "no error"
        except ClosedError as error:
            message = str(error)
        os.write(writer, message.encode())
        os._exit(0)
    os.close(writer)
    assert b"before a fork; make a PoseEstimator in the child" in os.read(reader, 1000)
    os.waitpid(child, 0)


def test_the_frame_is_only_read(small):
    frame = noise()
    before = frame.copy()
    with PoseEstimator(small, device="cpu") as estimate:
        estimate(frame, random_boxes(4))
    np.testing.assert_array_equal(frame, before)


def test_nv12_frames_give_nearly_the_poses_of_bgr(small):
    smooth = cv2.GaussianBlur(noise(3), (0, 0), 9)
    smooth = cv2.normalize(smooth, None, 20, 235, cv2.NORM_MINMAX)
    i420 = cv2.cvtColor(smooth, cv2.COLOR_BGR2YUV_I420)
    luma, chroma = i420[:120], i420[120:].reshape(2, 60, 80)
    nv12 = np.concatenate([luma, chroma.transpose(1, 2, 0).reshape(60, 160)])
    boxes = random_boxes(6)
    with PoseEstimator(small, device="cpu") as plain, PoseEstimator(small, device="cpu", pixel_format="nv12") as yuv:
        a, b = plain(smooth, boxes), yuv(nv12, boxes)
        assert yuv(nv12).boxes.tolist() == [[0, 0, 160, 120]]
    assert np.median(np.abs(a.keypoints - b.keypoints)) < 1 and np.abs(a.scores - b.scores).max() < 0.2


OPTIONS = {
    "unknown device": ({"device": "tpu"}, "device must be 'auto', 'cpu', 'cuda'"),
    "unknown pixel format": ({"pixel_format": "yuyv"}, "pixel_format must be one of bgr, rgb, nv12"),
    "unknown refinement": ({"refine": "guess"}, "refine must be one of none, parabola, dark, expectation"),
    "a word for spread": ({"spread": "no"}, r"spread must be True or False \(got 'no'\)"),
    "a number for the flip": ({"flip_test": 1}, r"flip_test must be True or False \(got 1\)"),
    "no threads": ({"threads": 0}, "threads must be a whole number from 1 to 256"),
    "missing detector": ({"detector": "none.onnx"}, r"detector 'none\.onnx' does not exist"),
    "seldom without tracker": ({"detect_every": 2}, "detect_every .* needs a tracker above 1"),
    "half a turn": ({"detect_every": 1.5, "tracker": True}, "detect_every must be a whole number of at least 1"),
    "never": ({"detect_every": 0, "tracker": True}, "detect_every must be a whole number of at least 1"),
    "nobody": ({"max_persons": 0}, r"max_persons must be a whole number of at least 1, or None for all \(got 0\)"),
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS)
def test_options_are_refused_when_it_is_made(small, options, message):
    from sdk.errors import SdkError

    with pytest.raises(SdkError, match=message):
        PoseEstimator(small, **{"device": "cpu", **options})


def test_a_recipe_that_was_not_built_names_the_command():
    from sdk.recipe import catalogue
    from sdk.runtime.opening import bundled_name

    name = next(name for name in catalogue() if bundled_name(name) is None)
    with pytest.raises(EngineError, match=f"'{name}' is a recipe: .* with `sdk build-engine {name} "):
        PoseEstimator(name, device="cpu")


def test_random_weights_are_told(small, caplog):
    from sdk.manifest import WeightsNote

    random = replace(small, manifest=replace(small.manifest, weights=WeightsNote("random", "seed 0")))
    with caplog.at_level("WARNING", "sdk"):
        PoseEstimator(small, device="cpu").close()
        assert caplog.text == ""
        PoseEstimator(random, device="cpu").close()
    assert "has random weights (seed 0): its poses mean nothing" in caplog.text


def test_the_scale_of_scores_follows_the_rule(small):
    from sdk.runtime.confidence import scale_from_recipe

    assert scale_from_recipe(SMALL).fair == 0.3
    softmax = scale_from_recipe(BODY14)
    assert 1 / 256 < softmax.fair < softmax.sure < 0.1
    assert scale_from_recipe(SMALL_HEATMAP).fair == 0.2


@pytest.mark.parametrize("state", ["idle", "frames submitted", "a stream half-way"])
def test_the_interpreter_ends_cleanly_without_close(small, state):
    import subprocess
    import sys
    from pathlib import Path

    what = {
        "idle": "estimate(frame)",
        "frames submitted": "futures = [estimate.submit(frame) for _ in range(20)]",
        "a stream half-way": "stream = estimate.stream(frame for _ in range(99)); next(stream)",
    }
    code = f"""
import numpy as np
from sdk import PoseEstimator
frame = np.zeros((60, 80, 3), np.uint8)
estimate = PoseEstimator({str(small.folder)!r}, device="cpu", threads=1)
{what[state]}
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


BAD_HELPERS = {
    "a tracker by name": (
        {"tracker": "yes"},
        r"tracker must be True, or a Tracker, or None, or 'bytetrack' .*\(got 'yes'\)",
    ),
    "a tracker's class": ({"tracker": Tracker}, "tracker must be True"),
    "a number for a detector": ({"detector": 5}, r"detector must be .*ONNX file, or a callable.*\(got 5\)"),
}


@pytest.mark.parametrize(("options", "message"), BAD_HELPERS.values(), ids=BAD_HELPERS)
def test_helpers_of_another_kind_are_refused_at_opening(small, options, message):
    with pytest.raises(InputError, match=message):
        PoseEstimator(small, device="cpu", **options)


@pytest.mark.parametrize("given", [None, np.zeros((1, 4), np.float32)], ids=["nothing", "boxes alone"])
def test_a_detector_that_gives_something_else_is_told(small, given):
    estimate = PoseEstimator(small, device="cpu", detector=lambda frame: given)
    with estimate, pytest.raises(InputError, match="detector must give a pair, boxes N x 4 xyxy and scores N"):
        estimate(np.zeros((40, 40, 3), np.uint8))


UNUSABLE = {
    "an inverted box": ([[9, 0, 1, 9]], [0.5], "box 0 has no area"),
    "shares of the picture": ([[0.3, 0.2, 0.7, 0.8]], None, "boxes must be in pixels of the frame .*shares of"),
    "a list of two boxes": ([0, 0, 9, 9], [0, 0, 9, 9], "box_scores must be 1 finite numbers"),
}


@pytest.mark.parametrize(("boxes", "scores", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_is_wrong_with_a_detectors_boxes_is_told_as_the_detectors(small, boxes, scores, message):
    estimate = PoseEstimator(small, device="cpu", detector=lambda frame: [boxes, scores])
    with estimate, pytest.raises(InputError, match=f"what the detector gave cannot be used: {message}"):
        estimate(np.zeros((40, 40, 3), np.uint8))

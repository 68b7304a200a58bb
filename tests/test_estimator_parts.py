"""What PoseEstimator hands to its parts, and what it makes of their answers."""

from dataclasses import replace

import numpy as np
import pytest

from sdk import PoseEstimator, ops
from sdk.errors import ClosedError
from sdk.geometry import crop_affines
from sdk.heatmap import decode_heatmaps, merge_flipped
from sdk.people import following
from sdk.runtime import estimator as box_estimator
from sdk.runtime.opening import engine_from
from sdk.runtime.ort_session import OrtSession
from sdk.runtime.pipeline import CpuPipeline
from tests.support.engines import wrapped_engine
from tests.support.fairness import check_fair
from tests.support.frames import noise, random_boxes

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def engines(small_graphs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    made = {kind: wrapped_engine(graph, folder / kind, recipe) for kind, (graph, recipe) in small_graphs.items()}
    return {kind: engine_from(each) for kind, each in made.items()}


@pytest.fixture(params=["simcc"])
def estimate(request, engines):
    with PoseEstimator(engines[request.param], device="cpu") as opened:
        yield opened


def test_threads_are_the_sessions_the_ops_and_the_detectors(engines, monkeypatch):
    asked, before = [], ops.threads()
    monkeypatch.setattr("sdk.people.detector.Detector", lambda path, threads: asked.append((path, threads)))
    try:
        with PoseEstimator(engines["simcc"], device="cpu", detector="person.onnx", threads=2) as estimate:
            options = estimate._pipeline.session._session.get_session_options()
            assert (options.intra_op_num_threads, ops.threads(), asked) == (2, 2, [("person.onnx", 2)])
    finally:
        ops.set_threads(before)


def test_a_detector_sees_bgr(engines):
    seen, frame = [], noise()
    with PoseEstimator(
        engines["simcc"], device="cpu", pixel_format="rgb", detector=lambda frame: seen.append(frame) or ([], [])
    ) as estimate:
        estimate(frame)
    np.testing.assert_array_equal(seen, [frame[:, :, ::-1]])


def test_threads_get_cores_in_the_order_of_their_coming(estimate):
    check_fair(estimate._pipeline._turns._places, lambda: estimate(noise(), random_boxes(1)), 6, 20)


def test_threads_get_the_tracker_in_the_order_of_their_coming(engines):
    with PoseEstimator(engines["simcc"], device="cpu", tracker=True) as estimate:
        check_fair(estimate._tracking._places, lambda: estimate(noise(), random_boxes(1)), 6, 20)


def test_times_of_chunks_add_up(estimate, monkeypatch):
    spent = {"network": 1.5, "transfer": "whole"}
    joints = len(estimate.recipe.skeleton.joints)
    monkeypatch.setattr(
        estimate._pipeline, "run", lambda _, affines, flip: (np.zeros((len(affines), joints, 3), np.float32), spent)
    )
    timings = estimate(noise(), random_boxes(9)).timings_ms  # above the engine's batch of 8: two chunks
    assert (timings["network"], timings["transfer"]) == (3.0, "whole")


def test_the_total_includes_tracking(engines, monkeypatch):
    ticks = iter(range(9))  # seconds
    with PoseEstimator(engines["simcc"], device="cpu", tracker=True) as estimate:
        for module in (box_estimator, following):
            monkeypatch.setattr(module, "perf_counter", lambda: next(ticks))
        assert estimate(noise(), []).timings_ms == {"total": 2000.0, "track": 1000.0}


@pytest.mark.parametrize(("estimate", "fair"), [("simcc", 0.3), ("heatmap", 0.2)], indirect=["estimate"])
def test_poses_know_what_their_scores_mean(estimate, fair):
    assert estimate(noise()).score_scale.fair == fair


def test_frames_that_depend_on_each_other_are_not_in_flight_together(engines, monkeypatch):
    with PoseEstimator(engines["simcc"], device="cpu", tracker=True) as estimate:
        monkeypatch.setattr(estimate._pipeline, "lanes", 3, raising=False)
        assert estimate._in_flight() == 1


def test_closing_closes_the_pipeline(engines):
    with PoseEstimator(engines["simcc"], device="cpu") as estimate:
        session = estimate._pipeline.session
    with pytest.raises(ClosedError):
        session.run(np.zeros((1, 3, 64, 48), np.float32))


@pytest.mark.parametrize("shift", [False, True], ids=["in place", "shifted"])
@pytest.mark.parametrize("kind", ["simcc", "heatmap"])
def test_mirrored_outputs_are_merged_by_the_recipe(engines, kind, shift):
    engine = engines[kind]
    recipe = replace(engine.manifest.recipe, protocol=replace(engine.manifest.recipe.protocol, flip_shift=shift))
    rng, affines, skeleton = np.random.default_rng(0), crop_affines(random_boxes(2), (64, 48), 1.25), recipe.skeleton
    sizes = [(14, bins) for bins in recipe.bins_xy] if kind == "simcc" else [(14, 16, 12)]
    outputs, mirrored = (tuple(rng.standard_normal((2, *size)).astype(np.float32) for size in sizes) for _ in range(2))
    with CpuPipeline(OrtSession(replace(engine, manifest=replace(engine.manifest, recipe=recipe)))) as pipeline:
        found = pipeline.decode(outputs, mirrored, affines)
    if kind == "simcc":
        rules = {"score": recipe.output.score, "flip_pairs": skeleton.flip_pairs, "flip_shift": shift}
        expected = ops.decode(*outputs, affines, recipe.output.split_ratio, flipped=mirrored, **rules)
    else:
        merged = merge_flipped(outputs[0], mirrored[0], skeleton.flip_order, shift)
        expected = decode_heatmaps(merged, affines, (64, 48))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("pixel_format", "flip", "runs"), [("bgr", False, 1), ("nv12", True, 2)])
def test_warming_up_on_the_cpu_runs_the_network(engines, monkeypatch, pixel_format, flip, runs):
    with PoseEstimator(engines["simcc"], device="cpu", pixel_format=pixel_format, flip_test=flip) as estimate:
        session, calls = estimate._pipeline.session, []
        run = session.run
        monkeypatch.setattr(session, "run", lambda crops: calls.append(len(crops)) or run(crops))
        estimate.warm()
    assert calls == [1] * runs

"""`PoseEstimator(device="cuda")` on a simulated device: dispatch, calls, submit, stream, frames on the device."""

import gc
import threading
import weakref

import numpy as np
import pytest

import sdk
from sdk.errors import ClosedError, EngineError, InputError
from sdk.runtime import device as choosing
from sdk.runtime.cuda import gpu_pipeline, tensorrt_session
from sdk.runtime.cuda.frame_lane import FrameLane
from sdk.runtime.opening import open_session
from tests.support.cuda_frames import DeviceArray, random_frame
from tests.support.engines import SMALL, pooled_simcc_graph, wrapped_engine
from tests.support.simulated_cuda import Simulated
from tests.support.simulated_plan import install, simulated_engine

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytestmark = pytest.mark.native

NATIVE_PROBLEM = choosing.native_problem  # before the simulation takes its place


@pytest.fixture
def engine(emulated, tmp_path, monkeypatch):
    """An engine that the simulated device can run."""
    graph = pooled_simcc_graph(tmp_path / "small.onnx", SMALL)
    made = simulated_engine(wrapped_engine(graph, tmp_path / "small", SMALL))
    device = Simulated(lag=2)
    kernels = install(monkeypatch, device, made, emulated)
    for module in (gpu_pipeline, tensorrt_session):
        monkeypatch.setattr(module, "NativeKernels", lambda: kernels)
    return made


def boxes_of(count, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(10, 60, (count, 2))], axis=1).astype(np.float32)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "auto"])
def test_the_estimator_runs_on_the_device_asked_for(engine, device):
    frame, boxes = random_frame(), boxes_of(11)  # above the engine's batch of 8: two chunks
    with sdk.PoseEstimator(engine, device="cpu") as cpu, sdk.PoseEstimator(engine, device=device) as gpu:
        assert gpu.device == "cuda:0"
        poses = gpu(frame, boxes)
        np.testing.assert_array_equal(poses.keypoints, cpu(frame, boxes).keypoints)
        assert poses.timings_ms["transfer"] == "packed"
        assert {"upload", "launch", "device", "download", "total"} <= set(poses.timings_ms)
        assert gpu(frame, np.zeros((0, 4))).keypoints.shape == (0, 14, 2)


def test_auto_takes_the_cpu_where_the_ops_have_no_cuda_half(engine, monkeypatch, caplog):
    from sdk import _native

    monkeypatch.setattr(_native, "cuda", None)
    monkeypatch.setattr(choosing, "native_problem", NATIVE_PROBLEM)
    with caplog.at_level("INFO", "sdk"), sdk.PoseEstimator(engine, device="auto") as estimate:
        assert estimate.device == "cpu"
    assert "runs on cpu" in caplog.text and "CUDA half" in caplog.text


def test_a_device_that_is_not_there_is_refused(engine):
    with pytest.raises(sdk.SdkError, match="there is no device 1; the driver sees 1"):
        sdk.PoseEstimator(engine, device="cuda:1")


def test_all_is_done_on_the_device_asked_for(engine):
    simulated = gpu_pipeline.NativeKernels().device
    simulated.devices = 2
    with sdk.PoseEstimator(engine, device="cuda:1") as estimate:
        assert estimate.device == "cuda:1"
        estimate(sdk.pinned_frame(90, 120, device="cuda:1"), boxes_of(2))
    with open_session(engine, "cuda:1") as session:
        assert session.device == "cuda:1"
        session.run(np.zeros((1, 3, 64, 48), np.float32))
    assert simulated.indices == {1}


def test_an_engine_without_a_plan_is_refused_on_the_gpu(engine, tmp_path):
    bare = wrapped_engine(engine.graph_path, tmp_path / "bare", SMALL)
    with pytest.raises(EngineError, match="no plan"):
        sdk.PoseEstimator(bare, device="cuda")


def test_a_frame_on_the_device_is_taken_as_it_is(engine):
    frame, boxes = random_frame(), boxes_of(3)
    with sdk.PoseEstimator(engine, device="cpu") as cpu, sdk.PoseEstimator(engine, device="cuda") as gpu:
        poses = gpu(DeviceArray(frame), boxes)
        np.testing.assert_array_equal(poses.keypoints, cpu(frame, boxes).keypoints)
        assert poses.timings_ms["transfer"] == "none: on the device"
        with pytest.raises(InputError, match="device memory"):
            cpu(DeviceArray(frame), boxes)


def test_submitted_and_streamed_frames_keep_their_order(engine):
    frames = [random_frame(seed) for seed in range(9)]
    boxes = [boxes_of(1 + seed % 4, seed) for seed in range(9)]
    with sdk.PoseEstimator(engine, device="cuda") as estimate:
        expected = [estimate(f, b).keypoints for f, b in zip(frames, boxes, strict=True)]
        futures = [estimate.submit(f, b) for f, b in zip(frames, boxes, strict=True)]
        streamed = list(estimate.stream(zip(frames, boxes, strict=True)))
        for want, future, poses in zip(expected, futures, streamed, strict=True):
            np.testing.assert_array_equal(future.result().keypoints, want)
            np.testing.assert_array_equal(poses.keypoints, want)


class Producer:
    """A frame whose owner, like torch, looks up its current stream in the thread that asks."""

    def __init__(self, array):
        self.array, self.asked = array, []

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, *, stream=None):
        self.asked.append((threading.get_ident(), stream))
        return self.array.__dlpack__()


def test_a_submitted_device_frame_waits_for_the_stream_of_the_thread_that_submits(engine, emulated):
    frame, boxes, called = Producer(random_frame()), boxes_of(2), Producer(random_frame())
    with sdk.PoseEstimator(engine, device="cuda") as estimate:
        expected = estimate(called, boxes).keypoints
        device = estimate._pipeline._device
        arrivals, (lane,) = int(device.arrivals.handle), estimate._pipeline._pool.every()
        np.testing.assert_array_equal(estimate.submit(frame, boxes).result().keypoints, expected)
        waits = estimate._pipeline._program.kernels.device.waits
    assert called.asked == [(threading.get_ident(), lane.stream_handle)]
    assert frame.asked == [(threading.get_ident(), arrivals)] and arrivals != int(device.stream.handle)
    assert waits == [(lane.stream_handle, arrivals)]
    gc.collect()
    assert emulated.library.emulated_live_events() == 0


def test_a_submitted_device_frame_waits_for_the_stream_it_names(engine):
    with sdk.PoseEstimator(engine, device="cuda") as estimate:
        estimate.submit(DeviceArray(random_frame(), stream=77), boxes_of(1)).result()
        assert [producer for _, producer in estimate._pipeline._program.kernels.device.waits] == [77]


def test_what_a_frames_owner_hands_over_lives_until_it_was_read(engine, monkeypatch):
    class Copying(Producer):
        def __dlpack__(self, *, stream=None):
            copy = self.array.copy().view(type("Owned", (np.ndarray,), {}))
            self.handed = weakref.ref(copy)
            return copy.__dlpack__()

    frame, alive, downloaded = Copying(random_frame()), [], FrameLane._downloaded
    monkeypatch.setattr(
        FrameLane, "_downloaded", lambda *given: alive.append(frame.handed() is not None) or downloaded(*given)
    )
    with sdk.PoseEstimator(engine, device="cuda") as estimate:
        estimate(frame, boxes_of(1))
        estimate.submit(frame, boxes_of(1)).result()
    gc.collect()
    assert alive and all(alive) and frame.handed() is None


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_submitted_boxes_may_change_at_once(engine, device):
    """A caller that reuses its buffers: each call has the boxes it was given."""
    frame, boxes, scores = random_frame(), boxes_of(2), np.array([0.5, 0.25], np.float32)
    with sdk.PoseEstimator(engine, device=device) as estimate:
        expected, pending = [], []
        for _ in range(6):
            expected.append(boxes.copy())
            pending.append(estimate.submit(frame, boxes, box_scores=scores))
            boxes += 3
        for want, future in zip(expected, pending, strict=True):
            np.testing.assert_array_equal(future.result().boxes, want)


def test_warm_leaves_nothing_for_the_first_call(engine):
    with sdk.PoseEstimator(engine, device="cuda", flip_test=True) as estimate:
        estimate.warm()
        device = estimate._pipeline._program.kernels.device
        captures = device.captures
        assert captures == 3 * 4  # lanes, batch sizes
        estimate(random_frame(), boxes_of(3))
        assert device.captures == captures
    with sdk.PoseEstimator(engine, device="cpu") as estimate:
        estimate.warm()
    with pytest.raises(ClosedError):
        estimate.warm()


def test_a_stream_takes_no_more_frames_than_are_in_flight(engine):
    taken = []

    def source():
        for seed in range(20):
            taken.append(seed)
            yield random_frame(seed), boxes_of(1)

    with sdk.PoseEstimator(engine, device="cuda") as estimate:
        for given, _ in enumerate(estimate.stream(source())):
            assert len(taken) - given <= 4  # three lanes, and one that waits
    assert len(taken) == 20


def test_frames_of_a_stream_are_in_flight_together(engine, monkeypatch):
    inside, lock, two_at_once = [0], threading.Lock(), threading.Event()
    run = gpu_pipeline.GpuPipeline._flown

    def counted(self, *arguments, **options):
        with lock:
            inside[0] += 1
            if inside[0] == 2:
                two_at_once.set()
        two_at_once.wait(timeout=20)
        try:
            return run(self, *arguments, **options)
        finally:
            with lock:
                inside[0] -= 1

    monkeypatch.setattr(gpu_pipeline.GpuPipeline, "_flown", counted)
    with sdk.PoseEstimator(engine, device="cuda") as estimate:
        list(estimate.stream([(random_frame(seed), boxes_of(1)) for seed in range(6)]))
    assert two_at_once.is_set()


def test_closing_refuses_later_calls(engine):
    estimate = sdk.PoseEstimator(engine, device="cuda")
    estimate(random_frame(), boxes_of(1))
    estimate.close()
    with pytest.raises(ClosedError):
        estimate(random_frame(), boxes_of(1))


def test_a_session_opens_by_the_same_names(engine):
    crops = np.random.default_rng(0).standard_normal((3, 3, 64, 48)).astype(np.float32)
    with open_session(engine, "cuda") as gpu, open_session(engine, "cpu") as cpu:
        for a, b in zip(gpu.run(crops), cpu.run(crops), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float16", "float64", "strided", "list"])
def test_raw_boxes_of_every_number_type_give_the_same_poses(engine, dtype):
    frame, plain = random_frame(), np.array([[10, 20, 50, 80], [0, 0, 119, 90], [70, 5, 110, 60]])
    given = {"strided": np.asfortranarray(plain.astype(np.float32)), "list": plain.tolist()}
    boxes = given[dtype] if dtype in given else plain.astype(dtype)
    with sdk.PoseEstimator(engine, device="cuda") as gpu, sdk.PoseEstimator(engine, device="cpu") as cpu:
        found, expected = gpu(frame, boxes), cpu(frame, plain.astype(np.float32))
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    assert found.boxes.dtype == np.float32 and found.boxes.tolist() == plain.tolist()


BAD_BOXES = {
    "NaN": ([[0, float("nan"), 5, 5]], "box 0 must be finite numbers (got [0.0, nan, 5.0, 5.0])"),
    "far": ([[0, 0, 5, 5], [0, 0, 2.0**31, 5]], "box 1 must lie within 2^30 pixels"),
    "no area": ([[0, 0, 10, 10], [40, 5, 40, 25]], "box 1 has no area: x2 must exceed x1 (got x1=40.0, x2=40.0)"),
    "the last of many": ([[0, 0, 10, 10]] * 20 + [[0, 9, 9, 9]], "box 20 has no area: y2 must exceed y1"),
    "shares": ([[0.1, 0.2, 0.5, 0.9]], "boxes must be in pixels of the frame"),
    "five columns": ([[1, 2, 3, 4, 5]], "boxes must have the shape N x 4"),
}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("case", BAD_BOXES)
def test_what_is_no_box_is_refused_in_the_same_words_and_the_next_call_goes_well(engine, case, device):
    boxes, message = BAD_BOXES[case]
    with sdk.PoseEstimator(engine, device=device) as estimate:
        expected = estimate(random_frame(), boxes_of(2)).keypoints
        with pytest.raises(InputError) as caught:
            estimate(random_frame(), np.array(boxes))
        assert message in str(caught.value)
        np.testing.assert_array_equal(estimate(random_frame(), boxes_of(2)).keypoints, expected)

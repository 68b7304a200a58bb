"""PoseEstimator in the background: futures, streams, frames in flight, threads."""

import pickle
import threading

import numpy as np
import pytest

from sdk import PoseEstimator
from sdk.errors import InputError
from sdk.runtime import opening
from sdk.runtime.pipeline import CpuPipeline
from tests.support.frames import noise, random_boxes
from tests.support.threads import in_threads

pytestmark = pytest.mark.native


def test_futures_come_in_order_and_equal_calls(small):
    frames, boxes = [noise(i) for i in range(8)], random_boxes(2)
    with PoseEstimator(small, device="cpu") as estimate:
        futures = [estimate.submit(frame, boxes) for frame in frames]
        for frame, future in zip(frames, futures, strict=True):
            np.testing.assert_array_equal(future.result().keypoints, estimate(frame, boxes).keypoints)


def test_a_failed_future_raises_and_the_next_is_served(small):
    with PoseEstimator(small, device="cpu") as estimate:
        broken, whole = estimate.submit(None), estimate.submit(noise())
        with pytest.raises(InputError, match="frame is None"):
            broken.result()
        assert len(whole.result()) == 1


def test_close_finishes_what_was_submitted(small):
    estimate = PoseEstimator(small, device="cpu")
    futures = [estimate.submit(noise(i)) for i in range(5)]
    estimate.close()
    assert [len(future.result()) for future in futures] == [1] * 5


def test_an_error_in_the_block_cancels_what_has_not_begun(small, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(self, frame, affines, *, flip=False):
        begun.set()
        assert go_on.wait(30)
        return np.zeros((len(affines), self.recipe.joints, 3), np.float32), {}

    monkeypatch.setattr(CpuPipeline, "run", slow)
    with pytest.raises(KeyboardInterrupt), PoseEstimator(small, device="cpu") as estimate:
        futures = [estimate.submit(noise()) for _ in range(3)]
        assert begun.wait(30)
        threading.Timer(0.1, go_on.set).start()
        raise KeyboardInterrupt
    assert [future.cancelled() for future in futures] == [False, True, True]


@pytest.mark.parametrize(("depth", "expected_ahead"), [(1, 1), (2, 2), (4, 4), (None, 2)])
def test_a_stream_keeps_order_and_looks_ahead_as_far_as_told(small, depth, expected_ahead):
    taken, given, ahead = [], 0, []

    def camera():
        for index in range(9):
            taken.append(index)
            ahead.append(len(taken) - given)
            yield noise(index), random_boxes(index % 3, index)

    with PoseEstimator(small, device="cpu") as estimate:
        for index, poses in enumerate(estimate.stream(camera(), depth=depth)):
            given += 1
            expected = estimate(noise(index), random_boxes(index % 3, index))
            np.testing.assert_array_equal(poses.keypoints, expected.keypoints)
    assert given == 9 and max(ahead) == expected_ahead


class OnDevice:
    """An array that says it lies in CUDA memory."""

    __cuda_array_interface__ = {"shape": (120, 160, 3), "typestr": "|u1", "data": (4096, False), "version": 3}  # noqa: RUF012


def test_a_frame_in_device_memory_is_refused_on_the_cpu(small):
    with (
        PoseEstimator(small, device="cpu") as estimate,
        pytest.raises(
            InputError, match="lies in device memory, and this estimator runs on the CPU; give a numpy array"
        ),
    ):
        estimate(OnDevice())


class Device(CpuPipeline):
    """A pipeline as a GPU's looks to the estimator: three frames in flight, frames of any kind."""

    device, lanes = "cuda:0", 3

    def arrived(self, frame):
        return frame

    def run(self, frame, affines, *, flip=False):
        self.running = getattr(self, "running", 0) + 1
        self.most = max(getattr(self, "most", 0), self.running)
        self.together.wait(timeout=20)
        self.running -= 1
        return np.full((len(affines), 14, 3), affines[0, 0, 0], np.float32), {}


def test_frames_in_flight_follow_the_devices_lanes(small, monkeypatch):
    from sdk.runtime.ort_session import OrtSession

    pipeline = Device(OrtSession(small))
    pipeline.together = threading.Barrier(3)
    monkeypatch.setattr(opening, "open_pipeline", lambda *_, **__: pipeline)
    with PoseEstimator(small) as estimate:
        poses = list(estimate.stream((OnDevice() for _ in range(6)), depth=3))
    assert len(poses) == 6 and pipeline.most == 3
    np.testing.assert_array_equal(poses[0].boxes, [[0, 0, 160, 120]])


def test_a_detector_needs_the_frame_in_host_memory(small, monkeypatch):
    from sdk.runtime.ort_session import OrtSession

    monkeypatch.setattr(opening, "open_pipeline", lambda *_, **__: Device(OrtSession(small)))
    with (
        PoseEstimator(detector=lambda _: ([], [])) as estimate,
        pytest.raises(InputError, match="a detector on the CPU needs the frame in host memory; give boxes"),
    ):
        estimate(OnDevice())


def test_a_stream_of_bare_frames_and_one_that_is_left_early(small):
    with PoseEstimator(small, device="cpu") as estimate:
        stream = estimate.stream(noise(i) for i in range(100))
        assert len(next(stream)) == 1
        stream.close()
        assert len(estimate(noise())) == 1
        for depth in (0, 1.5):
            with pytest.raises(InputError, match="depth must be a whole number"):
                next(estimate.stream([], depth=depth))


def test_a_stream_left_early_does_no_work_ahead(small, monkeypatch):
    calls, left, call = [], threading.Event(), PoseEstimator._call

    def counted(*given):
        calls.append(given)
        if len(calls) > 1:
            left.wait(timeout=30)
        return call(*given)

    monkeypatch.setattr(PoseEstimator, "_call", counted)
    with PoseEstimator(small, device="cpu") as estimate:
        stream = estimate.stream((noise(i) for i in range(100)), depth=8)
        next(stream)
        stream.close()
        left.set()
    assert len(calls) <= 2  # the second may have begun


def unplugged():
    yield from (noise(i) for i in range(10))
    raise OSError("unplugged")


def no_frame():
    yield from (noise(i) for i in range(10))
    yield (1, 2, 3, 4)


def unread():
    yield from (noise(i) for i in range(10))
    yield "not a frame"


@pytest.mark.parametrize("depth", [1, 3, 8, 20])
@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (unplugged, OSError, "unplugged"),
        (no_frame, InputError, "got a tuple of 4"),
        (unread, InputError, "frame must be"),
    ],
    ids=["the source raises", "an item is no frame", "a frame is none"],
)
def test_what_was_taken_before_a_fault_comes_out_first_and_in_order(small, source, error, message, depth):
    found = []
    with PoseEstimator(small, device="cpu") as estimate:
        expected = [estimate(noise(i)).keypoints for i in range(10)]
        with pytest.raises(error, match=message):
            for poses in estimate.stream(source(), depth=depth):
                found.append(poses.keypoints)
    np.testing.assert_array_equal(found, expected)


def test_a_stream_of_what_is_no_list_is_refused_in_words(small):
    with PoseEstimator(small, device="cpu") as estimate, pytest.raises(InputError, match=r"or another .* \(got 5\)"):
        next(estimate.stream(5))


def test_threads_share_an_estimator(small):
    frames = [noise(i) for i in range(6)]
    boxes = random_boxes(9)
    with PoseEstimator(small, device="cpu", threads=1) as estimate:
        expected = [estimate(frame, boxes).keypoints for frame in frames]
        wrong = []

        def work(_):
            for frame, keypoints in zip(frames, expected, strict=True):
                if not np.array_equal(estimate(frame, boxes).keypoints, keypoints):
                    wrong.append(1)

        in_threads(work, 4)
    assert not wrong


def test_an_item_of_a_stream_is_a_frame_with_or_without_boxes_and_scores(small):
    boxes, scores = random_boxes(2), np.array([0.25, 0.5], np.float32)
    with PoseEstimator(small, device="cpu") as estimate:
        found = estimate.stream([noise(), (noise(), boxes), (noise(), boxes, scores)])
        assert [poses.box_scores.tolist() for poses in found] == [[1.0], [1.0, 1.0], [0.25, 0.5]]
        for wrong in ((noise(),), (noise(), boxes, scores, 1)):
            with pytest.raises(InputError, match=rf"must be a frame, \(frame, boxes\) or .*a tuple of {len(wrong)}"):
                list(estimate.stream([wrong]))


def test_an_estimator_is_not_sent_to_another_process(small):
    with PoseEstimator(small, device="cpu") as estimate, pytest.raises(InputError, match="cannot be pickled"):
        pickle.dumps(estimate)

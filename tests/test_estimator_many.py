"""`estimate.many`: persons of several frames in shared batches are what a call a frame gives, on CPU and GPU."""

import numpy as np
import pytest

import sdk
from sdk.errors import ClosedError, InputError
from tests.support.cuda_frames import DeviceArray, random_frame

pytestmark = pytest.mark.native
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

SIZES = ((90, 120), (64, 48), (90, 120), (200, 150), (31, 33))


@pytest.fixture
def engine(simulate):
    """An engine whose largest batch is 8, on the CPU and on a simulated device."""
    from sdk.runtime.cuda import gpu_pipeline

    _, engine, kernels = simulate()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_pipeline, "NativeKernels", lambda: kernels)
        yield engine


def boxes_in(count, hw, seed=0, dtype=np.float32):
    rng = np.random.default_rng([seed, count])
    corner = rng.uniform(-10, np.array(hw[::-1]) - 4, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(4, 60, (count, 2))], axis=1).astype(dtype)


def assert_as_alone(estimate, frames, boxes, together):
    assert len(together) == len(frames)
    for frame, own, poses in zip(frames, boxes, together, strict=True):
        alone = estimate(frame, own)
        for name in ("keypoints", "scores", "boxes", "box_scores"):
            np.testing.assert_array_equal(getattr(poses, name), getattr(alone, name), err_msg=name)
        assert poses.keypoints.flags.c_contiguous and poses.scores.flags.c_contiguous


COUNTS = {
    "one-each": (1, 1, 1, 1, 1),
    "some-empty": (0, 3, 0, 2, 0),
    "beyond-a-batch": (5, 9, 1, 20, 3),
    "nobody": (0,) * 5,
}


@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_each_frame_gets_what_a_call_gives(engine, device, counts, flip):
    frames = [random_frame(seed, hw) for seed, hw in enumerate(SIZES)]
    boxes = [boxes_in(count, hw, seed) for seed, (count, hw) in enumerate(zip(counts, SIZES, strict=True))]
    with sdk.PoseEstimator(engine, device=device, flip_test=flip) as estimate:
        assert_as_alone(estimate, frames, boxes, estimate.many(frames, boxes))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("pixel_format", ["rgb", "nv12"])
def test_frames_of_other_formats(engine, device, pixel_format):
    frames = [random_frame(seed, hw) for seed, hw in enumerate(((60, 80), (30, 44)))]
    if pixel_format == "nv12":
        frames = [np.ascontiguousarray(frame[:, :, 0]) for frame in frames]
    boxes = [boxes_in(2, (40, 60)), boxes_in(1, (20, 40))]
    with sdk.PoseEstimator(engine, device=device, pixel_format=pixel_format) as estimate:
        assert_as_alone(estimate, frames, boxes, estimate.many(frames, boxes))


def test_frames_of_the_host_and_the_device_share_a_batch(engine):
    """Pageable, page-locked, upside down, a view, and in device memory."""
    plain = [random_frame(seed, hw) for seed, hw in enumerate(SIZES)]
    pinned = sdk.pinned_frame(*SIZES[1])
    pinned[...] = plain[1]
    given = [plain[0], pinned, DeviceArray(plain[2]), np.ascontiguousarray(plain[3][::-1])[::-1], plain[4][2:, 3:]]
    boxes = [boxes_in(1 + seed % 2, hw, seed) for seed, hw in enumerate(SIZES)]
    with sdk.PoseEstimator(engine, device="cuda") as estimate, sdk.PoseEstimator(engine, device="cpu") as cpu:
        together = estimate.many(given, boxes)
        kinds = str(together[0].timings_ms["transfer"])
        assert "packed" in kinds and "none: on the device" in kinds and ("rows" in kinds or "whole" in kinds)
        assert_as_alone(cpu, [*plain[:4], plain[4][2:, 3:]], boxes, together)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_boxes_of_each_kind_and_scores_of_each_frame(engine, device):
    frames = [random_frame(seed) for seed in range(4)]
    boxes = [
        [10, 20, 50, 80],
        boxes_in(2, (90, 120), dtype=np.float64),
        boxes_in(3, (90, 120)).astype(int)[:, ::1],
        None,
    ]
    scores = [[0.5], None, np.array([0.1, 0.2, 0.3]), None]
    with sdk.PoseEstimator(engine, device=device) as estimate:
        together = estimate.many(iter(frames), iter(boxes), box_scores=scores)
        assert together[0].box_scores.tolist() == [0.5]
        np.testing.assert_allclose(together[2].box_scores, [0.1, 0.2, 0.3])
        np.testing.assert_array_equal(together[3].boxes, [[0, 0, 120, 90]])  # whole
        for frame, own, poses in zip(frames, boxes, together, strict=True):
            np.testing.assert_array_equal(poses.keypoints, estimate(frame, own).keypoints)
        assert estimate.many([], []) == []


def test_one_launch_serves_as_many_frames_as_a_batch_holds(simulate, monkeypatch):
    from sdk.runtime.cuda import gpu_pipeline

    device, engine, kernels = simulate()
    monkeypatch.setattr(gpu_pipeline, "NativeKernels", lambda: kernels)
    frames, boxes = [random_frame(seed) for seed in range(8)], [boxes_in(1, (90, 120), seed) for seed in range(8)]
    with sdk.PoseEstimator(engine, device="cuda") as estimate:
        estimate.many(frames, boxes)
        before = device.launches, device.allocations
        estimate.many(frames, boxes)
        assert (device.launches, device.allocations) == (before[0] + 1, before[1])


def test_a_detector_finds_the_persons_of_frames_without_boxes(engine):
    seen = []

    def detector(frame):
        seen.append(frame.shape)
        return boxes_in(2, frame.shape[:2]), [0.5, 0.25]

    frames = [random_frame(seed, hw) for seed, hw in enumerate(SIZES[:3])]
    with sdk.PoseEstimator(engine, device="cpu", detector=detector) as estimate:
        found = estimate.many(frames, [None, boxes_in(1, (64, 48)), None])
    assert [len(poses) for poses in found] == [2, 1, 2] and seen == [frames[0].shape, frames[2].shape]
    assert found[2].box_scores.tolist() == [0.5, 0.25]


FRAME, BOX = random_frame(), [[10, 20, 50, 80]]
BAD = {
    "frames that are no list": (5, None, None, "frames must be a list or another iterable, an entry a frame (got 5)"),
    "no frames": (None, None, None, "frames must be a list or another iterable, an entry a frame (got None)"),
    "boxes that are no list": ([FRAME], 5, None, "boxes must be a list or another iterable, an entry a frame (got 5)"),
    "too few boxes": ([FRAME, FRAME], [BOX], None, "boxes must hold an entry for each of the 2 frames (got 1)"),
    "too many scores": ([FRAME], [BOX], [[1], [1]], "box_scores must hold an entry for each of the 1 frames (got 2)"),
    "no frame": ([FRAME, None], [BOX, BOX], None, "frame 1: frame is None"),
    "no box": ([FRAME, FRAME], [BOX, [*BOX, [5, 5, 5, 9]]], None, "frame 1: box 1 has no area: x2 must exceed x1"),
    "NaN": ([FRAME, FRAME], [BOX, [[0, float("nan"), 5, 5]]], None, "frame 1: box 0 must be finite numbers"),
    "scores of another frame": ([FRAME], [BOX], [[1, 2]], "frame 0: box_scores must be 1 finite numbers"),
    "scores without boxes": ([FRAME], None, [[1]], "frame 0: box_scores must come with the boxes"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_told_with_the_frames_number(engine, case):
    frames, boxes, scores, message = BAD[case]
    with sdk.PoseEstimator(engine, device="cpu") as estimate, pytest.raises(InputError) as caught:
        estimate.many(frames, boxes, box_scores=scores)
    assert message in str(caught.value)


def test_an_estimator_that_tracks_takes_no_frames_of_several_cameras(engine):
    with (
        sdk.PoseEstimator(engine, device="cpu", tracker=True) as estimate,
        pytest.raises(InputError, match="tracker follows one video"),
    ):
        estimate.many([FRAME], [BOX])


def test_a_follower_a_frame_gives_what_a_tracking_estimator_a_video_gives(engine):
    videos = [[random_frame(10 * camera + number, hw) for number in range(4)] for camera, hw in enumerate(SIZES[:3])]
    rules = {"device": "cpu", "detector": lambda frame: (boxes_in(2, frame.shape[:2]), [0.9, 0.8]), "tracker": True}
    with sdk.PoseEstimator(engine, **rules, detect_every=3) as estimate:
        followers = [estimate.follower() for _ in videos]
        together = [estimate.many(frames, followers=followers) for frames in zip(*videos, strict=True)]
    for camera, frames in enumerate(videos):
        with sdk.PoseEstimator(engine, **rules, detect_every=3) as alone:
            for number, frame in enumerate(frames):
                poses, expected = together[number][camera], alone(frame)
                np.testing.assert_array_equal(poses.track_ids, expected.track_ids)
                np.testing.assert_array_equal(poses.keypoints, expected.keypoints)


def test_followers_are_one_a_frame(engine):
    with sdk.PoseEstimator(engine, device="cpu") as estimate:
        one = estimate.follower()
        for followers in ([one], [one, one], [one, estimate.follower(), estimate.follower()]):
            with pytest.raises(InputError, match="followers must hold one for each of the 2 frames"):
                estimate.many([FRAME, FRAME], followers=followers)


def test_a_submitted_frame_in_device_memory_is_one_person_without_boxes(engine):
    with sdk.PoseEstimator(engine, device="cuda", tracker=True) as estimate:
        assert estimate.submit(DeviceArray(FRAME)).result().boxes.tolist() == [[0, 0, *FRAME.shape[1::-1]]]


def test_after_close_many_says_so(engine):
    estimate = sdk.PoseEstimator(engine, device="cpu")
    estimate.close()
    with pytest.raises(ClosedError):
        estimate.many([FRAME], [BOX])

"""`PoseEstimator` with a detector's engine on a simulated device: the poses and ids of the same engines on the CPU."""

import numpy as np
import pytest

import sdk
from sdk.errors import EngineError, InputError
from sdk.manifest import MANIFEST_NAME
from sdk.people.detector import Detector
from sdk.runtime.cuda import gpu_pipeline
from sdk.runtime.cuda.gpu_pipeline import GpuPipeline
from tests.support.cuda_frames import DeviceArray
from tests.support.small_detector import crowded_frame, small_detector_engine

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytestmark = pytest.mark.native

NOBODY = np.zeros((90, 120, 3), np.uint8)
EXACT = ("keypoints", "scores", "boxes", "box_scores", "track_ids")


@pytest.fixture
def detector(tmp_path):
    return small_detector_engine(tmp_path / "detector")


@pytest.fixture
def simulated(simulate, detector, monkeypatch):
    """The simulated device, and the pose network's engine that it runs."""
    device, engine, kernels = simulate("simcc", detector)
    monkeypatch.setattr(gpu_pipeline, "NativeKernels", lambda: kernels)
    return device, engine


@pytest.fixture
def estimators(simulated, detector):
    """A function that opens estimators of both engines: on the device, and on the CPU."""
    made = []

    def both(**options):
        for device in ("cuda", "cpu"):
            made.append(sdk.PoseEstimator(simulated[1], device=device, detector=detector.folder, **options))
        return made[-2:]

    yield both
    for each in made:
        each.close()


def assert_same_poses(a, b):
    assert len(a) == len(b)
    for name in EXACT:
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


FOLLOWED = {
    "alone": {},
    "two at most": {"max_persons": 2},
    "tracked": {"tracker": True},
    "tracked, two at most": {"tracker": True, "max_persons": 2},
    "every third frame": {"tracker": True, "detect_every": 3, "max_persons": 5},
    "when it must": {"tracker": True, "detect_every": "auto", "smooth": True},
}


@pytest.mark.parametrize("where", [DeviceArray, np.asarray], ids=["device", "host"])
@pytest.mark.parametrize("options", FOLLOWED.values(), ids=FOLLOWED)
def test_poses_are_those_of_the_cpu(estimators, options, where):
    gpu, cpu = estimators(**options)
    for seed in (0, 0, 1, None, 2, 2, 2, 0):
        frame = NOBODY if seed is None else crowded_frame(seed)
        assert_same_poses(gpu(where(frame)), cpu(frame))


def test_with_a_flip_test_the_mirrored_crops_are_those_of_the_same_boxes(estimators):
    gpu, cpu = estimators(flip_test=True)
    for seed in (0, 1):
        poses, expected = gpu(DeviceArray(crowded_frame(seed))), cpu(crowded_frame(seed))
        np.testing.assert_array_equal(poses.boxes, expected.boxes)
        np.testing.assert_allclose(poses.keypoints, expected.keypoints, rtol=0, atol=1e-3)


def test_boxes_that_are_given_are_used(estimators):
    gpu, cpu = estimators(tracker=True)
    boxes = [[10, 10, 60, 80]]
    assert_same_poses(gpu(DeviceArray(crowded_frame()), boxes), cpu(crowded_frame(), boxes))
    with pytest.raises(InputError, match="box_scores must come with the boxes"):
        gpu(DeviceArray(crowded_frame()), box_scores=[1.0])


def test_many_frames_of_both_places_share_a_batch(estimators):
    gpu, cpu = estimators()
    frames = [crowded_frame(seed, hw) for seed, hw in enumerate([(90, 120), (31, 200), (200, 50)])]
    given = [DeviceArray(frames[0]), frames[1], DeviceArray(frames[2])]
    for a, b in zip(gpu.many(given), cpu.many(frames), strict=True):
        assert_same_poses(a, b)


def test_frames_of_several_cameras_are_followed(estimators):
    gpu, cpu = estimators(detect_every=2, tracker=True)
    followers = [[each.follower() for _ in range(2)] for each in (gpu, cpu)]
    for seed in range(3):
        frames = [crowded_frame(seed), crowded_frame(seed + 1)]
        on_device = gpu.many(list(map(DeviceArray, frames)), followers=followers[0])
        for a, b in zip(on_device, cpu.many(frames, followers=followers[1]), strict=True):
            assert_same_poses(a, b)


def test_frames_of_a_batch_are_looked_at_together(estimators, monkeypatch):
    """Those that the detector looks at: of somebody who is followed it need not."""
    gpu, _ = estimators(detect_every=3, tracker=True)
    together, find_in = [], GpuPipeline.find_in
    monkeypatch.setattr(
        GpuPipeline, "find_in", lambda pipeline, frames: together.append(list(frames)) or find_in(pipeline, frames)
    )
    followers = [gpu.follower() for _ in range(3)]
    crowd = DeviceArray(crowded_frame())
    gpu.many([crowd], followers=followers[1:2])
    gpu.many([crowd] * 3, [None, None, [[10, 10, 60, 80]]], followers=followers)
    timings = gpu.many([crowd] * 2, followers=followers[:2])[0].timings_ms
    assert together == [[0], [0], []] and "detect" not in timings


@pytest.mark.parametrize("options", [{}, {"tracker": True}], ids=["in flight together", "one after another"])
def test_a_stream_of_device_frames_is_detected_in(estimators, options):
    gpu, cpu = estimators(**options)
    frames = [crowded_frame(seed % 3) for seed in range(6)]
    for a, b in zip(gpu.stream(map(DeviceArray, frames)), map(cpu, frames), strict=True):
        assert_same_poses(a, b)


def launches(device, call):
    before = device.launches
    call()
    return device.launches - before


def test_a_batch_is_as_large_as_the_last_frame_had_persons_and_shrinks_by_one(simulated, detector):
    device, engine = simulated
    with sdk.PoseEstimator(engine, device="cuda", detector=detector, max_persons=3) as estimate:
        estimate.warm()
        crowd, nobody = DeviceArray(crowded_frame()), DeviceArray(NOBODY)
        # of one expected: the detector's graph, a batch of one, and one of those two who are there besides
        assert [launches(device, lambda: estimate(crowd)) for _ in range(3)] == [3, 2, 2]
        assert [launches(device, lambda: estimate(nobody)) for _ in range(4)] == [2, 2, 2, 1]
        assert [launches(device, lambda: estimate(crowd)) for _ in range(2)] == [2, 2]


def test_more_persons_than_a_batch_holds_are_all_there(estimators, simulated):
    device, _ = simulated
    gpu, cpu = estimators()
    gpu.warm()
    frame = crowded_frame()
    poses = cpu(frame)
    assert len(poses) > 8
    for expected in (1 + 1 + -(-(len(poses) - 1) // 8), 1 + -(-len(poses) // 8)):
        assert launches(device, lambda: assert_same_poses(gpu(DeviceArray(frame)), poses)) == expected


def test_stages_are_timed(simulated, detector):
    with sdk.PoseEstimator(simulated[1], device="cuda", detector=detector, tracker=True, detect_every=2) as estimate:
        stages = {"upload", "launch", "device", "download", "transfer", "track", "total"}
        for _ in range(3):
            timings = estimate(DeviceArray(crowded_frame())).timings_ms
            assert set(timings) == stages and timings["transfer"] == "none: on the device"


@pytest.mark.parametrize("kind", ["simcc", "heatmap"])
def test_stages_count_the_detectors_part_and_every_batch_besides(simulate, detector, monkeypatch, kind):
    """Of persons whom nobody expected, of more than were, and of heatmaps."""
    _, engine, kernels = simulate(kind, detector)
    monkeypatch.setattr(gpu_pipeline, "NativeKernels", lambda: kernels)
    with sdk.PoseEstimator(engine, device="cuda", detector=detector) as estimate:
        parts, pipeline = [], estimate._pipeline
        find, run = pipeline.find, pipeline.estimate
        monkeypatch.setattr(pipeline, "find", lambda *args, **kwargs: noted(find(*args, **kwargs)))
        monkeypatch.setattr(pipeline, "estimate", lambda *args, **kwargs: noted(run(*args, **kwargs)))

        def noted(result):
            parts.append(dict(result[-1]))
            return result

        for frame in (NOBODY, NOBODY, crowded_frame()):
            parts.clear()
            timings = estimate(DeviceArray(frame)).timings_ms
            for stage in ("upload", "launch", "device", "download"):
                assert timings[stage] == pytest.approx(sum(part.get(stage, 0.0) for part in parts)), stage
        assert len(parts) == 2


def test_a_detector_without_a_plan_runs_on_the_cpu_and_the_log_says_why(simulated, tmp_path, caplog):
    bare = small_detector_engine(tmp_path / "bare", plan=False)
    with sdk.PoseEstimator(simulated[1], device="cuda", detector=bare.folder) as estimate:
        assert "detector 'bare' runs on the CPU: it has no plan, only its graph; rebuild it here" in caplog.text
        boxes, _ = Detector(bare)(crowded_frame())
        np.testing.assert_array_equal(estimate(crowded_frame()).boxes, boxes)
        with pytest.raises(InputError, match="a detector's engine with a plan for this GPU"):
            estimate(DeviceArray(crowded_frame()))


def test_a_detector_opened_by_its_user_stays_where_it_is(simulated, detector):
    with sdk.PoseEstimator(simulated[1], device="cuda", detector=Detector(detector, score_threshold=0.65)) as estimate:
        assert estimate._pipeline.finder is None
        assert (estimate(crowded_frame()).box_scores >= 0.65).all()


def test_a_detector_that_cannot_be_opened_leaves_nothing_on_the_device(simulated, detector, monkeypatch):
    device, engine = simulated
    (detector.folder / MANIFEST_NAME).write_text("{}")
    with pytest.raises(EngineError, match="key 'format' must be"):
        sdk.PoseEstimator(engine, device="cuda", detector=detector.folder)
    with pytest.raises(InputError, match="detector 'absent' does not exist"):
        sdk.PoseEstimator(engine, device="cuda", detector="absent")
    assert not device.live and not device.pinned


def test_a_pipeline_says_whether_it_finds_persons(simulated, detector):
    with GpuPipeline(simulated[1]) as without, GpuPipeline(simulated[1], detector=detector) as finding:
        assert without.finder is None and finding.finder is finding

"""The pipeline on a real GPU: the CPU's poses, whatever frame and number of persons; threads, streams, neighbours."""

import threading

import numpy as np
import pytest

import sdk
from sdk import ops
from sdk.geometry import crop_affines
from sdk.people.tracking import box_iou
from sdk.runtime.cuda.context import device_context
from sdk.runtime.cuda.gpu_pipeline import GpuPipeline
from sdk.runtime.cuda.tensorrt_session import TensorRTSession
from tests.support.gpu_engines import (
    PycudaFrame,
    compiled_detector,
    compiled_engine,
    cpu_session,
    found_on_host,
    persons,
    street,
)
from tests.support.small_detector import crowded_frame
from tests.support.stand_in import is_stand_in
from tests.support.threads import in_threads

pytestmark = [pytest.mark.gpu, pytest.mark.native, pytest.mark.timeout(900)]

COUNTS = (0, 1, 3, 16, 40)
TURNS = 10_000
FRAME_KINDS = ("pageable", "pinned", "device", "torch")
NEAR_TIE = {"fp32": (1e-5, 0), "fp16": (2e-2, 3)}  # of the logits' range; bins beside the best that do not count


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def engine(request, tmp_path_factory):
    return compiled_engine(tmp_path_factory.mktemp(f"engine-{request.param}"), request.param)


@pytest.fixture(scope="module")
def frame():
    return street()


def cuda_torch():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    return torch


def of_kind(frame, kind):
    if kind == "pageable":
        return frame
    if kind == "pinned":
        pinned = sdk.pinned_frame(*frame.shape[:2])
        pinned[...] = frame
        return pinned
    if kind == "torch":
        return cuda_torch().from_numpy(frame).cuda()
    return PycudaFrame(frame)


def clear_peaks(logits, precision):
    """N x K: whether no bin further from the best than a few comes within the tolerance of it."""
    tolerance, beside = NEAR_TIE[precision]
    best = logits.argmax(axis=-1)[..., None]
    rivals = np.where(np.abs(np.arange(logits.shape[-1]) - best) > beside, logits, -np.inf).max(axis=-1)
    return logits.max(axis=-1) - rivals > tolerance * (logits.max(axis=-1) - logits.min(axis=-1))


def reference(engine, session, frame, boxes):
    """(poses N x K x 3, clear N x K) by the CPU's ops around `session`: where both axes have one clear peak, the bin is
    a matter of fact; elsewhere it hangs on the last bits of sums whose order no two libraries share. A stand-in's order
    is numpy's: all of it is fact.
    """
    recipe = engine.manifest.recipe
    affines = crop_affines(boxes, recipe.input.size_hw, recipe.input.box_padding)
    source, output = recipe.input, recipe.output
    crops = ops.crop(
        frame, affines, source.size_hw, mean=source.mean, std=source.std, channel_order=source.colour
    )  # fmt: skip
    x, y = session.run(crops)
    precision = engine.manifest.precision
    clear = clear_peaks(x, precision) & clear_peaks(y, precision) | is_stand_in(engine)
    return ops.decode(x, y, affines, output.split_ratio, score=output.score), clear


@pytest.mark.parametrize("kind", FRAME_KINDS)
def test_poses_equal_the_cpu_sessions(engine, frame, kind):
    given = of_kind(frame, kind)
    with cpu_session(engine) as session, sdk.PoseEstimator(engine, device="cuda") as estimate:
        for count in COUNTS:
            boxes = persons(count, seed=count)
            poses = estimate(given, boxes)
            assert poses.keypoints.shape == (count, engine.manifest.recipe.joints, 2)
            if count == 0:
                continue
            expected, clear = reference(engine, session, frame, boxes)
            distance = np.linalg.norm(poses.keypoints - expected[..., :2], axis=-1)
            source = engine.manifest.recipe.input
            scale = crop_affines(boxes, source.size_hw, source.box_padding)[:, 0, 0, None]
            if engine.manifest.precision == "fp32":
                assert clear.mean() > 0.9
                assert distance[clear].max() < 1e-2, f"{(distance[clear] >= 1e-2).sum()} bins differ"
                np.testing.assert_allclose(poses.scores[clear], expected[..., 2][clear], rtol=1e-3, atol=1e-3)
            else:
                assert clear.any() and (distance / scale)[clear].mean() <= 0.1  # pixels of the crop


@pytest.mark.parametrize("kind", FRAME_KINDS)
def test_poses_equal_the_plans_own_logits_through_the_cpu_ops(engine, frame, kind):
    given = of_kind(frame, kind)
    with TensorRTSession(engine) as session, GpuPipeline(engine) as pipeline:
        recipe = engine.manifest.recipe
        for count in (1, 3, 16):
            boxes = persons(count, seed=100 + count)
            expected, clear = reference(engine, session, frame, boxes)
            found, _ = pipeline.run(given, crop_affines(boxes, recipe.input.size_hw, recipe.input.box_padding))
            sharp = clear if engine.manifest.precision == "fp32" else np.ones_like(clear)
            distance = np.linalg.norm(found - expected, axis=-1)[sharp]
            assert np.median(distance) < 1e-2 and (distance < 1e-2).mean() > 0.98


@pytest.mark.parametrize("kind", ["pageable", "device"])
def test_persons_found_on_the_device_are_the_hosts_and_their_joints_those_of_given_boxes(engine, tmp_path, kind):
    detector = compiled_detector(tmp_path / "detector", engine)
    with GpuPipeline(engine, detector=detector) as pipeline:
        for expected in (0, 3, 16):
            frame = np.repeat(np.repeat(crowded_frame(expected), 9, 0), 9, 1)  # 810 x 1080
            given = of_kind(frame, kind)
            boxes, scores = found_on_host(detector, frame)
            found = pipeline.find(given, expected)
            assert min(len(boxes), len(found.boxes)) > 4
            if is_stand_in(engine):
                np.testing.assert_array_equal(found.boxes, boxes)
                np.testing.assert_array_equal(found.scores, scores)
            else:  # a plan's sums have another order: who scores about the threshold may come or go
                sure = boxes[scores > detector.manifest.recipe.score_threshold + 0.02]
                assert (box_iou(sure, found.boxes).max(axis=1, initial=0) > 0.9).mean() > 0.9
            assert (found.persons is None) == (expected == 0)
            if expected:
                count = min(expected, len(found.boxes))
                joints, _, _ = pipeline.estimate([given], found.boxes[:count])
                np.testing.assert_array_equal(found.persons[:count], joints)


@pytest.mark.parametrize("pixel_format", ["nv12", "nv12-bt709-full"])
@pytest.mark.parametrize("kind", ["pageable", "pinned", "device"])
def test_nv12_frames(engine, pixel_format, kind):
    rows = street(540 * 3 // 2, 960)[:, :, 0].copy()
    given = rows
    if kind == "pinned":
        given = sdk.pinned_frame(540, 960, pixel_format=pixel_format)
        given[...] = rows
    if kind == "device":
        given = PycudaFrame(rows)
    from sdk.runtime.frames import crop_options

    recipe, boxes = engine.manifest.recipe, persons(3, (540, 960))
    source, output = recipe.input, recipe.output
    affines = crop_affines(boxes, source.size_hw, source.box_padding)
    crops = ops.crop(
        rows, affines, source.size_hw, mean=source.mean, std=source.std, channel_order=source.colour,
        **crop_options(pixel_format),
    )  # fmt: skip
    with TensorRTSession(engine) as session, GpuPipeline(engine, pixel_format=pixel_format) as pipeline:
        x, y = session.run(crops)
        clear = clear_peaks(x, "fp32") & clear_peaks(y, "fp32") | is_stand_in(engine)
        expected = ops.decode(x, y, affines, output.split_ratio, score=output.score)
        found, _ = pipeline.run(given, affines)
    distance = np.linalg.norm(found[clear] - expected[clear], axis=-1)
    assert np.median(distance) < 1e-2 and (distance < 1e-2).mean() > 0.98


def test_every_transfer_gives_the_same_bits(engine, frame):
    """Packed, its rows, whole, or in place: the crops, hence the poses, are the same to the last bit."""
    from benchmarks.gpu_measures import FORCED

    recipe = engine.manifest.recipe
    affines = crop_affines(persons(5, seed=5), recipe.input.size_hw, recipe.input.box_padding)
    given = {kind: of_kind(frame, kind) for kind in ("pageable", "pinned", "device")}
    results, ways = [], set()
    with GpuPipeline(engine, lanes=1) as pipeline:
        pipeline.run(given["pageable"], affines)
        (lane,) = pipeline._pool.every()
        for costs in FORCED.values():
            lane._flight.set_costs(costs)
            for each in given.values():
                persons_found, timings = pipeline.run(each, affines)
                results.append(persons_found)
                ways.add(str(timings["transfer"]))
        shared = pipeline._device.integrated
    expected = {"packed", "none: shared memory"} if shared else {"packed", "rows", "whole"}
    assert ways == expected | {"none: on the device"}
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_persons_of_several_frames_share_batches_and_are_what_a_call_each_gives(engine):
    """Frames of four sizes, on the host and the device; more persons than the largest batch holds."""
    kinds = ("pageable", "pinned", "device", "pageable")
    frames = [street(360 + 40 * i, 640 - 48 * i, i) for i in range(4)]
    boxes = [persons(count, (360, 640), count) for count in (1, 0, 9, 14)]
    given = [of_kind(frame, kind) for frame, kind in zip(frames, kinds, strict=True)]
    with sdk.PoseEstimator(engine, device="cuda") as estimate:
        together = estimate.many(given, boxes)
        for frame, own, poses in zip(given, boxes, together, strict=True):
            alone = estimate(frame, own)
            if is_stand_in(engine):  # a plan's own kernels may sum in another order for another batch
                np.testing.assert_array_equal(poses.keypoints, alone.keypoints)
                np.testing.assert_array_equal(poses.scores, alone.scores)
            assert poses.keypoints.shape == alone.keypoints.shape
            distance = np.linalg.norm(poses.keypoints - alone.keypoints, axis=-1)
            assert distance.size == 0 or ((distance < 1e-2).mean() > 0.98 and np.median(distance) == 0)


def test_a_graph_gives_the_same_bits_as_plain_enqueues(engine, frame):
    recipe = engine.manifest.recipe
    with GpuPipeline(engine) as graphs, GpuPipeline(engine, graphs=False) as plain:
        for count in (1, 2, 5, 16):
            affines = crop_affines(persons(count, seed=count), recipe.input.size_hw, recipe.input.box_padding)
            for _ in range(3):
                np.testing.assert_array_equal(graphs.run(frame, affines)[0], plain.run(frame, affines)[0])


def test_flip(engine, frame):
    """The mirrored crop's logits are merged: against the CPU ops on the plan's own logits of mirrored crops."""
    recipe = engine.manifest.recipe
    source, output, skeleton = recipe.input, recipe.output, recipe.skeleton
    affines = crop_affines(persons(4, seed=4), source.size_hw, source.box_padding)
    crops = ops.crop(frame, affines, source.size_hw, mean=source.mean, std=source.std, channel_order=source.colour)
    shift = recipe.protocol.flip_shift
    with TensorRTSession(engine) as session, GpuPipeline(engine) as pipeline:
        x, y = session.run(crops)
        mirrored = session.run(np.ascontiguousarray(crops[..., ::-1]))
        expected = ops.decode(
            x, y, affines, output.split_ratio, score=output.score, flipped=mirrored,
            flip_pairs=skeleton.flip_pairs, flip_shift=shift,
        )  # fmt: skip
        found, _ = pipeline.run(frame, affines, flip=True)
    distance = np.linalg.norm(found[..., :2] - expected[..., :2], axis=-1)
    assert np.median(distance) < 1e-2 and (distance < 1e-2).mean() > 0.9


def test_stream_and_submit_keep_the_order(engine):
    frames = [street(360, 640, seed) for seed in range(12)]
    boxes = [persons(1 + seed % 4, (360, 640), seed) for seed in range(12)]
    with sdk.PoseEstimator(engine, device="cuda") as estimate:
        expected = [estimate(f, b).keypoints for f, b in zip(frames, boxes, strict=True)]
        streamed = [poses.keypoints for poses in estimate.stream(zip(frames, boxes, strict=True))]
        futures = [estimate.submit(f, b) for f, b in zip(frames, boxes, strict=True)]
        for a, b, c in zip(expected, streamed, futures, strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(a, c.result().keypoints)


def test_eight_threads_are_bit_identical_to_one(engine):
    frames = [street(360, 640, seed) for seed in range(8)]
    recipe = engine.manifest.recipe
    affines = [
        crop_affines(persons(1 + seed % 4, (360, 640), seed), recipe.input.size_hw, recipe.input.box_padding)
        for seed in range(8)
    ]
    with GpuPipeline(engine, lanes=4) as pipeline:
        expected = [pipeline.run(f, a)[0] for f, a in zip(frames, affines, strict=True)]
        wrong = []

        def work(first):
            for turn in range(TURNS):
                index = (first + turn) % 8
                if not np.array_equal(pipeline.run(frames[index], affines[index])[0], expected[index]):
                    wrong.append((first, turn))
                    return

        in_threads(work, 8)
    assert wrong == []


def test_a_frame_submitted_from_a_side_stream_is_finished_first(engine, frame):
    """Torch's current stream is the submitting thread's; the worker's own would be another."""
    torch = cuda_torch()
    boxes, ready = persons(3), torch.from_numpy(frame).cuda()
    with sdk.PoseEstimator(engine, device="cuda") as estimate:
        estimate.warm()
        expected = estimate(ready, boxes).keypoints
        side = torch.cuda.Stream()
        for _ in range(5):
            late = torch.zeros_like(ready)
            torch.cuda.synchronize()
            with torch.cuda.stream(side):
                for _ in range(200):
                    late.copy_(torch.zeros_like(ready))
                late.copy_(ready)
                future = estimate.submit(late, boxes)
            np.testing.assert_array_equal(future.result().keypoints, expected)


def test_memory_of_another_context_is_refused(engine, frame):
    """As `pycuda.autoinit` makes one; the estimator goes on."""
    from sdk.errors import InputError

    device = device_context(0)
    boxes, given = persons(1), PycudaFrame(frame)
    other = device.driver.Device(0).make_context()
    foreign = device.driver.mem_alloc(frame.nbytes)
    other.pop()
    with sdk.PoseEstimator(engine, device="cuda") as estimate:
        expected = estimate(given, boxes).keypoints
        table = {**given.__cuda_array_interface__, "data": (int(foreign), True)}
        with pytest.raises(InputError, match="another CUDA context"):
            estimate(type("Foreign", (), {"__cuda_array_interface__": table})(), boxes)
        np.testing.assert_array_equal(estimate(given, boxes).keypoints, expected)
    other.push()
    foreign.free()
    other.pop()
    other.detach()


def test_torch_capturing_a_graph_in_another_thread_is_no_loss(engine, frame):
    torch = cuda_torch()
    boxes = persons(2)
    with sdk.PoseEstimator(engine, device="cuda") as estimate:
        estimate.warm()
        expected = estimate(frame, boxes).keypoints
        static = torch.randn(64, 64, device="cuda")
        started, finish = threading.Event(), threading.Event()

        def capture():
            with torch.cuda.stream(torch.cuda.Stream()):  # torch makes a thread's cuBLAS handle at its first product,
                static @ static  # which no capture allows
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                static @ static
                started.set()
                finish.wait(timeout=60)
            graph.replay()

        thread = threading.Thread(target=capture)
        thread.start()
        assert started.wait(timeout=60)
        for _ in range(20):
            np.testing.assert_array_equal(estimate(frame, boxes).keypoints, expected)
        finish.set()
        thread.join()


def test_torch_in_the_same_process_keeps_working(engine, frame):
    torch = cuda_torch()
    before = torch.randn(256, 256, device="cuda")
    product = before @ before
    with sdk.PoseEstimator(engine, device="cuda") as estimate:
        on_device = torch.from_numpy(frame).cuda()
        poses = estimate(on_device, persons(3))
        assert torch.equal(before @ before, product)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):  # the frame is still being made when the estimator is called
            late = torch.zeros_like(on_device)
            for _ in range(50):
                late.copy_(on_device)
            again = estimate(late, persons(3))
        np.testing.assert_array_equal(poses.keypoints, again.keypoints)
    assert torch.equal(before @ before, product)


def test_estimators_share_the_plan(engine):
    from sdk.runtime.cuda import loaded_plan

    with GpuPipeline(engine), GpuPipeline(engine):
        assert len(loaded_plan._plans) == 1
    assert not loaded_plan._plans


def test_a_second_gpu_serves_too(engine, frame):
    if device_context(0).driver.Device.count() < 2:
        pytest.skip("this machine has one GPU")
    boxes = persons(3)
    with sdk.PoseEstimator(engine, device="cuda:0") as zero, sdk.PoseEstimator(engine, device="cuda:1") as one:
        np.testing.assert_allclose(zero(frame, boxes).keypoints, one(frame, boxes).keypoints, atol=1e-2)


def test_kernels_compiled_once_are_kept(engine, frame):
    if engine.manifest.compiler.name != "tensorrt-rtx":
        pytest.skip("TensorRT compiles no kernels at run time")
    with sdk.PoseEstimator(engine, device="cuda") as estimate:
        estimate(frame, persons(1))
    (cache,) = engine.folder.glob("kernels-*.cache")
    from sdk.runtime.cuda.loaded_plan import loaded_plan

    device = device_context(0)
    with device.entered("load the plan again"):
        plan = loaded_plan(engine, device)
        assert plan._cache.blob is not None and plan._cache.blob == cache.read_bytes()[32:]
        plan.release()

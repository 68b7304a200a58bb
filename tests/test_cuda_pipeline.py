"""The GPU pipeline on a simulated device: the same poses as the CPU's, whatever the frame, and clean bookkeeping."""

import weakref
from dataclasses import replace

import numpy as np
import pytest

from sdk import ops, trt
from sdk.errors import ClosedError, DeviceError, EngineError, InputError
from sdk.geometry import crop_affines
from sdk.manifest import SpreadNote, kernel_cache_name
from sdk.runtime.cuda import bandwidth, loaded_plan
from sdk.runtime.cuda.context import device_context
from sdk.runtime.cuda.frame_lane import FrameLane
from sdk.runtime.cuda.gpu_pipeline import GpuPipeline
from sdk.runtime.cuda.tensorrt_session import TensorRTSession
from sdk.runtime.decoding import decoding_of
from sdk.runtime.memory import pinned_frame
from sdk.runtime.ort_session import OrtSession
from sdk.runtime.pipeline import CpuPipeline
from tests.support.cuda_frames import OFF_FRAME, DeviceArray, random_affines, random_frame
from tests.support.engines import given_plan
from tests.support.fairness import check_fair
from tests.support.simulated_plan import SimulatedContext, SimulatedPlan, simulated_engine
from tests.support.threads import in_threads

pytestmark = pytest.mark.native

COUNTS = (0, 1, 3, 5, 8)


def as_kind(frame, kind, kernels):
    if kind == "pageable":
        return frame
    if kind == "pinned":
        pinned = pinned_frame(*frame.shape[:2])
        pinned[...] = frame
        return pinned
    if kind == "pinned-view":
        pinned = pinned_frame(frame.shape[0] + 7, frame.shape[1] + 5)
        view = pinned[7:, 5:]  # to the memory's last byte
        view[...] = frame
        return view
    if kind.endswith("registered"):  # page-locked by somebody else: torch, OpenCV, a camera's driver
        copy = frame.copy()
        locked = copy.size // 2 if kind.startswith("half") else copy.size
        kernels.device.pinned[copy.ctypes.data] = copy.reshape(-1)[:locked]
        return copy
    if kind == "upside-down":
        return np.ascontiguousarray(frame[::-1])[::-1]
    return DeviceArray(frame)


FRAME_KINDS = ("pageable", "pinned", "pinned-view", "registered", "half-registered", "upside-down", "device")
PAGE_LOCKED = ("pinned", "pinned-view", "registered")


@pytest.mark.parametrize("integrated", [False, True], ids=["card", "jetson"])
@pytest.mark.parametrize("kind", FRAME_KINDS)
def test_the_same_poses_as_the_cpu(simulate, kind, integrated):
    _, engine, kernels = simulate(integrated=integrated)
    frame = random_frame()
    with CpuPipeline(OrtSession(engine, threads=1)) as cpu, GpuPipeline(engine, kernels=kernels) as gpu:
        given = as_kind(frame, kind, kernels)
        for count in COUNTS:
            affines = random_affines(count, seed=count)
            expected, _ = cpu.run(frame, affines)
            for _ in range(2):
                found, timings = gpu.run(given, affines)
                np.testing.assert_array_equal(found, expected)
        assert str(timings["transfer"]).startswith("none") == (kind == "device" or (integrated and kind in PAGE_LOCKED))


@pytest.mark.parametrize("integrated", [False, True], ids=["card", "jetson"])
def test_a_plan_of_halves_takes_and_gives_halves(simulate, integrated):
    _, engine, kernels = simulate(integrated=integrated, plan_dtype="float16")
    frame, recipe = random_frame(), engine.manifest.recipe
    source, output = recipe.input, recipe.output
    options = {"mean": source.mean, "std": source.std, "channel_order": source.colour}
    with OrtSession(engine, threads=1) as cpu, GpuPipeline(engine, kernels=kernels) as gpu:
        for count in (1, 3, 8):
            affines = random_affines(count, seed=count)
            crops = ops.crop(frame, affines, source.size_hw, dtype=np.float16, **options)
            x, y = (logits.astype(np.float16) for logits in cpu.run(crops.astype(np.float32)))
            expected = ops.decode(x, y, affines, output.split_ratio, score=output.score)
            np.testing.assert_array_equal(gpu.run(frame, affines)[0], expected)


@pytest.mark.parametrize("shift", [False, True], ids=["in place", "shifted"])
@pytest.mark.parametrize("kind", ["simcc", "heatmap"])
def test_the_flip_test_runs_the_mirrored_crops(simulate, kind, shift):
    _, engine, kernels = simulate(kind)
    recipe = engine.manifest.recipe
    recipe = replace(recipe, protocol=replace(recipe.protocol, flip_shift=shift))
    engine = replace(engine, manifest=replace(engine.manifest, recipe=recipe))
    frame, affines = random_frame(1), random_affines(3, seed=9)
    with CpuPipeline(OrtSession(engine, threads=1)) as cpu, GpuPipeline(engine, kernels=kernels) as gpu:
        expected, _ = cpu.run(frame, affines, flip=True)
        found, _ = gpu.run(frame, affines, flip=True)
        np.testing.assert_allclose(found, expected, atol=2e-2)
        plain, _ = gpu.run(frame, affines)
        np.testing.assert_array_equal(plain, cpu.run(frame, affines)[0])
        np.testing.assert_array_equal(gpu.run(frame, affines, flip=True)[0], found)


@pytest.mark.parametrize("refine", ["none", "parabola", "dark", "expectation"])
def test_each_refinement_reaches_the_kernel(simulate, refine):
    _, engine, kernels = simulate()
    frame, affines = random_frame(2), random_affines(2, seed=3)
    with (
        CpuPipeline(OrtSession(engine, threads=1), refine=refine) as cpu,
        GpuPipeline(engine, kernels=kernels, refine=refine) as gpu,
    ):
        np.testing.assert_array_equal(gpu.run(frame, affines)[0], cpu.run(frame, affines)[0])


ASKED = {"depth": ("three axes", False), "every column": ("three axes", True), "spread": ("simcc", True)}


@pytest.mark.parametrize("integrated", [False, True], ids=["card", "jetson"])
@pytest.mark.parametrize("plan_dtype", ["float32", "float16"])
@pytest.mark.parametrize(("kind", "spread"), ASKED.values(), ids=ASKED)
def test_more_columns_are_the_cpus(simulate, kind, spread, plan_dtype, integrated):
    _, engine, kernels = simulate(kind, integrated=integrated, plan_dtype=plan_dtype)
    note = SpreadNote(0.7, 1.5, 0.1, 0.25, "val.json", 100, 0.68)
    decoding = decoding_of(engine.manifest.recipe, note, spread=spread)
    frame, recipe, rules = random_frame(1), engine.manifest.recipe, engine.manifest.recipe.input
    options = {"mean": rules.mean, "std": rules.std, "channel_order": rules.colour}
    with (
        OrtSession(engine, threads=1) as session,
        CpuPipeline(session, decoding=decoding) as cpu,
        GpuPipeline(engine, kernels=kernels, decoding=decoding) as gpu,
    ):
        assert gpu.run(frame, random_affines(0))[0].shape == (0, recipe.joints, decoding.columns.count)
        for count in (1, 3, 8):
            affines = random_affines(count, seed=count)
            crops = ops.crop(frame, affines, rules.size_hw, dtype=plan_dtype, **options).astype(np.float32)
            expected = cpu.decode(tuple(rows.astype(plan_dtype) for rows in session.run(crops)), None, affines)
            for _ in range(2):
                found = gpu.run(frame, affines)[0]
                assert found.shape == (count, recipe.joints, decoding.columns.count)
                np.testing.assert_array_equal(found, expected)
        flipped = gpu.run(frame, affines, flip=True)[0]
        if plan_dtype == "float32":
            np.testing.assert_allclose(flipped[..., :4], cpu.run(frame, affines, flip=True)[0][..., :4], atol=2e-2)


def test_rgb_frames_are_cropped_as_rgb(simulate):
    _, engine, kernels = simulate()
    frame, affines = random_frame(3), random_affines(2)
    with GpuPipeline(engine, kernels=kernels) as bgr, GpuPipeline(engine, kernels=kernels, pixel_format="rgb") as rgb:
        expected, _ = bgr.run(frame, affines)
        np.testing.assert_array_equal(rgb.run(np.ascontiguousarray(frame[:, :, ::-1]), affines)[0], expected)


@pytest.mark.parametrize("pixel_format", ["nv12", "nv12-bt709-full"])
@pytest.mark.parametrize("integrated", [False, True], ids=["card", "jetson"])
def test_nv12_frames_take_the_same_way(simulate, integrated, pixel_format):
    _, engine, kernels = simulate(integrated=integrated)
    frame = np.random.default_rng(4).integers(0, 256, (90 * 3 // 2, 120), np.uint8)
    pitched = np.pad(frame, ((0, 0), (0, 8)))[:, :120]
    with (
        CpuPipeline(OrtSession(engine, threads=1), pixel_format=pixel_format) as cpu,
        GpuPipeline(engine, kernels=kernels, pixel_format=pixel_format) as gpu,
    ):
        gpu.warm()
        for count in (1, 4):
            affines = random_affines(count, seed=count)
            expected, _ = cpu.run(frame, affines)
            np.testing.assert_array_equal(gpu.run(frame, affines)[0], expected)
            np.testing.assert_array_equal(gpu.run(DeviceArray(frame), affines)[0], expected)
            np.testing.assert_array_equal(gpu.run(DeviceArray(pitched), affines)[0], expected)


def test_only_what_the_crops_read_is_uploaded(simulate):
    device, engine, kernels = simulate()
    big = random_frame(5, (600, 800))
    boxes = np.array([[20, 20, 50, 60], [700, 500, 740, 560]], np.float32)
    with CpuPipeline(OrtSession(engine, threads=1)) as cpu, GpuPipeline(engine, kernels=kernels) as gpu:
        affines = crop_affines(boxes, (64, 48), 1.25)
        gpu.run(big, affines)
        before = device.uploaded_bytes
        found, timings = gpu.run(random_frame(6, (600, 800)), affines)
        spent = device.uploaded_bytes - before
        assert timings["transfer"] == "packed" and spent < big.nbytes / 20
        np.testing.assert_array_equal(found, cpu.run(random_frame(6, (600, 800)), affines)[0])


def test_a_page_locked_frame_is_not_copied_by_the_host(simulate):
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels) as gpu:
        given = as_kind(random_frame(), "pinned", kernels)
        held = len(device.pinned)
        _, timings = gpu.run(given, random_affines(1))
        assert timings["transfer"] in ("rows", "whole") and len(device.pinned) == held


def test_steady_state_allocates_nothing_and_launches_one_graph(simulate):
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels) as gpu:
        gpu.run(random_frame(), random_affines(3))
        before = device.allocations, device.captures, device.enqueues, device.launches, len(device.pinned)
        for seed in range(20):
            gpu.run(random_frame(seed), random_affines(3, seed))
        after = device.allocations, device.captures, device.enqueues, device.launches, len(device.pinned)
        assert after == (*before[:3], before[3] + 20, before[4])


def test_nobody_costs_nothing(simulate):
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels) as gpu:
        found, timings = gpu.run(random_frame(), random_affines(0))
    assert found.shape == (0, 14, 3) and timings == {} and device.enqueues == 0


def test_each_bucket_is_captured_once(simulate):
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels) as gpu:
        for count in (1, 2, 3, 4, 5, 8, 3, 1):
            gpu.run(random_frame(), random_affines(count))
        assert device.captures == 4


def test_without_graphs_the_same_work_is_enqueued(simulate):
    device, engine, kernels = simulate()
    frame, affines = random_frame(), random_affines(2)
    with GpuPipeline(engine, kernels=kernels) as graphs, GpuPipeline(engine, kernels=kernels, graphs=False) as plain:
        np.testing.assert_array_equal(plain.run(frame, affines)[0], graphs.run(frame, affines)[0])
        assert device.captures == 1


def test_rows_that_fill_up_a_bucket_look_at_no_frame(simulate):
    """Not at where the persons of the frame before were: they would be cropped once more."""
    _, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels, lanes=1) as gpu:
        gpu.run(random_frame(), random_affines(4))
        gpu.run(random_frame(), random_affines(3))
        (lane,) = gpu._pool.every()
        np.testing.assert_array_equal(lane._affines[0, 3], OFF_FRAME)


def test_the_first_run_of_a_bucket_reads_the_frame_of_its_call(simulate, monkeypatch):
    """Not the one before, whose memory may have been freed for a larger frame."""
    _, engine, kernels = simulate()
    records, warm = [], FrameLane._warm
    monkeypatch.setattr(
        FrameLane, "_warm", lambda lane, *which: records.append(bytes(lane._records)) or warm(lane, *which)
    )
    with GpuPipeline(engine, kernels=kernels) as gpu:
        for hw, count in (((20, 30), 1), ((90, 120), 3)):
            gpu.run(random_frame(0, hw), random_affines(count, 0, hw))
            assert records.pop() == bytes(gpu._pool.every()[0]._records)


def test_a_plan_without_scratch_leaves_the_joints_room(simulate, monkeypatch):
    _, engine, kernels = simulate()
    monkeypatch.setattr(SimulatedPlan, "activation_bytes", 0)
    frame, affines = random_frame(), random_affines(8)
    with CpuPipeline(OrtSession(engine, threads=1)) as cpu, GpuPipeline(engine, kernels=kernels) as gpu:
        np.testing.assert_array_equal(gpu.run(frame, affines)[0], cpu.run(frame, affines)[0])


def test_compiled_kernels_are_kept_for_the_next_process(simulate, monkeypatch):
    _, engine, kernels = simulate()
    note, used = replace(engine.manifest.compiler, name="tensorrt-rtx"), []
    engine = given_plan(engine.folder, note, engine.plan_path.read_bytes())
    monkeypatch.setattr(SimulatedPlan, "kernels", lambda self: b"kernels")
    monkeypatch.setattr(SimulatedPlan, "use_kernels", lambda self, blob: used.append(blob), raising=False)
    for _ in range(2):
        with GpuPipeline(engine, kernels=kernels) as gpu:
            gpu.run(random_frame(), random_affines(1))
    assert used == [b"kernels"]
    (cache,) = engine.folder.glob("kernels-*.cache")
    assert cache.name == kernel_cache_name("10.3.0", "8.7", engine.manifest.files["tensorrt.plan"])


@pytest.mark.parametrize("reason", ["a DLA", "TensorRT"])
def test_a_plan_that_cannot_be_captured_is_enqueued(simulate, monkeypatch, caplog, reason):
    device, engine, kernels = simulate()
    if reason == "a DLA":
        engine = simulated_engine(engine.folder, dla_core=1)
    else:
        monkeypatch.setattr(SimulatedContext, "capturable", lambda self, stream: False)
    cores, load = [], trt.load_plan
    monkeypatch.setattr(trt, "load_plan", lambda *given, dla_core: cores.append(dla_core) or load(*given))
    with GpuPipeline(engine, kernels=kernels) as gpu, caplog.at_level("WARNING"):
        found, _ = gpu.run(random_frame(), random_affines(1))
        np.testing.assert_array_equal(found, gpu.run(random_frame(), random_affines(1))[0])
        gpu.network_ms(1, 1)
    assert device.captures == 0 and "cannot be captured" in caplog.text
    assert cores == [1 if reason == "a DLA" else None]


def test_a_refusal_inside_a_capture_is_an_error_and_ends_it(simulate):
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels, lanes=1) as gpu:
        device.refuse_in_capture = True
        with pytest.raises(DeviceError, match="refused"):
            gpu.run(random_frame(), random_affines(1))
        device.refuse_in_capture = False
        assert all(stream.capture is None for stream in device.streams)
        gpu.run(random_frame(), random_affines(1))
        assert device.captures == 1


def test_a_larger_frame_grows_the_buffers_once(simulate):
    device, engine, kernels = simulate()
    with CpuPipeline(OrtSession(engine, threads=1)) as cpu, GpuPipeline(engine, kernels=kernels, lanes=1) as gpu:
        for hw in ((20, 30), (90, 120), (20, 30), (64, 200), (90, 120)):
            frame, affines = random_frame(7, hw), random_affines(2, 7, hw)
            np.testing.assert_array_equal(gpu.run(frame, affines)[0], cpu.run(frame, affines)[0])
        assert device.captures == 1


def test_threads_share_the_lanes_and_agree_with_one(simulate):
    _, engine, kernels = simulate(lag=3)
    frames = [random_frame(seed) for seed in range(6)]
    affines = [random_affines(1 + seed % 3, seed) for seed in range(6)]
    with GpuPipeline(engine, kernels=kernels, lanes=3) as gpu:
        expected = [gpu.run(f, a)[0] for f, a in zip(frames, affines, strict=True)]
        wrong = []

        def work(_):
            for index in range(12):
                found, _ = gpu.run(frames[index % 6], affines[index % 6])
                if not np.array_equal(found, expected[index % 6]):
                    wrong.append(index)

        in_threads(work, 6)
    assert not wrong


def test_threads_get_lanes_in_the_order_of_their_coming(simulate):
    _, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels, lanes=3) as gpu:
        check_fair(gpu._pool, lambda: gpu.run(random_frame(), random_affines(1)), 8, 20)


def test_no_stream_waits_for_the_legacy_default_stream(simulate):
    """Hence not for whatever torch does on it."""
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels) as gpu, TensorRTSession(engine, kernels=kernels):
        gpu.run(random_frame(), random_affines(1))
    assert {stream.flags for stream in device.streams} == {1}


def test_the_callers_context_is_restored(simulate):
    device, engine, kernels = simulate()
    device.stack.append("torch's")
    with GpuPipeline(engine, kernels=kernels) as gpu:
        gpu.run(random_frame(), random_affines(1))
        assert device.stack == ["torch's"]
    assert device.stack == ["torch's"]


def test_two_estimators_load_the_plan_once(simulate):
    _, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels) as one:
        with GpuPipeline(engine, kernels=kernels) as two:
            assert len(loaded_plan._plans) == 1
            np.testing.assert_array_equal(
                one.run(random_frame(), random_affines(2))[0], two.run(random_frame(), random_affines(2))[0]
            )
        assert len(loaded_plan._plans) == 1
        one.run(random_frame(), random_affines(2))
        plan = weakref.ref(one._pool.every()[0].loaded.plan)
    assert not loaded_plan._plans and plan() is None


def test_a_plan_of_another_version_is_refused(simulate, monkeypatch):
    _, engine, kernels = simulate()
    monkeypatch.setattr(trt, "flavour", lambda name: trt.Flavour(name, "10.4.0"))
    with pytest.raises(EngineError, match=r"cannot run on cuda:0: its plan was compiled by tensorrt 10\.3\.0"):
        GpuPipeline(engine, kernels=kernels)


def test_the_costs_are_of_one_copy(simulate):
    simulate()
    with device_context(0).entered("measure") as device:
        costs = bandwidth.transfer_costs(device)
    assert costs.copy_s == pytest.approx(0.25e-3 / bandwidth.COPIES)
    assert 0 < costs.host_bytes_per_s < float("inf") and costs.host_copy_s > 0


def test_where_memory_is_shared_nothing_is_measured(simulate):
    _, engine, kernels = simulate(integrated=True)
    with GpuPipeline(engine, kernels=kernels) as gpu:
        gpu.run(random_frame(), random_affines(1))
    assert not bandwidth._known


def test_each_device_has_a_plan_and_costs_of_its_own(simulate):
    _, engine, kernels = simulate(devices=2)
    with GpuPipeline(engine, kernels=kernels) as one, GpuPipeline(engine, index=1, kernels=kernels) as two:
        for gpu in (one, two):
            gpu.run(random_frame(), random_affines(1))
        assert {index for index, _ in loaded_plan._plans} == set(bandwidth._known) == {0, 1}
        assert two._device is device_context(1) is not one._device
    assert not loaded_plan._plans


def test_a_plan_altered_after_opening_is_refused(simulate):
    _, engine, kernels = simulate()
    engine.plan_path.write_bytes(b"other")
    with pytest.raises(EngineError, match="altered after the engine was opened"):
        GpuPipeline(engine, kernels=kernels)


def test_a_device_frame_waits_for_its_producer(simulate):
    _, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels) as gpu:
        gpu.run(DeviceArray(random_frame(), stream=77), random_affines(1))
    assert [producer for _, producer in kernels.device.waits] == [77]


BAD_DEVICE_FRAMES = {
    "float": (np.zeros((8, 8, 3), np.float32), "uint8"),
    "grey": (np.zeros((8, 8), np.uint8), "H x W x 3"),
    "rgba": (np.zeros((8, 8, 4), np.uint8), "H x W x 3"),
    "planar": (np.zeros((3, 8, 3), np.uint8).transpose(1, 0, 2), "whole rows"),
    "empty": (np.zeros((0, 8, 3), np.uint8), "H x W x 3"),
}


@pytest.mark.parametrize("case", BAD_DEVICE_FRAMES, ids=str)
def test_a_device_frame_of_another_form_is_refused(simulate, case):
    _, engine, kernels = simulate()
    array, message = BAD_DEVICE_FRAMES[case]
    with GpuPipeline(engine, kernels=kernels) as gpu, pytest.raises(InputError, match=message):
        gpu.run(DeviceArray(array), random_affines(1))


def test_stages_and_network_times_are_given(simulate):
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels) as gpu:
        stages = gpu.stages(random_frame(), random_affines(2))
        assert list(stages) == ["upload", "crop", "network", "decode"] and all(ms > 0 for ms in stages.values())
        for mode in ("graph", "plain", "own graph"):
            assert gpu.network_ms(2, 5, mode) == [0.25] * 5
        assert device.own_graphs == 1


def test_what_is_timed_waits_behind_other_work(simulate, monkeypatch):
    """On an idle device events would time the host's calls."""
    _, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels) as gpu:
        gpu.run(random_frame(), random_affines(1))
        driver, queued = gpu._device.driver, []
        record = driver.Event.record
        monkeypatch.setattr(
            driver.Event, "record", lambda self, stream: queued.append(len(stream.queue)) or record(self, stream)
        )
        gpu.stages(random_frame(), random_affines(1))
        gpu.network_ms(1, 1)
    assert all(queued)


def test_warm_makes_every_lane_and_graph(simulate):
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels, lanes=2) as gpu:
        gpu.warm()
        assert device.captures == 2 * 4
        before = device.allocations, device.captures
        gpu.run(random_frame(0, (2, 2)), random_affines(5))
        assert (device.allocations, device.captures) == before


@pytest.mark.parametrize("kind", ["simcc", "heatmap"])
@pytest.mark.parametrize("count", [0, 1, 3, 8, 21])
def test_the_session_gives_the_cpu_sessions_outputs(simulate, kind, count):
    _, engine, kernels = simulate(kind)
    crops = np.random.default_rng(count).standard_normal((count, 3, 64, 48)).astype(np.float32)
    with OrtSession(engine, threads=1) as cpu, TensorRTSession(engine, kernels=kernels) as gpu:
        for a, b in zip(gpu.run(crops), cpu.run(crops), strict=True):
            assert a.dtype == np.float32 and a.shape == b.shape
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_session_takes_crops_of_its_size_alone(simulate):
    _, engine, kernels = simulate()
    with TensorRTSession(engine, kernels=kernels) as session, pytest.raises(InputError, match="crops must be float32"):
        session.run(np.zeros((2, 3, 48, 64), np.float32))


def test_the_session_frees_what_it_took(simulate):
    device, engine, kernels = simulate()
    session = TensorRTSession(engine, kernels=kernels)
    session.run(np.zeros((2, 3, 64, 48), np.float32))
    session.close()
    assert not device.live and not device.pinned
    with pytest.raises(ClosedError):
        session.run(np.zeros((2, 3, 64, 48), np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lanes": 0}, "lanes must be"),
        ({"lanes": 1.5}, "lanes must be"),
        ({"time_out_s": 0.0}, "time_out_s must be positive"),
        ({"pixel_format": "yuyv"}, "pixel_format must be"),
        ({"refine": "magic"}, "refine must be"),
    ],
    ids=["lanes", "half a lane", "time-out", "pixel-format", "refine"],
)
def test_options_are_checked(simulate, options, message):
    _, engine, kernels = simulate()
    with pytest.raises(InputError, match=message):
        GpuPipeline(engine, kernels=kernels, **options)


def test_heatmaps_are_not_refined(simulate):
    _, engine, kernels = simulate("heatmap")
    with pytest.raises(InputError, match="'none' for heatmaps"):
        GpuPipeline(engine, kernels=kernels, refine="dark")

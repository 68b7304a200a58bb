"""The GPU pipeline on a simulated device: the same poses as the CPU's, whatever the frame and the options."""

from dataclasses import replace

import numpy as np
import pytest

from sdk import ops
from sdk.errors import InputError
from sdk.geometry import crop_affines
from sdk.manifest import SpreadNote
from sdk.runtime.cuda.gpu_pipeline import GpuPipeline
from sdk.runtime.decoding import decoding_of
from sdk.runtime.memory import pinned_frame
from sdk.runtime.ort_session import OrtSession
from sdk.runtime.pipeline import CpuPipeline
from tests.support.cuda_frames import DeviceArray, random_affines, random_frame
from tests.support.simulated_plan import SimulatedPlan

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


def test_without_graphs_the_same_work_is_enqueued(simulate):
    device, engine, kernels = simulate()
    frame, affines = random_frame(), random_affines(2)
    with GpuPipeline(engine, kernels=kernels) as graphs, GpuPipeline(engine, kernels=kernels, graphs=False) as plain:
        np.testing.assert_array_equal(plain.run(frame, affines)[0], graphs.run(frame, affines)[0])
        assert device.captures == 1


def test_a_plan_without_scratch_leaves_the_joints_room(simulate, monkeypatch):
    _, engine, kernels = simulate()
    monkeypatch.setattr(SimulatedPlan, "activation_bytes", 0)
    frame, affines = random_frame(), random_affines(8)
    with CpuPipeline(OrtSession(engine, threads=1)) as cpu, GpuPipeline(engine, kernels=kernels) as gpu:
        np.testing.assert_array_equal(gpu.run(frame, affines)[0], cpu.run(frame, affines)[0])


def test_a_larger_frame_grows_the_buffers_once(simulate):
    device, engine, kernels = simulate()
    with CpuPipeline(OrtSession(engine, threads=1)) as cpu, GpuPipeline(engine, kernels=kernels, lanes=1) as gpu:
        for hw in ((20, 30), (90, 120), (20, 30), (64, 200), (90, 120)):
            frame, affines = random_frame(7, hw), random_affines(2, 7, hw)
            np.testing.assert_array_equal(gpu.run(frame, affines)[0], cpu.run(frame, affines)[0])
        assert device.captures == 1


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

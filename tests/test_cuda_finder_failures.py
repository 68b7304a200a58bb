"""A pipeline that finds persons when things go wrong, on a simulated device: memory, losses, interrupts, closing."""

import gc
import threading

import numpy as np
import pytest

from sdk.errors import ClosedError, DeviceError, DeviceLostError, OutOfMemoryError
from sdk.runtime.cuda import finder, loaded_plan
from sdk.runtime.cuda.gpu_pipeline import GpuPipeline
from tests.support.cuda_frames import DeviceArray, random_affines, random_frame
from tests.support.lanes import closed_meanwhile, waits_cut_off
from tests.support.small_detector import crowded_frame, found_on_cpu, small_detector_engine
from tests.support.threads import in_threads, wait_for

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytestmark = pytest.mark.native

FRAME = crowded_frame()


@pytest.fixture
def detector(tmp_path):
    return small_detector_engine(tmp_path / "detector")


@pytest.fixture
def opened(simulate, detector):
    """A function that opens a pipeline with the detector on a simulated device: (device, pipeline)."""

    def open_one(**options):
        device, engine, kernels = simulate("simcc", detector)
        return device, GpuPipeline(engine, kernels=kernels, detector=detector, **options)

    return open_one


def assert_right(gpu, detector):
    assert np.array_equal(gpu.find(FRAME, 2).boxes, found_on_cpu(detector, FRAME)[0])


@pytest.mark.parametrize("end", ["close", "drop", "error"])
def test_everything_is_freed_in_whatever_way_it_ends(opened, end):
    device, gpu = opened()
    gpu.find(FRAME, 2)
    if end == "close":
        gpu.close()
        gpu.close()
        with pytest.raises(ClosedError, match="closed"):
            gpu.find(FRAME)
    if end == "error":
        device.refuse_in_capture = True
        with pytest.raises(DeviceError, match="refused"):
            gpu.find(FRAME, 8)
    del gpu
    gc.collect()
    assert not device.live and not device.pinned and not loaded_plan._plans


def test_a_refusal_in_a_capture_is_an_error_and_the_next_frame_is_right(opened, detector):
    device, gpu = opened()
    with gpu:
        device.refuse_in_capture = True
        with pytest.raises(DeviceError, match="refused"):
            gpu.find(FRAME, 2)
        device.refuse_in_capture = False
        assert_right(gpu, detector)


def test_a_detector_that_does_not_fit_leaves_nothing_and_says_how_much_it_needs(simulate, detector):
    device, engine, kernels = simulate("simcc", detector)
    with GpuPipeline(engine, kernels=kernels):
        alone = device.used_bytes
    device.memory_bytes = alone + 2000
    with pytest.raises(OutOfMemoryError, match=r"needed \d+ bytes .* free 2000 bytes"):
        GpuPipeline(engine, kernels=kernels, detector=detector)
    assert not device.live and not device.pinned and not loaded_plan._plans
    device.memory_bytes = 1 << 30
    with GpuPipeline(engine, kernels=kernels, detector=detector) as gpu:
        assert_right(gpu, detector)
        device.memory_bytes = device.used_bytes + 100
        with pytest.raises(OutOfMemoryError, match="hold frames"):
            gpu.find(crowded_frame(1, (400, 400)), 2)
        device.memory_bytes = 1 << 30
        assert_right(gpu, detector)


def test_a_sticky_error_kills_the_pipeline_and_frees_nothing(opened):
    device, gpu = opened()
    gpu.find(FRAME, 2)
    frees, device.sticky = device.frees, True
    with pytest.raises(DeviceLostError, match=r"illegal memory access.*leave the process"):
        gpu.find(FRAME, 2)
    device.sticky = False
    with pytest.raises(DeviceLostError, match="is lost"):
        gpu.find(FRAME)
    gpu.close()
    del gpu
    gc.collect()
    assert device.frees == frees and device.live and len(device.graphs) == 2


def test_a_device_lost_while_the_detectors_plan_is_loaded_frees_nothing(simulate, detector, monkeypatch):
    from sdk import trt

    device, engine, kernels = simulate("simcc", detector)
    load = trt.load_plan

    def lost(compiler, data, *, dla_core=None):
        if data.startswith(b"simulated detector"):
            device.sticky = True
            raise DeviceError("tensorrt could not read the plan: an illegal memory access was encountered")
        return load(compiler, data, dla_core=dla_core)

    monkeypatch.setattr(trt, "load_plan", lost)
    with pytest.raises(DeviceLostError):
        GpuPipeline(engine, kernels=kernels, detector=detector)
    assert device.frees == 0


def test_the_watchdog_gives_up_on_a_hung_device(opened):
    device, gpu = opened(time_out_s=0.05)
    gpu.find(FRAME, 2)
    device.hangs = True
    for _ in range(2):
        with pytest.raises(DeviceLostError, match=r"did not .* within 0.05 s"):
            gpu.find(FRAME, 2)


def test_an_interrupt_leaves_the_lane_usable(opened, detector, monkeypatch):
    device, gpu = opened(lanes=1)
    with gpu:
        gpu.find(FRAME, 2)
        with waits_cut_off(gpu, monkeypatch):
            gpu.find(crowded_frame(1, (40, 200)), 2)
        assert any(stream.queue for stream in device.streams)
        assert_right(gpu, detector)
        assert device.stack == []
    assert not device.live and not device.graphs


def test_after_an_interrupt_of_warming_up_a_lane_is_waited_for(opened, detector, monkeypatch):
    device, gpu = opened(lanes=1)
    with gpu:
        gpu.find(FRAME, 2)
        with waits_cut_off(gpu, monkeypatch):
            gpu.warm()
        assert any(stream.queue for stream in device.streams)
        with gpu._device.entered("look"), gpu._pool.lent():
            assert not any(stream.queue for stream in device.streams)
        assert_right(gpu, detector)


def test_warming_up_waits_for_a_lane_that_a_call_holds(opened):
    _, gpu = opened(lanes=2)
    warm = threading.Thread(target=gpu.warm)
    with gpu:
        with gpu._device.entered("hold a lane"), gpu._pool.lent() as held:
            warm.start()
            wait_for(lambda: len(gpu._pool.every()) == 2 and _graphs(gpu, held) == 8)
            assert warm.is_alive() and not held._graphs
        warm.join(60)
        assert [len(lane._graphs) for lane in gpu._pool.every()] == [8, 8]


def _graphs(gpu, but):
    (other,) = (lane for lane in gpu._pool.every() if lane is not but)
    return len(other._graphs)


def test_an_interrupt_while_a_frames_place_is_written_leaves_no_half_of_it(opened, detector, monkeypatch):
    class Broken:
        """Where a frame lies, told as far as its affine."""

        to_frame = np.eye(2, 3)

        @property
        def crop(self):
            raise KeyboardInterrupt

    _, gpu = opened(lanes=1)
    with gpu:
        assert_right(gpu, detector)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(finder, "letterbox", lambda *_: Broken())
            gpu.find(crowded_frame(1, (40, 200)), 2)
        assert_right(gpu, detector)


def test_a_frame_that_takes_longer_than_one_look_is_waited_for(opened, detector, monkeypatch):
    _, gpu = opened(lanes=1)
    with gpu:
        gpu.find(FRAME, 2)
        (lane,) = gpu._pool.every()
        monkeypatch.setattr(lane._finder, "_look_s", 0.0)
        assert_right(gpu, detector)


def test_closing_waits_for_the_calls_under_way(opened, detector):
    device, gpu = opened()
    expected = gpu.find(FRAME, 2)
    found = closed_meanwhile(device, gpu, lambda: gpu.find(FRAME, 2))
    np.testing.assert_array_equal(found.persons, expected.persons)
    assert not device.live and not device.pinned


def test_threads_find_and_estimate_on_shared_lanes(opened, detector):
    _, gpu = opened(lanes=2)
    with gpu:
        frames = [crowded_frame(seed) for seed in range(3)]
        alone = [gpu.find(frame, 4).persons for frame in frames]
        given, affines = random_frame(), random_affines(3)
        joints, _ = gpu.run(given, affines)
        same = []

        def work(index):
            for turn in range(4):
                which = (index + turn) % len(frames)
                frame = DeviceArray(frames[which]) if turn % 2 else frames[which]
                same.append(np.array_equal(gpu.find(frame, 4).persons, alone[which]))
                same.append(np.array_equal(gpu.run(given, affines)[0], joints))

        in_threads(work, 4)
        assert same == [True] * 32

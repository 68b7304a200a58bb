"""The GPU pipeline when things go wrong, on a simulated device: closing, memory, losses, interrupts, neighbours."""

import gc
import threading

import numpy as np
import pytest

from sdk.errors import ClosedError, DeviceError, DeviceLostError, OutOfMemoryError
from sdk.runtime.cuda.gpu_pipeline import GpuPipeline
from sdk.runtime.memory import pinned_frame
from sdk.runtime.ort_session import OrtSession
from sdk.runtime.pipeline import CpuPipeline
from tests.support.cuda_frames import random_affines, random_frame

pytestmark = pytest.mark.native


def test_everything_is_freed_in_whatever_way_it_ends(simulate):
    device, engine, kernels = simulate()
    for end in ("close", "drop", "error"):
        gpu = GpuPipeline(engine, kernels=kernels)
        gpu.run(random_frame(), random_affines(2))
        if end == "close":
            gpu.close()
            gpu.close()
        if end == "error":
            device.refuse_in_capture = True
            with pytest.raises(DeviceError):
                gpu.run(random_frame(), random_affines(1))
            device.refuse_in_capture = False
        del gpu
        gc.collect()
        assert not device.live and not device.pinned, end


def test_closed_is_an_error_in_words(simulate):
    _, engine, kernels = simulate()
    gpu = GpuPipeline(engine, kernels=kernels)
    gpu.close()
    with pytest.raises(ClosedError, match="closed"):
        gpu.run(random_frame(), random_affines(1))


def test_garbage_collected_during_a_capture_is_freed_after_it(simulate, monkeypatch):
    device, engine, kernels = simulate()
    doomed = [GpuPipeline(engine, kernels=kernels)]
    with GpuPipeline(engine, kernels=kernels) as gpu:
        capture = kernels.begin_capture

        def begin(stream):
            capture(stream)
            doomed.clear()
            gc.collect()

        monkeypatch.setattr(kernels, "begin_capture", begin)
        held = len(device.live)
        gpu.run(random_frame(), random_affines(1))
        assert len(device.live) <= held


def test_out_of_memory_says_how_much_and_passes(simulate):
    device, engine, kernels = simulate(memory_bytes=2000)
    with pytest.raises(OutOfMemoryError, match=r"needed \d+ bytes .* free 2000 bytes") as caught:
        GpuPipeline(engine, kernels=kernels)
    assert caught.value.free_bytes == 2000 and caught.value.needed_bytes > 2000
    assert not device.live and not device.pinned
    device.memory_bytes = 1 << 30
    with GpuPipeline(engine, kernels=kernels) as gpu:
        gpu.run(random_frame(), random_affines(1))
        device.memory_bytes = device.used_bytes + 100
        with pytest.raises(OutOfMemoryError, match="hold a frame"):
            gpu.run(random_frame(0, (400, 400)), random_affines(1))
        device.memory_bytes = 1 << 30
        gpu.run(random_frame(0, (400, 400)), random_affines(1))


def test_a_lane_too_many_waits_for_one_that_fits(simulate):
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels, lanes=3) as gpu:
        gpu.run(random_frame(), random_affines(1))
        device.memory_bytes = device.used_bytes + 10
        threads = [threading.Thread(target=gpu.run, args=(random_frame(), random_affines(1))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert not any(thread.is_alive() for thread in threads)


def test_a_sticky_error_kills_the_estimator_and_frees_nothing(simulate):
    device, engine, kernels = simulate()
    gpu = GpuPipeline(engine, kernels=kernels)
    gpu.run(random_frame(), random_affines(1))
    frees = device.frees
    device.sticky = True
    with pytest.raises(DeviceLostError, match=r"illegal memory access.*leave the process"):
        gpu.run(random_frame(), random_affines(1))
    device.sticky = False
    with pytest.raises(DeviceLostError, match="is lost"):
        gpu.run(random_frame(), random_affines(1))
    with pytest.raises(DeviceLostError, match="is lost"):
        GpuPipeline(engine, kernels=kernels)
    gpu.close()
    del gpu
    gc.collect()
    assert device.frees == frees and device.live


def test_the_watchdog_gives_up_on_a_hung_device(simulate):
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels, time_out_s=0.05) as gpu:
        gpu.run(random_frame(), random_affines(1))
        device.hangs = True
        with pytest.raises(DeviceLostError, match=r"did not .* within 0.05 s"):
            gpu.run(random_frame(), random_affines(1))
        with pytest.raises(DeviceLostError):
            gpu.run(random_frame(), random_affines(1))


def test_threads_that_wait_for_a_lane_hear_of_the_loss_at_once(simulate):
    """One thread finds the device hung; those that waited behind it do not wait for the time-out again."""
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels, lanes=1, time_out_s=0.3) as gpu:
        gpu.run(random_frame(), random_affines(1))
        device.hangs = True
        heard = []

        def work():
            try:
                gpu.run(random_frame(), random_affines(1))
            except DeviceLostError as error:
                heard.append(str(error))

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert len(heard) == 6 and len(set(heard)) == 1


def test_an_interrupt_leaves_the_lane_usable(simulate, monkeypatch):
    device, engine, kernels = simulate()
    with CpuPipeline(OrtSession(engine, threads=1)) as cpu, GpuPipeline(engine, kernels=kernels, lanes=1) as gpu:
        affines = random_affines(1)
        gpu.run(random_frame(), affines)
        lane = gpu._pool.every()[0]

        def interrupted(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(type(lane), "_downloaded", interrupted)
            gpu.run(random_frame(3), affines)
        found, _ = gpu.run(random_frame(4), affines)
        np.testing.assert_array_equal(found, cpu.run(random_frame(4), affines)[0])
        assert device.stack == []


def test_a_loan_cut_off_by_an_interrupt_loses_no_lane(simulate):
    """As if Ctrl-C came between taking a lane and the line after it, more often than there are lanes."""
    _, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels, lanes=2) as gpu:
        for _ in range(5):
            with gpu._device.entered("be interrupted"):
                gpu._pool._take()
            gpu.run(random_frame(), random_affines(1))
    assert kernels.device.live == {} and kernels.device.pinned == {}


def test_a_pinned_frame_lives_as_long_as_its_last_view_and_is_freed_in_any_thread(simulate):
    device, _, _ = simulate()
    frame = pinned_frame(20, 30)
    views = [frame[2:, 3:][1:]]
    del frame
    gc.collect()
    assert len(device.pinned) == 1
    views[0][...] = 7
    thread = threading.Thread(target=views.clear)
    thread.start()
    thread.join()
    gc.collect()
    assert not device.pinned


def test_another_librarys_capture_is_no_loss_of_the_device(simulate):
    """Torch captures in a mode that forbids other threads what CUDA deems unsafe: an error, and no sticky one."""
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels) as gpu:
        gpu.run(random_frame(), random_affines(1))
        device.captured_elsewhere = True
        with pytest.raises(DeviceError, match="capturing") as caught:
            gpu.run(random_frame(0, (400, 400)), random_affines(1))
        assert not isinstance(caught.value, DeviceLostError)
        device.captured_elsewhere = False
        gpu.run(random_frame(0, (400, 400)), random_affines(1))


def test_a_forked_child_is_told_so_and_touches_nothing(simulate, monkeypatch):
    device, engine, kernels = simulate()
    gpu = GpuPipeline(engine, kernels=kernels)
    gpu.run(random_frame(), random_affines(1))
    with monkeypatch.context() as patch:
        patch.setattr("sdk.runtime.cuda.context.os.getpid", lambda: -1)
        frees = device.frees
        with pytest.raises(ClosedError, match="fork"):
            gpu.run(random_frame(), random_affines(1))
        gpu.close()
        assert device.frees == frees

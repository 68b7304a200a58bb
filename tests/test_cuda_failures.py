"""The GPU pipeline when things go wrong, on a simulated device: closing, memory, losses, interrupts, neighbours."""

import gc
import threading
import weakref

import numpy as np
import pytest

from sdk.errors import ClosedError, DeviceError, DeviceLostError, OutOfMemoryError
from sdk.geometry import crop_affines
from sdk.runtime.cuda import loaded_plan
from sdk.runtime.cuda.context import device_context
from sdk.runtime.cuda.frame_lane import FrameLane
from sdk.runtime.cuda.gpu_pipeline import GpuPipeline
from sdk.runtime.cuda.tensorrt_session import TensorRTSession
from sdk.runtime.memory import pinned_frame
from sdk.runtime.ort_session import OrtSession
from sdk.runtime.pipeline import CpuPipeline
from tests.support.cuda_frames import DeviceArray, random_affines, random_frame
from tests.support.lanes import closed_meanwhile, waits_cut_off
from tests.support.threads import wait_for

pytestmark = pytest.mark.native

LARGER = random_frame(0, (400, 400)), crop_affines(np.float32([[0, 0, 400, 400]]), (64, 48), 1.25)


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


def test_garbage_of_a_device_lost_during_a_capture_is_left_alone(simulate, monkeypatch):
    device, engine, kernels = simulate()
    doomed = [GpuPipeline(engine, kernels=kernels)]
    gpu = GpuPipeline(engine, kernels=kernels)
    capture, held = kernels.begin_capture, len(device.live)

    def begin(stream):
        capture(stream)
        doomed.clear()
        gc.collect()
        gpu._device.lose("another thread found it hung")

    monkeypatch.setattr(kernels, "begin_capture", begin)
    gpu.run(random_frame(), random_affines(1))
    assert len(device.live) >= held
    with pytest.raises(DeviceLostError, match="another thread"):
        gpu.run(random_frame(), random_affines(1))


def test_measuring_the_bus_without_room_gives_back_what_it_took(simulate):
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels) as gpu:
        device.memory_bytes, pinned = device.used_bytes + (1 << 20), len(device.pinned)
        with pytest.raises(OutOfMemoryError, match="measure transfers"):
            gpu.run(random_frame(), random_affines(1))
        assert len(device.pinned) == pinned


def without_room(shape, dtype, **_):
    from pycuda import driver

    raise driver.MemoryError("cuMemHostAlloc failed: out of memory")


@pytest.mark.parametrize("lost", [False, True], ids=["out of memory", "lost"])
def test_a_lane_that_cannot_be_prepared_is_freed_unless_the_device_is_lost(simulate, monkeypatch, lost):
    device, engine, kernels = simulate()
    context = device_context(0)

    def refused(*given, **flags):
        if lost:
            context.lose("another thread found it hung")
        without_room(*given, **flags)

    monkeypatch.setattr(context.driver, "pagelocked_empty", refused)
    with pytest.raises(DeviceLostError if lost else OutOfMemoryError):
        GpuPipeline(engine, kernels=kernels)
    plans = [weakref.ref(loaded.plan) for loaded in loaded_plan._plans.values()]
    loaded_plan._plans.clear()  # as at the interpreter's end
    gc.collect()
    assert bool(device.live) == lost == any(plan() for plan in plans)


@pytest.mark.parametrize("opened", [GpuPipeline, TensorRTSession])
def test_out_of_memory_says_how_much_and_passes(simulate, opened):
    device, engine, kernels = simulate(memory_bytes=2000)
    with pytest.raises(OutOfMemoryError, match=r"needed \d+ bytes .* free 2000 bytes") as caught:
        opened(engine, kernels=kernels)
    assert caught.value.free_bytes == 2000 and caught.value.needed_bytes > 2000
    assert not device.live and not device.pinned and not loaded_plan._plans
    device.memory_bytes = 1 << 30
    with GpuPipeline(engine, kernels=kernels) as gpu:
        gpu.run(random_frame(), random_affines(1))
        device.memory_bytes = device.used_bytes + 100
        with pytest.raises(OutOfMemoryError, match="hold frames"):
            gpu.run(*LARGER)
        device.memory_bytes = 1 << 30
        gpu.run(random_frame(), random_affines(1))
        gpu.run(*LARGER)


def test_a_frame_without_room_in_pinned_memory_is_refused_and_passes(simulate, monkeypatch):
    _, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels) as gpu:
        gpu.run(random_frame(), random_affines(1))
        with monkeypatch.context() as patch:
            patch.setattr(gpu._device.driver, "pagelocked_empty", without_room)
            with pytest.raises(OutOfMemoryError, match="stage frames in pinned host memory: needed 480256 bytes"):
                gpu.run(*LARGER)
        gpu.run(random_frame(), random_affines(1))


def test_a_lane_too_many_waits_for_one_that_fits(simulate, caplog):
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels, lanes=3) as gpu:
        gpu.run(random_frame(), random_affines(1))
        device.memory_bytes = device.used_bytes + 10
        threads = [threading.Thread(target=gpu.run, args=(random_frame(), random_affines(1))) for _ in range(4)]
        with gpu._device.entered("hold the lane"), gpu._pool.lent():
            for thread in threads:
                thread.start()
            wait_for(lambda: len(gpu._pool._row) == 4)
        for thread in threads:
            thread.join(timeout=30)
        assert not any(thread.is_alive() for thread in threads)
    assert caplog.text.count("1 frame will be in flight at once") == 1


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
    assert device.frees == frees and device.live and device.graphs


def test_the_watchdog_gives_up_on_a_hung_device(simulate):
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels, time_out_s=0.05) as gpu:
        gpu.run(random_frame(), random_affines(1))
        device.hangs = True
        with pytest.raises(DeviceLostError, match=r"did not .* within 0.05 s"):
            gpu.run(random_frame(), random_affines(1))
        with pytest.raises(DeviceLostError):
            gpu.run(random_frame(), random_affines(1))


def test_threads_that_wait_for_a_lane_hear_of_the_loss_at_once(simulate, monkeypatch):
    """One thread finds the device hung; those that waited behind it do not wait for the time-out again."""
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels, lanes=1, time_out_s=0.3) as gpu:
        gpu.run(random_frame(), random_affines(1))
        device.hangs = True
        heard, waits, wait = [], [], gpu._device.wait
        monkeypatch.setattr(gpu._device, "wait", lambda *given: waits.append(given) or wait(*given))

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
        assert len(waits) == 1  # of the first thread, for its frame


def interrupted(*_, **__):
    raise KeyboardInterrupt


def cut_off(gpu, monkeypatch):
    """A frame whose wait is interrupted: its work stays on the stream."""
    with waits_cut_off(gpu, monkeypatch):
        gpu.run(random_frame(), random_affines(1))


def test_a_frame_cut_off_is_waited_for_before_its_graph_is_freed(simulate, monkeypatch):
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels) as gpu:
        gpu.run(random_frame(), random_affines(1))
        cut_off(gpu, monkeypatch)
        assert any(stream.queue for stream in device.streams)
    assert not device.live and not device.graphs


def test_closing_frees_what_a_traceback_still_holds(simulate):
    device, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels) as gpu:
        gpu.run(random_frame(), random_affines(1))
        (lane,) = gpu._pool.every()
        (graph,), context = lane._graphs.values(), weakref.ref(lane.context_for(1))
    assert not device.graphs and context() is None
    with pytest.raises(ValueError, match="destroyed"):
        graph.launch(0)


def test_a_device_lost_at_a_graphs_launch_is_said_so(simulate, monkeypatch):
    device, engine, kernels = simulate()
    gpu = GpuPipeline(engine, kernels=kernels)
    gpu.run(random_frame(), random_affines(1))
    frame, given = DeviceArray(random_frame()), FrameLane._given  # nothing is uploaded that could fail before
    monkeypatch.setattr(FrameLane, "_given", lambda *each: (given(*each), setattr(device, "sticky", True))[0])
    with pytest.raises(DeviceLostError, match=r"the graph could not be launched.*illegal memory access"):
        gpu.run(frame, random_affines(1))


def test_a_device_found_hung_at_closing_is_left_alone(simulate, monkeypatch):
    device, engine, kernels = simulate()
    gpu = GpuPipeline(engine, kernels=kernels, lanes=2, time_out_s=0.05, graphs=False)
    gpu.warm()
    cut_off(gpu, monkeypatch)
    held = len(device.live), len(device.pinned)
    kept = [weakref.ref(context) for lane in gpu._pool.every() for context in lane._contexts.values()]
    device.hangs = True
    with pytest.raises(DeviceLostError, match="closing"):
        gpu.close()
    del gpu
    gc.collect()
    assert (len(device.live), len(device.pinned)) == held
    assert all(context() is not None for context in kept)


def test_closing_waits_for_the_calls_under_way(simulate):
    device, engine, kernels = simulate()
    gpu = GpuPipeline(engine, kernels=kernels)
    expected, _ = gpu.run(random_frame(), random_affines(1))
    joints, _ = closed_meanwhile(device, gpu, lambda: gpu.run(random_frame(), random_affines(1)))
    np.testing.assert_array_equal(joints, expected)
    assert not device.live and not device.pinned


def test_closing_leaves_a_lane_whose_thread_does_not_come_back(simulate, monkeypatch):
    device, engine, kernels = simulate()
    gpu = GpuPipeline(engine, kernels=kernels, lanes=2, time_out_s=0.05)
    expected, _ = gpu.run(random_frame(), random_affines(1))
    gpu.warm()
    held, release, found = len(device.live), threading.Event(), []
    told = FrameLane._told_transfer
    monkeypatch.setattr(FrameLane, "_told_transfer", lambda lane, flight: release.wait(30) and told(lane, flight))
    running = threading.Thread(target=lambda: found.append(gpu.run(random_frame(), random_affines(1))[0]))
    running.start()
    wait_for(gpu._pool._stuck)
    gpu.close()
    assert 2 * len(device.live) == held
    release.set()
    running.join(timeout=30)
    np.testing.assert_array_equal(found, [expected])


def test_threads_that_wait_for_a_lane_hear_of_the_closing(simulate):
    device, engine, kernels = simulate()
    gpu, heard = GpuPipeline(engine, kernels=kernels, lanes=1), []

    def work():
        with pytest.raises(ClosedError):
            gpu.run(random_frame(), random_affines(1))
        heard.append("closed")

    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    with gpu._device.entered("hold the lane"), gpu._pool.lent():
        for thread in threads:
            thread.start()
        wait_for(lambda: len(gpu._pool._row) == 3)
        gpu.close()
        for thread in threads:
            thread.join(timeout=30)
    assert heard == ["closed"] * 3 and not device.live


def test_an_interrupt_leaves_the_lane_usable(simulate, monkeypatch):
    device, engine, kernels = simulate()
    with CpuPipeline(OrtSession(engine, threads=1)) as cpu, GpuPipeline(engine, kernels=kernels, lanes=1) as gpu:
        gpu.run(random_frame(), random_affines(1))
        cut_off(gpu, monkeypatch)
        larger, affines = random_frame(4, (200, 300)), random_affines(1)  # it takes the place of the one cut off
        found, _ = gpu.run(larger, affines)
        np.testing.assert_array_equal(found, cpu.run(larger, affines)[0])
        assert device.stack == []


def test_a_context_whose_making_is_interrupted_is_made_anew(simulate, monkeypatch):
    _, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels, lanes=1) as gpu:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(FrameLane, "prepare_context", interrupted)
            gpu.run(random_frame(), random_affines(1))
        found, _ = gpu.run(random_frame(), random_affines(1))
    with GpuPipeline(engine, kernels=kernels) as other:
        np.testing.assert_array_equal(found, other.run(random_frame(), random_affines(1))[0])


def test_a_loan_cut_off_by_an_interrupt_loses_no_lane(simulate):
    """As if Ctrl-C came between taking a lane and the line after it, more often than there are lanes."""
    _, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels, lanes=2) as gpu:
        for _ in range(5):
            with gpu._device.entered("be interrupted"):
                gpu._pool.take()
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
            gpu.run(*LARGER)
        assert not isinstance(caught.value, DeviceLostError)
        device.captured_elsewhere = False
        gpu.run(*LARGER)


def test_a_forked_child_is_told_so_and_touches_nothing(simulate, monkeypatch):
    device, engine, kernels = simulate()
    gpu = GpuPipeline(engine, kernels=kernels)
    gpu.run(random_frame(), random_affines(1))
    frame = pinned_frame(20, 30)
    with monkeypatch.context() as patch:
        patch.setattr("sdk.runtime.cuda.context.os.getpid", lambda: -1)
        frees, held, frames = device.frees, set(device.pinned), [frame]
        del frame
        with pytest.raises(ClosedError, match="fork"):
            gpu.run(random_frame(), random_affines(1))
        gpu.close()
        frames.clear()
        gc.collect()
        assert device.frees == frees and device.pinned.keys() >= held

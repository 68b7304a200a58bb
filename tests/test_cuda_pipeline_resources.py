"""The GPU pipeline's resources on a simulated device: graphs, lanes, plans, kernels, costs that are measured once."""

import weakref
from dataclasses import replace

import numpy as np
import pytest

from sdk import trt
from sdk.errors import DeviceError, EngineError
from sdk.manifest import kernel_cache_name
from sdk.runtime.cuda import bandwidth, loaded_plan
from sdk.runtime.cuda.context import device_context
from sdk.runtime.cuda.frame_lane import FrameLane
from sdk.runtime.cuda.gpu_pipeline import GpuPipeline
from sdk.runtime.cuda.tensorrt_session import TensorRTSession
from tests.support.cuda_frames import OFF_FRAME, random_affines, random_frame
from tests.support.engines import given_plan
from tests.support.fairness import check_fair
from tests.support.simulated_plan import SimulatedContext, SimulatedPlan, simulated_engine
from tests.support.threads import in_threads

pytestmark = pytest.mark.native


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

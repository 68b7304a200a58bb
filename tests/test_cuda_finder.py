"""A detector's plan beside the pose network's on a simulated device: the persons and joints of the CPU, bit for bit,
whatever the frame; the boxes go from one graph to the other on the device, and the host waits once. Of several frames
those on other lanes are launched meanwhile."""

import threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from sdk.errors import EngineError, InputError
from sdk.runtime.cuda.gpu_pipeline import GpuPipeline
from sdk.runtime.ort_session import OrtSession
from sdk.runtime.pipeline import CpuPipeline
from tests.support.cuda_frames import DeviceArray
from tests.support.ops_cases import noise_nv12
from tests.support.simulated_cuda import Stream
from tests.support.small_detector import GRID, crowded_frame, found_on_cpu, small_detector_engine

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytestmark = pytest.mark.native

SIZES_HW = [(90, 120), (31, 200), (200, 50)]
NOBODY = np.zeros((90, 120, 3), np.uint8)


@pytest.fixture
def detector(tmp_path):
    return small_detector_engine(tmp_path / "detector")


@pytest.fixture
def opened(simulate, detector):
    """A function that opens a pipeline with the detector on a simulated device: (device, GPU's, CPU's)."""
    pipelines = []

    def open_both(kind="simcc", *, switches=None, **options):
        device, engine, kernels = simulate(kind, detector, **(switches or {}))
        pixels = {"pixel_format": options.get("pixel_format", "bgr")}
        pipelines.append(GpuPipeline(engine, kernels=kernels, detector=detector, **options))
        pipelines.append(CpuPipeline(OrtSession(engine, threads=1), **pixels))
        return device, *pipelines[-2:]

    yield open_both
    for each in pipelines:
        each.close()


@contextmanager
def in_another_thread(deed):
    """What `deed` takes belongs to a thread that lives as long as the block."""
    done, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (deed(), done.set(), over.wait(30)), daemon=True)
    thread.start()
    assert done.wait(30)
    yield
    over.set()
    thread.join(30)


def assert_as_on_cpu(gpu, cpu, detector, frame, given, expected, *, flip=False, pixel_format="bgr"):
    """What was found."""
    boxes, scores = found_on_cpu(detector, frame, pixel_format)
    found = gpu.find(given, expected, flip=flip)
    assert np.array_equal(found.boxes, boxes) and np.array_equal(found.scores, scores)
    if found.persons is not None:
        joints, _, _ = cpu.estimate([frame], boxes[: len(found.persons)], flip=flip)
        assert len(joints) >= min(expected, len(boxes), gpu.max_batch)
        # of a flip test the CPU mirrors the crop, and the GPU crops the mirrored frame
        np.testing.assert_allclose(found.persons, joints, rtol=0, atol=1e-4 if flip else 0)
    return found


@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flipped"])
@pytest.mark.parametrize("integrated", [False, True], ids=["card", "jetson"])
@pytest.mark.parametrize("where", ["pageable", "device"])
def test_persons_and_joints_are_the_cpus(opened, detector, where, integrated, flip):
    _, gpu, cpu = opened(switches={"integrated": integrated})
    counts = set()
    for seed, (hw, expected) in enumerate(zip(SIZES_HW * 2, (1, 0, 4, 4, 99, 3), strict=True)):
        frame = crowded_frame(seed, hw)
        given = DeviceArray(frame) if where == "device" else frame
        found = assert_as_on_cpu(gpu, cpu, detector, frame, given, expected, flip=flip)
        assert (found.persons is None) == (expected == 0)
        assert found.timings["transfer"] == ("none: on the device" if where == "device" else "packed")
        counts.add(len(found.boxes))
    assert len(counts) > 2 and max(counts) > gpu.max_batch


def bright_nv12():
    frame = noise_nv12(90, 120)
    frame[:90] //= 2
    frame[:90] += np.kron(np.eye(90, 120, dtype=np.uint8)[::15, ::15], np.full((15, 15), 120, np.uint8))
    return frame


@pytest.mark.parametrize("pixel_format", ["rgb", "nv12"])
def test_frames_of_other_formats(opened, detector, pixel_format):
    _, gpu, cpu = opened(pixel_format=pixel_format)
    frame = bright_nv12() if pixel_format == "nv12" else crowded_frame()
    for given in (DeviceArray(frame), frame):
        assert len(assert_as_on_cpu(gpu, cpu, detector, frame, given, 4, pixel_format=pixel_format).persons)


def test_halves_in_and_out(opened, detector):
    _, gpu, _ = opened(switches={"plan_dtype": "float16"})
    frame = crowded_frame()
    boxes, scores = found_on_cpu(detector, frame, dtype=np.float16)
    found = gpu.find(DeviceArray(frame))
    assert len(boxes) and np.array_equal(found.boxes, boxes) and np.array_equal(found.scores, scores)


def test_without_graphs_the_same_work_is_enqueued(opened, detector):
    device, gpu, cpu = opened(graphs=False)
    for _ in range(2):
        assert len(assert_as_on_cpu(gpu, cpu, detector, crowded_frame(), crowded_frame(), 4).persons) == 4
    assert device.launches == device.captures == 0


@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flipped"])
def test_of_heatmaps_which_the_host_decodes_it_waits_once_too(opened, detector, overs, flip):
    _, gpu, cpu = opened("heatmap")
    for expected in (4, 4, 2, 0):
        frame = crowded_frame(expected)
        gpu.find(frame, expected, flip=flip)
        overs.clear()
        found = assert_as_on_cpu(gpu, cpu, detector, frame, frame, expected, flip=flip)
        assert (found.persons is None) == (expected == 0) and len(overs) == 1


@pytest.fixture
def overs(monkeypatch):
    """How many graphs were launched by the time that a wait for a stream was over, wait by wait."""
    found, look = [], Stream.look

    def noted(stream):
        waited, over = bool(stream.queue), look(stream)
        if waited and over:
            found.append(stream.device.launches)
        return over

    monkeypatch.setattr(Stream, "look", noted)
    return found


def test_a_frame_is_two_launches_and_one_wait_and_no_box_passes_the_host(opened, overs):
    device, gpu, _ = opened()
    frames = [DeviceArray(crowded_frame(seed)) for seed in range(2)]
    gpu.find(frames[0], 4)
    overs.clear()
    launches, enqueues, uploaded = device.launches, device.enqueues, device.uploaded_bytes
    assert len(gpu.find(frames[1], 4).persons) == 4
    assert (device.launches - launches, device.enqueues - enqueues, len(overs)) == (2, 0, 1)
    assert device.uploaded_bytes - uploaded < 256  # the frame's record, affines and place


@pytest.mark.parametrize(("lanes", "launched"), [(1, [1, 2, 3, 4, 5]), (3, [3, 4, 5, 5, 5])], ids=["one", "three"])
@pytest.mark.parametrize("where", [DeviceArray, np.asarray], ids=["device", "host"])
def test_frames_are_launched_on_every_lane_before_one_is_waited_for(opened, detector, overs, where, lanes, launched):
    device, gpu, _ = opened(lanes=lanes, switches={"lag": 64})
    gpu.warm()
    frames = {number: crowded_frame(number, SIZES_HW[number % 3]) for number in (7, 2, 0, 3, 5)}
    given = {number: where(frame) for number, frame in frames.items()}
    gpu.find_in(given)  # there is room for frames of the host now
    overs.clear()
    before = device.launches
    found = gpu.find_in(given)
    assert [number - before for number in overs] == launched
    assert list(found) == list(frames)
    for number, frame in frames.items():
        boxes, scores = found_on_cpu(detector, frame)
        assert np.array_equal(found[number].boxes, boxes) and np.array_equal(found[number].scores, scores)
    assert gpu.find_in({}) == {}


def test_lanes_that_others_have_are_not_waited_for(opened, overs):
    device, gpu, _ = opened(lanes=3, switches={"lag": 64})
    gpu.warm()
    frames, before = {number: DeviceArray(crowded_frame(number)) for number in range(3)}, device.launches
    with gpu._device.entered("hold a lane"), in_another_thread(gpu._pool.take):
        overs.clear()
        gpu.find_in(frames)
    assert [number - before for number in overs] == [2, 3, 3]


def test_a_frame_that_is_refused_is_named_and_the_lanes_are_whole(opened, detector):
    _, gpu, _ = opened(lanes=2)
    frames = {1: crowded_frame(1), 4: DeviceArray(np.zeros((5, 5), np.uint8)), 6: crowded_frame(2)}
    for _ in range(3):
        with pytest.raises(InputError, match="frame 4: "):
            gpu.find_in(frames)
    found = gpu.find_in({1: frames[1], 6: frames[6]})
    for number, each in found.items():
        assert np.array_equal(each.boxes, found_on_cpu(detector, frames[number])[0])


def test_a_batch_of_another_size_reads_no_frame_but_its_own(opened, monkeypatch):
    """Its first run is no capture: the crops of the frame before may be of memory that is gone."""
    device, gpu, _ = opened()
    kernels, frames, read = gpu._program.kernels, [crowded_frame(seed) for seed in range(2)], []
    gpu.find(DeviceArray(frames[0]), 1)
    crop = kernels.crop

    def told(out, records, *rest):
        device.stream(rest[-1]).put(lambda: read.append(int(device.bytes_at(records, 8).view(np.uint64)[0])))
        crop(out, records, *rest)

    monkeypatch.setattr(kernels, "crop", told)
    gpu.find(DeviceArray(frames[1]), 2)
    assert len(read) >= 2 and set(read) == {frames[1].ctypes.data}


def test_an_empty_frame_has_nobody(opened, detector):
    _, gpu, _ = opened()
    assert len(found_on_cpu(detector, NOBODY)[0]) == 0
    for given in (NOBODY, DeviceArray(NOBODY)):
        found = gpu.find(given, 4)
        assert found.persons.shape == (0, 14, 3) and found.boxes.shape == (0, 4) and found.scores.shape == (0,)


def test_warming_makes_every_graph_of_every_lane(opened):
    device, gpu, _ = opened(lanes=2)
    gpu.warm()
    captures, allocations = device.captures, device.allocations
    assert captures == 2 * (4 + 1 + 4)  # four batches of given boxes, the detector, four of found ones
    for count in range(6):
        gpu.find(DeviceArray(crowded_frame()), count)
    assert (device.captures, device.allocations) == (captures, allocations)


def test_the_detectors_plan_alone_is_timed(opened):
    _, gpu, _ = opened()
    assert gpu.detector_ms(3) == [0.25] * 3


def test_a_plan_of_another_recipe_is_refused_and_given_back(simulate, tmp_path):
    wide = replace(GRID, name="small-grid-64x128", input=replace(GRID.input, width=128))
    detector = small_detector_engine(tmp_path / "wide", wide, graph_of=GRID)
    device, engine, kernels = simulate("simcc", detector)
    for _ in range(2):
        with pytest.raises(EngineError, match=r"tensor 'images' .* must be float32 or float16, 1 x 3 x 64 x 128 \(got"):
            GpuPipeline(engine, kernels=kernels, detector=detector)
    assert not device.live and not device.pinned

"""Deeds for `tests/gpu/test_failures.py`, each run in a process of its own:
`python -m tests.support.gpu_deeds DEED ENGINE`.

A deed that goes as it should prints so in its last line.
"""

import atexit
import ctypes
import gc
import os
import sys
import threading
from pathlib import Path
from time import perf_counter, time

import numpy as np

from sdk import PoseEstimator
from sdk.errors import ClosedError, DeviceLostError, OutOfMemoryError
from sdk.geometry import crop_affines
from sdk.manifest import open_engine
from sdk.runtime.cuda.context import device_context
from sdk.runtime.cuda.gpu_pipeline import GpuPipeline
from sdk.runtime.cuda.kernels import CropWork, NativeKernels
from tests.support.gpu_engines import persons, street
from tests.support.stand_in import is_stand_in, library_of, use_stand_ins

FRAME, BOXES = street(360, 640), persons(3, (360, 640))
kept = []


def out_of_memory(folder):
    """Fill the device; opening says what it needed and what was free; freed, it works."""
    with PoseEstimator(folder, device="cuda") as estimate:
        estimate(FRAME, BOXES)
    device = device_context(0)
    if device.integrated:  # its memory is the whole board's: filling it would freeze the machine
        return
    with device.entered("fill the device"):
        hog = device.driver.mem_alloc(device.free_bytes() - (4 << 20))
    try:
        PoseEstimator(folder, device="cuda")
        raise AssertionError("an engine was opened in 4 MiB")
    except OutOfMemoryError as error:
        assert "free" in str(error) and error.free_bytes is not None
    with device.entered("empty the device"):
        hog.free()
    with PoseEstimator(folder, device="cuda") as estimate:
        assert len(estimate(FRAME, BOXES)) == 3


def sticky_error(folder):
    """A kernel that writes where nothing is kills the context; every later call says so within 10 ms."""
    estimate = PoseEstimator(folder, device="cuda")
    estimate(FRAME, BOXES)
    device = device_context(0)
    with device.entered("break the device"):
        work = CropWork(64, 64, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), False, False, False, (0.0,) * 6)
        NativeKernels().crop(1 << 44, 1 << 44, 1 << 44, 1, work, 0)
    for _ in range(2):
        start = perf_counter()
        try:
            estimate(FRAME, BOXES)
            raise AssertionError("a lost device gave poses")
        except DeviceLostError as error:
            assert "leave the process" in str(error)
        spent = perf_counter() - start
    assert spent < 0.01, f"the second call took {1e3 * spent:.1f} ms"
    estimate.close()


def hang(folder):
    """A host function on the lane's stream that never ends: within the time-out the device is lost. The process ends
    all the same; when its own work is over it says what time it is.
    """
    pipeline = GpuPipeline(open_engine(Path(folder)), lanes=1, time_out_s=0.5)
    affines = crop_affines(BOXES, pipeline.recipe.input.size_hw, 1.25)
    pipeline.run(FRAME, affines)
    (lane,) = pipeline._pool.every()
    never = threading.Event()
    wait = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: never.wait() and None)
    kept.append(wait)
    with device_context(0).entered("hang"):
        assert ctypes.CDLL("libcuda.so.1").cuLaunchHostFunc(ctypes.c_void_p(lane.stream_handle), wait, None) == 0
    for limit_s in (2.0, 0.01):
        start = perf_counter()
        try:
            pipeline.run(FRAME, affines)
            raise AssertionError("a hung device gave poses")
        except DeviceLostError as error:
            assert "within 0.5 s" in str(error)
        spent = perf_counter() - start
        assert spent < limit_s, f"it took {spent:.3f} s to say so"
    pipeline.close()
    atexit.register(lambda: print(f"over at {time()}"))


def fork(folder):
    estimate = PoseEstimator(folder, device="cuda")
    estimate(FRAME, BOXES)
    child = os.fork()
    if child == 0:
        try:
            estimate(FRAME, BOXES)
        except ClosedError:
            os._exit(7)
        os._exit(8)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    estimate(FRAME, BOXES)
    estimate.close()


def drop(folder):
    for _ in range(3):
        estimate = PoseEstimator(folder, device="cuda")
        estimate(FRAME, BOXES)
        del estimate
        gc.collect()


def drop_in_a_thread(folder):
    box = [PoseEstimator(folder, device="cuda")]
    box[0](FRAME, BOXES)
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()
    gc.collect()


def exit_while_open(folder):
    kept.append(PoseEstimator(folder, device="cuda"))
    kept[0](FRAME, BOXES)


def exit_while_running(folder):
    estimate = PoseEstimator(folder, device="cuda")
    kept.append(estimate)

    def work():
        try:
            while True:
                estimate(FRAME, BOXES)
        except ClosedError:
            return

    for _ in range(3):
        threading.Thread(target=work, daemon=True).start()
    estimate(FRAME, BOXES)
    for future in [estimate.submit(FRAME, BOXES) for _ in range(20)]:
        kept.append(future)


def run_for_ever(folder):
    with PoseEstimator(folder, device="cuda") as estimate:
        while True:
            estimate(FRAME, BOXES)


def both_ops(folder):
    """The ops alone, without TensorRT's kernels beside them."""
    from sdk import ops
    from tests.support.gpu_engines import OnGpu

    size_hw = open_engine(Path(folder)).manifest.recipe.input.size_hw
    affines = crop_affines(BOXES, size_hw, 1.25)
    rng = np.random.default_rng(0)
    with device_context(0).entered("run the ops"):
        for dtype in (np.float32, np.float16):
            crops = OnGpu(np.zeros((3, 3, *size_hw), dtype))
            ops.crop(OnGpu(FRAME), OnGpu(affines), size_hw, mean=(0, 0, 0), std=(1, 1, 1), dtype=dtype, out=crops)
            logits = [OnGpu(rng.standard_normal((3, 17, bins)).astype(dtype)) for bins in (96, 129)]
            for refine in ops.REFINEMENTS:
                joints = OnGpu(np.zeros((3, 17, 3), np.float32))
                ops.decode(*logits, OnGpu(affines), 2.0, score="min_softmax", refine=refine, out=joints)
                assert np.isfinite(joints.numpy()).all()
            assert crops.numpy().any()
        del crops, logits, joints


def one_frame(folder):
    with PoseEstimator(folder, device="cuda") as estimate:
        estimate(FRAME, BOXES)
        estimate(FRAME, BOXES[:1])


if __name__ == "__main__":
    engine = open_engine(Path(sys.argv[2]))
    if is_stand_in(engine):
        use_stand_ins(library_of(engine.folder.parent))
    globals()[sys.argv[1].replace("-", "_")](sys.argv[2])
    print("as it should", flush=True)

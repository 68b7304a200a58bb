"""Deeds for `tests/gpu/test_failures.py`, each run in a process of its own:
`python -m tests.support.gpu_deeds DEED ENGINE`.

A deed that goes as it should prints so in its last line.
"""

import gc
import os
import sys
import threading
from pathlib import Path
from time import perf_counter

from sdk import PoseEstimator
from sdk.errors import ClosedError, DeviceLostError, OutOfMemoryError
from sdk.manifest import open_engine
from sdk.runtime.cuda.context import device_context
from sdk.runtime.cuda.gpu_pipeline import GpuPipeline
from sdk.runtime.cuda.kernels import CropWork, NativeKernels
from tests.support.gpu_engines import persons, street

FRAME, BOXES = street(360, 640), persons(3, (360, 640))
kept = []


def out_of_memory(folder):
    """Fill the device; opening says what it needed and what was free; freed, it works."""
    with PoseEstimator(folder, device="cuda") as estimate:
        estimate(FRAME, BOXES)
    device = device_context(0)
    with device.entered("fill the device"):
        hog = device.driver.mem_alloc(device.free_bytes() - (4 << 20))
    try:
        PoseEstimator(folder, device="cuda")
        assert device.integrated, "an engine was opened in 4 MiB"
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
    """A device that does not finish in time is lost: here the time is shorter than any frame."""
    pipeline = GpuPipeline(open_engine(Path(folder)))
    with device_context(0).entered("measure"):
        pass
    lane = pipeline._pool.every()[0]
    lane.stream = _Never(lane.stream)
    lane.time_out_s = 0.2
    try:
        lane.settle()
        raise AssertionError("the watchdog did not bark")
    except DeviceLostError as error:
        assert "within 0.2 s" in str(error)
    pipeline.close()


class _Never:
    """A stream that never becomes empty: a real one cannot be made to hang without hanging the machine."""

    def __init__(self, stream):
        self.stream = stream

    def is_done(self):
        return False


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


def one_frame(folder):
    with PoseEstimator(folder, device="cuda") as estimate:
        estimate(FRAME, BOXES)
        estimate(FRAME, BOXES[:1])


if __name__ == "__main__":
    globals()[sys.argv[1].replace("-", "_")](sys.argv[2])
    print("as it should", flush=True)

"""Run by `tests/test_cuda_bindings.py` in a process of its own, with the simulated libcuda loaded before the bindings.

argv: the binding, an engine folder, what to do, the simulated library, the emulated CUDA half. Prints one JSON line;
the caller looks at it, at the exit status and at what the binding wrote to stderr.
"""

import ctypes
import gc
import json
import os
import signal
import sys
import threading
from pathlib import Path
from time import monotonic

import numpy as np

import sdk
from sdk import trt
from sdk.errors import ClosedError, DeviceError, InputError, OutOfMemoryError
from sdk.manifest import open_engine
from sdk.runtime.cuda.gpu_pipeline import GpuPipeline
from sdk.runtime.ort_session import OrtSession
from sdk.runtime.pipeline import CpuPipeline
from tests.support.cuda_frames import DeviceArray, random_affines, random_frame
from tests.support.emulated_gpu import RUN, EmulatedKernels, Hooks, loaded
from tests.support.libcuda import use_only
from tests.support.simulated_plan import plan_loader
from tests.support.threads import in_threads


class Library:
    """The simulated libcuda as what `tests.support.simulated_cuda` calls a device."""

    refuse_in_capture = False
    plan_dtype = "float32"

    def __init__(self, path):
        self.lib = ctypes.CDLL(path)
        self.lib.sim_busy.argtypes = (ctypes.c_double, ctypes.c_int)
        self.kept, self.enqueues = [], 0

    def hooks(self):
        """The library's own functions, for the emulated CUDA runtime."""
        names = {name: f"sim_{name}" for name, _ in Hooks._fields_} | {"query": "cuStreamQuery"}
        return Hooks(**{name: kind((names[name], self.lib)) for name, kind in Hooks._fields_})

    def stream(self, handle):
        return Stream(self, handle)

    def bytes_at(self, address, size):
        return np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)

    def alive(self):
        counts = (ctypes.c_int * 5)()
        self.lib.sim_alive(counts)
        return dict(zip(("device", "host", "streams", "events", "depth"), counts, strict=True))


class Stream:
    def __init__(self, device, handle):
        self.device, self.handle = device, ctypes.c_void_p(handle)

    @property
    def capture(self):
        return self.device.lib.sim_capturing(self.handle) or None

    def put(self, work):
        call = RUN(lambda _: work())
        self.device.kept.append(call)
        if self.device.lib.sim_put(self.handle, call, None):
            raise DeviceError("work was put on a stream without a context")


def frames_of(frame):
    pinned = sdk.pinned_frame(*frame.shape[:2])
    pinned[...] = frame
    wide = sdk.pinned_frame(frame.shape[0] + 7, frame.shape[1] + 5)
    view = wide[3:-4, 2:-3]
    view[...] = frame
    return {"pageable": frame, "pinned": pinned, "view": view, "device": DeviceArray(frame)}


def run_for_ever(gpu, frame):
    try:
        while True:
            gpu.run(frame, random_affines(2))
    except ClosedError:
        return


def interrupted_runs(gpu, cpu, lib, frame, wrong):
    """Frames under four seconds of Ctrl-C; afterwards every frame must still be right. How many were felt."""
    felt, armed, ended = 0, [False], threading.Event()

    def interrupt(*_):
        if armed[0]:
            armed[0] = False  # one at a time, and only where this function expects one
            raise KeyboardInterrupt

    def rain():
        rng = np.random.default_rng(0)
        while not ended.wait(float(rng.uniform(0.0005, 0.004))):
            os.kill(os.getpid(), signal.SIGINT)

    gpu.run(frame, random_affines(3))
    lib.sim_busy(200e-6, 1)  # a callback of ctypes would swallow interrupts
    signal.signal(signal.SIGINT, interrupt)
    storm = threading.Thread(target=rain)
    storm.start()
    end = monotonic() + 4
    while monotonic() < end:
        try:
            armed[0] = True
            while monotonic() < end:
                gpu.run(frame, random_affines(3))
            armed[0] = False
        except KeyboardInterrupt:
            felt += 1
    ended.set()
    storm.join()
    lib.sim_busy(0.0, 0)
    for count in (1, 3, 8):
        affines = random_affines(count, count)
        if not np.array_equal(gpu.run(frame, affines)[0], cpu.run(frame, affines)[0]):
            wrong.append(["after interrupts", count])
    return felt


def checked_frames(gpu, cpu, frame, wrong):
    """Every kind of frame, threads, and the timing helpers."""
    for name, given in frames_of(frame).items():
        for count in (1, 3, 8):
            affines = random_affines(count, count)
            for _ in range(2):
                if not np.array_equal(gpu.run(given, affines)[0], cpu.run(frame, affines)[0]):
                    wrong.append([name, count])
    in_threads(lambda _: gpu.run(frame, random_affines(2)), 6)
    gpu.stages(frame, random_affines(1))
    gpu.network_ms(1, 3)


def short_of_memory(gpu, lib, engine, kernels, frame):
    """What opening says when there is no room; the open pipeline goes on."""
    lib.sim_limit(ctypes.c_size_t(4096))
    try:
        GpuPipeline(engine, kernels=kernels)
        message = "it fitted"
    except OutOfMemoryError as error:
        message = str(error)
    lib.sim_limit(ctypes.c_size_t(1 << 30))
    gpu.run(frame, random_affines(1))
    return message


def foreign_frame(gpu, lib, frame):
    """What is said to a frame of another context; the open pipeline goes on."""
    lib.sim_foreign(ctypes.c_uint64(frame.ctypes.data))
    try:
        gpu.run(DeviceArray(frame), random_affines(1))
        message = "it was read"
    except InputError as error:
        message = str(error)
    lib.sim_foreign(ctypes.c_uint64(0))
    gpu.run(DeviceArray(frame), random_affines(1))
    return message


def dropped_in_a_thread(box):
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()


def opened(folder, library, emulated, detector=None):
    """A GPU pipeline on the simulated library, its kernels, the library, and the session that stands for the plan.

    `detector`: an engine whose plan may be loaded too.
    """
    engine, device = open_engine(Path(folder)), Library(library)
    kernels = EmulatedKernels(loaded(emulated), device, device.hooks())
    session = OrtSession(engine, threads=1)
    trt.flavour = lambda name: trt.Flavour(name, "10.3.0")
    trt.load_plan = plan_loader(device, engine, session, detector)
    return GpuPipeline(engine, kernels=kernels), kernels, device, session


def main(binding, folder, deed, library, emulated):
    use_only(binding)
    gpu, kernels, device, session = opened(folder, library, emulated)
    engine = gpu.engine
    frame, wrong, message = random_frame(), [], ""
    cpu, box = CpuPipeline(session), [gpu]
    del gpu
    checked_frames(box[0], cpu, frame, wrong)
    if deed == "memory":
        message = short_of_memory(box[0], device.lib, engine, kernels, frame)
    if deed == "foreign":
        message = foreign_frame(box[0], device.lib, frame)
    if deed == "interrupts":
        message = f"{interrupted_runs(box[0], cpu, device.lib, frame, wrong)} interrupts"
    if deed == "drop-in-a-thread":
        dropped_in_a_thread(box)
    elif not deed.startswith("exit"):
        box[0].close()
    gc.collect()
    print(json.dumps({"wrong": wrong, "message": message, **device.alive()}), flush=True)
    if deed == "exit-while-running":
        for _ in range(4):
            threading.Thread(target=run_for_ever, args=(box[0], frame), daemon=True).start()
    globals()["kept_until_the_end"] = box


if __name__ == "__main__":
    main(*sys.argv[1:])

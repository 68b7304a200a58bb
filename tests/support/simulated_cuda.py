"""A simulated CUDA device for machines without one, at the two lowest borders: PyCUDA's driver, and the CUDA runtime
that the extension's own kernels and bindings call (`emulated_gpu`); `simulated_plan` is TensorRT on it. It proves what
the SDK does with a device, never a driver, a compiler or a speed: that is what `tests/gpu` is for.

"Device memory" is host memory, so an address is a real one. Work is queued on streams and done only when the stream is
asked often enough, as late as a real device may do it; a copy reads and writes then, not when it was issued. What a
real device would call an error is one here: a call without the context, an address outside every allocation, a copy
from pageable memory, an allocation during a capture.
"""

import sys
import threading
from functools import partial
from types import ModuleType, SimpleNamespace

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tests.support.emulated_gpu import RUN, EmulatedKernels, Hooks

ALIGN = 512
INVALID_VALUE, INVALID_CONTEXT, NOT_READY, ILLEGAL_ADDRESS = 1, 201, 600, 700  # CUDA's error numbers


class Error(Exception):
    """Root of the driver's errors, as in PyCUDA."""


class NoMemoryError(Error):
    pass


class LogicError(Error):
    pass


class Simulated:
    """The state of one simulated device, and the switches that make it fail."""

    def __init__(self, *, memory_bytes=1 << 30, integrated=False, devices=1, lag=2, plan_dtype="float32"):
        self.memory_bytes, self.integrated, self.devices, self.lag = memory_bytes, integrated, devices, lag
        self.plan_dtype = plan_dtype
        self.live: dict[int, np.ndarray] = {}
        self.pinned: dict[int, np.ndarray] = {}
        self.allocations = self.frees = self.launches = self.enqueues = self.captures = self.own_graphs = 0
        self.uploaded_bytes = 0
        self.sticky = self.hangs = self.captured_elsewhere = False
        self.refuse_in_capture = False
        self.local = threading.local()
        self.lock = threading.RLock()
        self.streams: list[Stream] = []
        self.graphs: dict[int, _Graph] = {}
        self.waits: list[tuple[int, int]] = []
        self.indices: set[int] = set()  # of the devices in whose context something was called
        self.faults: list[str] = []  # of the caller, found where none can be raised

    @property
    def used_bytes(self):
        return sum(array.nbytes for array in self.live.values())

    @property
    def stack(self):
        if not hasattr(self.local, "stack"):
            self.local.stack = []
        return self.local.stack

    def called(self, name, *, context=True):
        if self.sticky:
            raise LogicError(f"{name} failed: an illegal memory access was encountered")
        if context and not self.stack:
            raise LogicError(f"{name} failed: invalid device context")
        self.indices |= {entered.index for entered in self.stack[-1:] if hasattr(entered, "index")}

    def allocate(self, size, table):
        block = np.full(size + ALIGN, 0xCD, np.uint8)  # new memory holds anything
        start = -block.ctypes.data % ALIGN
        aligned = block[start : start + size]
        table[aligned.ctypes.data] = aligned
        return aligned

    def bytes_at(self, address, size):
        """A view of simulated memory; an address outside every live allocation is what memcheck would find."""
        for table in (self.live, self.pinned):
            for base, array in table.items():
                if base <= address and address + size <= base + array.nbytes:
                    return array[address - base : address - base + size]
        raise AssertionError(f"{size} bytes at {address:#x} lie in no live allocation")

    def left_to_a_destructor(self, table, address):
        """PyCUDA frees what is dropped, in whatever thread that is, on whatever state of the device."""
        if address in getattr(self, table):
            self.faults.append(f"{table} memory was left to a destructor")

    def is_pinned(self, address, size):
        return any(base <= address and address + size <= base + a.nbytes for base, a in list(self.pinned.items()))

    def stream(self, handle):
        return next(stream for stream in self.streams if stream.handle == handle)

    def capturing_here(self):
        return any(s.capture is not None and s.capture_thread == threading.get_ident() for s in self.streams)


class Stream:
    def __init__(self, device, flags=0):
        device.called("cuStreamCreate")
        self.device, self.flags, self.queue, self.polls = device, flags, [], 0
        self.capture = self.capture_thread = None
        self.handle = id(self)
        device.streams.append(self)

    def put(self, work):
        self.device.called("enqueue")
        (self.queue if self.capture is None else self.capture).append(work)

    def is_done(self):
        """As PyCUDA asks: in the thread's own capture mode."""
        if self.device.captured_elsewhere:
            raise LogicError("cuStreamQuery failed: operation not permitted when stream is capturing")
        return self.look()

    def look(self):
        """As the extension asks: in the relaxed mode, which no other thread's capture restrains."""
        if self.device.sticky:
            raise LogicError("cuStreamQuery failed: an illegal memory access was encountered")
        if self.device.hangs and self.queue:
            return False
        self.polls += 1
        if self.queue and self.polls % self.device.lag:
            return False
        while self.queue:
            try:
                self.queue.pop(0)()
            except AssertionError as fault:  # no exception passes through the extension, which asks
                self.device.faults.append(str(fault))
        return True

    def synchronize(self):
        while not self.look():
            pass


def _driver(device):
    """The part of `pycuda.driver` that the run time uses, with PyCUDA's names and arguments."""
    driver = ModuleType("pycuda.driver")

    class HostPointer:
        def __init__(self, array):
            self.array, self.address = array, array.ctypes.data

        def get_device_pointer(self):
            return self.address

        def free(self):
            device.called("cuMemFreeHost")
            del device.pinned[self.address]

        def __del__(self):
            device.left_to_a_destructor("pinned", self.address)

        @property
        def __array_interface__(self):
            return self.array.__array_interface__

    class DeviceAllocation:
        def __init__(self, size):
            device.called("cuMemAlloc")
            if device.capturing_here() or device.captured_elsewhere:
                raise LogicError("cuMemAlloc failed: operation not permitted when stream is capturing")
            if device.used_bytes + size > device.memory_bytes:
                raise NoMemoryError("cuMemAlloc failed: out of memory")
            device.allocations += 1
            self.address = device.allocate(size, device.live).ctypes.data

        def __int__(self):
            return self.address

        def free(self):
            device.called("cuMemFree")
            if device.capturing_here():
                raise LogicError("cuMemFree failed: operation not permitted when stream is capturing")
            device.frees += 1
            del device.live[self.address]

        def __del__(self):
            device.left_to_a_destructor("live", getattr(self, "address", None))

    class Context:
        def __init__(self, index):
            self.index = index

        def push(self):
            device.stack.append(self)

        def pop(self):
            device.stack.pop()

        def detach(self):
            pass

    class Device:
        def __init__(self, index):
            self.index = index

        def name(self):
            return "Simulated"

        def compute_capability(self):
            return 8, 7

        def get_attribute(self, attribute):
            return int(device.integrated)

        def retain_primary_context(self):
            return Context(self.index)

        @staticmethod
        def count():
            return device.devices

    class Event:
        """It is passed when its stream has come to it. Its time is a quarter of a millisecond after any other's."""

        def record(self, stream):
            self.stream, self.passed = stream, False
            stream.put(lambda: setattr(self, "passed", True))
            return self

        def query(self):
            self.stream.is_done()
            return self.passed

        def synchronize(self):
            self.stream.synchronize()

        def time_since(self, other):
            if not (self.passed and other.passed):
                raise LogicError("cuEventElapsedTime failed: device not ready")
            return 0.25

        time_till = time_since

    class Memcpy2D:
        def set_src_host(self, array):
            self.source = array

        def set_dst_device(self, address):
            self.target = address

        def __call__(self, stream):
            source, target = self.source, self.target
            _must_be_pinned(device, source)

            def work():
                rows = device.bytes_at(target, (self.height - 1) * self.dst_pitch + self.width_in_bytes)
                as_strided(rows, source.shape, (self.dst_pitch, 1))[...] = source
                device.uploaded_bytes += self.height * self.width_in_bytes

            assert self.src_pitch == source.strides[0] and source.shape == (self.height, self.width_in_bytes)
            stream.put(work)

    def pagelocked_empty(shape, dtype, order="C", mem_flags=0):
        device.called("cuMemHostAlloc")
        device.allocations += 1
        assert mem_flags == 3
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pointer = HostPointer(device.allocate(size, device.pinned))
        memory = np.asarray(pointer)  # its base is the pointer, as PyCUDA's is
        return memory.view(dtype).reshape(shape)

    def memcpy_htod_async(dest, src, stream=None):
        _must_be_pinned(device, src)
        assert src.flags.c_contiguous

        def work():
            device.bytes_at(int(dest), src.nbytes)[:] = src.reshape(-1).view(np.uint8)
            device.uploaded_bytes += src.nbytes

        stream.put(work)

    def memcpy_dtoh_async(dest, src, stream=None):
        _must_be_pinned(device, dest)

        def work():
            dest.reshape(-1).view(np.uint8)[:] = device.bytes_at(int(src), dest.nbytes)

        stream.put(work)

    def memcpy_htod(dest, src):
        device.called("cuMemcpyHtoD")
        source = np.frombuffer(src, np.uint8)
        device.bytes_at(int(dest), source.nbytes)[:] = source

    def memcpy_dtoh(dest, src):
        device.called("cuMemcpyDtoH")
        dest.reshape(-1).view(np.uint8)[:] = device.bytes_at(int(src), dest.nbytes)

    def memcpy_dtod_async(dest, src, size, stream=None):
        stream.put(lambda: np.copyto(device.bytes_at(dest, size), device.bytes_at(src, size)))

    def memset_d8_async(dest, data, size, stream=None):
        def work():
            device.bytes_at(dest, size)[:] = data

        stream.put(work)

    def mem_get_info():
        device.called("cuMemGetInfo")
        return device.memory_bytes - device.used_bytes, device.memory_bytes

    driver.Error, driver.MemoryError, driver.LogicError = Error, NoMemoryError, LogicError
    driver.init = lambda flags=0: None
    driver.Device, driver.Event, driver.Memcpy2D = Device, Event, Memcpy2D
    driver.HostPointer, driver.Stream = HostPointer, partial(Stream, device)
    driver.device_attribute = SimpleNamespace(INTEGRATED="integrated")
    driver.host_alloc_flags = SimpleNamespace(PORTABLE=1, DEVICEMAP=2)
    driver.mem_alloc, driver.pagelocked_empty, driver.mem_get_info = DeviceAllocation, pagelocked_empty, mem_get_info
    driver.memcpy_htod_async, driver.memcpy_dtoh_async = memcpy_htod_async, memcpy_dtoh_async
    driver.memcpy_htod, driver.memcpy_dtoh, driver.memcpy_dtod_async = memcpy_htod, memcpy_dtoh, memcpy_dtod_async
    driver.memset_d8_async, driver.get_driver_version = memset_d8_async, lambda: 13000
    return driver


def _must_be_pinned(device, array):
    assert device.is_pinned(array.ctypes.data, array.nbytes), "an asynchronous copy needs pinned host memory"


class _Graph:
    def __init__(self, device, works):
        self.device, self.works, self.in_flight, self.destroyed = device, works, 0, False
        self.kernels = sum(isinstance(work, partial) + getattr(work, "kernels", 0) for work in works)

    def launch(self, handle):
        assert not self.destroyed
        self.device.called("cudaGraphLaunch")
        self.device.launches += 1
        self.in_flight += 1
        for work in (*self.works, self._done):
            self.device.stream(handle).put(work)

    def destroy(self):
        self.destroyed = True
        self.device.faults += ["a graph was destroyed while it ran"] * self.in_flight

    def _done(self):
        self.in_flight -= 1


def hooks_of(device):
    """The emulated CUDA runtime's functions on this device; CUDA's error numbers."""

    def code(action):
        try:
            return 0 if action() is not False else NOT_READY
        except Error:
            return ILLEGAL_ADDRESS if device.sticky else INVALID_CONTEXT

    def put(stream, call, data):
        work = partial(RUN(call), data)
        return code(lambda: device.stream(stream).put(work)) if stream else work() or 0

    def begin(stream):
        chosen = device.stream(stream)
        if chosen.capture is not None or chosen.queue:
            return INVALID_VALUE
        chosen.capture, chosen.capture_thread = [], threading.get_ident()
        return 0

    def end(stream):
        chosen = device.stream(stream)
        works, chosen.capture = chosen.capture, None
        if works is None:
            return None
        graph = _Graph(device, works)
        device.graphs[id(graph)] = graph
        return id(graph)

    def instantiate(graph):
        device.captures += 1
        return 0

    def wait(stream, producer):
        device.waits.append((stream, producer))
        return 0

    def copy(stream, to, source, row_bytes, rows, to_pitch, pitch):
        if not device.is_pinned(source, (rows - 1) * pitch + row_bytes):
            device.faults.append("an asynchronous copy needs pinned host memory")
        given = as_strided(device.bytes_at(source, (rows - 1) * pitch + row_bytes), (rows, row_bytes), (pitch, 1))

        def work():
            target = device.bytes_at(to, (rows - 1) * to_pitch + row_bytes)
            as_strided(target, (rows, row_bytes), (to_pitch, 1))[...] = given
            device.uploaded_bytes += rows * row_bytes

        return code(lambda: device.stream(stream).put(work))

    def capturing(stream):
        return bool(stream) and device.stream(stream).capture is not None

    functions = {
        "put": put,
        "query": lambda stream: code(device.stream(stream).look),
        "begin": begin,
        "capturing": capturing,
        "end": end,
        "instantiate": instantiate,
        "launch": lambda graph, stream: code(lambda: device.graphs[graph].launch(stream)),
        "destroy": lambda graph: device.graphs.pop(graph).destroy(),
        "wait": wait,
        "kernels": lambda graph: device.graphs[graph].kernels,
        "mapped": lambda host: host if device.is_pinned(host, 1) else None,
        "copy": copy,
    }
    return Hooks(**{name: dict(Hooks._fields_)[name](function) for name, function in functions.items()})


def install_device(monkeypatch, device, cuda):
    """Put the device in the place of PyCUDA and the CUDA runtime; the kernels to hand to `GpuPipeline`.

    `cuda`: the emulated CUDA half (the fixture `emulated`).
    """
    from sdk.runtime import device as choosing
    from sdk.runtime.cuda import bandwidth, context, loaded_plan

    package = ModuleType("pycuda")
    package.driver = _driver(device)
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", package.driver)
    for module, registry in ((context, "_devices"), (bandwidth, "_known"), (loaded_plan, "_plans")):
        monkeypatch.setattr(module, registry, {})
    monkeypatch.setattr(choosing, "native_problem", lambda: None)
    return EmulatedKernels(cuda, device, hooks_of(device))

"""One CUDA device of this process: its primary context, pushed and popped at each entry, and its health.

PyCUDA's context stack is per thread, its destructors free things in whatever thread they run, and it aborts the process
when a thread ends with a context pushed. So: one retained primary context a device (the one torch and CuPy share), the
caller's context restored at every exit, and a device once lost is never touched again. Nothing happens at import.

    device = device_context(0)
    with device.entered("upload the frame"):
        device.driver.memcpy_htod_async(pointer, pixels, stream)
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import threading
import weakref
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import TracebackType
from typing import Any, Protocol

from sdk.cuda_devices import NO_CONTEXT, context_of, current_context
from sdk.errors import ClosedError, DeviceError, DeviceLostError, InputError, OutOfMemoryError, SdkError
from sdk.runtime.cuda.driver import Driver, cuda_driver
from sdk.runtime.cuda.watchdog import TIME_OUT_S, wait_until
from sdk.runtime.device import cuda_problem

__all__ = ["DeviceContext", "Resource", "device_context", "never_freed", "out_of_memory", "tells_of_memory"]

log = logging.getLogger(__name__)

_devices: dict[int, DeviceContext] = {}
_devices_lock = threading.Lock()
MIB = 1 << 20
END_S = 1.0  # after the program's end; the driver's exit handler never ends where the device hangs


def device_context(index: int) -> DeviceContext:
    """The process's one `DeviceContext` for this index. DeviceError says why there is none."""
    with _devices_lock:
        known = _devices.get(index)
        if known is None:
            problem = cuda_problem(index)
            if problem:
                raise DeviceError(f"device 'cuda:{index}' cannot be used: {problem}; see `sdk doctor`")
            known = _devices[index] = DeviceContext(cuda_driver(), index)
    return known


def never_freed(thing: object) -> None:
    """Keep `thing` for the life of the process, so that its destructor never calls a driver that may not answer."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


class Resource(Protocol):
    """Memory that is either freed with the context entered, or left to the end of the process."""

    def free(self) -> None: ...

    def abandon(self) -> None: ...


class _OfThread(threading.local):
    """What a thread has pushed, and whether it captures a graph."""

    pushed = 0
    capturing = False


class DeviceContext:
    """A device and its primary context. `lost` is None, or why nothing may be asked of the device any more."""

    def __init__(self, driver: Driver, index: int) -> None:
        self.driver = driver
        self.index = index
        self.lost: str | None = None
        self._pid = os.getpid()
        self._local = _OfThread()
        self._deferred: list[Callable[[], None]] = []
        handle = driver.Device(index)
        attributes = driver.device_attribute
        self.name = str(handle.name())
        self.compute_capability = "{}.{}".format(*handle.compute_capability())
        self.integrated = bool(handle.get_attribute(attributes.INTEGRATED))  # a Jetson: the host's memory is its own
        try:
            self._context = handle.retain_primary_context()
        except driver.MemoryError as error:
            raise OutOfMemoryError(f"device 'cuda:{index}' ({self.name}) has no room for a context: {error}") from error
        except driver.Error as error:
            raise DeviceError(f"device 'cuda:{index}' ({self.name}) gives no context: {error}") from error
        never_freed(self._context)  # PyCUDA would release it in a destructor, in any thread, after everything else
        with self.entered("open the device"):
            self._handle = current_context()
            self.stream = driver.Stream(1)  # for what belongs to no lane; it does not heed the legacy default stream
            self.arrivals = driver.Stream(1)  # waits for the producers of frames that lanes take later
        never_freed((self.stream, self.arrivals))
        atexit.register(self._pop_all)

    def entered(self, deed: str) -> _Entry:
        """A `with` block with the primary context current. CUDA's errors leave it as the SDK's, naming `deed`."""
        return _Entry(self, deed)

    def check_usable(self) -> None:
        """DeviceLostError after a loss, ClosedError in a forked child. Costs well under a microsecond."""
        if self.lost is not None:
            raise DeviceLostError(self.lost)
        if os.getpid() != self._pid:
            raise ClosedError(
                f"device 'cuda:{self.index}' was opened before a fork, which CUDA does not survive; start the process "
                "with multiprocessing's 'spawn' method and open the estimator there"
            )

    @property
    def forked(self) -> bool:
        """Whether this is a child forked after the device was opened: no CUDA call may be made in it."""
        return os.getpid() != self._pid

    def lose(self, reason: str) -> DeviceLostError:
        """Mark the device as lost for good, and let the process end whatever the driver does; the error to raise."""
        if self.lost is None:
            self.lost = (
                f"device 'cuda:{self.index}' ({self.name}) is lost: {reason}; every estimator on it in this process is "
                "dead: leave the process and start a new one"
            )
            log.error("%s", self.lost)
            import_module("sdk._native").end_within(END_S)
        return DeviceLostError(self.lost)

    def check_memory(self, pointer: int) -> None:
        """InputError unless the device can read this address: a kernel that cannot would lose the device."""
        owner = context_of(pointer)
        if self._handle is None or owner in (self._handle, NO_CONTEXT):
            return
        if owner is None:
            raise InputError(f"the frame's address {pointer:#x} is not CUDA memory; is the frame's owner still alive?")
        raise InputError(
            f"the frame lies in another CUDA context than the primary one of cuda:{self.index}, which torch, CuPy and "
            "the SDK share; with PyCUDA import pycuda.autoprimaryctx, not pycuda.autoinit; with several GPUs copy it"
        )

    def free_bytes(self) -> int:
        """Free device memory now; the context must be entered."""
        free, _ = self.driver.mem_get_info()
        return int(free)

    def wait(self, done: Callable[[], bool], deed: str, time_out_s: float = TIME_OUT_S) -> None:
        """Wait until `done()`. A device that does not finish in time is lost: a hung GPU does not come back."""
        if not wait_until(done, time_out_s):
            raise self.lose(f"it did not {deed} within {time_out_s:g} s")

    def capturing(self, active: bool) -> None:
        """Say that this thread begins or ends a capture; releases asked for meanwhile are done at its end."""
        self._local.capturing = active
        while not active and self._deferred:
            self._deferred.pop()()

    def release(self, free: Callable[[], None]) -> None:
        """Call `free` with the context entered; at the end of the capture when this thread is in one.

        Freeing memory breaks a capture, and Python may collect garbage, hence free, at any line.
        """
        if self.lost is not None or self.forked:
            raise AssertionError("nothing is freed on a lost device or in a forked child")
        if self._local.capturing:
            self._deferred.append(partial(self._dropped, free, free))
            return
        with self.entered("free memory"):
            free()

    def give_back(self, resource: Resource) -> None:
        """Free what is used no more, or leave it alone where the device was lost; the context must be entered."""
        if self.lost is None:
            resource.free()
        else:
            resource.abandon()

    def free_with(self, owner: object, thing: Any, free: Callable[[], None]) -> None:
        """Call `free` once `owner` is dropped, in whatever thread that is; never on a lost device or after a fork."""
        weakref.finalize(owner, self._dropped, thing, free)

    def _dropped(self, thing: Any, free: Callable[[], None]) -> None:
        if self.forked or self.lost is not None:
            never_freed(thing)
        else:
            self.release(free)

    def translated(self, error: BaseException, deed: str) -> SdkError | None:
        """The SDK's error for one of CUDA's, or for TensorRT's refusal when the device is lost; else None."""
        of_cuda = isinstance(error, self.driver.Error)
        if not of_cuda and not isinstance(error, DeviceError):
            return None
        if self.lost is not None or self._sticky():
            return self.lose(f"it could not {deed} ({error})")
        if isinstance(error, self.driver.MemoryError) or tells_of_memory(error):
            return out_of_memory(deed, None, self.free_bytes())
        return DeviceError(f"device 'cuda:{self.index}' cannot {deed}: {error}") if of_cuda else None

    def _sticky(self) -> bool:
        """Whether the device fails whatever it is asked: what CUDA calls a sticky error. Does not wait.

        What CUDA refuses while another library captures a graph (errors 900 to 908) is no fault of the device.
        """
        try:
            self.stream.is_done()
        except self.driver.Error as error:
            return "captur" not in str(error)
        return False

    def _push(self) -> None:
        # At every entry, also a nested one: a count of levels could be put out of step by an interrupt, a push cannot.
        self._local.pushed += 1
        self._context.push()

    def _pop(self) -> None:
        self._context.pop()
        self._local.pushed -= 1

    def _pop_all(self) -> None:
        """At interpreter exit, in the main thread: PyCUDA aborts a process that ends with a context pushed.

        Only an interrupt between a push and the line after it leaves one.
        """
        while self._local.pushed > 0 and not self.forked:
            self._local.pushed -= 1
            try:
                self._context.pop()
            except self.driver.Error as error:
                log.debug("no context was pushed after all (%s)", error)


class _Entry:
    """What `DeviceContext.entered` gives. A class, not a generator: it is entered on every frame."""

    def __init__(self, device: DeviceContext, deed: str) -> None:
        self._device = device
        self._deed = deed

    def __enter__(self) -> DeviceContext:
        self._device.check_usable()
        self._device._push()
        return self._device

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        translated = None
        try:
            if error is not None:
                translated = self._device.translated(error, self._deed)
        finally:
            self._device._pop()
        if translated is not None:
            raise translated from error


def tells_of_memory(error: BaseException) -> bool:
    """Whether a message is about memory that lacks; CUDA and TensorRT word it differently."""
    return "outofmemory" in str(error).lower().replace(" ", "")


def out_of_memory(what: str, needed_bytes: int | None, free_bytes: int) -> OutOfMemoryError:
    """The error for an allocation the device has no room for."""
    needed = "more than that" if needed_bytes is None else f"{needed_bytes} bytes ({needed_bytes / MIB:.1f} MiB)"
    error = OutOfMemoryError(
        f"the device has no memory to {what}: needed {needed}, free {free_bytes} bytes ({free_bytes / MIB:.1f} MiB); "
        "close other estimators or use a smaller batch or frame, then call again"
    )
    error.needed_bytes, error.free_bytes = needed_bytes, free_bytes
    return error

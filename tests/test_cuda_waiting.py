"""Waiting for a stream and finding page-locked memory, by the extension's own code on a simulated device."""

import threading
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from sdk.errors import DeviceError
from sdk.runtime.cuda.kernels import CropWork
from tests.support.emulated_gpu import EmulatedKernels
from tests.support.simulated_cuda import Simulated, Stream, hooks_of

pytestmark = pytest.mark.native

CROP = CropWork(8, 8, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), False, False, False, (0.0,) * 6)
SLACK = Path("/proc/self/timerslack_ns")  # of the main thread, which runs the tests


@pytest.fixture
def opened(emulated):
    """A function that gives (kernels, stream, device); the stream has one piece of work."""

    def made(**switches):
        device = Simulated(**switches)
        device.stack.append("a context")
        stream = Stream(device)
        stream.put(lambda: None)
        return EmulatedKernels(emulated, device, hooks_of(device)), stream, device

    return made


@pytest.mark.parametrize("lag", [1, 2, 50])
def test_it_waits_for_the_last_piece_of_work(opened, lag):
    kernels, stream, _ = opened(lag=lag)
    assert kernels.finished(stream.handle, 5.0) and stream.queue == []


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.03])
def test_it_gives_up_after_the_time_it_was_given(opened, seconds):
    kernels, stream, device = opened()
    device.hangs = True
    start = monotonic()
    assert not kernels.finished(stream.handle, seconds)
    assert monotonic() - start >= seconds


def test_not_ready_is_not_taken_for_an_error_of_the_next_launch(opened):
    kernels, stream, device = opened()
    device.hangs = True
    assert not kernels.finished(stream.handle, 0.0)
    kernels.crop(256, 512, 1024, 1, CROP, stream.handle)


def test_an_error_of_the_device_is_raised(opened):
    kernels, stream, device = opened()
    device.sticky = True
    with pytest.raises(DeviceError, match="an illegal memory access was encountered"):
        kernels.finished(stream.handle, 5.0)


def test_other_threads_run_meanwhile(opened):
    kernels, stream, device = opened()
    device.hangs = True
    release = threading.Timer(0.01, lambda: setattr(device, "hangs", False))
    release.start()
    assert kernels.finished(stream.handle, 20.0)
    release.join()


@pytest.mark.skipif(not SLACK.exists(), reason="this kernel does not tell the timer slack")
def test_the_threads_timer_slack_is_as_before(opened):
    kernels, stream, device = opened()
    device.hangs = True
    before = SLACK.read_text()
    assert not kernels.finished(stream.handle, 0.002)
    assert SLACK.read_text() == before


def test_page_locked_memory_is_found_whoever_locked_it(opened):
    kernels, _, device = opened()
    array = np.zeros(1000, np.uint8)
    address = array.ctypes.data
    assert kernels.mapped(address, 1000) == 0
    device.pinned[address] = array[:900]  # as cudaHostRegister does
    assert kernels.mapped(address, 900) == address
    assert kernels.mapped(address + 100, 800) == address + 100
    assert kernels.mapped(address + 100, 801) == 0  # ends in pageable memory

"""A device's context and memory, on a simulated device: entries, owners, what is freed when, and errors in words."""

import gc
import threading
from contextlib import nullcontext
from importlib import import_module

import numpy as np
import pytest

from sdk.cuda_devices import NO_CONTEXT
from sdk.errors import DeviceError, DeviceLostError, InputError, OutOfMemoryError
from sdk.runtime.cuda.context import device_context
from sdk.runtime.cuda.memory import DeviceMemory, PinnedArray, borrowed

pytestmark = pytest.mark.native


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("MemoryError", OutOfMemoryError, "'cuda:0' .Simulated. has no room for a context: refused"),
        ("LogicError", DeviceError, "'cuda:0' .Simulated. gives no context: refused"),
    ],
)
def test_a_device_without_a_context_says_why(simulate, monkeypatch, kind, error, message):
    simulate()
    driver = import_module("pycuda.driver")

    def refused(_):
        raise getattr(driver, kind)("refused")

    monkeypatch.setattr(driver.Device, "retain_primary_context", refused)
    with pytest.raises(error, match=message):
        device_context(0)


@pytest.mark.parametrize(
    ("owner", "message"),
    [(1, None), (NO_CONTEXT, None), (None, "0x1000 is not CUDA memory"), (2, "lies in another CUDA context")],
    ids=["its own", "of no context", "none", "another"],
)
def test_memory_must_be_the_devices(simulate, monkeypatch, owner, message):
    simulate()
    context = device_context(0)
    monkeypatch.setattr(context, "_handle", 1)
    monkeypatch.setattr("sdk.runtime.cuda.context.context_of", lambda pointer: owner)
    with nullcontext() if message is None else pytest.raises(InputError, match=message):
        context.check_memory(4096)


def test_a_wait_lasts_as_long_as_it_is_given(simulate, monkeypatch):
    simulate()
    limits = []
    monkeypatch.setattr(
        "sdk.runtime.cuda.context.wait_until", lambda done, time_out_s: limits.append(time_out_s) or True
    )
    device_context(0).wait(lambda: True, "answer", 0.25)
    assert limits == [0.25]


def test_what_a_capture_defers_waits_for_the_end_of_one(simulate):
    simulate()
    context, freed, seen = device_context(0), [], []
    context.capturing(True)
    context.release(lambda: freed.append("memory"))

    def begins():
        context.capturing(True)
        seen.append(list(freed))

    thread = threading.Thread(target=begins, daemon=True)
    thread.start()
    thread.join(timeout=30)
    context.capturing(False)
    assert seen == [[]] and freed == ["memory"]


def test_nothing_is_freed_on_a_lost_device(simulate):
    simulate()
    context = device_context(0)
    context.lose("it hung")
    with pytest.raises(AssertionError, match="nothing is freed"):
        context.release(lambda: None)


def test_a_lost_device_is_not_entered(simulate):
    device, _, _ = simulate()
    context = device_context(0)
    context.lose("it hung")
    with pytest.raises(DeviceLostError, match="it hung"), context.entered("run"):
        raise AssertionError("it was entered")
    assert device.stack == []


def test_what_tensorrt_says_of_memory_is_out_of_memory(simulate):
    simulate()
    message = "no memory to run a frame: needed more than that, free"
    with pytest.raises(OutOfMemoryError, match=message), device_context(0).entered("run a frame"):
        raise DeviceError("tensorrt did not run: Error Code 2: OutOfMemory")


def test_only_what_an_interrupt_left_is_popped_at_exit(simulate, monkeypatch):
    device, _, _ = simulate()
    context = device_context(0)
    with context.entered("work"):
        pass
    context._pop_all()  # an empty stack has nothing to pop
    context._push()
    with monkeypatch.context() as patch:
        patch.setattr("sdk.runtime.cuda.context.os.getpid", lambda: -1)
        context._pop_all()
        assert len(device.stack) == 1
    context._pop_all()
    assert device.stack == []


# ---- memory ----------------------------------------------------------------------------------------------------


def test_new_memory_is_zero_and_freed_once(simulate):
    device, _, _ = simulate()
    context = device_context(0)
    with context.entered("allocate"):
        memory, pinned = DeviceMemory(context, 99, "hold zeros"), PinnedArray(context, (99,), np.uint8, "hold zeros")
        assert not device.bytes_at(memory.pointer, 99).any() and not pinned.array.any()
        for _ in range(2):
            memory.free()
            pinned.free()
    with pytest.raises(AssertionError, match="after it was freed"):
        pinned.array  # noqa: B018


def test_memory_of_a_device_that_never_clears_it_is_left_alone(simulate, monkeypatch):
    device, _, _ = simulate()
    monkeypatch.setattr("sdk.runtime.cuda.context.wait_until", lambda done, time_out_s: False)
    with pytest.raises(DeviceLostError, match="clear new memory"), device_context(0).entered("allocate") as context:
        DeviceMemory(context, 99, "hold zeros")
    gc.collect()
    assert device.live


def test_borrowed_memory_of_a_lost_device_is_left_alone(simulate):
    device, _, _ = simulate()
    with device_context(0).entered("allocate") as context:
        with borrowed(context, DeviceMemory(context, 99, "hold zeros")):
            pass
        assert not device.live
        with borrowed(context, DeviceMemory(context, 99, "hold zeros")):
            context.lose("it hung")
    assert device.live

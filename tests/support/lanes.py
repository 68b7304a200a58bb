"""What befalls lanes at work on a simulated device: an interrupt, a closing."""

import threading
from contextlib import contextmanager

import pytest

from sdk.runtime.cuda.frame_lane import FrameLane
from tests.support.threads import wait_for


@contextmanager
def waits_cut_off(gpu, monkeypatch):
    """In the block the wait for a frame is interrupted, and so is the block: the frame's work stays on the stream."""

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        for lane in gpu._pool.every():
            for part in filter(None, (lane, lane._finder)):
                patch.setattr(part, "_look_s", 0.0)
        patch.setattr(FrameLane, "_landed_late", interrupted)
        yield


def closed_meanwhile(device, gpu, call):
    """What `call` gives, working on a device that hangs until another thread closes the pipeline and waits for it."""
    device.hangs, found = True, []
    running = threading.Thread(target=lambda: found.append(call()))
    running.start()
    wait_for(gpu._pool._stuck)
    closing = threading.Thread(target=gpu.close)
    closing.start()
    wait_for(lambda: gpu._pool._closed)
    device.hangs = False
    closing.join(timeout=30)
    running.join(timeout=30)
    (result,) = found
    return result

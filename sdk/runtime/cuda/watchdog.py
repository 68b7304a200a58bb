"""Waiting for the device with a limit: CUDA's own synchronisation has none and would hang with the GPU. Pure code.

if not wait_until(event.query, time_out_s=5.0): ...      # the GPU hangs

For what happens now and then. A frame is waited for by `Kernels.finished`, which does not sleep at first.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep

__all__ = ["TIME_OUT_S", "wait_until"]

TIME_OUT_S = 5.0  # a frame takes milliseconds; a GPU that is silent for seconds has hung or was reset
NAP_S = 0.0002


def wait_until(
    done: Callable[[], bool],
    time_out_s: float,
    *,
    clock: Callable[[], float] = monotonic,
    nap: Callable[[float], None] = sleep,
) -> bool:
    """Ask `done` until it answers True, or for `time_out_s` seconds; the answer. Exceptions of `done` pass through."""
    start = clock()
    while not done():
        if clock() - start > time_out_s:
            return done()
        nap(NAP_S)
    return True

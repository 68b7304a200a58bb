"""Waiting for the device with a limit: CUDA's own synchronisation has none and would hang with the GPU. Pure code.

if not wait_until(stream.is_done, time_out_s=5.0): ...      # the GPU hangs
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep

__all__ = ["SPIN_S", "TIME_OUT_S", "wait_until"]

TIME_OUT_S = 5.0  # a frame takes milliseconds; a GPU that is silent for seconds has hung or was reset
SPIN_S = 0.004  # polled without sleeping: longer than a frame on any supported device at the networks' usual sizes
NAP_S = 0.0002


def wait_until(
    done: Callable[[], bool],
    time_out_s: float,
    *,
    clock: Callable[[], float] = monotonic,
    nap: Callable[[float], None] = sleep,
) -> bool:
    """Poll `done` until it answers True, or for `time_out_s` seconds; the answer. Exceptions of `done` pass through."""
    if done():
        return True
    start = clock()
    while not done():
        waited = clock() - start
        if waited > time_out_s:
            return done()
        nap(0.0 if waited < SPIN_S else NAP_S)  # 0 lets other Python threads run
    return True

"""How what an estimator or a session holds on a device is given back: in the right order, or not at all.

It is the callback of a `weakref.finalize`, so it runs once: at `close`, when the owner is dropped, or at interpreter
exit, whichever comes first.

    closer = weakref.finalize(owner, close_lanes, device, loaded, pool)
"""

from __future__ import annotations

from sdk.runtime.cuda.context import DeviceContext
from sdk.runtime.cuda.lanes import L, LanePool
from sdk.runtime.cuda.loaded_plan import LoadedPlan

__all__ = ["close_lanes"]


def close_lanes(device: DeviceContext, loaded: LoadedPlan, pool: LanePool[L]) -> None:
    """Free a pool's lanes, then its use of the plan. On a lost device or in a forked child nothing is touched."""
    if device.forked or device.lost is not None:
        for lane in pool.every():
            lane.abandon()
        loaded.abandon()
        return
    idle, stuck = pool.close()
    for lane in stuck:  # a thread still works with it: its memory stays until the end of the process
        lane.abandon()

    def free() -> None:
        for lane in idle:
            lane.free()
        loaded.release()

    device.release(free)

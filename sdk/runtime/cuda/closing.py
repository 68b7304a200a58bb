"""How what an estimator or a session holds on a device is given back: in the right order, or not at all.

It is the callback of a `weakref.finalize`, so it runs once: at `close`, when the owner is dropped, or at interpreter
exit, whichever comes first.

    closer = weakref.finalize(owner, close_lanes, device, plans, pool)
"""

from __future__ import annotations

from collections.abc import Sequence

from sdk.runtime.cuda.context import DeviceContext
from sdk.runtime.cuda.lanes import L, Lane, LanePool
from sdk.runtime.cuda.loaded_plan import LoadedPlan

__all__ = ["close_lanes"]


def close_lanes(device: DeviceContext, plans: Sequence[LoadedPlan], pool: LanePool[L]) -> None:
    """Free a pool's lanes, then its use of the plans. On a lost device or in a forked child nothing is touched."""
    if device.forked or device.lost is not None:
        _abandon(pool.every(), plans)
        return
    idle, stuck = pool.close(2 * pool.time_out_s)
    for lane in stuck:  # a thread still works with it: its memory stays until the end of the process
        lane.abandon()

    def free() -> None:
        try:
            for lane in idle:  # all of them first: nothing can be freed on a device that does not answer
                lane.settle("finish its work before closing")
            while idle:
                idle[-1].free()
                idle.pop()
            for plan in plans:
                plan.release()
        except BaseException:  # a device that is found lost only now, or an interrupt
            _abandon(idle, plans)
            raise

    device.release(free)


def _abandon(lanes: Sequence[Lane], plans: Sequence[LoadedPlan]) -> None:
    for lane in lanes:
        lane.abandon()
    for plan in plans:
        plan.abandon()

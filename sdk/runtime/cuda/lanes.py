"""Lanes: everything one frame in flight needs (a stream, buffers, execution contexts), and the pool that lends them.

A lane serves one call at a time. Threads, and the frames of a stream, each take their own, so that one uploads while
another computes; all share the loaded plan. A lane whose work was cut off by an exception is waited for before its
buffers are used again.

    pool = LanePool(make_lane, limit=3, time_out_s=5.0)
    with pool.lent() as lane: ...
    pool.close()
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from sdk import trt
from sdk.errors import OutOfMemoryError
from sdk.runtime.cuda.context import DeviceContext, Resource, never_freed
from sdk.runtime.cuda.kernels import Graph, Kernels
from sdk.runtime.cuda.loaded_plan import LoadedPlan
from sdk.runtime.cuda.memory import DeviceMemory, PinnedArray
from sdk.runtime.cuda.planner import BufferLayout
from sdk.runtime.lending import Pool
from sdk.wording import counted

__all__ = ["Lane", "LanePool", "prepared"]

log = logging.getLogger(__name__)

RUNS_AHEAD = 2
LOOK_S = 0.1  # one native wait at most: Python hears Ctrl-C between two


class Lane:
    """A stream, one device allocation cut into named buffers, and an execution context for each batch size used.

    The contexts share the lane's activation memory: they run one after the other on one stream. `stream`: another
    lane's, for work that is a part of that lane's.
    """

    def __init__(
        self,
        device: DeviceContext,
        loaded: LoadedPlan,
        kernels: Kernels,
        layout: BufferLayout,
        time_out_s: float,
        *,
        stream: Any = None,
    ) -> None:
        self.device = device
        self.loaded = loaded
        self.kernels = kernels
        self.layout = layout
        self.time_out_s = time_out_s
        self.resources: list[Resource] = []
        self._contexts: dict[int, trt.Context] = {}
        self.idle = False  # whether its stream is known to be empty: said by whoever waited for it last
        self.memory = DeviceMemory(device, layout.total_bytes, "hold the buffers of one frame in flight")
        self.resources.append(self.memory)
        # 1, non-blocking: it does not wait for the legacy default stream
        self.stream = device.driver.Stream(1) if stream is None else stream
        self.stream_handle = int(self.stream.handle)
        self.aux_streams = [device.driver.Stream(1) for _ in range(loaded.plan.aux_streams)]

    def address(self, buffer: str) -> int:
        """Where a named buffer lies on the device."""
        return self.memory.pointer + self.layout.offsets[buffer]

    def context_for(self, batch: int) -> trt.Context:
        """The execution context for `batch` crops: its shape and activation memory are set, its addresses not."""
        context = self._contexts.get(batch)
        if context is None:
            context = self.loaded.create_context()
            self.prepare_context(context, batch)
            self._contexts[batch] = context  # last: an interrupt leaves none that is half prepared
        return context

    def prepare_context(self, context: trt.Context, batch: int) -> None:
        """Hand a new context the lane's activation memory and side streams, and fix its input's shape."""
        context.set_memory(self.address("activations"), self.loaded.plan.activation_bytes)
        if self.aux_streams:
            context.set_aux_streams([int(stream.handle) for stream in self.aux_streams])
        for tensor in self.loaded.plan.tensors:
            if tensor.is_input:
                context.set_shape(tensor.name, (batch, *tensor.shape[1:]))

    def pinned(self, shape: tuple[int, ...], dtype: str, purpose: str) -> PinnedArray:
        """Pinned memory that lives as long as the lane."""
        array = PinnedArray(self.device, shape, dtype, purpose)
        self.resources.append(array)
        return array

    def first_run(self, what: str, enqueue: Callable[[], None], context: trt.Context, *, graphs: bool) -> Graph | None:
        """Run once without a graph, keep the kernels TensorRT-RTX compiled, then capture the graph; None: without."""
        enqueue()
        self.settle(f"run {what} for the first time")
        self.loaded.keep_kernels()
        if graphs and self.can_capture(context):
            return self.captured(enqueue)
        if graphs:
            log.warning("%s runs without a CUDA graph: its plan cannot be captured", what)
        else:
            log.info("%s runs without a CUDA graph, as asked", what)
        return None

    def can_capture(self, context: trt.Context) -> bool:
        """Whether a graph can hold a run of the plan."""
        return self.loaded.dla_core is None and context.capturable(self.stream_handle)

    def captured(self, enqueue: Callable[[], None]) -> Graph:
        """The graph of what `enqueue` puts on the stream. A refusal inside ends the capture and is raised."""
        kernels, stream = self.kernels, self.stream_handle
        try:
            self.device.capturing(True)
            kernels.begin_capture(stream)
            enqueue()
            return kernels.end_capture(stream)
        except BaseException:
            kernels.abort_capture(stream)
            raise
        finally:
            self.device.capturing(False)

    def plan_ms(self, context: trt.Context, repeats: int, *, graph: bool) -> list[float]:
        """Device milliseconds of a run of the plan, `repeats` times; `graph`: in one of ours, where it can be."""
        before, after = self.device.driver.Event(), self.device.driver.Event()
        run: Callable[[], None] = partial(context.enqueue, self.stream_handle)
        for _ in range(3):
            run()
        self.settle("run the network")
        if graph and self.can_capture(context):
            run = partial(self.captured(run).launch, self.stream_handle)
        spent = []
        for _ in range(repeats):
            self.run_ahead(run)
            before.record(self.stream)
            run()
            after.record(self.stream)
            self.settle("run the network")
            spent.append(float(after.time_since(before)))
        return spent

    def run_ahead(self, run: Callable[[], None]) -> None:
        """Keep the device busy while what is timed is put on the stream: else events would time the host's calls."""
        for _ in range(RUNS_AHEAD):
            run()

    def settle(self, deed: str = "finish a frame") -> None:
        """Wait until the lane's stream is empty; a device that takes longer than the time-out is lost."""
        self.device.wait(partial(self.kernels.finished, self.stream_handle, LOOK_S), deed, self.time_out_s)

    def free(self) -> None:
        """Free everything, in the order contexts, memory, stream; settled, and with the device's context entered."""
        self._contexts.clear()
        for resource in self.resources:
            resource.free()
        del self.stream, self.aux_streams

    def abandon(self) -> None:
        """Touch nothing: the device is lost, or this is a forked child."""
        for resource in self.resources:
            resource.abandon()
        for thing in (self.stream, self.aux_streams, self._contexts):
            never_freed(thing)


L = TypeVar("L", bound=Lane)


def prepared(lane: L, prepare: Callable[[L], None]) -> L:
    """`lane` after `prepare(lane)`; nothing of it stays when that fails. The device's context must be entered."""
    try:
        prepare(lane)
    except BaseException:
        lane.device.give_back(lane)
        raise
    return lane


class _Loan(Generic[L]):
    """What `LanePool.lent` gives. A class, not a generator: it is entered on every frame."""

    __slots__ = ("_but", "_lane", "_pool")

    def __init__(self, pool: LanePool[L], but: Collection[L]) -> None:
        self._pool = pool
        self._but = but

    def __enter__(self) -> L:
        lane = self._lane = self._pool.take(self._but)
        try:
            _make_ready(lane)
        except BaseException:
            self._pool.give_back(lane)
            raise
        return lane

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.give_back(self._lane)


class _Loans(Generic[L]):
    """What `LanePool.lent_free` gives."""

    def __init__(self, pool: LanePool[L], most: int) -> None:
        self._pool = pool
        self._most = most
        self._lanes: list[L] = []

    def __enter__(self) -> list[L]:
        self._lanes.append(self._pool.take())
        try:
            self._lanes += self._pool.take_free(self._most - 1)
            for lane in self._lanes:
                _make_ready(lane)
        except BaseException:
            self._pool.give_back_all()
            raise
        return self._lanes

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._pool.give_back_all()
        except BaseException:  # an interrupt: others must not wait for what nobody would give back
            self._pool.give_back_all()
            raise


def _make_ready(lane: Lane) -> None:
    """See that the stream of a lane that was just lent is empty."""
    lane.device.check_usable()  # another thread may have lost the device while this one waited for a lane
    if not lane.idle:
        lane.settle()
    lane.idle = False


class LanePool(Pool[L]):
    """Lends lanes, made when first needed, up to `limit`; callers get them in the order of their coming.

    The device's context must be entered. Where memory lacks for one more lane, those there are go on.
    """

    def __init__(self, make: Callable[[], L], limit: int, time_out_s: float) -> None:
        self._make_lane = make
        self.time_out_s = time_out_s
        super().__init__(self._made, limit)

    def lent(self) -> _Loan[L]:
        """A `with` block that holds a lane whose stream is empty."""
        return _Loan(self, ())

    def lent_free(self, most: int) -> _Loans[L]:
        """A `with` block that holds one lane, and more, up to `most`, where nobody else has them or waits for one."""
        return _Loans(self, most)

    def each(self, deed: Callable[[L], None]) -> None:
        """Do it with every lane, made now where it was not, one after the other, each when nobody else holds it."""
        done: list[L] = []
        for _ in self.all():
            with _Loan(self, done) as lane:
                deed(lane)
            done.append(lane)

    def _made(self) -> L | None:
        there = len(self.every())
        try:
            return self._make_lane()
        except OutOfMemoryError as error:
            if not there:
                raise
            log.warning("%s will be in flight at once, not more: %s", counted(there, "frame"), error)
            return None

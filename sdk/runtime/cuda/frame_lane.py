"""A lane from frames to joints: upload, crop, plan, decode, download; the last four as one CUDA graph a batch bucket.

A frame record and an affine a crop travel in a small parameter block, the graph's first copy, so one graph serves every
frame, and persons of several. A call is one native call (`cpp_ext/cuda/flight.h`): boxes, parameters, the packing and
sending of host frames, launch, waiting and the joints; what it needs and lacks, it says, and it is made again.

    lane = frame_lane(device, loaded, program)
    with device.entered("run a frame"):
        landed = lane.run([frame], boxes, flip=False)      # landed.joints: N x K x C
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from time import perf_counter
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdk import trt
from sdk.recipe import Recipe
from sdk.runtime.cuda.context import DeviceContext, never_freed
from sdk.runtime.cuda.device_frames import is_device_array
from sdk.runtime.cuda.finder import CropSizes, Finder, FinderProgram, finder_on
from sdk.runtime.cuda.kernels import CropWork, DecodeWork, Flight, FlightStatus, Graph, Kernels
from sdk.runtime.cuda.lanes import LOOK_S, Lane, prepared
from sdk.runtime.cuda.loaded_plan import LoadedPlan
from sdk.runtime.cuda.memory import PinnedArray
from sdk.runtime.cuda.planner import (
    AFFINE_BYTES,
    FRAME_BYTES,
    BufferLayout,
    affines_at,
    bucket_of,
    buffer_layout,
    crops_bytes,
)
from sdk.runtime.cuda.upload import FrameRoom, device_record, flown, taken_over

__all__ = ["FrameLane", "Landed", "NetworkMode", "Program", "Timings", "frame_lane"]

log = logging.getLogger(__name__)

Float32Array = NDArray[np.float32]
Timings = dict[str, float | str]
NetworkMode = Literal["graph", "plain", "own graph"]
# Of whom a detector saw, best first: boxes N x 4, scores N, what came back of the pose network for the first M of them
# (joints M x K x C; or heatmaps, and mirrored ones; None: it was not asked), timings.
Seen = tuple[Float32Array, Float32Array, tuple[NDArray[Any], ...] | None, Timings]
Look = tuple[
    "Batch | None", bool, float
]  # whose crops follow, whether it is done, ms in which it was put on the stream
DONE = int(FlightStatus.DONE)
WAYS = (
    "packed",
    "rows",
    "whole",
    "none: shared memory",
    "none: on the device",
)  # bits of Flight.ways()
TRANSFERS = tuple(", ".join(name for bit, name in enumerate(WAYS) if bits >> bit & 1) for bits in range(1 << len(WAYS)))


@dataclass(frozen=True)
class Program:
    """What every lane of a pipeline does: the engine's recipe as work for the kernels."""

    recipe: Recipe
    kernels: Kernels
    crop: CropWork
    decode: DecodeWork | None  # None: heatmaps, decoded on the host
    partner: NDArray[np.int32]  # K: the joint each becomes when mirrored
    buckets: tuple[int, ...]
    graphs: bool
    time_out_s: float
    columns: int = 3  # of the decoded joints

    @property
    def max_batch(self) -> int:
        return self.buckets[-1]

    def for_plan(self, plan: trt.Plan) -> Program:
        """The same, reading and writing the types that the plan's tensors have."""
        half = {tensor.name: tensor.dtype == "float16" for tensor in plan.tensors}
        crop = replace(self.crop, half=half[self.recipe.input.name])
        decode = None if self.decode is None else replace(self.decode, half=half[self.recipe.output.x_name])
        return replace(self, crop=crop, decode=decode)


class Batch(NamedTuple):
    """What a graph is made for. `block`: where its parameters lie on the device."""

    bucket: int
    flip: bool
    block: int


class Landed(NamedTuple):
    """What a call brought back."""

    results: tuple[NDArray[Any], ...]  # joints N x K x C; or heatmaps, and mirrored ones
    boxes: Float32Array | None  # N x 4, where boxes were given
    affines: Float32Array | None  # N x 2 x 3, for heatmaps, which the host decodes
    timings: Timings


def _lane_layout(plan: trt.Plan, program: Program) -> BufferLayout:
    """The lane's one allocation: parameters, the plan's tensors (outputs twice, for mirrored crops), scratch."""
    batch, joints = program.max_batch, program.recipe.joints
    sizes = {"params": crops_bytes(batch), "partner": 4 * joints}
    for tensor in plan.tensors:
        size = batch * prod(tensor.shape[1:]) * np.dtype(tensor.dtype).itemsize
        sizes[tensor.name] = size
        if not tensor.is_input:
            sizes[f"mirrored {tensor.name}"] = size
    sizes["joints"] = batch * joints * program.columns * 4
    sizes["activations"] = plan.activation_bytes
    return buffer_layout(sizes)


def frame_lane(
    device: DeviceContext, loaded: LoadedPlan, program: Program, finding: FinderProgram | None = None
) -> FrameLane:
    """A lane, its memory allocated; nothing of it stays when one allocation fails. The context must be entered."""
    lane = FrameLane(device, loaded, program.kernels, _lane_layout(loaded.plan, program), program.time_out_s)
    return prepared(lane, lambda lane: lane.prepare(program, finding))


class FrameLane(Lane):
    """One frame in flight. The device's context must be entered for every method."""

    program: Program
    _params: PinnedArray
    _results: tuple[PinnedArray, ...]

    def prepare(self, program: Program, finding: FinderProgram | None) -> None:
        """Allocate what the host shares with the device, and upload what never changes."""
        self.program = program
        self._graphs: dict[Batch, Graph] = {}
        self._warmed: set[Batch] = set()
        self._transfer = ""  # of the latest call; a new one is logged
        self._owners: list[object] = []  # of a frame that is looked at: they live until it was read
        self._looks: Look | None = None  # that is under way
        self._room = FrameRoom(self.device)
        self.resources.append(self._room)
        self._params = self.pinned((self.layout.sizes["params"],), "uint8", "hold a frame's parameters")
        batch = program.max_batch
        self._records = self._params.array[: batch * FRAME_BYTES].reshape(batch, FRAME_BYTES)
        self._affines = self._params.array[affines_at(batch) :].view(np.float32).reshape(2, batch, 2, 3)
        self._results = tuple(self.pinned(shape, dtype, "hold results") for _, shape, dtype in self._downloads())
        partner = self.pinned(program.partner.shape, "int32", "hold the joints' partners")
        partner.array[:] = program.partner
        self.device.driver.memcpy_htod_async(self.address("partner"), partner.array, self.stream)
        self._own_block = self._params.device_pointer if self.device.integrated else self.address("params")
        self._look_s = min(LOOK_S, self.time_out_s)
        self._flight = self._new_flight()
        self._finder = None if finding is None else self._new_finder(finding)

    def run(
        self,
        frames: Sequence[Any],  # H x W x 3 uint8 or NV12 rows, on the host or the device
        placed: NDArray[Any],  # N x 4 boxes of any numbers, or N x 2 x 3 affines; 1 <= N <= max_batch
        *,
        flip: bool,
        frame_of: NDArray[np.int32] | None = None,  # N: which frame each is in; None: all in the first
    ) -> Landed:
        """Everything from boxes to joints. InputError for the first box that is none."""
        count, program = len(placed), self.program
        bucket = bucket_of(count, program.buckets)
        given, owners = self._given(frames)
        boxes = np.empty((count, 4), np.float32) if placed.ndim == 2 else None
        joints = (
            None if program.decode is None else np.empty((count, program.recipe.joints, program.columns), np.float32)
        )
        batch = Batch(bucket, flip, self._own_block)
        if batch not in self._warmed:
            self._fly(given, placed, boxes, frame_of, bucket, flip, None, None)
            self._warm(batch)
        graph = self._graphs.get(batch)
        if self._fly(given, placed, boxes, frame_of, bucket, flip, graph, joints) == DONE:
            timings = _timings(*self._flight.spent_ms())
        else:
            enqueued_ms = 0.0 if graph is not None else self._spent_ms(partial(self._enqueue, batch))
            timings = self._landed_late(self._flight, enqueued_ms)
            if joints is not None:
                joints[...] = self._results[0].array[:count]
        timings["transfer"] = self._told_transfer(self._flight)
        del owners  # what the frames' owners handed over was read
        if joints is not None:
            return Landed((joints,), boxes, None, timings)
        heatmaps = tuple(result.array[:count].copy() for result in self._downloaded(flip))
        return Landed(heatmaps, boxes, self._affines[0, :count].copy(), timings)

    def find(self, frame: Any, expected: int, *, flip: bool) -> Seen:
        """Who the detector sees in a frame, and what the network says of the best of them: of as many as the batch of
        `expected` persons holds, of nobody for 0. The boxes go from one graph to the other on the device; the host
        waits once."""
        self.look(frame, expected, flip=flip)
        return self.land()

    def look(self, frame: Any, expected: int = 0, *, flip: bool = False, waits: bool = True) -> None:
        """Put all that `find` does on the stream; `land` gives what comes of it, before the lane does anything else."""
        finder = self._finder
        assert finder is not None, "a lane without a finder has nobody to find"
        given, self._owners = self._given([frame])
        batch = None
        if expected:
            batch = Batch(bucket_of(min(expected, self.program.max_batch), self.program.buckets), flip, finder.crops)
        if not finder.warmed or not (batch is None or batch in self._warmed):
            finder.fly(given[0], launches=False)
            finder.warm()
            if batch is not None:
                finder.enqueue()  # the crops of the frame before may be of memory that is gone
                self._warm(batch)
        graph = None if batch is None else self._graphs.get(batch)
        whole = finder.graph is not None and (batch is None or graph is not None)
        status = finder.fly(given[0], launches=whole, then=graph, waits=waits)
        enqueued_ms = 0.0 if whole else self._spent_ms(partial(self._enqueue_found, finder, batch))
        self._looks = batch, status == DONE, enqueued_ms

    def land(self) -> Seen:
        """What the look that is under way gives."""
        finder, looks, self._looks = self._finder, self._looks, None
        assert finder is not None and looks is not None, "a look is under way"
        batch, done, enqueued_ms = looks
        timings = _timings(*finder.flight.spent_ms()) if done else self._landed_late(finder.flight, enqueued_ms)
        timings["transfer"] = self._told_transfer(finder.flight)
        self._owners = []
        boxes, scores = finder.found()
        if batch is None:
            return boxes, scores, None, timings
        count = min(batch.bucket, len(boxes))
        return boxes, scores, tuple([each.array[:count].copy() for each in self._downloaded(batch.flip)]), timings

    def stages(self, frame: Any, affines: Float32Array, *, flip: bool = False) -> dict[str, float]:
        """Milliseconds of each stage on the device, run apart and timed by events; a graph costs less as a whole."""
        marks = [self.device.driver.Event() for _ in range(5)]
        bucket = bucket_of(len(affines), self.program.buckets)
        self.run([frame], affines, flip=flip)
        given, owners = self._given([frame])
        batch = Batch(bucket, flip, self._own_block)
        self.run_ahead(partial(self._enqueue, batch))
        marks[0].record(self.stream)
        self._fly(given, affines, None, None, bucket, flip, None, None)
        marks[1].record(self.stream)
        self._send_params()
        self._crop(batch, mirrored=False)
        marks[2].record(self.stream)
        self._network(bucket, mirrored=False)
        marks[3].record(self.stream)
        self._finish(batch._replace(flip=False))
        marks[4].record(self.stream)
        self.settle()
        del owners
        names = ("upload", "crop", "network", "decode")
        return {name: float(marks[i + 1].time_since(marks[i])) for i, name in enumerate(names)}

    def network_ms(self, count: int, repeats: int, mode: NetworkMode) -> list[float]:
        """Device milliseconds of the plan alone, `repeats` times."""
        bucket = bucket_of(count, self.program.buckets)
        if mode == "own graph":
            context = self._fresh_context(bucket, self.loaded.create_context(own_graph=True))
        else:
            context = self._context(bucket, mirrored=False)
        return self.plan_ms(context, repeats, graph=mode == "graph")

    def detector_ms(self, repeats: int) -> list[float]:
        """Device milliseconds of the detector's plan alone, `repeats` times."""
        assert self._finder is not None, "a lane without a finder has no detector to time"
        return self._finder.network_ms(repeats)

    def launches(self, count: int, *, flip: bool) -> int | None:
        """Kernels that a call for `count` persons starts, by the nodes of its graph; None where it has none yet."""
        graph = self._graphs.get(Batch(bucket_of(count, self.program.buckets), flip, self._own_block))
        return None if graph is None else graph.kernels

    def free(self) -> None:
        """Free graphs before the buffers they name."""
        for graph in self._graphs.values():
            graph.destroy()
        self._graphs.clear()
        super().free()

    def abandon(self) -> None:
        never_freed(self._graphs)
        super().abandon()

    # ---- a call -----------------------------------------------------------------------------------------------

    def _new_flight(self) -> Flight:
        source, batch = self.program.recipe.input, self.program.max_batch
        joints = None if self.program.decode is None else self._results[0].array
        person = 0 if joints is None else joints[0].size
        return self.kernels.flight(
            self._records.ctypes.data, self._affines.ctypes.data, 0 if joints is None else joints.ctypes.data,
            (batch, person, source.height, source.width), source.box_padding, self.program.crop.nv12,
            self.device.integrated, self.stream_handle,
        )  # fmt: skip

    def _new_finder(self, finding: FinderProgram) -> Finder:
        source = self.program.recipe.input
        crops = CropSizes(self.program.max_batch, source.height, source.width, source.box_padding)
        finder = finder_on(self, finding, crops)
        self.resources.append(finder)
        return finder

    def _given(self, frames: Sequence[Any]) -> tuple[list[Any], list[object]]:
        """Frames as the extension takes them, and what must live until they were read."""
        given: list[Any] = []
        owners: list[object] = []
        for frame in frames:
            if type(frame) is np.ndarray or not is_device_array(frame):
                given.append(frame)
                continue
            nv12 = self.program.crop.nv12
            found = taken_over(self.device, self.kernels, frame, self.stream_handle, nv12=nv12)
            if found.ready is not None:
                found.ready.hold_up(self.stream_handle)
            given.append(device_record(found, nv12=nv12))
            owners.append(found)
        return given, owners

    def _fly(
        self,
        frames: list[Any],
        placed: NDArray[Any],
        boxes: Float32Array | None,
        frame_of: NDArray[np.int32] | None,
        bucket: int,
        flip: bool,
        graph: Graph | None,
        joints: Float32Array | None,
    ) -> int:
        """One call's way as far as it goes; without a graph, until frames and parameters are on theirs."""
        call = (frames, placed, boxes, frame_of, bucket, flip, graph, joints, self._look_s)
        return flown(self.device, self._flight, self._room, *call)

    @staticmethod
    def _spent_ms(enqueue: Callable[[], None]) -> float:
        """Put on the stream what has no graph; how long that took."""
        start = perf_counter()
        enqueue()
        return 1e3 * (perf_counter() - start)

    def _landed_late(self, flight: Flight, enqueued_ms: float) -> Timings:
        """Of a call that was not waited for to its end."""
        upload, launch, _, _ = flight.spent_ms()
        start = perf_counter()
        self.settle()
        return _timings(upload, launch + enqueued_ms, 1e3 * (perf_counter() - start), 0.0)

    def _told_transfer(self, flight: Flight) -> str:
        transfer = TRANSFERS[flight.ways()]
        if transfer != self._transfer:
            self._transfer = transfer
            log.debug("frames go to cuda:%d as '%s'", self.device.index, transfer)
        return transfer

    # ---- parameters and results -------------------------------------------------------------------------------

    def _affines_address(self, block: int, *, mirrored: bool) -> int:
        batch = self.program.max_batch
        return block + affines_at(batch) + (batch * AFFINE_BYTES if mirrored else 0)

    def _downloads(self) -> tuple[tuple[str, tuple[int, ...], str], ...]:
        """(buffer, shape, dtype) of what comes back: the joints, or heatmaps and mirrored heatmaps."""
        if self.program.decode is not None:
            return (("joints", (self.program.max_batch, self.program.recipe.joints, self.program.columns), "float32"),)
        name = self.program.recipe.output.heatmap_name
        tensor = next(tensor for tensor in self.loaded.plan.tensors if tensor.name == name)
        shape = (self.program.max_batch, *tensor.shape[1:])
        return ((name, shape, tensor.dtype), (f"mirrored {name}", shape, tensor.dtype))

    def _downloaded(self, flip: bool) -> tuple[PinnedArray, ...]:
        return self._results if flip or self.program.decode is not None else self._results[:1]

    # ---- the device's work ------------------------------------------------------------------------------------

    def _warm(self, batch: Batch) -> None:
        """Make a batch's graph, unless it is there."""
        if batch in self._warmed:
            return
        context, what = self._context(batch.bucket, mirrored=False), f"batch {batch.bucket}"
        graph = self.first_run(what, partial(self._enqueue, batch), context, graphs=self.program.graphs)
        if graph is not None:
            self._graphs[batch] = graph
        self._warmed.add(batch)

    def _enqueue(self, batch: Batch) -> None:
        """From parameters to what is downloaded, step by step."""
        if batch.block == self._own_block:
            self._send_params()
        for mirrored in (False, True)[: 1 + batch.flip]:
            self._crop(batch, mirrored=mirrored)
            self._network(batch.bucket, mirrored=mirrored)
        self._finish(batch)

    def _enqueue_found(self, finder: Finder, batch: Batch | None) -> None:
        """The same from the finder's parameters on."""
        finder.enqueue()
        if batch is not None:
            self._enqueue(batch)

    def _send_params(self) -> None:
        if not self.device.integrated:
            self.device.driver.memcpy_htod_async(self.address("params"), self._params.array, self.stream)

    def _crop(self, batch: Batch, *, mirrored: bool) -> None:
        out = self.address(self.program.recipe.input.name)
        affines = self._affines_address(batch.block, mirrored=mirrored)
        self.kernels.crop(out, batch.block, affines, batch.bucket, self.program.crop, self.stream_handle)

    def _network(self, bucket: int, *, mirrored: bool) -> None:
        self._context(bucket, mirrored=mirrored).enqueue(self.stream_handle)

    def _context(self, bucket: int, *, mirrored: bool) -> trt.Context:
        context = self.context_for(bucket)
        self._set_addresses(context, mirrored=mirrored)
        return context

    def _fresh_context(self, bucket: int, context: trt.Context) -> trt.Context:
        self.prepare_context(context, bucket)
        self._set_addresses(context, mirrored=False)
        return context

    def _set_addresses(self, context: trt.Context, *, mirrored: bool) -> None:
        for tensor in self.loaded.plan.tensors:
            buffer = f"mirrored {tensor.name}" if mirrored and not tensor.is_input else tensor.name
            context.set_address(tensor.name, self.address(buffer))

    def _finish(self, batch: Batch) -> None:
        """Decode and download; on shared memory the decode writes where the host reads."""
        driver, integrated = self.device.driver, self.device.integrated
        if self.program.decode is not None:
            self._decode(self._results[0].device_pointer if integrated else self.address("joints"), batch)
            if integrated:
                return
        for (name, _, _), result in zip(self._downloads(), self._downloaded(batch.flip), strict=False):
            driver.memcpy_dtoh_async(result.array[: batch.bucket], self.address(name), self.stream)

    def _decode(self, out: int, batch: Batch) -> None:
        names, work = self.program.recipe.output.names, self.program.decode
        if work is None:
            raise AssertionError("heatmaps are decoded on the host")
        logits = tuple(self.address(name) for name in names)
        mirrored = tuple(self.address(f"mirrored {name}") for name in names) if batch.flip else None
        partner, affines = self.address("partner"), self._affines_address(batch.block, mirrored=False)
        self.kernels.decode(out, logits, mirrored, partner, affines, batch.bucket, work, self.stream_handle)


def _timings(upload: float, launch: float, device: float, download: float) -> Timings:
    return {"upload": upload, "launch": launch, "device": device, "download": download}

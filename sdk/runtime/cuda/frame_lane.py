"""A lane from a frame to joints: upload, crop, plan, decode, download; the last four as one CUDA graph a batch bucket.

A frame's address, size and affines travel in a small parameter block, the graph's first copy, so one graph serves every
frame. Host frames are uploaded before it, in place, by the transfer the planner chose.

    lane = frame_lane(device, loaded, program)
    with device.entered("run a frame"):
        persons, timings = lane.run(frame, affines, flip=False)      # N x K x C
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sdk import trt
from sdk.errors import DeviceError
from sdk.recipe import Recipe
from sdk.runtime.cuda.context import DeviceContext, never_freed
from sdk.runtime.cuda.kernels import FRAME_BYTES, CropWork, DecodeWork, Graph, Kernels
from sdk.runtime.cuda.lanes import Lane, prepared
from sdk.runtime.cuda.loaded_plan import LoadedPlan
from sdk.runtime.cuda.memory import PinnedArray
from sdk.runtime.cuda.planner import (
    ALIGNMENT,
    BufferLayout,
    bucket_of,
    buffer_layout,
    mirrored_affines,
    off_frame_affines,
)
from sdk.runtime.cuda.upload import FrameUpload

__all__ = ["FrameLane", "NetworkMode", "Program", "Timings", "frame_lane", "lane_layout"]

log = logging.getLogger(__name__)

Float32Array = NDArray[np.float32]
Timings = dict[str, float | str]
NetworkMode = Literal["graph", "plain", "own graph"]
RUNS_AHEAD = 2
AFFINE_BYTES = 24


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


def affines_at(batch: int) -> int:
    """Where the affines begin in the parameter block: after a frame record a crop."""
    return -(-batch * FRAME_BYTES // ALIGNMENT) * ALIGNMENT


def lane_layout(plan: trt.Plan, program: Program) -> BufferLayout:
    """The lane's one allocation: parameters, the plan's tensors (outputs twice, for mirrored crops), scratch."""
    batch, joints = program.max_batch, program.recipe.joints
    sizes = {"params": affines_at(batch) + 2 * batch * AFFINE_BYTES, "partner": 4 * joints}
    for tensor in plan.tensors:
        size = batch * prod(tensor.shape[1:]) * np.dtype(tensor.dtype).itemsize
        sizes[tensor.name] = size
        if not tensor.is_input:
            sizes[f"mirrored {tensor.name}"] = size
    sizes["joints"] = batch * joints * program.columns * 4
    sizes["activations"] = plan.activation_bytes
    return buffer_layout(sizes)


def frame_lane(device: DeviceContext, loaded: LoadedPlan, program: Program) -> FrameLane:
    """A lane, its memory allocated; nothing of it stays when one allocation fails. The context must be entered."""
    lane = FrameLane(device, loaded, program.kernels, lane_layout(loaded.plan, program), program.time_out_s)
    return prepared(lane, lambda lane: lane.prepare(program))


class FrameLane(Lane):
    """One frame in flight. The device's context must be entered for every method."""

    program: Program
    _params: PinnedArray
    _results: tuple[PinnedArray, ...]

    def prepare(self, program: Program) -> None:
        """Allocate what the host shares with the device, and upload what never changes."""
        self.program = program
        self._graphs: dict[tuple[int, bool], Graph] = {}
        self._warmed: set[tuple[int, bool]] = set()
        self._filler = off_frame_affines(program.max_batch)
        self._upload = FrameUpload(
            self.device, self.kernels, self.stream, program.recipe.input.size_hw, nv12=program.crop.nv12
        )
        self.resources.append(self._upload)
        self._params = self.pinned((self.layout.sizes["params"],), "uint8", "hold a frame's parameters")
        batch = program.max_batch
        self._records = self._params.array[: batch * FRAME_BYTES].reshape(batch, FRAME_BYTES)
        self._affines = self._params.array[affines_at(batch) :].view(np.float32).reshape(2, batch, 2, 3)
        self._results = tuple(self.pinned(shape, dtype, "hold results") for _, shape, dtype in self._downloads())
        partner = self.pinned(program.partner.shape, "int32", "hold the joints' partners")
        partner.array[:] = program.partner
        self.device.driver.memcpy_htod_async(self.address("partner"), partner.array, self.stream)

    def run(
        self,
        frame: Any,  # H x W x 3 uint8 or NV12 rows, on the host or the device
        affines: Float32Array,  # N x 2 x 3, crop -> frame pixels, 1 <= N <= max_batch
        *,
        flip: bool,
    ) -> tuple[tuple[NDArray[Any], ...], Timings]:
        """The downloaded arrays (joints N x K x C; or heatmaps, and mirrored ones), and milliseconds by stage."""
        start = perf_counter()
        bucket = bucket_of(len(affines), self.program.buckets)
        brought = self._upload.bring(frame, affines)
        self._set_params(brought.record, affines, bucket, flip=flip)
        self._warm(bucket, flip)
        uploaded = perf_counter()
        graph = self._graphs.get((bucket, flip))
        if graph is None:
            self._enqueue(bucket, flip)
        else:
            self._launch(graph)
        launched = perf_counter()
        self.settle()
        done = perf_counter()
        results = tuple(result.array[: len(affines)].copy() for result in self._downloaded(flip))
        timings: Timings = {
            "upload": 1e3 * (uploaded - start),
            "launch": 1e3 * (launched - uploaded),
            "device": 1e3 * (done - launched),
            "download": 1e3 * (perf_counter() - done),
            "transfer": brought.transfer,
        }
        return results, timings

    def stages(self, frame: Any, affines: Float32Array, *, flip: bool = False) -> dict[str, float]:
        """Milliseconds of each stage on the device, run apart and timed by events; a graph costs less as a whole."""
        marks = [self.device.driver.Event() for _ in range(5)]
        bucket = bucket_of(len(affines), self.program.buckets)
        self.run(frame, affines, flip=flip)
        self._run_ahead(partial(self._enqueue, bucket, flip))
        marks[0].record(self.stream)
        brought = self._upload.bring(frame, affines)
        self._set_params(brought.record, affines, bucket, flip=flip)
        marks[1].record(self.stream)
        self._send_params()
        self._crop(bucket, mirrored=False)
        marks[2].record(self.stream)
        self._network(bucket, mirrored=False)
        marks[3].record(self.stream)
        self._finish(bucket, flip=False)
        marks[4].record(self.stream)
        self.settle()
        names = ("upload", "crop", "network", "decode")
        return {name: float(marks[i + 1].time_since(marks[i])) for i, name in enumerate(names)}

    def network_ms(self, count: int, repeats: int, mode: NetworkMode) -> list[float]:
        """Device milliseconds of the plan alone, `repeats` times."""
        bucket, stream = bucket_of(count, self.program.buckets), self.stream
        before, after = self.device.driver.Event(), self.device.driver.Event()
        context = self._context(bucket, mirrored=False)
        if mode == "own graph":
            context = self._fresh_context(bucket, self.loaded.create_context(own_graph=True))
        enqueue = partial(context.enqueue, self.stream_handle)
        for _ in range(3):
            enqueue()
        self.settle("run the network")
        graph = self._captured(enqueue) if mode == "graph" and self._can_capture(bucket) else None
        spent = []
        run = enqueue if graph is None else partial(self._launch, graph)
        for _ in range(repeats):
            self._run_ahead(run)
            before.record(stream)
            run()
            after.record(stream)
            self.settle("run the network")
            spent.append(float(after.time_since(before)))
        return spent

    def free(self) -> None:
        """Free graphs before the buffers they name."""
        for graph in self._graphs.values():
            graph.destroy()
        self._graphs.clear()
        super().free()

    def abandon(self) -> None:
        never_freed(self._graphs)
        super().abandon()

    # ---- parameters and results -------------------------------------------------------------------------------

    def _set_params(self, record: bytes, affines: Float32Array, bucket: int, *, flip: bool) -> None:
        """Write the parameter block. Rows that fill up the bucket look outside the frame and read nothing."""
        count = len(affines)
        self._records[:bucket] = np.frombuffer(record, np.uint8)
        self._affines[0, :count] = affines
        if flip:
            self._affines[1, :count] = mirrored_affines(affines, self.program.crop.width)
        if count < bucket:
            self._affines[:, count:bucket] = self._filler[: bucket - count]

    def _params_address(self) -> int:
        return self._params.device_pointer if self.device.integrated else self.address("params")

    def _affines_address(self, *, mirrored: bool) -> int:
        batch = self.program.max_batch
        return self._params_address() + affines_at(batch) + (batch * AFFINE_BYTES if mirrored else 0)

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

    def _run_ahead(self, run: Callable[[], object]) -> None:
        """Keep the device busy while what is timed is put on the stream: else events would time the host's calls."""
        for _ in range(RUNS_AHEAD):
            run()

    # ---- the device's work ------------------------------------------------------------------------------------

    def _warm(self, bucket: int, flip: bool) -> None:
        """The first time: run once without a graph, keep the kernels TensorRT-RTX compiled, then capture the graph."""
        if (bucket, flip) in self._warmed:
            return
        self._enqueue(bucket, flip)
        self.settle("run a batch for the first time")
        self.loaded.keep_kernels()
        if not self.program.graphs:
            log.info("batch %d runs without a CUDA graph, as asked", bucket)
        elif self._can_capture(bucket):
            self._graphs[bucket, flip] = self._captured(lambda: self._enqueue(bucket, flip))
        else:
            log.warning("batch %d runs without a CUDA graph: its plan cannot be captured", bucket)
        self._warmed.add((bucket, flip))

    def _launch(self, graph: Graph) -> None:
        try:
            graph.launch(self.stream_handle)
        except RuntimeError as error:  # how the extension tells what CUDA answered
            raise DeviceError(f"the graph could not be launched: {error}") from error

    def _can_capture(self, bucket: int) -> bool:
        return self.loaded.dla_core is None and self._context(bucket, mirrored=False).capturable(self.stream_handle)

    def _captured(self, enqueue: Callable[[], None]) -> Graph:
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

    def _enqueue(self, bucket: int, flip: bool) -> None:
        self._send_params()
        for mirrored in (False, True)[: 1 + flip]:
            self._crop(bucket, mirrored=mirrored)
            self._network(bucket, mirrored=mirrored)
        self._finish(bucket, flip=flip)

    def _send_params(self) -> None:
        if not self.device.integrated:
            self.device.driver.memcpy_htod_async(self.address("params"), self._params.array, self.stream)

    def _crop(self, bucket: int, *, mirrored: bool) -> None:
        out = self.address(self.program.recipe.input.name)
        affines = self._affines_address(mirrored=mirrored)
        self.kernels.crop(out, self._params_address(), affines, bucket, self.program.crop, self.stream_handle)

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

    def _finish(self, bucket: int, *, flip: bool) -> None:
        """Decode and download; on shared memory the decode writes where the host reads."""
        driver, integrated = self.device.driver, self.device.integrated
        if self.program.decode is not None:
            out = self._results[0].device_pointer if integrated else self.address("joints")
            self._decode(out, bucket, flip)
            if integrated:
                return
        for (name, _, _), result in zip(self._downloads(), self._downloaded(flip), strict=False):
            driver.memcpy_dtoh_async(result.array[:bucket], self.address(name), self.stream)

    def _decode(self, out: int, bucket: int, flip: bool) -> None:
        names, work = self.program.recipe.output.names, self.program.decode
        if work is None:
            raise AssertionError("heatmaps are decoded on the host")
        logits = tuple(self.address(name) for name in names)
        mirrored = tuple(self.address(f"mirrored {name}") for name in names) if flip else None
        partner, affines = self.address("partner"), self._affines_address(mirrored=False)
        self.kernels.decode(out, logits, mirrored, partner, affines, bucket, work, self.stream_handle)

"""The pipeline on a GPU: frames and boxes in, joints out; one CUDA graph launch a batch.

Several threads may call `run` at once: each takes a lane (`sdk.runtime.cuda.lanes`), so that one frame uploads while
another computes. Opening loads the plan and allocates the first lane; a batch bucket's graph is made at its first use.

    with GpuPipeline(engine, index=0) as pipeline:
        persons, timings_ms = pipeline.run(frame, affines)      # N x K x 3: x, y in frame pixels, score
    with GpuPipeline(engine, detector=detector_engine) as pipeline:
        found = pipeline.find(frame, expected=4)                # found.boxes, found.persons; two launches
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import astuple, replace
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError, SdkError
from sdk.geometry import crop_affines
from sdk.heatmap import decode_heatmaps, merge_flipped
from sdk.manifest import DetectorEngine, Engine
from sdk.numeric import is_number, is_whole
from sdk.recipe import Recipe
from sdk.runtime.closing import Closing
from sdk.runtime.cuda.closing import close_lanes
from sdk.runtime.cuda.context import device_context
from sdk.runtime.cuda.device_frames import DeviceFrame
from sdk.runtime.cuda.finder import FinderProgram, finder_program
from sdk.runtime.cuda.frame_lane import FrameLane, Landed, NetworkMode, Program, Timings, frame_lane
from sdk.runtime.cuda.kernels import DecodeWork, Kernels, NativeKernels, crop_work
from sdk.runtime.cuda.lanes import LanePool
from sdk.runtime.cuda.loaded_plan import loaded_plan
from sdk.runtime.cuda.planner import buckets
from sdk.runtime.cuda.upload import taken_over
from sdk.runtime.cuda.watchdog import TIME_OUT_S
from sdk.runtime.decoding import Decoding, decoding_of
from sdk.runtime.frames import of_frame
from sdk.runtime.pipeline import Estimated, FoundPersons, PersonFinder, in_chunks

__all__ = ["GpuPipeline"]

Float32Array = NDArray[np.float32]
LANES = 3  # one uploads, one computes, one downloads
AS_IT_IS = np.eye(2, 3, dtype=np.float32)  # a crop that reads the frame, so that there is room for frames too


class GpuPipeline(Closing):
    """An engine's plan between the fused ops, on one CUDA device.

    `lanes`: frames in flight at once. `graphs`: False enqueues step by step. `time_out_s`: a device silent for longer
    is lost. `detector`: the engine whose plan finds persons. It may be dropped without `close`: what it holds is then
    freed in the right order, or left alone where freeing could hang.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        index: int = 0,
        refine: str = "none",
        pixel_format: str = "bgr",
        lanes: int = LANES,
        graphs: bool = True,
        time_out_s: float = TIME_OUT_S,
        kernels: Kernels | None = None,
        decoding: Decoding | None = None,
        detector: DetectorEngine | None = None,
    ) -> None:
        if not is_whole(lanes, 1):
            raise InputError(f"lanes must be a whole number of at least 1 (got {lanes!r})")
        if not is_number(time_out_s) or not time_out_s > 0:
            raise InputError(f"time_out_s must be positive seconds (got {time_out_s!r})")
        self.engine = engine
        self.lanes = lanes
        self._detects = detector is not None
        self.device = f"cuda:{index}"
        device = self._device = device_context(index)
        self.decoding = decoding_of(engine.manifest.recipe) if decoding is None else decoding
        program = _program_of(
            engine,
            NativeKernels() if kernels is None else kernels,
            refine,
            pixel_format,
            self.decoding,
            graphs=graphs,
            time_out_s=time_out_s,
        )
        with device.entered(f"open engine '{engine.folder.name}'"):
            plans = [loaded_plan(engine, device)]
            program = self._program = program.for_plan(plans[0].plan)
            finding: FinderProgram | None = None
            self._pool = LanePool(lambda: frame_lane(device, plans[0], program, finding), lanes, time_out_s)
            self._closer = weakref.finalize(self, close_lanes, device, plans, self._pool)
            try:
                if detector is not None:
                    plans.append(loaded_plan(detector, device))
                    finding = finder_program(detector, plans[1], pixel_format, graphs=graphs)
                with self._pool.lent():
                    pass  # the first lane: what does not fit is said at opening
            except SdkError:
                self._closer()
                raise

    @property
    def recipe(self) -> Recipe:
        return self.engine.manifest.recipe

    @property
    def max_batch(self) -> int:
        return self._program.max_batch

    @property
    def finder(self) -> PersonFinder | None:
        return self if self._detects else None

    def run(
        self,
        frame: Any,  # H x W x 3 uint8 or NV12: numpy, pinned numpy, or a device array; or a list of such
        affines: Float32Array,  # N x 2 x 3, crop -> frame pixels, N <= max_batch
        *,
        flip: bool = False,
        frame_of: NDArray[np.int32] | None = None,  # N: which frame of the list each crop is of
    ) -> tuple[Float32Array, Timings]:
        """N x K x C float32 (x, y in frame pixels, score, then `decoding.columns`), and milliseconds of each stage."""
        if len(affines) == 0:
            return np.zeros((0, self.recipe.joints, self.decoding.columns.count), np.float32), {}
        frames = frame if isinstance(frame, list) else [frame]
        persons, landed = self._flown(frames, affines, frame_of, flip=flip)
        return persons, landed.timings

    def estimate(
        self,
        frames: list[Any],
        boxes: NDArray[Any],  # N x 4 of any numbers, not yet judged
        frame_of: NDArray[np.int32] | None = None,  # N, ascending; None: all in the first frame
        *,
        flip: bool = False,
    ) -> Estimated:
        """The persons in these boxes, in as few batches as hold them."""
        if 0 < len(boxes) <= self.max_batch:
            persons, landed = self._flown(frames, boxes, frame_of, flip=flip)
            assert landed.boxes is not None, "boxes give checked boxes"
            return persons, landed.boxes, landed.timings
        return in_chunks(self, frames, boxes, frame_of, flip=flip)

    def find(self, frame: Any, expected: int = 0, *, flip: bool = False) -> FoundPersons:
        """Whom the detector sees in a frame, and the joints of as many as a batch of those `expected` holds."""
        with self._device.entered("find persons"), self._pool.lent() as lane:
            boxes, scores, results, timings = lane.find(frame, expected, flip=flip)
            lane.idle = True
        joints = None if results is None else results[0]
        if results is not None and self._program.decode is None:
            source = self.recipe.input
            affines = crop_affines(boxes[: len(results[0])], source.size_hw, source.box_padding)
            joints = self._decoded(results, affines)
        return FoundPersons(boxes, scores, joints, timings)

    def find_in(self, frames: Mapping[int, Any]) -> dict[int, FoundPersons]:
        """Whom the detector sees in each frame; on all lanes that are free one is launched before any is waited for."""
        found: dict[int, FoundPersons] = {}
        if not frames:
            return found
        under_way: deque[tuple[int, FrameLane]] = deque()

        def land() -> None:
            number, lane = under_way.popleft()
            boxes, scores, _, timings = lane.land()
            found[number] = FoundPersons(boxes, scores, None, timings)

        with self._device.entered("find persons"), self._pool.lent_free(len(frames)) as lanes:
            for (number, frame), lane in zip(frames.items(), cycle(lanes), strict=False):
                if len(under_way) == len(lanes):
                    land()
                with of_frame(number):
                    lane.look(frame, waits=False)
                under_way.append((number, lane))
            while under_way:
                land()
            for lane in lanes:
                lane.idle = True
        return found

    def arrived(self, frame: Any) -> DeviceFrame:
        """A frame in device memory as another thread's call will find it: the calling thread's stream is waited for."""
        with self._device.entered("take over a frame"):
            arrivals = int(self._device.arrivals.handle)
            kernels, nv12 = self._program.kernels, self._program.crop.nv12
            found = taken_over(self._device, kernels, frame, arrivals, nv12=nv12)
            ready = found.ready or kernels.mark(arrivals)
        found = replace(found, ready=ready)
        self._device.free_with(found, ready, ready.destroy)
        return found

    def warm(self, *, flip: bool = False) -> None:
        """Make every lane and every bucket's graph now, so that no later call takes longer than its frame."""
        with self._device.entered("warm up"):
            self._pool.each(partial(self._warm_lane, flip=flip))

    def stages(self, frame: Any, affines: Float32Array, *, flip: bool = False) -> dict[str, float]:
        """Device milliseconds of upload, crop, network and decode (with the download), each run apart."""
        with self._device.entered("time the stages"), self._pool.lent() as lane:
            return lane.stages(frame, affines, flip=flip)

    def network_ms(self, count: int, repeats: int = 100, mode: NetworkMode = "graph") -> list[float]:
        """Device milliseconds of the plan alone for `count` persons: in our graph, plain, in TensorRT-RTX's."""
        with self._device.entered("time the network"), self._pool.lent() as lane:
            return lane.network_ms(count, repeats, mode)

    def detector_ms(self, repeats: int = 100) -> list[float]:
        """Device milliseconds of the detector's plan alone."""
        with self._device.entered("time the detector"), self._pool.lent() as lane:
            return lane.detector_ms(repeats)

    def launches(self, count: int, *, flip: bool = False) -> int | None:
        """Kernels that a call for `count` persons starts, counted in its captured graph; None without one."""
        with self._device.entered("count launches"), self._pool.lent() as lane:
            lane.run([self._black()], np.tile(AS_IT_IS, (count, 1, 1)), flip=flip)
            return lane.launches(count, flip=flip)

    def _warm_lane(self, lane: FrameLane, *, flip: bool) -> None:
        for bucket in self._program.buckets:
            lane.run([self._black()], np.tile(AS_IT_IS, (bucket, 1, 1)), flip=flip)
            if self._detects:
                lane.find(self._black(), bucket, flip=flip)

    def _black(self) -> NDArray[np.uint8]:
        """A small frame of the pixel format."""
        return np.zeros((3, 2) if self._program.crop.nv12 else (2, 2, 3), np.uint8)

    def close(self) -> None:
        """Wait for the calls under way, then free everything. Twice is allowed; a later run is a ClosedError."""
        self._closer()

    def _flown(
        self, frames: list[Any], placed: NDArray[Any], frame_of: NDArray[np.int32] | None, *, flip: bool
    ) -> tuple[Float32Array, Landed]:
        """N x K x C of one batch, and what else came back."""
        with self._device.entered("run a frame"), self._pool.lent() as lane:
            landed = lane.run(frames, placed, flip=flip, frame_of=frame_of)
            lane.idle = True
        if landed.affines is not None:
            return self._decoded(landed.results, landed.affines), landed
        return landed.results[0], landed

    def _decoded(self, results: tuple[NDArray[Any], ...], affines: Float32Array) -> Float32Array:
        heatmaps = results[0].astype(np.float32)
        if len(results) == 2:
            skeleton, shift = self.recipe.skeleton, self.recipe.protocol.flip_shift
            heatmaps = merge_flipped(heatmaps, results[1].astype(np.float32), skeleton.flip_order, shift)
        return decode_heatmaps(heatmaps, affines, self.recipe.input.size_hw)


def _program_of(
    engine: Engine,
    kernels: Kernels,
    refine: str,
    pixel_format: str,
    decoding: Decoding,
    *,
    graphs: bool,
    time_out_s: float,
) -> Program:
    """An engine's recipe as work for the kernels."""
    from sdk import ops

    recipe, batch = engine.manifest.recipe, engine.manifest.batch
    source, output = recipe.input, recipe.output
    if refine not in ops.REFINEMENTS or (refine != "none" and output.kind == "heatmap"):
        raise InputError(f"refine must be one of {', '.join(ops.REFINEMENTS)}, 'none' for heatmaps (got {refine!r})")
    crop = crop_work(source, pixel_format)
    decode = None
    if output.kind == "simcc" and output.score is not None and output.split_ratio is not None:
        decode = DecodeWork(
            joints=recipe.joints,
            x_bins=recipe.bins_xy[0],
            y_bins=recipe.bins_xy[1],
            split_ratio=output.split_ratio,
            score=ops.SCORES[output.score],
            refine=ops.REFINEMENTS[refine],
            half=False,
            flip_shift=recipe.protocol.flip_shift,
            z_bins=0 if output.depth is None else output.depth.bins,
            depth=(0.0, False) if decoding.depth is None else (decoding.depth.span, decoding.depth.pixels),
            spread=None if decoding.spread is None else astuple(decoding.spread),
            second=decoding.columns.second,
        )
    partner = np.array(recipe.skeleton.flip_order, np.int32)
    sizes = buckets(batch.min, batch.max)
    return Program(recipe, kernels, crop, decode, partner, sizes, graphs, time_out_s, decoding.columns.count)

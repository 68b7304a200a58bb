"""From checked frames and boxes, or affines, to joints: crop, network, decode, in batches of persons of any frames.

with CpuPipeline(session) as pipeline:                        # sdk.runtime.opening chooses the device
    persons, timings_ms = pipeline.run(frame, affines)        # N x K x 3: x, y in frame pixels, score
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sdk.cores import allowed_cores
from sdk.errors import InputError
from sdk.geometry import placed_boxes
from sdk.heatmap import decode_heatmaps, merge_flipped
from sdk.manifest import Engine
from sdk.recipe import Recipe
from sdk.runtime.closing import Closing
from sdk.runtime.decoding import Decoding, decoding_of
from sdk.runtime.frames import crop_options
from sdk.runtime.lending import Turns
from sdk.runtime.session import Session

__all__ = [
    "CpuPipeline",
    "Estimated",
    "FoundPersons",
    "PersonFinder",
    "Pipeline",
    "Refine",
    "Timings",
    "add_timings",
    "in_chunks",
]

Float32Array = NDArray[np.float32]
Timings = dict[str, float | str]
Refine = Literal["none", "parabola", "dark", "expectation"]
Estimated = tuple[Float32Array, Float32Array, Timings]  # persons N x K x C, boxes N x 4, milliseconds by stage


class FoundPersons(NamedTuple):
    """Whom a detector sees in one frame, best first."""

    boxes: Float32Array  # N x 4 xyxy, frame pixels
    scores: Float32Array  # N
    persons: Float32Array | None  # M x K x C of the first M <= N, as of `Pipeline.run`; None: nobody's were asked for
    timings: Timings


class PersonFinder(Protocol):
    """A detector on the device, beside the pose network."""

    def find(self, frame: Any, expected: int = 0, *, flip: bool = False) -> FoundPersons:
        """Who is in a frame, on the host or the device, and their joints, of about as many as are `expected`."""
        ...

    def find_in(self, frames: Mapping[int, Any]) -> dict[int, FoundPersons]:
        """Who is in each of these frames, by the same numbers, which errors name; one is looked at while others are."""
        ...


class Pipeline(Closing, Protocol):
    """Crop, network and decode as one step, whatever runs them."""

    @property
    def engine(self) -> Engine: ...

    @property
    def device(self) -> str: ...

    @property
    def max_batch(self) -> int: ...

    @property
    def decoding(self) -> Decoding:
        """What is asked for beside x, y and the score, and in which columns it comes."""
        ...

    @property
    def finder(self) -> PersonFinder | None:
        """What finds persons on the device; None where nothing does."""
        ...

    def run(
        self,
        frame: Any,  # as check_frame gives it; or a list of such
        affines: Float32Array,  # N x 2 x 3, crop -> frame pixels, N <= max_batch
        *,
        flip: bool = False,
        frame_of: NDArray[np.int32] | None = None,  # N: which frame of the list each crop is of
    ) -> tuple[Float32Array, Timings]:
        """N x K x C float32 (x, y in frame pixels, score, then `decoding.columns`), and milliseconds of each stage."""
        ...

    def estimate(
        self,
        frames: list[Any],
        boxes: NDArray[Any],  # N x 4 of any numbers, not yet judged
        frame_of: NDArray[np.int32] | None = None,  # N, ascending; None: all in the first frame
        *,
        flip: bool = False,
    ) -> Estimated:
        """The persons in these boxes, in as few batches as hold them. InputError names the first that is no box."""
        ...

    def arrived(self, frame: Any) -> Any:
        """A frame in device memory, to be given to `run` in another thread. InputError on the CPU."""
        ...

    def warm(self, *, flip: bool = False) -> None:
        """Do now what would make the first calls slower than later ones."""
        ...


def in_chunks(
    pipeline: Pipeline,
    frames: list[Any],
    given: NDArray[Any],  # N x 4 boxes of any numbers, not yet judged
    frame_of: NDArray[np.int32] | None,
    *,
    flip: bool,
) -> Estimated:
    """The persons in these boxes, in chunks of the pipeline's largest batch, each with the frames it needs."""
    recipe, limit = pipeline.engine.manifest.recipe, pipeline.max_batch
    boxes, affines = placed_boxes(given, recipe.input.size_hw, recipe.input.box_padding)
    if frame_of is None and 0 < len(boxes) <= limit:
        persons, timings = pipeline.run(frames[0], affines, flip=flip)
        return persons, boxes, timings
    timings, chunks = Timings(), []
    for first in range(0, len(boxes), limit):
        rows = slice(first, first + limit)
        if frame_of is None:
            persons, spent = pipeline.run(frames[0], affines[rows], flip=flip)
        else:
            owners = frame_of[rows]
            used = frames[owners[0] : owners[-1] + 1]
            persons, spent = pipeline.run(used, affines[rows], flip=flip, frame_of=owners - owners[0])
        add_timings(timings, spent)
        chunks.append(persons)
    if len(chunks) == 1:
        return chunks[0], boxes, timings
    together = (
        np.concatenate(chunks) if chunks else np.zeros((0, recipe.joints, pipeline.decoding.columns.count), np.float32)
    )
    return together, boxes, timings


def add_timings(total: Timings, spent: Timings) -> None:
    """Add what each stage of another call took; of words the newest stay."""
    for stage, value in spent.items():
        before = total.get(stage, 0.0)
        total[stage] = value if isinstance(value, str) or isinstance(before, str) else before + value


class CpuPipeline(Closing):
    """The native crop, a session on the CPU, the native decode. Several threads may call `run` at once.

    `threads` is also the ops' limit, which holds for the whole process.
    """

    device = "cpu"
    finder = None

    def __init__(
        self,
        session: Session,
        *,
        refine: Refine = "none",
        pixel_format: str = "bgr",
        threads: int | None = None,
        decoding: Decoding | None = None,
    ) -> None:
        from sdk import ops

        if threads is not None:
            ops.set_threads(threads)
        self._ops = ops
        self._turns = Turns(allowed_cores())  # more at once gain nothing, and the OS would choose who waits
        self._buffers: list[Float32Array] = []  # of crops, one for each call that ran at once
        self.session = session
        self.refine = refine
        self.pixel_format = pixel_format
        self.decoding = decoding_of(session.recipe) if decoding is None else decoding

    @property
    def engine(self) -> Engine:
        return self.session.engine

    @property
    def recipe(self) -> Recipe:
        return self.session.recipe

    @property
    def max_batch(self) -> int:
        return self.session.max_batch

    def run(
        self,
        frame: Any,  # as check_frame gives it; or a list of such
        affines: Float32Array,  # N x 2 x 3, crop -> frame pixels
        *,
        flip: bool = False,
        frame_of: NDArray[np.int32] | None = None,  # N: which frame of the list each crop is of
    ) -> tuple[Float32Array, Timings]:
        """N x K x C float32 (x, y in frame pixels, score, then `decoding.columns`), and milliseconds of each stage."""
        with self._turns:
            start = perf_counter()
            buffer = self._buffer_for(len(affines))
            crops = self.crop(frame, affines, frame_of, out=buffer[: len(affines)])
            cropped = perf_counter()
            outputs = self.session.run(crops)
            mirrored = self.session.run(np.ascontiguousarray(crops[..., ::-1])) if flip else None
            ran = perf_counter()
            persons = self.decode(outputs, mirrored, affines)
            self._buffers.append(buffer)
            decoded = perf_counter()
        timings: Timings = {"crop": 1e3 * (cropped - start), "network": 1e3 * (ran - cropped)}
        timings["decode"] = 1e3 * (decoded - ran)
        return persons, timings

    def _buffer_for(self, count: int) -> Float32Array:  # at least N x 3 x h x w
        """Memory for crops, of a call that is over where there is one: new memory costs its first touch each time."""
        try:
            buffer = self._buffers.pop()
        except IndexError:
            buffer = np.empty((0, 3, *self.recipe.input.size_hw), np.float32)
        return buffer if len(buffer) >= count else np.empty((count, *buffer.shape[1:]), np.float32)

    def estimate(
        self,
        frames: list[Any],
        boxes: NDArray[Any],  # N x 4 of any numbers, not yet judged
        frame_of: NDArray[np.int32] | None = None,  # N, ascending; None: all in the first frame
        *,
        flip: bool = False,
    ) -> Estimated:
        """The persons in these boxes, in as few batches as hold them."""
        return in_chunks(self, frames, boxes, frame_of, flip=flip)

    def crop(
        self,
        frame: Any,  # as check_frame gives it; or a list of such
        affines: Float32Array,  # N x 2 x 3, crop -> frame pixels
        frame_of: NDArray[np.int32] | None = None,
        *,
        out: Float32Array | None = None,
    ) -> Float32Array:  # N x 3 x h x w
        """What the network takes; verification puts the crops of many frames into one batch."""
        source = self.recipe.input
        crops: Float32Array = self._ops.crop(
            frame,
            affines,
            source.size_hw,
            mean=source.mean,
            std=source.std,
            channel_order=source.colour,
            frame_of=frame_of,
            out=out,
            **crop_options(self.pixel_format),
        )
        return crops

    def arrived(self, frame: Any) -> Any:
        raise InputError("frame lies in device memory, and this estimator runs on the CPU; give a numpy array")

    def warm(self, *, flip: bool = False) -> None:
        black = np.zeros((3, 2) if self.pixel_format.startswith("nv12") else (2, 2, 3), np.uint8)
        self.run(black, np.zeros((1, 2, 3), np.float32), flip=flip)

    def close(self) -> None:
        self.session.close()

    def decode(
        self,
        outputs: tuple[Float32Array, ...],  # of `session.run`
        mirrored: tuple[Float32Array, ...] | None,  # of the mirrored crops
        affines: Float32Array,  # N x 2 x 3, crop -> frame pixels
    ) -> Float32Array:  # N x K x C
        """What the network gave, as joints in frame pixels with their scores."""
        output, skeleton = self.recipe.output, self.recipe.skeleton
        shift = self.recipe.protocol.flip_shift
        if output.kind == "heatmap":
            heatmaps = outputs[0]
            if mirrored is not None:
                heatmaps = merge_flipped(heatmaps, mirrored[0], skeleton.flip_order, shift)
            return decode_heatmaps(heatmaps, affines, self.recipe.input.size_hw)
        assert output.split_ratio is not None and output.score is not None, "the recipe's rules hold this"
        joints: Float32Array = self._ops.decode(
            outputs[0],
            outputs[1],
            affines,
            output.split_ratio,
            score=output.score,
            refine=self.refine,
            simcc_z=None if self.decoding.depth is None else outputs[2],
            depth=self.decoding.depth,
            spread=self.decoding.spread,
            second=self.decoding.columns.second,
            flipped=mirrored,
            flip_pairs=skeleton.flip_pairs if mirrored is not None else None,
            flip_shift=shift,
        )
        return joints

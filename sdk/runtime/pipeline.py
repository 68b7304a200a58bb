"""From a checked frame and affines to joints: crop, network, decode, for one chunk of persons. It knows no boxes.

with CpuPipeline(session) as pipeline:                        # sdk.runtime.opening chooses the device
    persons, timings_ms = pipeline.run(frame, affines)        # N x K x 3: x, y in frame pixels, score
"""

from __future__ import annotations

from time import perf_counter
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sdk.cores import allowed_cores
from sdk.errors import InputError
from sdk.heatmap import decode_heatmaps, merge_flipped
from sdk.manifest import Engine
from sdk.recipe import Recipe
from sdk.runtime.closing import Closing
from sdk.runtime.decoding import Decoding, decoding_of
from sdk.runtime.frames import crop_options
from sdk.runtime.lending import Turns
from sdk.runtime.session import Session

__all__ = ["CpuPipeline", "Pipeline", "Refine", "Timings"]

Float32Array = NDArray[np.float32]
Timings = dict[str, float | str]
Refine = Literal["none", "parabola", "dark", "expectation"]


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

    def run(
        self,
        frame: NDArray[np.uint8],  # as check_frame gives it
        affines: Float32Array,  # N x 2 x 3, crop -> frame pixels, N <= max_batch
        *,
        flip: bool = False,
    ) -> tuple[Float32Array, Timings]:
        """N x K x C float32 (x, y in frame pixels, score, then `decoding.columns`), and milliseconds of each stage."""
        ...

    def arrived(self, frame: Any) -> Any:
        """A frame in device memory, to be given to `run` in another thread. InputError on the CPU."""
        ...

    def warm(self, *, flip: bool = False) -> None:
        """Do now what would make the first calls slower than later ones."""
        ...


class CpuPipeline(Closing):
    """The native crop, a session on the CPU, the native decode. Several threads may call `run` at once.

    `threads` is also the ops' limit, which holds for the whole process.
    """

    device = "cpu"

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
        frame: NDArray[np.uint8],  # as check_frame gives it
        affines: Float32Array,  # N x 2 x 3, crop -> frame pixels
        *,
        flip: bool = False,
    ) -> tuple[Float32Array, Timings]:
        """N x K x C float32 (x, y in frame pixels, score, then `decoding.columns`), and milliseconds of each stage."""
        with self._turns:
            start = perf_counter()
            crops = self.crop(frame, affines)
            cropped = perf_counter()
            outputs = self.session.run(crops)
            mirrored = self.session.run(np.ascontiguousarray(crops[..., ::-1])) if flip else None
            ran = perf_counter()
            persons = self.decode(outputs, mirrored, affines)
            decoded = perf_counter()
        timings: Timings = {"crop": cropped - start, "network": ran - cropped, "decode": decoded - ran}
        return persons, {stage: 1e3 * float(seconds) for stage, seconds in timings.items()}

    def crop(
        self,
        frame: NDArray[np.uint8],  # as check_frame gives it
        affines: Float32Array,  # N x 2 x 3, crop -> frame pixels
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

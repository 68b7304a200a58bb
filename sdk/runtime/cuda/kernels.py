"""What the GPU run time asks of the native extension: the two fused ops on raw pointers, graph capture, waiting.

`NativeKernels` is the only implementation that runs on a GPU. Pointers and streams are plain integers; nothing here
allocates or checks memory, and `finished` alone waits. Callers have the device's context entered.

    kernels = NativeKernels()
    kernels.begin_capture(stream); kernels.crop(...); kernels.end_capture(stream).launch(stream)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sdk.detector_recipe import DetectorInput
from sdk.errors import DeviceError
from sdk.ops_detections import OutputTable
from sdk.recipe import Input
from sdk.runtime.cuda.planner import FRAME_BYTES
from sdk.runtime.frames import crop_options

__all__ = [
    "FRAME_BYTES",
    "PLACE_BYTES",
    "CropWork",
    "CropsAt",
    "DecodeWork",
    "DetectWork",
    "Flight",
    "FlightStatus",
    "FoundAt",
    "Graph",
    "Kernels",
    "Mark",
    "NativeKernels",
    "crop_work",
    "frame_record",
]

PLACE_BYTES = 24  # of `sdk::FramePlace` in cpp_ext/shared/detection_math.h
_FRAME = struct.Struct("<QQqqii")


def frame_record(data: int, chroma: int, stride: int, chroma_stride: int, height: int, width: int) -> bytes:
    """A `sdk::Frame` as it lies in device memory: plane addresses, bytes from row to row, size in pixels."""
    return _FRAME.pack(data, chroma, stride, chroma_stride, height, width)


@dataclass(frozen=True)
class CropWork:
    """What every crop of an engine has in common. `yuv` is read for NV12 frames alone."""

    height: int
    width: int
    scale: tuple[float, float, float]
    bias: tuple[float, float, float]
    swap_channels: bool
    half: bool
    nv12: bool
    yuv: tuple[float, ...]
    border: int = 0  # grey level outside the frame


def crop_work(source: Input | DetectorInput, pixel_format: str, border: int = 0) -> CropWork:
    """How frames of a pixel format become a network's input, in float32 as yet."""
    from sdk import ops

    options = crop_options(pixel_format)
    nv12 = options["pixel_format"] == "nv12"
    scale, bias = ops.normalisation(source.mean, source.std)
    return CropWork(
        height=source.height,
        width=source.width,
        scale=scale,
        bias=bias,
        swap_channels=source.colour == "bgr" if nv12 else source.colour != pixel_format,
        half=False,
        nv12=nv12,
        yuv=ops.yuv_to_rgb(options["yuv_matrix"], options["yuv_range"]) if nv12 else (0.0,) * 6,
        border=border,
    )


@dataclass(frozen=True)
class DecodeWork:
    """What every decode of an engine has in common."""

    joints: int
    x_bins: int
    y_bins: int
    split_ratio: float
    score: int
    refine: int
    half: bool
    flip_shift: bool
    z_bins: int = 0  # 0: no third axis
    depth: tuple[float, bool] = (0.0, False)  # span, in pixels
    spread: tuple[float, float, float, float] | None = None  # sharpness, gain, curve, floor
    second: bool = False


@dataclass(frozen=True)
class DetectWork:
    """What every reading of a detector's outputs has in common. `rules`: of `sdk.ops_detections.detection_rules`."""

    rules: tuple[Any, ...]
    size_hw: tuple[int, int]  # of the network's input
    threshold: float
    iou: float
    most: int


class FoundAt(NamedTuple):
    """Where what was found is written: how many boxes, boxes most x 4, scores most; and scratch, 8 bytes a row."""

    number: int
    boxes: int
    scores: int
    scratch: int


class CropsAt(NamedTuple):
    """Where records and affines of the crops of the first persons found are written, for a crop that follows."""

    records: int
    affines: int
    mirrored: int
    number: int
    frame: int  # the record that each gets
    height: int
    width: int
    padding: float


class Graph(Protocol):
    """An executable CUDA graph. `kernels`: how many one launch starts."""

    @property
    def kernels(self) -> int: ...

    def launch(self, stream: int) -> None: ...

    def destroy(self) -> None:
        """Free it; more than once is allowed."""
        ...


class Mark(Protocol):
    """A point in a stream's work."""

    def hold_up(self, stream: int) -> None:
        """Let `stream` wait for it, on the device."""
        ...

    def destroy(self) -> None:
        """Free it; more than once is allowed, and streams that wait go on waiting."""
        ...


class FlightStatus(IntEnum):
    """How far a call came: `sdk::cuda::FlightStatus` in cpp_ext/cuda/flight.h."""

    DONE = 0
    BROUGHT = 1  # without a graph: frames and parameters are on their way, the work is not
    PENDING = 2
    NEEDS_ROOM = 3
    NEEDS_COSTS = 4
    BAD_BOX = 5


class Flight(Protocol):
    """One lane's calls, from boxes and frames to joints in one native call each, without the GIL."""

    def run(
        self,
        frames: list[Any],
        placed: NDArray[Any],
        checked: NDArray[np.float32] | None,
        frame_of: NDArray[np.int32] | None,
        bucket: int,
        flip: bool,
        graph: Graph | None,
        joints: NDArray[np.float32] | None,
        seconds: float,
        then: Graph | None = None,
    ) -> int:
        """A `FlightStatus`. Frames are arrays of the host, or records of the device. `then` is launched behind."""
        ...

    def set_room(self, staging: int, device: int, size_bytes: int) -> None: ...

    def set_costs(self, costs: tuple[float, float, float, float, float, float]) -> None: ...

    def bad_box(self) -> tuple[int, int]:
        """Fault and row of the box that ended the last call."""
        ...

    def wanted(self) -> tuple[int, bool]:
        """Bytes that the last call needs, and whether the host packs some of them."""
        ...

    def spent_ms(self) -> tuple[float, float, float, float]:
        """Bringing, launching, waiting, collecting."""
        ...

    def ways(self) -> int:
        """How the last call's frames were moved, as bits."""
        ...


class Kernels(Protocol):
    """The device's side of a frame besides the plan."""

    def crop(self, out: int, frames: int, affines: int, count: int, work: CropWork, stream: int) -> None:
        """Crops into `out` (N x 3 x h x w). `frames`: where a frame record for each lies, which the device can read."""
        ...

    def decode(
        self,
        out: int,  # N x K x C float32
        logits: tuple[int, ...],  # N x K x Wx, N x K x Hy and, with a third axis, N x K x Wz
        mirrored: tuple[int, ...] | None,  # the same of the mirrored crops
        partner: int,  # K int32
        affines: int,  # N x 2 x 3 float32
        count: int,
        work: DecodeWork,
        stream: int,
    ) -> None:
        """Joints in frame pixels."""
        ...

    def detections(
        self,
        found: FoundAt,
        outputs: tuple[OutputTable, ...],  # boxes, scores and, where there are any, labels
        work: DetectWork,
        place: int,  # 6 float32: scale and shift of x, of y, the frame's width and height
        crops: CropsAt | None,
        stream: int,
    ) -> None:
        """The persons that a detector's outputs tell of."""
        ...

    def flight(
        self, records: int, affines: int, joints: int, sizes: tuple[int, ...], padding: float, nv12: bool,
        shares_memory: bool, stream: int,
    ) -> Flight:  # fmt: skip
        """For a lane whose parameters and results lie here. `sizes`: largest batch, numbers a person, h, w."""
        ...

    def mark(self, stream: int) -> Mark:
        """What `stream` was given until now, for other streams to wait for on the device."""
        ...

    def finished(self, stream: int, seconds: float) -> bool:
        """Whether the work on `stream` ends within so many seconds; other Python threads run meanwhile."""
        ...

    def mapped(self, host: int, size_bytes: int) -> int:
        """The device's address of page-locked host memory, whoever locked it; 0 for pageable memory."""
        ...

    def begin_capture(self, stream: int) -> None: ...

    def end_capture(self, stream: int) -> Graph:
        """What was put on `stream` since, as an executable graph. DeviceError when the capture broke."""
        ...

    def abort_capture(self, stream: int) -> None:
        """End a capture and throw it away, whatever its state."""
        ...


class NativeKernels:
    """The CUDA half of `sdk._native`. MissingDependencyError says how to get it where it was not built."""

    def __init__(self) -> None:
        from sdk import ops

        self._cuda: Any = ops.cuda_half()

    def crop(self, out: int, frames: int, affines: int, count: int, work: CropWork, stream: int) -> None:
        size_hw, normal = (work.height, work.width), (work.scale, work.bias)
        flags = (work.swap_channels, work.half, work.nv12)
        self._call(
            self._cuda.crop, out, frames, affines, count, *size_hw, *normal, *flags, work.yuv, stream, work.border
        )

    def decode(
        self,
        out: int,
        logits: tuple[int, ...],
        mirrored: tuple[int, ...] | None,
        partner: int,
        affines: int,
        count: int,
        work: DecodeWork,
        stream: int,
    ) -> None:
        sizes = (count, work.joints, work.x_bins, work.y_bins, work.split_ratio)
        rules = (work.score, work.refine, work.half)
        flip = () if mirrored is None else (*mirrored[:2], partner, int(work.flip_shift))
        more: dict[str, Any] = {}
        if work.z_bins:
            z = {"z": logits[2], "z_bins": work.z_bins, "depth": work.depth}
            more = z if mirrored is None else {**z, "mirrored_z": mirrored[2]}
        if work.spread is not None:
            more = {**more, "spread": work.spread, "second": work.second}
        self._call(self._cuda.decode, out, *logits[:2], affines, *sizes, *rules, stream, *flip, **more)

    def detections(
        self,
        found: FoundAt,
        outputs: tuple[OutputTable, ...],
        work: DetectWork,
        place: int,
        crops: CropsAt | None,
        stream: int,
    ) -> None:
        boxes, scores, labels = (*outputs, None)[:3]
        limits = (work.threshold, work.iou, work.most)
        rules = (work.rules, work.size_hw)
        self._call(self._cuda.detections, found, boxes, scores, labels, *rules, place, *limits, crops, stream)

    def flight(
        self, records: int, affines: int, joints: int, sizes: tuple[int, ...], padding: float, nv12: bool,
        shares_memory: bool, stream: int,
    ) -> Flight:  # fmt: skip
        made: Flight = self._call(
            self._cuda.Flight, records, affines, joints, *sizes, padding, nv12, shares_memory, stream
        )
        return made

    def mark(self, stream: int) -> Mark:
        mark: Mark = self._call(self._cuda.mark, stream)
        return mark

    def finished(self, stream: int, seconds: float) -> bool:
        return bool(self._call(self._cuda.finished, stream, seconds))

    def mapped(self, host: int, size_bytes: int) -> int:
        return int(self._cuda.mapped(host, size_bytes))

    def begin_capture(self, stream: int) -> None:
        self._call(self._cuda.graph_begin, stream)

    def end_capture(self, stream: int) -> Graph:
        graph: Graph = self._call(self._cuda.graph_end, stream)
        return graph

    def abort_capture(self, stream: int) -> None:
        self._call(self._cuda.graph_abort, stream)

    @staticmethod
    def _call(call: Any, *arguments: Any, **more: Any) -> Any:
        try:
            return call(*arguments, **more)
        except RuntimeError as error:  # how the extension tells what CUDA answered
            raise DeviceError(str(error)) from error

"""A lane's detector: a frame in, the boxes of its persons out, as one CUDA graph on the lane's own stream.

letterbox -> plan -> boxes (cpp_ext/cuda/detections.cu) -> download. The crops of these boxes, as the pose network takes
them, stay on the device, where the pose graph that is launched behind reads them. How large its batch is has to be said
before anybody knows how many persons there are: rows without one look at no frame.

    program = finder_program(engine, loaded, "bgr", graphs=True)
    finder = finder_on(lane, program, CropSizes(16, 256, 192, 1.25))
    if finder.fly(frame, launches=True, then=pose_graph) == FlightStatus.DONE:       # once it is warm
        boxes, scores = finder.found()
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdk import trt
from sdk.detection import letterbox
from sdk.detector_recipe import DetectorRecipe
from sdk.errors import EngineError
from sdk.manifest import DetectorEngine
from sdk.ops_detections import MOST, NUMBERS, OutputTable, detection_rules, output_table
from sdk.runtime.cuda.context import never_freed
from sdk.runtime.cuda.kernels import PLACE_BYTES, CropsAt, CropWork, DetectWork, FoundAt, Graph, crop_work
from sdk.runtime.cuda.lanes import LOOK_S, Lane, prepared
from sdk.runtime.cuda.loaded_plan import LoadedPlan
from sdk.runtime.cuda.memory import PinnedArray
from sdk.runtime.cuda.planner import AFFINE_BYTES, FRAME_BYTES, affines_at, buffer_layout, crops_bytes
from sdk.runtime.cuda.upload import FrameRecord, FrameRoom, flown

__all__ = ["CropSizes", "Finder", "FinderProgram", "finder_on", "finder_program"]

Float32Array = NDArray[np.float32]
# A frame's parameters: its record, two affines of the extension's own, the letterbox's affine, and its place.
LETTERBOX_AT = FRAME_BYTES + 2 * AFFINE_BYTES
PLACE_AT = LETTERBOX_AT + AFFINE_BYTES
PARAMS_BYTES = PLACE_AT + PLACE_BYTES
# What is downloaded: the number of boxes, the boxes where 16 bytes at a time can be written, the scores.
BOXES_AT = 16
SCORES_AT = BOXES_AT + 16 * MOST
FOUND_BYTES = SCORES_AT + 4 * MOST
CANDIDATE_BYTES = 8  # of `sdk::cuda::Candidate` in cpp_ext/sdk_ops.h, a row
CORNERS = 2, 2  # of a crop that reaches from one corner of the frame to the other, so that all of it is brought


class CropSizes(NamedTuple):
    """Of the pose network that takes the persons: its largest batch, and how a box becomes a crop."""

    batch: int
    height: int
    width: int
    padding: float


@dataclass(frozen=True)
class FinderProgram:
    """What every finder of a pipeline does: the detector's recipe as work for the kernels."""

    recipe: DetectorRecipe
    loaded: LoadedPlan
    crop: CropWork
    detect: DetectWork
    graphs: bool


def finder_program(engine: DetectorEngine, loaded: LoadedPlan, pixel_format: str, *, graphs: bool) -> FinderProgram:
    """A detector's recipe as work for the kernels. EngineError for a plan that is not of this recipe."""
    recipe = engine.manifest.recipe
    _check_plan(engine, loaded.plan)
    half = any(tensor.is_input and tensor.dtype == "float16" for tensor in loaded.plan.tensors)
    crop = replace(crop_work(recipe.input, pixel_format, recipe.input.border), half=half)
    rules = detection_rules(recipe.form)
    detect = DetectWork(rules, recipe.input.size_hw, recipe.score_threshold, recipe.iou, MOST)
    return FinderProgram(recipe, loaded, crop, detect, graphs)


def finder_on(lane: Lane, program: FinderProgram, crops: CropSizes) -> Finder:
    """A finder on a lane's stream; nothing of it stays when an allocation fails. The context must be entered."""
    loaded = program.loaded
    sizes = {_buffer_of(tensor): _bytes_of(tensor) for tensor in loaded.plan.tensors}
    rows = _tables(program.recipe, loaded.plan, lambda tensor: 0)[0][1]
    sizes |= {"params": PARAMS_BYTES, "found": FOUND_BYTES, "candidates": CANDIDATE_BYTES * rows}
    sizes |= {"crops": crops_bytes(crops.batch), "activations": loaded.plan.activation_bytes}
    finder = Finder(lane.device, loaded, lane.kernels, buffer_layout(sizes), lane.time_out_s, stream=lane.stream)
    return prepared(finder, lambda made: made.prepare(program, crops))


class Finder(Lane):
    """The detector's part of one frame in flight. The device's context must be entered for every method."""

    def prepare(self, program: FinderProgram, crops: CropSizes) -> None:
        """Allocate what the host shares with the device."""
        self.program, self._crop_sizes = program, crops
        self.graph: Graph | None = None
        self.warmed = False
        self._room = FrameRoom(self.device)
        self.resources.append(self._room)
        self._params = self.pinned((PARAMS_BYTES,), "uint8", "hold a frame's parameters")
        self._letterbox = self._params.array[LETTERBOX_AT:PLACE_AT].view(np.float32).reshape(2, 3)
        self._place = self._params.array[PLACE_AT:].view(np.float32)
        self._results = self.pinned((FOUND_BYTES,), "uint8", "hold the persons found")
        block = self._results.array
        self._count = block[:4].view(np.int32)
        self._boxes = block[BOXES_AT:SCORES_AT].view(np.float32).reshape(MOST, 4)
        self._scores = block[SCORES_AT:FOUND_BYTES].view(np.float32)
        self._frame_hw = (0, 0)  # for which the parameters are written
        self._whole = np.zeros((1, 2, 3), np.float32)
        at = self._params.array.ctypes.data
        self.flight = self.kernels.flight(
            at, at + FRAME_BYTES, 0, (1, 0, *CORNERS), 1.0, program.crop.nv12, self.device.integrated,
            self.stream_handle,
        )  # fmt: skip
        self._look_s = min(LOOK_S, self.time_out_s)

    @property
    def crops(self) -> int:
        """Where the crops of the persons found lie: as the parameters of a batch of the pose network."""
        return self.address("crops")

    def fly(
        self, frame: NDArray[np.uint8] | FrameRecord, *, launches: bool, then: Graph | None = None, waits: bool = True
    ) -> int:
        """A frame's way as far as it goes: to the end of `then`, or to its launch; where nothing is launched, until the
        frame is on its way."""
        self._write_place(frame)
        graph = self.graph if launches else None
        call = ([frame], self._whole, None, None, 1, False, graph, None, self._look_s if waits else 0.0, then)
        return flown(self.device, self.flight, self._room, *call)

    def warm(self) -> None:
        """Make the graph now, of a frame that is on the device."""
        if not self.warmed:
            self.graph = self.first_run("the detector", self.enqueue, self._context(), graphs=self.program.graphs)
            self.warmed = True

    def enqueue(self) -> None:
        """From parameters to what is downloaded, step by step."""
        driver, integrated = self.device.driver, self.device.integrated
        params, found = self._shared("params", self._params), self._shared("found", self._results)
        if not integrated:
            driver.memcpy_htod_async(params, self._params.array, self.stream)
        (source,) = (tensor for tensor in self.loaded.plan.tensors if tensor.is_input)
        out = self.address(_buffer_of(source))
        self.kernels.crop(out, params, params + LETTERBOX_AT, 1, self.program.crop, self.stream_handle)
        self._context().enqueue(self.stream_handle)
        self._detect(params, found)
        if not integrated:
            driver.memcpy_dtoh_async(self._results.array, found, self.stream)

    def found(self) -> tuple[Float32Array, Float32Array]:
        """Boxes N x 4 xyxy and scores N, best first; the stream must be settled."""
        count = self._count.item(0)
        return self._boxes[:count].copy(), self._scores[:count].copy()

    def network_ms(self, repeats: int) -> list[float]:
        """Device milliseconds of the plan alone, `repeats` times."""
        return self.plan_ms(self._context(), repeats, graph=self.program.graphs)

    def free(self) -> None:
        """Free the graph before the buffers that it names."""
        graph, self.graph = self.graph, None
        if graph is not None:
            graph.destroy()
        super().free()

    def abandon(self) -> None:
        never_freed(self.graph)
        super().abandon()

    def _write_place(self, frame: NDArray[np.uint8] | FrameRecord) -> None:
        """Say where a frame lies in the detector's input, unless the frame before had its size."""
        if isinstance(frame, tuple):
            frame_hw = frame[4], frame[5]
        else:
            rows, width = frame.shape[:2]
            frame_hw = (rows * 2 // 3 if self.program.crop.nv12 else rows), width
        if frame_hw == self._frame_hw:
            return
        height, width = frame_hw
        source = self.program.recipe.input
        placed = letterbox(frame_hw, source.size_hw, source.place)
        self._frame_hw = (0, 0)  # until all is written: an interrupt leaves no half of it
        (scale_x, _, shift_x), (_, scale_y, shift_y) = placed.to_frame.tolist()
        self._place[:] = scale_x, shift_x, scale_y, shift_y, width, height
        self._letterbox[:] = placed.crop[0]
        self._whole[0, 0, 0], self._whole[0, 1, 1] = width, height
        self._frame_hw = frame_hw

    def _detect(self, params: int, found: int) -> None:
        sizes, crops = self._crop_sizes, self.crops
        affines = crops + affines_at(sizes.batch)
        mirrored = affines + sizes.batch * AFFINE_BYTES
        found_at = FoundAt(found, found + BOXES_AT, found + SCORES_AT, self.address("candidates"))
        crops_at = CropsAt(crops, affines, mirrored, sizes.batch, params, sizes.height, sizes.width, sizes.padding)
        tables = _tables(self.program.recipe, self.loaded.plan, lambda tensor: self.address(_buffer_of(tensor)))
        self.kernels.detections(found_at, tables, self.program.detect, params + PLACE_AT, crops_at, self.stream_handle)

    def _shared(self, name: str, pinned: PinnedArray) -> int:
        """Where the device has what the host writes or reads: on a Jetson in the host's own memory."""
        return pinned.device_pointer if self.device.integrated else self.address(name)

    def _context(self) -> trt.Context:
        context = self.context_for(1)
        for tensor in self.loaded.plan.tensors:
            context.set_address(tensor.name, self.address(_buffer_of(tensor)))
        return context


def _check_plan(engine: DetectorEngine, plan: trt.Plan) -> None:
    """EngineError unless the plan has the recipe's tensors, and all of one size whatever the frame."""
    recipe, there = engine.manifest.recipe, {tensor.name: tensor for tensor in plan.tensors}
    size, numbers = (3, *recipe.input.size_hw), tuple(map(str, NUMBERS))
    for name in dict.fromkeys((recipe.input.name, *recipe.outputs, *there)):
        tensor, rule = there.get(name), f"of {', '.join(numbers)}, and of one size for all frames"
        fits = tensor is not None and tensor.dtype in numbers and -1 not in tensor.shape[1:]
        if name == recipe.input.name:
            rule = f"float32 or float16, 1 x {' x '.join(map(str, size))}"
            fits = tensor is not None and tensor.dtype in ("float32", "float16") and tensor.shape[1:] == size
        if not fits:
            got = "absent" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
            raise EngineError(
                f"engine '{engine.folder}': tensor '{name}' of its plan must be {rule} (got {got}); build the engine "
                "again, or give Detector(folder) as the detector, which runs its graph on the CPU"
            )


def _buffer_of(tensor: trt.Tensor) -> str:
    """What a tensor's buffer is called, beside our own ones."""
    return f"tensor {tensor.name}"


def _bytes_of(tensor: trt.Tensor) -> int:
    return prod(tensor.shape[1:]) * np.dtype(tensor.dtype).itemsize


def _tables(recipe: DetectorRecipe, plan: trt.Plan, address: Callable[[trt.Tensor], int]) -> tuple[OutputTable, ...]:
    """The form's parts in the plan's outputs."""
    form, tensors = recipe.form, {tensor.name: tensor for tensor in plan.tensors}
    parts = [form.boxes, form.scores] if form.label is None else [form.boxes, form.scores, form.label]
    named = [(part, tensors[recipe.outputs[part.output]]) for part in parts]
    return tuple(output_table(part, address(each), each.shape, each.dtype) for part, each in named)

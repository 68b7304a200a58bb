"""Person detectors from ONNX files, on ONNX Runtime: RTMDet and YOLOX, told apart by the shapes of their outputs.

A detector serves `PoseEstimator(boxes=None)`; any callable frame -> (boxes, scores) does as well. None ships.

    detect = Detector("rtmdet-nano-person.onnx")
    boxes_xyxy, scores = detect(frame_bgr)              # N x 4 frame pixels, N; best first
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sdk.errors import GraphError, InputError
from sdk.people.tracking import box_iou
from sdk.reading import kind_of
from sdk.runtime.frames import check_frame
from sdk.runtime.ort_session import onnxruntime_run, onnxruntime_session

__all__ = ["Detector", "Kind", "decode_yolox", "suppress"]

Float32Array = NDArray[np.float32]
Kind = Literal["auto", "rtmdet", "yolox", "yolox-nms"]

RTMDET_MEAN = np.array((103.53, 116.28, 123.675), np.float32)  # BGR
RTMDET_STD = np.array((57.375, 57.12, 58.395), np.float32)
YOLOX_STRIDES = (8, 16, 32)
LETTERBOX_GREY = 114
FREE_SIZE_HW = (320, 320)
NMS_IOU = 0.65  # as both detectors' own test settings have it (RTMDet 0.6, YOLOX 0.65)


@dataclass(frozen=True)
class _Family:
    normalise: bool
    raw: bool  # an undecoded grid, without NMS


FAMILIES = {
    "rtmdet": _Family(normalise=True, raw=False),
    "yolox": _Family(normalise=False, raw=True),
    "yolox-nms": _Family(normalise=False, raw=False),
}
FORMS = {True: "one output M x (5 + classes)", False: "outputs N x 5 and labels"}  # by _Family.raw


class Detector:
    """Persons in a frame.

    `kind` 'auto' knows RTMDet (`dets` N x 5 and `labels`, its NMS inside) from YOLOX (one undecoded grid). A YOLOX
    exported with its NMS inside has RTMDet's outputs but takes grey levels as they are: name it 'yolox-nms'.
    `size_hw` is for files of free input size; 320x320 is what the nano detectors are trained for.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        kind: Kind = "auto",
        score_threshold: float = 0.3,
        person_class: int = 0,
        size_hw: tuple[int, int] | None = None,
        threads: int | None = None,
    ) -> None:
        if kind_of(Path(path), "detector", InputError) != "file":
            raise InputError(f"detector '{path}' does not exist; give the path of an RTMDet or YOLOX ONNX file")
        if kind not in ("auto", *FAMILIES):
            raise InputError(f"detector kind must be 'auto', {', '.join(map(repr, FAMILIES))} (got {kind!r})")
        _check_options(score_threshold, person_class, size_hw)
        self.path = Path(path)
        self.score_threshold = score_threshold
        self.person_class = person_class
        self._session: Any = onnxruntime_session(path, threads)
        self._input = _picture_input(self._session, self.path)
        self.size_hw = _size_hw_of(self._input, size_hw, self.path)
        blank = self._run(np.zeros((1, 3, *self.size_hw), np.float32))
        self.kind = _kind_of(self._session, blank, kind, self.path)
        self._family = FAMILIES[self.kind]
        if self._family.raw:
            _check_class(person_class, blank[0].shape[-1] - 5, self.path)
            self._raw_persons(blank)  # refuses a grid of other strides

    def __call__(self, frame: object) -> tuple[Float32Array, Float32Array]:
        """Boxes N x 4 xyxy in frame pixels, clipped to the frame, and scores N; best first."""
        pixels = check_frame(frame)
        blob, ratio = self._letterboxed(pixels)
        outputs = self._run(blob)
        boxes, scores = self._raw_persons(outputs) if self._family.raw else self._persons(outputs)
        keep = scores >= self.score_threshold
        boxes, scores = suppress(boxes[keep], scores[keep], NMS_IOU)
        height, width = pixels.shape[:2]
        boxes = np.clip(boxes / np.float32(ratio), 0, np.array([width, height] * 2, np.float32))
        real = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        return boxes[real].astype(np.float32), scores[real].astype(np.float32)

    def _run(self, blob: Float32Array) -> list[Any]:
        return onnxruntime_run(self._session, None, {self._input.name: blob}, self.path)

    def _letterboxed(self, frame: NDArray[np.uint8]) -> tuple[Float32Array, float]:
        """1 x 3 x h x w float32, the frame scaled into the top left, and frame -> input pixels."""
        import cv2

        height, width = self.size_hw
        ratio = min(height / frame.shape[0], width / frame.shape[1])
        inner = max(1, round(frame.shape[1] * ratio)), max(1, round(frame.shape[0] * ratio))
        canvas = np.full((height, width, 3), LETTERBOX_GREY, np.uint8)
        canvas[: inner[1], : inner[0]] = cv2.resize(frame, inner, interpolation=cv2.INTER_LINEAR)
        blob = canvas.astype(np.float32)
        if self._family.normalise:
            blob = (blob - RTMDET_MEAN) / RTMDET_STD
        return np.ascontiguousarray(blob.transpose(2, 0, 1)[None]), ratio

    def _persons(self, outputs: list[Any]) -> tuple[Float32Array, Float32Array]:
        dets = next(o for o in outputs if o.shape[-1] == 5 and o.ndim >= 2).reshape(-1, 5)
        labels = next((o for o in outputs if np.issubdtype(o.dtype, np.integer)), np.zeros(len(dets), np.int64))
        mine = dets[labels.reshape(-1) == self.person_class]
        return mine[:, :4], mine[:, 4]

    def _raw_persons(self, outputs: list[Any]) -> tuple[Float32Array, Float32Array]:
        return decode_yolox(outputs[0].reshape(-1, outputs[0].shape[-1]), self.size_hw, self.person_class)


def decode_yolox(
    grid: Float32Array,  # M x (5 + classes): cx, cy, log w, log h, objectness, classes; cells of all strides in a row
    size_hw: tuple[int, int],
    person_class: int = 0,
) -> tuple[Float32Array, Float32Array]:
    """M x 4 xyxy in input pixels, and M scores: objectness times class."""
    cells, strides = [], []
    for stride in YOLOX_STRIDES:
        rows, columns = np.mgrid[: size_hw[0] // stride, : size_hw[1] // stride]
        cells.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        strides.append(np.full((rows.size, 1), stride))
    cell, stride_px = np.concatenate(cells), np.concatenate(strides)
    if len(cell) != len(grid):
        raise GraphError(f"a YOLOX grid for {size_hw} must have {len(cell)} rows (got {len(grid)})")
    centre = (grid[:, :2] + cell) * stride_px
    half = np.exp(grid[:, 2:4]) * stride_px / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)
    return boxes, (grid[:, 4] * grid[:, 5 + person_class]).astype(np.float32)


def suppress(
    boxes: Float32Array,  # N x 4 xyxy
    scores: Float32Array,  # N
    iou: float,
) -> tuple[Float32Array, Float32Array]:
    """Greedy non-maximum suppression: the boxes and scores that stay, best first."""
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order], scores[order]
    keep = np.ones(len(boxes), bool)
    for row in range(len(boxes)):
        if keep[row]:
            keep[row + 1 :] &= box_iou(boxes[row : row + 1], boxes[row + 1 :])[0] < iou
    return boxes[keep], scores[keep]


def _check_options(score_threshold: object, person_class: object, size_hw: object) -> None:
    """InputError for what no detector takes, whatever its file."""
    if not isinstance(score_threshold, (int, float, np.number)) or not 0 <= score_threshold <= 1:
        raise InputError(f"score_threshold must be in 0..1 (got {score_threshold!r})")
    if not _is_whole(person_class, 0):
        raise InputError(f"person_class must be the number of a class, from 0 on (got {person_class!r})")
    sides = size_hw if isinstance(size_hw, (tuple, list)) else ()
    if size_hw is not None and (len(sides) != 2 or not all(_is_whole(side, 1) for side in sides)):
        raise InputError(f"size_hw must be a pair (height, width) of positive multiples of 32 (got {size_hw!r})")


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= least


def _check_class(person_class: int, classes: int, path: Path) -> None:
    if person_class >= classes:
        raise InputError(
            f"detector '{path}' knows {classes} classes, numbered from 0; person_class must be one of them "
            f"(got {person_class})"
        )


def _kind_of(session: Any, outputs: list[Any], kind: str, path: Path) -> str:
    """The family by the shapes of what a blank picture gave: what the file declares is often symbolic.

    GraphError where they are of no family, or not of the one that `kind` names.
    """
    shapes = [np.shape(output) for output in outputs]
    raw = len(shapes) == 1 and len(shapes[0]) > 1 and shapes[0][-1] > 5
    boxed = any(len(shape) > 1 and shape[-1] == 5 for shape in shapes)
    if kind == "auto" and (raw or (boxed and len(shapes) == 2)):
        return "yolox" if raw else "rtmdet"
    if kind != "auto" and (raw if FAMILIES[kind].raw else boxed):
        return kind
    found = ", ".join(f"{output.name} {shape}" for output, shape in zip(session.get_outputs(), shapes, strict=True))
    if kind == "auto":
        rule = f"is neither RTMDet ({FORMS[False]}) nor YOLOX ({FORMS[True]}): its outputs are {found}"
    else:
        rule = f"is not of the kind '{kind}' ({FORMS[FAMILIES[kind].raw]}): its outputs are {found}; try 'auto'"
    raise GraphError(f"detector '{path}' {rule}")


def _picture_input(session: Any, path: Path) -> Any:
    """The one input of the graph, 1 x 3 x h x w; GraphError for another."""
    first, *more = session.get_inputs()
    shape = first.shape
    is_picture = len(shape) == 4 and shape[1] == 3 and (shape[0] == 1 or not isinstance(shape[0], int))
    if more or not is_picture or first.type != "tensor(float)":
        got = ", ".join(f"'{tensor.name}' {tensor.type} {tensor.shape}" for tensor in (first, *more))
        raise GraphError(f"detector '{path}' must take one float32 picture, 1 x 3 x h x w (got {got})")
    return first


def _size_hw_of(tensor: Any, size_hw: tuple[int, int] | None, path: Path) -> tuple[int, int]:
    """The input size: the file's own, or for a file of free size the one asked for or FREE_SIZE_HW."""
    wanted = FREE_SIZE_HW if size_hw is None else size_hw
    sides = [side if isinstance(side, int) else want for side, want in zip(tensor.shape[2:], wanted, strict=True)]
    if size_hw is not None and tuple(sides) != tuple(size_hw):
        raise InputError(f"detector '{path}' takes {sides[0]}x{sides[1]} only (size_hw was {size_hw})")
    if any(side % 32 for side in sides):
        raise InputError(f"detector '{path}': size_hw must be positive multiples of 32 (got {tuple(sides)})")
    return sides[0], sides[1]

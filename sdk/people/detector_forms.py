"""What a person detector's graph gives and takes, told from the graph itself: shapes, metadata, runs on known pictures.

A form is a layout of outputs (`sdk.people.detector_layouts`) with the pixels that such graphs are fed with. A graph is
taken for a form where its outputs fit one alone, or where known pictures, rendered figures, tell those that fit apart:
fed as it was trained, a detector sees the figures, and fed otherwise it does not. What fits none, or fits two alike, is
refused with its shapes. An ONNX file and a graph that is made into an engine are understood alike.

    seen = GraphSeen("'det.onnx'", inputs, outputs, metadata, run)
    found = understood(seen, "auto", size_hw=(320, 320))
    found.kind, found.input, found.form                  # 'rtmdet', what it takes, what its outputs mean
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sdk import ops
from sdk.detection import Activation, DetectionForm, Place, letterbox
from sdk.detector_recipe import NMS_IOU, SCORE_THRESHOLD, DetectorInput
from sdk.errors import GraphError, InputError
from sdk.people.detector_layouts import Layout, LayoutName, best_score, columns_of, layouts, tables_of, units_of

__all__ = [
    "FORMS",
    "GraphSeen",
    "Kind",
    "TensorSeen",
    "Understood",
    "blob_of",
    "known_pictures",
    "size_of_metadata",
    "understood",
]

Array = NDArray[Any]
Triple = tuple[float, float, float]
Kind = Literal[
    "auto", "rtmdet", "yolox", "yolox-nms", "yolov5", "yolov8", "yolo-e2e", "rt-detr", "d-fine", "rf-detr", "detr"
]
SIZES = "orig_target_sizes"  # beside the picture, of RT-DETR's and D-FINE's own exports: the frame's width and height
SEEDS = (0, 1, 2, 4)  # of the known pictures: figures that both nano detectors see well
# The mean best score over these four: RTMDet-nano 0.86 as it was trained and 0.42 on plain grey levels, YOLOX-nano 0.91
# and, on RTMDet's pixels, 0.00.
CLEARLY = 1.3
LEAST_SCORE = 0.3
PERSONS = ("person", "people", "human", "pedestrian")
NOBODY = 92  # columns of DETR's own: COCO's numbers and nobody
COCO_IDS = {91: 1, NOBODY: 1}  # columns -> the person's, where they are numbered as COCO numbers its categories


@dataclass(frozen=True)
class TensorSeen:
    """A graph's input as declared; a text, or None, stands for a size that is left open."""

    name: str
    dtype: str  # as 'float32'
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class GraphSeen:
    """A graph that can be asked. `run`: inputs by name to its outputs, in the order of `outputs`."""

    subject: str
    inputs: tuple[TensorSeen, ...]
    outputs: tuple[str, ...]
    run: Callable[[Mapping[str, Array]], Sequence[Array]]
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Understood:
    """What a graph was taken for. `fed`: what it takes beside the picture, the same for every frame."""

    kind: str
    input: DetectorInput
    form: DetectionForm
    iou: float
    threshold: float
    fed: Mapping[str, Array]


@dataclass(frozen=True)
class _Pixels:
    mean: Triple
    std: Triple
    colour: Literal["rgb", "bgr"]
    place: Place


@dataclass(frozen=True)
class Form:
    """Which layouts graphs of a form have, the pixels they are fed with, and their own tools' overlap and threshold."""

    layouts: tuple[LayoutName, ...]
    pixels: _Pixels
    iou: float
    of: str  # whose graphs these are
    threshold: float = SCORE_THRESHOLD


_NONE: Triple = (0.0, 0.0, 0.0)
_RTMDET = _Pixels((103.53, 116.28, 123.675), (57.375, 57.12, 58.395), "bgr", "corner")
_YOLOX = _Pixels(_NONE, (1.0, 1.0, 1.0), "bgr", "corner")
_YOLO = _Pixels(_NONE, (255.0, 255.0, 255.0), "rgb", "centre")
_SET = _Pixels(_NONE, (255.0, 255.0, 255.0), "rgb", "stretch")
_NORMALISED = _Pixels((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "rgb", "stretch")
QUERIES: LayoutName = "boxes and scores of queries"
FORMS = {
    "rtmdet": Form(("dets and labels", "boxes and scores of cells"), _RTMDET, 0.6, "RTMDet"),
    "yolox": Form(("cells with objectness",), _YOLOX, NMS_IOU, "YOLOX", 0.25),
    "yolox-nms": Form(("dets and labels", "boxes and scores of cells"), _YOLOX, NMS_IOU, "YOLOX by MMDeploy", 0.25),
    "yolov5": Form(("anchors with objectness",), _YOLO, 0.45, "YOLOv5, v7", 0.25),
    "yolov8": Form(("cells with classes", "boxes and scores of cells"), _YOLO, 0.7, "YOLOv8, v9, 11, 12", 0.25),
    "yolo-e2e": Form(("rows of six",), _YOLO, 0.7, "YOLOv10, 26, and others with nms=True", 0.25),
    "rt-detr": Form(("queries with classes", QUERIES, "labels, boxes, scores"), _SET, NMS_IOU, "RT-DETR"),
    "d-fine": Form((QUERIES, "labels, boxes, scores"), _SET, NMS_IOU, "D-FINE, DEIM"),
    "rf-detr": Form((QUERIES,), _NORMALISED, NMS_IOU, "RF-DETR"),
    "detr": Form((QUERIES,), _NORMALISED, NMS_IOU, "DETR"),
}
ALIKE = "d-fine"  # fed and read as rt-detr: a name, which 'auto' does not need


def understood(
    seen: GraphSeen, kind: str = "auto", *, size_hw: tuple[int, int], person_class: int | None = None
) -> Understood:
    """The form of a graph: the one named, or the one told. GraphError where it is not, InputError for the class."""
    if kind not in get_args(Kind):
        raise InputError(f"detector kind must be one of {', '.join(map(repr, get_args(Kind)))} (got {kind!r})")
    asked = _Asked(seen, size_hw, person_class, named=kind != "auto")
    names = [name for name in FORMS if name != ALIKE] if kind == "auto" else [kind]
    fitting = [found for name in names for found in asked.readings(name)]
    if not fitting:
        raise GraphError(_unknown(asked, kind))
    return fitting[0] if len(fitting) == 1 else _told_apart(asked, fitting)


@lru_cache(maxsize=1)
def known_pictures() -> tuple[NDArray[np.uint8], ...]:
    """Rendered figures, 320 x 240 BGR, each a person whom detectors of persons see."""
    from sdk.media.figures import rendered_figure

    return tuple(rendered_figure(np.random.default_rng(seed), (320, 240))[0] for seed in SEEDS)


def size_of_metadata(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """The (height, width) that a graph of free size tells, as Ultralytics writes it; None where it tells none."""
    written = re.fullmatch(r"\[(\d{1,4}), (\d{1,4})\]", metadata.get("imgsz", ""))
    return (int(written[1]), int(written[2])) if written else None


def blob_of(frame: NDArray[np.uint8], source: DetectorInput) -> NDArray[np.float32]:
    """1 x 3 x h x w: a frame (H x W x 3, BGR) as the detector takes it."""
    placed = letterbox((frame.shape[0], frame.shape[1]), source.size_hw, source.place)
    blob: NDArray[np.float32] = ops.crop(
        frame, placed.crop, source.size_hw, mean=source.mean, std=source.std, channel_order=source.colour,
        border=source.border,
    )  # fmt: skip
    return blob


class _Asked:
    """A graph's answers to the known pictures, as each form would feed it, kept."""

    def __init__(self, seen: GraphSeen, size_hw: tuple[int, int], person_class: int | None, *, named: bool) -> None:
        self.seen, self.size_hw, self._named = seen, size_hw, named
        self.problems: dict[str, str] = {}  # why a form whose layout fits is none after all
        self._picture, self.fed = _inputs(seen, size_hw)
        self._person_class = person_class
        self._answers: dict[tuple[_Pixels, int], Sequence[Array]] = {}
        blank = self._run(np.zeros((1, 3, *size_hw), np.float32))
        self.shapes = [np.shape(output) for output in blank]
        self._names = {layout.name for layout in self._layouts(blank)}

    def readings(self, kind: str) -> Iterator[Understood]:
        """What the graph can be as `kind`."""
        form = FORMS[kind]
        if not self._names.intersection(form.layouts):
            return
        outputs = self.answer(form.pixels, 0)
        for layout in self._layouts(outputs):
            if layout.name in form.layouts and not (kind == "detr" and not self._named and layout.columns != NOBODY):
                found = self._reading(kind, form, layout, outputs)
                if isinstance(found, Understood):
                    yield found
                else:
                    self.problems[kind] = found

    def answer(self, pixels: _Pixels, picture: int) -> Sequence[Array]:
        """The outputs for one of the known pictures."""
        if (pixels, picture) not in self._answers:
            blob = blob_of(known_pictures()[picture], self._source(pixels))
            self._answers[pixels, picture] = self._run(blob)
        return self._answers[pixels, picture]

    def score(self, found: Understood) -> float:
        """The mean, over the known pictures, of the best score."""
        answers = [self.answer(FORMS[found.kind].pixels, picture) for picture in range(len(SEEDS))]
        return float(np.mean([best_score(outputs, found.form) for outputs in answers]))

    def _run(self, blob: Array) -> Sequence[Array]:
        return [np.asarray(output) for output in self.seen.run({self._picture.name: blob, **self.fed})]

    def _layouts(self, outputs: Sequence[Array]) -> Iterator[Layout]:
        return layouts(tables_of(outputs), self.seen.outputs, self.size_hw, named=self._named)

    def _source(self, pixels: _Pixels) -> DetectorInput:
        height, width = self.size_hw
        return DetectorInput(
            height, width, pixels.mean, pixels.std, pixels.colour, pixels.place, name=self._picture.name
        )

    def _reading(self, kind: str, form: Form, layout: Layout, outputs: Sequence[Array]) -> Understood | str:
        """The whole form of a layout, or why it is none after all."""
        boxes, scores = columns_of(outputs, layout.boxes, 4), columns_of(outputs, layout.scores, layout.columns)
        activation = _activation(kind, layout, boxes, scores)
        if activation not in get_args(Activation):
            return activation
        read = DetectionForm(
            box_form=layout.box_form, boxes=layout.boxes, scores=layout.scores, units=units_of(layout, boxes, scores),
            classes=layout.columns, person_class=self._person(layout), objectness=layout.objectness,
            label=layout.label, activation=activation,  # type: ignore[arg-type]
            suppress=layout.suppress, strides=layout.strides,
        )  # fmt: skip
        return Understood(kind, self._source(form.pixels), read, form.iou, form.threshold, self.fed)

    def _person(self, layout: Layout) -> int:
        """The class of persons: as told, by the metadata's names, by COCO's numbers, else the first."""
        person = self._person_class
        if person is None:
            names = _class_names(self.seen)
            person = next((number for number, name in names.items() if name.lower() in PERSONS), None)
        if person is None:
            person = 0 if layout.label is not None else COCO_IDS.get(layout.columns, 0)
        if layout.label is None and person >= layout.columns:
            raise InputError(
                f"detector {self.seen.subject} knows {layout.columns} classes, numbered from 0; person_class must be "
                f"one of them (got {person})"
            )
        return person


def _inputs(seen: GraphSeen, size_hw: tuple[int, int]) -> tuple[TensorSeen, dict[str, Array]]:
    """The picture's input, and what the other is fed with: the input's own size, so that boxes are in its pixels."""
    others = [tensor for tensor in seen.inputs if tensor.name == SIZES]
    pictures = [tensor for tensor in seen.inputs if tensor.name != SIZES]
    picture = pictures[0] if len(pictures) == 1 and len(pictures[0].shape) == 4 else None
    if (
        picture is None
        or picture.dtype != "float32"
        or picture.shape[1] != 3
        or picture.shape[0] not in _batches(picture)
    ):
        got = ", ".join(f"'{tensor.name}' {tensor.dtype} {list(tensor.shape)}" for tensor in seen.inputs)
        raise GraphError(
            f"detector {seen.subject} must take one float32 picture, 1 x 3 x h x w (got {got}); '{SIZES}' may stand "
            "beside it"
        )
    return picture, {tensor.name: np.array([size_hw[::-1]]).astype(tensor.dtype) for tensor in others}


def _batches(picture: TensorSeen) -> tuple[int | str | None, ...]:
    """One, or a batch that is left open."""
    first = picture.shape[0]
    return (1,) if isinstance(first, int) else (first,)


def _activation(kind: str, layout: Layout, boxes: Array, scores: Array) -> str:
    """What makes scores of the numbers, or why they are none."""
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        return "its outputs hold inf or NaN for a known picture"
    inside = not scores.size or (scores.min() >= 0 and scores.max() <= 1)
    if layout.name != QUERIES:
        return "none" if inside else f"scores must lie in 0..1 (they go from {scores.min():.3g} to {scores.max():.3g})"
    if kind == "detr":
        return "softmax" if not inside and layout.columns > 1 else "its scores must be what a softmax is taken of"
    return "none" if inside else "sigmoid"


def _class_names(seen: GraphSeen) -> dict[int, str]:
    """The names of classes that the metadata tells, as Ultralytics writes them: a Python dictionary."""
    try:
        names = ast.literal_eval(seen.metadata.get("names", "{}")[:100_000])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    return {int(key): str(name) for key, name in names.items() if type(key) is int} if isinstance(names, dict) else {}


def _told_apart(asked: _Asked, fitting: Sequence[Understood]) -> Understood:
    """The one of several that sees the known pictures clearly better, else the one that the graph's names tell."""
    scores = {found.kind: asked.score(found) for found in fitting}
    best, second, *_ = sorted(fitting, key=lambda found: -scores[found.kind])
    if scores[best.kind] >= max(LEAST_SCORE, CLEARLY * scores[second.kind]):
        return best
    named = [found for found in fitting if found.kind in _kinds_by_name(asked.seen, found)]
    if len(named) == 1:
        return named[0]
    told = ", ".join(f"'{kind}' sees the known figures with {score:.2f}" for kind, score in scores.items())
    raise GraphError(
        f"detector {asked.seen.subject} can be one of several, which its outputs ({_listed(asked)}) do not tell apart "
        f"({told}); name one of them (`sdk build-engine --form`, Detector(kind=))"
    )


def _kinds_by_name(seen: GraphSeen, found: Understood) -> tuple[str, ...]:
    """The kinds of sets whose exporters give tensors these names, and classes these numbers."""
    names = {seen.outputs[found.form.boxes.output], seen.outputs[found.form.scores.output]}
    if names == {"dets", "labels"}:
        return ("rf-detr",)
    if names == {"pred_boxes", "logits"}:
        return ("detr",) if found.form.classes == 92 else ("rt-detr",) if found.form.classes == 80 else ()
    return ()


def _unknown(asked: _Asked, kind: str) -> str:
    problems = "".join(f"; as '{name}', {problem}" for name, problem in asked.problems.items())
    outputs = f"its outputs are {_listed(asked)}{problems}"
    if kind == "auto":
        known = ", ".join(form.of for form in FORMS.values())
        return f"detector {asked.seen.subject} is of no known form ({known}): {outputs}"
    wanted = " or ".join(FORMS[kind].layouts)
    return f"detector {asked.seen.subject} is not of the kind '{kind}' ({wanted}): {outputs}; try 'auto'"


def _listed(asked: _Asked) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in zip(asked.seen.outputs, asked.shapes, strict=True))

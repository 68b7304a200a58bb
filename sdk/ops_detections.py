"""`sdk.ops.detections`: what a person detector's raw outputs say, as boxes and scores. Its code is in `cpp_ext/`.

What is computed is defined in `cpp_ext/shared/detection_math.h`; this module checks arguments, in words.

    boxes_xyxy, scores = ops.detections(
        outputs, form, to_frame=box.to_frame, size_hw=(320, 320), frame_hw=(720, 1280), score_threshold=0.3, iou=0.65
    )
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.detection import DetectionForm, Part
from sdk.errors import InputError
from sdk.in_flight import in_flight
from sdk.numeric import is_number, is_whole
from sdk.ops_arrays import MAX_SIDE, described, in_words

__all__ = ["MOST", "OutputTable", "detection_rules", "detections", "output_table"]

OutputTable = tuple[int, int, int, int, bool, int]  # `sdk::TableTuple` in cpp_ext/checks.h

BOX_FORMS = {"xyxy": 0, "cxcywh": 1, "grid": 2}
ACTIVATIONS = {"none": 0, "sigmoid": 1, "softmax": 2}
MOST = 300  # boxes of a frame, where nothing else is asked for
MAX_DETECTIONS = 1024  # `sdk::MAX_CANDIDATES` in cpp_ext/shared/detection_math.h
FLOATS = (np.dtype(np.float32), np.dtype(np.float16))
NUMBERS = (*FLOATS, np.dtype(np.int32), np.dtype(np.int64))  # in the order of `sdk::NumberType`


@in_words
def detections(
    outputs: Sequence[Any],  # of the graph, each 1 x M x C, 1 x C x M or 1 x M
    form: DetectionForm,
    *,
    to_frame: Any,  # 2 x 3 float32, input -> frame pixels, as `sdk.detection.letterbox` gives it
    size_hw: tuple[int, int],  # of the network's input
    frame_hw: tuple[int, int],
    score_threshold: float,
    iou: float,
    most: int = MOST,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Boxes n x 4 xyxy in frame pixels, clipped to the frame, and scores n; best first, of equal scores the first row.

    At most `most` persons, found among the best 1024 candidates: rows that reach the threshold and whose box in the
    frame has an area. What is not finite is no candidate. On the CPU; the CUDA half is the GPU run time's.
    """
    from sdk import _native

    if not isinstance(form, DetectionForm):
        raise InputError(f"form must be a sdk.detection.DetectionForm (got {type(form).__name__})")
    place = _checked_place(to_frame, frame_hw)
    height, width = _checked_sides("size_hw", size_hw)
    for name, value in (("score_threshold", score_threshold), ("iou", iou)):
        if not is_number(value) or not 0 <= value <= 1:
            raise InputError(f"{name} must be in 0..1 (got {value!r})")
    if not is_whole(most, 1, MAX_DETECTIONS):
        raise InputError(f"most must be a whole number, 1 to {MAX_DETECTIONS} (got {most!r})")
    at_boxes, at_scores = _checked_part(outputs, form.boxes), _checked_part(outputs, form.scores)
    at_labels = None if form.label is None else _checked_part(outputs, form.label)
    _check_rows([at_boxes, at_scores] + ([] if at_labels is None else [at_labels]), form, (height, width))
    boxes, scores, rules = np.empty((most, 4), np.float32), np.empty(most, np.float32), detection_rules(form)
    with in_flight:
        found = _native.detections(
            boxes, scores, at_boxes, at_scores, at_labels, rules, (height, width), place, score_threshold, iou
        )
    return boxes[:found].copy(), scores[:found].copy()


def detection_rules(form: DetectionForm) -> tuple[Any, ...]:
    """A form as the native ops take it: `sdk::DetectionRules` in cpp_ext/checks.h."""
    return (
        BOX_FORMS[form.box_form],
        ACTIVATIONS[form.activation],
        form.classes,
        form.person_class,
        None if form.objectness is None else form.objectness - form.scores.column,
        form.suppress,
        list(form.strides),
        form.units == "shares",
    )


def output_table(part: Part, address: int, shape: tuple[int, ...], dtype: str) -> OutputTable:
    """A part of an output in device memory, 1 x M x C, 1 x C x M or 1 x M, as the CUDA half takes it."""
    sides = shape[1:] if len(shape) == 3 else (shape[1], 1)
    rows_first = part.rows_first or len(shape) == 2
    rows, columns = sides if rows_first else sides[::-1]
    return address, rows, columns, part.column, rows_first, NUMBERS.index(np.dtype(dtype))


def _checked_place(to_frame: Any, frame_hw: tuple[int, int]) -> tuple[float, float, float, float, float, float]:
    """Scale and shift along x, then along y, then the frame's width and height."""
    affine = np.asarray(to_frame, np.float32)
    height, width = _checked_sides("frame_hw", frame_hw)
    if affine.shape != (2, 3) or affine[0, 1] or affine[1, 0] or not np.isfinite(affine).all():
        raise InputError(
            "to_frame must be 2 x 3, input -> frame pixels, finite and without rotation, as `sdk.detection.letterbox` "
            f"gives it (got {np.asarray(to_frame).tolist()})"
        )
    (scale_x, _, shift_x), (_, scale_y, shift_y) = affine.tolist()
    return scale_x, shift_x, scale_y, shift_y, float(width), float(height)


def _checked_sides(name: str, sides: tuple[int, int]) -> tuple[int, int]:
    height, width = sides
    if not all(is_whole(side, 1, MAX_SIDE) for side in (height, width)):
        raise InputError(f"{name} must be a height and a width, 1 to {MAX_SIDE} pixels (got {sides})")
    return height, width


def _checked_part(outputs: Sequence[Any], part: Part) -> tuple[NDArray[Any], int, bool]:
    """A part's output as a table, its first column, and whether rows come first."""
    if part.output >= len(outputs):
        raise InputError(f"outputs must hold output {part.output}, which the form names (got {len(outputs)} outputs)")
    array = outputs[part.output]
    if (
        not isinstance(array, np.ndarray)
        or array.ndim not in (2, 3)
        or array.shape[0] != 1
        or array.dtype not in NUMBERS
    ):
        raise InputError(
            f"output {part.output} must be a numpy array, 1 x M x C, 1 x C x M or 1 x M, of float32, float16, int32 or "
            f"int64 (got {described(array)})"
        )
    if array.ndim == 2:
        return np.ascontiguousarray(array[0, :, None]), part.column, True
    return np.ascontiguousarray(array[0]), part.column, part.rows_first


def _check_rows(parts: list[tuple[NDArray[Any], int, bool]], form: DetectionForm, size_hw: tuple[int, int]) -> None:
    """That all parts have the same rows, those of the grid, and the columns that the form reads."""
    rows = [array.shape[0 if rows_first else 1] for array, _, rows_first in parts]
    if len(set(rows)) > 1:
        raise InputError(f"boxes, scores and labels must have the same rows (got {', '.join(map(str, rows))})")
    needed = (4, form.classes, 1)
    for name, (array, column, rows_first), columns in zip(("boxes", "scores", "labels"), parts, needed, strict=False):
        there = array.shape[1 if rows_first else 0]
        if column + columns > there:
            raise InputError(
                f"the output of {name} must have columns {column} to {column + columns - 1} (got {there} columns)"
            )
        if name != "labels" and array.dtype not in FLOATS:
            raise InputError(f"the output of {name} must be float32 or float16 (got {array.dtype})")
        if name == "scores" and form.objectness is not None and form.objectness >= there:
            raise InputError(f"objectness must be a column of the scores' output (got {form.objectness} of {there})")
    if form.box_form == "grid":
        cells = sum((size_hw[0] // stride) * (size_hw[1] // stride) for stride in form.strides)
        if cells != rows[0]:
            raise InputError(
                f"a grid of strides {form.strides} for an input of {size_hw[0]} x {size_hw[1]} must have {cells} rows "
                f"(got {rows[0]})"
            )

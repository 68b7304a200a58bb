"""How a detector's outputs can be read, by their shapes and, where shapes leave it open, by their values.

A layout says where boxes, scores and labels lie and in which numbers boxes are told. Whose graphs have it, and what
they are fed with, is `sdk.people.detector_forms`' work.

    for layout in layouts(tables, names, size_hw=(640, 640)): layout.name, layout.boxes, layout.scores
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sdk.detection import Activation, BoxForm, DetectionForm, Part, Units

__all__ = ["Layout", "LayoutName", "best_score", "columns_of", "layouts", "tables_of", "units_of"]

Array = NDArray[Any]
LayoutName = Literal[
    "dets and labels",  # N x 5 and N, after NMS
    "boxes and scores of cells",  # M x 4 and M x C
    "cells with objectness",  # M x (5 + C): YOLOX
    "cells with classes",  # (4 + C) x M, or M x (4 + C): YOLOv8
    "anchors with objectness",  # 3 M x (5 + C): YOLOv5
    "rows of six",  # N x (x1, y1, x2, y2, score, label)
    "queries with classes",  # N x (4 + C)
    "boxes and scores of queries",  # N x 4 and N x C
    "labels, boxes, scores",  # N, N x 4 and N
]
STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
ANCHORS = 3
MOST_QUERIES = 1000  # of a set of boxes, or of rows after NMS; a grid of 320 x 320 has 2,100 cells
NEAR = 8.0  # cells: from its own centre, a box's is this near in the median, or its numbers are no boxes of cells
ORDERED = 0.99  # of the rows: then their numbers are corners
OF_QUERIES = ("queries with classes", "boxes and scores of queries")
SHARES = 1.5  # shares of the input go a little beyond 1; pixels far beyond
SEEN = 0.05  # the score of a row that says something


@dataclass(frozen=True)
class Layout:
    """A reading of the outputs: a `DetectionForm` but for units, classes and activation. `columns`: of scores."""

    name: LayoutName
    box_form: BoxForm
    boxes: Part
    scores: Part
    columns: int
    objectness: int | None = None
    label: Part | None = None
    suppress: bool = True
    strides: tuple[int, ...] = ()


def tables_of(outputs: Sequence[Array]) -> list[Array | None]:
    """Each output without its batch of one: a column M, a table M x C; None for what is neither."""
    arrays = [np.asarray(output) for output in outputs]
    return [array[0] if array.ndim in (2, 3) and len(array) == 1 else None for array in arrays]


def layouts(
    tables: Sequence[Array | None], names: Sequence[str], size_hw: tuple[int, int], *, named: bool = False
) -> Iterator[Layout]:
    """Every layout that the outputs fit. `named`: what the graph is was told, so that its outputs' order counts too."""
    wide = [(place, table) for place, table in enumerate(tables) if table is not None and table.ndim == 2]
    flat = [(place, table) for place, table in enumerate(tables) if table is not None and table.ndim == 1]
    if len(wide) == 1 and not flat:
        yield from _of_one_table(*wide[0], size_hw)
    if len(wide) == 2 and not flat:
        yield from _of_two_tables(wide, size_hw)
    if len(wide) == 1 and len(flat) == 1:
        yield from _of_table_and_column(wide[0], flat[0], size_hw)
    if len(wide) == 1 and len(flat) == 2:
        yield from _of_table_and_columns(wide[0], flat, names, named=named)


def columns_of(outputs: Sequence[Array], part: Part, count: int) -> Array:
    """M x count: the columns of a part."""
    table = np.asarray(outputs[part.output])[0]
    table = table[:, None] if table.ndim == 1 else table if part.rows_first else table.T
    return np.asarray(table[:, part.column : part.column + count])


def units_of(layout: Layout, boxes: Array, scores: Array) -> Units:  # M x 4, M x C
    """Whether boxes are told in pixels or in shares of the input."""
    if layout.box_form == "grid":
        return "pixels"
    sized = (boxes[:, 2:] > (boxes[:, :2] if layout.box_form == "xyxy" else 0)).all(axis=1)
    rows = (scores >= SEEN).any(axis=1) | layout.suppress | (layout.name in OF_QUERIES)
    telling = boxes[sized & rows]
    if not len(telling):
        return "shares" if layout.box_form == "cxcywh" else "pixels"
    return "shares" if telling.max() <= SHARES else "pixels"


def best_score(outputs: Sequence[Array], form: DetectionForm) -> float:
    """The highest score of a person, 0 where there is none."""
    scores = columns_of(outputs, form.scores, form.classes).astype(np.float64)
    mine = _activated(scores, form.activation)[:, 0 if form.label is not None else form.person_class]
    if form.objectness is not None:
        object_part = Part(form.scores.output, form.objectness, form.scores.rows_first)
        mine = mine * _activated(columns_of(outputs, object_part, 1), form.activation)[:, 0]
    if form.label is not None:
        mine = mine[columns_of(outputs, form.label, 1)[:, 0] == form.person_class]
    return float(mine.max(initial=0.0))


def _of_one_table(place: int, table: Array, size_hw: tuple[int, int]) -> Iterator[Layout]:
    rows, columns = table.shape
    strides, flipped, anchored = (_strides_of(count, size_hw) for count in (rows, columns, rows / ANCHORS))
    boxes = Part(place)
    if strides and columns >= 5:
        decoded = _is_decoded(table[:, :2], size_hw, strides)
        if columns >= 6:
            kind: BoxForm = "cxcywh" if decoded else "grid"
            yield Layout(
                "cells with objectness", kind, boxes, Part(place, 5), columns - 5, objectness=4,
                strides=() if decoded else strides,
            )  # fmt: skip
        if decoded:
            yield Layout("cells with classes", "cxcywh", boxes, Part(place, 4), columns - 4)
    elif flipped and rows >= 5:
        yield Layout("cells with classes", "cxcywh", Part(place, 0, False), Part(place, 4, False), rows - 4)
    elif anchored and columns >= 6:
        yield Layout("anchors with objectness", "cxcywh", boxes, Part(place, 5), columns - 5, objectness=4)
    elif rows <= MOST_QUERIES and columns == 6 and (_is_whole(table[:, 5]) or table.min() == table.max()):
        yield Layout("rows of six", "xyxy", boxes, Part(place, 4), 1, label=Part(place, 5), suppress=False)
    elif rows <= MOST_QUERIES and columns >= 5:
        yield Layout("queries with classes", "cxcywh", boxes, Part(place, 4), columns - 4, suppress=False)


def _of_two_tables(wide: Sequence[tuple[int, Array]], size_hw: tuple[int, int]) -> Iterator[Layout]:
    for (place, boxes), (other, scores) in (wide, wide[::-1]):
        rows = len(boxes)
        if boxes.shape[1] != 4 or rows not in scores.shape:
            continue
        rows_first = len(scores) == rows
        columns = scores.shape[1] if rows_first else len(scores)
        kind: BoxForm = "xyxy" if _is_ordered(boxes) else "cxcywh"
        if _strides_of(rows, size_hw):
            yield Layout("boxes and scores of cells", kind, Part(place), Part(other, 0, rows_first), columns)
        elif rows <= MOST_QUERIES and rows_first:
            yield Layout(
                "boxes and scores of queries", kind, Part(place), Part(other), columns, suppress=False
            )  # fmt: skip


def _of_table_and_column(
    wide: tuple[int, Array], flat: tuple[int, Array], size_hw: tuple[int, int]
) -> Iterator[Layout]:
    (place, table), (other, column) = wide, flat
    if len(table) != len(column):
        return
    if table.shape[1] == 5 and (column.dtype.kind in "iu" or _is_whole(column)):
        yield Layout("dets and labels", "xyxy", Part(place), Part(place, 4), 1, label=Part(other))
    elif table.shape[1] == 4 and column.dtype.kind == "f":
        kind: BoxForm = "xyxy" if _is_ordered(table) else "cxcywh"
        if _strides_of(len(table), size_hw):
            yield Layout("boxes and scores of cells", kind, Part(place), Part(other), 1)
        elif len(table) <= MOST_QUERIES:
            yield Layout("boxes and scores of queries", kind, Part(place), Part(other), 1, suppress=False)


def _of_table_and_columns(
    wide: tuple[int, Array], flat: Sequence[tuple[int, Array]], names: Sequence[str], *, named: bool
) -> Iterator[Layout]:
    """Labels are told from scores by their type, else by their name, else by being whole where the others are not.

    RT-DETR's and D-FINE's own exports give labels first: enough where the graph is told to be one.
    """
    place, table = wide
    if table.shape[1] != 4 or any(len(column) != len(table) for _, column in flat):
        return
    tests: tuple[Callable[[int, Array], bool], ...] = (
        lambda at, column: column.dtype.kind in "iu",
        lambda at, column: any(word in names[at].lower() for word in ("label", "class")),
        lambda at, column: len(column) > 0 and _is_whole(column),
        lambda at, column: named and at == flat[0][0],
    )
    for is_label in tests:
        labels = [at for at, column in flat if is_label(at, column)]
        if len(labels) == 1:
            (scores,) = (at for at, _ in flat if at != labels[0])
            kind: BoxForm = "xyxy" if _is_ordered(table) else "cxcywh"
            yield Layout(
                "labels, boxes, scores", kind, Part(place), Part(scores), 1, label=Part(labels[0]), suppress=False
            )
            return


def _strides_of(rows: float, size_hw: tuple[int, int]) -> tuple[int, ...]:
    """The strides whose grids have so many cells together; none where no known ones have."""
    height, width = size_hw
    for strides in STRIDES:
        divides = height % strides[-1] == width % strides[-1] == 0
        if divides and rows == sum((height // stride) * (width // stride) for stride in strides):
            return strides
    return ()


def _is_decoded(centres: Array, size_hw: tuple[int, int], strides: tuple[int, ...]) -> bool:
    """Whether the first two columns are pixels, near each row's own cell, rather than offsets from it in cells."""
    from_cell, from_zero = [], []
    first = 0
    for stride in strides:
        rows, columns = np.mgrid[: size_hw[0] // stride, : size_hw[1] // stride]
        cells = np.stack([columns.ravel(), rows.ravel()], axis=1)
        mine = centres[first : first + len(cells)]
        first += len(cells)
        from_cell.append(np.abs(mine / stride - cells - 0.5))
        from_zero.append(np.abs(mine))
    return float(np.median(np.concatenate(from_cell))) < min(NEAR, float(np.median(np.concatenate(from_zero))))


def _is_ordered(boxes: Array) -> bool:
    """Whether rows are corners: those that are not empty, and of them nearly all."""
    told = boxes[boxes.any(axis=1)]
    return bool((told[:, 2:] > told[:, :2]).all(axis=1).mean() >= ORDERED) if len(told) else True


def _is_whole(column: Array) -> bool:
    return bool((column == np.rint(column)).all())


def _activated(scores: Array, activation: Activation) -> Array:
    if activation == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-np.clip(scores, -60, 60))))
    if activation == "softmax":
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    return scores

"""Entries that files tell of: lists in text, CSV or Parquet, read as they are asked for, and COCO annotations.

A text list has a path or an address a line. CSV and Parquet have a column of them (`path`, or another of PATH_COLUMNS,
or the one that is asked for) and, if wanted, columns x1, y1, x2, y2 and score: a box a row, those of one picture one
after the other; a row with an empty x1 says that the picture has none. Of COCO annotations the boxes of single persons
count.

    for entry in entries_from_list("list.parquet", root=None, path_column=None): ...
    for entry in entries_from_annotations("person_keypoints_val2017.json", root="val2017"): ...
"""

from __future__ import annotations

import io
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from sdk.errors import InputError, MissingDependencyError
from sdk.geometry import check_boxes
from sdk.media.boxfile import BoxFile, boxes_from_file
from sdk.reading import csv_from_lines
from sdk.scale.entries import Entry, Row
from sdk.scale.stores import is_url, opened, shown, told
from sdk.wording import counted

__all__ = ["LIST_SUFFIXES", "PATH_COLUMNS", "entries_from_annotations", "entries_from_list", "told_boxes"]

log = logging.getLogger(__name__)
LIST_SUFFIXES = frozenset({".txt", ".lst", ".csv", ".parquet"})
PATH_COLUMNS = ("path", "file", "file_name", "filename", "source", "url", "image")
BOX_COLUMNS = ("x1", "y1", "x2", "y2")
ROWS_AT_A_TIME = 4096
NAMED = 5  # bad rows of a boxes file that are told one by one
Line = tuple[int, Mapping[str, Any]]


def entries_from_list(place: str, root: str | None, path_column: str | None) -> Iterator[Entry]:
    """The pictures that a list names, each with its boxes where the list has them. InputError names list and row."""
    base = root if root is not None else _folder_of(place)
    try:
        with opened(place) as file:
            columns, lines = _table(place, file, path_column)
            yield from _entries(place, columns, lines, base)
    except OSError as error:
        raise InputError(f"list '{shown(place)}' cannot be read ({told(error)}); check the path") from error


def entries_from_annotations(place: str, root: str | None) -> Iterator[Entry]:
    """The pictures of COCO annotations, with their ids and the boxes of single persons; one without has no box."""
    if is_url(place):
        raise InputError(f"annotations '{shown(place)}' must be a local file; copy it first")
    table = told_boxes(Path(place))
    if not table.image_ids or any(key.startswith("#") for key in table.known):
        raise InputError(f"'{place}' is no COCO annotations with a table of images; give results with --boxes")
    base = root if root is not None else _folder_of(place)
    for name in sorted(table.known, key=lambda name: table.image_ids[name]):
        boxes = tuple(table.rows.get((name, 0), []))
        yield Entry("picture", _joined(base, name), boxes=boxes, image_id=table.image_ids[name])


def told_boxes(path: Path, *, score_threshold: float = 0.0) -> BoxFile:
    """The boxes of a file; how it was taken, and which of its rows are left out since they are no boxes, in the log."""
    boxes = boxes_from_file(path, score_threshold=score_threshold)
    for remark in boxes.remarks:
        log.warning("boxes file '%s': %s", path, remark)
    reasons = list(chain.from_iterable(boxes.refused.values()))
    for reason in reasons[:NAMED]:
        log.warning("%s; the row is left out", reason)
    if reasons:
        log.warning("%s of '%s' left out: no box", counted(len(reasons), "row"), path)
    return boxes


def _table(place: str, file: Any, path_column: str | None) -> tuple[tuple[str, ...], Iterator[Line]]:
    """(the column of paths and those of boxes that there are, numbered rows)."""
    subject = f"list '{shown(place)}'"
    suffix = Path(place.partition("?")[0]).suffix.lower()
    if suffix in (".txt", ".lst"):
        return ("path",), _text_lines(file, subject)
    if suffix == ".csv":
        columns, lines = csv_from_lines(io.TextIOWrapper(file, "utf-8-sig", newline=""), subject, InputError)
        return _columns(columns, path_column, subject), lines
    return _parquet(file, path_column, subject)


def _columns(columns: Iterable[str], path_column: str | None, subject: str) -> tuple[str, ...]:
    there = list(columns)
    wanted = PATH_COLUMNS if path_column is None else (path_column,)
    path = next((name for name in wanted if name in there), None)
    if path is None:
        raise InputError(
            f"{subject} must have a column of paths named {' or '.join(wanted)} "
            f"(it has {', '.join(there[:12]) or 'none'}); name it with --path-column"
        )
    boxes = [name for name in BOX_COLUMNS if name in there]
    if boxes and len(boxes) < len(BOX_COLUMNS):
        raise InputError(f"{subject} must have all of the columns {', '.join(BOX_COLUMNS)}, or none (it has {boxes})")
    return (path, *boxes, *(["score"] if boxes and "score" in there else []))


def _text_lines(file: Any, subject: str) -> Iterator[Line]:
    for number, line in enumerate(file, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{subject}, line {number} is no UTF-8 text ({error.reason}); check its format") from error
        if text.strip() and not text.startswith("#"):
            yield number, {"path": text}


def _parquet(file: Any, path_column: str | None, subject: str) -> tuple[tuple[str, ...], Iterator[Line]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError(
            f"{subject} needs pyarrow, which is not installed; run `pip install 'simcc-edge-sdk[annotate]'`"
        ) from error
    try:
        table = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{subject} is no Parquet file ({told(error)}); check its format") from error
    columns = _columns(table.schema_arrow.names, path_column, subject)

    def lines() -> Iterator[Line]:
        number = 0
        for batch in table.iter_batches(ROWS_AT_A_TIME, columns=list(columns)):
            for row in batch.to_pylist():
                number += 1
                yield number, row

    return columns, lines()


def _entries(place: str, columns: tuple[str, ...], lines: Iterator[Line], base: str) -> Iterator[Entry]:
    path, *box_columns = columns
    subject = f"list '{shown(place)}', row"
    named = ((_name(row[path], path, f"{subject} {number}"), number, row) for number, row in lines)
    if not box_columns:
        yield from (Entry("picture", _joined(base, name)) for name, _, _ in named)
        return
    for name, rows in groupby(named, key=lambda each: each[0]):
        boxes = [_box(row, f"{subject} {number}") for _, number, row in rows]
        yield Entry("picture", _joined(base, name), boxes=tuple(filter(None, boxes)))


def _name(value: Any, column: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: column '{column}' must be a path or an address (got {value!r})")
    return value


def _box(row: Mapping[str, Any], where: str) -> Row | None:
    """A row's box; None where its x1 is empty."""
    given = [row[name] for name in BOX_COLUMNS]
    if given[0] in ("", None):
        return None
    score = row.get("score")
    try:
        numbers = [float(value) for value in (*given, 1.0 if score in ("", None) else score)]
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: a box is four numbers and, if wanted, a score ({error})") from error
    if not math.isfinite(numbers[4]):
        raise InputError(f"{where}: the score must be finite (got {numbers[4]})")
    try:
        check_boxes(numbers[:4])
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]


def _folder_of(place: str) -> str:
    return place.partition("?")[0].rpartition("/")[0] if is_url(place) else str(Path(place).parent)


def _joined(base: str, name: str) -> str:
    if is_url(name) or os.path.isabs(name):  # noqa: PTH117 (the base may be a URL)
        return name
    return f"{base.rstrip('/')}/{name}" if is_url(base) else str(Path(base) / name)

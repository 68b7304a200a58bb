"""Boxes from a file, by image: COCO annotations, COCO detection results, or CSV.

A file of another form is refused. A row whose numbers are no box (`sdk.geometry` says which are) is left out, and why
is kept beside the others of its image: one bad box of a detector's thousands costs that box.

CSV has a header line with the columns file, x1, y1, x2, y2 and, if wanted, score and frame (a video's frame, from 0).
COCO annotations and results hold `bbox` as x, y, width, height. Results without an `images` table are matched by the
number that the image's file name is (000000000785.jpg is image 785), as COCO's are.

    boxes = boxes_from_file(Path("boxes.csv"), score_threshold=0.3)
    boxes_xyxy, scores = boxes.of(Path("photos/1.jpg"))           # N x 4, N; None where the file has no such image
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdk.coco import (
    PERSON,
    Table,
    image_names,
    person_categories,
    record_from,
    result_tables,
    tables_of,
)
from sdk.errors import InputError
from sdk.geometry import check_boxes
from sdk.reading import csv_from_file, json_from_file

__all__ = ["BoxFile", "boxes_from_file"]

Float32Array = NDArray[np.float32]
Row = tuple[float, float, float, float, float]  # x1, y1, x2, y2, score
Place = tuple[str, int]  # image, frame
CSV_COLUMNS = ("file", "x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class BoxFile:
    """Boxes by (image's key, frame). The key is a file name, its stem's number, or a path's end."""

    path: Path
    rows: Mapping[Place, list[Row]]
    refused: Mapping[Place, list[str]]  # rows that are no boxes: where they stand, and why
    image_ids: Mapping[str, int]  # key -> image id, when the file tells
    known: frozenset[str]  # keys of all images of the file, those without boxes too

    def of(self, image: Path, frame: int = 0) -> tuple[Float32Array, Float32Array] | None:
        """N x 4 xyxy and N scores of an image; None for an image that the file does not know."""
        key = self._key(image)
        if key is None:
            return None
        rows = np.array(self.rows.get((key, frame), []), np.float32).reshape(-1, 5)
        return np.ascontiguousarray(rows[:, :4]), np.ascontiguousarray(rows[:, 4])

    def refused_of(self, image: Path, frame: int = 0) -> list[str]:
        """What is wrong with the rows of an image that are left out."""
        return self.refused.get((self._key(image) or "", frame), [])

    def image_id(self, image: Path) -> int | None:
        """The id that the file gives an image, if any."""
        key = self._key(image)
        return None if key is None else self.image_ids.get(key)

    def _key(self, image: Path) -> str | None:
        parts = image.as_posix().split("/")
        ends = ["/".join(parts[start:]) for start in range(len(parts))]
        number = [f"#{int(image.stem)}"] if image.stem.isdecimal() else []
        return next((key for key in (*ends, *number) if key in self.known), None)


def boxes_from_file(path: Path, *, score_threshold: float = 0.0) -> BoxFile:
    """The boxes of a COCO JSON or CSV file that score at least `score_threshold`. InputError names file and key."""
    if path.suffix.lower() == ".csv":
        return _from_csv(path, score_threshold)
    mend = "give COCO JSON, or CSV in a file named .csv"
    table = json_from_file(path, "boxes file", InputError, mend)
    if isinstance(table, dict) and "images" in table:
        return _from_annotations(path, table, score_threshold)
    if isinstance(table, list):
        return _from_results(path, table, score_threshold)
    raise InputError(
        f"boxes file '{path}' must be COCO annotations (images, annotations) or a list of COCO results "
        f"(got {type(table).__name__})"
    )


def _from_annotations(path: Path, table: Table, threshold: float) -> BoxFile:
    names = {number: Path(name).as_posix() for number, name in image_names(table, path, InputError).items()}
    persons, entries = person_categories(table), tables_of(table, "annotations", path, InputError)
    return _from_entries(path, "annotations", _persons_of(entries, persons), names, threshold)


def _from_results(path: Path, table: list[object], threshold: float) -> BoxFile:
    entries = result_tables(table, path, InputError)
    numbers = [record_from(entry).image_id for entry in entries]
    names = {number: f"#{number}" for number in numbers if number is not None}
    return _from_entries(path, "", _persons_of(entries, {PERSON}), names, threshold)


def _persons_of(entries: list[Table], persons: Collection[int]) -> Iterator[tuple[int, Table]]:
    """The entries of single persons, with their place in the file."""
    for index, entry in enumerate(entries):
        record = record_from(entry)
        if record.is_person(persons) and not record.crowd:
            yield index, entry


def _from_entries(
    path: Path, list_name: str, entries: Iterable[tuple[int, Table]], names: Mapping[int, str], threshold: float
) -> BoxFile:
    rows = _Rows(threshold)
    for index, entry in entries:
        where, record = f"boxes file '{path}': {list_name}[{index}]", record_from(entry)
        if record.image_id is None:
            raise InputError(f"{where}: key 'image_id' must be a whole number (got {entry.get('image_id')!r})")
        if record.image_id not in names:
            raise InputError(f"{where} is of image {record.image_id}, which 'images' does not list")
        rows.add((names[record.image_id], 0), _coco_row(entry, where), where)
    ids = {name: number for number, name in names.items()}
    return BoxFile(path, rows.boxes, rows.refused, ids, frozenset(ids))


def _coco_row(entry: Table, where: str) -> Row:
    """The numbers of an entry, finite or not."""
    box, score = entry.get("bbox"), _number(entry.get("score", 1.0))
    numbers = [_number(value) for value in box] if isinstance(box, list) else []
    if len(numbers) != 4 or None in numbers:
        raise InputError(f"{where}: 'bbox' must be x, y, width, height (got {box!r})")
    if score is None:
        raise InputError(f"{where}: 'score' must be a number, or left out (got {entry['score']!r})")
    x, y, width, height = (number for number in numbers if number is not None)
    return x, y, x + width, y + height, score


def _number(value: object) -> float | None:
    if type(value) is int:
        return float(value) if abs(value) < 1 << 1000 else inf
    return value if type(value) is float else None


class _Rows:
    """Rows by image and frame; of one that is no box the reason."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self.boxes: dict[Place, list[Row]] = {}
        self.refused: dict[Place, list[str]] = {}

    def add(self, place: Place, row: Row, where: str) -> None:
        problem = _problem_of(row)
        if problem is not None:
            self.refused.setdefault(place, []).append(f"{where}: {problem}")
        elif row[4] >= self._threshold:
            self.boxes.setdefault(place, []).append(row)


def _problem_of(row: Row) -> str | None:
    if not isfinite(row[4]):
        return f"the score must be finite (got {row[4]})"
    try:
        check_boxes(row[:4])
    except InputError as error:
        return str(error).replace("box 0", "the box", 1)
    return None


def _from_csv(path: Path, threshold: float) -> BoxFile:
    columns, lines = csv_from_file(path, "boxes file", InputError)
    missing = [column for column in CSV_COLUMNS if column not in columns]
    if missing:
        raise InputError(
            f"boxes file '{path}': the header line must name {', '.join(CSV_COLUMNS)} (and may name score, frame); "
            f"missing: {', '.join(missing)}"
        )
    rows = _Rows(threshold)
    known = set()
    for line, entry in lines:
        where = f"boxes file '{path}', line {line}"
        name, frame, row = _csv_row(entry, where)
        known.add(name)
        rows.add((name, frame), row, where)
    return BoxFile(path, rows.boxes, rows.refused, {}, frozenset(known))


def _csv_row(entry: Mapping[str, str], where: str) -> tuple[str, int, Row]:
    """The image, the frame and the box of a line."""
    name = entry["file"]
    if not name:
        raise InputError(f"{where}: column 'file' is empty; every line names its image")
    try:
        x1, y1, x2, y2 = (float(entry[column]) for column in CSV_COLUMNS[1:])
        score, frame = float(entry.get("score") or 1.0), int(entry.get("frame") or 0)
    except ValueError as error:
        raise InputError(f"{where}: {error}; all columns but file are numbers") from error
    return Path(name).as_posix(), frame, (x1, y1, x2, y2, score)

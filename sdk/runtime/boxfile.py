"""Boxes from a file, by image: COCO annotations, COCO detection results, or CSV. Only reading; checks of geometry are
`sdk.geometry`'s.

CSV has a header line with the columns file, x1, y1, x2, y2 and, if wanted, score and frame (a video's frame, from 0).
COCO annotations and results hold `bbox` as x, y, width, height. Results without an `images` table are matched by the
number that the image's file name is (000000000785.jpg is image 785), as COCO's are.

    boxes = boxes_from_file(Path("boxes.csv"), score_threshold=0.3)
    boxes_xyxy, scores = boxes.of(Path("photos/1.jpg"))           # N x 4, N; None where the file has no such image
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdk.coco import (
    PERSON,
    Table,
    image_names,
    json_from_file,
    person_categories,
    record_from,
    result_tables,
    tables_of,
)
from sdk.errors import InputError

__all__ = ["BoxFile", "boxes_from_file"]

Float32Array = NDArray[np.float32]
Row = tuple[float, float, float, float, float]  # x1, y1, x2, y2, score
Rows = dict[tuple[str, int], list[Row]]
CSV_COLUMNS = ("file", "x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class BoxFile:
    """Boxes by (image's key, frame). The key is a file name, its stem's number, or a path's end."""

    path: Path
    rows: Mapping[tuple[str, int], list[Row]]
    image_ids: Mapping[str, int]  # key -> image id, when the file tells
    known: frozenset[str]  # keys of all images of the file, those without boxes too

    def of(self, image: Path, frame: int = 0) -> tuple[Float32Array, Float32Array] | None:
        """N x 4 xyxy and N scores of an image; None for an image that the file does not know."""
        key = self._key(image)
        if key is None:
            return None
        rows = np.array(self.rows.get((key, frame), []), np.float32).reshape(-1, 5)
        return np.ascontiguousarray(rows[:, :4]), np.ascontiguousarray(rows[:, 4])

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
    rows = _rows_of(path, "annotations", _persons_of(entries, persons), names, threshold)
    return BoxFile(path, rows, {name: number for number, name in names.items()}, frozenset(names.values()))


def _from_results(path: Path, table: list[object], threshold: float) -> BoxFile:
    entries = result_tables(table, path, InputError)
    numbers = [record_from(entry).image_id for entry in entries]
    names = {number: f"#{number}" for number in numbers if number is not None}
    rows = _rows_of(path, "", _persons_of(entries, {PERSON}), names, threshold)
    return BoxFile(path, rows, {name: number for number, name in names.items()}, frozenset(names.values()))


def _persons_of(entries: list[Table], persons: Collection[int]) -> Iterator[tuple[int, Table]]:
    """The entries of single persons, with their place in the file."""
    for index, entry in enumerate(entries):
        record = record_from(entry)
        if record.is_person(persons) and not record.crowd:
            yield index, entry


def _rows_of(
    path: Path, list_name: str, entries: Iterable[tuple[int, Table]], names: Mapping[int, str], threshold: float
) -> Rows:
    rows: Rows = {}
    for index, entry in entries:
        where, record = f"boxes file '{path}': {list_name}[{index}]", record_from(entry)
        if record.image_id is None:
            raise InputError(f"{where}: key 'image_id' must be a whole number (got {entry.get('image_id')!r})")
        if record.image_id not in names:
            raise InputError(f"{where} is of image {record.image_id}, which 'images' does not list")
        if record.box_xyxy is None:
            raise InputError(f"{where}: 'bbox' must be x, y, width, height (got {entry.get('bbox')!r})")
        if "score" in entry and record.score is None:
            raise InputError(f"{where}: 'score' must be a number, or left out (got {entry['score']!r})")
        score = 1.0 if record.score is None else record.score
        if score >= threshold:
            rows.setdefault((names[record.image_id], 0), []).append((*record.box_xyxy, score))
    return rows


def _from_csv(path: Path, threshold: float) -> BoxFile:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"boxes file '{path}' cannot be read ({error}); check the path") from error
    reader = csv.DictReader(text.splitlines())
    missing = [column for column in CSV_COLUMNS if column not in (reader.fieldnames or [])]
    if missing:
        raise InputError(
            f"boxes file '{path}': the header line must name {', '.join(CSV_COLUMNS)} (and may name score, frame); "
            f"missing: {', '.join(missing)}"
        )
    rows: Rows = {}
    known = set()
    for line, entry in enumerate(reader, start=2):
        name, frame, row = _csv_row(entry, f"boxes file '{path}', line {line}")
        known.add(name)
        if row[4] >= threshold:
            rows.setdefault((name, frame), []).append(row)
    return BoxFile(path, rows, {}, frozenset(known))


def _csv_row(entry: Mapping[str, str | None], where: str) -> tuple[str, int, Row]:
    """The image, the frame and the box of a line."""
    name = entry["file"]
    if not name:
        raise InputError(f"{where}: column 'file' is empty; every line names its image")
    try:
        x1, y1, x2, y2 = (float(entry[column] or "") for column in CSV_COLUMNS[1:])
        score, frame = float(entry.get("score") or 1.0), int(entry.get("frame") or 0)
    except ValueError as error:
        raise InputError(f"{where}: {error}; all columns but file are numbers") from error
    row = (x1, y1, x2, y2, score)
    if not all(map(isfinite, row)):
        raise InputError(f"{where}: box and score must be finite (got {', '.join(map(str, row))})")
    return Path(name).as_posix(), frame, row

"""Boxes from a file, by image: COCO annotations, COCO detection results, or CSV.

A file of another form is refused, and one most of whose boxes are in other units than pixels. A row without a usable
box (`sdk.geometry` says which are) is left out, and why is kept beside the others of its image: one bad box of a
detector's thousands costs that box.

CSV has a header line with the columns file, x1, y1, x2, y2 and, if wanted, score and frame (a video's frame, from 0).
COCO annotations and results hold `bbox` as x, y, width, height. Results without an `images` table are matched by the
number that the image's file name is (000000000785.jpg is image 785), as COCO's are, or by its stem.

    boxes = boxes_from_file(Path("boxes.csv"), score_threshold=0.3)
    boxes_xyxy, scores = boxes.of(Path("photos/1.jpg"))           # N x 4, N; None where the file has no such image
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdk.box_units import unit_problem
from sdk.coco import PERSON, Table, image_from, image_names, person_categories, record_from, result_tables, tables_of
from sdk.coco_persons import persons_among, stem_key
from sdk.errors import InputError
from sdk.geometry import check_boxes
from sdk.reading import csv_from_file, json_from_file

__all__ = ["BoxFile", "Place", "boxes_from_file"]

Float32Array = NDArray[np.float32]
Row = tuple[float, float, float, float, float]  # x1, y1, x2, y2, score
Place = tuple[str, int]  # image, frame
CSV_COLUMNS = ("file", "x1", "y1", "x2", "y2")
NOWHERE: Place = ("", 0)  # of rows that name no image of the file


@dataclass(frozen=True)
class BoxFile:
    """Boxes by (image's key, frame). The key is a file name, its stem's number, or a path's end."""

    path: Path
    rows: Mapping[Place, list[Row]]
    refused: Mapping[Place, list[str]]  # rows that are no boxes: where they stand, and why
    image_ids: Mapping[str, int]  # key -> image id, when the file tells
    known: frozenset[str]  # keys of all images of the file, those without boxes too
    remarks: tuple[str, ...] = ()  # what a user should know of how the file was taken

    def of(self, image: Path, frame: int = 0) -> tuple[Float32Array, Float32Array] | None:
        """N x 4 xyxy and N scores of an image; None for an image that the file does not know."""
        place = self.place(image, frame)
        if place is None:
            return None
        rows = np.array(self.rows.get(place, []), np.float32).reshape(-1, 5)
        return np.ascontiguousarray(rows[:, :4]), np.ascontiguousarray(rows[:, 4])

    def place(self, image: Path, frame: int = 0) -> Place | None:
        """Where the file keeps what it says of a frame; None for an image that it does not know."""
        key = self._key(image)
        return None if key is None else (key, frame)

    @property
    def nowhere(self) -> list[str]:
        """What is wrong with rows that name no image of the file."""
        return self.refused.get(NOWHERE, [])

    def unasked(self, asked: Collection[Place]) -> list[Place]:
        """Where boxes lie that none of the frames `asked` for would have taken."""
        return sorted(place for place in self.rows if place not in asked)

    def refused_of(self, image: Path, frame: int = 0) -> list[str]:
        """What is wrong with the rows of an image that are left out."""
        return self.refused.get(self.place(image, frame) or ("", -1), [])

    def image_id(self, image: Path) -> int | None:
        """The id that the file gives an image, if any."""
        key = self._key(image)
        return None if key is None else self.image_ids.get(key)

    def check_fit(self, images: Sequence[Path]) -> None:
        """InputError where the file has rows, and knows none of the images."""
        if self.known and not any(self._key(image) for image in images):
            theirs, ours = min(self.known).removeprefix("#"), images[0].as_posix()
            raise InputError(
                f"boxes file '{self.path}' is of other pictures: it names '{theirs}', and the sources '{ours}'; give "
                "names that are ends of the sources' paths"
            )

    def _key(self, image: Path) -> str | None:
        parts = image.as_posix().split("/")
        ends = ["/".join(parts[start:]) for start in range(len(parts))]
        return next((key for key in (*ends, f"#{stem_key(image.stem)}") if key in self.known), None)


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
    images = filter(None, map(image_from, tables_of(table, "images", path, InputError)))
    rows = _Rows(path, threshold, {names[i.identity]: i.size_wh for i in images if i.size_wh is not None})
    entries = tables_of(table, "annotations", path, InputError)
    remarks = _add_entries(rows, "annotations", entries, person_categories(table), names)
    return rows.file({name: number for number, name in names.items()}, frozenset(names.values()), remarks)


def _from_results(path: Path, table: list[object], threshold: float) -> BoxFile:
    entries, rows = result_tables(table, path, InputError), _Rows(path, threshold)
    remarks = _add_entries(rows, "", entries, {PERSON}, None)
    keys = {_result_key(entry) for entry in entries} - {""}
    ids = {key: int(key[1:]) for key in keys if key[1:].isdecimal()}
    return rows.file(ids, frozenset(keys), remarks)


def _add_entries(
    rows: _Rows, list_name: str, entries: list[Table], persons: Collection[int], names: Mapping[int, str] | None
) -> tuple[str, ...]:
    """The entries of single persons into `rows`; remarks on which they are. `names`: of the images, by id."""
    found, remarks = persons_among([record_from(entry) for entry in entries], persons)
    for index, (entry, record) in enumerate(zip(entries, found, strict=True)):
        if record is None or record.crowd:
            continue
        where = f"boxes file '{rows.path}': {list_name}[{index}]"
        image = (
            _result_key(entry) if names is None else names.get(-1 if record.image_id is None else record.image_id, "")
        )
        row, problem = _coco_row(entry)
        if not image:
            given = entry.get("image_id")
            rows.refuse(NOWHERE, f"{where}: key 'image_id' must be that of an image of the file (got {given!r})")
        elif row is None:
            rows.refuse((image, 0), f"{where}: {problem}")
        else:
            rows.add((image, 0), row, where)
    return remarks


def _result_key(entry: Table) -> str:
    """The key of a result's image; none where it names no image."""
    record = record_from(entry)
    given = record.image_stem or ("" if record.image_id is None else str(record.image_id))
    return f"#{stem_key(given)}" if given else ""


def _coco_row(entry: Table) -> tuple[Row | None, str]:
    """The numbers of an entry, finite or not; or why there are none."""
    box, score = entry.get("bbox"), _number(entry.get("score", 1.0))
    numbers = [_number(value) for value in box] if isinstance(box, list) else []
    if len(numbers) != 4 or None in numbers:
        return None, f"'bbox' must be x, y, width, height (got {box!r})"
    if score is None:
        return None, f"'score' must be a number, or left out (got {entry['score']!r})"
    x, y, width, height = (number for number in numbers if number is not None)
    return (x, y, x + width, y + height, score), ""


def _number(value: object) -> float | None:
    if type(value) is int:
        return float(value) if abs(value) < 1 << 1000 else inf
    return value if type(value) is float else None


class _Rows:
    """Rows by image and frame; of one that is no box the reason. `sizes_wh`: of the images, where they are known."""

    def __init__(self, path: Path, threshold: float, sizes_wh: Mapping[str, tuple[int, int]] | None = None) -> None:
        self.path = path
        self._threshold = threshold
        self._sizes_wh = sizes_wh or {}
        self.boxes: dict[Place, list[Row]] = {}
        self.refused: dict[Place, list[str]] = {}

    def add(self, place: Place, row: Row, where: str) -> None:
        problem = _problem_of(row)
        if problem is not None:
            self.refuse(place, f"{where}: {problem}")
        elif row[4] >= self._threshold:
            self.boxes.setdefault(place, []).append(row)

    def refuse(self, place: Place, reason: str) -> None:
        self.refused.setdefault(place, []).append(reason)

    def file(self, image_ids: Mapping[str, int], known: frozenset[str], remarks: tuple[str, ...] = ()) -> BoxFile:
        """All of them; InputError where most are in other units than pixels."""
        rows = [(row, self._sizes_wh.get(image, (inf, inf))) for (image, _), of in self.boxes.items() for row in of]
        boxes = np.array([row[:4] for row, _ in rows], np.float64).reshape(-1, 4)
        problem = unit_problem(boxes, np.array([size for _, size in rows], np.float64).reshape(-1, 2))
        if problem is not None:
            raise InputError(f"boxes file '{self.path}': {problem}")
        return BoxFile(self.path, self.boxes, self.refused, image_ids, known, remarks)


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
    rows, known = _Rows(path, threshold), set()
    for line, entry in lines:
        where = f"boxes file '{path}', line {line}"
        name = Path(entry["file"]).as_posix() if entry["file"] else ""
        known |= {name} - {""}
        try:
            frame = _whole(entry.get("frame") or "0")
            row = _csv_row(entry)
        except ValueError as error:
            rows.refuse((name, 0), f"{where}: {error}; all columns but file are numbers, and frames whole ones")
            continue
        if name:
            rows.add((name, frame), row, where)
        else:
            rows.refuse(NOWHERE, f"{where}: column 'file' is empty; every line names its image")
    return rows.file({}, frozenset(known))


def _csv_row(entry: Mapping[str, str]) -> Row:
    x1, y1, x2, y2 = (float(entry[column]) for column in CSV_COLUMNS[1:])
    return x1, y1, x2, y2, float(entry.get("score") or 1.0)


def _whole(text: str) -> int:
    """A whole number, also one that is written as 7.0."""
    number = float(text)
    if not number.is_integer():
        raise ValueError(f"a frame must be a whole number (got '{text}')")
    return int(number)

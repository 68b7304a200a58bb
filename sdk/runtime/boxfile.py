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
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError

__all__ = ["BoxFile", "boxes_from_file"]

Float32Array = NDArray[np.float32]
Rows = dict[tuple[str, int], list[tuple[float, float, float, float, float]]]  # x1, y1, x2, y2, score
CSV_COLUMNS = ("file", "x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class BoxFile:
    """Boxes by (image's key, frame). The key is a file name, its stem's number, or a path's end."""

    path: Path
    rows: Mapping[tuple[str, int], list[tuple[float, float, float, float, float]]]
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
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"boxes file '{path}' cannot be read ({error}); check the path") from error
    if path.suffix.lower() == ".csv":
        return _from_csv(path, text, score_threshold)
    try:
        table = json.loads(text)
    except ValueError as error:
        raise InputError(f"boxes file '{path}' is neither JSON nor named .csv ({error})") from error
    if isinstance(table, dict) and isinstance(table.get("images"), list):
        return _from_annotations(path, table, score_threshold)
    if isinstance(table, list):
        return _from_results(path, table, score_threshold)
    raise InputError(
        f"boxes file '{path}' must be COCO annotations (images, annotations) or a list of COCO results "
        f"(got {type(table).__name__})"
    )


def _from_annotations(path: Path, table: Mapping[str, Any], threshold: float) -> BoxFile:
    names = {}
    for index, image in enumerate(table["images"]):
        names[_value(image, "id", int, path, f"images[{index}]")] = Path(
            _value(image, "file_name", str, path, f"images[{index}]")
        ).as_posix()
    annotations = table.get("annotations")
    if not isinstance(annotations, list):
        raise InputError(f"boxes file '{path}': key 'annotations' is missing; boxes are read from there")
    persons = {c.get("id") for c in table.get("categories", []) if isinstance(c, dict) and c.get("name") == "person"}
    wanted = [a for a in annotations if not persons or a.get("category_id") in persons]
    rows = _rows_of(path, "annotations", (a for a in wanted if not a.get("iscrowd")), names, threshold)
    return BoxFile(path, rows, {name: number for number, name in names.items()}, frozenset(names.values()))


def _from_results(path: Path, table: list[Any], threshold: float) -> BoxFile:
    numbers = {_value(entry, "image_id", int, path, f"[{index}]") for index, entry in enumerate(table)}
    names = {number: f"#{number}" for number in numbers}
    persons = [entry for entry in table if entry.get("category_id", 1) == 1]
    rows = _rows_of(path, "", persons, names, threshold)
    return BoxFile(path, rows, {name: number for number, name in names.items()}, frozenset(names.values()))


def _rows_of(path: Path, list_name: str, entries: Iterable[Any], names: Mapping[int, str], threshold: float) -> Rows:
    rows: Rows = {}
    for index, entry in enumerate(entries):
        where = f"{list_name}[{index}]"
        image = _value(entry, "image_id", int, path, where)
        if image not in names:
            raise InputError(f"boxes file '{path}': {where} is of image {image}, which 'images' does not list")
        box = entry.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, (int, float)) for v in box):
            raise InputError(f"boxes file '{path}': {where}: 'bbox' must be x, y, width, height (got {box!r})")
        x, y, width, height = map(float, box)
        score = float(entry.get("score", 1.0))
        if score >= threshold:
            rows.setdefault((names[image], 0), []).append((x, y, x + width, y + height, score))
    return rows


def _from_csv(path: Path, text: str, threshold: float) -> BoxFile:
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
        try:
            x1, y1, x2, y2 = (float(entry[column]) for column in CSV_COLUMNS[1:])
            score, frame = float(entry.get("score") or 1.0), int(entry.get("frame") or 0)
        except (TypeError, ValueError) as error:
            raise InputError(f"boxes file '{path}', line {line}: {error}; all columns but file are numbers") from error
        name = Path(entry["file"]).as_posix()
        known.add(name)
        if score >= threshold:
            rows.setdefault((name, frame), []).append((x1, y1, x2, y2, score))
    return BoxFile(path, rows, {}, frozenset(known))


def _value(entry: Any, key: str, kind: type, path: Path, where: str) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if type(value) is not kind:
        raise InputError(f"boxes file '{path}': {where}: key '{key}' must be {kind.__name__} (got {value!r})")
    return value

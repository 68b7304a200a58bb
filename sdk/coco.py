"""COCO's annotation and result files, read in one way: what a file must be, and what its records say.

A file that is no COCO file is refused, with the error class that the caller works with. A record is never refused here:
whatever it says that COCO's format does not allow (a box of texts, an area of null) reads as not said, and the caller
decides whether that person is counted as left out or the file is refused. Standard library only.

    document = json_from_file(path, "the annotation file", DatasetError)        # of sdk.reading
    names = image_names(document, path, DatasetError)                          # image id -> file name
    persons = person_categories(document)
    for record in records_of(document, path, DatasetError):
        record.image_id, record.box_xywh, record.keypoints, record.is_person(persons)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from sdk.reading import CHECK_FORMAT

__all__ = [
    "LOWEST_SCORE",
    "PERSON",
    "CocoCategory",
    "CocoImage",
    "CocoRecord",
    "Table",
    "finite_number",
    "finite_numbers",
    "image_from",
    "image_names",
    "is_named_person",
    "joint_kinds",
    "person_categories",
    "person_kinds",
    "record_from",
    "records_of",
    "result_tables",
    "tables_of",
]

Errors = type[Exception]
Table = Mapping[str, Any]
LOWEST_SCORE = 0.3  # of a detection that is taken for a person, where the user chooses none
LARGEST_ID, LONGEST_ID = 2**53, 19  # a float tells whole numbers apart below; digits of a text
PERSON = 1  # the category of COCO's persons, and of results whose annotation file names none


@dataclass(frozen=True)
class CocoImage:
    """A picture of the file. Sizes and crowd index (CrowdPose's) may be missing."""

    identity: int
    file_name: str
    size_wh: tuple[int, int] | None
    crowd_index: float | None


@dataclass(frozen=True)
class CocoCategory:
    """A kind of thing, and the joints that it lists, if any."""

    identity: int | None
    joints: tuple[str, ...]


@dataclass(frozen=True)
class CocoRecord:
    """An annotation or a detection; None is what it does not say, or says in another way than COCO's format."""

    identity: int | None
    image_id: int | None
    category: int | None
    box_xywh: tuple[float, float, float, float] | None
    keypoints: tuple[float, ...] | None  # flat: x, y, visibility
    area_px2: float | None
    score: float | None
    crowd: bool
    image_stem: str = ""  # the image's id where it is a text, as some tools write a file's stem

    @property
    def box_xyxy(self) -> tuple[float, float, float, float] | None:
        if self.box_xywh is None:
            return None
        x, y, width, height = self.box_xywh
        return x, y, x + width, y + height

    @property
    def has_area(self) -> bool:
        """Whether the box is one: wider and higher than nothing."""
        return self.box_xywh is not None and min(self.box_xywh[2:]) > 0

    def is_person(self, persons: Collection[int]) -> bool:
        """Whether its category is one of `persons`; one that names none is taken for a person's."""
        return self.category is None or not persons or self.category in persons


def tables_of(document: object, key: str, path: Path, error: Errors) -> list[Table]:
    """The list of tables under `key` of an annotation file."""
    tables = document.get(key) if isinstance(document, dict) else None
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise error(f"{path}: key '{key}' must be a list of tables, as COCO's format has it; {CHECK_FORMAT}")
    return tables


def records_of(document: object, path: Path, error: Errors) -> list[CocoRecord]:
    """The annotations of a file of them."""
    return [record_from(table) for table in tables_of(document, "annotations", path, error)]


def result_tables(document: object, path: Path, error: Errors) -> list[Table]:
    """The tables of a file of detections: a list, as COCO's result format has it."""
    if not isinstance(document, list) or not all(isinstance(table, dict) for table in document):
        raise error(f"{path}: detections must be a list of tables with image_id, category_id, bbox and score")
    return document


def image_names(document: object, path: Path, error: Errors) -> dict[int, str]:
    """File names of an annotation file's images, by id."""
    names: dict[int, str] = {}
    for number, table in enumerate(tables_of(document, "images", path, error)):
        image = image_from(table)
        if image is None:
            raise error(
                f"{path}: images[{number}] must have a whole number 'id' and a text 'file_name' "
                f"(got {table.get('id')!r}, {table.get('file_name')!r})"
            )
        names[image.identity] = image.file_name
    return names


def image_from(table: Table) -> CocoImage | None:
    """The image of a record; None without a whole number as id and a text as file name."""
    identity, name = _whole(table.get("id")), table.get("file_name")
    if identity is None or not isinstance(name, str) or not name:
        return None
    width, height = _whole(table.get("width")), _whole(table.get("height"))
    size = (width, height) if width and height and min(width, height) > 0 else None
    return CocoImage(identity, name, size, finite_number(table.get("crowdIndex")))


def record_from(table: Table) -> CocoRecord:
    """What an annotation or a detection says."""
    box, keypoints = finite_numbers(table.get("bbox"), 4), finite_numbers(table.get("keypoints"))
    return CocoRecord(
        _whole(table.get("id")),
        _whole(table.get("image_id")),
        _whole(table.get("category_id")),
        None if box is None else (box[0], box[1], box[2], box[3]),
        None if keypoints is None or len(keypoints) % 3 else tuple(keypoints),
        _area(table.get("area")),
        finite_number(table.get("score")),
        bool(table.get("iscrowd")),
        image if isinstance(image := table.get("image_id"), str) else "",
    )


def person_kinds(document: object) -> list[CocoCategory]:
    """The categories named 'person'; where none is, those that list joints."""
    named = [_kind(table) for table in _category_tables(document) if table.get("name") == "person"]
    return named or joint_kinds(document)


def is_named_person(document: object) -> bool:
    """Whether a category is named 'person'."""
    return any(table.get("name") == "person" for table in _category_tables(document))


def joint_kinds(document: object) -> list[CocoCategory]:
    """The categories that list joints."""
    return [kind for kind in map(_kind, _category_tables(document)) if kind.joints]


def person_categories(document: object) -> frozenset[int]:
    """Ids of `person_kinds`; empty where the file tells none."""
    return frozenset(kind.identity for kind in person_kinds(document) if kind.identity is not None)


def finite_numbers(values: object, count: int | None = None) -> list[float] | None:
    """`values` as floats if it is a list of finite numbers, `count` of them where that is given."""
    if not isinstance(values, list) or count not in (None, len(values)):
        return None
    numbers = [finite_number(value) for value in values]
    return None if None in numbers else [number for number in numbers if number is not None]


def finite_number(value: object) -> float | None:
    """`value` as a float if it is a finite number; true and false are none."""
    if type(value) is float:
        return value if isfinite(value) else None
    if type(value) is not int or abs(value) > 1 << 1000:
        return None
    return float(value)


def _category_tables(document: object) -> list[Table]:
    listed = document.get("categories") if isinstance(document, dict) else None
    return [table for table in listed if isinstance(table, dict)] if isinstance(listed, list) else []


def _kind(table: Table) -> CocoCategory:
    return CocoCategory(_whole(table.get("id")), _texts(table.get("keypoints")))


def _texts(values: object) -> tuple[str, ...]:
    return tuple(str(value) for value in values) if isinstance(values, list) else ()


def _area(value: object) -> float | None:
    """An area, which is above 0: keypoint tools write 0 where they know none."""
    area = finite_number(value)
    return area if area is not None and area > 0 else None


def _whole(value: object) -> int | None:
    """A whole number, also one that is written as 1.0 or "1"."""
    if type(value) is float and value.is_integer() and abs(value) < LARGEST_ID:
        return int(value)
    if isinstance(value, str) and len(value) < LONGEST_ID and value.isascii() and value.isdecimal():
        return int(value)
    return value if type(value) is int else None

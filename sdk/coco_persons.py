"""Which records of COCO's files are of persons, and of which picture, by one rule for every verb; what is told of it.

Tool kits write results in their own ways: categories that count from 0, file stems for image ids. Such are taken, with
a remark; what is left out is counted. Nothing here opens a file.

    records, remarks = persons_among(records, persons={1})              # None where a record is no person's
    records, remarks = of_pictures(records, names={785: "000785.jpg"})
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from sdk.box_units import unit_problem
from sdk.coco import CocoRecord, is_named_person, person_categories
from sdk.wording import counted

__all__ = ["check_units", "of_pictures", "parted_problem", "persons_among", "stem_key"]

MIXED = 0.9  # of a record's joints that lie in boxes of others, above which these are taken for its persons'
MaybeRecord = CocoRecord | None


def persons_among(records: Sequence[CocoRecord], persons: Collection[int]) -> tuple[list[MaybeRecord], tuple[str, ...]]:
    """The records of persons in their places, None for others; and remarks.

    COCO's categories count from 1. Where one is 0, they count from 0, and persons are 0. `persons` empty: all are.
    """
    categories = {record.category for record in records} - {None}
    from_zero = bool(persons) and 0 in categories and 0 not in persons
    if not from_zero:
        found: list[MaybeRecord] = [record if record.is_person(persons) else None for record in records]
        return found, _left_out(found, categories)
    name = next(iter(persons)) if len(persons) == 1 else None
    found = [replace(r, category=name) if r.category in (0, None) else None for r in records]
    told = "the only category is 0" if categories == {0} else "categories count from 0"
    return found, (f"{told}: its records are taken for persons", *_left_out(found, categories))


def of_pictures(records: Sequence[CocoRecord], names: Mapping[int, str]) -> tuple[list[CocoRecord], tuple[str, ...]]:
    """The records with the ids of their pictures, which have these file names; and remarks.

    An id is what it says, or, where more pictures are found so, the stem of a file name.
    """
    counts = Counter(stem_key(PurePath(name).stem) for name in names.values())
    stems = {key: number for number, name in names.items() if counts[key := stem_key(PurePath(name).stem)] == 1}
    by_stem = [stems.get(_given(record)) for record in records]
    if sum(place is not None for place in by_stem) <= sum(record.image_id in names for record in records):
        return list(records), ()
    example = next(number for number in by_stem if number is not None)
    remark = f"image ids are taken for the stems of file names (such as that of '{names[example]}')"
    return [replace(record, image_id=place) for record, place in zip(records, by_stem, strict=True)], (remark,)


def parted_problem(document: object, records: Sequence[CocoRecord]) -> str | None:
    """Why an export is of no use: boxes and keypoints stand in records of different categories; None where they do not.

    Keypoint tools write the boxes that were drawn in one category, and in another one record a picture, with the joints
    of whoever is on it.
    """
    persons = person_categories(document)
    mine = [record for record in records if record.is_person(persons)]
    others = [record for record in records if not record.is_person(persons)]
    for what, has in (("boxes", _has_box), ("keypoints", _has_keypoints)):
        elsewhere = next((record.category for record in others if has(record)), None)
        if mine and elsewhere is not None and not any(map(has, mine)):
            return (
                f"its persons have no {what}: these stand in records of category {elsewhere}; a person's box and "
                "keypoints must be of one record"
            )
    return None if is_named_person(document) else _mixed_problem(mine, others)


def _mixed_problem(mine: Sequence[CocoRecord], others: Sequence[CocoRecord]) -> str | None:
    """Whether the joints of a record lie in several boxes of other records of its picture, and all of them in none."""
    boxes: dict[int | None, list[tuple[float, float, float, float]]] = {}
    for record in others:
        if record.has_area and record.box_xyxy is not None:
            boxes.setdefault(record.image_id, []).append(record.box_xyxy)
    for record in mine:
        held = _boxes_of_joints(record, np.array(boxes.get(record.image_id, []), np.float64).reshape(-1, 4))
        if held > 1:
            return (
                f"annotation {record.identity} mixes joints of several persons: they lie in {held} boxes of image "
                f"{record.image_id}, and in none of these all of them; export one record a person"
            )
    return None


def _boxes_of_joints(record: CocoRecord, boxes: NDArray[np.float64]) -> int:  # N x 4
    """In how many boxes a record's joints lie that no single one holds; 0 where one does, or they lie in none."""
    points = np.array(record.keypoints or (), np.float64).reshape(-1, 3)
    seen = points[points[:, 2] > 0, None, :2]
    inside = np.asarray(((seen >= boxes[:, :2]) & (seen <= boxes[:, 2:])).all(axis=2), bool)  # joints x boxes
    if inside.size == 0 or inside.all(axis=0).any() or np.mean(inside.any(axis=1)) < MIXED:
        return 0
    return int(np.sum(inside.any(axis=0)))


def check_units(
    where: str,
    error: type[Exception],
    boxes_xyxy: NDArray[np.floating],  # N x 4
    sizes_wh: NDArray[np.floating] | None = None,  # N x 2
    keypoints: NDArray[np.floating] | None = None,  # N x K x 3
) -> None:
    """`error` where most boxes are in other units than pixels (`sdk.box_units`)."""
    problem = unit_problem(boxes_xyxy, sizes_wh, keypoints)
    if problem is not None:
        raise error(f"{where}: {problem}")


def _has_box(record: CocoRecord) -> bool:
    return record.has_area


def _has_keypoints(record: CocoRecord) -> bool:
    return bool(record.keypoints)


def stem_key(stem: str) -> int | str:
    """A file's stem, or the number that it is: 000785 is 785."""
    return int(stem) if stem.isascii() and stem.isdecimal() else stem


def _given(record: CocoRecord) -> int | str:
    return stem_key(record.image_stem) if record.image_id is None else record.image_id


def _left_out(found: Sequence[MaybeRecord], categories: Collection[int | None]) -> tuple[str, ...]:
    lost = sum(record is None for record in found)
    if not lost:
        return ()
    listed = ", ".join(map(str, sorted(c for c in categories if c is not None)[:5]))
    return (f"{counted(lost, 'record')} of categories that are no person's left out (there are {listed})",)

"""COCO-WholeBody's annotations (Jin et al., ECCV 2020) as plain COCO ones: there, feet, face and hands have own keys.

A part whose validity flag is false is not annotated, whatever numbers stand there: its joints get visibility 0. Of the
same file hands and faces are taken one by one, with boxes of their own, where they are valid and not empty.

    document = coco_from_wholebody("hand", document, path)     # of another file, or for another kind: as it was
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdk.coco import finite_numbers, tables_of
from sdk.errors import DatasetError
from sdk.skeletons import SKELETONS

__all__ = ["coco_from_wholebody"]

Table = Mapping[str, Any]

WHOLE = SKELETONS["wholebody133"]
PARTS = {"foot": "foot", "face": "face", "left_hand": "lefthand", "right_hand": "righthand"}  # ours, the file's
SINGLE = {"hand": ("left_hand", "right_hand"), "face": ("face",)}  # kind of dataset: groups taken by themselves
JOINTS = {name: SKELETONS[sets].joints for name, sets in (("hand", "hand21"), ("face", "face68"))}


def coco_from_wholebody(kind: str, document: Any, path: Path) -> Any:
    """A file of COCO-WholeBody as COCO keypoint JSON for a kind of dataset; any other file as it is."""
    if kind not in ("wholebody", *SINGLE):
        return document
    tables = tables_of(document, "annotations", path, DatasetError)
    whole = [table for table in tables if "lefthand_kpts" in table]
    if not whole:
        return document
    if len(whole) < len(tables):
        raise DatasetError(
            f"{path}: {len(tables) - len(whole)} of {len(tables)} annotations have no 'lefthand_kpts'; in "
            "COCO-WholeBody's file all have; download it again or check its format"
        )
    persons = [
        table for table in tables_of(document, "categories", path, DatasetError) if table.get("name") == "person"
    ]
    joints = JOINTS.get(kind, WHOLE.joints)
    if kind == "wholebody":
        annotations: list[Table] = [{**table, "keypoints": _all_keypoints(table)} for table in tables]
    else:
        annotations = [single for table in tables for single in _singles(table, kind)]
    categories = [{**person, "keypoints": list(joints)} for person in persons]
    return {**document, "annotations": annotations, "categories": categories}


def _all_keypoints(table: Table) -> list[float] | None:
    """Body, feet, face and hands one behind the other; None where one is not what it should be."""
    parts = [finite_numbers(table.get("keypoints"), 3 * len(WHOLE.members("body")))]
    parts += [_part_keypoints(table, group) for group in PARTS]
    return None if None in parts else [value for part in parts if part for value in part]


def _part_keypoints(table: Table, group: str) -> list[float] | None:
    """The triples of a part; of one that is not valid, all not annotated."""
    name, count = PARTS[group], len(WHOLE.members(group))
    values = finite_numbers(table.get(f"{name}_kpts"), 3 * count)
    if values is not None and not table.get(f"{name}_valid", True):
        return [0.0] * 3 * count
    return values


def _singles(table: Table, kind: str) -> Iterator[Table]:
    """The valid hands, or the face, of one person."""
    for group in SINGLE[kind]:
        values = _part_keypoints(table, group)
        box = finite_numbers(table.get(f"{PARTS[group]}_box"), 4)
        if values is not None and box is not None and any(visible > 0 for visible in values[2::3]):
            yield {**table, "bbox": box, "keypoints": values, "area": math.prod(box[2:]), "iscrowd": 0}

"""Persons of COCO keypoint files, as training reads them: whose picture, which joints, and how much each label counts.

The joints of a file are taken by name (`sdk.coco_joints`). A label counts as much as its joint's score (0..1, of
`keypoint_scores` or a list `score`) times the record's `agree` (0..1), each 1 where it is not told: so a file says how
sure a network was of its labels, or how far two sources agree. Nothing here opens a picture.

    people = annotations_from_coco(Path("train.json"), Path("photos"), skeleton.joints)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdk.coco import (
    CocoRecord,
    Table,
    finite_number,
    finite_numbers,
    image_from,
    image_names,
    person_categories,
    record_from,
    tables_of,
)
from sdk.coco_joints import CocoJoints
from sdk.coco_persons import check_units, parted_problem, persons_among
from sdk.errors import DatasetError
from sdk.oks import areas_from_boxes
from sdk.reading import json_from_file
from sdk.training.pictures import Picture, StoredPicture

__all__ = ["Annotation", "annotations_from_coco"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Annotation:
    """One usable person of a COCO file."""

    identity: int | None
    image_id: int
    picture: Picture
    keypoints: NDArray[np.float32]  # K x 3, image pixels, in the skeleton's order; visibility 0: not annotated
    box_xyxy: NDArray[np.float32]  # 4
    area_px: float
    weights: NDArray[np.float32]  # K, 0..: how much each label counts


def annotations_from_coco(
    path: Path, images: Path, joints: tuple[str, ...], *, partly: bool = False
) -> list[Annotation]:
    """The usable persons of a COCO keypoint file; unusable ones are counted in the log by reason.

    `partly`: the file may lack joints, which then are not annotated; DatasetError where it lacks any otherwise.
    """
    document = json_from_file(path, "annotation file", DatasetError)
    files, pictures = image_names(document, path, DatasetError), tables_of(document, "images", path, DatasetError)
    tables = tables_of(document, "annotations", path, DatasetError)
    records = [record_from(table) for table in tables]
    tables_of(document, "categories", path, DatasetError)  # must be there
    order = CocoJoints.of_file(document, joints, partly=partly)
    if order.problem is not None:
        raise DatasetError(f"{path.name}: {order.problem}")
    parted = parted_problem(document, records)
    if parted is not None:
        raise DatasetError(f"{path.name}: {parted}")
    found, remarks = persons_among(records, person_categories(document))
    for remark in (*order.remarks, *remarks):
        logger.warning("%s: %s", path.name, remark)
    skipped: dict[str, int] = {}
    usable = []
    for table, record, person in zip(tables, records, found, strict=True):
        reason, annotation = _annotation(table, person or record, files, images, order)
        if annotation is None:
            skipped[reason] = skipped.get(reason, 0) + 1
        else:
            usable.append(annotation)
    for reason, count in sorted(skipped.items()):
        logger.warning("%s: skipped %d of %d persons: %s", path.name, count, len(records), reason)
    if not usable:
        raise DatasetError(f"'{path}' holds no usable person (skipped: {skipped or 'the file lists none'})")
    sizes = {image.identity: image.size_wh for image in map(image_from, pictures) if image is not None}
    check_units(
        path.name,
        DatasetError,
        np.array([person.box_xyxy for person in usable]),
        np.array([sizes.get(person.image_id) or (np.inf, np.inf) for person in usable], np.float64),
        np.array([person.keypoints for person in usable]),
    )
    return usable


def _annotation(
    table: Table, record: CocoRecord, files: Mapping[int, str], images: Path, joints: CocoJoints
) -> tuple[str, Annotation | None]:
    """The usable person of a record, or the reason why there is none."""
    keypoints = joints.of_record(record)
    if not joints.knows(record) or record.image_id is None or record.image_id not in files:
        return "unknown category or image", None
    if record.crowd:
        return "crowd region", None
    if keypoints is None:
        return joints.why_none(record, "malformed keypoints"), None
    if record.box_xyxy is None or not record.has_area:
        return "no box", None
    weights = _weights(table, record, joints)
    if weights is None:
        return "scores of joints, or an `agree`, that are not from 0 to 1", None
    corners = np.asarray(record.box_xyxy, np.float32)
    area = float(areas_from_boxes(corners)) if record.area_px2 is None else record.area_px2
    picture = StoredPicture(images / files[record.image_id], images)
    person = Annotation(record.identity, record.image_id, picture, keypoints, corners, area, weights)
    return ("", person) if ((keypoints[:, 2] > 0) & (weights > 0)).any() else ("no annotated joint", None)


def _weights(table: Table, record: CocoRecord, joints: CocoJoints) -> NDArray[np.float32] | None:  # K
    """How much a record's labels count; None where what it says of that is no share."""
    count = len(record.keypoints or ()) // 3
    given = table.get("keypoint_scores", table.get("score"))
    scores = finite_numbers(given, count) if isinstance(given, list) else [1.0] * count
    agree = finite_number(table.get("agree", 1.0))
    if scores is None or agree is None or not 0 <= min(*scores, agree) <= max(*scores, agree) <= 1:
        return None
    return joints.in_order(record, np.asarray(scores, np.float32)) * np.float32(agree)

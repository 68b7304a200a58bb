"""Reading annotation and detection files into a `Dataset`: the COCO keypoint format, its detections, and MPII's list.

Opens no picture; whether a picture exists is checked, so that a wrong folder is found at once and not after an hour.

    dataset = load_dataset(DatasetOptions("lsp", Path("val.json"), Path("lspet")), recipe)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.coco import (
    PERSON,
    CocoRecord,
    Table,
    image_from,
    person_categories,
    record_from,
    records_of,
    result_tables,
    tables_of,
)
from sdk.coco_joints import CocoJoints
from sdk.coco_persons import check_units, of_pictures, parted_problem, persons_among
from sdk.errors import DatasetError
from sdk.evaluate.datasets.boxes import Convention, boxes_from_annotations
from sdk.evaluate.datasets.dataset import (
    DATASET_KINDS,
    Dataset,
    DatasetOptions,
    Picture,
    Problems,
    Truth,
    limited,
)
from sdk.evaluate.datasets.mpii import mpii_dataset
from sdk.evaluate.datasets.wholebody import coco_from_wholebody
from sdk.files import some_name
from sdk.oks import AREA_SHARE, areas_from_boxes
from sdk.reading import json_from_file
from sdk.recipe import Recipe

__all__ = ["load_dataset"]

Position = dict[int | None, int | None]  # image id -> position among the pictures, None for one that is left out
Box = tuple[float, float, float, float]  # xyxy
# Of the truth: picture, keypoints, box, area, crowd, name, category
Row = tuple[int, NDArray[np.float32], Box, float, bool, str, int]

UNKNOWN = -1
PARTLY = ("lsp", "custom")  # the others are defined by all of their joints

SKELETON_OF = {
    "coco": "coco17",
    "crowdpose": "crowdpose14",
    "mpii": "mpii16",
    "wholebody": "wholebody133",
    "ap10k": "ap10k17",
}
BY_OWN_BOXES = {
    "mpii": "MPII is measured on its own centres and scales",
    "hand": "hands are measured by their annotated boxes",
    "face": "faces are measured one by one, as annotated",
}


def load_dataset(options: DatasetOptions, recipe: Recipe) -> Dataset:
    """The dataset that `options` name, for an engine of `recipe`. DatasetError where no figure could be right."""
    _check(options, recipe)
    if options.kind == "mpii":
        dataset = mpii_dataset(options, recipe)
        dataset = limited(dataset, _kept(dataset.pictures, options, dataset.problems))
    else:
        dataset = _from_coco(options, recipe)
    if not len(dataset):
        reasons = "; ".join(dataset.problems.lines()) or "the file has no annotated person"
        raise DatasetError(f"{options.annotations}: no person is left to verify on ({reasons}); check the files")
    return dataset


def _check(options: DatasetOptions, recipe: Recipe) -> None:
    if options.kind not in DATASET_KINDS:
        raise DatasetError(f"dataset must be one of {', '.join(DATASET_KINDS)} (got '{options.kind}')")
    if options.limit is not None and options.limit < 1:
        raise DatasetError(f"the limit must be at least one picture (got {options.limit})")
    wanted = SKELETON_OF.get(options.kind, recipe.skeleton.name)
    if wanted != recipe.skeleton.name:
        raise DatasetError(
            f"dataset '{options.kind}' has the joints of '{wanted}' and the engine those of '{recipe.skeleton.name}'; "
            "verify on a dataset of the engine's joints"
        )
    if options.kind == "face" and recipe.skeleton.nme_joints is None:
        raise DatasetError(
            f"dataset 'face' is scored by NME, and skeleton '{recipe.skeleton.name}' names no nme_joints; "
            "name them in the recipe, or verify on another kind of dataset"
        )
    if options.kind != "face" and not recipe.skeleton.sigmas:
        raise DatasetError(
            f"dataset '{options.kind}' is scored by OKS, and skeleton '{recipe.skeleton.name}' has no sigmas; "
            "verify on dataset 'face'"
        )
    if options.kind in BY_OWN_BOXES and options.detections is not None:
        raise DatasetError(f"{BY_OWN_BOXES[options.kind]}; leave the detections out")
    if options.partly and options.kind not in PARTLY:
        raise DatasetError(f"partly is for datasets {' and '.join(PARTLY)} (got '{options.kind}'); leave it out")
    if not options.images.is_dir():
        raise DatasetError(f"the folder of images '{options.images}' does not exist; check the path")


def _from_coco(options: DatasetOptions, recipe: Recipe) -> Dataset:
    table = json_from_file(options.annotations, "the annotation file", DatasetError)
    table = coco_from_wholebody(options.kind, table, options.annotations)
    problems = Problems()
    listed = _pictures(options, tables_of(table, "images", options.annotations, DatasetError), problems)
    keep = _kept(listed, options, problems)
    pictures = tuple(picture for picture, kept in zip(listed, keep, strict=True) if kept)
    position: Position = {
        picture.id: int(n) if kept else None for picture, n, kept in zip(listed, keep.cumsum() - 1, keep, strict=True)
    }
    tables_of(table, "categories", options.annotations, DatasetError)  # must be there, though it may be empty
    joints = CocoJoints.of_file(table, recipe.skeleton.joints, partly=options.partly)
    kinds = person_categories(table)
    if joints.problem is not None:
        raise DatasetError(f"{options.annotations}: {joints.problem}{_or_partly(table, options, recipe)}")
    notes = (*_lacking(joints, recipe), *joints.remarks)
    annotations = records_of(table, options.annotations, DatasetError)
    parted = parted_problem(table, annotations)
    if parted is not None:
        raise DatasetError(f"{options.annotations}: {parted}")
    found, remarks = persons_among(annotations, kinds)
    truth, without_area = _truth([record for record in found if record], position, joints, recipe.joints, problems)
    if without_area:
        remarks += (f"{without_area} annotations have no area: {AREA_SHARE} of the box is taken",)
    single = ~truth.crowd
    sizes_wh = _sizes_wh(pictures)
    of_truth = truth.boxes_xyxy[single], sizes_wh[truth.picture[single]], truth.keypoints[single]
    check_units(str(options.annotations), DatasetError, *of_truth)
    if options.detections is None:
        persons = _annotated_persons(truth, sizes_wh, options.convention_for(recipe), problems)
    else:
        names = {picture.id: picture.path.name for picture in listed}
        persons, more = _detected_persons(options.detections, position, names, kinds or {PERSON}, problems)
        remarks += tuple(f"detections: {remark}" for remark in more)
        check_units(str(options.detections), DatasetError, persons["boxes_xyxy"], sizes_wh[persons["picture"]])
    notes += remarks
    order = np.argsort(persons["picture"], kind="stable")
    return Dataset(
        options.kind,
        recipe.skeleton,
        pictures,
        truth,
        **{key: values[order] for key, values in persons.items()},
        boxes="annotated" if options.detections is None else "detected",
        convention=options.convention_for(recipe),
        problems=problems,
        notes=notes,
    )


def _or_partly(table: object, options: DatasetOptions, recipe: Recipe) -> str:
    """How a message goes on about a file that can serve for the joints that it has."""
    if options.kind not in PARTLY or CocoJoints.of_file(table, recipe.skeleton.joints, partly=True).problem is not None:
        return ""
    return "; or, to measure the joints that it has, --partly (`partly=True`)"


def _lacking(joints: CocoJoints, recipe: Recipe) -> tuple[str, ...]:
    """What a reader must know of a file without some of the joints."""
    lists = list(joints.places.values())
    missing = [name for name, *places in zip(recipe.skeleton.joints, *lists, strict=True) if set(places) == {None}]
    known = recipe.joints - len(missing)
    return (f"every figure is of {known} joints; not annotated: {', '.join(missing)}",) if missing else ()


def _pictures(options: DatasetOptions, tables: list[Table], problems: Problems) -> tuple[Picture, ...]:
    pictures: dict[int, Picture] = {}
    for table in tables:
        image = image_from(table)
        if image is None:
            problems.add("image record without id or file_name", table.get("id", table.get("file_name")))
            continue
        if image.identity in pictures:
            problems.add("image id twice", image.identity)
            continue
        if options.kind == "crowdpose" and image.crowd_index is None:
            raise DatasetError(
                f"{options.annotations}: image {image.identity} has no 'crowdIndex'; CrowdPose's easy, medium and hard "
                "figures need it; verify with dataset 'custom' to go without"
            )
        path = options.images / image.file_name
        pictures[image.identity] = Picture(image.identity, path, image.size_wh, image.crowd_index)
    return tuple(pictures.values())


def _kept(pictures: tuple[Picture, ...], options: DatasetOptions, problems: Problems) -> NDArray[np.bool_]:
    """The pictures that exist, no more of them than the limit."""
    found = np.array([picture.path.is_file() for picture in pictures], bool)
    if len(found) and not found.any():
        raise DatasetError(
            f"none of the {len(found)} pictures is in '{options.images}' (first missing: '{pictures[0].path}'; in it: "
            f"{some_name(options.images)}); give the folder that the annotations' file names start from"
        )
    for picture, there in zip(pictures, found, strict=True):
        if not there:
            problems.add("picture missing, left out of every figure", picture.path.name)
    return found if options.limit is None else found & (np.cumsum(found) <= options.limit)


def _sizes_wh(pictures: tuple[Picture, ...]) -> NDArray[np.float64]:  # N x 2, infinite where it is not known
    return np.array([picture.size_wh or (np.inf, np.inf) for picture in pictures], np.float64).reshape(-1, 2)


def _truth(
    annotations: list[CocoRecord], position: Position, joints: CocoJoints, count: int, problems: Problems
) -> tuple[Truth, int]:
    rows: list[Row] = []
    without_area = 0
    for record in annotations:
        name = f"annotation {record.identity}"
        if record.image_id not in position:
            problems.add("annotation of an unknown image", name)
            continue
        picture, keypoints = position[record.image_id], joints.of_record(record)
        if picture is None:
            continue
        if record.crowd and keypoints is None:  # a crowd region: pycocotools ignores what lies on it
            keypoints = np.zeros((count, 3), np.float32)
        if keypoints is None:
            problems.add(joints.why_none(record, "annotation without a finite keypoint for each joint"), name)
            continue
        if record.box_xyxy is None:
            problems.add("annotation without a finite box", name)
            continue
        area = record.area_px2
        if area is None:
            area, without_area = float(areas_from_boxes(np.array(record.box_xyxy))), without_area + 1
        rows.append((picture, keypoints, record.box_xyxy, area, record.crowd, name, _category(record)))
    return _truth_from_rows(rows, count), without_area


def _category(record: CocoRecord) -> int:
    return PERSON if record.category is None else record.category


def _truth_from_rows(rows: list[Row], joints: int) -> Truth:
    return Truth(
        np.array([row[0] for row in rows], np.intp),
        np.array([row[1] for row in rows], np.float32).reshape(-1, joints, 3),
        np.array([row[2] for row in rows], np.float64).reshape(-1, 4),
        np.array([row[3] for row in rows], np.float64),
        np.array([row[4] for row in rows], bool),
        tuple(row[5] for row in rows),
        category=np.array([row[6] for row in rows], np.int64),
    )


def _annotated_persons(
    truth: Truth, sizes_wh: NDArray[np.float64], convention: Convention, problems: Problems
) -> dict[str, NDArray[Any]]:
    corners = truth.boxes_xyxy
    xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    cropped = boxes_from_annotations(xywh, sizes_wh[truth.picture].reshape(-1, 2), convention)
    seen = (truth.keypoints[..., 2] > 0).any(axis=1)
    wide = (cropped[:, 2:] > cropped[:, :2]).all(axis=1) & (truth.areas_px2 > 0)
    for row in np.flatnonzero(~truth.crowd & ~seen):
        problems.add("person without a visible joint, not cropped", truth.names[row])
    for row in np.flatnonzero(~truth.crowd & seen & ~wide):
        problems.add("zero-area box, person not cropped", truth.names[row])
    rows = np.flatnonzero(~truth.crowd & seen & wide)
    return {
        "picture": truth.picture[rows],
        "boxes_xyxy": cropped[rows],
        "box_scores": np.ones(len(rows)),
        "row": rows,
        "category": np.zeros(len(rows), np.int64) if truth.category is None else truth.category[rows],
    }


def _detected_persons(
    path: Path, position: Position, names: Mapping[int, str], kinds: Collection[int], problems: Problems
) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """The persons of a detection file, and remarks. DatasetError where no detection is of an annotated picture."""
    detections = result_tables(json_from_file(path, "the detection file", DatasetError), path, DatasetError)
    records, of_stems = of_pictures([record_from(table) for table in detections], names)
    if records and not any(record.image_id in position for record in records):
        given, number = detections[0].get("image_id"), next(iter(names))
        raise DatasetError(
            f"{path}: no detection is of an annotated picture: its image ids are such as {given!r}, and those of the "
            f"annotations such as {number} ('{names[number]}'); give the detections of these pictures"
        )
    found, of_persons = persons_among(records, kinds)
    rows: list[tuple[int, Box, float, int]] = []
    for number, record in enumerate(found):
        picture = None if record is None else position.get(record.image_id, UNKNOWN)
        if record is None or picture is None:
            continue
        if picture == UNKNOWN:
            problems.add("detection of an unknown image", f"detection {number}")
        elif record.box_xyxy is None or record.score is None:
            problems.add("detection without a finite box and score", f"detection {number}")
        elif not record.has_area:
            problems.add("detection with a zero-area box", f"detection {number}")
        else:
            rows.append((picture, record.box_xyxy, record.score, _category(record)))
    return {
        "picture": np.array([row[0] for row in rows], np.intp),
        "boxes_xyxy": np.array([row[1] for row in rows], np.float64).reshape(-1, 4),
        "box_scores": np.array([row[2] for row in rows], np.float64),
        "row": np.full(len(rows), -1, np.intp),
        "category": np.array([row[3] for row in rows], np.int64),
    }, (*of_stems, *of_persons)

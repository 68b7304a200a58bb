"""Reading annotation and detection files into a `Dataset`: the COCO keypoint format, its detections, and MPII's list.

Opens no picture; whether a picture exists is checked, so that a wrong folder is found at once and not after an hour.

    dataset = load_dataset(DatasetOptions("lsp", Path("val.json"), Path("lspet")), recipe)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import DatasetError
from sdk.evaluate.boxes import Convention, boxes_from_annotations
from sdk.evaluate.datasets import (
    DATASET_KINDS,
    Dataset,
    DatasetOptions,
    Picture,
    Problems,
    Truth,
    finite_numbers,
    limited,
    read_json,
    records_of,
)
from sdk.evaluate.mpii import mpii_dataset
from sdk.recipe import Recipe
from sdk.skeletons import Skeleton

__all__ = ["load_dataset"]

Record = Mapping[str, Any]
Position = dict[Any, int | None]  # image id -> position among the pictures, None for one that is left out

UNKNOWN = -1

AREA_SHARE = 0.53  # of the box, where an annotation has no area (as crowdposetools has it)
SKELETON_OF = {"coco": "coco17", "crowdpose": "crowdpose14", "mpii": "mpii16"}
SAME_JOINT = {"head": "top_head"}  # CrowdPose's own file calls the top of the head 'head'


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
    if options.kind == "mpii" and options.detections is not None:
        raise DatasetError("MPII is measured on its own centres and scales; leave the detections out")
    if not options.images.is_dir():
        raise DatasetError(f"the folder of images '{options.images}' does not exist; check the path")


def _from_coco(options: DatasetOptions, recipe: Recipe) -> Dataset:
    table = read_json(options.annotations, "the annotation file")
    problems = Problems()
    listed = _pictures(options, records_of(table, "images", options.annotations), problems)
    keep = _kept(listed, options, problems)
    pictures = tuple(picture for picture, kept in zip(listed, keep, strict=True) if kept)
    position = {
        picture.id: int(n) if kept else None for picture, n, kept in zip(listed, keep.cumsum() - 1, keep, strict=True)
    }
    notes = _joint_notes(records_of(table, "categories", options.annotations), recipe.skeleton, options.annotations)
    annotations = records_of(table, "annotations", options.annotations)
    truth, without_area = _truth(annotations, position, recipe.skeleton, problems)
    if without_area:
        notes += (f"{without_area} annotations have no area: 0.53 of the box is taken",)
    if options.detections is None:
        persons = _annotated_persons(truth, _sizes_wh(pictures), options.convention_for(recipe), problems)
    else:
        persons = _detected_persons(options.detections, position, problems)
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


def _pictures(options: DatasetOptions, records: list[Record], problems: Problems) -> tuple[Picture, ...]:
    pictures: dict[int, Picture] = {}
    for record in records:
        identity, name = record.get("id"), record.get("file_name")
        if type(identity) is not int or not isinstance(name, str):
            problems.add("image record without id or file_name", record.get("id", record.get("file_name")))
            continue
        if identity in pictures:
            problems.add("image id twice", identity)
            continue
        index, size = record.get("crowdIndex"), _size_wh(record)
        if options.kind == "crowdpose" and not isinstance(index, (int, float)):
            raise DatasetError(
                f"{options.annotations}: image {identity} has no 'crowdIndex'; CrowdPose's easy, medium and hard "
                "figures need it; verify with dataset 'custom' to go without"
            )
        pictures[identity] = Picture(identity, options.images / name, size, index)
    return tuple(pictures.values())


def _kept(pictures: tuple[Picture, ...], options: DatasetOptions, problems: Problems) -> NDArray[np.bool_]:
    """The pictures that exist, no more of them than the limit."""
    found = np.array([picture.path.is_file() for picture in pictures], bool)
    if len(found) and not found.any():
        raise DatasetError(
            f"none of the {len(found)} pictures is in '{options.images}' (first missing: '{pictures[0].path}'); "
            "give the folder that the annotations' file names start from"
        )
    for picture, there in zip(pictures, found, strict=True):
        if not there:
            problems.add("picture missing, left out of every figure", picture.path.name)
    return found if options.limit is None else found & (np.cumsum(found) <= options.limit)


def _sizes_wh(pictures: tuple[Picture, ...]) -> NDArray[np.float64]:  # N x 2, infinite where it is not known
    return np.array([picture.size_wh or (np.inf, np.inf) for picture in pictures], np.float64).reshape(-1, 2)


def _size_wh(record: Record) -> tuple[int, int] | None:
    width, height = record.get("width"), record.get("height")
    return (width, height) if type(width) is int and type(height) is int and min(width, height) > 0 else None


def _joint_notes(categories: list[Record], skeleton: Skeleton, path: Path) -> tuple[str, ...]:
    named = [category["keypoints"] for category in categories if category.get("keypoints")]
    if not named:
        return ("the annotations do not name their joints; they are taken to be in the engine's order",)
    names = [SAME_JOINT.get(str(name), str(name)) for name in named[0]]
    joints = list(skeleton.joints)
    if len(names) != len(joints):
        raise DatasetError(f"{path}: annotated joints must be the engine's {len(joints)} (got {len(names)}: {names})")
    if sorted(names) == sorted(joints) and names != joints:
        raise DatasetError(f"{path}: joints must be in the engine's order {joints} (got {names}); reorder the file")
    different = [f"'{theirs}' for '{ours}'" for theirs, ours in zip(names, joints, strict=True) if theirs != ours]
    return (f"the annotations name joints differently: {', '.join(different)}",) if different else ()


def _truth(annotations: list[Record], position: Position, skeleton: Skeleton, problems: Problems) -> tuple[Truth, int]:
    joints = len(skeleton.joints)
    rows: list[tuple[int, NDArray[np.float32], list[float], float, bool, str]] = []
    without_area = 0
    for record in annotations:
        name = f"annotation {record.get('id')}"
        if record.get("image_id") not in position:
            problems.add("annotation of an unknown image", name)
            continue
        picture = position[record["image_id"]]
        if picture is None:
            continue
        crowd = bool(record.get("iscrowd", 0))
        points, box = finite_numbers(record.get("keypoints"), 3 * joints), finite_numbers(record.get("bbox"), 4)
        if points is None and crowd:  # a crowd region: pycocotools ignores what lies on it
            points = [0.0] * 3 * joints
        if points is None:
            problems.add(f"annotation without {joints} finite keypoints", name)
            continue
        if box is None:
            problems.add("annotation without a finite box", name)
            continue
        area = record.get("area")
        if not isinstance(area, (int, float)) or not np.isfinite(area):
            area, without_area = AREA_SHARE * box[2] * box[3], without_area + 1
        keypoints = np.asarray(points, np.float32).reshape(joints, 3)
        rows.append((picture, keypoints, box, float(area), crowd, name))
    return _truth_from_rows(rows, joints), without_area


def _truth_from_rows(rows: list[tuple[int, NDArray[np.float32], list[float], float, bool, str]], joints: int) -> Truth:
    boxes = np.array([row[2] for row in rows], np.float64).reshape(-1, 4)
    return Truth(
        np.array([row[0] for row in rows], np.intp),
        np.array([row[1] for row in rows], np.float32).reshape(-1, joints, 3),
        np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        np.array([row[3] for row in rows], np.float64),
        np.array([row[4] for row in rows], bool),
        tuple(row[5] for row in rows),
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
    }


def _detected_persons(path: Path, position: Position, problems: Problems) -> dict[str, NDArray[Any]]:
    records = read_json(path, "the detection file")
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DatasetError(f"{path}: detections must be a list of tables with image_id, category_id, bbox and score")
    rows: list[tuple[int, list[float], float]] = []
    for number, record in enumerate(records):
        box, score = finite_numbers(record.get("bbox"), 4), record.get("score")
        picture = position.get(record.get("image_id"), UNKNOWN)
        if record.get("category_id", 1) != 1 or picture is None:
            continue
        if picture == UNKNOWN:
            problems.add("detection of an unknown image", f"detection {number}")
        elif box is None or not isinstance(score, (int, float)) or not np.isfinite(score):
            problems.add("detection without a finite box and score", f"detection {number}")
        elif box[2] <= 0 or box[3] <= 0:
            problems.add("detection with a zero-area box", f"detection {number}")
        else:
            rows.append((picture, box, float(score)))
    boxes = np.array([row[1] for row in rows], np.float64).reshape(-1, 4)
    return {
        "picture": np.array([row[0] for row in rows], np.intp),
        "boxes_xyxy": np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        "box_scores": np.array([row[2] for row in rows], np.float64),
        "row": np.full(len(rows), -1, np.intp),
    }

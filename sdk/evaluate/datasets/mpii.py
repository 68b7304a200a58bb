"""MPII's annotations as HRNet's code and mmpose keep them: a list of records, counted from 1, and head sizes.

A record holds image, center, scale, joints (16 x 2) and joints_vis; the head boxes that PCKh needs lie in another file,
MPII's `gt_valid.mat`, or in the records as `head_box` (xyxy).

    dataset = mpii_dataset(DatasetOptions("mpii", Path("mpii_val.json"), Path("images")), recipe)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.coco import finite_number, finite_numbers
from sdk.errors import DatasetError, MissingDependencyError
from sdk.evaluate.datasets.boxes import boxes_from_mpii
from sdk.evaluate.datasets.dataset import Dataset, DatasetOptions, Picture, Problems, Truth
from sdk.reading import json_from_file
from sdk.recipe import Recipe
from sdk.skeletons import Skeleton

__all__ = ["head_size_px", "mpii_dataset"]

Record = Mapping[str, Any]

HEAD_SHARE = 0.6  # of the head box's diagonal (MPII: SC_BIAS)


def mpii_dataset(options: DatasetOptions, recipe: Recipe) -> Dataset:
    records = json_from_file(options.annotations, "the annotation file", DatasetError)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DatasetError(f"{options.annotations}: must be a list of tables, as in MPII's mpii_val.json")
    problems = Problems()
    rows, names, centres, scales, paths = [], [], [], [], []
    for number, record in enumerate(records):
        usable = _mpii_row(record, recipe.joints)
        if usable is None:
            problems.add("record without image, centre, scale, joints and joints_vis", f"record {number}")
            continue
        keypoints, centre, scale = usable
        rows.append((number, keypoints))
        names.append(f"record {number}")
        centres.append(centre)
        scales.append(scale)
        paths.append(str(record["image"]))
    numbers = [number for number, _ in rows]
    heads, note = _head_sizes(options, records, numbers, [keypoints for _, keypoints in rows], recipe.skeleton)
    unique = {path: n for n, path in enumerate(dict.fromkeys(paths))}
    boxes = boxes_from_mpii(np.array(centres, np.float64).reshape(-1, 2), np.array(scales, np.float64))
    picture = np.array([unique[path] for path in paths], np.intp)
    keypoints_all = np.array([keypoints for _, keypoints in rows], np.float32).reshape(-1, recipe.joints, 3)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    truth = Truth(picture, keypoints_all, boxes, areas, np.zeros(len(rows), bool), tuple(names), heads)
    order = np.argsort(picture, kind="stable")
    return Dataset(
        "mpii",
        recipe.skeleton,
        tuple(Picture(n, options.images / path) for path, n in unique.items()),
        truth,
        picture[order],
        boxes[order],
        np.ones(len(rows)),
        order,
        "annotated",
        options.convention_for(recipe),
        problems,
        (note,) if note else (),
    )


def head_size_px(head_boxes_xyxy: NDArray[np.floating]) -> NDArray[np.float64]:  # N x 4 -> N
    """MPII's head size: 0.6 of the head box's diagonal."""
    boxes = np.asarray(head_boxes_xyxy, np.float64)
    size: NDArray[np.float64] = HEAD_SHARE * np.linalg.norm(boxes[:, 2:] - boxes[:, :2], axis=1)
    return size


def _mpii_row(record: Record, joints: int) -> tuple[NDArray[np.float32], list[float], float] | None:
    centre, scale = finite_numbers(record.get("center"), 2), finite_number(record.get("scale"))
    points, seen = record.get("joints"), record.get("joints_vis")
    if centre is None or scale is None or scale <= 0 or not isinstance(record.get("image"), str):
        return None
    if not isinstance(points, list) or not isinstance(seen, list) or len(points) != joints or len(seen) != joints:
        return None
    if any(finite_numbers(point, 2) is None for point in points) or finite_numbers(seen) is None:
        return None
    zero_based = np.asarray(points, np.float32) - 1
    return np.concatenate([zero_based, np.asarray(seen, np.float32)[:, None]], axis=1), centre, scale


def _head_sizes(
    options: DatasetOptions, records: list[Record], numbers: list[int], keypoints: list[Any], skeleton: Skeleton
) -> tuple[NDArray[np.float64], str | None]:
    if options.head_boxes is not None:
        return head_size_px(_head_boxes_from_mat(options.head_boxes, len(records))[numbers]), None
    given = [finite_numbers(records[number].get("head_box"), 4) for number in numbers]
    if all(box is not None for box in given):
        return head_size_px(np.array(given, np.float64).reshape(-1, 4)), None
    top, neck = skeleton.joints.index("head_top"), skeleton.joints.index("upper_neck")
    points = np.array(keypoints, np.float64).reshape(-1, len(skeleton.joints), 3)
    lengths = np.linalg.norm(points[:, top, :2] - points[:, neck, :2], axis=1)
    return np.maximum(lengths, 1.0), (
        "no head boxes were given: the head is the distance from upper neck to head top, which is not MPII's measure; "
        "give gt_valid.mat with --head-boxes for comparable figures"
    )


def _head_boxes_from_mat(path: Path, count: int) -> NDArray[np.float64]:  # N x 4 xyxy
    try:
        from scipy.io import loadmat  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingDependencyError(
            "reading head boxes from a .mat file needs scipy; pip install scipy, or put 'head_box' into the records"
        ) from error
    try:
        boxes = np.asarray(loadmat(str(path))["headboxes_src"], np.float64)  # 2 x 2 x N: corner, xy, person
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(f"head boxes '{path}' must be MPII's gt_valid.mat with 'headboxes_src' ({error})") from error
    if boxes.shape != (2, 2, count):
        raise DatasetError(f"{path}: headboxes_src must be 2 x 2 x {count}, one a record (got {boxes.shape})")
    return boxes.reshape(4, count).T

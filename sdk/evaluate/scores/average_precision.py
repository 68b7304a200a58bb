"""OKS average precision: COCO's figures by pycocotools, CrowdPose's by faster-coco-eval, and the matches behind them.

Takes plain records and gives per cent; reads no file and runs no network. Records of the truth hold image_id, bbox
(xywh), area, iscrowd and keypoints (flat x, y, v); results hold image_id, score and keypoints (flat x, y, score), and
may hold bbox, which is else the keypoints' extent.

    ap = coco_ap(truth, results, image_ids, sigmas)
    ap.figures["AP"], ap.curves["AP50"], ResampledAp(ap.matches)(image_counts)
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import MissingDependencyError
from sdk.oks import AREA_SHARE

__all__ = ["Ap", "Matches", "ResampledAp", "coco_ap", "crowdpose_ap"]

Record = dict[str, Any]
Float64Array = NDArray[np.float64]

CATEGORY = 1
RECALLS = np.linspace(0.0, 1.0, 101)
CROWD_EASY_BELOW, CROWD_HARD_FROM = 0.2, 0.8  # crowd index, as in crowdposetools


@dataclass(frozen=True)
class Matches:
    """Which results matched at the OKS thresholds 0.50, 0.55 .. 0.95; results of all images, best score first."""

    image: NDArray[np.intp]  # D, position in image_ids
    right: NDArray[np.bool_]  # 10 x D
    wrong: NDArray[np.bool_]  # 10 x D; neither: matched or lies on something that does not count
    wanted: NDArray[np.int64]  # I, annotated persons that count, per image


@dataclass(frozen=True)
class Ap:
    """Figures in per cent (NaN where nothing was annotated), precision by recall 0, 0.01 .. 1, and the matches."""

    figures: Mapping[str, float]
    curves: Mapping[str, Float64Array]  # 101 each
    matches: Matches


def coco_ap(
    truth: Sequence[Record], results: Sequence[Record], image_ids: Sequence[int], sigmas: Sequence[float]
) -> Ap:
    """AP, AP50, AP75, APM, APL and AR of `results` on the images `image_ids`, by pycocotools."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingDependencyError(
            "AP needs pycocotools; install it with pip install 'simcc-edge-sdk[eval]'"
        ) from error
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            _indexed(COCO(), _truth_table(truth, image_ids)),
            _indexed(COCO(), _results_table(results, image_ids)),
            "keypoints",
        )
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas, np.float64)
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, :, 0]  # T x R x area
    recall = evaluation.eval["recall"][:, 0, :, 0]  # T x area
    figures = {**_figures(precision, recall), "APM": _mean(precision[..., 1]), "APL": _mean(precision[..., 2])}
    order = ("AP", "AP50", "AP75", "APM", "APL", "AR")
    curves = {name: 100 * curve for name, curve in _curves(precision[..., 0]).items()}
    return Ap({name: figures[name] for name in order}, curves, _matches(evaluation, image_ids))


def crowdpose_ap(
    truth: Sequence[Record],
    results: Sequence[Record],
    crowd_index: Mapping[int, float],  # image id -> crowd index
    sigmas: Sequence[float],
) -> Ap:
    """AP, AP50, AP75, AR and AP of the easy, medium and hard images, by faster-coco-eval.

    The area of a person is a share of its box, as in crowdposetools. A split without images is NaN, not -100.
    """
    boxed = [{**record, "area": AREA_SHARE * record["bbox"][2] * record["bbox"][3]} for record in truth]
    plain = coco_ap(boxed, results, list(crowd_index), sigmas)
    splits = {
        "all": list(crowd_index),
        "AP easy": [i for i, value in crowd_index.items() if value < CROWD_EASY_BELOW],
        "AP medium": [i for i, value in crowd_index.items() if CROWD_EASY_BELOW <= value < CROWD_HARD_FROM],
        "AP hard": [i for i, value in crowd_index.items() if value >= CROWD_HARD_FROM],
    }
    found = {name: _crowd_precision(boxed, results, ids, sigmas) for name, ids in splits.items()}
    precision, recall = found.pop("all")
    figures = _figures(precision[..., None], recall[..., None])
    figures.update({name: _mean(split) for name, (split, _) in found.items()})
    return Ap(figures, plain.curves, plain.matches)


class ResampledAp:
    """AP with images counted several times or not at all: bootstrap samples without matching again.

    Precision is looked at where a result is right: only there recall rises, and only there precision can peak.
    """

    def __init__(self, matches: Matches) -> None:
        self._image, self._wanted = matches.image, matches.wanted
        self._right = [np.flatnonzero(row) for row in matches.right]
        self._ignored = [np.flatnonzero(row) for row in ~matches.right & ~matches.wrong]

    def __call__(self, image_counts: NDArray[np.integer]) -> float:  # I, ones give AP itself
        """AP in per cent, each image counted `image_counts` times; NaN where nothing was annotated."""
        weights = image_counts[self._image].astype(np.float64)
        wanted = int((self._wanted * image_counts).sum())
        if wanted == 0:
            return float("nan")
        seen = np.cumsum(weights)
        rows = zip(self._right, self._ignored, strict=True)
        return 100 * float(np.mean([_mean_precision(weights, seen, *row, wanted) for row in rows]))


def _mean_precision(
    weights: Float64Array,  # D
    seen: Float64Array,  # D, their running sum
    right: NDArray[np.intp],
    ignored: NDArray[np.intp],
    wanted: int,
) -> float:
    """Precision at 101 recalls, averaged, for one OKS threshold."""
    found = np.cumsum(weights[right])
    passed_over = np.concatenate([[0.0], np.cumsum(weights[ignored])])[np.searchsorted(ignored, right)]
    precision = found / np.maximum(seen[right] - passed_over, np.spacing(1))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.append(envelope, 0.0)[np.searchsorted(found / wanted, RECALLS)].mean())


def _figures(precision: Float64Array, recall: Float64Array) -> dict[str, float]:
    return {
        "AP": _mean(precision[..., 0]),
        "AP50": _mean(precision[0, :, 0]),
        "AP75": _mean(precision[5, :, 0]),
        "AR": _mean(recall[..., 0]),
    }


def _curves(precision: Float64Array) -> dict[str, Float64Array]:  # T x R
    return {"AP": precision.mean(axis=0), "AP50": precision[0], "AP75": precision[5]}


def _mean(values: Float64Array) -> float:
    known = values[values > -1]  # both tools mark with -1 what had nothing to find
    return 100 * float(known.mean()) if known.size else float("nan")


def _crowd_precision(
    truth: Sequence[Record], results: Sequence[Record], image_ids: Sequence[int], sigmas: Sequence[float]
) -> tuple[Float64Array, Float64Array]:
    """Precision (10 x 101) and recall (10) of the images, -1 where nothing was annotated."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise MissingDependencyError(
            "CrowdPose AP needs faster-coco-eval; install it with pip install 'simcc-edge-sdk[eval]'"
        ) from error
    if not image_ids:
        return -np.ones((10, len(RECALLS))), -np.ones(10)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval_faster(
            COCO(_truth_table(truth, image_ids)),
            _indexed(COCO(), _results_table(results, image_ids)),
            "keypoints_crowd",
            print_function=lambda *_: None,
            kpt_oks_sigmas=list(sigmas),
            use_area=False,
        )
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    return np.asarray(precision)[:, :, 0, 0, 0], np.asarray(recall)[:, 0, 0, 0]


def _indexed(coco: Any, table: Record) -> Any:
    coco.dataset = table
    coco.createIndex()
    return coco


def _truth_table(truth: Sequence[Record], image_ids: Sequence[int]) -> Record:
    """The truth as both tools want it. Ids start at 1: pycocotools takes a match with id 0 for none."""
    chosen = set(image_ids)
    annotations = [
        {
            "id": number,
            "image_id": record["image_id"],
            "category_id": CATEGORY,
            "bbox": list(record["bbox"]),
            "area": record["area"],
            "iscrowd": record["iscrowd"],
            "keypoints": list(record["keypoints"]),
            "num_keypoints": sum(1 for v in record["keypoints"][2::3] if v > 0),
        }
        for number, record in enumerate(truth, start=1)
        if record["image_id"] in chosen
    ]
    return {**_images_and_categories(image_ids), "annotations": annotations}


def _results_table(results: Sequence[Record], image_ids: Sequence[int]) -> Record:
    """Results with the box and area that pycocotools' `loadRes` gives them: those of the keypoints' extent."""
    chosen = set(image_ids)
    annotations: list[Record] = []
    for record in results:
        if record["image_id"] not in chosen:
            continue
        xs, ys = record["keypoints"][0::3], record["keypoints"][1::3]
        extent = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
        left, top, width, height = record.get("bbox", extent)
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": record["image_id"],
                "category_id": CATEGORY,
                "keypoints": list(record["keypoints"]),
                "score": record["score"],
                "bbox": [left, top, width, height],
                "area": width * height,
                "iscrowd": 0,
            }
        )
    return {**_images_and_categories(image_ids), "annotations": annotations}


def _images_and_categories(image_ids: Sequence[int]) -> Record:
    return {
        "info": {},
        "images": [{"id": i, "width": 0, "height": 0} for i in image_ids],
        "categories": [{"id": CATEGORY, "name": "person"}],
    }


def _matches(evaluation: Any, image_ids: Sequence[int]) -> Matches:
    """The matches of pycocotools over all areas, in its order: stable by falling score over images by rising id."""
    by_image = {entry["image_id"]: entry for entry in evaluation.evalImgs[: len(evaluation.params.imgIds)] if entry}
    position = {image_id: n for n, image_id in enumerate(image_ids)}
    wanted = np.zeros(len(image_ids), np.int64)
    images: list[int] = []
    scores: list[float] = []
    matched, ignored = [np.zeros((10, 0), bool)], [np.zeros((10, 0), bool)]
    for image_id in evaluation.params.imgIds:
        entry = by_image.get(image_id)
        if entry is None:
            continue
        wanted[position[image_id]] = int((np.asarray(entry["gtIgnore"]) == 0).sum())
        images += [position[image_id]] * len(entry["dtScores"])
        scores += entry["dtScores"]
        matched.append(np.asarray(entry["dtMatches"]) > 0)
        ignored.append(np.asarray(entry["dtIgnore"]) > 0)
    order = np.argsort(-np.asarray(scores, np.float64), kind="mergesort")
    match, ignore = np.concatenate(matched, axis=1)[:, order], np.concatenate(ignored, axis=1)[:, order]
    return Matches(np.asarray(images, np.intp)[order], match & ~ignore, ~match & ~ignore, wanted)

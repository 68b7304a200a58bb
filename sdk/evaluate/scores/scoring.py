"""From predictions to figures: the metric of each dataset, its curves, its joints, its persons and its bootstrap.

    scores = scores_of(dataset, predictions, Rules.from_recipe(recipe))
    scores.headline, scores.figures[scores.headline]            # 'AP', 74.1

Headlines: COCO, CrowdPose, COCO-WholeBody and AP-10K AP; MPII PCKh@0.5; hands PCK@0.2; faces NME; LSP and custom data
PCK@0.2 on annotated boxes, else AP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sdk.coco import PERSON
from sdk.evaluate.datasets.dataset import Dataset
from sdk.evaluate.scores.average_precision import Ap, ResampledAp, coco_ap, crowdpose_ap
from sdk.evaluate.scores.hands_faces import (
    AUC_PX,
    AUC_THRESHOLDS,
    auc,
    box_pck,
    box_sides_px,
    end_point_error_px,
    measure_px,
    nme,
    share_of_joints,
)
from sdk.evaluate.scores.oks import joint_oks, mean_of_annotated, nms_keep, person_oks, person_scores, soft_nms_keep
from sdk.evaluate.scores.part_precision import kinds_ap, wholebody_ap
from sdk.evaluate.scores.pck import MPII_GROUPS, MPII_LEFT_OUT, Pck, joint_hits, pck, pckh, torso_px
from sdk.geometry import crop_affines
from sdk.recipe import Recipe

__all__ = ["Nms", "Rules", "Scores", "results_of", "scores_of", "truth_rows"]

Nms = Literal["hard", "soft", "none"]
Float64Array = NDArray[np.float64]
PersonArray = NDArray[np.float32]
Resampled = Callable[[NDArray[np.integer]], float]

THRESHOLDS = (0.2, 0.1)  # PCK, of the torso
HEAD_THRESHOLDS = (0.5, 0.1)  # PCKh, of the head
CURVE = np.linspace(0.0, 0.5, 51)


@dataclass(frozen=True)
class Rules:
    """How persons are scored and thinned out, and the crop that gives OKS-NMS its area."""

    recipe: Recipe
    nms: Nms = "hard"

    @property
    def joint_threshold(self) -> float:
        return self.recipe.joint_threshold

    @property
    def oks_threshold(self) -> float:
        return self.recipe.protocol.oks_threshold


@dataclass(frozen=True)
class Scores:
    """All that a report shows of one engine's accuracy. Figures in per cent; curves by name, as (x, y)."""

    headline: str
    figures: Mapping[str, float]
    joints: Mapping[str, Float64Array]  # K each, per cent, NaN where not annotated
    curves: Mapping[str, tuple[Float64Array, Float64Array]]
    curve_axes: tuple[str, str]
    person_quality: Float64Array  # P, OKS with the person's annotation, NaN where there is none
    resampled: Resampled  # how often each picture is drawn -> the headline
    lower_is_better: bool = False  # the headline is an error


def scores_of(dataset: Dataset, persons: PersonArray, rules: Rules) -> Scores:  # P x K x 3
    """The figures of `persons` on `dataset`, both without pictures that could not be used."""
    rows = truth_rows(dataset, persons)
    quality = _quality(dataset, persons, rows)
    if dataset.kind == "mpii":
        return _mpii_scores(dataset, persons, rows, quality)
    if dataset.kind == "face":
        return _face_scores(dataset, persons, rows, quality)
    similarity = _joint_similarity(dataset, persons, rows)
    joints = {"OKS of the joint": similarity}
    if dataset.kind == "hand":
        return _hand_scores(dataset, persons, rows, quality, joints)
    if dataset.kind == "ap10k":
        kinds = kinds_ap(_records(dataset), results_of(dataset, persons, rules), _ids(dataset), dataset.skeleton.sigmas)
        return _ap_scores(kinds.figures, kinds.curves, joints, quality, kinds.resampled)
    ap = _ap(dataset, persons, rules)
    if dataset.kind in ("coco", "crowdpose", "wholebody") or dataset.boxes == "detected":
        return _ap_scores(ap.figures, ap.curves, joints, quality, ResampledAp(ap.matches))
    return _pck_scores(dataset, persons, rows, quality, ap, joints)


def _ap_scores(
    figures: Mapping[str, float],
    curves: Mapping[str, Float64Array],
    joints: Mapping[str, Float64Array],
    quality: Float64Array,
    resampled: Resampled,
) -> Scores:
    drawn = {name: (np.linspace(0, 100, len(curve)), curve) for name, curve in curves.items()}
    return Scores("AP", figures, joints, drawn, ("recall, %", "precision, %"), quality, resampled)


def results_of(dataset: Dataset, persons: PersonArray, rules: Rules) -> list[dict[str, Any]]:  # P x K x 3
    """COCO results after scoring and OKS-NMS: image_id, category_id, keypoints, score."""
    scores = person_scores(persons[..., 2], dataset.box_scores, rules.joint_threshold)
    areas = _crop_areas(dataset, rules.recipe)
    results = []
    for position, picture in enumerate(dataset.pictures):
        first, last = np.searchsorted(dataset.picture, [position, position + 1])
        for row in first + np.array(_kept(persons[first:last], scores[first:last], areas[first:last], rules), int):
            results.append(
                {
                    "image_id": picture.id,
                    "category_id": _kind(dataset, dataset.category, row),
                    "keypoints": persons[row].astype(np.float64).ravel().tolist(),
                    "score": float(scores[row]),
                }
            )
    return results


def truth_rows(dataset: Dataset, persons: PersonArray) -> NDArray[np.intp]:  # P x K x 3 -> P
    """Each person's row of the truth: its own, or for a detection the annotation it fits best by OKS; -1 for none."""
    if dataset.boxes == "annotated":
        return dataset.row
    truth, rows = dataset.truth, np.full(len(dataset), -1, np.intp)
    order = np.flatnonzero(~truth.crowd)
    order = order[np.argsort(truth.picture[order], kind="stable")]
    edges = np.searchsorted(truth.picture[order], np.arange(len(dataset.pictures) + 1))
    for position in np.unique(dataset.picture):
        there = order[edges[position] : edges[position + 1]]
        here = slice(*np.searchsorted(dataset.picture, [position, position + 1]))
        rows[here] = _best_fits(dataset, persons[here], there)
    return rows


def _best_fits(dataset: Dataset, persons: PersonArray, there: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each of a picture's persons the row of `there` with the highest OKS, -1 where no joint is annotated."""
    if not len(there):
        return np.full(len(persons), -1, np.intp)
    person, candidate = np.divmod(np.arange(len(persons) * len(there)), len(there))
    rows, truth = there[candidate], dataset.truth
    fits = person_oks(persons[person], truth.keypoints[rows], truth.areas_px2[rows], dataset.skeleton.tolerances)
    fits = np.nan_to_num(fits, nan=-1.0).reshape(len(persons), len(there))
    return np.where(fits.max(axis=1) >= 0, there[fits.argmax(axis=1)], -1)


def _kept(persons: PersonArray, scores: Float64Array, areas: Float64Array, rules: Rules) -> list[int]:
    if rules.nms == "none" or not len(persons):
        return list(range(len(persons)))
    thin = nms_keep if rules.nms == "hard" else soft_nms_keep
    return thin(persons[..., :2], scores, areas, rules.recipe.skeleton.tolerances, rules.oks_threshold)


def _crop_areas(dataset: Dataset, recipe: Recipe) -> Float64Array:  # P
    """The area of each crop in frame pixels: the box widened to the aspect and padded, as both codes take it."""
    height, width = recipe.input.size_hw
    affines = crop_affines(dataset.boxes_xyxy.astype(np.float32), (height, width), recipe.input.box_padding)
    area: Float64Array = affines[:, 0, 0].astype(np.float64) ** 2 * height * width
    return area


def _ap(dataset: Dataset, persons: PersonArray, rules: Rules) -> Ap:
    records, results, sigmas = _records(dataset), results_of(dataset, persons, rules), dataset.skeleton.sigmas
    if dataset.kind == "wholebody":
        return wholebody_ap(records, results, _ids(dataset), dataset.skeleton)
    if dataset.kind == "crowdpose":
        index = {picture.id: float(picture.crowd_index or 0.0) for picture in dataset.pictures}
        return crowdpose_ap(records, results, index, sigmas)
    return coco_ap(records, results, _ids(dataset), sigmas)


def _kind(dataset: Dataset, category: NDArray[np.int64] | None, row: int) -> int:
    """The category of a row, where the dataset has kinds that are scored apart."""
    return PERSON if category is None or dataset.kind != "ap10k" else int(category[row])


def _ids(dataset: Dataset) -> list[int]:
    return [picture.id for picture in dataset.pictures]


def _records(dataset: Dataset) -> list[dict[str, Any]]:
    """The truth as COCO's evaluation takes it."""
    truth = dataset.truth
    return [
        {
            "image_id": dataset.pictures[truth.picture[row]].id,
            "bbox": [*truth.boxes_xyxy[row, :2], *(truth.boxes_xyxy[row, 2:] - truth.boxes_xyxy[row, :2])],
            "area": float(truth.areas_px2[row]),
            "iscrowd": int(truth.crowd[row]),
            "category_id": _kind(dataset, truth.category, row),
            "keypoints": truth.keypoints[row].astype(np.float64).ravel().tolist(),
        }
        for row in range(len(truth.names))
    ]


def _quality(dataset: Dataset, persons: PersonArray, rows: NDArray[np.intp]) -> Float64Array:
    quality = np.full(len(dataset), np.nan)
    known, truth = rows >= 0, dataset.truth
    quality[known] = person_oks(
        persons[known], truth.keypoints[rows[known]], truth.areas_px2[rows[known]], dataset.skeleton.tolerances
    )
    return quality


def _joint_similarity(dataset: Dataset, persons: PersonArray, rows: NDArray[np.intp]) -> Float64Array:  # K, per cent
    known, truth = rows >= 0, dataset.truth
    similarity = joint_oks(
        persons[known], truth.keypoints[rows[known]], truth.areas_px2[rows[known]], dataset.skeleton.tolerances
    )
    return 100 * mean_of_annotated(similarity, axis=0)


def _pck_scores(
    dataset: Dataset,
    persons: PersonArray,
    rows: NDArray[np.intp],
    quality: Float64Array,
    ap: Ap,
    joints: dict[str, Float64Array],
) -> Scores:
    truth = dataset.truth.keypoints[rows]
    torsos = torso_px(truth, dataset.truth.boxes_xyxy[rows], dataset.skeleton)

    def share(threshold: float) -> Pck:
        return pck(persons[..., :2], truth, torsos, threshold)

    shares = {f"PCK@{threshold}": share(threshold) for threshold in THRESHOLDS}
    figures = {**{name: each.mean for name, each in shares.items()}, **ap.figures}
    curve = np.array([share(threshold).mean for threshold in CURVE])
    hits = joint_hits(persons[..., :2], truth, THRESHOLDS[0] * torsos, strict=True)
    return Scores(
        "PCK@0.2",
        figures,
        {**{name: each.per_joint for name, each in shares.items()}, **joints},
        {"PCK": (CURVE, curve)},
        ("distance, torsos", "joints within, %"),
        quality,
        _resampled_share(hits, truth[..., 2] > 0, dataset),
    )


def _mpii_scores(dataset: Dataset, persons: PersonArray, rows: NDArray[np.intp], quality: Float64Array) -> Scores:
    assert dataset.truth.head_px is not None, "MPII is always loaded with head sizes"
    truth, heads, skeleton = dataset.truth.keypoints[rows], dataset.truth.head_px[rows], dataset.skeleton

    def share(threshold: float) -> Pck:
        return pckh(persons[..., :2], truth, heads, threshold, skeleton)

    shares = {f"PCKh@{threshold}": share(threshold) for threshold in HEAD_THRESHOLDS}
    figures = {name: each.mean for name, each in shares.items()}
    for group, names in MPII_GROUPS.items():
        members = [skeleton.joints.index(name) for name in names]
        figures[f"PCKh@0.5 {group}"] = float(np.mean(shares["PCKh@0.5"].per_joint[members]))
    curve = np.array([share(threshold).mean for threshold in CURVE])
    hits = joint_hits(persons[..., :2], truth, HEAD_THRESHOLDS[0] * heads, strict=False)
    counts = np.array([name not in MPII_LEFT_OUT for name in skeleton.joints])
    return Scores(
        "PCKh@0.5",
        figures,
        {name: each.per_joint for name, each in shares.items()},
        {"PCKh": (CURVE, curve)},
        ("distance, heads", "joints within, %"),
        quality,
        _resampled_share(hits & counts, (truth[..., 2] > 0) & counts, dataset),
    )


def _hand_scores(
    dataset: Dataset,
    persons: PersonArray,
    rows: NDArray[np.intp],
    quality: Float64Array,
    joints: Mapping[str, Float64Array],
) -> Scores:
    truth, sides = dataset.truth.keypoints[rows], box_sides_px(dataset.truth.boxes_xyxy[rows])
    found, thirty = persons[..., :2], np.full(len(persons), AUC_PX)
    shares = box_pck(found, truth, sides, THRESHOLDS[0])
    curve = np.array([np.nanmean(box_pck(found, truth, thirty, float(t))) for t in AUC_THRESHOLDS])
    hits, annotated = joint_hits(found, truth, THRESHOLDS[0] * sides, strict=True), truth[..., 2] > 0

    def resampled(counts: NDArray[np.integer]) -> float:
        return float(np.nanmean(share_of_joints(hits, annotated, counts[dataset.picture])))

    return Scores(
        "PCK@0.2",
        {"PCK@0.2": float(np.nanmean(shares)), "AUC": auc(found, truth), "EPE, px": end_point_error_px(found, truth)},
        {"PCK@0.2": shares, **joints},
        {"PCK": (AUC_PX * AUC_THRESHOLDS, curve)},
        ("distance, px", "joints within, %"),
        quality,
        resampled,
    )


def _face_scores(dataset: Dataset, persons: PersonArray, rows: NDArray[np.intp], quality: Float64Array) -> Scores:
    assert dataset.skeleton.nme_joints is not None, "a face dataset is loaded for such sets alone"
    truth = dataset.truth.keypoints[rows]
    errors = nme(persons[..., :2], truth, measure_px(truth, dataset.skeleton.nme_joints))
    faces = errors.per_face[np.isfinite(errors.per_face)]
    limits = np.linspace(0.0, 10.0, 51)  # per cent
    within = np.array([100 * float((faces <= limit).mean()) if faces.size else np.nan for limit in limits])

    def resampled(counts: NDArray[np.integer]) -> float:
        weights = counts[dataset.picture]
        total = float((weights * errors.counted).sum())
        return float((weights * errors.sums).sum()) / total if total else float("nan")

    return Scores(
        "NME",
        {"NME": errors.mean, "faces above NME 10": 100 * float((faces > 10).mean()) if faces.size else float("nan")},
        {"NME of the joint": errors.per_joint},
        {"faces": (limits, within)},
        ("NME, %", "faces within, %"),
        quality,
        resampled,
        lower_is_better=True,
    )


def _resampled_share(hits: NDArray[np.bool_], annotated: NDArray[np.bool_], dataset: Dataset) -> Resampled:
    """The micro-average with pictures drawn again, from each person's right and annotated joints (both P x K)."""
    right, wanted = hits.sum(axis=1), annotated.sum(axis=1)

    def resampled(counts: NDArray[np.integer]) -> float:
        weights = counts[dataset.picture]
        total = float((weights * wanted).sum())
        return 100 * float((weights * right).sum()) / total if total else float("nan")

    return resampled

"""AP of the parts of a whole body, and of animals kind by kind: OKS AP of slices of the same records.

    wholebody_ap(truth, results, image_ids, skeleton).figures["AP face"]        # beside AP, of all 133 joints
    found = kinds_ap(truth, results, image_ids, sigmas)                         # records with category_id
    found.figures["AP"], found.resampled(image_counts)

Whole bodies are scored as xtcocotools does (COCO-WholeBody: Jin et al., ECCV 2020): each part by the sigmas of its
joints and the person's area, a person without annotated joints of the part ignored, a result whose joints of the part
all score 0 or less left out, and one score a person for all parts. Kinds (AP-10K: Yu et al., NeurIPS 2021) are matched
apart and averaged over those that are annotated, as COCO's evaluation does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.evaluate.scores.average_precision import Ap, ResampledAp, coco_ap
from sdk.skeletons import Skeleton

__all__ = ["KindsAp", "kinds_ap", "wholebody_ap"]

Record = dict[str, Any]
Float64Array = NDArray[np.float64]


def wholebody_ap(
    truth: Sequence[Record], results: Sequence[Record], image_ids: Sequence[int], skeleton: Skeleton
) -> Ap:
    """COCO's figures over all joints, and AP of each group and of both hands' mean."""
    boxed = [{**record, "bbox": _extent(record, skeleton.members("body"))} for record in results]
    whole = coco_ap(truth, _scored(boxed), image_ids, skeleton.sigmas)
    parts = {}
    for group, members in skeleton.groups.items():
        ours, theirs = ([_of_part(record, members) for record in records] for records in (results, truth))
        sigmas = [skeleton.sigmas[joint] for joint in members]
        parts[group] = coco_ap(theirs, _scored(ours), image_ids, sigmas).figures["AP"]
    figures = {**whole.figures, **{f"AP {group.replace('_', ' ')}": value for group, value in parts.items()}}
    figures["AP hand"] = _mean([value for group, value in parts.items() if group.endswith("hand")])
    return Ap(figures, whole.curves, whole.matches)


@dataclass(frozen=True)
class KindsAp:
    """The mean over kinds: figures in per cent, precision by recall, and each kind's matches."""

    figures: Mapping[str, float]
    curves: Mapping[str, Float64Array]
    by_kind: Mapping[int, float]  # category id -> AP
    _resampled: tuple[ResampledAp, ...]

    def resampled(self, image_counts: NDArray[np.integer]) -> float:  # I
        """AP with each image counted `image_counts` times, over the kinds that are then annotated."""
        return _mean([resampled(image_counts) for resampled in self._resampled])


def kinds_ap(
    truth: Sequence[Record], results: Sequence[Record], image_ids: Sequence[int], sigmas: Sequence[float]
) -> KindsAp:
    """COCO's figures of records of several kinds (`category_id`), averaged over the kinds that are annotated."""
    kinds = sorted({record["category_id"] for record in truth})
    found = {kind: coco_ap(_of_kind(truth, kind), _of_kind(results, kind), image_ids, sigmas) for kind in kinds}
    names = next(iter(found.values())).figures if found else ("AP",)
    annotated = [ap for ap in found.values() if np.isfinite(ap.figures["AP"])]
    return KindsAp(
        {name: _mean([ap.figures[name] for ap in found.values()]) for name in names},
        {name: np.mean([ap.curves[name] for ap in annotated], axis=0) for name in ("AP", "AP50", "AP75") if annotated},
        {kind: ap.figures["AP"] for kind, ap in found.items()},
        tuple(ResampledAp(ap.matches) for ap in found.values()),
    )


def _of_kind(records: Sequence[Record], kind: int) -> list[Record]:
    return [record for record in records if record["category_id"] == kind]


def _of_part(record: Record, members: Sequence[int]) -> Record:
    """The record with only the keypoints of `members`."""
    return {**record, "keypoints": _triples(record)[list(members)].ravel().tolist()}


def _scored(results: Sequence[Record]) -> list[Record]:
    """The results of which a joint scores above 0."""
    return [record for record in results if max(record["keypoints"][2::3]) > 0]


def _extent(record: Record, members: Sequence[int]) -> list[float]:
    """The box xywh about some joints: what the tool takes a whole body's size from is the body."""
    points = _triples(record)[list(members), :2]
    low, high = points.min(axis=0), points.max(axis=0)
    return [*low.tolist(), *(high - low).tolist()]


def _triples(record: Record) -> Float64Array:  # K x 3
    return np.asarray(record["keypoints"], np.float64).reshape(-1, 3)


def _mean(values: Sequence[float]) -> float:
    """Over the values that are there; NaN where none is."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")

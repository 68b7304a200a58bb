"""Validation between epochs: PCK of the torso and OKS AP, with annotated boxes and no flip test.

The metrics are those of `sdk.evaluate`; full protocols (detected boxes, flip test, OKS-NMS) are its work too.

    validation_scores(keypoints, joint_scores, annotations, skeleton)    # {'pck_0.2': .., 'pck_0.1': .., 'ap': ..}
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sdk.evaluate.scores.average_precision import coco_ap
from sdk.evaluate.scores.pck import pck, torso_px
from sdk.skeletons import Skeleton
from sdk.training.labels import Annotation

__all__ = ["validation_scores"]


def validation_scores(
    keypoints: NDArray[np.float32],  # N x K x 2, image pixels
    joint_scores: NDArray[np.float32],  # N x K
    annotations: Sequence[Annotation],  # N
    skeleton: Skeleton,
) -> dict[str, float]:
    """The figures of the log, in per cent."""
    truth = np.stack([annotation.keypoints for annotation in annotations])
    boxes = np.stack([annotation.box_xyxy for annotation in annotations])
    torsos = torso_px(truth, boxes, skeleton)
    results = [
        {
            "image_id": annotation.image_id,
            "score": float(scores.mean()),
            "keypoints": np.column_stack([points, scores]).ravel().tolist(),
        }
        for annotation, points, scores in zip(annotations, keypoints, joint_scores, strict=True)
    ]
    image_ids = sorted({annotation.image_id for annotation in annotations})
    ap = coco_ap([_record(annotation) for annotation in annotations], results, image_ids, skeleton.tolerances)
    return {
        "pck_0.2": pck(keypoints, truth, torsos, 0.2).mean,
        "pck_0.1": pck(keypoints, truth, torsos, 0.1).mean,
        "ap": ap.figures["AP"],
    }


def _record(annotation: Annotation) -> dict[str, object]:
    low, high = annotation.box_xyxy[:2], annotation.box_xyxy[2:]
    return {
        "image_id": annotation.image_id,
        "bbox": [*low.tolist(), *(high - low).tolist()],
        "area": annotation.area_px,
        "iscrowd": 0,
        "keypoints": annotation.keypoints.ravel().tolist(),
    }

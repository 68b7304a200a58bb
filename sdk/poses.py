"""What an estimator returns: the persons of one frame. Plain numpy; cv2 only when drawing.

poses = estimate(frame, boxes)
keypoints, scores = poses            # (N, K, 2) frame pixels, (N, K)
cv2.imwrite("out.png", poses.draw(frame))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.skeletons import Skeleton

__all__ = ["Poses", "ScoreScale"]


@dataclass(frozen=True)
class ScoreScale:
    """What a joint's score means: it counts from `fair` on, and is certain from `sure` on. Score rules differ in it."""

    fair: float = 0.3
    sure: float = 0.8


@dataclass(frozen=True)
class Poses:
    """Persons of one frame, row by row. N may be 0; the shapes stay."""

    keypoints: NDArray[np.float32]  # N x K x 2, frame pixels
    scores: NDArray[np.float32]  # N x K
    boxes: NDArray[np.float32]  # N x 4, xyxy, frame pixels
    box_scores: NDArray[np.float32]  # N
    skeleton: Skeleton
    track_ids: NDArray[np.int64] | None = None  # N, aligned with the rows
    timings_ms: Mapping[str, float | str] = field(default_factory=dict)
    score_scale: ScoreScale = ScoreScale()

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """`keypoints, scores = poses`, as rtmlib returns them."""
        return iter((self.keypoints, self.scores))

    def __len__(self) -> int:
        return len(self.keypoints)

    def to_coco(self, image_id: int, category_id: int = 1) -> list[dict[str, Any]]:
        """COCO results: one record a person, `keypoints` flat as x, y, score; `score` = box x mean joint score."""
        triples = np.concatenate([self.keypoints, self.scores[..., None]], axis=2)
        flat = triples.reshape(len(self), 3 * self.scores.shape[1])
        person = self.box_scores * self.scores.mean(axis=1) if len(self) else self.box_scores
        return [
            {
                "image_id": image_id,
                "category_id": category_id,
                "keypoints": [round(float(value), 4) for value in row],
                "score": float(score),
            }
            for row, score in zip(flat, person, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {
            "joints": list(self.skeleton.joints),
            "keypoints": self.keypoints.tolist(),
            "scores": self.scores.tolist(),
            "boxes": self.boxes.tolist(),
            "box_scores": self.box_scores.tolist(),
            "track_ids": None if self.track_ids is None else self.track_ids.tolist(),
            "timings_ms": dict(self.timings_ms),
        }

    def draw(self, frame: NDArray[np.uint8], threshold: float | None = None) -> NDArray[np.uint8]:
        """A copy of the BGR `frame` (H x W x 3) with limbs coloured by side and joints sized by confidence."""
        from sdk.runtime.drawing import draw_poses

        return draw_poses(frame, self, threshold)

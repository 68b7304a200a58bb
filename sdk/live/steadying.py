"""Joints held steady, as strongly as the page's slider says: a filter of `sdk.people.smoothing` a camera, adjustable
while it runs. It changes where joints are, and nothing else.

    steady = Steady(cameras=2, fair=0.3)
    poses = steady(0, poses, time_ms)
    steady.strength = 0.8                          # from the next frame on; 0: as the estimator gives them
"""

from __future__ import annotations

from dataclasses import replace

from sdk.people.smoothing import Smoother, Smoothing
from sdk.poses import Poses

__all__ = ["MIDDLE", "Steady", "smoothing_of"]

MIDDLE = 0.5  # the strength that is the library's own choice
SPAN = 8.0  # how many times lower, and higher, the cut-offs are at the ends of the slider


def smoothing_of(strength: float) -> Smoothing:
    """The filter of a strength above 0, up to 1: its cut-offs fall with it."""
    own, factor = Smoothing(), SPAN ** (2 * (MIDDLE - strength))
    return Smoothing(still_hz=own.still_hz * factor, beta=own.beta * factor)


class Steady:
    """One filter a camera; one thread calls it, any may set its strength."""

    def __init__(self, cameras: int, fair: float, strength: float = MIDDLE) -> None:
        self._cameras, self._fair = cameras, fair
        self.strength = strength

    @property
    def strength(self) -> float:
        return self._strength

    @strength.setter
    def strength(self, strength: float) -> None:
        self._strength = strength
        smoothing = smoothing_of(strength) if strength else None
        self._smoothers = [None if smoothing is None else Smoother(smoothing, self._fair) for _ in range(self._cameras)]

    def __call__(self, camera: int, poses: Poses, time_ms: float) -> Poses:
        smoother = self._smoothers[camera]
        if smoother is None or poses.track_ids is None:
            return poses
        ids, boxes, keypoints, scores = poses.track_ids, poses.boxes, poses.keypoints, poses.scores
        return replace(poses, keypoints=smoother.smoothed(ids, boxes, keypoints, scores, time_ms, poses.spread))

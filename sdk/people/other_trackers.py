"""Identities by trackers of the package `trackers` (ByteTrack, OC-SORT), where it is installed; or of your own.

They go by boxes and the detector's scores; `sdk.people.tracking.Tracker` goes by joints too, and needs no package.

    PoseEstimator(detector="rtmdet.onnx", tracker="bytetrack")       # pip install "simcc-edge-sdk[trackers]"
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.people.tracking import Tracker

__all__ = ["NAMES", "AnyTracker", "PackageTracker", "TrackerName", "tracker_from"]

Float32Array = NDArray[np.float32]
TrackerName = Literal["bytetrack", "ocsort"]
NAMES = get_args(TrackerName)
CLASSES = {"bytetrack": "ByteTrackTracker", "ocsort": "OCSORTTracker"}
# The package's thresholds are those of large detectors; persons of a nano detector score 0.3 and more, and between
# detections less with each frame.
OPTIONS: dict[str, dict[str, Any]] = {
    "bytetrack": {
        "track_activation_threshold": 0.25,
        "high_conf_det_threshold": 0.25,
        "minimum_consecutive_frames": 1,
    },
    "ocsort": {"high_conf_det_threshold": 0.25, "minimum_consecutive_frames": 1},
}


@runtime_checkable
class AnyTracker(Protocol):
    """What gives the persons of a frame their ids, row by row: positive, never reused; -1 for who has none yet."""

    def update(
        self,
        boxes_xyxy: Float32Array,  # N x 4
        keypoints: Float32Array,  # N x K x 2
        scores: Float32Array,  # N x K
        sigmas: tuple[float, ...],  # K
        fair: float,
        box_scores: Float32Array | None = None,  # N
    ) -> NDArray[np.int64]: ...

    def reset(self) -> None: ...


class PackageTracker:
    """A tracker of the package `trackers`. Who is new has the id -1 until it is confirmed, in his second frame."""

    def __init__(self, name: TrackerName) -> None:
        try:
            import supervision
            import trackers
        except ImportError as error:
            raise InputError(
                f"tracker '{name}' is of the package trackers, which cannot be imported ({error}); "
                'pip install "simcc-edge-sdk[trackers]", or tracker=True for the built-in one'
            ) from error
        self._detections = supervision.Detections
        self._tracker = getattr(trackers, CLASSES[name])(**OPTIONS[name])
        self._numbers: dict[int, int] = {}  # the package's ids -> ours
        self._next_id = 1

    def update(
        self,
        boxes_xyxy: Float32Array,  # N x 4
        keypoints: Float32Array,  # N x K x 2
        scores: Float32Array,  # N x K
        sigmas: tuple[float, ...],  # K
        fair: float,
        box_scores: Float32Array | None = None,  # N; None: ones
    ) -> NDArray[np.int64]:
        """The ids of the persons, row by row. The package gives them back in another order: each carries its row."""
        count = len(boxes_xyxy)
        given = np.ones(count, np.float32) if box_scores is None else box_scores
        told = self._tracker.update(
            self._detections(boxes_xyxy.copy(), confidence=given.copy(), data={"row": np.arange(count)})
        )
        ids = np.full(count, -1, np.int64)
        if len(told):
            ids[told.data["row"]] = [self._number(int(each)) for each in told.tracker_id]
        return ids

    def reset(self) -> None:
        """As of `Tracker`: ids count from 1 again."""
        self._tracker.reset()
        self._numbers, self._next_id = {}, 1

    def _number(self, theirs: int) -> int:
        """Our number of the package's, which counts from 0."""
        if theirs < 0:
            return -1
        if theirs not in self._numbers:
            self._numbers[theirs] = self._next_id
            self._next_id += 1
        return self._numbers[theirs]


def tracker_from(tracker: AnyTracker | TrackerName | bool) -> AnyTracker:
    """The tracker that an option names; InputError where its package is not installed."""
    if isinstance(tracker, bool):
        return Tracker()
    return PackageTracker(tracker) if isinstance(tracker, str) else tracker

"""SimCC Edge SDK: human-pose networks of the SimCC kind, from a checkpoint to a TensorRT engine to poses in real time.

    from sdk import PoseEstimator
    with PoseEstimator() as estimate:               # the bundled network; or an engine folder
        poses = estimate(frame_bgr, boxes_xyxy)
        poses.keypoints, poses.scores               # (N, K, 2) frame pixels, (N, K)

Names below are loaded when first used: importing `sdk` loads nothing, numpy neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdk.errors import SdkError
    from sdk.media.drawing import draw_poses
    from sdk.media.opening import open_source
    from sdk.people.cameras import Cameras
    from sdk.people.estimator import PoseEstimator
    from sdk.poses import Poses
    from sdk.runtime.memory import pinned_frame

__all__ = [
    "Cameras", "PoseEstimator", "Poses", "SdkError", "__version__", "draw_poses", "open_source", "pinned_frame",
]  # fmt: skip

__version__ = "0.1.0"

_HOMES = {
    "Cameras": "sdk.people.cameras",
    "PoseEstimator": "sdk.people.estimator",
    "Poses": "sdk.poses",
    "SdkError": "sdk.errors",
    "draw_poses": "sdk.media.drawing",
    "open_source": "sdk.media.opening",
    "pinned_frame": "sdk.runtime.memory",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sdk' has no attribute '{name}'")
    globals()[name] = found = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""SimCC Edge SDK: human-pose networks of the SimCC kind, from a checkpoint to a TensorRT engine to poses in real time.

    from sdk import PoseEstimator
    with PoseEstimator() as estimate:               # the bundled network; or an engine folder
        poses = estimate(frame_bgr, boxes_xyxy)
        poses.keypoints, poses.scores               # (N, K, 2) frame pixels, (N, K)

Names below are loaded when first used: importing `sdk` needs numpy alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sdk.errors import SdkError
from sdk.poses import Poses

if TYPE_CHECKING:
    from sdk.people.estimator import PoseEstimator
    from sdk.runtime.memory import pinned_frame

__all__ = ["PoseEstimator", "Poses", "SdkError", "__version__", "pinned_frame"]

__version__ = "0.1.0"

_LAZY = {"PoseEstimator": "sdk.people.estimator", "pinned_frame": "sdk.runtime.memory"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sdk' has no attribute '{name}'")


def _draw(*arguments: Any, **options: Any) -> Any:
    from sdk.media.drawing import draw_poses

    return draw_poses(*arguments, **options)


Poses.artist = staticmethod(_draw)

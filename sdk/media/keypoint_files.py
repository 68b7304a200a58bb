"""Poses in the JSON forms of OpenPose and of MMPose, which other tools read.

openpose_record(poses, size_hw)               # the content of OpenPose's clip_000000000007_keypoints.json
mmpose_instances(poses)                       # the `instances` of a frame, as MMPose's inferencer writes them
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.media.openpose import BODY, NECK
from sdk.poses import Poses

__all__ = ["mmpose_instances", "openpose_record"]

Float32Array = NDArray[np.float32]
SHOULDERS = ("left_shoulder", "right_shoulder")
VERSION = 1.3  # of OpenPose's JSON
PARTS = {"face_keypoints_2d": "face", "hand_left_keypoints_2d": "left_hand", "hand_right_keypoints_2d": "right_hand"}


def openpose_record(poses: Poses, size_hw: tuple[int, int]) -> dict[str, Any]:
    """18 body points with the neck between the shoulders, as sure as the less sure of them; hands and face of a whole
    body. x, y and score of each, frame pixels; what the joint set has not is 0, 0, 0. InputError for one without any.

    `canvas_width` and `canvas_height` are what editors for ControlNet add to it.
    """
    if not set(SHOULDERS) <= set(poses.skeleton.joints):
        raise InputError(
            f"OpenPose's JSON is of bodies, and skeleton '{poses.skeleton.name}' has no shoulders; write JSON lines"
        )
    people = [
        {
            "person_id": [-1 if poses.track_ids is None else int(poses.track_ids[row])],
            "pose_keypoints_2d": _flat(body),
            **{key: _flat(part[row]) if part is not None else [] for key, part in _parts(poses).items()},
            "pose_keypoints_3d": [],
            "face_keypoints_3d": [],
            "hand_left_keypoints_3d": [],
            "hand_right_keypoints_3d": [],
        }
        for row, body in enumerate(_bodies(poses))
    ]
    return {"version": VERSION, "people": people, "canvas_width": size_hw[1], "canvas_height": size_hw[0]}


def mmpose_instances(poses: Poses) -> list[dict[str, Any]]:
    """One record a person: keypoints, keypoint_scores, bbox (in a list, as MMPose has it) and bbox_score."""
    return [
        {
            "keypoints": poses.keypoints[row].tolist(),
            "keypoint_scores": poses.scores[row].tolist(),
            "bbox": [poses.boxes[row].tolist()],
            "bbox_score": float(poses.box_scores[row]),
            **({} if poses.track_ids is None else {"track_id": int(poses.track_ids[row])}),
        }
        for row in range(len(poses))
    ]


def _triples(poses: Poses) -> Float32Array:  # N x K x 3
    return np.concatenate([poses.keypoints, poses.scores[..., None]], axis=2)


def _bodies(poses: Poses) -> Float32Array:
    """N x 18 x 3, in OpenPose's order."""
    triples, joints = _triples(poses), poses.skeleton.joints
    found = np.zeros((len(poses), len(BODY), 3), np.float32)
    for place, name in enumerate(BODY):
        if name in joints:
            found[:, place] = triples[:, joints.index(name)]
        elif name == NECK:
            both = triples[:, [joints.index(shoulder) for shoulder in SHOULDERS]]
            found[:, place, :2] = both[..., :2].mean(axis=1)
            found[:, place, 2] = both[..., 2].min(axis=1)
    return found


def _parts(poses: Poses) -> dict[str, Float32Array | None]:
    groups = poses.skeleton.groups
    return {key: _triples(poses.part(group)) if group in groups else None for key, group in PARTS.items()}


def _flat(points: Float32Array) -> list[float]:
    return [round(float(value), 4) for value in points.reshape(-1)]

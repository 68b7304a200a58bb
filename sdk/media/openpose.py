"""Poses as an OpenPose picture, which ControlNet is conditioned on: sticks and dots in fixed colours on black.

Colours, order and proportions are DWPose's (Yang et al., 2023), which draws at 512 pixels of the shorter side: there
sticks are ellipses 4 pixels to each side and joints discs of radius 4; other sizes are drawn in proportion. The 18 body
points are OpenPose's, with the neck midway between the shoulders; those that a joint set has not are left out. Feet are
not drawn.

    picture_bgr = openpose_picture((768, 512), poses.keypoints, poses.scores > 0.3, poses.skeleton)
"""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.media.looks import Colour, Part, parts_of
from sdk.skeletons import Skeleton

__all__ = ["check_openpose", "openpose_picture"]

Frame = NDArray[np.uint8]
Float32Array = NDArray[np.float32]
Seen = NDArray[np.bool_]

NECK = "neck"
BODY = (  # OpenPose's order
    "nose", NECK, "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip
TRUNK = {"left_shoulder", "right_shoulder", "left_hip", "right_hip"}
STICKS = (  # the i-th has the i-th colour
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
    (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
COLOURS = (  # RGB, the 18 hues of OpenPose
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255),
    (255, 0, 170), (255, 0, 85),
)  # fmt: skip
HAND_DOT, FACE_DOT = (0, 0, 255), (255, 255, 255)  # RGB
DRAWN_AT = 512  # pixels of the shorter side
STICK, JOINT, BONE, FACE = 4, 4, 2, 3  # there: half a stick's width, radii, a finger's thickness
DIMMED = 0.6  # sticks beside joints


def openpose_picture(
    size_hw: tuple[int, int],
    keypoints: Float32Array,  # N x K x 2, frame pixels
    seen: Seen,  # N x K
    skeleton: Skeleton,
) -> Frame:
    """H x W x 3 BGR. InputError for a joint set with neither COCO's trunk, nor a hand, nor a face."""
    check_openpose(skeleton)
    body, parts = _body_joints(skeleton), _small_parts(skeleton)
    canvas = np.zeros((*size_hw, 3), np.uint8)
    scale, farthest = min(size_hw) / DRAWN_AT, 4 * max(size_hw)
    keypoints = np.clip(keypoints, -farthest, farthest)  # cv2's integers suffice
    bodies = [_body_points(keypoints[row], seen[row], body) for row in range(len(keypoints))] if body else []
    for points, there in bodies:
        _draw_sticks(canvas, points, there, scale)
    canvas[:] = (canvas * DIMMED).astype(np.uint8)
    for points, there in bodies:
        for point, colour in zip(points[there], np.array(COLOURS)[there].tolist(), strict=True):
            _disc(canvas, point, JOINT * scale, tuple(colour))
    for part in parts:
        members = list(part.joints)
        for points, there in zip(keypoints[:, members], seen[:, members], strict=True):
            if part.kind == "hand":
                place = {joint: position for position, joint in enumerate(members)}
                bones = [(place[a], place[b]) for a, b, _ in part.limbs]
                _draw_hand(canvas, points, there, bones, scale)
            else:
                for point in points[there]:
                    _disc(canvas, point, FACE * scale, FACE_DOT)
    return np.ascontiguousarray(canvas[:, :, ::-1])


def check_openpose(skeleton: Skeleton) -> None:
    """InputError for a joint set that has nothing an OpenPose picture shows."""
    if not _body_joints(skeleton) and not _small_parts(skeleton):
        raise InputError(
            f"style openpose draws bodies with shoulders and hips, hands and faces, and skeleton '{skeleton.name}' has "
            "none of them; draw it in style overlay"
        )


def _body_joints(skeleton: Skeleton) -> dict[str, int]:
    """COCO's joints of a body that the set has, by name; empty without a trunk."""
    found = {name: skeleton.joints.index(name) for name in BODY if name in skeleton.joints and name != NECK}
    return found if found.keys() >= TRUNK else {}


def _small_parts(skeleton: Skeleton) -> list[Part]:
    return [part for part in parts_of(skeleton) if part.kind in ("hand", "face")]


def _body_points(keypoints: Float32Array, seen: Seen, body: dict[str, int]) -> tuple[Float32Array, Seen]:
    """OpenPose's 18 points (18 x 2) and which are there, of one person's joints (K x 2, K)."""
    shoulders = [body["left_shoulder"], body["right_shoulder"]]
    middle, both = keypoints[shoulders].mean(axis=0), bool(seen[shoulders].all())
    points, there = np.zeros((len(BODY), 2), np.float32), np.zeros(len(BODY), bool)
    for position, name in enumerate(BODY):
        if name == NECK:
            points[position], there[position] = middle, both
        elif name in body:
            points[position], there[position] = keypoints[body[name]], seen[body[name]]
    return points, there


def _draw_sticks(canvas: Frame, points: Float32Array, there: Seen, scale: float) -> None:  # 18 x 2, 18
    import cv2

    for (a, b), colour in zip(STICKS, COLOURS, strict=False):  # 17 sticks, 18 joints
        if not there[a] or not there[b]:
            continue
        along = points[b] - points[a]
        centre = (points[a] + points[b]) / 2
        axes = (int(np.hypot(*along) / 2), max(1, round(STICK * scale)))
        angle = int(np.degrees(np.arctan2(along[1], along[0])))
        outline = np.asarray(cv2.ellipse2Poly((int(centre[0]), int(centre[1])), axes, angle, 0, 360, 1))
        cv2.fillConvexPoly(canvas, outline, colour)


def _draw_hand(canvas: Frame, points: Float32Array, there: Seen, bones: list[tuple[int, int]], scale: float) -> None:
    import cv2

    for number, (a, b) in enumerate(bones):
        if there[a] and there[b]:
            red, green, blue = colorsys.hsv_to_rgb(number / len(bones), 1, 1)
            colour = (int(255 * red), int(255 * green), int(255 * blue))
            ends = [(int(x), int(y)) for x, y in points[[a, b]]]
            cv2.line(canvas, ends[0], ends[1], colour, max(1, round(BONE * scale)))
    for point in points[there]:
        _disc(canvas, point, JOINT * scale, HAND_DOT)


def _disc(canvas: Frame, point: Float32Array, radius: float, colour: Colour) -> None:
    import cv2

    cv2.circle(canvas, (int(point[0]), int(point[1])), max(1, round(radius)), colour, thickness=-1)

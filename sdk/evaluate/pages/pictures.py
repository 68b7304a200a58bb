"""Small pictures of persons for a report: the prediction drawn over the photograph, beside its annotation. cv2 draws.

jpeg = person_picture(dataset, row, persons[row], truth_row)        # JPEG bytes, or None if the picture is gone
"""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

from sdk.evaluate.datasets.dataset import Dataset
from sdk.evaluate.predictions.predict import read_picture
from sdk.media.drawing import draw_poses
from sdk.poses import Poses
from sdk.skeletons import Skeleton

__all__ = ["data_uri", "person_picture"]

Frame = NDArray[np.uint8]
Float32Array = NDArray[np.float32]

TALL_PX = 260
MARGIN = 0.15  # of the box, at each side
TRUTH_COLOUR = (255, 255, 255)


def person_picture(
    dataset: Dataset,
    row: int,
    keypoints: Float32Array,  # K x 3: x, y, score
    truth: Float32Array | None = None,  # K x 3: x, y, visibility
) -> bytes | None:
    """A JPEG of one person: the predicted pose, and annotated joints as white rings."""
    import cv2

    frame = read_picture(dataset.pictures[dataset.picture[row]])
    if isinstance(frame, str):
        return None
    canvas, offset, scale = _cut_out(frame, dataset.boxes_xyxy[row])
    canvas = _drawn(canvas, (keypoints[:, :2] - offset) * scale, dataset.skeleton)
    if truth is not None:
        for x, y in ((truth[:, :2] - offset) * scale)[truth[:, 2] > 0]:
            cv2.circle(canvas, (round(float(x)), round(float(y))), 4, (0, 0, 0), 3, cv2.LINE_AA)
            cv2.circle(canvas, (round(float(x)), round(float(y))), 4, TRUTH_COLOUR, 1, cv2.LINE_AA)
    done, jpeg = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done, "OpenCV encodes every uint8 picture as JPEG"
    return bytes(jpeg.tobytes())


def data_uri(jpeg: bytes) -> str:
    """The picture as text for an HTML page."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _cut_out(frame: Frame, box_xyxy: NDArray[np.float64]) -> tuple[Frame, NDArray[np.float64], float]:
    """The box with a margin at a common height; the frame pixel of its corner; and its scale."""
    import cv2

    height, width = frame.shape[:2]
    extent = box_xyxy[2:] - box_xyxy[:2]
    low = np.clip(np.floor(box_xyxy[:2] - MARGIN * extent), 0, [width - 1, height - 1]).astype(int)
    high = np.clip(np.ceil(box_xyxy[2:] + MARGIN * extent), low + 1, [width, height]).astype(int)
    part = frame[low[1] : high[1], low[0] : high[0]]
    scale = TALL_PX / part.shape[0]
    size = (max(1, round(part.shape[1] * scale)), TALL_PX)
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_LINEAR), np.uint8), low.astype(float), scale


def _drawn(canvas: Frame, points: NDArray[np.floating], skeleton: Skeleton) -> Frame:
    """The pose on the picture, every joint as if certain: a report must not hide the doubtful ones."""
    known = np.isfinite(points).all(axis=1)
    placed = np.where(known[:, None], points, 0).astype(np.float32)
    height, width = canvas.shape[:2]
    pose = Poses(
        placed[None],
        known[None].astype(np.float32),
        np.array([[0, 0, width, height]], np.float32),
        np.ones(1, np.float32),
        skeleton,
    )
    return draw_poses(canvas, pose, 0.5)

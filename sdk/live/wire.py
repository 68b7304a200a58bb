"""What goes over the WebSocket: a frame and its joints as one binary message, all else as JSON text.

A binary message, little-endian: the length of the head (uint32), the head (JSON, padded with blanks to four bytes),
N x K x 3 float32 (x and y in frame pixels, score), N x 5 float32 (box xyxy in frame pixels, score), then a JPEG file.
The head names camera, frame number, the frame's size in pixels, N, K, the persons' ids and times.

    message = frame_message(camera=0, number=7, poses=poses, size_hw=(720, 1280), jpeg=jpeg, times_ms={"total": 8.1})
    head, joints, boxes, jpeg = parsed_frame(message)
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.media.looks import Colour, parts_of
from sdk.poses import Poses, ScoreScale
from sdk.reading import json_from_text
from sdk.skeletons import Skeleton

__all__ = ["frame_message", "look_of", "parsed_frame", "text_message"]

Float32Array = NDArray[np.float32]
HEAD_LENGTH = struct.Struct("<I")


def frame_message(
    *,
    camera: int,
    number: int,
    poses: Poses,
    size_hw: tuple[int, int],
    jpeg: bytes,
    times_ms: Mapping[str, float],
) -> bytes:
    """One frame of one camera as it is sent."""
    persons, joints = poses.scores.shape
    head = {
        "camera": camera,
        "frame": number,
        "width": size_hw[1],
        "height": size_hw[0],
        "persons": persons,
        "joints": joints,
        "ids": None if poses.track_ids is None else poses.track_ids.tolist(),
        "times_ms": {name: round(value, 3) for name, value in times_ms.items() if isfinite(value)},
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    triples = np.concatenate([poses.keypoints, poses.scores[..., None]], axis=2, dtype="<f4")
    boxes = np.concatenate([poses.boxes, poses.box_scores[:, None]], axis=1, dtype="<f4")
    return b"".join((HEAD_LENGTH.pack(len(text)), text, triples.tobytes(), boxes.tobytes(), jpeg))


def parsed_frame(message: bytes) -> tuple[dict[str, Any], Float32Array, Float32Array, bytes]:
    """Head, N x K x 3 joints, N x 5 boxes and JPEG of a message, for clients in Python; InputError for another."""
    try:
        (length,) = HEAD_LENGTH.unpack_from(message)
        head = json_from_text(message[4 : 4 + length], "a live message's head", InputError)
        persons, joints = int(head["persons"]), int(head["joints"])
        numbers = np.frombuffer(message, "<f4", persons * (3 * joints + 5), 4 + length)
    except (struct.error, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"a live message cannot be read ({error}); give a whole binary message") from error
    triples, boxes = numbers[: 3 * persons * joints], numbers[3 * persons * joints :]
    return (
        head,
        triples.reshape(persons, joints, 3),
        boxes.reshape(persons, 5),
        message[4 + length + numbers.nbytes :],
    )


def text_message(kind: str, **told: Any) -> str:
    """A message of any other kind; its numbers are finite, or null."""
    return json.dumps({"type": kind, **told}, separators=(",", ":"), allow_nan=False)


def look_of(skeleton: Skeleton, scale: ScoreScale) -> dict[str, Any]:
    """How the page draws a joint set: names, and limbs and joints by part with their colours, as `sdk.media.looks`."""
    return {
        "joints": list(skeleton.joints),
        "fair": scale.fair,
        "sure": scale.sure,
        "parts": [
            {
                "joints": list(part.joints),
                "colours": [_css(colour) for colour in part.colours],
                "limbs": [[a, b, _css(colour)] for a, b, colour in part.limbs],
                "thickness": part.thickness(1.0, float("inf")),
                "small": part.small_joints,
            }
            for part in parts_of(skeleton)
        ],
    }


def _css(colour: Colour) -> str:
    blue, green, red = colour
    return f"#{red:02x}{green:02x}{blue:02x}"

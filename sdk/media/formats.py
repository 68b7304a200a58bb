"""Forms of frames that a user asks for by a word: of a camera, and of raw frames on standard input.

camera_format_from("MJPG:1280x720@30")        # what a V4L2 camera is to send
raw_format_from("bgr24:1280x720")             # what lies on standard input, named as FFmpeg names it
raw_format_from("y4m")                        # YUV4MPEG2, which tells its size itself
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.ops_arrays import MAX_SIDE

__all__ = ["CameraFormat", "RawFormat", "bgr_from_i420", "camera_format_from", "raw_format_from"]

Bytes = NDArray[np.uint8]
SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
CAMERA = re.compile(r"([A-Za-z0-9]{3,4})(?::(\d{1,5})x(\d{1,5}))?(?:@(\d{1,4}(?:\.\d+)?))?")
Y4M = "y4m"
# FFmpeg's name -> (bytes of two pixels below each other, times 2 and of both, OpenCV's conversion); None: BGR already
CONVERSIONS = {
    "bgr24": (6, None),
    "rgb24": (6, "COLOR_RGB2BGR"),
    "bgra": (8, "COLOR_BGRA2BGR"),
    "rgba": (8, "COLOR_RGBA2BGR"),
    "gray": (2, "COLOR_GRAY2BGR"),
    "yuyv422": (4, "COLOR_YUV2BGR_YUY2"),
    "nv12": (3, "COLOR_YUV2BGR_NV12"),
    "yuv420p": (3, "COLOR_YUV2BGR_I420"),
}
PLANES = ("nv12", "yuv420p")  # luma first, then chroma of half the rows
NAMES = ", ".join(CONVERSIONS)


@dataclass(frozen=True)
class CameraFormat:
    """What a camera is asked for; 0: whatever it likes."""

    fourcc: str
    width: int = 0
    height: int = 0
    fps: float = 0.0

    def __str__(self) -> str:
        size = f":{self.width}x{self.height}" if self.width else ""
        return f"{self.fourcc.strip()}{size}{f'@{self.fps:g}' if self.fps else ''}"


@dataclass(frozen=True)
class RawFormat:
    """How the bytes of a frame become a picture; `width` 0 (of y4m): the stream tells."""

    pixels: str
    width: int = 0
    height: int = 0

    @property
    def tells_itself(self) -> bool:
        return self.pixels == Y4M

    @property
    def bytes_of_frame(self) -> int:
        return self.width * self.height * CONVERSIONS[self.pixels][0] // 2

    def picture(self, data: Bytes) -> Bytes:  # flat
        """H x W x 3 BGR; of YUV by BT.601 in the limited range."""
        import cv2

        conversion = CONVERSIONS[self.pixels][1]
        rows = self.height * 3 // 2 if self.pixels in PLANES else self.height
        shaped = data.reshape((rows, self.width) if self.pixels in (*PLANES, "gray") else (rows, self.width, -1))
        return shaped if conversion is None else np.asarray(cv2.cvtColor(shaped, getattr(cv2, conversion)), np.uint8)


def camera_format_from(text: str) -> CameraFormat:
    """InputError for what names no format."""
    found = CAMERA.fullmatch(text)
    if found is None:
        raise InputError(f"a camera's format must read as MJPG, NV12:1280x720 or MJPG:1280x720@30 (got '{text}')")
    fourcc, width, height, fps = found.groups()
    if not all(float(each) for each in (width, height, fps) if each is not None):
        raise InputError(f"a camera's size and rate must be above 0, or be left out (got '{text}')")
    return CameraFormat(fourcc.upper().ljust(4), int(width or 0), int(height or 0), float(fps or 0))


def raw_format_from(text: str) -> RawFormat:
    """InputError for what names no format, or one that its size does not go with."""
    pixels, _, size = text.partition(":")
    if text == Y4M:
        return RawFormat(Y4M)
    found = SIZE.fullmatch(size)
    if pixels not in CONVERSIONS or found is None:
        raise InputError(f"raw frames must be named as y4m, or as bgr24:1280x720, with one of {NAMES} (got '{text}')")
    width, height = int(found[1]), int(found[2])
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise InputError(f"raw frames must have 1 to {MAX_SIDE} pixels a side (got '{text}')")
    if (pixels in (*PLANES, "yuyv422") and width % 2) or (pixels in PLANES and height % 2):
        raise InputError(f"raw frames of {pixels} have even sides (got '{text}'); choose another format, or scale them")
    return RawFormat(pixels, width, height)


def bgr_from_i420(data: Bytes, width: int, height: int) -> Bytes:  # flat: Y, then U and V of half the size, rounded up
    """H x W x 3 BGR by BT.601 in the limited range; sides may be odd."""
    import cv2

    below, right = height % 2, width % 2
    if not (below or right):
        return np.asarray(cv2.cvtColor(data.reshape(height * 3 // 2, width), cv2.COLOR_YUV2BGR_I420), np.uint8)
    luma = np.pad(data[: width * height].reshape(height, width), ((0, below), (0, right)), mode="edge")
    even = np.concatenate([luma.reshape(-1), data[width * height :]])
    return bgr_from_i420(even, width + right, height + below)[:height, :width].copy()

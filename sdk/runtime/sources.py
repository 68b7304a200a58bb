"""Where frames come from: image files, folders, globs and video files, listed before the first one is read.

for source in sources_from(["photos/", "clip.mp4", "more/*.jpg"]):
    for frame in frames_of(source):             # an Unreadable where a frame cannot be had
        ...
"""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError

__all__ = ["IMAGE_SUFFIXES", "Source", "Unreadable", "frames_of", "read_image", "read_stored_image", "sources_from"]

log = logging.getLogger(__name__)

Frame = NDArray[np.uint8]
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"})


@dataclass(frozen=True)
class Source:
    """One file. `frames` and `fps` are a video's own claims; an image has one frame."""

    path: Path
    kind: Literal["image", "video"]
    frames: int = 1
    fps: float = 0.0


@dataclass(frozen=True)
class Unreadable:
    """Why a frame, or the rest of a video, could not be read."""

    reason: str


def sources_from(patterns: Sequence[str]) -> list[Source]:
    """The files that `patterns` name, each once, in order. InputError for one that names none."""
    paths: dict[Path, None] = {}
    for pattern in patterns:
        paths.update(dict.fromkeys(_paths_of(pattern)))
    return [_source_of(path) for path in paths]


def frames_of(source: Source) -> Iterator[Frame | Unreadable]:
    """The frames of a source, H x W x 3 BGR each; an `Unreadable` ends what cannot be read on."""
    if source.kind == "image":
        yield read_image(source.path)
    else:
        yield from _video_frames(source)


def read_image(path: Path) -> Frame | Unreadable:
    """H x W x 3 BGR, turned as its EXIF says: what a camera's user sees."""
    import cv2

    return _decoded(path, cv2.IMREAD_COLOR)


def read_stored_image(path: Path) -> Frame | Unreadable:
    """H x W x 3 BGR as stored, whatever its EXIF says: the pixels that annotations count in."""
    import cv2

    return _decoded(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def _decoded(path: Path, flags: int) -> Frame | Unreadable:
    import cv2

    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        return Unreadable(error.strerror or str(error))
    if not data.size:
        return Unreadable("the file is empty")
    try:
        frame = cv2.imdecode(data, flags)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error):
            return Unreadable("it has more pixels than OpenCV takes; shrink it, or raise OPENCV_IO_MAX_IMAGE_PIXELS")
        return Unreadable(f"not an image that OpenCV reads ({error.err or error})")
    return Unreadable("not an image that OpenCV reads") if frame is None else np.asarray(frame, np.uint8)


def _paths_of(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        known = IMAGE_SUFFIXES | VIDEO_SUFFIXES
        found = sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in known)
        if not found:
            raise InputError(f"folder '{pattern}' holds no image and no video; known endings: {_endings()}")
        return found
    if path.exists():
        return [path]
    names = glob.glob(pattern, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
    found = sorted(Path(name) for name in names if Path(name).is_file())
    if not found:
        raise InputError(f"source '{pattern}' does not exist, and as a pattern it matches no file; check the path")
    return found


def _source_of(path: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return Source(path, "image")
    if suffix not in VIDEO_SUFFIXES:
        raise InputError(f"source '{path}' has an unknown ending; known endings: {_endings()}")
    import cv2

    capture = cv2.VideoCapture(str(path))
    frames, fps = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    return Source(path, "video", frames=max(0, frames), fps=fps)


def _video_frames(source: Source) -> Iterator[Frame | Unreadable]:
    import cv2

    capture = cv2.VideoCapture(str(source.path))
    try:
        if not capture.isOpened():
            missing = "" if source.path.exists() else ": the file is gone"
            yield Unreadable(f"not a video that OpenCV opens{missing}")
            return
        count = 0
        while True:
            read, frame = capture.read()
            if not read:
                break
            count += 1
            yield np.asarray(frame, np.uint8)
        if count < source.frames:
            yield Unreadable(f"the video ends after frame {count} of {source.frames}")
    finally:
        capture.release()


def _endings() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))

"""Where frames come from: image files, folders, globs, video files, cameras and streams, listed before one is read.

A camera is its number or its device (`0`, `/dev/video0`), a stream is a URL (`rtsp://...`).

for source in sources_from(["photos/", "clip.mp4", "more/*.jpg", "0"]):
    for item in frames_of(source):              # a SourceFrame; Damaged or Unreadable where frames cannot be had
        ...
"""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.in_flight import in_flight
from sdk.media.headers import problem_of
from sdk.media.videos import Damaged, SourceFrame, Unreadable, video_frames

__all__ = [
    "IMAGE_SUFFIXES",
    "Damaged",
    "Source",
    "SourceFrame",
    "Unreadable",
    "frames_of",
    "read_image",
    "read_stored_image",
    "sources_from",
]

log = logging.getLogger(__name__)

Frame = NDArray[np.uint8]
IMAGE_SUFFIXES = frozenset({".avif", ".bmp", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset(
    {".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv"}
)


URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
CAMERA = re.compile(r"\d+|/dev/video\d+")


@dataclass(frozen=True)
class Source:
    """One file, camera or stream. `frames` and `fps` are a video's own claims; an image has one frame.

    `address` is where a camera or a stream is opened, None for a file; its `path` is what its results are named after.
    """

    path: Path
    kind: Literal["image", "video"]
    frames: int = 1
    fps: float = 0.0
    address: int | str | None = None

    @property
    def is_stream(self) -> bool:
        """Whether it is a URL."""
        return isinstance(self.address, str) and URL.match(self.address) is not None

    @property
    def name(self) -> str:
        """What the user calls it; of a URL without the password that may stand in it."""
        if self.address is None:
            return str(self.path)
        if isinstance(self.address, int):
            return f"camera {self.address}"
        user, at, _ = urlsplit(self.address).netloc.rpartition("@")
        return self.address.replace(user + at, "", 1)


def sources_from(patterns: Sequence[str]) -> list[Source]:
    """The files that `patterns` name, each once, in order. InputError for one that names none."""
    found: dict[Path | Source, None] = {}
    for pattern in patterns:
        live = _live_source(pattern)
        found.update(dict.fromkeys([live] if live else _paths_of(pattern)))
    return [each if isinstance(each, Source) else _source_of(each) for each in found]


def frames_of(source: Source) -> Iterator[SourceFrame | Damaged | Unreadable]:
    """The frames of a source; `sdk.media.videos` says what else may come."""
    if source.kind == "video":
        yield from video_frames(source)
        return
    picture = read_image(source.path)
    yield picture if isinstance(picture, Unreadable) else SourceFrame(picture)


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
    problem = problem_of(data.tobytes())
    if problem is not None:
        return Unreadable(problem)
    try:
        with in_flight:
            frame = cv2.imdecode(data, flags)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error):
            return Unreadable("it has more pixels than OpenCV takes; shrink it, or raise OPENCV_IO_MAX_IMAGE_PIXELS")
        return Unreadable(f"not an image that OpenCV reads ({error.err or error})")
    return Unreadable("not an image that OpenCV reads") if frame is None else np.asarray(frame, np.uint8)


def _live_source(pattern: str) -> Source | None:
    """The camera or the stream that `pattern` names; a file whose name is a number is a file."""
    if CAMERA.fullmatch(pattern) and not Path(pattern).is_file():
        index = int(pattern) if pattern.isdecimal() else pattern
        return Source(Path(f"camera-{pattern.removeprefix('/dev/video')}"), "video", frames=0, address=index)
    if URL.match(pattern):
        parts = urlsplit(pattern)
        return Source(Path(Path(parts.path).name or parts.hostname or "stream"), "video", frames=0, address=pattern)
    return None


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


def _endings() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))

"""What a user's words name: image files, folders, globs, video files, cameras and streams, listed before one is read.

A camera is its number or its device (`0`, `/dev/video0`), a stream is a URL (`rtsp://...`). `sdk.open_source` reads
them.

for source in sources_from(["photos/", "clip.mp4", "more/*.jpg", "0"]):
    source.name, source.kind, source.is_live
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, takewhile
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.in_flight import in_flight
from sdk.media.addresses import STDIN, address_of, file_name_of, is_url, without_secrets
from sdk.media.feeds import FeedError, How
from sdk.media.headers import problem_of
from sdk.media.named_pipes import pipe_opened
from sdk.media.videos import Damaged, Item, SourceFrame, Unreadable, video_frames
from sdk.wording import counted

__all__ = [
    "IMAGE_SUFFIXES",
    "Damaged",
    "Source",
    "SourceFrame",
    "Unreadable",
    "frames_of",
    "picture_from_bytes",
    "pictures_below",
    "read_image",
    "read_stored_image",
    "sources_from",
]

log = logging.getLogger(__name__)
NAMED = 5  # files passed over that are told by name

Frame = NDArray[np.uint8]
IMAGE_SUFFIXES = frozenset({".avif", ".bmp", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset(
    {".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv"}
)


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
    base: Path | None = None  # the folder that its name in results counts from; None: its own

    @property
    def relative(self) -> Path:
        """What its results are named after: its path below the folder, or the pattern's fixed part, that gave it."""
        return Path(self.path.name) if self.base is None else self.path.relative_to(self.base)

    @property
    def is_pipe(self) -> bool:
        """Whether it is a named pipe: nothing is in it but what somebody writes meanwhile."""
        return self.address is None and self.path.is_fifo()

    @property
    def is_live(self) -> bool:
        """Whether its newest frame is what counts: a camera, a pipeline, or a stream that is no file of a server's."""
        if is_url(self.address):
            return Path(urlsplit(str(self.address)).path).suffix.lower() not in VIDEO_SUFFIXES
        return self.address not in (None, STDIN)

    @property
    def name(self) -> str:
        """What the user calls it; of an address without the passwords and keys that may stand in it."""
        if self.address is None:
            return str(self.path)
        if self.address == STDIN:
            return "standard input"
        return f"camera {self.address}" if isinstance(self.address, int) else without_secrets(self.address)


def sources_from(patterns: Sequence[str], *, recursive: bool = False) -> list[Source]:
    """The files that `patterns` name, each once, in order. InputError for one that names none.

    `recursive`: folders with all folders below. What of a folder is no source is named in the log.
    """
    found: dict[Path | Source, Path] = {}  # with the folder that its name in results counts from
    for pattern in patterns:
        addressed = _addressed(pattern)
        for each in [addressed] if addressed else _paths_of(pattern, recursive):
            found.setdefault(each, _base_of(pattern))
    bases = _bases_apart({path: base for path, base in found.items() if isinstance(path, Path)})
    return [each if isinstance(each, Source) else _source_of(each, bases[each]) for each in _told_apart(found)]


def _told_apart(found: Iterable[Path | Source]) -> Iterator[Path | Source]:
    """Addresses whose results would share a name are numbered in their order, from the second on."""
    taken: set[Path] = set()
    for each in found:
        if not isinstance(each, Source):
            yield each
            continue
        names = (each.path.with_name(f"{each.path.stem}-{number}{each.path.suffix}") for number in count(2))
        path = next(name for name in chain([each.path], names) if name not in taken)  # a number may be a name's own
        taken.add(path)
        yield replace(each, path=path)


def frames_of(source: Source, how: How | None = None) -> Iterator[Item]:
    """The frames of a picture or a recording, as they are asked for; `sdk.media.videos` says what else may come."""
    if source.kind == "video":
        yield from video_frames(source, how)
        return
    picture = _from_pipe(source.path, how or How()) if source.is_pipe else read_image(source.path)
    yield picture if isinstance(picture, Unreadable) else SourceFrame(picture, source=source.name)


def _from_pipe(path: Path, how: How) -> Frame | Unreadable:
    try:
        with pipe_opened(path, how.read_timeout_s) as handle, open(handle, "rb", closefd=False) as file:
            return picture_from_bytes(file.read())
    except FeedError as error:
        return Unreadable(str(error))


def read_image(path: Path) -> Frame | Unreadable:
    """H x W x 3 BGR, turned as its EXIF says: what a camera's user sees."""
    import cv2

    return _read(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)


def read_stored_image(path: Path) -> Frame | Unreadable:
    """H x W x 3 BGR as stored, whatever its EXIF says: the pixels that annotations count in."""
    import cv2

    return _read(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION)


def picture_from_bytes(data: bytes) -> Frame | Unreadable:
    """As `read_image`, of a picture file's bytes, wherever they come from."""
    import cv2

    return _decoded(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)


def _read(path: Path, flags: int) -> Frame | Unreadable:
    try:
        return _decoded(path.read_bytes(), flags)
    except OSError as error:
        return Unreadable(error.strerror or str(error))


def _decoded(data: bytes, flags: int) -> Frame | Unreadable:
    import cv2

    if not data:
        return Unreadable("the file is empty")
    problem = problem_of(data)
    if problem is not None:
        return Unreadable(problem)
    coded = np.frombuffer(data, np.uint8)
    try:
        with in_flight:
            frame = cv2.imdecode(coded, flags)
            if frame is None and data[:2] in (b"II", b"MM"):  # OpenCV colours no grey TIFF of floats
                grey = cv2.imdecode(coded, flags & ~cv2.IMREAD_COLOR)
                frame = None if grey is None else np.dstack([grey] * 3)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error):
            return Unreadable("it has more pixels than OpenCV takes; shrink it, or raise OPENCV_IO_MAX_IMAGE_PIXELS")
        return Unreadable(f"not an image that OpenCV reads ({error.err or error})")
    return Unreadable("not an image that OpenCV reads") if frame is None else _as_bytes(np.asarray(frame))


def _as_bytes(picture: NDArray[Any]) -> Frame | Unreadable:
    """The picture in 8 bits, by a stated rule: never a nearly black one.

    Of 16 bits a sensor fills 9 to 16: the most that the picture needs are taken for all, and the lowest ones dropped.
    Floats are shares of white, 0 to 1.
    """
    if picture.dtype == np.uint8:
        return picture
    if picture.dtype == np.uint16:
        bits = max(8, int(picture.max()).bit_length())
        return (picture >> (bits - 8)).astype(np.uint8)
    if picture.dtype in (np.float32, np.float64):
        low, high = float(picture.min()), float(picture.max())
        if low >= 0 and high <= 1:  # neither is true of NaN
            return np.asarray(np.rint(255 * picture), np.uint8)
        return Unreadable(f"its pixels are floats from {low:g} to {high:g}, where 0 to 1 is black to white; scale them")
    return Unreadable(f"its pixels are {picture.dtype}; store 8 or 16 bits, without sign")


def _addressed(pattern: str) -> Source | None:
    """The camera or the stream that `pattern` names."""
    address = address_of(pattern)
    return None if address is None else Source(Path(file_name_of(address)), "video", frames=0, address=address)


def _paths_of(pattern: str, recursive: bool) -> list[Path]:
    if not pattern:
        raise InputError("a source has an empty name; give a path, or '.' for the folder at hand")
    path = Path(pattern)
    if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises for a name too long to be one)
        return _paths_of_folder(path, recursive)
    if os.path.exists(path):  # noqa: PTH110
        return [path]
    names = glob.glob(pattern, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
    found = sorted(Path(name) for name in names if Path(name).is_file())
    if not found:
        raise InputError(f"source '{pattern}' does not exist, and as a pattern it matches no file; check the path")
    return found


def _paths_of_folder(folder: Path, recursive: bool) -> list[Path]:
    """The pictures and videos of a folder; what else is in it, but for hidden files, is told."""
    inside = sorted(
        path for path in (folder.rglob("*") if recursive else folder.iterdir()) if not _is_hidden(path, folder)
    )
    files = [path for path in inside if path.is_file()]
    folders = [] if recursive else [path for path in inside if path.is_dir()]
    found = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES]
    others = [str(path.relative_to(folder)) for path in files if path not in set(found)]
    below = f"{counted(len(folders), 'folder')} in it not looked into; --recursive does" if folders else ""
    if not found:
        held = "; ".join(filter(None, (f"it holds {_some(others)}" if others else "", below)))
        raise InputError(
            f"folder '{folder}' holds no image and no video{f' ({held})' if held else ''}; known endings: {_endings()}"
        )
    _tell_others(folder, others)
    if below:
        log.warning("folder '%s': %s", folder, below)
    return found


def pictures_below(folder: Path) -> list[Path]:
    """The pictures of a folder and of those below it, if any; what else is there, but for hidden files, is told."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path, folder))
    found = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    _tell_others(folder, [str(path.relative_to(folder)) for path in files if path not in set(found)])
    return found


def _tell_others(folder: Path, others: Sequence[str]) -> None:
    if others:
        log.warning("folder '%s': passed over %s: %s", folder, counted(len(others), "file"), _some(others))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _base_of(pattern: str) -> Path:
    """The folder that results of a pattern are named from: itself, or its part without wildcards."""
    path = Path(pattern)
    if path.is_dir() or path.exists():
        return path if path.is_dir() else path.parent
    fixed = takewhile(lambda part: not glob.has_magic(part), path.parts[:-1])
    return Path(*fixed)


def _bases_apart(bases: Mapping[Path, Path]) -> Mapping[Path, Path]:
    """The bases, or, where two files of different folders would have one name below them, the folder above them all."""
    names = [path.relative_to(base) for path, base in bases.items()]
    if len(set(names)) == len(names):
        return bases
    above = Path(os.path.commonpath([os.path.abspath(base) for base in bases.values()]))  # noqa: PTH100 (no links followed)
    return {
        path: next((parent for parent in path.parents if Path(os.path.abspath(parent)) == above), base)  # noqa: PTH100
        for path, base in bases.items()
    }


def _source_of(path: Path, base: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return Source(path, "image", base=base)
    if suffix not in VIDEO_SUFFIXES:
        raise InputError(f"source '{path}' has an unknown ending; known endings: {_endings()}")
    if path.is_fifo():  # looking into it would take what is to be read
        return Source(path, "video", frames=0, base=base)
    import cv2

    capture = cv2.VideoCapture(str(path))
    frames, fps = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    return Source(path, "video", frames=max(0, frames), fps=fps, base=base)


def _endings() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))

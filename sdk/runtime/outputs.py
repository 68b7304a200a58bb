"""Files of results, whole or not at all: each is written beside its place and renamed when it is complete.

with LineFile(Path("poses.jsonl")) as lines:          # gone again if the block raises
    lines.write({"frame": 0})
write_picture(Path("out/1.jpg"), picture_bgr)
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import OutputError
from sdk.files import whole_file

__all__ = ["LineFile", "VideoFile", "write_json", "write_picture"]

Frame = NDArray[np.uint8]


def write_picture(path: Path, picture: Frame) -> None:
    """Write a BGR picture (H x W x 3) in the format that the ending names."""
    import cv2

    try:
        encoded, data = cv2.imencode(path.suffix, picture)
    except cv2.error as error:
        raise OutputError(f"'{path}' cannot be encoded ({error.err}); choose an ending such as .jpg or .png") from error
    assert encoded, "imencode raises where it cannot encode"
    with whole_file(path) as temporary:
        temporary.write_bytes(data.tobytes())


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value), encoding="utf-8")


class LineFile:
    """JSON lines. The file appears when the block ends well."""

    def __init__(self, path: Path) -> None:
        self._whole = whole_file(path)
        self._file: IO[str] | None = None

    def __enter__(self) -> LineFile:
        self._file = self._whole.__enter__().open("w", encoding="utf-8")
        return self

    def write(self, value: Any) -> None:
        assert self._file is not None, "a LineFile is used inside its block"
        self._file.write(json.dumps(value) + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None, "a LineFile is used inside its block"
        try:
            self._file.close()  # may be what finds the disk full
        except OSError as full:
            self._whole.__exit__(type(full), full, full.__traceback__)
            raise
        self._whole.__exit__(kind, error, trace)


class VideoFile:
    """An MP4 file of BGR frames of one size. The file appears when the block ends well and all frames are in it."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self._fps = fps if np.isfinite(fps) and fps > 0 else 25.0
        self._whole = whole_file(path)
        self._temporary = Path()
        self._writer: Any = None
        self._count = 0

    def __enter__(self) -> VideoFile:
        self._temporary = self._whole.__enter__()
        return self

    def write(self, picture: Frame) -> None:  # H x W x 3
        import cv2

        if self._writer is None:
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            height, width = picture.shape[:2]
            self._writer = cv2.VideoWriter(str(self._temporary), codec, self._fps, (width, height))
            if not self._writer.isOpened():
                raise OutputError(f"'{self.path}' cannot be opened for writing as MP4; check the folder and its space")
        self._writer.write(picture)
        self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()
        if kind is None:
            lost = self._lost()
            if lost is not None:
                error = lost
                kind = type(lost)
        self._whole.__exit__(kind, error, trace)

    def _lost(self) -> OSError | None:
        """What is wrong with the finished file: OpenCV's writer tells no one of a full disk."""
        import cv2

        if self._count == 0:
            return OSError("there is no frame to write")
        capture = cv2.VideoCapture(str(self._temporary))
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        return None if found >= self._count else OSError(f"only {found} of {self._count} frames arrived in the file")

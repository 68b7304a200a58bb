"""Files of results, whole or not at all: each is written beside its place and renamed when it is complete.

with VideoFile(Path("out/walk.mp4"), fps=25) as video:          # gone again if the block raises
    video.write(picture_bgr, time_ms)
write_picture(Path("out/1.jpg"), picture_bgr)
"""

from __future__ import annotations

import importlib.util
import logging
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError, MissingDependencyError, OutputError
from sdk.files import naming, refusal, whole_file, write_bytes
from sdk.media.mp4_times import set_times
from sdk.runtime.frames import check_frame

__all__ = ["VideoFile", "write_picture"]

log = logging.getLogger(__name__)

Frame = NDArray[np.uint8]
Whole = AbstractContextManager[Path]
MAX_VIDEO_SIDE = 8190
MIN_FPS, MAX_FPS = 0.1, 1000.0  # OpenCV writes no MP4 of some rates beyond; a source may claim any


def write_picture(path: Path, picture: Frame) -> None:
    """Write a BGR picture (H x W x 3) in the format that the ending names."""
    import cv2

    try:
        encoded, data = cv2.imencode(path.suffix, picture)
    except cv2.error as error:
        raise OutputError(f"'{path}' cannot be encoded ({error.err}); choose an ending such as .jpg or .png") from error
    assert encoded, "imencode raises where it cannot encode"
    write_bytes(path, data.tobytes())


class VideoFile:
    """An MP4 file of BGR frames of one size. The file appears when the block ends well and all frames are in it.

    Frames that come with their time are shown at it, whatever `fps` says; others in even steps of `fps`, or of 25 a
    second where that is no rate of an MP4. MP4 takes even sizes: the last row or column of an odd one is written twice.
    `codec`: 'h264', by PyAV; 'mp4v' (MPEG-4, part 2), by OpenCV; 'auto': H.264 where PyAV is installed. `sound_of`: the
    file whose sound goes with the frames, which PyAV copies.
    """

    def __init__(
        self, path: Path, fps: float, *, codec: Literal["auto", "h264", "mp4v"] = "auto", sound_of: Path | None = None
    ) -> None:
        if codec not in ("auto", "h264", "mp4v"):
            raise InputError(f"codec must be 'auto', 'h264' or 'mp4v' (got {codec!r})")
        has_av = importlib.util.find_spec("av") is not None
        if codec == "h264" and not has_av:
            raise MissingDependencyError("H.264 needs PyAV: pip install 'simcc-edge-sdk[av]'")
        self._is_h264 = codec == "h264" or (codec == "auto" and has_av)
        self._sound_of = sound_of
        self.path = path
        self._fps = fps if MIN_FPS <= fps <= MAX_FPS else 25.0
        self._times_ms: list[float] = []
        self._whole = whole_file(path)
        self._temporary = Path()
        self._writer: Any = None
        self._size_hw = (0, 0)
        self._count = 0

    def __enter__(self) -> VideoFile:
        self._temporary = self._whole.__enter__()
        return self

    def takes(self, picture: Frame) -> bool:
        """Whether a picture is of the size that the first one set."""
        return self._writer is None or picture.shape[:2] == self._size_hw

    def write(self, picture: Frame, time_ms: float | None = None) -> None:  # H x W x 3
        """The next frame, and when it is shown; times rise, and count from the first frame's."""
        import cv2

        picture = check_frame(picture)
        size_hw = picture.shape[:2]
        if self._writer is None:
            self._open(size_hw)
        if size_hw != self._size_hw:
            raise InputError(
                f"picture {self._count} of '{self.path}' must be {_size_name(self._size_hw)} as the first is "
                f"(got {_size_name(size_hw)}); scale it, or write another file"
            )
        below, right = (side % 2 for side in size_hw)
        if below or right:
            picture = np.asarray(cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REPLICATE), np.uint8)
        with naming(self.path):  # PyAV's errors are OSErrors, of the temporary file
            self._writer.write(picture, *([time_ms] if self._is_h264 else []))
        self._count += 1
        if time_ms is not None:
            self._times_ms.append(time_ms)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close(whole=kind is None)
        except OutputError as told:
            _give_up(self._whole, told)
        lost = self._lost() if kind is None else None
        if lost is not None:
            _give_up(self._whole, lost)
        if kind is None and not self._is_h264:
            self._set_times()
        _leave(self._whole, kind, error, trace)

    def _open(self, size_hw: tuple[int, int]) -> None:
        import cv2

        if max(size_hw) > MAX_VIDEO_SIDE:
            raise InputError(
                f"pictures of '{self.path}' must be at most {MAX_VIDEO_SIDE} pixels a side, as MP4 takes them "
                f"(got {_size_name(size_hw)}); scale them down"
            )
        height, width = (side + side % 2 for side in size_hw)
        if (height, width) != size_hw:
            log.info("'%s' is %s: MP4 takes even sizes", self.path, _size_name((height, width)))
        self._size_hw = size_hw
        if self._is_h264:
            from sdk.media.av_video import AvVideoWriter

            with naming(self.path):
                self._writer = AvVideoWriter(self._temporary, (height, width), self._fps, self._sound_of)
            return
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(self._temporary), codec, self._fps, (width, height))
        if not self._writer.isOpened():
            raise OutputError(f"'{self.path}' cannot be opened for writing as MP4; check the folder and its space")

    def _close(self, *, whole: bool) -> None:
        if self._writer is None:
            return
        with naming(self.path):
            if self._is_h264:
                self._writer.close(whole=whole)
            else:
                self._writer.release()

    def _set_times(self) -> None:
        """Give the frames their own times, where all have one and they are not what was written already."""
        times = self._times_ms
        steps = np.diff(times) if len(times) == self._count else np.zeros(0)
        even = not steps.size or np.allclose(steps, 1e3 / self._fps, rtol=0, atol=0.5)
        if not even and not set_times(self._temporary, times, last_ms=float(steps[-1])):
            log.warning(
                "'%s' shows its frames in even steps: no times can be set in what this OpenCV writes", self.path
            )

    def _lost(self) -> OutputError | None:
        """What is wrong with the finished file: OpenCV's writer tells no one of a full disk."""
        import cv2

        if self._count == 0:
            return OutputError(f"'{self.path}' must hold at least one frame (got none); write one, or open no file")
        capture = cv2.VideoCapture(str(self._temporary))
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if found >= self._count:
            return None
        return refusal(self.path, OSError(f"only {found} of {self._count} frames arrived in the file"))


def _give_up(whole: Whole, reason: OutputError) -> NoReturn:
    """Leave a file that cannot be written, and say so."""
    whole.__exit__(type(reason), reason, None)
    raise reason


def _leave(
    whole: Whole, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> None:
    """Leave a file as the block ended. An OSError of the block, such as a closed pipe's, is not the file's."""
    try:
        whole.__exit__(kind, error, trace)
    except OutputError as told:
        if error is None or told.__cause__ is not error:
            raise


def _size_name(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]} pixels"

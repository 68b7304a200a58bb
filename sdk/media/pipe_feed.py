"""Frames from a pipe: raw ones on standard input, and what a GStreamer pipeline of its own process writes.

    feed = RawFeed(0, raw_format_from("bgr24:1280x720"))         # file descriptor 0
    feed = GstFeed("nvarguscamerasrc ! nvvidconv")               # gst-launch-1.0, which can be killed where it hangs

OpenCV from the package index knows no GStreamer; a process beside costs a copy of 1.5 bytes a pixel instead.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from sdk.media.addresses import without_secrets
from sdk.media.feeds import FeedEndedError, FeedError, Grab
from sdk.media.formats import RawFormat, bgr_from_i420
from sdk.ops_arrays import MAX_SIDE

__all__ = ["GstFeed", "RawFeed"]

MOST_HEADER = 256  # bytes of a line of YUV4MPEG2
HEADER = re.compile(rb"YUV4MPEG2(?: .*)? W(\d{1,5}) H(\d{1,5})(?: .*)?")
COLOURS = (b"420", b"420jpeg", b"420mpeg2", b"420paldv", b"mono")
TAIL = ("videoconvert", "!", "video/x-raw,format=I420,colorimetry=bt601", "!", "y4menc", "!", "fdsink", "fd=1")
APPSINK = re.compile(r"!\s*(?:videoconvert\s*!\s*)?appsink\b[^!]*$")
ENDING = re.compile(r"\bfilesrc\b|\bnum-buffers=")  # what a pipeline has that is to end
MOST_SAID = 1 << 16
ENDS_S = 1.0  # what a process is given to end by itself


class RawFeed:
    """Frames of one size and form, or of YUV4MPEG2, from an open file; nothing of it is buffered elsewhere."""

    fps = 0.0
    claimed = 0

    def __init__(self, handle: int, form: RawFormat) -> None:
        self._file = io.FileIO(os.dup(handle), "r")
        self._form = form
        self._size = (form.width, form.height)
        self._is_grey = False

    def read(self) -> Grab:
        if self._form.tells_itself:
            return self._read_y4m()
        return Grab(self._form.picture(self._bytes(self._form.bytes_of_frame)))

    def abort(self) -> None:
        """Nothing ends a read of standard input but what is at its other end."""

    def close(self) -> None:
        self._file.close()

    def _bytes(self, count: int) -> NDArray[np.uint8]:
        data = np.empty(count, np.uint8)
        view, filled = data.data, 0
        while filled < count:
            read = self._file.readinto(view[filled:])
            if not read:
                raise FeedError(f"half a frame: {filled} of {count} bytes") if filled else FeedEndedError
            filled += read
        return data

    def _read_y4m(self) -> Grab:
        line = self._line()
        while line.startswith(b"YUV4MPEG2"):
            self._take_header(line)
            line = self._line()
        if not line.startswith(b"FRAME") or not all(self._size):
            raise FeedError(f"it is no YUV4MPEG2: it begins with {line[:16]!r}")
        width, height = self._size
        if self._is_grey:
            return Grab(RawFormat("gray", width, height).picture(self._bytes(width * height)))
        chroma = (width + 1) // 2 * ((height + 1) // 2)
        return Grab(bgr_from_i420(self._bytes(width * height + 2 * chroma), width, height))

    def _line(self) -> bytes:
        line = bytearray()
        while len(line) < MOST_HEADER:  # byte by byte: what is behind it belongs to a frame
            byte = self._file.read(1)
            if not byte and not line:
                raise FeedEndedError
            if not byte or byte == b"\n":
                break
            line += byte
        return bytes(line)

    def _take_header(self, line: bytes) -> None:
        found = HEADER.fullmatch(line)
        colours = next((word[1:] for word in line.split()[1:] if word.startswith(b"C")), b"420")
        if found is None or colours not in COLOURS:
            raise FeedError(f"YUV4MPEG2 of 8 bits, 4:2:0 or grey, is read (got '{line.decode(errors='replace')}')")
        self._size = int(found[1]), int(found[2])
        self._is_grey = colours == b"mono"
        if not all(0 < side <= MAX_SIDE for side in self._size):
            raise FeedError(f"frames must have 1 to {MAX_SIDE} pixels a side (got {self._size[0]}x{self._size[1]})")


class GstFeed(RawFeed):
    """What a pipeline gives, by `gst-launch-1.0`; an appsink at its end is replaced."""

    def __init__(self, pipeline: str) -> None:
        program = shutil.which("gst-launch-1.0")
        if program is None:
            raise FeedError("a pipeline needs gst-launch-1.0 (Debian, Ubuntu, JetPack: gstreamer1.0-tools)")
        try:
            words = shlex.split(APPSINK.sub("", pipeline))
        except ValueError as error:
            raise FeedError(f"the pipeline cannot be read ({error})") from None
        self._is_to_end = ENDING.search(pipeline) is not None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the feed)
        self._process = subprocess.Popen(
            [program, "-q", *words, "!", *TAIL],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,  # Ctrl-C is for the program that asked
        )
        assert self._process.stdout is not None, "a pipe was asked for"
        super().__init__(self._process.stdout.fileno(), RawFormat("y4m"))
        self._process.stdout.close()

    def read(self) -> Grab:
        try:
            return super().read()
        except FeedError as error:
            said = self._words()
            if said:
                raise FeedError(said) from None
            if isinstance(error, FeedEndedError) and not self._is_to_end:
                raise FeedError("the pipeline ended") from None
            raise

    def abort(self) -> None:
        with suppress(OSError):
            self._process.kill()

    def close(self) -> None:
        super().close()
        self._process.terminate()
        try:
            self._process.wait(ENDS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def _words(self) -> str:
        """What GStreamer says is wrong: its first sentence, and the detail two lines below 'Additional debug info'."""
        self._said.seek(0)
        lines = self._said.read(MOST_SAID).decode(errors="replace").splitlines()
        first = next((place for place, line in enumerate(lines) if "ERROR" in line or "erroneous" in line), None)
        if first is None:
            return ""
        told = lines[first].partition(": ")[2] + "".join(f" {line}" for line in lines[first + 3 : first + 4])
        return without_secrets(told).strip()

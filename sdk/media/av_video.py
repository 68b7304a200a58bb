"""An MP4 of H.264 by PyAV: every frame at its own time, to 1/90000 s, and the sound of where the frames are from.

writer = AvVideoWriter(Path("walk.mp4"), (480, 640), fps=25.0, sound_of=Path("source.mp4"))
writer.write(picture_bgr, time_ms=40.0)
writer.close(whole=True)

Times count from the first frame's. `sdk.media.sinks.VideoFile` is what makes it whole or not at all.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import OutputError

__all__ = ["AvVideoWriter"]

log = logging.getLogger(__name__)

TICKS = 90_000  # a second, as MPEG counts
QUALITY = {"preset": "veryfast", "crf": "20"}  # of libx264: drawn lines stay sharp, at a third of the default's time
SOUNDS = frozenset({"aac", "ac3", "alac", "eac3", "mp3", "opus"})  # codecs that an MP4 holds


class AvVideoWriter:
    """Pictures of one even size. An OSError is the file's; OutputError where it cannot be an MP4."""

    def __init__(self, path: Path, size_hw: tuple[int, int], fps: float, sound_of: Path | None = None) -> None:
        import av

        self._step = max(1, round(TICKS / fps))
        self._first_ms: float | None = None
        self._last = -1  # the tick of the last frame
        self._container = av.open(str(path), "w", format="mp4")
        try:
            rate = Fraction(fps).limit_denominator(1001)
            self._stream = self._container.add_stream("libx264", rate=rate, options=QUALITY)
        except (av.error.FFmpegError, ValueError) as error:
            self._container.close()
            raise OutputError(f"this PyAV encodes no H.264 ({error}); install one from the package index") from error
        self._stream.height, self._stream.width = size_hw
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = Fraction(1, TICKS)
        self._sound = None if sound_of is None else _Sound.of(sound_of, self._container)

    def write(self, picture: NDArray[np.uint8], time_ms: float | None) -> None:
        """The next frame; without a time a step of the frame rate after the last one."""
        import av

        if time_ms is not None and self._first_ms is None:
            self._first_ms = time_ms
        tick = self._last + self._step if self._last >= 0 else 0
        if time_ms is not None and self._first_ms is not None:
            tick = round((time_ms - self._first_ms) * TICKS / 1e3)
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        self._last = frame.pts = max(tick, self._last + 1)
        frame.time_base = Fraction(1, TICKS)
        self._container.mux(self._stream.encode(frame))

    def close(self, *, whole: bool) -> None:
        """`whole`: with what the encoder still holds, and the sound."""
        try:
            if whole:
                self._container.mux(self._stream.encode())
                if self._sound is not None:
                    self._sound.copy(self._container, (self._first_ms or 0.0) / 1e3, (self._last + self._step) / TICKS)
        finally:
            if self._sound is not None:
                self._sound.close()
            with suppress(*(() if whole else (OSError,))):
                self._container.close()


class _Sound:
    """The first sound track of a file, copied as it is."""

    def __init__(self, source: Any, track: Any, copied: Any) -> None:
        self._source, self._track, self._copied = source, track, copied

    @classmethod
    def of(cls, path: Path, container: Any) -> _Sound | None:
        """None where the file has no sound, or one that an MP4 cannot hold, which is told."""
        import av

        try:
            source = av.open(str(path))
        except (av.error.FFmpegError, OSError, ValueError):
            return None
        track = next(iter(source.streams.audio), None)
        if track is not None and track.codec_context.name in SOUNDS:
            return cls(source, track, container.add_stream_from_template(track))
        if track is not None:
            log.warning("'%s': its sound (%s) is left out: an MP4 cannot hold it", path, track.codec_context.name)
        source.close()
        return None

    def copy(self, container: Any, from_s: float, length_s: float) -> None:
        """What is heard from `from_s` after the file's first picture on, for so long."""
        pictures = next(iter(self._source.streams.video), None)
        if pictures is not None and pictures.start_time is not None:
            from_s += float(pictures.start_time * pictures.time_base)  # 1.4 in many transport streams
        for packet in self._source.demux(self._track):
            if packet.pts is None:
                continue
            begin_s = float(packet.pts * packet.time_base) - from_s
            if begin_s < 0 or begin_s >= length_s:
                continue
            shift = round(from_s / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, (packet.pts if packet.dts is None else packet.dts) - shift
            packet.stream = self._copied
            container.mux(packet)

    def close(self) -> None:
        self._source.close()

"""Frames by PyAV: each of its own size and with its own stamp, and broken ones told from whole ones.

    feed = AvFeed(source, how)                # a feed of `sdk.media.feeds`; needs the extra `av`

Its pictures are equal to OpenCV's to the bit: both convert colours by the same rule of FFmpeg's.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdk.in_flight import in_flight
from sdk.media.addresses import is_rtsp, is_stamped, without_secrets
from sdk.media.feeds import FeedError, Grab, How

if TYPE_CHECKING:
    from sdk.media.sources import Source

__all__ = ["AvFeed", "picture_from_av"]

# Its description tells what a stream is: looking into it for 0.1 s, not 2 to 5, opens it in 0.5 s instead of 2.1 and
# leaves no backlog (a simulated camera with a key frame a second, PyAV 18.1, medians of 2)
RTSP = {"rtsp_transport": "tcp", "analyzeduration": "100000", "fpsprobesize": "0"}


class AvFeed:
    """PyAV's container, and the first video stream in it."""

    def __init__(self, source: Source, how: How) -> None:
        self._guard = nullcontext() if source.is_live else in_flight  # a live read may hang: nobody waits for it
        self._stamped = not source.is_live or is_stamped(source.address)
        self._container = _opened(source, how)
        try:
            self._stream = self._container.streams.video[0]
        except IndexError:
            self._container.close()
            raise FeedError("it holds no video") from None
        # frame threads would keep back as many frames as there are cores
        self._stream.thread_type = "SLICE" if source.is_live else "AUTO"
        self.fps = float(self._stream.average_rate or 0)
        self.claimed = self._stream.frames or self._counted_by_length()
        self._frames = self._decoded()

    def read(self) -> Grab | None:
        with self._guard:
            frame = next(self._frames, None)
            if frame is None or frame.is_corrupt:
                return None
            picture = picture_from_av(frame)
        return Grab(picture, self._stamp_s(frame))

    def abort(self) -> None:
        """Its time-out ends it, twice too late; another thread must not touch it."""

    def close(self) -> None:
        self._frames.close()
        self._container.close()

    def _decoded(self) -> Generator[Any, None, None]:
        """Frames, and None for a packet that gives none because it is damaged."""
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                yield from packet.decode()
            except (av.error.InvalidDataError, av.error.UndefinedError):
                yield None
            except av.error.FFmpegError as error:
                raise FeedError(_words(error)) from None

    def _stamp_s(self, frame: Any) -> float | None:
        if not self._stamped or frame.pts is None:
            return None
        return float((frame.pts - (self._stream.start_time or 0)) * frame.time_base)

    def _counted_by_length(self) -> int:
        """Frames by length and rate, where the container counts none but tells how long it is."""
        if self._stream.duration is not None and self._stream.time_base:
            return round(float(self._stream.duration * self._stream.time_base) * self.fps)
        return round((self._container.duration or 0) / 1e6 * self.fps)


def picture_from_av(frame: Any) -> NDArray[np.uint8]:
    """H x W x 3 BGR of one of PyAV's frames, turned as the recording says."""
    picture: NDArray[np.uint8] = frame.to_ndarray(format="bgr24", interpolation="BICUBIC")
    turns = int(frame.rotation) // 90 % 4
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def _opened(source: Source, how: How) -> Any:
    import av

    options = RTSP if is_rtsp(source.address) else {}
    where = str(source.path if source.address is None else source.address)
    limits = None if source.address is None else (how.open_timeout_s, how.read_timeout_s)
    try:
        return av.open(where, options=options, timeout=limits, hwaccel=_hardware(how.hwaccel))
    except (av.error.FFmpegError, OSError, RuntimeError, ValueError) as error:  # ValueError: a name with a zero in it
        raise FeedError(_words(error)) from None


def _hardware(name: str | None) -> Any:
    """A decoder of the machine's, by FFmpeg's name of its kind; without a way back to the processor's."""
    from av.codec.hwaccel import HWAccel

    return None if name is None else HWAccel(device_type=name, allow_software_fallback=False)


def _words(error: Exception) -> str:
    """What FFmpeg says, without the address."""
    return without_secrets(str(getattr(error, "strerror", None) or error)).strip()

"""What a feed is: one opening of a video, a camera or a stream, read frame by frame. `sdk.media.backends` opens them.

grab = feed.read()                            # grab.picture, grab.stamp_s; None: a frame that cannot be had
feed.close()

A feed says nothing of numbers, ends and outages: `sdk.media.videos` and `sdk.media.live` make those of what it reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.media.formats import CameraFormat, RawFormat
from sdk.numeric import is_number

__all__ = ["BACKENDS", "Backend", "Feed", "FeedEndedError", "FeedError", "Grab", "How"]

Backend = Literal["auto", "opencv", "av"]
BACKENDS = ("auto", "opencv", "av")


@dataclass(frozen=True)
class How:
    """How sources are opened; `open_source` says what each of these is."""

    backend: Backend = "auto"
    open_timeout_s: float = 15.0
    read_timeout_s: float = 10.0
    raw: RawFormat | None = None
    camera_format: CameraFormat | None = None
    hwaccel: str | None = None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise InputError(f"backend must be one of {', '.join(BACKENDS)} (got {self.backend!r})")
        for name in ("open_timeout_s", "read_timeout_s"):
            value = getattr(self, name)
            if not is_number(value) or not 0 < value < float("inf"):
                raise InputError(f"{name} must be a number of seconds above 0 (got {value!r})")
            object.__setattr__(self, name, float(value))


@dataclass(frozen=True, eq=False)
class Grab:
    """A picture, H x W x 3 BGR, and its stamp on the source's own clock, from its first frame; None: it has none."""

    picture: NDArray[np.uint8]
    stamp_s: float | None = None


class FeedError(Exception):
    """Why a feed cannot be opened, or no more can be read from it; in words, and without secrets."""


class FeedEndedError(FeedError):
    """There is no more, as it should be."""


class Feed(Protocol):
    """What is read from; `fps` and `claimed` frames are its header's word, 0 where it tells none."""

    fps: float
    claimed: int

    def read(self) -> Grab | None:
        """The next frame; None where one is damaged, or nothing is left: a feed cannot always tell."""

    def abort(self) -> None:
        """From another thread: let a read that hangs end now, where that can be done."""

    def close(self) -> None:
        """Let go of the device, the connection or the file."""

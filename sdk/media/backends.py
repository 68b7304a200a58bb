"""What opens a source: PyAV where it is installed and serves, else OpenCV.

feed = open_feed(source, How())               # FeedError: why there is none
"""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

from sdk.errors import MissingDependencyError
from sdk.media.addresses import STDIN, is_camera, is_pipeline
from sdk.media.feeds import Feed, How
from sdk.media.pipe_feed import GstFeed, RawFeed

if TYPE_CHECKING:
    from sdk.media.sources import Source

__all__ = ["open_feed"]


def open_feed(source: Source, how: How) -> Feed:
    """A feed of a video, a camera or a stream. FeedError where it cannot be opened."""
    if source.address == STDIN:
        assert how.raw is not None, "standard input is opened with a form"
        return RawFeed(sys.stdin.fileno(), how.raw)
    if is_pipeline(source.address):
        return GstFeed(str(source.address))
    wanted = "av" if how.hwaccel else how.backend
    if wanted == "av" and not _has_av():
        raise MissingDependencyError("the backend 'av', and hwaccel, need PyAV: pip install 'simcc-edge-sdk[av]'")
    if not is_camera(source.address) and (wanted == "av" or (wanted == "auto" and _has_av())):
        from sdk.media.av_feed import AvFeed

        return AvFeed(source, how)
    from sdk.media.cv_feed import OpenCvFeed

    return OpenCvFeed(source, how)


def _has_av() -> bool:
    return importlib.util.find_spec("av") is not None

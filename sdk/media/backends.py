"""What opens a source: PyAV where it is installed and serves, else OpenCV.

feed = open_feed(source, How())               # FeedError: why there is none
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from sdk.errors import MissingDependencyError
from sdk.media.addresses import is_camera
from sdk.media.feeds import Feed, How

if TYPE_CHECKING:
    from sdk.media.sources import Source

__all__ = ["open_feed"]


def open_feed(source: Source, how: How) -> Feed:
    """A feed of a video, a camera or a stream. FeedError where it cannot be opened."""
    wanted = how.backend
    if wanted == "av" and not _has_av():
        raise MissingDependencyError("backend 'av' needs PyAV: pip install 'simcc-edge-sdk[av]'")
    if not is_camera(source.address) and (wanted == "av" or (wanted == "auto" and _has_av())):
        from sdk.media.av_feed import AvFeed

        return AvFeed(source, how)
    from sdk.media.cv_feed import OpenCvFeed

    return OpenCvFeed(source, how)


def _has_av() -> bool:
    return importlib.util.find_spec("av") is not None

"""Named pipes as sources: waited for until somebody writes, but not without an end. What is in them is not known here.

with pipe_opened(path, 10.0) as handle:          # FeedError: nobody wrote into it for 10 s
    av.open(f"pipe:{handle}")                    # so FFmpeg calls an open file
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdk.media.feeds import FeedError

__all__ = ["pipe_opened"]


@contextmanager
def pipe_opened(path: Path, most_s: float) -> Iterator[int]:
    """The pipe's file descriptor, once there is something to read, of which nothing is taken.

    To open the pipe again by its name would be to wait for another who writes.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # else opening waits itself, and nothing ends that
    except OSError as error:
        raise FeedError(error.strerror or str(error)) from None
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        events = poll.poll(1e3 * most_s)
        if not events:
            raise FeedError(f"time-out: nobody wrote into the pipe for {most_s:g} s; start what writes, or name a file")
        if not events[0][1] & select.POLLIN:
            raise FeedError("who wrote into the pipe closed it, and nothing is in it")
        os.set_blocking(handle, True)
        yield handle
    finally:
        os.close(handle)

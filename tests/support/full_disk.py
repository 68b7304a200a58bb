"""A disk that is full, for real: the kernel refuses to let any file of this process grow beyond a few bytes."""

import resource
from contextlib import contextmanager


@contextmanager
def full_disk(room=1000):
    """No file may grow beyond `room` bytes inside the block: writing more fails with EFBIG, as ENOSPC would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

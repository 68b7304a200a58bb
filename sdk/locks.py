"""One run at a time for a result that grows: a second run is refused in words, before its work. Not for what is built
once and may be waited for: `sdk.toolchain.engine` waits.

    with held(Path("poses.jsonl")):                 # a hidden lock file beside it, gone when the block ends
        ...
    with held_folder(Path("runs/mine")):            # the same inside the folder, which is made
        ...
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdk.errors import OutputError
from sdk.files import naming

__all__ = ["LOCK", "held", "held_folder"]

log = logging.getLogger(__name__)
LOCK = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # some network file systems know none


@contextmanager
def held(path: Path) -> Iterator[None]:
    """The file `path` for this run alone. OutputError where another run has it, or it may not be written."""
    with _held(path.parent / f".{path.name}{LOCK}", path):
        yield


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """The folder for this run alone. OutputError where another run has it, or it may not be written."""
    with _held(folder / LOCK, folder):
        yield


@contextmanager
def _held(lock: Path, place: Path) -> Iterator[None]:
    with naming(place):
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = _taken(lock, place)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)  # while it is held: who opened it meanwhile finds that it is gone
        os.close(handle)


def _taken(lock: Path, place: Path) -> int:
    """The lock file, open and locked; the system frees it when its process ends, however that ends."""
    while True:
        handle = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 32).decode(errors="replace").strip()
            os.close(handle)
            raise OutputError(
                f"'{place}' is being written by another run{f' (process {holder})' if holder else ''}; wait until it "
                "ends, or choose another place"
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(handle)
                raise
            log.warning("'%s' lies where nothing can be locked: see that no other run writes it", place)
            return handle
        if _is(lock, handle):
            os.ftruncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
            return handle
        os.close(handle)


def _is(lock: Path, handle: int) -> bool:
    """Whether the open file is still the one of that name: its holder may just have removed it."""
    try:
        return os.fstat(handle).st_ino == lock.stat().st_ino
    except FileNotFoundError:
        return False

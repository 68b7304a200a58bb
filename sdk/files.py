"""Files written whole or not at all. What is in them is their writers' matter.

write_text(Path("report.json"), text)
with whole_file(Path("curves.png")) as temporary:
    figure.savefig(temporary)                        # renamed to curves.png when the block ends well
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from sdk.errors import OutputError

__all__ = [
    "check_place", "finished_name", "naming", "real_path", "refusal", "some_name", "whole_file", "write_bytes",
    "write_text",
]  # fmt: skip

log = logging.getLogger(__name__)
PART = ".part."
LETTERS = 8  # random ones, before it
# What a write to an open file fails with; it names no file. None: a library's own OSError, which says nothing more.
WRITE_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, None)


def real_path(path: Path) -> Path:
    """Where `path` leads, links followed. Links in a loop lead nowhere: they stay, and whoever opens them is told.

    `Path.resolve` raises a RuntimeError for them before Python 3.13.
    """
    return Path(os.path.realpath(path))


@contextmanager
def whole_file(path: Path, *, private: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    It keeps the ending of `path`, by which some writers choose a format. Missing folders are made. The block opens a
    file that is there, empty; `private`: for the owner's eyes alone. An OSError of writing, a full disk above all,
    becomes an OutputError; one that names another file is left as it is. What a killed run left of this name goes.
    """
    temporary = path.parent / f".{secrets.token_hex(LETTERS // 2)}{PART}{path.name}"
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        with _claimed(temporary, 0o600 if private else 0o666):
            yield temporary
            temporary.replace(path)
    except OSError as error:
        if not _is_of_writing(error, path, temporary):
            raise
        raise refusal(path, error) from error
    finally:
        _remove(temporary)


def check_place(path: Path) -> None:
    """OutputError unless a file or a folder can be made at `path`: tried now, so that no work is done for nothing.

    Folders that are missing are not made yet: the nearest one that is there is tried.
    """
    with naming(path):
        folder = next(parent for parent in path.absolute().parents if parent.exists())  # the root always is
        attempt = folder / f".{secrets.token_hex(LETTERS // 2)}{PART}{path.name}"
        os.close(os.open(attempt, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    _remove(attempt)


def some_name(folder: Path) -> str:
    """A name in a folder, in quotes, to show what its names are like; 'nothing' where it is empty."""
    name = min((path.name for path in folder.iterdir()), default=None) if folder.is_dir() else None
    return "nothing" if name is None else f"'{name}'"


def write_bytes(path: Path, content: bytes) -> None:
    """`content` as a file. What writes to a path and tells of a full disk in its own errors: give its bytes."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """`text` as a file, in UTF-8."""
    write_bytes(path, text.encode(errors="backslashreplace"))  # a file's name may hold bytes that are no text


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError of the block is one of writing `path`, an OutputError in words."""
    try:
        yield
    except OSError as error:
        raise refusal(path, error) from error


def refusal(path: Path, error: OSError) -> OutputError:
    """`error`, of writing `path`, in words."""
    return OutputError(f"'{path}' cannot be written ({error.strerror or error}); make room or choose another place")


def finished_name(name: str) -> str:
    """The name that a file, perhaps left behind unfinished by a killed process, was to have."""
    return name.partition(PART)[2] or name


@contextmanager
def _claimed(temporary: Path, mode: int) -> Iterator[None]:
    """An empty file, locked while the block runs: what is locked is not swept, and a killed run's lock is gone."""
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    try:
        with suppress(OSError):  # some network file systems know no locks; nothing is swept there either
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _sweep(path: Path) -> None:
    """Remove what killed runs left of `path`."""
    for name in _left_in(path.parent).get(path.name, ()):
        left = path.parent / name
        with suppress(OSError):  # it is gone, or not ours
            handle = os.open(left, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: another run is at work
                left.unlink()
                log.info("removed '%s', left by a run that was killed", left)
            finally:
                os.close(handle)


@lru_cache(maxsize=64)
def _left_in(folder: Path) -> Mapping[str, list[str]]:
    """Unfinished files by the name they were to have, as this process first found the folder: it looks once."""
    left: dict[str, list[str]] = {}
    with suppress(OSError):  # it may be written but not looked into
        for name in (entry.name for entry in folder.iterdir()):
            if name[:1] == "." and name[1 + LETTERS :].startswith(PART):
                left.setdefault(finished_name(name), []).append(name)
    return left


def _is_of_writing(error: OSError, path: Path, temporary: Path) -> bool:
    """Whether `error` is about the output: it names the file or its folders, or a write to an open file failed."""
    if isinstance(error.filename, (str, bytes)):
        return Path(os.fsdecode(error.filename)) in (temporary, path, *path.parents)
    return error.errno in WRITE_FAULTS


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # its folder was never there, or cannot be entered: nothing was written

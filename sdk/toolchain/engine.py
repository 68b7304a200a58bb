"""Writing an engine folder: under a lock, into a temporary folder, the manifest last, then one rename or exchange.

A build that is killed, interrupted or out of disk leaves no engine and no trace; one that was to take another's place
leaves that one, if need be for the next build to put back. Reading is `sdk.manifest`'s work.

    with engine_lock(folder):                                  # a second process building the same waits here
        engine = reusable_engine(folder, key) or write_engine(folder, files, manifest_of)
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sdk.errors import EngineError
from sdk.files import check_place, finished_name, real_path, write_text
from sdk.interrupts import held_back
from sdk.launches import FILE as LAUNCHES
from sdk.manifest import (
    KERNEL_CACHE_GLOB,
    MANIFEST_NAME,
    AnyManifest,
    DetectorEngine,
    Engine,
    SpreadNote,
    open_any_engine,
    open_engine,
)
from sdk.reading import TABLE_BYTES, json_from_file, kind_of

__all__ = [
    "check_output",
    "content_key",
    "engine_lock",
    "keep_spread",
    "placed_engine",
    "recover_engine",
    "reusable_engine",
    "write_engine",
]

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of <fcntl.h> and <linux/fs.h>
PARTIAL, REPLACED = ".partial", ".replaced"
RANDOM_LETTERS = 8  # that `tempfile` puts between prefix and suffix

log = logging.getLogger(__name__)


def content_key(facts: Mapping[str, Any]) -> str:
    """The hash by which a build is reused: of everything that decides the engine's bytes."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def check_output(folder: Path) -> None:
    """EngineError unless `folder` is absent, empty, or an engine folder with nothing foreign in it; OutputError where
    nothing can be written.

    What is kept beside an engine, kernel caches and the count of its launches, is not foreign: it is made anew.
    """
    check_place(_real(folder))
    if kind_of(folder, "output", EngineError) is None:
        return
    if _real(folder) == Path.cwd():
        raise EngineError(f"output '{folder}' is the current folder, which a build replaces; run it from another one")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    if not names:
        return
    if MANIFEST_NAME not in names:
        raise EngineError(f"output '{folder}' exists and is not an engine folder; choose another --output or remove it")
    foreign = sorted(name for name in names - {MANIFEST_NAME} - set(_files_of(folder)) if not _is_made_anew(name))
    if foreign:
        raise EngineError(
            f"output '{folder}' holds '{foreign[0]}', which is not the engine's and would be lost; move it away or "
            "choose another --output"
        )


def _real(folder: Path) -> Path:
    """Where `folder` is, links followed; EngineError where the system does not say."""
    kind_of(folder, "engine", EngineError)
    return real_path(folder)


def reusable_engine(folder: Path, key: str) -> Engine | DetectorEngine | None:
    """The engine in `folder` when it was built from the same content and its files are intact."""
    if not (folder / MANIFEST_NAME).is_file():
        return None
    try:
        engine = open_any_engine(folder)
    except EngineError as error:
        log.warning("the engine that is there is rebuilt: %s", error)
        return None
    return engine if engine.manifest.key == key else None


def write_engine(
    folder: Path,
    files: Mapping[str, bytes],
    manifest_from_hashes: Callable[[Mapping[str, str]], AnyManifest],
) -> Engine | DetectorEngine:
    """The engine of `files` and of the manifest made with their sha256, in place of whatever engine `folder` held."""
    check_output(folder)
    real = _real(folder)  # a link stays: the engine it leads to is replaced
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = json.dumps(manifest_from_hashes(hashes).to_table(), indent=1, ensure_ascii=False) + "\n"
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{real.name}.", suffix=PARTIAL, dir=real.parent))
    except OSError as error:
        raise EngineError(f"engine '{folder}' cannot be written ({error.strerror}); choose another --output") from error
    try:
        for name, data in (*files.items(), (MANIFEST_NAME, manifest.encode())):
            _write_durably(temporary / name, data)
        temporary.chmod(0o755)
        _sync_folder(temporary)
        with held_back():
            _put_in_place(temporary, real)
    except OSError as error:
        raise EngineError(
            f"engine '{folder}' cannot be written ({error.strerror}); free some space or choose another --output"
        ) from error
    finally:
        with held_back():  # a second Ctrl-C too: nothing is left
            shutil.rmtree(temporary, ignore_errors=True)
    return open_any_engine(folder)


def keep_spread(engine: Engine, note: SpreadNote) -> Engine:
    """The engine with a calibration of its spread in its manifest; graph and plan stay as they are."""
    with engine_lock(engine.folder):
        current = open_engine(engine.folder)
        if current.manifest.files != engine.manifest.files:
            raise EngineError(f"engine '{engine.folder}' was rebuilt meanwhile; calibrate its spread again")
        table = replace(current.manifest, spread=note).to_table()
        write_text(engine.folder / MANIFEST_NAME, json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    return open_engine(engine.folder)


def placed_engine(engine: Engine, folder: Path, note: str) -> Engine:
    """The engine, byte for byte, in `folder`, in place of whatever engine was there; its manifest says `note` too."""
    files = {name: (engine.folder / name).read_bytes() for name in engine.manifest.files}
    manifest = replace(engine.manifest, notes=(*engine.manifest.notes, note))
    with engine_lock(folder):
        placed = write_engine(folder, files, lambda hashes: replace(manifest, files=dict(hashes)))
    assert isinstance(placed, Engine), "a pose network's engine stays one"
    return placed


@contextmanager
def engine_lock(folder: Path) -> Iterator[None]:
    """One builder at a time for `folder`, across processes. A killed holder's lock is free at once."""
    real = _real(folder)
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        path = real.parent / f".{real.name}.lock"
        handle = _locked_file(path, folder)
    except OSError as error:
        raise EngineError(f"engine '{folder}' cannot be written ({error.strerror}); choose another --output") from error
    try:
        _put_back(real)
        _sweep(real)
        yield
    finally:
        path.unlink(missing_ok=True)  # while the lock is held: whoever waits notices that its file is gone
        os.close(handle)


def recover_engine(folder: Path) -> None:
    """Put back the engine that a rebuild had moved aside when it was killed; nothing where there is none."""
    real = _real(folder)
    if not real.exists() and _left_beside(real, REPLACED):
        with engine_lock(real):
            return  # whoever takes the lock puts it back


def _put_back(folder: Path) -> None:
    for path in _left_beside(folder, REPLACED):
        if not folder.exists() and (path / MANIFEST_NAME).is_file():
            log.warning("engine '%s' is put back: the build that was to replace it was killed", folder)
            path.rename(folder)


def _sweep(folder: Path) -> None:
    """Remove what a killed build of the same engine left beside it; the lock says that nobody is at work there."""
    for ending in (PARTIAL, REPLACED):
        for path in _left_beside(folder, ending):
            log.info("removing '%s', left by a build that was killed", path)
            shutil.rmtree(path, ignore_errors=True)


def _left_beside(folder: Path, ending: str) -> list[Path]:
    return sorted(folder.parent.glob(f".{glob.escape(folder.name)}.{'?' * RANDOM_LETTERS}{ending}"))


def _locked_file(path: Path, folder: Path) -> int:
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process is building '%s'; waiting for it", folder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        if path.exists() and os.fstat(handle).st_ino == path.stat().st_ino:
            return handle
        os.close(handle)


def _put_in_place(temporary: Path, folder: Path) -> None:
    """`temporary` becomes `folder`; what that was is in `temporary` then, or gone."""
    if not folder.exists():
        temporary.rename(folder)
    elif not _exchanged(temporary, folder):
        _replaced(temporary, folder)
    _sync_folder(folder.parent)


def _exchanged(one: Path, other: Path) -> bool:
    """Two folders change places in one step, so that a reader always finds one; False where the system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):  # of glibc 2.28
        return False
    if libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    fault = ctypes.get_errno()
    if fault in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):  # an older kernel, or a network file system
        return False
    raise OSError(fault, os.strerror(fault), str(other))


def _replaced(temporary: Path, folder: Path) -> None:
    """The same in two steps; a run that is killed between them is mended by the next."""
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=REPLACED, dir=folder.parent))
    folder.rename(old)
    try:
        temporary.rename(folder)
    except BaseException:  # an interrupt too
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Names in a folder reach the disk as the files' contents do: by being told to."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_made_anew(name: str) -> bool:
    return finished_name(name) == LAUNCHES or fnmatchcase(finished_name(name), KERNEL_CACHE_GLOB)


def _files_of(folder: Path) -> list[str]:
    try:
        mend = "remove the folder or choose another --output"
        files = json_from_file(folder / MANIFEST_NAME, "manifest", EngineError, mend, largest=TABLE_BYTES)["files"]
    except (KeyError, TypeError) as error:
        raise EngineError(
            f"output '{folder}' holds a damaged {MANIFEST_NAME} ({error}); remove the folder or choose another --output"
        ) from error
    return list(files)

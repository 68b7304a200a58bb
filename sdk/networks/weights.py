"""Released checkpoints, fetched once into the cache folder. Reading them is `reader`'s work.

How the bytes come is `download`'s work. The sha256 is checked before anybody sees the file, or told where none is
published; the whole digest of what was fetched first is kept beside it (`….pth.sha256`), so that a later change is
told. Two processes that want the same file make one download. Links and pipes in the cache are not followed.

    path = weights_file(recipe_by_name("rtmpose-s-256x192"))      # ~/.cache/simcc-edge-sdk/weights/rtmpose-s_….pth
"""

from __future__ import annotations

import fcntl
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdk.detector_recipe import DetectorRecipe
from sdk.errors import DownloadError
from sdk.files import write_text
from sdk.manifest import sha256_of_file
from sdk.networks.download import PAUSE_S, Opener, fetch, opened_plain, plain_file
from sdk.reading import bytes_from_file
from sdk.recipe import Recipe, Weights
from sdk.resources import CACHE_VARIABLE, released_path

__all__ = ["weights_file", "weights_path"]

WHOLE = 64  # hex digits of a sha256; OpenMMLab's file names hold the first 8

_log = logging.getLogger(__name__)


def weights_path(recipe: Recipe | DetectorRecipe) -> Path:
    """Where the released weights of `recipe` are, or will be."""
    return released_path(_weights_of(recipe).url)


def weights_file(recipe: Recipe | DetectorRecipe, *, opener: Opener | None = None, pause_s: float = PAUSE_S) -> Path:
    """The released weights of `recipe`, downloaded if they are not there; DownloadError says what to put where."""
    weights = _weights_of(recipe)
    if not weights.url.startswith("https://"):
        raise DownloadError(f"weights of recipe '{recipe.name}' must come over https (got '{weights.url}')")
    path, subject = weights_path(recipe), f"weights of recipe '{recipe.name}'"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            if not plain_file(path):
                _fetch(weights, path, opener, pause_s, subject)
            _check(weights, path, subject)
    except OSError as error:
        raise DownloadError(
            f"{subject} cannot be kept in '{path.parent}' ({error}); free space there, or name "
            f"another folder in {CACHE_VARIABLE}"
        ) from error
    return path


def _weights_of(recipe: Recipe | DetectorRecipe) -> Weights:
    if recipe.weights is None:
        raise DownloadError(
            f"recipe '{recipe.name}' names no released weights (source: {recipe.source}); give a file with --weights, "
            "or --weights random to measure speed"
        )
    return recipe.weights


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process, and one thread of it, at a time; the lock goes with its holder."""
    with opened_plain(path.with_name(f"{path.name}.lock"), "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("another process is fetching '%s'; waiting for it", path.name)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(weights: Weights, path: Path, opener: Opener | None, pause_s: float, subject: str) -> None:
    """Download to `path`, going on where a broken attempt left off; a resumed file that is wrong is fetched anew."""
    part = path.with_name(f"{path.name}.part")
    mend = f"on a machine with a network, download that file and put it at {path}, or name a file of your own instead"
    if plain_file(part) and weights.sha256 is None:
        part.unlink()  # nothing would tell two halves of different files from one file
    resumed = plain_file(part) and part.stat().st_size > 0
    fetch(weights.url, part, subject, mend, opener=opener, pause_s=pause_s)
    if resumed and _wrong(weights, path, sha256_of_file(part)):
        _log.warning("the resumed download of %s is not the file the recipe names; fetching it anew", path.name)
        part.unlink()
        fetch(weights.url, part, subject, mend, opener=opener, pause_s=pause_s)
    wrong = _wrong(weights, path, sha256_of_file(part))
    if wrong:
        part.unlink()
        raise DownloadError(f"{subject}: {weights.url} {wrong}; nothing was kept")
    part.replace(path)


def _check(weights: Weights, path: Path, subject: str) -> None:
    digest = sha256_of_file(path)
    wrong = _wrong(weights, path, digest)
    if wrong:
        raise DownloadError(
            f"{subject}: '{path}' {wrong}; remove it and run again, or put the file of {weights.url} there"
        )
    if weights.sha256 is None:
        _log.warning(
            "no digest of %s is published, so it cannot be checked; its sha256 is %s: compare it with another source, "
            "and put it into a recipe of your own (weights.sha256)",
            path.name,
            digest,
        )
    if len(weights.sha256 or "") < WHOLE and _pinned(path) is None:
        write_text(_pin_of(path), f"{digest}  {path.name}\n")  # as sha256sum writes it


def _wrong(weights: Weights, path: Path, digest: str) -> str | None:
    """Why a file of this digest is not the one wanted at `path`; None where it is."""
    if weights.sha256 is not None and not digest.startswith(weights.sha256):
        return f"is not the file the recipe names (sha256 {digest[:12]}…, expected {weights.sha256}…)"
    pinned = _pinned(path) if len(weights.sha256 or "") < WHOLE else None
    if pinned not in (None, digest):
        return (
            f"is not the file that was fetched first (sha256 {digest[:12]}…, then {pinned[:12]}…, kept in "
            f"'{_pin_of(path)}'; remove that file if you trust the new one)"
        )
    return None


def _pin_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _pinned(path: Path) -> str | None:
    """The whole digest of what was fetched first, if that was kept."""
    pin = _pin_of(path)
    if not plain_file(pin):
        return None
    told = bytes_from_file(pin, "digest", DownloadError, "remove it", largest=1 << 12).decode(errors="replace").split()
    if not told or re.fullmatch(r"[0-9a-f]{64}", told[0]) is None:
        raise DownloadError(f"'{pin}' must begin with the 64 hex digits of a sha256 (got {told[:1]}); remove it")
    return told[0]

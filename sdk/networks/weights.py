"""Released checkpoints, fetched once into the cache folder. It moves bytes; reading them is `reader`'s work.

https only, also after a redirect; resumed where it broke off; the sha256 checked before anybody sees the file, or told
where none is published; two processes that want the same file make one download.

    path = weights_file(recipe_by_name("rtmpose-s-256x192"))      # ~/.cache/simcc-edge-sdk/weights/rtmpose-s_….pth
"""

from __future__ import annotations

import fcntl
import http.client
import logging
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from sdk.errors import DownloadError
from sdk.manifest import sha256_of_file
from sdk.recipe import Recipe, Weights
from sdk.resources import CACHE_VARIABLE, cache_folder

__all__ = ["Answer", "Opener", "weights_file", "weights_path"]

PIECE = 1 << 18
ATTEMPTS = 4
PAUSE_S = 1.0  # before the second attempt; doubled before each further one
TIMEOUT_S = 30.0

_log = logging.getLogger(__name__)


class Answer(Protocol):
    """What a server answered: `http.client.HTTPResponse`, or a stand-in."""

    status: int
    headers: Any

    def read(self, amount: int, /) -> bytes: ...

    def close(self) -> None: ...


class Opener(Protocol):
    """Asks for `url` from byte `start` on."""

    def __call__(self, url: str, start: int, /) -> Answer: ...


def weights_path(recipe: Recipe) -> Path:
    """Where the released weights of `recipe` are, or will be."""
    return cache_folder() / "weights" / _file_name(_weights_of(recipe))


def weights_file(recipe: Recipe, *, opener: Opener | None = None, pause_s: float = PAUSE_S) -> Path:
    """The released weights of `recipe`, downloaded if they are not there; DownloadError says what to put where."""
    weights = _weights_of(recipe)
    if not weights.url.startswith("https://"):
        raise DownloadError(f"weights of recipe '{recipe.name}' must come over https (got '{weights.url}')")
    path = weights_path(recipe)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            if not path.is_file():
                _fetch(weights, path, opener or _https, pause_s, recipe.name)
            _check(weights, path, recipe.name)
    except OSError as error:
        raise DownloadError(
            f"weights of recipe '{recipe.name}' cannot be kept in '{path.parent}' ({error}); free space there, or name "
            f"another folder in {CACHE_VARIABLE}"
        ) from error
    return path


def _weights_of(recipe: Recipe) -> Weights:
    if recipe.weights is None:
        raise DownloadError(
            f"recipe '{recipe.name}' names no released weights (source: {recipe.source}); give a file with --weights, "
            "or --weights random to measure speed"
        )
    return recipe.weights


def _file_name(weights: Weights) -> str:
    name = Path(urllib.parse.unquote(urllib.parse.urlsplit(weights.url).path)).name
    if not name or name.startswith("."):
        raise DownloadError(f"weights URL must end in a file name (got '{weights.url}')")
    return name


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process, and one thread of it, at a time; the lock goes with its holder."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(weights: Weights, path: Path, opener: Opener, pause_s: float, name: str) -> None:
    """Download to `path`, going on where a broken attempt left off; a resumed file that is wrong is fetched anew."""
    part = path.with_name(f"{path.name}.part")
    if weights.sha256 is None:
        part.unlink(missing_ok=True)  # nothing would tell two halves of different files from one file
    resumed = part.is_file() and part.stat().st_size > 0
    _complete(weights, part, opener, pause_s, name)
    if resumed and not _is_right(weights, part):
        _log.warning("the resumed download of %s is not the file the recipe names; fetching it anew", path.name)
        part.unlink()
        _complete(weights, part, opener, pause_s, name)
    if not _is_right(weights, part):
        found = sha256_of_file(part)
        part.unlink()
        raise DownloadError(
            f"weights of recipe '{name}': {weights.url} is not the file the recipe names (sha256 {found[:12]}…, "
            f"expected {weights.sha256}…); nothing was kept"
        )
    part.replace(path)


def _complete(weights: Weights, part: Path, opener: Opener, pause_s: float, name: str) -> None:
    """All bytes of the file in `part`, in as many attempts as are allowed."""
    reason: Exception | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(pause_s * 2 ** (attempt - 1))
        try:
            _attempt(weights.url, part, opener)
            return
        except urllib.error.HTTPError as error:
            reason = error
            if 400 <= error.code < 500 and error.code not in (408, 416, 429):
                break  # asking again will not help
            if error.code == 416:
                part.unlink(missing_ok=True)
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = error
    raise DownloadError(
        f"weights of recipe '{name}' could not be fetched from {weights.url} ({reason}); on a machine with a network, "
        f"download that file and put it at {part.with_suffix('')}, or give a file with --weights"
    ) from reason


def _attempt(url: str, part: Path, opener: Opener) -> None:
    start = part.stat().st_size if part.is_file() else 0
    answer = opener(url, start)
    try:
        goes_on = start > 0 and answer.status == 206
        start = start if goes_on else 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        with part.open("ab" if goes_on else "wb") as file, _progress(part.stem, start, total) as bar:
            while piece := _read(answer):
                file.write(piece)
                bar.update(len(piece))
    finally:
        answer.close()
    received = part.stat().st_size
    if total is not None and received < total:
        raise ConnectionError(f"the connection ended after {received} of {total} bytes")


def _read(answer: Answer) -> bytes:
    try:
        return answer.read(PIECE)
    except OSError as error:  # of the connection, not of the disk
        raise ConnectionError(str(error)) from error


def _progress(name: str, start: int, total: int | None) -> Any:
    from tqdm import tqdm

    quiet = None if _log.isEnabledFor(logging.INFO) else True  # None: only where a person looks on
    return tqdm(initial=start, total=total, desc=name, unit="B", unit_scale=True, disable=quiet)


def _is_right(weights: Weights, path: Path) -> bool:
    return weights.sha256 is None or sha256_of_file(path).startswith(weights.sha256)


def _check(weights: Weights, path: Path, name: str) -> None:
    if weights.sha256 is None:
        _log.warning(
            "no digest of %s is published, so it cannot be checked; its sha256 is %s: compare it with another source, "
            "and put it into a recipe of your own (weights.sha256)",
            path.name,
            sha256_of_file(path),
        )
    if not _is_right(weights, path):
        raise DownloadError(
            f"weights of recipe '{name}': '{path}' is not the file the recipe names (sha256 "
            f"{sha256_of_file(path)[:12]}…, expected {weights.sha256}…); remove it and run again, or put the file of "
            f"{weights.url} there"
        )


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """A redirect away from https is an error."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.startswith("https://"):
            raise urllib.error.HTTPError(req.full_url, 403, f"redirected away from https, to {newurl}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _https(url: str, start: int) -> Answer:
    request = urllib.request.Request(url, headers={"User-Agent": "simcc-edge-sdk"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    answer: Answer = urllib.request.build_opener(_HttpsOnly).open(request, timeout=TIMEOUT_S)
    return answer

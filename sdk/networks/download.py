"""One file over https into a partial file, in bounds: of size, of rate, of time. What the file must be is `weights`'.

Resumed where an earlier attempt left off, if the server really goes on there; asked again where that may help. A server
may answer late, slowly, without end, with lengths and places that are none: it costs at most `DEADLINE_S`.

    fetch(url, Path("net.pth.part"), "weights of recipe 'net'", "put the file there")  # or a DownloadError
"""

from __future__ import annotations

import http.client
import logging
import os
import re
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import IO, Any, Literal, Protocol

from sdk.errors import DownloadError

__all__ = ["Answer", "Opener", "fetch", "opened_plain", "plain_file"]

PIECE = 1 << 18
ATTEMPTS = 4
PAUSE_S = 1.0  # before the second attempt; doubled before each further one
TIMEOUT_S = 30.0  # without one byte
ANSWER_S = 60.0  # until the headers are there
LARGEST_BYTES = 4 << 30  # the largest released pose network, ViTPose-H with its optimiser, takes 2.5 GiB
LOWEST_RATE = 16 << 10  # bytes a second, over SLOW_S: below it the connection is given up and asked for anew
SLOW_S = 60.0
DEADLINE_S = 7200.0  # of all attempts; what came until then is resumed by the next run

_log = logging.getLogger(__name__)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:\d{1,18}|\*)")


class Answer(Protocol):
    """What a server answered: `http.client.HTTPResponse`, or a stand-in. `read1` gives what is there already."""

    status: int
    headers: Any

    def read1(self, amount: int, /) -> bytes: ...

    def close(self) -> None: ...


class Opener(Protocol):
    """Asks for `url` from byte `start` on."""

    def __call__(self, url: str, start: int, /) -> Answer: ...


class _BrokenError(Exception):
    """A connection that may be tried again."""


class _FalseResumeError(_BrokenError):
    """What comes is of another place of the file."""


class _TooLargeError(Exception):
    """More than any checkpoint has."""


def fetch(
    url: str,
    part: Path,
    subject: str,
    mend: str,
    *,
    opener: Opener | None = None,
    pause_s: float = PAUSE_S,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """All bytes of `url` in `part`, in as many attempts as are allowed; DownloadError says of `subject` why not."""
    until, reason = clock() + DEADLINE_S, ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(pause_s * 2 ** (attempt - 1))
        try:
            _attempt(url, part, opener or _https, until, clock)
            return
        except urllib.error.HTTPError as error:
            reason = str(error)
            if 400 <= error.code < 500 and error.code not in (408, 416, 429):
                break  # asking again will not help
            if error.code == 416:
                part.unlink(missing_ok=True)
        except _FalseResumeError as error:
            reason = str(error)
            part.unlink(missing_ok=True)
        except (_BrokenError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
        except _TooLargeError as error:
            reason = str(error)
            part.unlink(missing_ok=True)
            break
        if clock() >= until:
            reason += f"; {DEADLINE_S / 3600:g} hours are over"
            break
    raise DownloadError(f"{subject} could not be fetched from {url} ({reason}); {mend}")


def plain_file(path: Path) -> bool:
    """Whether a file is there. DownloadError for a link, a pipe or another thing, which is never followed or opened."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(mode):
        kind = "link" if stat.S_ISLNK(mode) else "folder" if stat.S_ISDIR(mode) else "pipe or a device"
        raise DownloadError(f"'{path}' must be a plain file (it is a {kind}); remove it and run again")
    return True


def opened_plain(path: Path, mode: Literal["ab", "wb"]) -> IO[bytes]:
    """`path` opened for writing, unless it is a link or a pipe."""
    plain_file(path)
    flags = os.O_NOFOLLOW | os.O_NONBLOCK  # should one take its place between the question and the opening
    return open(path, mode, opener=lambda name, wanted: os.open(name, wanted | flags, 0o644))


def _attempt(url: str, part: Path, opener: Opener, until: float, clock: Callable[[], float]) -> None:
    start = part.stat().st_size if plain_file(part) else 0
    answer = _asked(opener, url, start)
    try:
        start = _begins_at(answer, start)
        length = _length_of(answer)
        total = None if length is None else start + length
        if total is not None and total > LARGEST_BYTES:
            raise _TooLargeError(f"it is larger than {LARGEST_BYTES >> 20} MiB: {total} bytes")
        with opened_plain(part, "ab" if start else "wb") as file, _progress(part.stem, start, total) as bar:
            received = _received(answer, file, start, bar, until, clock)
    finally:
        answer.close()
    if total is not None and received < total:
        raise _BrokenError(f"the connection ended after {received} of {total} bytes")


def _received(answer: Answer, file: IO[bytes], start: int, bar: Any, until: float, clock: Callable[[], float]) -> int:
    """Bytes of the file, from its beginning, once the answer has ended."""
    received, window, counted = start, clock(), start
    while piece := _piece(answer):
        received += len(piece)
        if received > LARGEST_BYTES:
            raise _TooLargeError(f"it is larger than {LARGEST_BYTES >> 20} MiB")
        file.write(piece)
        bar.update(len(piece))
        now = clock()
        if now >= until:
            raise _BrokenError(f"the connection was given up after {received} bytes")
        if now - window >= SLOW_S:
            if received - counted < LOWEST_RATE * (now - window):
                raise _BrokenError(f"the connection gave less than {LOWEST_RATE >> 10} KiB a second")
            window, counted = now, received
    return received


def _asked(opener: Opener, url: str, start: int) -> Answer:
    """The answer, if it comes within ANSWER_S: a server may send its headers letter by letter."""
    answers: SimpleQueue[Answer | Exception] = SimpleQueue()
    given_up = Event()

    def ask() -> None:
        try:
            answer = opener(url, start)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a redirect to no URL
            answers.put(error)
            return
        answers.put(answer)
        if given_up.is_set():
            answer.close()

    Thread(target=ask, daemon=True, name="sdk-download").start()
    try:
        found = answers.get(timeout=ANSWER_S)
    except Empty:
        given_up.set()
        raise _BrokenError(f"no answer came within {ANSWER_S:g} s") from None
    if isinstance(found, (urllib.error.HTTPError, http.client.HTTPException)):
        raise found
    if isinstance(found, Exception):
        raise _BrokenError(str(found)) from found
    return found


def _begins_at(answer: Answer, start: int) -> int:
    """Where the answer goes on: `start`, or 0 where the server begins anew."""
    if start == 0 or answer.status != 206:
        return 0
    told = str(answer.headers.get("Content-Range"))
    found = _CONTENT_RANGE.fullmatch(told.strip())
    if found is None or int(found.group(1)) != start:
        raise _FalseResumeError(f"asked for the bytes from {start} on, it gave others (Content-Range: {told[:80]})")
    return start


def _length_of(answer: Answer) -> int | None:
    told = answer.headers.get("Content-Length")
    if told is None:
        return None
    found = re.fullmatch(r"\s*(\d{1,18})\s*", str(told), re.ASCII)
    if found is None:
        raise _BrokenError(f"the answer's Content-Length is no number ({str(told)[:80]!r})")
    return int(found.group(1))


def _piece(answer: Answer) -> bytes:
    try:
        return answer.read1(PIECE)
    except (OSError, ValueError) as error:  # of the connection, not of the disk; ValueError: of a chunk's length
        raise _BrokenError(str(error)) from error


def _progress(name: str, start: int, total: int | None) -> Any:
    from tqdm import tqdm

    quiet = None if _log.isEnabledFor(logging.INFO) else True  # None: only where a person looks on
    return tqdm(initial=start, total=total, desc=name, unit="B", unit_scale=True, disable=quiet)


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

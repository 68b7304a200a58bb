"""What a word names that is no file: a camera, a stream, a pipeline, standard input; and how to tell it, secrets kept.

address_of("rtsp://me:secret@door/1")                       # the same: a stream
address_of("clip.mp4")                                      # None: a file
without_secrets("rtsp://me:secret@door/1?token=abc")        # 'rtsp://door/1?token=***'
comes_back("rtsp://door/1")                                 # whether somebody listens there; None: no way to tell
"""

from __future__ import annotations

import os
import re
import socket
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from errno import EAGAIN, EINVAL, ETIMEDOUT
from pathlib import Path
from threading import Lock, Thread
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from sdk.errors import InputError

__all__ = [
    "STDIN",
    "URL",
    "address_of",
    "call",
    "comes_back",
    "file_name_of",
    "is_camera",
    "is_pipeline",
    "is_rtsp",
    "is_stamped",
    "is_url",
    "without_secrets",
]

STDIN = "-"
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
CAMERA = re.compile(r"\d+|/dev/video\d+")
# up to the @; where what follows the first colon is no port it is a password, and may hold / ? # that end a host's name
USER = re.compile(r"(?<=://)(?:(?!\[)[^/?#\s\"'@:]*:(?!\d*(?:[/?#\s\"']|$))[^\s\"']*|[^/?#\s\"']*)@")
SECRET = re.compile(
    r"(?P<key>\b[\w.-]*(?:use?r|username|user-?id|login|loginuse|account|pass?|passwd|password|passphrase|pwd|pw|token"
    r"|auth|key|secret|sig|signature|credential|jwt|session_?id)=)(?P<value>\"[^\"]*\"|[^&\s#!]+)",
    re.IGNORECASE,
)
# what tells a recorder's channels apart, though it may stand in one word with a password
CHANNEL = re.compile(r"(?<![a-z])(channel|ch|stream|subtype|camera|cam|track)=(\d{1,4})(?![a-z\d])", re.IGNORECASE)
LAST_CAMERA = 2**31 - 1
PORTS = {"http": 80, "https": 443, "rtmp": 1935, "rtmps": 443, "rtsp": 554, "rtsps": 322}
STAMPED = frozenset(("rtsp", "rtsps", "rtp", "udp", "srt", "rtmp", "rtmps"))
ANSWER_S = 0.5  # for a host to take a connection


def address_of(word: str) -> int | str | None:
    """What a camera, a stream, a pipeline or standard input is opened by; a file whose name is a number is a file.

    InputError for a number or a URL that can be none.
    """
    if CAMERA.fullmatch(word) and not os.path.isfile(word):  # noqa: PTH113 (Path.is_file raises for a name too long)
        if word.isdecimal() and (len(word) > 10 or int(word) > LAST_CAMERA):
            raise InputError(f"a camera's number must be 0 to {LAST_CAMERA} (got {word})")
        return int(word) if word.isdecimal() else word
    if URL.match(word) and not is_pipeline(word):
        _check_url(word)
    return word if word == STDIN or is_pipeline(word) or URL.match(word) else None


def _check_url(address: str) -> None:
    """InputError for a URL whose host or port cannot be read."""
    try:
        wrong = urlsplit(address).port == 0
    except ValueError:  # what it says may be a part of a password with a # in it
        wrong = True
    if wrong:
        raise InputError(
            f"the address '{without_secrets(address)}' names no host and port; write / ? # @ [ and ] in a password "
            "as %2F %3F %23 %40 %5B and %5D, and an IPv6 host in [ ]"
        )


def is_url(address: int | str | None) -> bool:
    return isinstance(address, str) and not is_pipeline(address) and URL.match(address) is not None


def is_camera(address: int | str | None) -> bool:
    return isinstance(address, int) or (address is not None and CAMERA.fullmatch(address) is not None)


def is_pipeline(address: int | str | None) -> bool:
    """Whether it is written as GStreamer's elements, with ' ! ' between them."""
    return isinstance(address, str) and " ! " in address


def is_rtsp(address: int | str | None) -> bool:
    return _scheme_of(address) in ("rtsp", "rtsps")


def is_stamped(address: int | str | None) -> bool:
    """Whether it is a stream whose frames carry stamps of the camera's, or of an encoder's."""
    return _scheme_of(address) in STAMPED


def _scheme_of(address: int | str | None) -> str:
    """Of a URL; '' of anything else."""
    return urlsplit(str(address)).scheme.lower() if is_url(address) else ""


def without_secrets(text: str) -> str:
    """`text`, an address or what a library said of one, without user names, passwords and keys."""
    return SECRET.sub(lambda found: f"{found['key']}***", USER.sub("", text))


def file_name_of(address: int | str) -> str:
    """What the results of an address are named after: what stands before a secret in its last part, and its channel."""
    if is_camera(address):
        return f"camera-{str(address).removeprefix('/dev/video')}"
    if is_url(address):
        parts = urlsplit(str(address))
        name = Path(SECRET.sub("", Path(parts.path).name).rstrip(";") or parts.hostname or "stream")
        channel = "".join(f"-{key}-{number}" for key, number in CHANNEL.findall(f"{parts.path}?{parts.query}"))
        return f"{name.stem}{channel}{name.suffix}" if channel else str(name)
    return "pipeline" if is_pipeline(address) else "stdin"


def comes_back(address: int | str | None) -> bool | None:
    """Whether a host takes connections, or a camera's device is there; None where only opening it tells."""
    if is_camera(address):
        return Path(f"/dev/video{address}" if isinstance(address, int) else str(address)).exists()
    parts = urlsplit(str(address)) if is_url(address) else None
    if parts is None or parts.scheme.lower() not in PORTS or not parts.hostname:
        return None
    try:
        call(str(address), ANSWER_S)
    except OSError:
        return False
    return True


def call(address: str, most_s: float) -> None:
    """Open and close a connection to a URL's port; OSError: nobody there takes one."""
    try:
        parts = urlsplit(address)
        port = parts.port or PORTS[parts.scheme.lower()]
    except ValueError:  # what it says may be a part of a password with a # in it
        raise OSError(EINVAL, "the address names no host and port") from None
    until_s = monotonic() + most_s
    fault: OSError = TimeoutError(ETIMEDOUT, "the host's name was not resolved in time")
    for family, kind, protocol, _, place in _resolved(parts.hostname or "", port, most_s):
        try:
            with socket.socket(family, kind, protocol) as tried:
                tried.settimeout(max(until_s - monotonic(), 0.01))
                tried.connect(place)
                return
        except OSError as error:
            fault = error
    raise fault


_resolving: dict[tuple[str, int], Future[list[Any]]] = {}
_resolving_lock = Lock()


def _resolved(host: str, port: int, most_s: float) -> list[Any]:
    """What the host's name stands for; nothing where that is not known in time. The system's resolver has no limit: a
    thread that nobody waits for asks it, one for each name, however often that is looked up meanwhile."""
    with _resolving_lock:
        asked = _resolving.get((host, port))
        if asked is None:
            asked = Future()
            try:
                Thread(target=_resolve, args=(host, port, asked), name="sdk-resolve", daemon=True).start()
            except RuntimeError as error:  # the system gives no more threads
                raise OSError(EAGAIN, str(error)) from None
            _resolving[host, port] = asked  # before the thread has the lock, which takes it out
    try:
        return asked.result(most_s)
    except FutureTimeoutError:
        return []


def _resolve(host: str, port: int, asked: Future[list[Any]]) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        asked.set_exception(error)
    except UnicodeError:  # a part of more than 63 letters
        asked.set_exception(OSError(EINVAL, "the host's name is none"))
    else:
        asked.set_result(found)
    finally:
        with _resolving_lock:
            del _resolving[host, port]

"""Whether an address answers, before FFmpeg or OpenCV is given it, which would wait longer. Nothing is read from it.

comes_back("rtsp://door/1")             # whether somebody listens there; None: no way to tell but to open it
call("rtsp://door/1", 10.0)             # OSError: nobody took a connection for 10 s
"""

from __future__ import annotations

import socket
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from errno import EAGAIN, EINVAL, ETIMEDOUT
from pathlib import Path
from threading import Lock, Thread
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from sdk.media.addresses import is_camera, is_url

__all__ = ["call", "comes_back"]

ANSWER_S = 0.5  # for a host to take a connection
PORTS = {"http": 80, "https": 443, "rtmp": 1935, "rtmps": 443, "rtsp": 554, "rtsps": 322}


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
    except ValueError:  # as a part of more than 63 letters
        asked.set_exception(OSError(EINVAL, "the host's name is none"))
    else:
        asked.set_result(found)
    finally:
        with _resolving_lock:
            del _resolving[host, port]

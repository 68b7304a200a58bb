"""What a word names that is no file: a camera, a stream, a pipeline, standard input; and how to tell it, secrets kept.

address_of("rtsp://me:secret@door/1")                       # the same: a stream
address_of("clip.mp4")                                      # None: a file
without_secrets("rtsp://me:secret@door/1?token=abc")        # 'rtsp://door/1?token=***'
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from sdk.errors import InputError

__all__ = [
    "STDIN",
    "URL",
    "address_of",
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
STAMPED = frozenset(("rtsp", "rtsps", "rtp", "udp", "srt", "rtmp", "rtmps"))


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

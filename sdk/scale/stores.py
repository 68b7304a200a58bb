"""Where bytes lie: local paths, and s3://, gs://, http(s):// and whatever else fsspec opens. What is in them is not
known here.

    data = read_bytes("s3://bucket/photos/1.jpg")     # tried TRIES times where a store does not answer
    with opened("shard-000.tar") as file: ...
    shown("https://me:secret@host/a.jpg?X-Amz-Signature=...")   # as it may be told: 'https://host/a.jpg'

Credentials and endpoints are the environment's, as each store's own library reads them (AWS_ENDPOINT_URL and the like).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import IO, Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from sdk.errors import InputError, MissingDependencyError
from sdk.media.addresses import URL, without_secrets

__all__ = ["faults_as_oserror", "filesystem", "is_url", "opened", "read_bytes", "shown", "told"]

LIBRARIES = frozenset(
    {"adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "requests", "urllib3"}
)
TRIES = 3
WAIT_S = 0.5  # before the second try; twice as long before the next
MOST_BYTES = 1 << 30  # of one picture's file
LIVE = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "udp", "rtp", "srt", "mms"})
SECRET = re.compile(r"sig|token|secret|credential|password|key|expires|x-(amz|goog)-", re.IGNORECASE)
PARAMETER = re.compile(r"(?<=[?&])(?P<name>[^?&=\s]+)=[^&#\s\"']+")
LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)  # a second try meets them again


def is_url(place: str) -> bool:
    return URL.match(place) is not None


def shown(place: str) -> str:
    """The place as it may be written down: a URL without user, password and what signs it."""
    if not is_url(place):
        return place
    parts = urlsplit(place)
    query = [(name, value) for name, value in parse_qsl(parts.query) if not _is_secret(name)]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, urlencode(query), ""))


def told(error: BaseException) -> str:
    """What an error of a store says, in one line; of the addresses in it no more than may be written down."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    words = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    line = without_secrets(words.splitlines()[0])
    return PARAMETER.sub(lambda each: f"{each['name']}=***" if _is_secret(each["name"]) else each[0], line)[:300]


def _is_secret(name: str) -> bool:
    """Whether a parameter of an address signs it, or is a secret in those of cameras."""
    return SECRET.search(name) is not None or without_secrets(f"{name}=0") != f"{name}=0"


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it. Listings are not kept: an archive's would fill the memory."""
    scheme = urlsplit(url).scheme.lower()
    if scheme in LIVE:
        raise InputError(f"source '{shown(url)}' is a live stream, which has no end; `sdk predict` takes it")
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependencyError(
            f"source '{shown(url)}' needs fsspec, which is not installed; run `pip install 'simcc-edge-sdk[annotate]'`"
        ) from error
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise MissingDependencyError(
            f"source '{shown(url)}' needs a package that is not installed ({told(error)})"
        ) from error
    except ValueError as error:
        raise InputError(f"source '{shown(url)}' is of no store that fsspec knows ({told(error)})") from error
    return found


def read_bytes(place: str) -> bytes:
    """All of a file. OSError, after TRIES tries where another could help."""
    for number in range(1, TRIES):
        try:
            return _read(place)
        except LASTING:
            raise
        except OSError:
            sleep(WAIT_S * 2 ** (number - 1))
    return _read(place)


def _read(place: str) -> bytes:
    with opened(place) as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise OSError(f"the file is longer than {MOST_BYTES >> 30} GiB")
    return data


@contextmanager
def opened(place: str) -> Iterator[IO[bytes]]:
    """A file to read from, at any place in it where the store lets that be. Errors of stores are OSErrors."""
    if not is_url(place):
        with Path(place).open("rb") as file:
            yield file
        return
    system, path = filesystem(place)
    with faults_as_oserror(), system.open(path, "rb") as file:
        yield cast("IO[bytes]", file)


@contextmanager
def faults_as_oserror() -> Iterator[None]:
    """Libraries of stores have errors of their own: in the block each is an OSError that tells the same."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] not in LIBRARIES:
            raise
        raise OSError(told(error)) from error

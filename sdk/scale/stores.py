"""Where bytes lie: local paths, and s3://, gs://, http(s):// and whatever else fsspec opens. What is in them is not
known here.

    data = read_bytes("s3://bucket/photos/1.jpg")     # tried TRIES times where a store does not answer
    with opened("shard-000.tar") as file: ...
    shown("https://me:secret@host/a.jpg?X-Amz-Signature=...")   # as it may be told: 'https://host/a.jpg'

Credentials and endpoints are the environment's, as each store's own library reads them (AWS_ENDPOINT_URL and the like).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from traceback import walk_tb
from typing import IO, Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from sdk.errors import InputError, MissingDependencyError
from sdk.media.addresses import URL, without_secrets

__all__ = ["faults_as_oserror", "filesystem", "is_http", "is_url", "opened", "read_bytes", "shown", "told"]

LIBRARIES = frozenset(
    {"adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "requests", "s3fs", "urllib3"}
)
TRIES = 3
WAIT_S = 0.5  # before the second try; twice as long before the next
PATIENCE_S = 30.0  # libraries try again themselves: where nobody listens s3fs for 9 s, gcsfs for 35 s, adlfs for 82 s
MOST_BYTES = 1 << 30  # of one picture's file
LIVE = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "udp", "rtp", "srt", "mms"})
SECRET = re.compile(r"sig|token|secret|credential|password|key|expires|x-(amz|goog)-", re.IGNORECASE)
PARAMETER = re.compile(r"(?<=[?&])(?P<name>[^?&=\s]+)=[^&#\s\"']+")
# for an answer, and for more of it: aiohttp's own limit is of a whole file, and gcsfs waits it out six times
SILENT_S = 60.0
GOOGLE = frozenset({"gs", "gcs"})
HTTP = frozenset({"http", "https"})
CONTAINERS = frozenset({"az", "abfs", "abfss"})  # what stands before an @ is a container there, and nobody's name
GONE = (404, 410)
REASON = re.compile(r"(?:Forbidden|Bad Request): \S*\n(?P<reason>.+)")  # of gcsfs, which names what it asked for first
LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)  # a second try meets them again


def is_url(place: str) -> bool:
    return URL.match(place) is not None


def shown(place: str) -> str:
    """The place as it may be written down: a URL without user, password and what signs it."""
    if not is_url(place):
        return place
    scheme, _, rest = place.partition("://")
    if scheme.lower() not in HTTP:  # ? and # are letters of names there
        place = place if scheme.lower() in CONTAINERS else f"{scheme}://{_without_user(rest)}"
        return _without_signatures(place)
    parts = urlsplit(place)
    query = [(name, value) for name, value in parse_qsl(parts.query) if not _is_secret(name)]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, urlencode(query), ""))


def told(error: BaseException) -> str:
    """What an error of a store says, in one line; of the addresses in it no more than may be written down."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    words = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    reason = REASON.match(words)
    line = without_secrets(reason["reason"] if reason else words.splitlines()[0])
    return _without_signatures(line)[:300]


def _without_signatures(text: str) -> str:
    return PARAMETER.sub(lambda each: f"{each['name']}=***" if _is_secret(each["name"]) else each[0], text)


def _without_user(rest: str) -> str:
    """What follows an address's scheme, without who asks."""
    host, slash, path = rest.partition("/")
    return host.rpartition("@")[2] + slash + path


def _is_secret(name: str) -> bool:
    """Whether a parameter of an address signs it, or is a secret in those of cameras."""
    return SECRET.search(name) is not None or without_secrets(f"{name}=0") != f"{name}=0"


def is_http(place: str) -> bool:
    return place.partition("://")[0].lower() in HTTP


def filesystem(url: str, subject: str = "source") -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it. Listings are not kept: an archive's would fill the memory."""
    scheme, subject = url.partition("://")[0].lower(), f"{subject} '{shown(url)}'"
    if scheme in LIVE:
        raise InputError(f"{subject} is a live stream, which has no end; `sdk predict` takes it")
    if scheme in GOOGLE:
        _quiet_gcsfs()
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependencyError(
            f"{subject} needs fsspec, which is not installed; run `pip install 'simcc-edge-sdk[annotate]'`"
        ) from error
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise MissingDependencyError(f"{subject} needs a package that is not installed ({told(error)})") from error
    except ValueError as error:
        raise InputError(f"{subject} is of no store that fsspec knows ({told(error)})") from error
    try:
        with faults_as_oserror():
            # what fsspec's `url_to_fs` is made of, which takes a `::` in a name for a chain of file systems
            options = {**kind._get_kwargs_from_urls(url), **_limits(scheme), "use_listings_cache": False}
            return fsspec.filesystem(scheme, **options), kind._strip_protocol(url)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{subject} cannot be opened ({told(error)}); check its address, and the credentials in the environment"
        ) from error


def _quiet_gcsfs() -> None:
    """Else it asks with every call what kind of bucket it is, and logs whatever it also raises, with its trace."""
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    logger = logging.getLogger("gcsfs")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)


def _limits(scheme: str) -> dict[str, Any]:
    """How long libraries wait that would wait for a whole file, however long it is, or for minutes."""
    if scheme not in HTTP | GOOGLE:
        return {}
    import aiohttp

    silence = aiohttp.ClientTimeout(total=None, sock_connect=SILENT_S, sock_read=SILENT_S)
    return {"client_kwargs": {"timeout": silence}} if scheme in HTTP else {"requests_timeout": silence}


def read_bytes(place: str) -> bytes:
    """All of a file. OSError, after TRIES tries where another could help, or after PATIENCE_S."""
    began = monotonic()
    for number in range(TRIES):
        try:
            return _read(place)
        except LASTING:
            raise
        except OSError:
            if number + 1 == TRIES or monotonic() - began > PATIENCE_S:
                raise
        sleep(WAIT_S * 2**number)
    raise AssertionError("the last try returns or raises")


def _read(place: str) -> bytes:
    if is_url(place) and not is_http(place):
        data = _asked_for(*filesystem(place))
    else:
        with opened(place) as file:
            data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise OSError(f"the file is longer than {MOST_BYTES >> 30} GiB")
    return data


def _asked_for(system: Any, path: str) -> bytes:
    """A store's file by one request, so that it is of one version, whoever changes it meanwhile."""
    with faults_as_oserror():
        try:
            return cast("bytes", system.cat_file(path, 0, MOST_BYTES + 1))
        except Exception as error:  # the range: of an empty file all refuse one, of a shorter file some
            if "range" not in str(error).lower() or system.size(path) > MOST_BYTES:
                raise
            return cast("bytes", system.cat_file(path))


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
    """Libraries of stores have errors of their own, and raise Python's: in the block each is an OSError that tells the
    same."""
    try:
        yield
    except Exception as error:
        fault = _fault(error)
        if fault is error:
            raise
        raise fault from error


def _fault(error: Exception) -> Exception:
    """The OSError that an error of a store's library is; any other is itself."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception):  # so fsspec calls all that HTTP may say
        unanswered = isinstance(cause, TimeoutError) or _root(type(cause).__module__) == "aiohttp"
        return OSError(told(cause)) if unanswered and getattr(cause, "status", None) not in GONE else error
    if isinstance(error, (OSError, MemoryError)) or not _is_of_a_library(error):
        return error
    return OSError(told(error))


def _is_of_a_library(error: Exception) -> bool:
    """Whether its class is, or what was running when it was raised."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__))
    return any(_root(module) in LIBRARIES for module in (type(error).__module__, *modules))


def _root(module: str) -> str:
    return module.partition(".")[0]

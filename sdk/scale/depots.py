"""Where an archive's rows are kept: a folder, or one of a store (s3://, gs://, az://). What they are is not known here.

    with held_depot("s3://bucket/rows") as (depot, scratch):
        depot.write("0.parquet", data)               # whole, or not there at all
        with depot.opened("0.parquet") as file: ...
        scratch                                      # a folder of this machine, for what only a run needs

A folder is one run's at a time; stores know no locks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Protocol
from urllib.parse import urlsplit

from sdk.errors import OutputError, UsageError
from sdk.files import whole_file, write_bytes
from sdk.locks import held_folder
from sdk.scale.sorting import sorted_names
from sdk.scale.stores import faults_as_oserror, filesystem, is_url, opened, shown, told

__all__ = ["Depot", "depot_at", "held_depot"]

WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})  # stores that keep a file when all of it is there
END = b"PAR1"


class Depot(Protocol):
    """A folder of files. Errors of writing are OutputErrors, those of reading OSErrors."""

    def is_empty(self) -> bool:
        """Whether nothing is there, but for what is hidden."""

    def names(self) -> Iterator[str]:
        """In order, but for what is hidden."""

    def is_whole(self, name: str) -> bool:
        """Whether a file of Parquet is there with its end."""

    def opened(self, name: str) -> AbstractContextManager[IO[bytes]]: ...

    def write(self, name: str, content: bytes) -> None: ...

    def whole_file(self, name: str) -> AbstractContextManager[Path]:
        """A path to write to, of which the file is made when the block ends well."""

    def remove(self, name: str) -> None: ...


@dataclass(frozen=True)
class Folder:
    """A depot on this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def is_empty(self) -> bool:
        return not self.path.exists() or (self.path.is_dir() and not any(self._visible()))

    def names(self) -> Iterator[str]:
        return sorted_names(self._visible())

    def is_whole(self, name: str) -> bool:  # a machine that lost its power may have kept a part
        try:
            with self.opened(name) as file:
                file.seek(-len(END), os.SEEK_END)
                return file.read() == END
        except OSError:
            return False

    def opened(self, name: str) -> AbstractContextManager[IO[bytes]]:
        return opened(str(self.path / name))

    def write(self, name: str, content: bytes) -> None:
        write_bytes(self.path / name, content)

    def whole_file(self, name: str) -> AbstractContextManager[Path]:
        return whole_file(self.path / name)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def _visible(self) -> Iterator[str]:
        return (name for name in os.listdir(self.path) if not name.startswith("."))  # noqa: PTH208


class Bucket:
    """A depot of a store. What is in it is listed once: it is this run's alone."""

    def __init__(self, url: str) -> None:
        if urlsplit(url).scheme.lower() not in WHOLE:
            raise UsageError(
                f"--output '{shown(url)}' must be a folder, or lie in a store that keeps a file when it is whole "
                f"({', '.join(sorted(WHOLE))}); write to a folder and copy it"
            )
        self._url = url.rstrip("/")
        self._system, self._path = filesystem(self._url, "--output")

    def __str__(self) -> str:
        return shown(self._url)

    @cached_property
    def _known(self) -> set[str]:
        try:
            with faults_as_oserror():
                found = self._system.ls(self._path, detail=False)
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise OutputError(
                f"'{self}' cannot be listed ({told(error)}); check the address and your rights"
            ) from error
        return {path.rstrip("/").rpartition("/")[2] for path in found} - {""}

    def is_empty(self) -> bool:
        return not self._known

    def names(self) -> Iterator[str]:
        return iter(sorted(self._known))

    def is_whole(self, name: str) -> bool:
        return name in self._known

    def opened(self, name: str) -> AbstractContextManager[IO[bytes]]:
        return opened(f"{self._url}/{name}")

    def write(self, name: str, content: bytes) -> None:
        with self._changing(name):
            self._system.pipe_file(self._at(name), content)
        self._known.add(name)

    @contextmanager
    def whole_file(self, name: str) -> Iterator[Path]:
        with TemporaryDirectory(prefix="sdk-annotate-") as folder:
            yield Path(folder) / name
            with self._changing(name):
                self._system.put_file(str(Path(folder) / name), self._at(name))
        self._known.add(name)

    def remove(self, name: str) -> None:
        with self._changing(name):
            self._system.rm_file(self._at(name))
        self._known.discard(name)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    @contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        try:
            with faults_as_oserror():
                yield
        except OSError as error:
            raise OutputError(f"'{self}/{name}' cannot be written ({told(error)}); run the command again") from error


def depot_at(place: Path | str) -> Folder | Bucket:
    return Bucket(place) if isinstance(place, str) and is_url(place) else Folder(Path(place))


@contextmanager
def held_depot(place: Path | str) -> Iterator[tuple[Depot, Path]]:
    """The depot, and a folder of this machine; a folder is its own, for this run alone."""
    depot = depot_at(place)
    if isinstance(depot, Folder):
        with held_folder(depot.path):
            yield depot, depot.path
        return
    with TemporaryDirectory(prefix="sdk-annotate-") as scratch:
        yield depot, Path(scratch)

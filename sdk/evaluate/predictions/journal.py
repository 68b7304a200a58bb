"""The journal of a long verification: what was predicted so far, so that a run that was stopped goes on where it was.

One line of JSON that says which run it is, then fixed-size float32 records, one a person, in the dataset's order. A
record that was cut off by a kill is dropped; a journal of another run is refused, never overwritten in silence.

    with Journal.open(path, key={"engines": [...]}, record_shape=(1, 17, 3)) as journal:
        journal.predictions, journal.append(batch)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import DatasetError, OutputError
from sdk.reading import json_from_text

__all__ = ["Journal"]

Float32Array = NDArray[np.float32]


class Journal:
    """Predictions on disk, persons 0 .. len - 1. `append` writes at once."""

    def __init__(self, file: IO[bytes] | None, done: Float32Array) -> None:
        self._file = file
        self._parts = [done]

    @classmethod
    def open(
        cls, path: Path | None, key: Mapping[str, Any], record_shape: tuple[int, ...], *, restart: bool = False
    ) -> Journal:
        """The journal of the run `key` in `path`, with what it already holds; new where there is none.

        Without a path it is kept in memory only.
        """
        if path is None:
            return cls(None, np.zeros((0, *record_shape), np.float32))
        header = json.dumps(key, sort_keys=True).encode() + b"\n"
        if path.exists() and not restart:
            done, end = _read(path, header, record_shape)
            resumed = path.open("r+b")
            resumed.truncate(end)
            resumed.seek(end)
            return cls(resumed, done)
        with _naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.open("wb")
            fresh.write(header)
            fresh.flush()
        return cls(fresh, np.zeros((0, *record_shape), np.float32))

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    @property
    def predictions(self) -> Float32Array:
        """All records so far, persons first."""
        self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    def append(self, records: Float32Array) -> None:
        """Add the next persons' records and hand them to the operating system."""
        whole = np.ascontiguousarray(records, np.float32)
        if self._file is not None:
            with _naming(self._file.name):
                self._file.write(whole.tobytes())
                self._file.flush()
        self._parts.append(whole)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


@contextmanager
def _naming(path: Path | str) -> Iterator[None]:
    """A full disk or a forbidden folder, in words."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"the journal '{path}' cannot be written ({error.strerror or error}); make room or choose another place; "
            "what was predicted so far is kept"
        ) from error


def _read(path: Path, header: bytes, record_shape: tuple[int, ...]) -> tuple[Float32Array, int]:
    content = path.read_bytes()
    first = content[: content.find(b"\n") + 1]
    if first != header:
        raise DatasetError(
            f"'{path}' is the journal of another run ({_difference(first, header)}); "
            "choose another --output, or start over with --restart"
        )
    size = 4 * int(np.prod(record_shape))
    count = (len(content) - len(header)) // size
    end = len(header) + count * size
    records = np.frombuffer(content[len(header) : end], np.float32).reshape(count, *record_shape)
    return records, end


def _difference(found: bytes, wanted: bytes) -> str:
    try:
        theirs, ours = json_from_text(found or b"null", "it", DatasetError), json_from_text(wanted, "it", DatasetError)
    except DatasetError:
        return "its first line cannot be read"
    if not isinstance(theirs, dict):
        return "its first line is not a run's"
    keys = sorted(name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name))
    return "it differs in " + ", ".join(keys)

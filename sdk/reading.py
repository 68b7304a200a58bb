"""JSON, TOML and CSV that others wrote: one reader each, bounded before it parses. What is in them is not judged here.

A file that is longer than `largest`, nests deeper than DEEPEST, holds a number of more than DIGITS digits or a key
twice is refused with the error class that the caller works with, in one sentence. No other exception leaves a reader.
A pipe is read as a file is, up to the same bound.

    document = json_from_file(path, "the annotation file", DatasetError)
    document = json_from_text(text, "the recipe in 'net.onnx'", GraphError, "export it again")
    table = toml_from_file(path, "recipe file", RecipeError)
    columns, rows = csv_from_file(path, "boxes file", InputError)    # a row: its line in the file, its cells
"""

from __future__ import annotations

import csv
import io
import json
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "ANNOTATIONS_BYTES",
    "CHECK_FORMAT",
    "TABLE_BYTES",
    "bytes_from_file",
    "csv_from_file",
    "csv_from_lines",
    "json_from_file",
    "json_from_text",
    "kind_of",
    "toml_from_file",
]

Errors = type[Exception]
CHECK_FORMAT = "download it again or check its format"
ANNOTATIONS_BYTES = 2 << 30  # annotations and boxes; COCO-WholeBody's training file, about 1 GiB, is the largest in use
TABLE_BYTES = 64 << 20  # what the SDK writes itself: manifests, calibration tables, benchmarks
TOML_BYTES = 1 << 20
DEEPEST = 64  # tables and lists in each other
DIGITS = 1000  # in a row; beyond 4,300 Python itself refuses a number, with an exception of its own
# tomllib takes time by the square of a key's parts: 20,000 of them 4 s, 1,000 0.01 s (Python 3.11, one Xeon core).
DOTS_A_LINE = 1000

_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_MARKS = bytes(sorted(set(range(256)) - {*_STEPS, ord('"')}))
_AS_NINES = bytes(ord("9") if chr(code) in "0123456789" else code for code in range(256))


class _UnfitError(ValueError):
    """A bound that a file does not keep; the words follow the file's name."""


def json_from_file(
    path: Path, what: str, error: Errors, mend: str = CHECK_FORMAT, *, largest: int = ANNOTATIONS_BYTES
) -> Any:
    """What a JSON file holds; `error` says of `what` it is that it cannot be read."""
    return json_from_text(bytes_from_file(path, what, error, mend, largest=largest), f"{what} '{path}'", error, mend)


def json_from_text(text: str | bytes, subject: str, error: Errors, mend: str = CHECK_FORMAT) -> Any:
    """What JSON text holds; `error` begins with `subject`."""
    try:
        data = text.encode() if isinstance(text, str) else text.removeprefix(b"\xef\xbb\xbf")
        _check_marks(data)
        return json.loads(data.decode(), object_pairs_hook=_table)
    except _UnfitError as fault:
        raise error(f"{subject} {fault}; {mend}") from fault
    except (ValueError, RecursionError) as fault:
        raise error(f"{subject} is not JSON ({fault}); {mend}") from fault


def toml_from_file(path: Path, what: str, error: Errors) -> dict[str, Any]:
    """What a TOML file holds; `error` says of `what` it is that it cannot be read."""
    data = bytes_from_file(path, what, error, "check its format", largest=TOML_BYTES)
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
        if any(line.count(".") > DOTS_A_LINE for line in text.split("\n")):
            raise _UnfitError(f"has a line of more than {DOTS_A_LINE} dots")
        table = tomllib.loads(text)
        _check_tree(table)
        return table
    except _UnfitError as fault:
        raise error(f"{what} '{path}' {fault}; check its format") from fault
    except RecursionError as fault:
        raise error(f"{what} '{path}' nests tables or lists deeper than {DEEPEST}; check its format") from fault
    except ValueError as fault:  # tomllib's own, of an encoding, of a number's digits
        raise error(f"{what} '{path}' is not TOML: {fault}") from fault


def csv_from_file(
    path: Path, what: str, error: Errors, mend: str = CHECK_FORMAT
) -> tuple[Sequence[str], Iterator[tuple[int, Mapping[str, str]]]]:
    """The header's columns, and the rows as they are asked for; cells that a short row lacks are empty texts."""
    data, subject = bytes_from_file(path, what, error, mend, largest=ANNOTATIONS_BYTES), f"{what} '{path}'"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise error(f"{subject} cannot be read as CSV ({fault}); {mend}") from fault
    return csv_from_lines(io.StringIO(text, newline=""), subject, error, mend)


def csv_from_lines(
    text: Iterable[str], subject: str, error: Errors, mend: str = CHECK_FORMAT
) -> tuple[Sequence[str], Iterator[tuple[int, Mapping[str, str]]]]:
    """The same of lines that are read as they are asked for, so that a file may be longer than the memory."""
    lines = csv.reader(text)
    try:
        columns = next(lines, [])
    except (csv.Error, UnicodeDecodeError) as fault:
        raise error(f"{subject} cannot be read as CSV ({fault}); {mend}") from fault
    twice = next((name for place, name in enumerate(columns) if name in columns[:place]), None)
    if twice is not None:
        raise error(f"{subject}: the header line names column '{twice}' twice; keep one")
    return columns, _rows(lines, columns, subject, error, mend)


def bytes_from_file(path: Path, what: str, error: Errors, mend: str = CHECK_FORMAT, *, largest: int) -> bytes:
    """All of a file, unless it is longer than `largest`."""
    try:
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except OSError as fault:
        raise error(f"{what} '{path}' cannot be read ({fault.strerror or fault}); check the path") from fault
    except ValueError as fault:  # a path with a zero byte in it
        raise error(f"{what} '{path}' cannot be read ({fault}); check the path") from fault
    if len(data) > largest:
        raise error(f"{what} '{path}' is longer than {largest >> 20} MiB; {mend}")
    return data


def kind_of(path: Path, what: str, error: Errors) -> Literal["file", "folder", "other"] | None:
    """What is at `path`, links followed; None for nothing. `error` where the system does not say."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as fault:  # ValueError: a zero byte in the path
        told = fault.strerror if isinstance(fault, OSError) else fault
        raise error(f"{what} '{path}' cannot be reached ({told}); check the path and its rights") from fault
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def _rows(
    lines: Any, columns: Sequence[str], subject: str, error: Errors, mend: str
) -> Iterator[tuple[int, Mapping[str, str]]]:
    while True:
        line = lines.line_num + 1  # where the next row begins; a quoted cell may go over several lines
        try:
            cells = next(lines, None)
        except (csv.Error, UnicodeDecodeError) as fault:
            raise error(f"{subject}, line {line} cannot be read as CSV ({fault}); {mend}") from fault
        if cells is None:
            return
        if len(cells) > len(columns):
            raise error(f"{subject}, line {line} has {len(cells)} cells under {len(columns)} columns; {mend}")
        if cells:  # an empty line is none
            yield line, dict(zip(columns, [*cells, *[""] * (len(columns) - len(cells))], strict=True))


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _UnfitError(f"must say each key once (key '{twice}' stands twice in one table)")
    return table


def _check_marks(data: bytes) -> None:
    """The bounds of JSON text, by its brackets and digits, before a parser sees it."""
    plain = data.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in data else data  # quotes are of strings only
    outside = b"".join(plain.translate(None, _NO_MARKS).split(b'"')[::2])
    if any(depth > DEEPEST for depth in accumulate(map(_STEPS.__getitem__, outside))):
        raise _UnfitError(f"nests tables or lists deeper than {DEEPEST}")
    run = b"9" * (DIGITS + 1)
    if run in plain.translate(_AS_NINES) and run in b" ".join(plain.split(b'"')[::2]).translate(_AS_NINES):
        raise _UnfitError(f"holds a number of more than {DIGITS} digits")


def _check_tree(table: dict[str, Any]) -> None:
    """The same bounds of what was parsed, level by level."""
    level: list[Any] = [table]
    for _ in range(DEEPEST):
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
        if any(type(value) is int and abs(value) >= 10**DIGITS for value in level):
            raise _UnfitError(f"holds a number of more than {DIGITS} digits")
        level = [value for value in level if isinstance(value, (dict, list))]
        if not level:
            return
    raise _UnfitError(f"nests tables or lists deeper than {DEEPEST}")

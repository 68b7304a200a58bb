"""Protobuf's text form of plain values, as Triton reads `config.pbtxt`.

pbtxt({"name": "pose", "kind": Word("KIND_CPU"), "dims": [-1, 4], "dynamic_batching": {}})
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Word", "pbtxt"]

INDENT = "  "


class Word(str):
    """A name of an enumeration, which stands without quotes."""

    __slots__ = ()


def pbtxt(message: Mapping[str, Any]) -> str:
    """A message: a list is a field that is repeated, a mapping a message within."""
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Mapping[str, Any]) -> Iterator[str]:
    for name, value in message.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Mapping):
                yield f"{name} {{"
                yield from (INDENT + line for line in _lines(each))
                yield "}"
            else:
                yield f"{name}: {_scalar(each)}"


def _scalar(value: object) -> str:
    if isinstance(value, Word) or type(value) is int:
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'

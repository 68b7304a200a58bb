"""Strict reading of plain tables (TOML, JSON) into frozen dataclasses: nothing coerced, ignored or filled in.

    recipe = strict_from_table(Recipe, table, where="engines/x.toml: recipe 'x'", error=RecipeError)

Understands bool, int, float (an int is a float), str, Literal, tuple[X, ...], tuple[X, X], Optional, dataclasses,
Mapping[str, X], and unions of dataclasses told apart by their `kind` field (a Literal of one string). Numbers are
finite, and such as float32 and int64 hold; a field says what else: `height: Annotated[int, Within(1, 8192)]`.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = [
    "LARGEST",
    "Count",
    "NotNegative",
    "Positive",
    "Share",
    "Within",
    "strict_from_table",
    "table_from",
]

T = TypeVar("T")
Errors = type[Exception]


@dataclass(frozen=True)
class Within:
    """The range of a number: from `least` to `most`, both allowed, unless it must be `above` the least."""

    least: float = -inf
    most: float = inf
    above: bool = False

    def admits(self, value: float) -> bool:
        return self.least <= value <= self.most and not (self.above and value == self.least)

    def __str__(self) -> str:
        """As in 'from 1 to 4096', 'above 0 and at most 10', 'at least 0'."""
        if not self.above and isfinite(self.most) and isfinite(self.least):
            return f"from {self.least:g} to {self.most:g}"
        low = f"{'above' if self.above else 'at least'} {self.least:g}" if isfinite(self.least) else ""
        return " and ".join(filter(None, (low, f"at most {self.most:g}" if isfinite(self.most) else "")))


WIDEST = 1 << 20  # of what is counted in a network: channels, layers, heads
LARGEST = 2**63 - 1  # what the libraries beneath take for a whole number
LARGEST_FLOAT = 3.4e38  # what becomes of a larger number on its way to a kernel is infinite
Count = Annotated[int, Within(1, WIDEST)]
Positive = Annotated[float, Within(0, above=True)]
NotNegative = Annotated[float, Within(0)]
Share = Annotated[float, Within(0, 1)]


def strict_from_table(cls: type[T], table: object, *, where: str, error: Errors) -> T:
    """`table` as a `cls`; `error` names `where` and the key for anything unknown, missing or of the wrong type."""
    if not isinstance(table, Mapping):
        raise error(f"{where}: must be a table (got {_shown(table)})")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    unknown = sorted(set(table) - set(fields))
    if unknown:
        raise error(f"{where}: unknown key '{unknown[0]}'; known keys are {', '.join(fields)}")
    hints = get_type_hints(cls, include_extras=True)
    values = {}
    for name, field in fields.items():
        if name in table:
            values[name] = _read(hints[name], table[name], f"{where}: key '{name}'", error)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise error(f"{where}: key '{name}' is missing")
    return cls(**values)


def table_from(value: Any) -> Any:
    """The plain tables that `strict_from_table` reads back; None fields are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init)
        return {name: table_from(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {key: table_from(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [table_from(item) for item in value]
    return value


def _read(hint: Any, value: object, where: str, error: Errors) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Annotated, Union, types.UnionType):
        return (_read_within if origin is Annotated else _read_union)(args, value, where, error)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return strict_from_table(hint, value, where=where, error=error)
    if origin is Literal:
        if type(value) is not str or value not in args:
            raise error(f"{where} must be one of {', '.join(map(str, args))} (got {_shown(value)})")
        return value
    if origin is tuple:
        return _read_tuple(args, value, where, error)
    if origin is not None and issubclass(origin, Mapping):
        return _read_mapping(args[1], value, where, error)
    return _read_scalar(hint, value, where, error)


def _read_union(args: tuple[Any, ...], value: object, where: str, error: Errors) -> Any:
    options = [arg for arg in args if arg is not type(None)]
    if len(options) == 1:
        return _read(options[0], value, where, error)
    if not all(dataclasses.is_dataclass(option) for option in options):
        option = str if isinstance(value, str) and str in options else next(o for o in options if o is not str)
        return _read(option, value, where, error)
    kinds = {get_args(get_type_hints(option)["kind"])[0]: option for option in options}
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise error(f"{where}: 'kind' must be one of {', '.join(kinds)} (got {_shown(kind)})")
    return strict_from_table(kinds[kind], value, where=f"{where} ({kind})", error=error)


def _read_tuple(args: tuple[Any, ...], value: object, where: str, error: Errors) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise error(f"{where} must be a list (got {_shown(value)})")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_read(args[0], item, f"{where}[{i}]", error) for i, item in enumerate(value))
    if len(value) != len(args):
        raise error(f"{where} must hold {len(args)} values (got {len(value)})")
    return tuple(
        _read(arg, item, f"{where}[{i}]", error) for i, (arg, item) in enumerate(zip(args, value, strict=True))
    )


def _read_mapping(hint: Any, value: object, where: str, error: Errors) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise error(f"{where} must be a table (got {_shown(value)})")
    return {str(key): _read(hint, item, f"{where}.{key}", error) for key, item in value.items()}


def _read_within(args: tuple[Any, ...], value: object, where: str, error: Errors) -> Any:
    number = _read(args[0], value, where, error)
    for rule in args[1:]:
        if not rule.admits(number):
            raise error(f"{where} must be {rule} (got {number!r})")
    return number


def _read_scalar(hint: Any, value: object, where: str, error: Errors) -> Any:
    if hint is Any:
        return value
    if type(value) is int and hint in (int, float) and abs(value) > LARGEST:
        raise error(f"{where} must be at most 2^63 - 1 (got a number of {value.bit_length()} bits)")
    value = float(value) if hint is float and type(value) is int else value
    if type(value) is not hint:
        raise error(f"{where} must be {_NAMES.get(hint, str(hint))} (got {_shown(value)})")
    if type(value) is float and not isfinite(value):
        raise error(f"{where} must be finite (got {value})")
    if type(value) is float and abs(value) > LARGEST_FLOAT:
        raise error(f"{where} must be a number that float32 holds (got {value})")
    return value


def _shown(value: object) -> str:
    return "nothing" if value is None else f"{value!r}, {_NAMES.get(type(value), type(value).__name__)}"


_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "a table",
    list: "a list",
    tuple: "a list",
}

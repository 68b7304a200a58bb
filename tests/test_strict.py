"""Strict reading of tables: what is taken, what is refused, and in which words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from sdk.errors import RecipeError
from sdk.strict import Share, Within, strict_from_table, table_from


@dataclass(frozen=True)
class Round:
    kind: Literal["round"]
    radius: float


@dataclass(frozen=True)
class Square:
    kind: Literal["square"]
    side: int


@dataclass(frozen=True)
class Thing:
    name: str
    shape: Round | Square
    size: tuple[int, int]
    tags: tuple[str, ...] = ()
    weight: float | None = None
    marks: Mapping[str, int] | None = None
    on: bool = True
    count: Annotated[int, Within(1, 8)] = 1
    share: Share | None = None
    above: Annotated[float, Within(0, above=True)] = 1


GOOD = {"name": "a", "shape": {"kind": "round", "radius": 2}, "size": [3, 4]}


def read(table):
    return strict_from_table(Thing, table, where="f.toml: thing", error=RecipeError)


def test_a_whole_number_serves_where_a_number_is_wanted():
    assert read(GOOD).shape == Round("round", 2.0)
    assert type(read(GOOD).shape.radius) is float


def test_tables_round_trip():
    thing = read({**GOOD, "tags": ["x"], "weight": 1.5, "marks": {"m": 1}, "on": False})
    assert read(table_from(thing)) == thing
    assert "weight" not in table_from(read(GOOD))


BAD = {
    "unknown key": ({**GOOD, "colour": 1}, "unknown key 'colour'; known keys are name, shape"),
    "missing key": ({"name": "a", "size": [1, 2]}, "key 'shape' is missing"),
    "number for text": ({**GOOD, "name": 3}, r"key 'name' must be a text \(got 3, a whole number\)"),
    "bool for int": ({**GOOD, "size": [True, 2]}, r"'size'\[0\] must be a whole number \(got True, true or false\)"),
    "int for bool": ({**GOOD, "on": 1}, "'on' must be true or false"),
    "float for int": ({**GOOD, "shape": {"kind": "square", "side": 2.0}}, "key 'side' must be a whole number"),
    "too many": ({**GOOD, "size": [1, 2, 3]}, r"must hold 2 values \(got 3\)"),
    "text for list": ({**GOOD, "tags": "xy"}, "key 'tags' must be a list"),
    "other kind": ({**GOOD, "shape": {"kind": "oval"}}, r"'kind' must be one of round, square \(got 'oval'"),
    "a list as kind": (
        {**GOOD, "shape": {"kind": ["round"]}},
        r"'kind' must be one of round, square \(got \['round'\]",
    ),
    "a table as kind": ({**GOOD, "shape": {"kind": {}}}, r"'kind' must be one of round, square \(got \{\}, a table"),
    "400 digits": ({**GOOD, "weight": 10**400}, "key 'weight' must be at most 2.63 - 1"),
    "no kind": ({**GOOD, "shape": {"radius": 1.0}}, r"'kind' must be one of round, square \(got nothing\)"),
    "key of other kind": ({**GOOD, "shape": {"kind": "square", "radius": 1}}, "unknown key 'radius'"),
    "list for table": ({**GOOD, "marks": [1]}, "key 'marks' must be a table"),
    "not a number": ({**GOOD, "weight": float("nan")}, r"key 'weight' must be finite \(got nan\)"),
    "without end": ({**GOOD, "weight": float("-inf")}, r"key 'weight' must be finite \(got -inf\)"),
    "beyond float32": ({**GOOD, "weight": -1e39}, r"key 'weight' must be a number that float32 holds \(got -1e\+39\)"),
    "below the range": ({**GOOD, "count": 0}, r"key 'count' must be from 1 to 8 \(got 0\)"),
    "beyond the range": ({**GOOD, "count": 9}, r"key 'count' must be from 1 to 8 \(got 9\)"),
    "beyond an optional range": ({**GOOD, "share": 1.5}, r"key 'share' must be from 0 to 1 \(got 1.5\)"),
    "the end that is out": ({**GOOD, "above": 0}, r"key 'above' must be above 0 \(got 0.0\)"),
    "type before range": ({**GOOD, "count": "9"}, "key 'count' must be a whole number"),
    "whole number too large": ({**GOOD, "weight": 10**400}, r"at most 2\^63 - 1 \(got a number of 1329 bits\)"),
    "not a table": ([1], r"f.toml: thing: must be a table \(got \[1\], a list\)"),
}


@pytest.mark.parametrize(("table", "message"), BAD.values(), ids=BAD)
def test_refuses(table, message):
    with pytest.raises(RecipeError, match=message) as caught:
        read(table)
    assert str(caught.value).startswith("f.toml: thing")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Within(1, 4096), "from 1 to 4096"),
        (Within(0, 10, above=True), "above 0 and at most 10"),
        (Within(0), "at least 0"),
        (Within(most=5), "at most 5"),
    ],
)
def test_a_range_says_itself(rule, words):
    assert str(rule) == words

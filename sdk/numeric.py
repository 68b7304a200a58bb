"""What counts as a number where a caller gives one: of Python and numpy alike, but no truth value. What files hold
is `sdk.strict`'s matter.

if not is_whole(threads, 1, 64): raise InputError(...)
if not is_number(seconds) or not seconds > 0: raise InputError(...)
"""

from __future__ import annotations

from math import inf
from numbers import Integral, Real
from typing import Any, TypeGuard

__all__ = ["is_number", "is_whole"]


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a real number; not a number, and infinity, are."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: Any, least: int, most: float = inf) -> TypeGuard[int]:
    """Whether it is a whole number from `least` to `most`, both allowed."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most

"""What counts as a number where a caller gives one: of Python and numpy alike, but no truth value. What files hold
is `sdk.strict`'s matter.

if not is_whole(threads, 1, 64): raise InputError(...)
if not is_number(seconds) or not seconds > 0: raise InputError(...)
if not is_finite(threshold): raise InputError(...)
"""

from __future__ import annotations

from math import inf, isfinite
from numbers import Integral, Real
from typing import Any, TypeGuard

__all__ = ["is_finite", "is_number", "is_whole"]


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a real number; not a number, and infinity, are."""
    return isinstance(value, Real) and not _by_type_alone(value)


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether it is a real number, a fraction too, that a float can hold."""
    try:
        return is_number(value) and isfinite(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False


def is_whole(value: Any, least: int, most: float = inf) -> TypeGuard[int]:
    """Whether it is a whole number from `least` to `most`, both allowed."""
    return isinstance(value, Integral) and not _by_type_alone(value) and least <= int(value) <= most


def _by_type_alone(value: Real) -> bool:
    """Whether it is called a number by its type alone: a truth value, or numpy's spans of time."""
    return isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", "") == "m"

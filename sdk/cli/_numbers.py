"""Numbers among the words of a command line.

parser.add_argument("--threshold", type=finite)
"""

from __future__ import annotations

import argparse
from math import isfinite
from typing import Literal

__all__ = ["finite", "turns"]


def finite(text: str) -> float:
    """A number that compares with others: 'nan' and 'inf' are numbers to Python, and let every rule through or none."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number (got '{text}')")
    return value


def turns(text: str) -> int | Literal["auto"]:
    """How often a detector looks: in every so-manieth frame, or 'auto'."""
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, or auto (got '{text}')")
    return int(text)

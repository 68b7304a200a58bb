"""Numbers among the words of a command line.

parser.add_argument("--threshold", type=finite)
"""

from __future__ import annotations

import argparse
from math import isfinite

__all__ = ["finite"]


def finite(text: str) -> float:
    """A number that compares with others: 'nan' and 'inf' are numbers to Python, and let every rule through or none."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number (got '{text}')")
    return value

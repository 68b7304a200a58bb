"""Numbers in sentences.

counted(1, "person"), counted(3, "person")            # '1 person', '3 persons'
"""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, noun: str) -> str:
    """`number` of what a regular noun names."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

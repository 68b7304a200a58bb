"""Where the shared data lies: beside the project."""

from pathlib import Path

__all__ = ["SHARED"]

SHARED = Path(__file__).resolve().parents[3] / "shared"

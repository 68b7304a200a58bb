"""A checkout of the SDK in a process of its own, which answers questions: how benchmarks compare one with another.

    with ExitStack() as stack:
        children = [stack.enter_context(Child(each, __file__, "--measure")) for each in checkouts(arguments.against)]
        rounds = [[child.asked() for child in children] for _ in range(12)]      # in turns

The script runs once more with the given words and the checkout on its path; it writes a line of JSON for each question
that it reads, until there are no more. It imports nothing of `benchmarks`: another checkout may have another one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "Child", "checkouts", "environment_of"]

ROOT = Path(__file__).resolve().parents[1]


def checkouts(against: Path | None) -> list[Path]:
    """This one and, where there is one, the other."""
    return [ROOT, *([against.resolve()] if against else [])]


def environment_of(checkout: Path) -> dict[str, str]:
    """What a process sees whose SDK is the checkout's."""
    return {**os.environ, "PYTHONPATH": str(checkout)}


class Child:
    """A process that answers until it is left."""

    def __init__(self, checkout: Path, script: str, *words: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, script, *words],
            env=environment_of(checkout) | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def asked(self, question: bytes = b"go\n") -> dict[str, Any]:
        """The answer to a question, by default for one more round."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(question)
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

"""The report of `benchmarks/gpu.py`: goals with what was measured of them, figures beside them, facts of the machine.

report = Report()
report.ratio("whole call / the plan alone", 1.08, 1.15, at_most=True)
report.text({"device": "NVIDIA H100", ...})
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date
from typing import Any

__all__ = ["Report"]


@dataclass
class Report:
    """Rows of the tables, as they are measured."""

    goals: list[tuple[str, str, str, str]] = field(default_factory=list)  # what, measured, goal, met
    figures: list[tuple[str, str]] = field(default_factory=list)

    def ratio(self, what: str, value: float, goal: float, *, at_most: bool, detail: str = "") -> None:
        met = value <= goal if at_most else value >= goal
        sign = "<=" if at_most else ">="
        self.goals.append((what, f"{value:.2f}{detail}", f"{sign} {goal:g}", "yes" if met else "NO"))

    def absent(self, what: str, goal: str, reason: str) -> None:
        self.goals.append((what, f"not measured: {reason}", goal, "-"))

    def text(self, facts: dict[str, Any]) -> str:
        lines = [f"# {facts['device']}", "", f"{date.today().isoformat()}, `python benchmarks/gpu.py`", ""]
        lines += ["| goal | measured | bound | met |", "| --- | --- | --- | --- |"]
        lines += [f"| {' | '.join(row)} |" for row in self.goals]
        lines += ["", "| figure | value |", "| --- | --- |"]
        lines += [f"| {name} | {value} |" for name, value in self.figures]
        return "\n".join([*lines, "", "```json", json.dumps(facts, indent=1, sort_keys=True), "```", ""])

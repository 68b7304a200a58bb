"""`--precision auto`: INT8 only where it pays on this device and keeps inside the accuracy budget; FP16 otherwise.

Both engines are built, run in turns on the device, and the slower or the less faithful is thrown away; the very engine
that was timed is kept, the reason told and written into its manifest. Where no device can time them, nothing is
guessed: FP16 it is.

    engine = build_auto(BuildOptions(recipe, weights=path))
    decide(fp16_ms=3.1, int8_ms=2.4, drop=0.2, budget=0.5)        # Decision("int8", "...")
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from sdk.errors import CalibrationError
from sdk.manifest import Engine
from sdk.runtime.device import compute_capability, cuda_problem, native_problem
from sdk.runtime.opening import open_session
from sdk.runtime.session import Session
from sdk.toolchain.build import BuildOptions, build_engine, with_graph
from sdk.toolchain.compile import CompileOptions, choose_compiler
from sdk.toolchain.engine import check_output, placed_engine
from sdk.toolchain.int8 import DEFAULT_MAX_DROP, budget_problem, table_path
from sdk.toolchain.table import table_from_file

__all__ = ["Decision", "build_auto", "decide"]

PRECISIONS: tuple[Literal["fp16", "int8"], ...] = ("fp16", "int8")
LEAST_GAIN = 0.05  # INT8 must save this share of FP16's time: less is within clocks and noise
ROUNDS = 50
WARM_UP = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decision:
    """The precision kept, and why, in one sentence."""

    precision: Literal["fp16", "int8"]
    reason: str


def decide(fp16_ms: float, int8_ms: float, drop: float | None, budget: float) -> Decision:
    """INT8 if it saves at least 5 % and its measured drop (points) is inside the budget."""
    gain = 1 - int8_ms / fp16_ms
    speed = f"int8 {int8_ms:.3f} ms, fp16 {fp16_ms:.3f} ms: {abs(gain):.1%} {'less' if gain >= 0 else 'more'}"
    if drop is None:
        return Decision("fp16", f"auto kept fp16: the table does not say what INT8 costs ({speed}); use --sensitivity")
    if drop > budget:
        return Decision("fp16", f"auto kept fp16: int8 costs {drop:.2f} points, over the budget of {budget} ({speed})")
    if gain < LEAST_GAIN:
        return Decision("fp16", f"auto kept fp16: int8 must save {LEAST_GAIN:.0%} of its time here ({speed})")
    return Decision("int8", f"auto kept int8: {speed}; costs {drop:.2f} of {budget} points")


def build_auto(options: BuildOptions) -> Engine:
    """The engine of the precision that pays here, in `output` or `./<recipe>.<precision>`, its manifest saying why."""
    options = with_graph(options)
    for precision in PRECISIONS:
        check_output(replace(options, precision=precision).folder)
    reason = _why_untimed(options.compile) or _why_not_int8(options)
    if reason is None:
        return _timed(options)
    decision = Decision("fp16", f"auto kept fp16: {reason}")
    log.info("%s", decision.reason)
    return build_engine(replace(options, precision="fp16", notes=(*options.notes, decision.reason)))


def _why_untimed(options: CompileOptions) -> str | None:
    """Why this machine cannot time the two engines, or None where it can."""
    if choose_compiler(options) is None:
        return "nothing here compiles a plan"
    if problem := cuda_problem() or native_problem():
        return f"no GPU here can time it: {problem}"
    here, targets = compute_capability(), options.compute_capabilities
    if targets and "current" not in targets and here not in targets:
        return f"it is built for compute capability {', '.join(targets)} and this GPU has {here}, which cannot time it"
    return None


def _why_not_int8(options: BuildOptions) -> str | None:
    """Why there is no INT8 engine to time: no table, or none of its measured sets inside the budget."""
    try:
        path = table_path(options.known_recipe, options.calibration)
    except CalibrationError as error:
        return str(error)
    table = table_from_file(path)
    budgeted = table.sensitivity is not None and not options.quantise_all
    return budget_problem(table, _budget(options)) if budgeted else None


def _budget(options: BuildOptions) -> float:
    return DEFAULT_MAX_DROP if options.max_drop is None else options.max_drop


def _timed(options: BuildOptions) -> Engine:
    """Both engines in a temporary folder, run in turns; the one that pays goes to its place."""
    with tempfile.TemporaryDirectory() as folder:
        fp16, int8 = (
            build_engine(replace(options, precision=precision, output=Path(folder) / precision))
            for precision in PRECISIONS
        )
        note = int8.manifest.calibration
        drop = None if note is None else note.details.get("measured_drop")
        with open_session(fp16.folder, device="cuda") as one, open_session(int8.folder, device="cuda") as other:
            fp16_ms, int8_ms = _medians_ms(one, other, options.compile.batch.opt)
        decision = decide(fp16_ms, int8_ms, drop, _budget(options))
        log.info("%s", decision.reason)
        kept = int8 if decision.precision == "int8" else fp16
        return placed_engine(kept, replace(options, precision=decision.precision).folder, decision.reason)


def _medians_ms(one: Session, other: Session, batch: int) -> tuple[float, float]:
    """Median time of a run of each session, in turns, so that clocks and heat are shared."""
    crops = np.random.default_rng(0).standard_normal((batch, 3, *one.recipe.input.size_hw)).astype(np.float32)
    times: tuple[list[float], list[float]] = ([], [])
    for round_ in range(WARM_UP + ROUNDS):
        for session, taken in zip((one, other), times, strict=True):
            started = time.perf_counter()
            session.run(crops)
            if round_ >= WARM_UP:
                taken.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times[0]), statistics.median(times[1])

"""`--precision auto`: INT8 only where it pays on this device and keeps inside the accuracy budget; FP16 otherwise.

Both engines are built, run in turns on the device, and the slower or the less faithful is thrown away; the reason is
told and written into the manifest. Where no device can time them, nothing is guessed: FP16 it is.

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

from sdk.cuda_devices import cuda_devices
from sdk.errors import CalibrationError
from sdk.manifest import Engine
from sdk.runtime.session import Session, open_session
from sdk.toolchain.build import BuildOptions, build_engine
from sdk.toolchain.compile import choose_compiler
from sdk.toolchain.int8 import DEFAULT_MAX_DROP, table_path

__all__ = ["LEAST_GAIN", "Decision", "build_auto", "decide", "why_untimed"]

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


def why_untimed(options: BuildOptions) -> str | None:
    """Why this machine cannot time the two engines, or None where it can."""
    if choose_compiler(options.compile) is None:
        return "nothing here compiles a plan"
    return None if cuda_devices() else "no CUDA device is here to time it"


def build_auto(options: BuildOptions) -> Engine:
    """The engine of the precision that pays here, in `output` or `./<recipe>.<precision>`, its manifest saying why."""
    reason = why_untimed(options)
    if reason is None:
        try:
            table_path(options.recipe, options.calibration)
        except CalibrationError as error:
            reason = str(error)
    decision = Decision("fp16", f"auto kept fp16: {reason}") if reason else _timed(options)
    log.info("%s", decision.reason)
    notes = (*options.notes, decision.reason)
    return build_engine(replace(options, precision=decision.precision, notes=notes))


def _timed(options: BuildOptions) -> Decision:
    """Both engines in a temporary folder, run in turns."""
    budget = DEFAULT_MAX_DROP if options.max_drop is None else options.max_drop
    with tempfile.TemporaryDirectory() as folder:
        fp16, int8 = (
            build_engine(replace(options, precision=precision, output=Path(folder) / precision))
            for precision in ("fp16", "int8")
        )
        note = int8.manifest.calibration
        drop = None if note is None else note.details.get("measured_drop")
        with open_session(fp16.folder, device="cuda") as one, open_session(int8.folder, device="cuda") as other:
            fp16_ms, int8_ms = _medians_ms(one, other, options.compile.batch.opt)
    return decide(fp16_ms, int8_ms, drop, budget)


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

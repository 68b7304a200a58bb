"""Opening an engine by folder or name, on the device that is asked for or found: as a session, or as a pipeline.

with open_pipeline("rtmpose-s-256x192.fp16", "cpu") as pipeline:
    persons, timings_ms = pipeline.run(frame, affines)        # N x K x 3: x, y in frame pixels, score
with open_session("rtmpose-s-256x192.fp16", device="cpu") as session:
    simcc_x, simcc_y = session.run(crops)                     # crops N x 3 x h x w float32
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

from sdk.errors import EngineError, InputError, SdkError
from sdk.in_flight import in_flight
from sdk.manifest import OPENINGS, DetectorEngine, Engine, Precision, open_engine
from sdk.reading import kind_of
from sdk.recipe import catalogue
from sdk.recipe_files import names_of_kind
from sdk.resources import DEFAULT_ENGINE, LEAVING_ENGINES, bundled_engines
from sdk.runtime.closing import Closing
from sdk.runtime.decoding import Decoding, decoding_of
from sdk.runtime.device import Device, choose_device, plan_problem
from sdk.runtime.frames import crop_options
from sdk.runtime.pipeline import CpuPipeline, Pipeline, Refine
from sdk.runtime.session import Session

__all__ = ["bundled_name", "engine_from", "open_pipeline", "open_session"]

T = TypeVar("T", bound=Closing)
log = logging.getLogger(__name__)
LEAVES = "bundled engine '%s' leaves with the next release; use '%s' (other joints), or keep a copy of the folder"


def engine_from(engine: Engine | str | Path | None) -> Engine:
    """An engine folder, a bundled engine by its name or its recipe's, or the bundled default (None), opened, verified.

    A folder here comes before the bundled engine of its name.
    """
    if isinstance(engine, Engine):
        return engine
    bundled = bundled_engines()
    if engine is None:
        if DEFAULT_ENGINE not in bundled:
            raise EngineError("no engine ships with this installation; name an engine folder (`sdk build-engine`)")
        return open_engine(bundled[DEFAULT_ENGINE])
    folder = Path(engine)
    there = kind_of(folder, "engine", EngineError) is not None
    if not there and str(engine) in bundled:
        if str(engine) in LEAVING_ENGINES:
            log.warning(LEAVES, engine, DEFAULT_ENGINE)
        return open_engine(bundled[str(engine)])
    if there:
        return open_engine(folder)
    ready = bundled_name(str(engine))
    if ready is None:
        raise EngineError(_unknown(str(engine), list(bundled)))
    log.info("'%s' is a recipe: its engine '%s' is taken", engine, ready)
    return engine_from(ready)


def bundled_name(name: str) -> str | None:
    """The bundled engine that is named, by its own name or by its recipe's; None where none is."""
    bundled = bundled_engines()
    names = [name, *(f"{name}.{precision}" for precision in get_args(Precision))]
    return next((each for each in names if each in bundled), None)


def open_session(engine: Engine | str | Path | None, device: str = "auto", *, threads: int | None = None) -> Session:
    """Open `engine` on `device`: 'cpu', 'cuda', 'cuda:N', or 'auto', which says in the log what it chose and why."""

    def session(opened: Engine) -> Session:
        chosen = _chosen(opened, device)
        if chosen.kind == "cuda":
            from sdk.runtime.cuda.tensorrt_session import TensorRTSession

            return TensorRTSession(opened, index=chosen.index)
        from sdk.runtime.ort_session import OrtSession

        return OrtSession(opened, threads=threads)

    return _steadily(engine, session)


def open_pipeline(
    engine: Engine | str | Path | None,
    device: str = "auto",
    *,
    refine: Refine = "none",
    pixel_format: str = "bgr",
    threads: int | None = None,
    spread: bool = False,
    detector: DetectorEngine | None = None,
) -> Pipeline:
    """The pipeline of `engine` on `device`; 'auto' says in the log what it chose and why.

    `spread`: how sure each joint is, and where it may be instead, as further columns; see `sdk.columns`. `detector`:
    whose plan, where it runs on the device, is the pipeline's `finder`; the log says why it does not.
    """
    crop_options(pixel_format)  # refuses an unknown format
    if refine not in get_args(Refine):
        raise InputError(f"refine must be one of {', '.join(get_args(Refine))} (got {refine!r})")

    def pipeline(opened: Engine) -> Pipeline:
        if refine != "none" and opened.manifest.recipe.output.kind == "heatmap":
            raise InputError(f"refine must be 'none' for a heatmap engine, which has its own rule (got '{refine}')")
        weights = opened.manifest.weights
        if weights.kind == "random":
            name = opened.folder.name
            log.warning("engine '%s' has random weights (%s): its poses mean nothing", name, weights.source)
        decoding = _decoding(opened, spread=spread)
        chosen = _chosen(opened, device)
        options: dict[str, Any] = {"refine": refine, "pixel_format": pixel_format, "decoding": decoding}
        if chosen.kind == "cuda":
            from sdk.runtime.cuda.gpu_pipeline import GpuPipeline

            finds = detector is not None and _finds(detector, chosen)
            return GpuPipeline(opened, index=chosen.index, detector=detector if finds else None, **options)
        from sdk.runtime.ort_session import OrtSession

        return CpuPipeline(OrtSession(opened, threads=threads), threads=threads, **options)

    return _steadily(engine, pipeline)


def _steadily(engine: Engine | str | Path | None, make: Callable[[Engine], T]) -> T:
    """What `make` makes of the engine, anew where a rebuild took the folder before it had read all of it."""
    for _ in range(OPENINGS):
        opened = engine_from(engine)
        try:
            made = make(opened)
        except SdkError:
            if not opened.rebuilt:
                raise
        else:
            if not opened.rebuilt:
                in_flight.watch()  # after what the opening has registered for the end of the program
                return made
            made.close()
        if isinstance(engine, Engine):
            raise EngineError(f"engine '{engine.folder}' was rebuilt after it was read; open it by its folder")
    raise EngineError(f"engine '{engine}' is being rebuilt again and again; open it when that has ended")


def _decoding(engine: Engine, *, spread: bool) -> Decoding:
    """What the engine's decode is asked for; the log says where a spread was never calibrated."""
    decoding = decoding_of(engine.manifest.recipe, engine.manifest.spread, spread=spread)
    if spread and not decoding.calibrated:
        log.warning(
            "engine '%s' states its spread as its network does, held against no labels; calibrate it with "
            "`sdk calibrate --spread`",
            engine.folder.name,
        )
    return decoding


def _chosen(engine: Engine, device: str) -> Device:
    """The device that `device` names; 'auto' says in the log what it chose and why."""
    chosen, reason = choose_device(engine, device)
    if device == "auto":
        log.info("engine '%s' runs on %s: %s", engine.folder.name, chosen, reason)
    return chosen


def _finds(detector: DetectorEngine, device: Device) -> bool:
    """Whether a detector's plan runs on the device; the log says why not."""
    problem = plan_problem(detector, device.index)
    if problem:
        log.warning("detector '%s' runs on the CPU: %s", detector.folder.name, problem)
    return problem is None


def _unknown(name: str, bundled: list[str]) -> str:
    if name in names_of_kind("detector"):
        return f"'{name}' is a detector, and a pose network's engine is asked for; give it as detector='{name}'"
    if name in catalogue():
        return (
            f"engine folder '{name}' does not exist; '{name}' is a recipe: build it first with "
            f"`sdk build-engine {name} --precision fp16 --output {name}.fp16`"
        )
    near = get_close_matches(name, bundled, n=1, cutoff=0.4)
    hint = f"; did you mean '{near[0]}'?" if near else f"; bundled engines: {', '.join(bundled) or 'none'}"
    return f"engine '{name}' is neither a folder nor a bundled engine{hint}"

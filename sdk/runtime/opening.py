"""Opening an engine by folder or name, on the device that is asked for or found: as a session, or as a pipeline.

with open_pipeline("rtmpose-s-256x192.fp16", "cpu") as pipeline:
    persons, timings_ms = pipeline.run(frame, affines)        # N x K x 3: x, y in frame pixels, score
with open_session("rtmpose-s-256x192.fp16", device="cpu") as session:
    simcc_x, simcc_y = session.run(crops)                     # crops N x 3 x h x w float32
"""

from __future__ import annotations

import logging
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

from sdk.errors import EngineError, InputError
from sdk.in_flight import in_flight
from sdk.manifest import Engine, open_engine
from sdk.recipe import catalogue
from sdk.resources import bundled_engines
from sdk.runtime.device import Device, choose_device
from sdk.runtime.frames import crop_options
from sdk.runtime.pipeline import CpuPipeline, Pipeline, Refine
from sdk.runtime.session import Session

__all__ = ["engine_from", "open_pipeline", "open_session"]

log = logging.getLogger(__name__)


def engine_from(engine: Engine | str | Path | None) -> Engine:
    """An engine folder, a bundled engine by name, or the bundled default (None), opened and verified."""
    if isinstance(engine, Engine):
        return engine
    bundled = bundled_engines()
    if engine is None:
        if not bundled:
            raise EngineError("no engine ships with this installation; name an engine folder (`sdk build-engine`)")
        return open_engine(next(iter(bundled.values())))
    folder = Path(engine)
    if not folder.exists() and str(engine) in bundled:
        return open_engine(bundled[str(engine)])
    if not folder.exists():
        raise EngineError(_unknown(str(engine), list(bundled)))
    return open_engine(folder)


def open_session(engine: Engine | str | Path | None, device: str = "auto", *, threads: int | None = None) -> Session:
    """Open `engine` on `device`: 'cpu', 'cuda', 'cuda:N', or 'auto', which says in the log what it chose and why."""
    in_flight.watch()
    opened = engine_from(engine)
    chosen = _chosen(opened, device)
    if chosen.kind == "cuda":
        from sdk.runtime.cuda.tensorrt_session import TensorRTSession

        return TensorRTSession(opened, index=chosen.index)
    from sdk.runtime.ort_session import OrtSession

    return OrtSession(opened, threads=threads)


def open_pipeline(
    engine: Engine | str | Path | None,
    device: str = "auto",
    *,
    refine: Refine = "none",
    pixel_format: str = "bgr",
    threads: int | None = None,
) -> Pipeline:
    """The pipeline of `engine` on `device`; 'auto' says in the log what it chose and why."""
    in_flight.watch()
    crop_options(pixel_format)  # refuses an unknown format
    if refine not in get_args(Refine):
        raise InputError(f"refine must be one of {', '.join(get_args(Refine))} (got {refine!r})")
    opened = engine_from(engine)
    if refine != "none" and opened.manifest.recipe.output.kind == "heatmap":
        raise InputError(f"refine must be 'none' for a heatmap engine, which has its own rule (got '{refine}')")
    weights = opened.manifest.weights
    if weights.kind == "random":
        log.warning("engine '%s' has random weights (%s): its poses mean nothing", opened.folder.name, weights.source)
    chosen = _chosen(opened, device)
    if chosen.kind == "cuda":
        from sdk.runtime.cuda.gpu_pipeline import GpuPipeline

        return GpuPipeline(opened, index=chosen.index, refine=refine, pixel_format=pixel_format)
    from sdk.runtime.ort_session import OrtSession

    return CpuPipeline(OrtSession(opened, threads=threads), refine=refine, pixel_format=pixel_format, threads=threads)


def _chosen(engine: Engine, device: str) -> Device:
    """The device that `device` names; 'auto' says in the log what it chose and why."""
    chosen, reason = choose_device(engine, device)
    if device == "auto":
        log.info("engine '%s' runs on %s: %s", engine.folder.name, chosen, reason)
    return chosen


def _unknown(name: str, bundled: list[str]) -> str:
    if name in catalogue():
        ready = [engine for engine in bundled if engine.startswith(f"{name}.")]
        use = f"an engine of it is bundled, '{ready[0]}'; or build one" if ready else "build it first"
        return (
            f"engine folder '{name}' does not exist; '{name}' is a recipe: {use} with "
            f"`sdk build-engine {name} --precision fp16 --output {name}.fp16`"
        )
    near = get_close_matches(name, bundled, n=1, cutoff=0.4)
    hint = f"; did you mean '{near[0]}'?" if near else f"; bundled engines: {', '.join(bundled) or 'none'}"
    return f"engine '{name}' is neither a folder nor a bundled engine{hint}"

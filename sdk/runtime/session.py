"""A session: an open engine on one device, numpy in and numpy out. Cropping and decoding are the pipeline's.

with open_session("rtmpose-s-256x192.fp16", device="cpu") as session:
    simcc_x, simcc_y = session.run(crops)          # crops N x 3 x h x w float32
"""

from __future__ import annotations

import logging
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sdk.errors import EngineError, InputError
from sdk.manifest import Engine, open_engine
from sdk.recipe import Recipe
from sdk.resources import bundled_engines
from sdk.runtime.closing import Closing
from sdk.runtime.device import choose_device

__all__ = ["Session", "check_crops", "engine_from", "open_session"]

log = logging.getLogger(__name__)

Float32Array = NDArray[np.float32]


class Session(Closing, Protocol):
    """What an engine looks like once it is open, whatever runs it."""

    @property
    def engine(self) -> Engine: ...

    @property
    def recipe(self) -> Recipe: ...

    @property
    def device(self) -> str: ...

    @property
    def max_batch(self) -> int: ...

    def run(self, crops: Float32Array) -> tuple[Float32Array, ...]:
        """crops N x 3 x h x w -> (simcc_x N x K x Wx, simcc_y N x K x Hy), or (heatmap N x K x h/4 x w/4,)."""
        ...


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
    opened = engine_from(engine)
    chosen, reason = choose_device(opened, device)
    if device == "auto":
        log.info("engine '%s' runs on %s: %s", opened.folder.name, chosen, reason)
    if chosen.kind == "cuda":
        from sdk.runtime.cuda.tensorrt_session import TensorRTSession

        return TensorRTSession(opened, index=chosen.index)
    from sdk.runtime.ort_session import OrtSession

    return OrtSession(opened, threads=threads)


def check_crops(crops: object, recipe: Recipe) -> Float32Array:
    """`crops` as a contiguous N x 3 x h x w float32 array of the recipe's size; InputError otherwise."""
    shape = (3, *recipe.input.size_hw)
    if not isinstance(crops, np.ndarray) or crops.dtype != np.float32 or crops.shape[1:] != shape:
        got = f"{crops.dtype} {crops.shape}" if isinstance(crops, np.ndarray) else type(crops).__name__
        raise InputError(f"crops must be float32 with the shape N x {' x '.join(map(str, shape))} (got {got})")
    return np.ascontiguousarray(crops)


def _unknown(name: str, bundled: list[str]) -> str:
    from sdk.recipe import catalogue

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

"""Counts the kernels that a call with an engine starts, in the graph that a device captures of it.

launches = counted_launches(engine)       # None where no GPU here runs the engine in a graph
"""

from __future__ import annotations

import logging

from sdk.errors import SdkError
from sdk.launches import Launches, keep_launches
from sdk.manifest import Engine
from sdk.runtime.device import choose_device

__all__ = ["counted_launches"]

log = logging.getLogger(__name__)


def counted_launches(engine: Engine) -> Launches | None:
    """Count for the batch that the plan is made best for, and keep it beside the engine."""
    compiler = engine.manifest.compiler
    device, reason = choose_device(engine, "auto")
    if compiler is None or device.kind != "cuda":
        log.debug("launches are not counted: %s", reason)
        return None
    from sdk.runtime.cuda.gpu_pipeline import GpuPipeline

    persons = engine.manifest.batch.opt
    try:
        with GpuPipeline(engine, index=device.index, lanes=1) as pipeline:
            kernels = pipeline.launches(persons)
    except SdkError as error:  # the engine is whole all the same
        log.warning("the launches of '%s' cannot be counted: %s", engine.folder.name, error)
        return None
    if kernels is None:
        return None
    launches = Launches(kernels, persons, f"{compiler.name} {compiler.version}")
    keep_launches(engine, launches)
    return launches

"""How many kernels a call with an engine starts, counted on a device and kept beside the engine for its plan.

The file is no part of the engine: nothing that runs depends on it. One TensorRT's plan is held against another's by it:
a plan that starts several times as many kernels is slower on a small board, whatever its layers take.

    keep_launches(engine, Launches(kernels=31, persons=4, by="tensorrt 10.3.0"))
    kept_launches(engine)                     # None where none were counted, or of another plan
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass

from sdk.errors import InputError, OutputError
from sdk.files import write_text
from sdk.manifest import AnyEngine
from sdk.reading import json_from_file

__all__ = ["FILE", "Launches", "keep_launches", "kept_launches", "tell_if_more"]

FILE = "launches.json"
FILE_BYTES = 10_000
MANY = 1.5  # times as many are told; TensorRT 10.7 took six times 10.3's for one published network

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Launches:
    """Kernels that a call for `persons` starts, the SDK's own included, with a plan made `by` a compiler's version."""

    kernels: int
    persons: int
    by: str


def kept_launches(engine: AnyEngine) -> Launches | None:
    """What was counted for the plan that the engine has now."""
    try:
        table = json_from_file(engine.folder / FILE, "count", InputError, "it is counted again", largest=FILE_BYTES)
        if table["plan_sha256"] != _plan_sha256(engine):
            return None
        return Launches(int(table["kernels"]), int(table["persons"]), str(table["by"]))
    except (InputError, ValueError, KeyError, TypeError):  # absent, or not ours: it is counted again
        return None


def keep_launches(engine: AnyEngine, launches: Launches) -> None:
    """Write it beside the engine; a folder that cannot be written is no fault."""
    table = {"plan_sha256": _plan_sha256(engine), **asdict(launches)}
    try:
        write_text(engine.folder / FILE, json.dumps(table, indent=1) + "\n")
    except OutputError as error:
        log.debug("the launches are not kept: %s", error)


def tell_if_more(before: Launches | None, now: Launches) -> None:
    """A warning where a rebuilt plan needs many more launches than the one before it."""
    if before is None or before.persons != now.persons or now.kernels < MANY * before.kernels:
        return
    log.warning(
        "the plan of %s starts %d kernels a call, %.1f times the %d of %s: it may well be slower; time both with "
        "`sdk benchmark`",
        now.by, now.kernels, now.kernels / before.kernels, before.kernels, before.by,
    )  # fmt: skip


def _plan_sha256(engine: AnyEngine) -> str | None:
    compiler = engine.manifest.compiler
    return None if compiler is None else engine.manifest.files.get(compiler.plan)

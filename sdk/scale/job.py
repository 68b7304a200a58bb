"""What is to be done with an archive, and what a way to do it gives: chunk by chunk, pieces of rows.

job = Job(("photos/",), Path("rows"), How("rtmpose-s-256x192.fp16"))
def way(work: Work) -> Iterator[Piece]: ...       # `sdk.scale.plain` and `sdk.scale.on_ray` have one each
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdk.coco import LOWEST_SCORE
from sdk.errors import InputError, UsageError
from sdk.manifest import MANIFEST_NAME, Engine, sha256_of_file
from sdk.people.detector import place_of_detector
from sdk.scale.estimating import How
from sdk.scale.listing import Listing
from sdk.scale.lists import told_boxes
from sdk.scale.pictures import Chunk, Reading
from sdk.scale.plan import Plan
from sdk.scale.rows import SCHEMA_VERSION
from sdk.scale.stores import shown

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Job", "Piece", "Way", "Work", "key_of_engine", "manifest_of"]


@dataclass(frozen=True)
class Job:
    """`block`: pictures of a block, the unit that is done again after a kill. `batch`: pictures that are estimated
    together. `track`: ids in segments of videos. `retry_errors`: do blocks again that hold an error. `coco`: a file
    for COCO results beside the rows."""

    sources: tuple[str, ...]
    output: Path | str  # a folder, or the address of one in a store
    how: How = field(default_factory=How)
    recursive: bool = False
    root: str | None = None
    path_column: str | None = None
    boxes: Path | None = None
    block: int = 512
    batch: int = 16
    segment_frames: int = 512
    track: bool = True
    retry_errors: bool = False
    coco: Path | None = None

    def check(self) -> None:
        """UsageError for what no run could do."""
        if not self.sources:
            raise UsageError("nothing to annotate: name at least one source")
        for name in ("block", "batch", "segment_frames"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1 (got {getattr(self, name)})")
        if self.boxes is not None and self.how.detector is not None:
            raise UsageError("--boxes and --detector exclude each other; give one")

    def listing(self, memory: Path) -> Listing:
        """`memory`: where segments of videos are kept between runs."""
        return Listing(self.sources, self.recursive, self.root, self.path_column, self.segment_frames, memory)

    def reading(self) -> Reading:
        boxes = None
        if self.boxes is not None:
            least = LOWEST_SCORE if self.how.box_threshold is None else self.how.box_threshold
            boxes = told_boxes(self.boxes, score_threshold=least)
        return Reading(self.batch, boxes)


@dataclass(frozen=True)
class Work:
    """What a way to do the job is given."""

    job: Job
    plan: Plan
    reading: Reading
    engine: Engine
    engine_key: str
    written: Callable[[str], bool]  # whether the rows of a block, by its name, are there


@dataclass(frozen=True)
class Piece:
    """The rows of one chunk. `again`: someone died over it, and it was done once more."""

    block: str
    number: int
    last: bool
    rows: pa.Table
    again: bool = False

    @classmethod
    def of(cls, chunk: Chunk, rows: pa.Table) -> Piece:
        return cls(chunk.block, chunk.number, chunk.last, rows)


Way = Callable[[Work], Iterator[Piece]]


def key_of_engine(engine: Engine) -> str:
    """What tells an engine from others: its files, and the recipe that decides its pixels and bins."""
    table = engine.manifest.to_table()
    said = json.dumps({"files": table["files"], "recipe": table["recipe"]}, sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def manifest_of(job: Job, engine: Engine, key: str) -> dict[str, Any]:
    """What the output's manifest says of the job; its `key` is a hash of all that decides rows."""
    how = asdict(job.how)
    for name in ("engine", "threads"):
        del how[name]
    options = {
        **how,
        **{name: getattr(job, name) for name in ("recursive", "root", "path_column", "block", "batch")},
        **{name: getattr(job, name) for name in ("segment_frames", "track")},
        "boxes": None if job.boxes is None else _hash_of(job.boxes, "boxes file"),
        "detector": None if job.how.detector is None else _hash_of(place_of_detector(job.how.detector), "detector"),
    }
    told = {
        "engine": {"key": key, "recipe": engine.manifest.recipe.name, "precision": engine.manifest.precision},
        "options": options,
        "sources": [shown(source) for source in job.sources],
        "schema": SCHEMA_VERSION,
        "joints": list(engine.manifest.recipe.skeleton.joints),
    }
    return {"key": hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32], **told}


def _hash_of(path: Path, what: str) -> str:
    """The sha256 of a file, or of an engine folder's manifest; another folder's name stands for itself."""
    if path.is_dir():
        path = path / MANIFEST_NAME
    if not path.is_file():
        return str(path)
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise InputError(f"{what} '{path}' cannot be read ({error.strerror or error}); check its rights") from error

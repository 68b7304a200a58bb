"""Blocks that a cluster gave up, picture by picture: who kills its reader, or its estimator, is a row with its error.
A shard that kills its reader is one row, and so is a segment of a video: it is read as a whole.

    for piece in carefully(ray, work, worker, resources): ...

Chunks are made up as they always are, so that all other rows are those of an undisturbed run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sdk.scale.entries import Block, Entry
from sdk.scale.job import Piece, Work
from sdk.scale.pictures import Chunk, Picture, Reading, chunks_from, chunks_of
from sdk.scale.stores import shown

if TYPE_CHECKING:
    from sdk.scale.on_ray import Worker

__all__ = ["carefully"]

log = logging.getLogger(__name__)
KILLED = "reading it killed the process that did, again and again"
REFUSED = "estimating its poses killed the process that did"


def carefully(ray: Any, work: Work, worker: Worker, resources: Mapping[str, float]) -> Iterator[Piece]:
    """The pieces of the blocks of the plan that are not written."""
    estimate: Any = None
    for block in work.plan.todo():
        if work.written(block.name):
            continue
        log.warning("block %s was given up; it is done picture by picture", block.name)
        if estimate is None:
            estimate = _estimator(ray, worker, resources)
        pictures = _pictures(ray, block, work.reading)
        for chunk in chunks_from(pictures, block.name, work.reading.batch):
            yield replace(_estimated(ray, estimate, chunk), again=True)


def _pictures(ray: Any, block: Block, reading: Reading) -> Iterator[Picture]:
    """A block's pictures, each entry read by a task of its own."""
    read = ray.remote(num_cpus=1, max_retries=1)(_read)
    first = block.first
    for entry in block.entries:
        alone = Block(block.number, first, (entry,))
        try:
            yield from ray.get(read.remote(alone, reading))
        except _deaths(ray):
            yield _lost(entry, first + 1)
        first += entry.count


def _deaths(ray: Any) -> tuple[type[Exception], ...]:
    """What tells that a process died over its work; one that Ray ended for want of memory has an error of its own."""
    errors = ray.exceptions
    return errors.WorkerCrashedError, errors.RayActorError, errors.OutOfMemoryError


def _read(block: Block, reading: Reading) -> list[Picture]:
    return [picture for chunk in chunks_of(block, reading) for picture in chunk.pictures]


def _lost(entry: Entry, number: int) -> Picture:
    image_id = entry.image_id if entry.image_id is not None else number
    segment = entry.segment if entry.kind == "video" else None
    return Picture(
        shown(entry.place), entry.first, segment=segment, image_id=image_id if entry.count else None, error=KILLED
    )


def _estimator(ray: Any, worker: Worker, resources: Mapping[str, float]) -> Any:
    """An actor that may die with every call and comes back for the next."""

    class Estimating:
        def __init__(self) -> None:
            self._estimate = worker.opened()

        def rows(self, chunk: Chunk) -> Any:
            return self._estimate(chunk)

    return ray.remote(max_restarts=-1, max_task_retries=0, **resources)(Estimating).remote()


def _estimated(ray: Any, estimate: Any, chunk: Chunk) -> Piece:
    """The rows of a chunk; where that kills the actor, of each picture by itself."""
    try:
        return Piece.of(chunk, ray.get(estimate.rows.remote(chunk)))
    except _deaths(ray):
        pictures = [_surviving(ray, estimate, chunk, picture) for picture in chunk.pictures]
    return Piece.of(chunk, ray.get(estimate.rows.remote(replace(chunk, pictures=pictures))))


def _surviving(ray: Any, estimate: Any, chunk: Chunk, picture: Picture) -> Picture:
    if picture.pixels is None:
        return picture
    try:
        ray.get(estimate.rows.remote(replace(chunk, pictures=[picture])))
    except _deaths(ray):
        return replace(picture, pixels=None, error=REFUSED)
    return picture

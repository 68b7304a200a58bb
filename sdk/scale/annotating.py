"""`annotate`: an archive in, rows out, on this process or on Ray Data. What is done stays done: a run that was killed
goes on where it was, and its rows are those of an undisturbed one.

    report = annotate(Job(("photos/",), Path("rows"), How("rtmpose-s-256x192.fp16")))
    report.frames, report.persons, report.errors

Who reads and estimates is a way's matter (`sdk.scale.plain`, `sdk.scale.on_ray`); here its pieces become blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from sdk.errors import UsageError
from sdk.runtime.confidence import scale_from_recipe
from sdk.runtime.opening import engine_from
from sdk.scale.coco import write_coco
from sdk.scale.job import Job, Piece, Way, Work, key_of_engine, manifest_of
from sdk.scale.output import Output, held_output
from sdk.scale.plain import pieces
from sdk.scale.plan import Plan, planned
from sdk.scale.rows import arrow, identified

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Report", "annotate"]


@dataclass
class Report:
    """What became of a job. `found`: of the blocks, those finished by a run before; `again`: those that were done once
    more because a worker died; `missing`: those that are not done, which another run does. Rates are of this run."""

    frames: int = 0
    persons: int = 0
    errors: int = 0
    blocks: int = 0
    found: int = 0
    again: int = 0
    missing: int = 0
    passed_over: dict[str, int] = field(default_factory=dict)
    listing_s: float = 0.0
    starting_s: float = 0.0  # from the listing's end to the first rows
    working_s: float = 0.0  # from there to the end
    frames_seen: int = 0  # of this run, those of blocks that are not whole yet too
    frames_at_start: int = 0  # of them, those of the first rows

    @property
    def rate(self) -> float:
        """Frames a second after the first rows; 0 where none came after them, which tells of no rate."""
        return (self.frames_seen - self.frames_at_start) / self.working_s if self.working_s > 0 else 0.0


def annotate(job: Job, way: Way = pieces, *, progress: Callable[[Report, Plan], None] | None = None) -> Report:
    """Do the job, or what is left of it. `way`: by default this process alone. `progress` is called with each piece."""
    job.check()
    engine = engine_from(job.how.engine)
    key = key_of_engine(engine)
    reading = job.reading()
    with held_output(job.output, manifest_of(job, engine, key), retry_errors=job.retry_errors) as output:
        began, listing, report = monotonic(), job.listing(output.scratch / "_segments"), Report()
        with planned(output.scratch, listing.entries(), job.block, output.has) as plan:
            report.listing_s = monotonic() - began
            report.found = plan.total.blocks - plan.left.blocks
            report.blocks = report.found
            report.passed_over = dict(listing.counts)
            if job.coco is not None and plan.total.shards:
                raise UsageError(
                    "--coco needs pictures with image ids, and those in tar shards have none; leave it out"
                )
            if plan.left.blocks:
                _work(Work(job, plan, reading, engine, key, output.written), way, output, report, progress)
            report.missing = output.finish(plan, {"again": report.again, **report.passed_over})
            report.blocks = plan.total.blocks - report.missing
        if job.coco is not None and not report.missing:
            write_coco(job.output, job.coco)
    return report


def _work(
    work: Work, way: Way, output: Output, report: Report, progress: Callable[[Report, Plan], None] | None
) -> None:
    """The pieces of what is to be done, put together and written block by block as they come."""
    began, first = monotonic(), None
    blocks = _Blocks(work)
    again = set()
    for piece in way(work):
        report.frames_seen += _frames(piece.rows)
        if first is None:
            first = monotonic()
            report.starting_s, report.frames_at_start = first - began, report.frames_seen
        if piece.again:
            again.add(piece.block)
        rows = blocks.add(piece)
        if rows is not None:
            counts = output.commit(piece.block, rows)
            report.blocks += 1
            for name, count in counts.items():
                setattr(report, name, getattr(report, name) + count)
        report.again = len(again)
        report.working_s = monotonic() - first
        if progress is not None:
            progress(report, work.plan)


class _Blocks:
    """Pieces, in whatever order they come, until the last of their block is there."""

    def __init__(self, work: Work) -> None:
        recipe = work.engine.manifest.recipe
        self._tolerances = recipe.skeleton.tolerances
        self._fair = scale_from_recipe(recipe).fair
        self._track = work.job.track
        self._waiting: dict[str, dict[int, Piece]] = {}

    def add(self, piece: Piece) -> pa.Table | None:
        """The rows of the piece's block, if it is whole with it."""
        pieces = self._waiting.setdefault(piece.block, {})
        pieces[piece.number] = piece
        ends = [number for number, each in pieces.items() if each.last]
        if not ends or len(pieces) <= ends[0]:
            return None
        del self._waiting[piece.block]
        rows = arrow().concat_tables([pieces[number].rows for number in range(len(pieces))]).combine_chunks()
        if self._track and len(rows) and rows["segment"][0].is_valid:
            return identified(rows, self._tolerances, self._fair)
        return rows


def _frames(rows: pa.Table) -> int:
    return sum(person in (None, 0) for person in rows["person"].to_pylist())

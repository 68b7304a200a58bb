"""An archive on this process alone: threads read and decode ahead, this one estimates.

for piece in pieces(work): ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sdk.cores import allowed_cores
from sdk.media.ahead import ReadAhead
from sdk.scale.estimating import ChunkEstimator
from sdk.scale.job import Piece, Work
from sdk.scale.pictures import chunks_of

__all__ = ["pieces"]


def pieces(work: Work) -> Iterator[Piece]:
    """The rows of every chunk, in order."""
    how = replace(work.job.how, engine=str(work.engine.folder))
    reading = replace(work.reading, threads=how.threads or allowed_cores())
    chunks = (chunk for block in work.plan.todo() for chunk in chunks_of(block, reading))
    with ChunkEstimator(how, work.engine_key) as estimate, ReadAhead(chunks) as ahead:
        for chunk in ahead:
            yield Piece.of(chunk, estimate(chunk))

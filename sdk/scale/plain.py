"""An archive on this process alone: one thread reads and decodes ahead, this one estimates.

for piece in pieces(work): ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from queue import Empty, Full, Queue
from threading import Event, Thread

from sdk.scale.estimating import ChunkEstimator
from sdk.scale.job import Piece, Work
from sdk.scale.pictures import Chunk, chunks_of

__all__ = ["pieces"]

AHEAD = 2  # chunks that wait decoded: of 32 MiB of pixels at most but for a single huge picture
NAP_S = 0.1


def pieces(work: Work) -> Iterator[Piece]:
    """The rows of every chunk, in order."""
    how = replace(work.job.how, engine=str(work.engine.folder))
    with ChunkEstimator(how, work.engine_key) as estimate:
        for chunk in _ahead(work):
            yield Piece.of(chunk, estimate(chunk))


def _ahead(work: Work) -> Iterator[Chunk]:
    """The chunks of what is to be done, read by a thread while the last ones are worked on."""
    waiting: Queue[Chunk | BaseException | None] = Queue(AHEAD)
    stop = Event()

    def put(item: Chunk | BaseException | None) -> None:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=NAP_S)
            except Full:
                continue
            return

    def read() -> None:
        try:
            for block in work.plan.todo():
                for chunk in chunks_of(block, work.reading):
                    put(chunk)
                    if stop.is_set():
                        return
            put(None)
        except BaseException as error:  # told to the thread that waits
            put(error)
            if stop.is_set():
                raise

    reader = Thread(target=read, name="sdk-annotate-reader", daemon=True)
    reader.start()
    try:
        while True:
            try:
                item = waiting.get(timeout=NAP_S)
            except Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            if item is None:
                return
            yield item
    finally:
        stop.set()
        reader.join()

"""An archive on Ray Data: tasks read and decode blocks, and a pool of actors with an estimator each finds the poses.

    for piece in OnRay(Cluster(workers=2))(work): ...

Ray keeps what is read ahead within its store's memory. A task or a call whose process died is done again `retries`
times; the blocks that are still not done then are gone through picture by picture (`sdk.scale.careful`), so that the
one that kills its reader becomes a row with its error and takes nothing with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sdk.errors import ClusterError, SdkError
from sdk.scale.careful import carefully
from sdk.scale.carried import Carried, carried_from
from sdk.scale.cluster import Cluster, gpus_of_worker, started
from sdk.scale.entries import block_from_text
from sdk.scale.estimating import ChunkEstimator, How
from sdk.scale.job import Piece, Work
from sdk.scale.packing import chunk_from_table, piece_from_table, table_from_chunk, table_from_piece
from sdk.scale.pictures import Chunk, Reading, chunks_of
from sdk.scale.plan import Plan
from sdk.scale.rows import arrow

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["OnRay", "Worker"]

RESTARTS = 10  # times the retries of one call: an actor lives for a whole job, and spot machines come and go


@dataclass(frozen=True)
class OnRay:
    """A way to do a job."""

    cluster: Cluster

    def __call__(self, work: Work) -> Iterator[Piece]:
        with started(self.cluster) as ray:
            worker = self._worker(ray, work)
            try:
                yield from self._pieces(ray, work, worker)
                yield from carefully(ray, work, worker, self._resources(ray, work))
            except ray.exceptions.RayError as error:
                raise _in_words(error) from error

    def _pieces(self, ray: Any, work: Work, worker: Worker) -> Iterator[Piece]:
        _settings(ray.data.DataContext.get_current())
        with warnings.catch_warnings():  # of the way in which every release is told what a task needs
            warnings.simplefilter("ignore", DeprecationWarning)
            found = self._dataset(ray, work, worker)
        for table in found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in range(len(table)):
                yield piece_from_table(table.slice(row, 1))

    def _dataset(self, ray: Any, work: Work, worker: Worker) -> Any:
        """Pieces as they will come: blocks read from the plan, then chunks read and decoded, then poses."""
        cluster, data = self.cluster, ray.data
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        alike = {"batch_format": "pyarrow", "batch_size": 1, "zero_copy_batch": True}
        pool = {"size": cluster.workers} if cluster.address is None else {"min_size": 1, "max_size": cluster.workers}
        readers = cluster.tasks if cluster.address is None else cluster.readers
        return (
            data.read_datasource(
                _source(ray, work.plan),
                override_num_blocks=1,
                num_cpus=0,
                scheduling_strategy=here,
                max_retries=cluster.retries,
            )
            .map_batches(
                read,
                fn_kwargs={"reading": work.reading},
                compute=data.TaskPoolStrategy(size=readers),
                num_cpus=1,
                max_retries=cluster.retries,
                **alike,
            )
            .map_batches(
                _Estimating,
                fn_constructor_args=(worker,),
                compute=data.ActorPoolStrategy(**pool),
                max_restarts=RESTARTS * cluster.retries,
                max_task_retries=cluster.retries,
                **self._resources(ray, work),
                **alike,
            )
        )

    def _resources(self, ray: Any, work: Work) -> dict[str, float]:
        return {"num_cpus": self.cluster.cpus, "num_gpus": gpus_of_worker(ray, self.cluster, work.job.how.device)}

    def _worker(self, ray: Any, work: Work) -> Worker:
        """What each actor is made from; where the cluster is elsewhere, the files that it opens travel with it."""
        how = work.job.how
        if self.cluster.address is None:
            return Worker(replace(how, engine=str(work.engine.folder)), work.engine_key)
        return Worker(how, work.engine_key, carried_from(work.engine, how.detector))


@dataclass(frozen=True)
class Worker:
    """How an actor comes to its estimator."""

    how: How
    engine_key: str
    carried: Carried | None = None

    def opened(self) -> ChunkEstimator:
        """The estimator. Files that came with it lie in a folder while it reads them."""
        if self.carried is None:
            return ChunkEstimator(self.how, self.engine_key)
        with TemporaryDirectory(prefix="sdk-engine-") as folder:
            return ChunkEstimator(self.carried.laid(Path(folder), self.how), self.engine_key)


class _Estimating:
    """An actor of the pool."""

    def __init__(self, worker: Worker) -> None:
        self._estimate = worker.opened()

    def __call__(self, batch: pa.Table) -> pa.Table:
        chunk, again = chunk_from_table(batch)
        with _begun(chunk) as before:
            return table_from_piece(replace(Piece.of(chunk, self._estimate(chunk)), again=again or before))


def read(batch: pa.Table, reading: Reading) -> Iterator[pa.Table]:
    """The chunks of a block."""
    again = _is_again()
    for chunk in chunks_of(block_from_text(batch["block"][0].as_py()), reading):
        yield table_from_chunk(chunk, again=again)


def _is_again() -> bool:
    """Whether this task was begun before in a process that died."""
    import ray

    worker: Any = ray._private.worker.global_worker
    return bool(worker.core_worker.get_current_task_attempt_number())


@contextmanager
def _begun(chunk: Chunk) -> Iterator[bool]:
    """Whether a process of this machine began the chunk before and died over it. Of an actor's call Ray does not tell:
    its attempts are all number 0 (2.60). So a note lies in the session's folder while the block runs."""
    import ray

    session: Any = ray._private.worker._global_node
    job = ray.get_runtime_context().get_job_id()
    note = Path(session.get_session_dir_path()) / f"sdk-{job}-{chunk.block}-{chunk.number}"
    before = note.exists()
    note.touch()
    try:
        yield before
    finally:
        note.unlink(missing_ok=True)


def _source(ray: Any, plan: Plan) -> Any:
    """The blocks to be done, one a row, read from the plan by one task on this machine as they are asked for."""

    def rows() -> Iterator[pa.Table]:
        for block in plan.todo():
            yield arrow().table({"block": [block.to_text().encode()]})

    class Blocks(ray.data.Datasource):  # type: ignore[misc]
        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, parallelism: int, **_: Any) -> list[Any]:
            unknown = ray.data.block.BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ray.data.ReadTask(rows, unknown)]

    return Blocks()


def _settings(context: Any) -> None:
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # every row stays a block of its own: one chunk, one call
    context.max_errored_blocks = -1  # what is not done is counted, and done carefully, by us


def _in_words(error: BaseException) -> SdkError:
    """Why a job on Ray ended: the SDK's own error where one is at its root."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, SdkError):
            return found
        found = getattr(found, "cause", None) or found.__cause__
    told = str(error).strip().splitlines()
    return ClusterError(
        f"a worker died again and again, or never started ({told[0] if told else type(error).__name__}); what is done "
        "stays done: run the command again, with more --retries or --workers 0 to see where"
    )

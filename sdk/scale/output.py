"""The depot of an annotated archive: a Parquet file a block, and `_annotate.json`, which says of which job they are.

    with held_output(place, job) as output:
        output.has(block.name)                        # finished, by this run or by one before
        output.commit(block.name, table)              # whole or not at all
        output.finish(plan, counts)

A block's file is named after the block's hash and is there when it is whole: the files are the record of what is done,
and a killed run leaves nothing else. Readers of Parquet pass over names that begin with `_` or `.`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdk.errors import OutputError, UsageError
from sdk.reading import TABLE_BYTES, json_from_text
from sdk.scale.depots import Depot, depot_at, held_depot
from sdk.scale.plan import Plan
from sdk.scale.rows import arrow
from sdk.scale.stores import told

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BLOCKS", "MANIFEST", "Output", "held_output", "tables_of"]

MANIFEST, BLOCKS, ENDING = "_annotate.json", "_blocks.csv", ".parquet"
FORMAT = 1
COMPRESSION = "zstd"  # of 17 joints of noise: 0.93 of the bytes, no slower than none beside the estimating
AT_ONCE = 16  # files whose ends are read: a store takes 30 ms for each
Counted = dict[str, int]


@dataclass(frozen=True)
class Output:
    """`scratch`: a folder of this machine for what only this run needs."""

    depot: Depot
    scratch: Path
    job: Mapping[str, Any]
    retry_errors: bool = False

    def has(self, name: str) -> bool:
        """Whether the block is finished; with `retry_errors`, without an error too."""
        return self.written(name) and not (self.retry_errors and self.counts_of(name)["errors"])

    def written(self, name: str) -> bool:
        """Whether the block's rows are there, by whatever run."""
        return self.depot.is_whole(name + ENDING)

    def commit(self, name: str, table: pa.Table) -> Counted:
        """The rows of a block, kept; how many frames, persons and errors they are."""
        import pyarrow.parquet as pq

        counts = _counts(table)
        told = {**(table.schema.metadata or {}), **{f"sdk.{key}": str(value) for key, value in counts.items()}}
        told |= {"sdk.job": str(self.job["key"]), "sdk.block": name}
        file = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(told), file, compression=COMPRESSION)
        self.depot.write(name + ENDING, file.getvalue())
        return counts

    def counts_of(self, name: str) -> Counted:
        """How many frames, persons and errors a finished block has, by its file's own word."""
        import pyarrow.parquet as pq

        with self.depot.opened(name + ENDING) as file:
            told = pq.read_schema(file).metadata
        return {key: int(told[f"sdk.{key}".encode()]) for key in ("frames", "persons", "errors")}

    def finish(self, plan: Plan, counts: Mapping[str, int]) -> int:
        """Write what is done, remove blocks that are no longer of the archive, and tell how many blocks are missing."""
        blocks = 0
        total = dict.fromkeys(("frames", "persons", "errors"), 0)
        with self.depot.whole_file(BLOCKS) as temporary, temporary.open("w", encoding="ascii") as file:
            file.write("block,frames,persons,errors\n")
            for name, told in self._counted(self._kept(plan)):
                file.write(f"{name},{told['frames']},{told['persons']},{told['errors']}\n")
                total = {key: total[key] + told[key] for key in total}
                blocks += 1
        missing = plan.total.blocks - blocks
        self.write("partial" if missing else "done", {"blocks": blocks, **total, **counts})
        return missing

    def write(self, state: str, counts: Mapping[str, int]) -> None:
        """The manifest, atomically."""
        table = {"format": FORMAT, **self.job, "state": state, "counts": dict(counts)}
        self.depot.write(MANIFEST, (json.dumps(table, indent=1) + "\n").encode())

    def _kept(self, plan: Plan) -> Iterator[str]:
        """The blocks of the plan that are there; those that are there and not of it go."""
        there = (name.removesuffix(ENDING) for name in self.depot.names() if name.endswith(ENDING))
        found = next(there, None)
        for name in plan.names():
            while found is not None and found < name:  # both are in the order of their numbers
                self.depot.remove(found + ENDING)
                found = next(there, None)
            if found == name:
                yield name
                found = next(there, None)
        while found is not None:
            self.depot.remove(found + ENDING)
            found = next(there, None)

    def _counted(self, names: Iterator[str]) -> Iterator[tuple[str, Counted]]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            while some := list(islice(names, 16 * AT_ONCE)):
                yield from zip(some, pool.map(self.counts_of, some), strict=True)


@contextmanager
def held_output(place: Path | str, job: Mapping[str, Any], *, retry_errors: bool = False) -> Iterator[Output]:
    """The depot for this run alone. UsageError where it holds something else than this job's rows.

    A run that fails without a row, in a depot that held none, leaves it as it was.
    """
    _check(depot_at(place), job)
    with held_depot(place) as (depot, scratch):
        _check(depot, job)
        output, fresh = Output(depot, scratch, job, retry_errors), depot.is_empty()
        output.write("running", {})
        try:
            yield output
        except BaseException:
            if fresh and not any(name.endswith(ENDING) for name in depot.names()):
                depot.remove(MANIFEST)  # no row was written: the folder is nobody's
            raise


def tables_of(place: Path | str) -> Iterator[pa.Table]:
    """The rows of an annotated archive, block by block, in the order of the listing."""
    import pyarrow.parquet as pq

    depot = depot_at(place)
    for name in depot.names():
        if name.endswith(ENDING):
            with depot.opened(name) as file:
                yield pq.read_table(file)


def _check(depot: Depot, job: Mapping[str, Any]) -> None:
    arrow()
    mend = "choose another folder"
    found = _manifest_in(depot)
    if found is None:
        if not depot.is_empty():
            raise UsageError(f"--output '{depot}' holds other files than an annotated archive; {mend}")
        return
    told = json_from_text(found, f"manifest of '{depot}'", OutputError, mend)
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise OutputError(f"'{depot}/{MANIFEST}' is no manifest of format {FORMAT}; {mend}")
    if told.get("key") != job["key"]:
        other = [key for key in ("engine", "options", "sources") if told.get(key) != job[key]]
        raise UsageError(
            f"--output '{depot}' holds another job's rows ({_differences(told, job, other)}); {mend}, or remove it"
        )


def _manifest_in(depot: Depot) -> bytes | None:
    try:
        with depot.opened(MANIFEST) as file:
            return file.read(TABLE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OutputError(f"'{depot}/{MANIFEST}' cannot be read ({told(error)}); check your rights") from error


def _differences(told: Mapping[str, Any], job: Mapping[str, Any], keys: list[str]) -> str:
    """What differs between two jobs: the first few values."""
    found = []
    for key in keys:
        old, new = told.get(key), job[key]
        if isinstance(old, dict) and isinstance(new, dict):
            found += [
                f"{name} {old.get(name)!r}, now {new.get(name)!r}" for name in new if old.get(name) != new.get(name)
            ]
        else:
            found.append(f"{key} {old!r}, now {new!r}")
    return "; ".join(found[:3]) or "made otherwise"


def _counts(table: pa.Table) -> Counted:
    import pyarrow.compute as pc

    errors = int(pc.sum(table["error"].is_valid()).as_py() or 0)
    persons = int(pc.sum(table["person"].is_valid()).as_py() or 0)
    first = pc.or_(pc.is_null(table["person"]), pc.equal(pc.fill_null(table["person"], 0), 0))
    return {"frames": int(pc.sum(first).as_py() or 0), "persons": persons, "errors": errors}

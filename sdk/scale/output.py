"""The folder of an annotated archive: a Parquet file a block, and `_annotate.json`, which says of which job they are.

    with held_output(folder, job) as output:
        output.has(block.name)                        # finished, by this run or by one before
        output.commit(block.name, table)              # whole or not at all
        output.finish(plan, counts)

A block's file is named after the block's hash and renamed into its place when it is whole: the files are the record of
what is done, and a killed run leaves nothing else. Readers of Parquet pass over names that begin with `_` or `.`.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdk.errors import OutputError, UsageError
from sdk.files import whole_file, write_bytes, write_text
from sdk.locks import held_folder
from sdk.reading import TABLE_BYTES, json_from_file
from sdk.scale.plan import Plan
from sdk.scale.rows import arrow
from sdk.scale.sorting import sorted_names

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BLOCKS", "MANIFEST", "Output", "held_output", "tables_of"]

MANIFEST, BLOCKS, ENDING = "_annotate.json", "_blocks.csv", ".parquet"
FORMAT = 1
COMPRESSION = "zstd"  # of 17 joints of noise: 0.93 of the bytes, no slower than none beside the estimating
Counted = dict[str, int]


@dataclass(frozen=True)
class Output:
    folder: Path
    job: Mapping[str, Any]
    retry_errors: bool = False

    def has(self, name: str) -> bool:
        """Whether the block is finished; with `retry_errors`, without an error too."""
        return self.written(name) and not (self.retry_errors and self.counts_of(name)["errors"])

    def written(self, name: str) -> bool:
        """Whether the block's rows are there, by whatever run."""
        return _is_whole(self._path(name))

    def commit(self, name: str, table: pa.Table) -> Counted:
        """The rows of a block, on disk; how many frames, persons and errors they are."""
        import pyarrow.parquet as pq

        counts = _counts(table)
        told = {**(table.schema.metadata or {}), **{f"sdk.{key}": str(value) for key, value in counts.items()}}
        told |= {"sdk.job": str(self.job["key"]), "sdk.block": name}
        file = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(told), file, compression=COMPRESSION)
        write_bytes(self._path(name), file.getvalue())
        return counts

    def counts_of(self, name: str) -> Counted:
        """How many frames, persons and errors a finished block has, by its file's own word."""
        import pyarrow.parquet as pq

        told = pq.read_schema(self._path(name)).metadata
        return {key: int(told[f"sdk.{key}".encode()]) for key in ("frames", "persons", "errors")}

    def finish(self, plan: Plan, counts: Mapping[str, int]) -> int:
        """Write what is done, remove blocks that are no longer of the archive, and tell how many blocks are missing."""
        missing = 0
        total = dict.fromkeys(("frames", "persons", "errors"), 0)
        on_disk = sorted_names(name for name in os.listdir(self.folder) if name.endswith(ENDING))  # noqa: PTH208
        found = next(on_disk, None)
        with whole_file(self.folder / BLOCKS) as temporary, temporary.open("w", encoding="ascii") as file:
            file.write("block,frames,persons,errors\n")
            for name in plan.names():
                while found is not None and found < name + ENDING:  # both are in the order of their numbers
                    (self.folder / found).unlink(missing_ok=True)
                    found = next(on_disk, None)
                if found != name + ENDING:
                    missing += 1
                    continue
                told = self.counts_of(name)
                file.write(f"{name},{told['frames']},{told['persons']},{told['errors']}\n")
                total = {key: total[key] + told[key] for key in total}
                found = next(on_disk, None)
            for name in filter(None, [found, *on_disk]):
                (self.folder / name).unlink(missing_ok=True)
        done = {"blocks": plan.total.blocks - missing, **total, **counts}
        self.write("partial" if missing else "done", done)
        return missing

    def write(self, state: str, counts: Mapping[str, int]) -> None:
        """The manifest, atomically."""
        table = {"format": FORMAT, **self.job, "state": state, "counts": dict(counts)}
        write_text(self.folder / MANIFEST, json.dumps(table, indent=1) + "\n")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{ENDING}"


@contextmanager
def held_output(folder: Path, job: Mapping[str, Any], *, retry_errors: bool = False) -> Iterator[Output]:
    """The folder for this run alone. UsageError where it holds something else than this job's rows."""
    _check(folder, job)
    output = Output(folder, job, retry_errors)
    with held_folder(folder):
        _check(folder, job)
        output.write("running", {})
        yield output


def tables_of(folder: Path) -> Iterator[pa.Table]:
    """The rows of an annotated archive, block by block, in the order of the listing."""
    import pyarrow.parquet as pq

    for name in sorted_names(name for name in os.listdir(folder) if name.endswith(ENDING)):  # noqa: PTH208
        yield pq.read_table(folder / name)


def _check(folder: Path, job: Mapping[str, Any]) -> None:
    arrow()
    path = folder / MANIFEST
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(not name.name.startswith(".") for name in folder.iterdir())):
            raise UsageError(f"--output '{folder}' holds other files than an annotated archive; choose another folder")
        return
    mend = "choose another folder"
    told = json_from_file(path, "manifest", OutputError, mend, largest=TABLE_BYTES)
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise OutputError(f"'{path}' is no manifest of format {FORMAT}; {mend}")
    if told.get("key") != job["key"]:
        other = [key for key in ("engine", "options", "sources") if told.get(key) != job[key]]
        raise UsageError(
            f"--output '{folder}' holds another job's rows ({_differences(told, job, other)}); {mend}, or remove it"
        )


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


def _is_whole(path: Path) -> bool:
    """Whether a file of Parquet is there with its end: a machine that lost its power may have kept a part."""
    try:
        with path.open("rb") as file:
            file.seek(-4, os.SEEK_END)
            return file.read() == b"PAR1"
    except OSError:
        return False

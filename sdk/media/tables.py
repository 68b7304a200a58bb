"""Poses as tables, for pandas, polars, DuckDB and spreadsheets: a row a person, CSV or Parquet.

with table_file(Path("poses.parquet")) as table:             # or .csv
    table.write(frame, poses)                                # a SourceFrame, and its Poses

Columns: source, frame, time_ms, captured (Unix time), width, height, person (row in the frame), track_id, box_score,
x1, y1, x2, y2, and of each joint `<joint>_x`, `<joint>_y`, `<joint>_score`, and `<joint>_depth` where there are depths.
A frame in which nobody is has no row. A CSV grows row by row as `poses.csv.part`, and is renamed at the end; a Parquet
file is there whole or not at all.
"""

from __future__ import annotations

import csv
import importlib.util
import io
from contextlib import AbstractContextManager
from math import isnan
from pathlib import Path
from types import TracebackType
from typing import Any

from sdk.errors import InputError, MissingDependencyError
from sdk.files import refusal, whole_file
from sdk.media.lines import PartFile
from sdk.media.videos import SourceFrame
from sdk.poses import Poses

__all__ = ["CsvFile", "ParquetFile", "table_file"]

ROWS_TOGETHER = 4096  # of a Parquet row group: some MB in memory, well compressed
FORMS = (".csv", ".parquet")


def table_file(path: Path) -> CsvFile | ParquetFile:
    """By the ending of `path`. InputError for another one."""
    if path.suffix.lower() not in FORMS:
        raise InputError(f"a table must end in {' or '.join(FORMS)} (got '{path}')")
    return CsvFile(path) if path.suffix.lower() == ".csv" else ParquetFile(path)


class _Table:
    """What both have: rows, and columns that stay as the first person's are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._joints: tuple[tuple[str, ...], bool] | None = None

    def _rows(self, frame: SourceFrame, poses: Poses) -> list[dict[str, Any]]:
        held = (tuple(poses.skeleton.joints), poses.depths is not None)
        if self._joints is None:
            self._joints = held
        if held != self._joints:
            raise InputError(f"'{self.path}' holds poses of one joint set; write those of another to another file")
        height, width = frame.picture.shape[:2]
        when = {"time_ms": frame.time_ms, "captured": frame.captured_unix_s}
        told = {"source": frame.source, "frame": frame.number, **when}
        self.rows += len(poses)
        return [
            {**told, "width": width, "height": height, "person": row, **_person(poses, row)}
            for row in range(len(poses))
        ]


def _person(poses: Poses, row: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "track_id": None if poses.track_ids is None else int(poses.track_ids[row]),
        "box_score": float(poses.box_scores[row]),
        **dict(zip(("x1", "y1", "x2", "y2"), poses.boxes[row].tolist(), strict=True)),
    }
    for joint, name in enumerate(poses.skeleton.joints):
        found[f"{name}_x"], found[f"{name}_y"] = poses.keypoints[row, joint].tolist()
        found[f"{name}_score"] = float(poses.scores[row, joint])
        if poses.depths is not None:
            depth = float(poses.depths[row, joint])
            found[f"{name}_depth"] = None if isnan(depth) else depth
    return found


class CsvFile(_Table):
    """Comma-separated, with a head; empty where there is no value."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = PartFile(path)

    def __enter__(self) -> CsvFile:
        self._file.__enter__()
        return self

    def write(self, frame: SourceFrame, poses: Poses) -> None:
        for row in self._rows(frame, poses):
            if not self._file.lines:
                self._file.write_line(_csv_line(row))
            self._file.write_line(_csv_line(row.values()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)


def _csv_line(values: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()


class ParquetFile(_Table):
    """A typed table, compressed; needs pyarrow."""

    def __init__(self, path: Path) -> None:
        if importlib.util.find_spec("pyarrow") is None:
            raise MissingDependencyError("Parquet needs pyarrow: pip install 'simcc-edge-sdk[parquet]'")
        super().__init__(path)
        self._whole: AbstractContextManager[Path] = whole_file(path)
        self._temporary = Path()
        self._writer: Any = None
        self._waiting: list[dict[str, Any]] = []

    def __enter__(self) -> ParquetFile:
        self._temporary = self._whole.__enter__()
        return self

    def write(self, frame: SourceFrame, poses: Poses) -> None:
        self._waiting += self._rows(frame, poses)
        if self._writer is None:
            self._open(poses)
        if len(self._waiting) >= ROWS_TOGETHER:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
            if self._writer is not None:
                self._writer.close()
        except OSError as fault:
            told = refusal(self.path, fault)
            self._whole.__exit__(type(told), told, None)
            raise told from fault
        self._whole.__exit__(kind, error, trace)

    def _open(self, poses: Poses) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        head = [("source", pa.string()), ("frame", pa.int64()), ("time_ms", pa.float64()), ("captured", pa.float64())]
        head += [(name, pa.int32()) for name in ("width", "height", "person")] + [("track_id", pa.int64())]
        kinds = ("x", "y", "score", "depth")[: 3 if poses.depths is None else 4]
        names = ["box_score", "x1", "y1", "x2", "y2"]
        names += [f"{joint}_{kind}" for joint in poses.skeleton.joints for kind in kinds]
        self._schema = pa.schema([*head, *((name, pa.float32()) for name in names)])
        self._writer = ParquetWriter(self._temporary, self._schema)

    def _flush(self) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        if self._writer is None:  # no frame at all: an empty table
            self._schema = pa.schema([("source", pa.string()), ("frame", pa.int64())])
            self._writer = ParquetWriter(self._temporary, self._schema)
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
            self._waiting.clear()

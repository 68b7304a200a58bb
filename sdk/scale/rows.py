"""Rows of an annotated archive: one a person, in a versioned Arrow schema, as Parquet files that any reader takes.

    schema = schema_for(recipe)
    table = rows_from(pictures, poses, schema, engine="3f0c...")
    identified(table, skeleton, fair)                 # ids of the persons of a segment

A picture on which nobody was found, and one that could not be read, has one row whose person is null; the latter's
`error` says why. So every picture of the archive is in its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import MissingDependencyError
from sdk.people.tracking import Tracker
from sdk.poses import Poses
from sdk.recipe import Recipe
from sdk.scale.pictures import Picture

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SCHEMA_VERSION", "arrow", "identified", "joints_of", "rows_from", "schema_for"]

SCHEMA_VERSION = 1


def arrow() -> Any:
    """pyarrow, which only archives need."""
    try:
        import pyarrow
    except ImportError as error:
        raise MissingDependencyError(
            "annotating an archive needs pyarrow, which is not installed; run `pip install 'simcc-edge-sdk[annotate]'`"
        ) from error
    return pyarrow


def schema_for(recipe: Recipe) -> pa.Schema:
    """The columns, described in docs/scale.md; `depths` where the network has a third axis."""
    pa = arrow()
    joints = len(recipe.skeleton.joints)
    columns: dict[str, Any] = {
        "source": pa.string(),
        "frame": pa.int64(),
        "time_ms": pa.float64(),
        "segment": pa.int32(),
        "image_id": pa.int64(),
        "width": pa.int32(),
        "height": pa.int32(),
        "person": pa.int32(),
        "id": pa.int64(),
        "box": pa.list_(pa.float32(), 4),
        "box_score": pa.float32(),
        "joints": pa.list_(pa.list_(pa.float32(), 3), joints),
        "score": pa.float32(),
        "engine": pa.string(),
        "error": pa.string(),
    }
    if recipe.output.depth is not None:
        columns["depths"] = pa.list_(pa.float32(), joints)
    told = {"sdk.schema": str(SCHEMA_VERSION), "sdk.joints": ",".join(recipe.skeleton.joints)}
    return pa.schema(columns.items(), metadata=told)


def rows_from(pictures: Sequence[Picture], poses: Sequence[Poses | str], schema: pa.Schema, engine: str) -> pa.Table:
    """The rows of pictures and of what was found on each: its poses, or why there are none."""
    counts = [1 if isinstance(found, str) else max(1, len(found)) for found in poses]
    alone = [isinstance(found, str) or not len(found) for found in poses]
    persons = [found for found in poses if not isinstance(found, str) and len(found)]
    of_picture = np.repeat(np.arange(len(counts)), counts)
    empty = np.repeat(np.array(alone, bool), counts)
    columns = _of_pictures(pictures, poses, of_picture) | _of_persons(persons, empty, schema)
    columns["engine"] = [engine] * len(of_picture)
    pa = arrow()
    return pa.table(
        [
            pa.array(columns[name], schema.field(name).type)
            if not isinstance(columns[name], pa.Array)
            else columns[name]
            for name in schema.names
        ],
        schema=schema,
    )


def _of_pictures(
    pictures: Sequence[Picture], poses: Sequence[Poses | str], of_picture: NDArray[np.intp]
) -> dict[str, Any]:
    """Columns that tell of the picture, row by row."""
    told: dict[str, list[Any]] = {
        "source": [picture.source for picture in pictures],
        "frame": [picture.frame for picture in pictures],
        "time_ms": [picture.time_ms for picture in pictures],
        "segment": [picture.segment for picture in pictures],
        "image_id": [picture.image_id for picture in pictures],
        "width": [None if picture.pixels is None else picture.pixels.shape[1] for picture in pictures],
        "height": [None if picture.pixels is None else picture.pixels.shape[0] for picture in pictures],
        "error": [found if isinstance(found, str) else None for found in poses],
    }
    return {name: [values[index] for index in of_picture] for name, values in told.items()}


def _of_persons(persons: Sequence[Poses], empty: NDArray[np.bool_], schema: pa.Schema) -> dict[str, Any]:
    """Columns that tell of the person, null where a row has none."""
    joints = schema.field("joints").type.list_size
    rows = np.flatnonzero(~empty)

    def filled(parts: Sequence[NDArray[Any]], *shape: int) -> NDArray[np.float32]:
        values = np.zeros((len(empty), *shape), np.float32)
        if len(rows):
            values[rows] = np.concatenate(parts)
        return values

    triples = [np.concatenate([each.keypoints, each.scores[..., None]], axis=2) for each in persons]
    numbers = [np.arange(len(each)) for each in persons]
    box_scores, means = filled([p.box_scores for p in persons]), filled([p.scores.mean(axis=1) for p in persons])
    pa, columns = arrow(), {}
    columns["person"] = pa.array(filled(numbers).astype(np.int32), mask=empty)
    columns["id"] = pa.nulls(len(empty), pa.int64())
    columns["box"] = _listed(filled([p.boxes for p in persons], 4), empty)
    columns["box_score"] = pa.array(box_scores, mask=empty)
    columns["joints"] = _listed(filled(triples, joints, 3), empty)
    columns["score"] = pa.array(box_scores * means, mask=empty)
    if "depths" in schema.names:
        none = np.full(joints, np.nan, np.float32)
        depths = [np.tile(none, (len(p), 1)) if p.depths is None else p.depths for p in persons]
        columns["depths"] = _listed(filled(depths, joints), empty)
    return columns


def _listed(values: NDArray[np.float32], empty: NDArray[np.bool_]) -> pa.Array:
    """N x ... numbers as fixed-size lists in each other; null where `empty`."""
    pa = arrow()
    found = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in reversed(values.shape[2:]):
        found = pa.FixedSizeListArray.from_arrays(found, size)
    return pa.FixedSizeListArray.from_arrays(found, values.shape[1], mask=pa.array(empty))


def joints_of(table: pa.Table) -> NDArray[np.float32]:  # N x K x 3, of rows that have a person
    """The joints of rows, x and y in frame pixels and the score."""
    column = table["joints"].combine_chunks()
    size = column.type.list_size
    flat = column.flatten().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(len(table), size, 3)


def identified(table: pa.Table, tolerances: tuple[float, ...], fair: float) -> pa.Table:
    """The rows of one segment with ids of its persons, counted from 1 in it: a `Tracker` sees its frames in order."""
    pa = arrow()
    there = table["person"].is_valid().to_numpy()
    persons = table.filter(pa.array(there))
    frames = persons["frame"].to_numpy()
    joints, tracker = joints_of(persons), Tracker()
    boxes = np.asarray(persons["box"].combine_chunks().flatten().to_numpy(), np.float32).reshape(-1, 4)
    scores = persons["box_score"].to_numpy()
    ids = np.zeros(len(table), np.int64)
    found = [
        tracker.update(boxes[a:b], joints[a:b, :, :2], joints[a:b, :, 2], tolerances, fair, scores[a:b])
        for a, b in _runs(frames, table["frame"].to_numpy())
    ]
    if found:
        ids[there] = np.concatenate(found)
    return table.set_column(table.schema.get_field_index("id"), "id", pa.array(ids, mask=~there))


def _runs(frames: NDArray[np.int64], shown: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Where the persons of each frame stand, those of frames with nobody too."""
    numbers = np.unique(shown)
    return [
        (int(a), int(b))
        for a, b in zip(
            np.searchsorted(frames, numbers, "left"), np.searchsorted(frames, numbers, "right"), strict=True
        )
    ]

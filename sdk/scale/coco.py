"""The rows of an annotated archive as COCO keypoint results, written as they are read.

write_coco(Path("rows"), Path("results.json"))
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdk.coco import PERSON
from sdk.files import whole_file
from sdk.scale.output import tables_of
from sdk.scale.rows import joints_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["write_coco"]


def write_coco(rows: Path | str, path: Path) -> None:
    """One record a person, as `Poses.to_coco` has them, in the order of the listing."""
    with whole_file(path) as temporary, temporary.open("w", encoding="ascii") as file:
        between = "["
        for table in tables_of(rows):
            for record in _records(table):
                file.write(between + json.dumps(record))
                between = ",\n"
        file.write("[]" if between == "[" else "]")


def _records(table: pa.Table) -> Iterator[dict[str, Any]]:
    persons = table.filter(table["person"].is_valid())
    ids, scores = persons["image_id"].to_pylist(), persons["score"].to_pylist()
    for image_id, score, joints in zip(ids, scores, joints_of(persons), strict=True):
        keypoints = [round(float(value), 4) for value in joints.reshape(-1)]
        yield {"image_id": image_id, "category_id": PERSON, "keypoints": keypoints, "score": score}

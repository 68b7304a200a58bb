"""The poses of chunks: one `PoseEstimator`, many pictures a batch. Each worker has one of these.

with ChunkEstimator(how) as estimate:
    table = estimate(chunk)                        # the rows of the chunk's pictures
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdk.errors import InputError
from sdk.people.detector import Detector
from sdk.people.estimator import PoseEstimator
from sdk.poses import Poses
from sdk.runtime.closing import Closing
from sdk.runtime.pipeline import Refine
from sdk.scale.pictures import Chunk, Picture
from sdk.scale.rows import rows_from, schema_for

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ChunkEstimator", "How"]


@dataclass(frozen=True)
class How:
    """What decides a person's joints, beside the engine's files. `box_threshold` None: the detector's own."""

    engine: str | None = None
    device: str = "auto"
    detector: str | None = None
    box_threshold: float | None = None
    refine: Refine = "none"
    flip_test: bool = False
    threads: int | None = None


class ChunkEstimator(Closing):
    """An engine, opened: a chunk in, rows out."""

    def __init__(self, how: How, engine_key: str) -> None:
        detector = None
        if how.detector is not None:
            detector = Detector(how.detector, score_threshold=how.box_threshold, threads=how.threads)
        self._estimate = PoseEstimator(
            how.engine,
            device=how.device,
            detector=detector,
            refine=how.refine,
            flip_test=how.flip_test,
            threads=how.threads,
        )
        self.schema = schema_for(self._estimate.recipe)
        self._engine_key = engine_key

    def __call__(self, chunk: Chunk) -> pa.Table:
        """A row a person, and one for each picture without."""
        readable = [picture for picture in chunk.pictures if picture.pixels is not None]
        found = iter(self._many(readable))
        poses = [picture.error or "" if picture.pixels is None else next(found) for picture in chunk.pictures]
        return rows_from(chunk.pictures, poses, self.schema, self._engine_key)

    def close(self) -> None:
        self._estimate.close()

    def _many(self, pictures: Sequence[Picture]) -> list[Poses | str]:
        """All in one call; where something is wrong with one, each in its own."""
        if not pictures:
            return []
        try:
            return list(self._together(pictures))
        except InputError:
            return [self._alone(picture) for picture in pictures]

    def _together(self, pictures: Sequence[Picture]) -> list[Poses]:
        return self._estimate.many(
            [picture.pixels for picture in pictures],
            [None if picture.boxes is None else picture.boxes[0] for picture in pictures],
            box_scores=[None if picture.boxes is None else picture.boxes[1] for picture in pictures],
        )

    def _alone(self, picture: Picture) -> Poses | str:
        try:
            return self._together([picture])[0]
        except InputError as error:
            return str(error).removeprefix("frame 0: ")

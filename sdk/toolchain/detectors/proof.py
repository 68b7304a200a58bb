"""The proof of a detector's graph in our form: it finds on pictures what the file's own graph finds there.

Both are shown the same pictures, rendered figures and any photographs given, each fed as it is read, and their boxes
are paired. Where the file suppresses boxes itself, that is what ours is held against.

    note = check_same(ours, theirs, "'yolov8n.onnx'", images=Path("photos"))     # GraphError: they differ
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from sdk import ops
from sdk.detection import DetectionForm, letterbox
from sdk.detector_recipe import DetectorInput, DetectorRecipe
from sdk.errors import DatasetError, GraphError
from sdk.media.sources import Unreadable, pictures_below, read_image
from sdk.people.detector_forms import blob_of, known_pictures
from sdk.toolchain.graphs import graph_session

__all__ = ["Finding", "check_same", "finding_of", "moved"]

PHOTOGRAPHS = 16
THRESHOLD = 0.3  # files may drop what scores less
NEAR_PX, NEAR_SCORE = 0.5, 1e-3
SAME_PX = 8.0  # boxes that are no further apart are of one person

Array = NDArray[Any]
Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Finding:
    """A graph with what is needed to find persons by it."""

    input: DetectorInput
    form: DetectionForm
    iou: float
    run: Callable[[Mapping[str, Array]], Sequence[Array]]

    def __call__(self, frame: Frame) -> tuple[Array, Array]:
        """Boxes N x 4 in frame pixels and scores N."""
        frame_hw = (frame.shape[0], frame.shape[1])
        placed = letterbox(frame_hw, self.input.size_hw, self.input.place)
        outputs = [np.asarray(output) for output in self.run({self.input.name: blob_of(frame, self.input)})]
        return ops.detections(
            outputs, self.form, to_frame=placed.to_frame, size_hw=self.input.size_hw, frame_hw=frame_hw,
            score_threshold=THRESHOLD, iou=self.iou,
        )  # fmt: skip


def finding_of(model: onnx.ModelProto, recipe: DetectorRecipe) -> Finding:
    """Of a graph in our form."""
    session, names = graph_session(model), list(recipe.outputs)
    return Finding(recipe.input, recipe.form, recipe.iou, lambda feed: session.run(names, feed))


def check_same(ours: Finding, theirs: Finding, subject: str, images: Path | None) -> str:
    """What was compared, in a sentence; GraphError where ours finds something else."""
    frames = [*known_pictures(), *_photographs(images)]
    persons, furthest = 0, 0.0
    for number, frame in enumerate(frames):
        (boxes, scores), (expected, sure) = ours(frame), theirs(frame)
        distance = _distance(boxes, scores, expected, sure)
        if distance is None or distance > NEAR_PX:
            how = f"{len(boxes)} boxes, not {len(expected)}" if distance is None else f"boxes {distance:.2f} px away"
            raise GraphError(
                f"{subject} cannot be put into the SDK's form: on picture {number} it gives {how}, beside the file's "
                "own graph on ONNX Runtime; export it without NMS"
            )
        persons, furthest = persons + len(boxes), max(furthest, distance)
    return (
        f"finds what the file's own graph finds: {persons} persons in {len(frames)} pictures, boxes at most "
        f"{furthest:.2g} px apart"
    )


def moved(ours: Finding, theirs: Finding, images: Path | None) -> tuple[float, int, int]:
    """(mean distance of boxes that both find, pixels; how many; how many theirs finds): of two precisions, say."""
    distances, expected = [], 0
    for frame in (*known_pictures(), *_photographs(images)):
        (boxes, _), (wanted, _) = ours(frame), theirs(frame)
        expected += len(wanted)
        furthest = [float(np.abs(box - boxes).max(axis=1).min()) for box in wanted] if len(boxes) else []
        distances += [far for far in furthest if far <= SAME_PX]
    return float(np.mean(distances or [0.0])), len(distances), expected


def _photographs(folder: Path | None) -> list[Frame]:
    """Up to 16 of the photographs below a folder, evenly from all of them; none without a folder."""
    if folder is None:
        return []
    paths = pictures_below(folder)
    frames = []
    for path in paths[:: max(1, len(paths) // PHOTOGRAPHS)][:PHOTOGRAPHS]:
        frame = read_image(path)
        if isinstance(frame, Unreadable):
            raise DatasetError(f"image '{path}' cannot be read ({frame.reason}); remove it, or choose another --images")
        frames.append(frame)
    return frames


def _distance(boxes: Array, scores: Array, expected: Array, sure: Array) -> float | None:
    """The furthest that a coordinate lies from its pair's, pixels; None where the two are not pairs.

    What scores within rounding of the threshold may be in one and not in the other.
    """
    limit = THRESHOLD + NEAR_SCORE
    clear, wanted = boxes[scores > limit], expected[sure > limit]
    if not _covered(clear, expected) or not _covered(wanted, boxes):
        return None
    pairs = [np.abs(box - boxes).max(axis=1).min() for box in wanted]
    return float(max(pairs, default=0.0))


def _covered(boxes: Array, among: Array) -> bool:
    """Whether each box has one of its own among the others."""
    if len(boxes) > len(among):
        return False
    left = list(range(len(among)))
    for box in boxes:
        near = min(left, key=lambda at: float(np.abs(among[at] - box).max()))
        if float(np.abs(among[near] - box).max()) > SAME_PX:
            return False
        left.remove(near)
    return True

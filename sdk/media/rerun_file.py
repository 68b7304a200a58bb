"""Frames and poses as a Rerun recording, which `rerun poses.rrd` shows: pictures, joints, limbs, boxes, ids and times.

with RerunFile(Path("poses.rrd")) as recording:
    recording.write(frame, poses)                            # a SourceFrame, and its Poses

Needs the extra `rerun`. The file is there whole or not at all.
"""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from sdk.errors import MissingDependencyError
from sdk.files import whole_file
from sdk.media.videos import SourceFrame
from sdk.poses import Poses
from sdk.skeletons import Skeleton

__all__ = ["RerunFile"]

QUALITY = 80  # of the JPEG that a picture becomes: a tenth of its bytes
PERSON = 1  # the class of the annotations


class RerunFile:
    """A `.rrd` file: an entity a source, with `picture`, `joints` and `boxes` below it; timelines `frame`, `time`."""

    def __init__(self, path: Path) -> None:
        if importlib.util.find_spec("rerun") is None:
            raise MissingDependencyError("Rerun needs its package: pip install 'simcc-edge-sdk[rerun]'")
        self.path = path
        self._whole: AbstractContextManager[Path] = whole_file(path)
        self._recording: Any = None
        self._sources: dict[str, str] = {}  # name -> entity

    def __enter__(self) -> RerunFile:
        import rerun

        temporary = self._whole.__enter__()
        self._recording = rerun.RecordingStream("simcc-edge-sdk", send_properties=False)
        self._recording.save(temporary)
        return self

    def write(self, frame: SourceFrame, poses: Poses) -> None:
        import rerun

        entity = self._entity(frame.source, poses.skeleton)
        self._recording.set_time("frame", sequence=frame.number)
        if frame.time_ms is not None:
            self._recording.set_time("time", duration=frame.time_ms / 1e3)
        picture = rerun.Image(frame.picture, color_model="BGR").compress(jpeg_quality=QUALITY)
        self._recording.log(f"{entity}/picture", picture)
        self._recording.log(f"{entity}/joints", _joints(poses))
        self._recording.log(f"{entity}/boxes", _boxes(poses))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recording.flush()
        self._recording.disconnect()
        self._whole.__exit__(kind, error, trace)

    def _entity(self, source: str, skeleton: Skeleton) -> str:
        if source not in self._sources:
            self._sources[source] = entity = f"source{len(self._sources)}"
            self._recording.log(entity, _annotations(skeleton), static=True)
            import rerun

            self._recording.log(f"{entity}/name", rerun.TextDocument(source), static=True)
        return self._sources[source]


def _annotations(skeleton: Skeleton) -> Any:
    """The joints' names, and the limbs between them."""
    import rerun

    names = [rerun.AnnotationInfo(id=number, label=name) for number, name in enumerate(skeleton.joints)]
    info = rerun.AnnotationInfo(id=PERSON, label="person")
    described = rerun.ClassDescription(info=info, keypoint_annotations=names, keypoint_connections=list(skeleton.limbs))
    return rerun.AnnotationContext([described])


def _joints(poses: Poses) -> Any:
    """The joints that count, person by person."""
    import rerun

    rows, joints = np.nonzero(poses.scores >= poses.score_scale.fair)
    return rerun.Points2D(poses.keypoints[rows, joints], class_ids=PERSON, keypoint_ids=joints, radii=2.0)


def _boxes(poses: Poses) -> Any:
    import rerun

    ids = range(len(poses)) if poses.track_ids is None else poses.track_ids.tolist()
    labels = [f"{number}" for number in ids]
    return rerun.Boxes2D(array=poses.boxes, array_format=rerun.Box2DFormat.XYXY, labels=labels, class_ids=PERSON)

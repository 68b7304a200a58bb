"""`sdk predict ENGINE SOURCE...`: run an engine on images, folders, globs and videos.

Without boxes and detector an image is one person's whole frame; in a video the previous frame's joints give the next
boxes. A source that cannot be read is reported and counted, the others are done, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import logging
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdk.coco import LOWEST_SCORE
from sdk.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sdk.poses import Poses
    from sdk.runtime.boxfile import BoxFile
    from sdk.runtime.estimator import PoseEstimator
    from sdk.runtime.sources import Source

    Frame = NDArray[np.uint8]

__all__ = ["add_arguments", "run"]

log = logging.getLogger("sdk.predict")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", metavar="ENGINE", help="an engine folder, or the name of a bundled engine")
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="image, video, folder or glob pattern")
    where = parser.add_argument_group("where the persons are")
    where.add_argument("--boxes", type=Path, metavar="FILE", help="COCO JSON, or CSV: file,x1,y1,x2,y2[,score][,frame]")
    where.add_argument("--detector", type=Path, metavar="ONNX", help="person detector: RTMDet or YOLOX")
    where.add_argument(
        "--box-threshold", type=float, default=LOWEST_SCORE, help=f"lowest score of a box (default: {LOWEST_SCORE})"
    )
    where.add_argument("--no-track", action="store_true", help="in videos: no ids, and each frame on its own")
    where.add_argument("--detect-every", type=int, default=1, metavar="N", help="in videos: detect in every Nth frame")
    how = parser.add_argument_group("how")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    how.add_argument(
        "--threads", type=int, help="threads of ONNX Runtime and the native ops (default: all cores, and one)"
    )
    how.add_argument("--flip-test", action="store_true", help="also run the mirrored crop")
    how.add_argument("--refine", default="none", choices=("none", "parabola", "dark", "expectation"))
    out = parser.add_argument_group("results")
    out.add_argument("--save", type=Path, metavar="DIR", help="write annotated images and videos here")
    out.add_argument("--threshold", type=float, help="draw joints from this score on (default: by the score rule)")
    out.add_argument("--jsonl", type=Path, metavar="FILE", help="write one JSON line a frame")
    out.add_argument("--coco", type=Path, metavar="FILE", help="write COCO keypoint results")
    out.add_argument("--json", action="store_true", help="print the JSON lines instead of a summary")


def run(arguments: argparse.Namespace) -> int:
    from sdk.runtime.boxfile import boxes_from_file
    from sdk.runtime.sources import sources_from

    if arguments.boxes and arguments.detector:
        raise InputError("--boxes and --detector exclude each other; give one")
    sources = sources_from(arguments.sources)
    boxes = boxes_from_file(arguments.boxes, score_threshold=arguments.box_threshold) if arguments.boxes else None
    job = _Job(arguments, sources, boxes)
    with _estimator(arguments, sources) as estimate, job.outputs():
        for source in sources:
            job.predict(estimate, source)
    job.report()
    return 1 if job.unreadable else 0


def _estimator(arguments: argparse.Namespace, sources: list[Source]) -> PoseEstimator:
    from sdk import PoseEstimator
    from sdk.runtime.detector import Detector

    detector = None
    if arguments.detector:
        detector = Detector(arguments.detector, score_threshold=arguments.box_threshold, threads=arguments.threads)
    return PoseEstimator(
        arguments.engine,
        device=arguments.device,
        detector=detector,
        tracker=any(source.kind == "video" for source in sources) and not arguments.no_track,
        detect_every=arguments.detect_every,
        refine=arguments.refine,
        flip_test=arguments.flip_test,
        threads=arguments.threads,
    )


class _Job:
    """One run of the verb: its options, its open files and its counts."""

    def __init__(self, arguments: argparse.Namespace, sources: list[Source], boxes: BoxFile | None) -> None:
        self._arguments = arguments
        self._boxes = boxes
        self._pictures = _pictures_of(sources, arguments.save)
        self._ids = _ImageIds(sources, boxes)
        self._sources = sources
        self._results: list[dict[str, Any]] = []
        self._lines: Any = None
        self._frames = self._persons = self._without_boxes = 0
        self.unreadable: list[str] = []

    def outputs(self) -> ExitStack:
        """Open what is written over the whole run; nothing of it appears unless the run ends well."""
        from sdk.runtime.outputs import LineFile

        stack = ExitStack()
        if self._arguments.jsonl:
            self._lines = stack.enter_context(LineFile(self._arguments.jsonl))
        total = sum(max(source.frames, 1) for source in self._sources)
        self._bar = stack.enter_context(_progress_bar(total))
        return stack

    def predict(self, estimate: PoseEstimator, source: Source) -> None:
        """All frames of one source, its annotated copy included."""
        from sdk.runtime.outputs import VideoFile
        from sdk.runtime.sources import Unreadable, frames_of

        estimate.reset_tracks()
        target = self._pictures.get(source.path)
        with ExitStack() as stack:
            video: VideoFile | None = None
            for index, frame in enumerate(frames_of(source)):
                if isinstance(frame, Unreadable):
                    self._unreadable(source, frame.reason)
                    break
                poses = self._poses(estimate, source, frame, index)
                self._record(source, index, frame, poses)
                if target and source.kind == "video":
                    video = video or stack.enter_context(VideoFile(target, source.fps))
                    video.write(poses.draw(frame, self._arguments.threshold))
                elif target:
                    _save_picture(target, poses.draw(frame, self._arguments.threshold))
                self._bar.update()

    def report(self) -> None:
        """Write the COCO results, and say on the log what was done."""
        from sdk.runtime.outputs import write_json

        if self._arguments.coco:
            write_json(self._arguments.coco, self._results)
        if self._without_boxes:
            log.warning("%d of %d frames are not in %s", self._without_boxes, self._frames, self._arguments.boxes)
        log.info("%d persons in %d frames of %d sources", self._persons, self._frames, len(self._sources))
        if self.unreadable:
            log.error("%d of %d sources could not be read (whole)", len(self.unreadable), len(self._sources))

    def _poses(self, estimate: PoseEstimator, source: Source, frame: Frame, index: int) -> Poses:
        if self._boxes is None:
            poses = estimate(frame)
        else:
            found = self._boxes.of(source.path, index)
            self._without_boxes += found is None
            boxes, scores = found if found is not None else ((), ())
            try:
                poses = estimate(frame, boxes, box_scores=scores)
            except InputError as error:
                raise InputError(f"{self._arguments.boxes}: '{source.path}', frame {index}: {error}") from error
        return poses if source.kind == "video" else replace(poses, track_ids=None)

    def _record(self, source: Source, index: int, frame: Frame, poses: Poses) -> None:
        self._frames += 1
        self._persons += len(poses)
        height, width = frame.shape[:2]
        line = {"source": str(source.path), "frame": index, "width": width, "height": height, **poses.to_dict()}
        if self._lines is not None:
            self._lines.write(line)
        if self._arguments.coco:
            records = poses.to_coco(self._ids.of(source, index))
            self._results += [{**record, "file_name": source.path.name} for record in records]
        self._print(line, poses)

    def _print(self, line: dict[str, Any], poses: Poses) -> None:
        import json

        from tqdm import tqdm

        if self._arguments.json:
            tqdm.write(json.dumps(line))
        elif not self._arguments.quiet:
            spent = poses.timings_ms["total"]
            persons = "1 person" if len(poses) == 1 else f"{len(poses)} persons"
            tqdm.write(f"{line['source']}:{line['frame']}  {persons}, {spent:.1f} ms")

    def _unreadable(self, source: Source, reason: str) -> None:
        self.unreadable.append(str(source.path))
        log.error("'%s' cannot be read: %s", source.path, reason)


def _pictures_of(sources: list[Source], folder: Path | None) -> dict[Path, Path]:
    """Where each source's annotated copy goes; InputError rather than write two to one place, or over a source."""
    if folder is None:
        return {}
    targets: dict[Path, Path] = {}
    originals = {source.path.resolve() for source in sources}
    for source in sources:
        name = source.path.name if source.kind == "image" else f"{source.path.stem}.mp4"
        target = folder / name
        if target.resolve() in originals:
            raise InputError(f"--save would overwrite the source '{target}'; choose another folder")
        if target in targets.values():
            other = next(path for path, taken in targets.items() if taken == target)
            raise InputError(f"'{other}' and '{source.path}' would both be saved as '{target}'; run them separately")
        targets[source.path] = target
    return targets


class _ImageIds:
    """COCO's image ids. Pictures have the boxes file's, else the numbers that all their names are, else are counted
    from 1. Frames of clips are counted on from the highest id: only reading a clip tells how many it has."""

    def __init__(self, sources: list[Source], boxes: BoxFile | None) -> None:
        taken = {} if boxes is None else boxes.image_ids
        told = {} if boxes is None else {source.path: boxes.image_id(source.path) for source in sources}
        known = {path: number for path, number in told.items() if number is not None}
        pictures = [source.path for source in sources if source.kind == "image"]
        whole = all(path in known for path in pictures) and len(set(known.values())) == len(known)
        self._given = known if whole else _numbered(pictures)
        self._last = max([*self._given.values(), *taken.values()], default=0)

    def of(self, source: Source, frame: int) -> int:
        """The id of a frame; each is asked for once."""
        if frame == 0 and source.path in self._given:
            return self._given[source.path]
        self._last += 1
        return self._last


def _numbered(pictures: list[Path]) -> dict[Path, int]:
    stems = [path.stem for path in pictures]
    if all(stem.isdecimal() for stem in stems) and len({int(stem) for stem in stems}) == len(stems):
        return {path: int(path.stem) for path in pictures}
    return {path: number for number, path in enumerate(pictures, start=1)}


def _save_picture(target: Path, picture: Frame) -> None:
    from sdk.runtime.outputs import write_picture

    write_picture(target, picture)


def _progress_bar(total: int) -> Any:
    """A bar on stderr, where stderr is a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, unit="frame", disable=None, leave=False)

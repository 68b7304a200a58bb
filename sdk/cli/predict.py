"""`sdk predict ENGINE SOURCE...`: run an engine on images, folders, globs, videos, cameras and streams.

Without boxes and detector an image is one person's whole frame; in a video the previous frame's joints give the next
boxes. A source that cannot be read or breaks off, or whose frames no estimator takes, a damaged frame, and a row of the
boxes file that is no box are reported and counted; the others are done, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdk.cli._numbers import finite, turns
from sdk.cli._opening import add_source_arguments, check_forms, source_options
from sdk.cli._paths import engine_files, refuse_overwriting
from sdk.cli._results import OtherResults, add_result_arguments
from sdk.coco import LOWEST_SCORE
from sdk.errors import InputError, UsageError
from sdk.files import real_path, write_text
from sdk.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sdk.media.boxfile import BoxFile
    from sdk.media.lines import PartFile
    from sdk.media.opening import OpenSource
    from sdk.media.sinks import VideoFile
    from sdk.media.sources import Source
    from sdk.media.videos import Item, SourceFrame
    from sdk.people.estimator import PoseEstimator
    from sdk.poses import Poses

__all__ = ["add_arguments", "run"]

log = logging.getLogger("sdk.predict")
PICTURES_TOGETHER = 16  # of a person each, they fill a batch; as many are in memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", metavar="ENGINE", help="an engine folder, or the name of a bundled engine")
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="+",
        help="image, video, folder or glob pattern; a camera (0, /dev/video0), a stream (rtsp://...), a GStreamer "
        "pipeline, or - (standard input)",
    )
    parser.add_argument("--recursive", action="store_true", help="folders with the folders below them")
    parser.add_argument("--max-frames", type=int, metavar="N", help="of each video, camera or stream (default: all)")
    add_source_arguments(parser)
    where = parser.add_argument_group("where the persons are")
    where.add_argument("--boxes", type=Path, metavar="FILE", help="COCO JSON, or CSV: file,x1,y1,x2,y2[,score][,frame]")
    where.add_argument("--detector", type=Path, metavar="D", help="its engine, ONNX file, deploy zip or catalogue name")
    where.add_argument(
        "--parts",
        action="append",
        default=[],
        metavar="ENGINE2",
        help="an engine of a hand or of a face: crop those by the body's joints too; once for each",
    )
    where.add_argument(
        "--box-threshold", type=finite, help=f"lowest score of a box (default: {LOWEST_SCORE}, or the detector's)"
    )
    where.add_argument("--no-track", action="store_true", help="in videos: no ids, and each frame on its own")
    where.add_argument(
        "--detect-every", type=turns, default=1, metavar="N", help="in videos: detect in every Nth frame, or auto"
    )
    where.add_argument("--smooth", action="store_true", help="in videos: take the jitter out of the joints")
    how = parser.add_argument_group("how")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    how.add_argument(
        "--threads", type=int, help="threads of ONNX Runtime and the native ops (default: all cores, and one)"
    )
    how.add_argument("--flip-test", action="store_true", help="also run the mirrored crop")
    how.add_argument("--refine", default="none", choices=("none", "parabola", "dark", "expectation"))
    how.add_argument(
        "--spread", action="store_true", help="also how sure each joint is, in pixels, and where it may be instead"
    )
    out = parser.add_argument_group("results")
    out.add_argument("--save", type=Path, metavar="DIR", help="write annotated images and videos here")
    out.add_argument(
        "--style", default="overlay", choices=("overlay", "openpose"), help="openpose: on black, as ControlNet takes it"
    )
    out.add_argument("--threshold", type=finite, help="draw joints from this score on (default: by the score rule)")
    out.add_argument("--jsonl", type=Path, metavar="FILE", help="write one JSON line a frame, to FILE.part as it goes")
    out.add_argument("--coco", type=Path, metavar="FILE", help="write COCO keypoint results")
    add_result_arguments(out)
    out.add_argument("--json", action="store_true", help="print the JSON lines instead of a summary")


def run(arguments: argparse.Namespace) -> int:
    from sdk.media.boxfile import boxes_from_file
    from sdk.media.sources import sources_from

    _check_words(arguments)
    sources = sources_from(arguments.sources, recursive=arguments.recursive)
    tracked = any(source.kind == "video" for source in sources) and not arguments.no_track
    if arguments.detect_every != 1 and not tracked:
        raise UsageError(
            f"--detect-every {arguments.detect_every} needs a video to follow persons in, and no --no-track; "
            "leave it out to detect in every frame"
        )
    if arguments.smooth and not tracked:
        raise UsageError("--smooth needs a video to follow persons in, and no --no-track; leave it out")
    check_forms(arguments, sources)
    pictures = _pictures_of(sources, arguments.save)
    others = OtherResults(arguments, sources)
    _refuse_overwriting(arguments, sources, pictures, others)
    boxes = None
    if arguments.boxes:
        least = LOWEST_SCORE if arguments.box_threshold is None else arguments.box_threshold
        boxes = boxes_from_file(arguments.boxes, score_threshold=least)
    job = _Job(arguments, sources, pictures, boxes, others)
    with _alone(arguments, others):
        try:
            with (
                _estimator(arguments, tracked=tracked) as estimate,
                _parts(arguments, estimate) as parts,
                job.outputs(),
                others.opened(),
            ):
                _check_style(arguments.style, estimate)
                job.parts = parts
                if boxes is not None and not tracked and parts is None:
                    job.predict_pictures(estimate, sources)
                else:
                    for source in sources:
                        job.predict(estimate, source)
        except KeyboardInterrupt:
            job.report_interrupted()
            return 1
        job.report()
    return 1 if job.failed else 0


def _alone(arguments: argparse.Namespace, others: OtherResults) -> ExitStack:
    """The run's results for this run alone."""
    from sdk.locks import held, held_folder

    with ExitStack() as stack:
        for path in filter(None, (arguments.jsonl, arguments.coco, *others.files.values())):
            stack.enter_context(held(path))
        folders = filter(None, (arguments.save, *others.folders))
        for folder in {real_path(folder): folder for folder in folders}.values():  # one may be of several options
            stack.enter_context(held_folder(folder))
        return stack.pop_all()


def _check_words(arguments: argparse.Namespace) -> None:
    """UsageError for words that do not go together."""
    if arguments.boxes and arguments.detector:
        raise UsageError("--boxes and --detector exclude each other; give one")
    if arguments.max_frames is not None and arguments.max_frames < 1:
        raise UsageError(f"--max-frames must be at least 1 (got {arguments.max_frames})")
    if arguments.detect_every != 1 and not arguments.detector:
        raise UsageError(f"--detect-every {arguments.detect_every} needs a --detector; give one, or leave it out")
    if arguments.style != "overlay" and not arguments.save:
        raise UsageError(
            f"--style {arguments.style} is of the pictures that --save writes; give --save, or leave it out"
        )
    if arguments.save and arguments.save.exists() and not arguments.save.is_dir():
        raise UsageError(f"--save must name a folder (got the file '{arguments.save}'); annotated copies go into it")


def _check_style(style: str, estimate: PoseEstimator) -> None:
    """InputError, before any frame, for a style that cannot show the engine's joints."""
    from sdk.media.openpose import check_openpose

    if style == "openpose":
        check_openpose(estimate.recipe.skeleton)


def _refuse_overwriting(
    arguments: argparse.Namespace, sources: list[Source], pictures: dict[Source, Path], others: OtherResults
) -> None:
    """UsageError for a result that would replace something read, or another result."""
    from sdk.media.lines import part_of

    jsonl = arguments.jsonl
    lines = {} if jsonl is None else {"--jsonl": jsonl, "--jsonl, unfinished,": part_of(jsonl)}
    saved = {f"--save of '{source.name}'": target for source, target in pictures.items()}
    read = [source.path for source in sources if source.address is None]
    refuse_overwriting(
        {**lines, "--coco": arguments.coco, **others.files, **saved},
        [
            *read,
            arguments.boxes,
            arguments.detector,
            *(file for engine in (arguments.engine, *arguments.parts) for file in engine_files(engine)),
        ],
    )


def _estimator(arguments: argparse.Namespace, *, tracked: bool) -> PoseEstimator:
    from sdk import PoseEstimator
    from sdk.cli._detectors import fetched
    from sdk.people.detector import Detector

    detector = None
    if arguments.detector:
        detector = Detector(
            fetched(arguments.detector), score_threshold=arguments.box_threshold, threads=arguments.threads
        )
    return PoseEstimator(
        arguments.engine,
        device=arguments.device,
        detector=detector,
        tracker=tracked,
        detect_every=arguments.detect_every,
        smooth=arguments.smooth,
        refine=arguments.refine,
        flip_test=arguments.flip_test,
        threads=arguments.threads,
        spread=arguments.spread,
    )


def _parts(
    arguments: argparse.Namespace, body: PoseEstimator
) -> AbstractContextManager[Callable[[object, Poses], Poses] | None]:
    """What adds hands and faces to the body's poses; None where none are asked for."""
    from sdk.people.parts import PartEstimator

    if not arguments.parts:
        return nullcontext()
    how = {name: getattr(arguments, name) for name in ("device", "refine", "flip_test", "threads", "spread")}
    parts = PartEstimator(arguments.parts, **how)
    try:
        parts.check(body)
    except InputError:
        parts.close()
        raise
    return parts


class _Job:
    """One run of the verb: its options, its open files and its counts."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        sources: list[Source],
        pictures: dict[Source, Path],
        boxes: BoxFile | None,
        others: OtherResults,
    ) -> None:
        from sdk.cli._asked import AskedBoxes

        self._arguments = arguments
        self._boxes = None if boxes is None else AskedBoxes(boxes, sources)
        self._pictures = pictures
        self._others = others
        self._ids = _ImageIds(sources, boxes)
        self._sources = sources
        self._results: list[dict[str, Any]] = []
        self._lines: PartFile | None = None
        self._video: VideoFile | None = None  # the annotated one that is being written
        self._part = ExitStack()  # where it is open
        self._parts_saved = 1  # files of the source: one for each size of its pictures
        self._opened: OpenSource | None = None  # the source that is being read
        self._frames = self._persons = self._damaged = 0
        self._unreadable: list[str] = []
        self.parts: Callable[[object, Poses], Poses] | None = None  # gives poses their hands and faces

    @property
    def failed(self) -> bool:
        return bool(self._unreadable or self._damaged) or (self._boxes is not None and self._boxes.failed)

    def outputs(self) -> ExitStack:
        """Open what is written over the whole run."""
        from sdk.media.lines import PartFile

        stack = ExitStack()
        if self._arguments.jsonl:
            self._lines = stack.enter_context(PartFile(self._arguments.jsonl))
        self._bar = stack.enter_context(_progress_bar(_total(self._sources, self._arguments.max_frames)))
        return stack

    def predict(self, estimate: PoseEstimator, source: Source) -> None:
        """All frames of one source, its annotated copy included."""
        from sdk.media.opening import open_source
        from sdk.media.videos import Damaged, Unreadable

        estimate.reset_tracks()
        try:
            with ExitStack() as stack:
                self._opened = stack.enter_context(open_source(source, **source_options(self._arguments, source)))
                for item in _no_more_than(self._arguments.max_frames, self._opened):
                    if isinstance(item, Unreadable):
                        self._pass_over(source, item.reason)
                    elif isinstance(item, Damaged):
                        self._damaged += item.count
                        log.warning("'%s': %s, passed over", source.name, item)
                    else:
                        self._predict(estimate, source, item, stack)
        except InputError as error:
            self._pass_over(source, str(error))
        self._others.end(source)
        self._video, self._parts_saved = None, 1
        if self._opened is not None and self._opened.is_live:
            counts = self._opened.counts.to_dict()
            log.info("'%s': %s", source.name, ", ".join(f"{count} {name}" for name, count in counts.items()))
        self._opened = None

    def predict_pictures(self, estimate: PoseEstimator, sources: list[Source]) -> None:
        """Sources whose boxes are known: pictures share batches, and clips go one by one."""
        from sdk.media.sources import frames_of
        from sdk.media.videos import SourceFrame, Unreadable

        waiting: list[tuple[Source, SourceFrame]] = []
        for source in sources:
            item = next(frames_of(source), None) if source.kind == "image" else None
            if isinstance(item, SourceFrame):
                waiting.append((source, item))
                if len(waiting) == PICTURES_TOGETHER:
                    self._predict_together(estimate, waiting)
                continue
            self._predict_together(estimate, waiting)
            if isinstance(item, Unreadable):
                self._pass_over(source, item.reason)
            else:
                self.predict(estimate, source)
        self._predict_together(estimate, waiting)

    def _predict_together(self, estimate: PoseEstimator, waiting: list[tuple[Source, SourceFrame]]) -> None:
        """What waits, in as few batches as hold it; one by one where something is wrong with a picture."""
        assert self._boxes is not None, "pictures wait for each other where boxes are known"
        given = [self._boxes.of(source, frame) for source, frame in waiting]
        try:
            found = estimate.many(
                [frame.picture for _, frame in waiting],
                [boxes for boxes, _ in given],
                box_scores=[scores for _, scores in given],
            )
        except InputError:
            found = None
        for index, (source, frame) in enumerate(waiting):
            try:
                with ExitStack() as stack:
                    poses = self._by_itself(estimate, frame, *given[index]) if found is None else found[index]
                    self._record(source, frame, _share_of(poses, 1 if found is None else len(waiting)))
                    self._save(source, frame, poses, stack)
                    self._bar.update()
            except InputError as error:
                self._pass_over(source, str(error))
            self._others.end(source)
        waiting.clear()

    def _predict(self, estimate: PoseEstimator, source: Source, frame: SourceFrame, stack: ExitStack) -> None:
        """One frame, into all results."""
        poses = self._poses(estimate, source, frame)
        self._record(source, frame, poses)
        self._save(source, frame, poses, stack)
        self._bar.update()

    def report(self) -> None:
        """Write the COCO results, and say on the log what was done."""
        if self._arguments.coco:
            write_text(self._arguments.coco, json.dumps(self._results))
        if self._boxes is not None:
            self._boxes.report()
        persons, frames, sources = self._persons, self._frames, len(self._sources)
        log.info("%s in %s of %s", counted(persons, "person"), counted(frames, "frame"), counted(sources, "source"))
        if self._damaged:
            log.error("%s passed over: damaged", counted(self._damaged, "frame"))
        if self._unreadable:
            log.error("%d of %s could not be read (whole)", len(self._unreadable), counted(sources, "source"))

    def report_interrupted(self) -> None:
        """Say what of the work is lost."""
        lost = []
        if self._arguments.coco:
            lost.append(f"{counted(len(self._results), 'COCO result')} for '{self._arguments.coco}'")
        if self._video is not None:
            lost.append(f"the unfinished '{self._video.path}'")
        lost += self._others.lost()
        log.error("interrupted after %s; lost: %s", counted(self._frames, "frame"), ", ".join(lost) or "nothing")

    def _poses(self, estimate: PoseEstimator, source: Source, frame: SourceFrame) -> Poses:
        boxes, scores = (None, None) if self._boxes is None else self._boxes.of(source, frame)
        poses = self._by_itself(estimate, frame, boxes, scores)
        return poses if source.kind == "video" else replace(poses, track_ids=None)

    def _by_itself(self, estimate: PoseEstimator, frame: SourceFrame, boxes: Any, scores: Any) -> Poses:
        """One frame by a call of its own."""
        try:
            poses = estimate(frame.picture, boxes, box_scores=scores, time_ms=frame.time_ms)
            return poses if self.parts is None else self.parts(frame.picture, poses)
        except InputError as error:
            raise InputError(f"frame {frame.number}: {error}") from error

    def _record(self, source: Source, frame: SourceFrame, poses: Poses) -> None:
        from sdk.media.lines import line_of

        self._frames += 1
        self._persons += len(poses)
        line = line_of(source.name, frame, poses)
        line |= {"captured": frame.captured_unix_s, "age_ms": round(frame.age_ms, 3)}
        if source.kind == "video" and self._opened is not None:
            line["counts"] = self._opened.counts.to_dict()
        if self._lines is not None:
            self._lines.write(line)
        if self._arguments.coco:
            records = poses.to_coco(self._ids.of(source, frame.number))
            told = {"file_name": source.relative.as_posix(), "frame": frame.number, "time_ms": frame.time_ms}
            self._results += [{**record, **told} for record in records]
        self._others.write(source, frame, poses)
        self._print(line, poses)

    def _save(self, source: Source, frame: SourceFrame, poses: Poses, stack: ExitStack) -> None:
        """The annotated picture, or one more of the annotated video that is closed with `stack`."""
        from sdk.media.sinks import VideoFile, write_picture

        target = self._pictures.get(source)
        if target is None:
            return
        picture = poses.draw(
            frame.picture, self._arguments.threshold, style=self._arguments.style, spread=self._arguments.spread
        )
        if source.kind == "image":
            write_picture(target, picture)
            return
        if self._video is not None and not self._video.takes(picture):
            self._part.close()  # whole as far as it goes: the next size has a file of its own
            self._video, self._parts_saved = None, self._parts_saved + 1
            log.warning("'%s': its pictures are of another size from frame %d on", source.name, frame.number)
        if self._video is None:
            self._part = stack.enter_context(ExitStack())
            place, taken = target, {*self._pictures.values()} - {target}
            while self._parts_saved > 1 and (place == target or place in taken):
                place = target.with_stem(f"{target.stem}-{self._parts_saved}")
                self._parts_saved += place in taken
            sound_of = source.path if source.address is None else None
            self._video = self._part.enter_context(VideoFile(place, source.fps, sound_of=sound_of))
        self._video.write(picture, frame.time_ms)

    def _print(self, line: dict[str, Any], poses: Poses) -> None:
        from tqdm import tqdm

        if self._arguments.json:
            tqdm.write(json.dumps(line))
        elif not self._arguments.quiet:
            spent = poses.timings_ms["total"]
            tqdm.write(f"{line['source']}:{line['frame']}  {counted(len(poses), 'person')}, {spent:.1f} ms")

    def _pass_over(self, source: Source, reason: str) -> None:
        self._unreadable.append(source.name)
        log.error("'%s' cannot be read: %s", source.name, reason)


def _no_more_than(limit: int | None, opened: OpenSource) -> Iterator[Item]:
    """The items up to the `limit`-th frame; damaged ones of a recording count, as their numbers do."""
    for item in opened.items():
        yield item
        given = opened.counts.frames if opened.is_live else getattr(item, "number", -1) + 1
        if limit is not None and given >= limit:
            return


def _share_of(poses: Poses, frames: int) -> Poses:
    """Poses with their part of the time that so many frames took together."""
    if frames == 1:
        return poses
    spent = {stage: each if isinstance(each, str) else each / frames for stage, each in poses.timings_ms.items()}
    return replace(poses, timings_ms=spent)


def _pictures_of(sources: list[Source], folder: Path | None) -> dict[Source, Path]:
    """Where each source's annotated copy goes; UsageError rather than write two to one place, or over a source."""
    if folder is None:
        return {}
    sources_of: dict[Path, Source] = {}
    originals = {real_path(source.path) for source in sources if source.address is None}
    whole_folder = real_path(folder)
    for source in sources:
        name = source.relative if source.kind == "image" else source.relative.with_suffix(".mp4")
        target = folder / name
        if whole_folder / name in originals:
            raise UsageError(f"--save would overwrite the source '{target}'; choose another folder")
        other = sources_of.setdefault(target, source)
        if other is not source:
            raise UsageError(
                f"'{other.name}' and '{source.name}' would both be saved as '{target}'; run them separately"
            )
    return {source: target for target, source in sources_of.items()}


class _ImageIds:
    """COCO's image ids. Pictures have the boxes file's; where it tells none, the numbers that all their names are, else
    they are counted from 1. What the file does not know, a second picture of one of its ids, and frames of clips are
    counted on from the highest id: only reading a clip tells how many it has."""

    def __init__(self, sources: list[Source], boxes: BoxFile | None) -> None:
        taken = {} if boxes is None else boxes.image_ids
        pictures = [source.path for source in sources if source.kind == "image"]
        self._given = {} if taken else _numbered(pictures)
        used: set[int] = set()
        for source in sources:
            number = None if boxes is None else boxes.image_id(source.path)
            if number is not None and number not in used:
                used.add(number)
                self._given[source.path] = number
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


def _total(sources: list[Source], limit: int | None) -> int | None:
    """Frames to come; None where only a camera's or a stream's end tells."""
    if limit is None and any(source.is_live for source in sources):
        return None
    return sum(max(source.frames, 1) if limit is None else min(source.frames or limit, limit) for source in sources)


def _progress_bar(total: int | None) -> Any:
    """A bar on stderr, where stderr is a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, unit="frame", disable=None, leave=False)

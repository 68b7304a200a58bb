"""One run of `sdk predict`: sources through the network, into its results.

job = Prediction(arguments, sources, boxes, copies, others)
with job.outputs():
    job.predict(estimate, source)
job.report()                                         # on the log; `job.failed` makes the exit status 1
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sdk.cli._annotated import AnnotatedCopies
from sdk.cli._asked import AskedBoxes
from sdk.cli._image_ids import ImageIds
from sdk.cli._opening import source_options
from sdk.cli._results import OtherResults
from sdk.errors import InputError
from sdk.files import write_text
from sdk.wording import counted

if TYPE_CHECKING:
    from sdk.media.boxfile import BoxFile
    from sdk.media.lines import PartFile
    from sdk.media.opening import OpenSource
    from sdk.media.sources import Source
    from sdk.media.videos import Item, SourceFrame
    from sdk.people.estimator import PoseEstimator
    from sdk.poses import Poses

__all__ = ["Prediction"]

log = logging.getLogger("sdk.predict")
PICTURES_TOGETHER = 16  # of a person each, they fill a batch; as many are in memory


class Prediction:
    """One run of the verb: its options, its open files and its counts."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        sources: list[Source],
        boxes: BoxFile | None,
        copies: AnnotatedCopies,
        others: OtherResults,
    ) -> None:
        self._arguments = arguments
        self._boxes = None if boxes is None else AskedBoxes(boxes, sources)
        self._copies = copies
        self._others = others
        self._ids = ImageIds(sources, boxes)
        self._sources = sources
        self._results: list[dict[str, Any]] = []
        self._lines: PartFile | None = None
        self._opened: OpenSource | None = None  # the source that is being read
        self._frames = self._persons = self._damaged = 0
        self._drawn = False  # any joint, in the annotated copies
        self._fair: float | None = None  # score of a joint, once a person was to be drawn by a threshold
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
        self._copies.end()
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
        if self._fair is not None and not self._drawn:
            log.warning(
                "no joint of any person reached --threshold %g, so none is drawn; by its score rule a joint of engine "
                "'%s' counts from %.3g on: leave the option out for that",
                self._arguments.threshold, self._arguments.engine, self._fair,
            )  # fmt: skip
        if self._damaged:
            log.error("%s passed over: damaged", counted(self._damaged, "frame"))
        if self._unreadable:
            log.error("%d of %s could not be read (whole)", len(self._unreadable), counted(sources, "source"))

    def report_interrupted(self) -> None:
        """Say what of the work is lost."""
        lost = []
        if self._arguments.coco:
            lost.append(f"{counted(len(self._results), 'COCO result')} for '{self._arguments.coco}'")
        if self._copies.unfinished is not None:
            lost.append(f"the unfinished '{self._copies.unfinished}'")
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
        if self._copies.wants(source):
            asked = self._arguments
            if len(poses) and asked.threshold is not None:
                self._fair = poses.score_scale.fair
                self._drawn |= bool((poses.scores >= asked.threshold).any())
            picture = poses.draw(frame.picture, asked.threshold, style=asked.style, spread=asked.spread)
            self._copies.write(source, frame, picture, stack)

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


def _total(sources: list[Source], limit: int | None) -> int | None:
    """Frames to come; None where only a camera's or a stream's end tells."""
    if limit is None and any(source.is_live for source in sources):
        return None
    return sum(max(source.frames, 1) if limit is None else min(source.frames or limit, limit) for source in sources)


def _progress_bar(total: int | None) -> Any:
    """A bar on stderr, where stderr is a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, unit="frame", disable=None, leave=False)

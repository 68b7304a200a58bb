"""`sdk predict ENGINE SOURCE...`: run an engine on images, folders, globs, videos, cameras and streams.

Without boxes and detector an image is one person's whole frame; in a video the previous frame's joints give the next
boxes. A source that cannot be read or breaks off, or whose frames no estimator takes, a damaged frame, and a row of the
boxes file that is no box are reported and counted; the others are done, and the exit status is 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from sdk.cli._annotated import AnnotatedCopies
from sdk.cli._numbers import finite, turns
from sdk.cli._opening import add_source_arguments, check_forms
from sdk.cli._paths import engine_files, refuse_overwriting
from sdk.cli._results import OtherResults, add_result_arguments
from sdk.coco import LOWEST_SCORE
from sdk.errors import InputError, UsageError
from sdk.files import real_path

if TYPE_CHECKING:
    from sdk.media.sources import Source
    from sdk.people.estimator import PoseEstimator
    from sdk.poses import Poses

__all__ = ["add_arguments", "run"]


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
    from sdk.cli._prediction import Prediction
    from sdk.media.boxfile import boxes_from_file
    from sdk.media.cv_feed import opencv_told
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
    copies = AnnotatedCopies(sources, arguments.save)
    others = OtherResults(arguments, sources)
    _refuse_overwriting(arguments, sources, copies, others)
    boxes = None
    if arguments.boxes:
        least = LOWEST_SCORE if arguments.box_threshold is None else arguments.box_threshold
        boxes = boxes_from_file(arguments.boxes, score_threshold=least)
    job = Prediction(arguments, sources, boxes, copies, others)
    with _alone(arguments, others), opencv_told(sources):
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
    arguments: argparse.Namespace, sources: list[Source], copies: AnnotatedCopies, others: OtherResults
) -> None:
    """UsageError for a result that would replace something read, or another result."""
    from sdk.media.lines import part_of

    jsonl = arguments.jsonl
    lines = {} if jsonl is None else {"--jsonl": jsonl, "--jsonl, unfinished,": part_of(jsonl)}
    saved = {f"--save of '{source.name}'": target for source, target in copies.places.items()}
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

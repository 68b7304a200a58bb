"""`sdk annotate SOURCE... --output OUT`: every person of an archive as rows of Parquet, on this process or on Ray.

Sources are folders, patterns, lists (text, CSV, Parquet), COCO annotations, videos and tar shards, here or in a store
(s3://, gs://, https://). A run that was stopped goes on where it was. A picture that cannot be read is a row with its
error; the exit status is 1 where a block is not done, or where a run that found none done could read no picture.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from sdk.cli._detectors import fetched
from sdk.cli._numbers import finite
from sdk.cli._paths import engine_files, refuse_overwriting
from sdk.coco import LOWEST_SCORE
from sdk.errors import UsageError
from sdk.wording import counted

if TYPE_CHECKING:
    from sdk.scale.annotating import Report
    from sdk.scale.job import Job, Way
    from sdk.scale.plan import Plan

__all__ = ["add_arguments", "run"]

log = logging.getLogger("sdk.annotate")
EVERY_S = 10.0  # a line of progress in a log; a terminal's line is renewed ten times as often

OF_RAY = {
    "address": "address",
    "gpus": "gpus_per_worker",
    "cpus": "cpus_per_worker",
    "readers": "readers",
    "retries": "retries",
    "store_mb": "store_mb",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="+",
        help="folder, pattern, picture, video, tar shard ({000..127}.tar), list (.txt, .csv, .parquet) or COCO JSON; "
        "a path, or an address (s3://, gs://, https://)",
    )
    parser.add_argument("--output", metavar="OUT", required=True, help="the folder of the rows, here or in a store")
    parser.add_argument("--coco", type=Path, metavar="FILE", help="also write COCO keypoint results")
    parser.add_argument("--json", action="store_true", help="print the report as JSON at the end")
    parser.add_argument("--retry-errors", action="store_true", help="do blocks again in which a picture has an error")
    what = parser.add_argument_group("what is read")
    what.add_argument("--recursive", action="store_true", help="folders with the folders below them")
    what.add_argument(
        "--root", metavar="DIR", help="what relative paths of lists count from (default: the list's folder)"
    )
    what.add_argument("--path-column", metavar="NAME", help="of lists in CSV or Parquet (default: path, file, url ...)")
    what.add_argument(
        "--segment-frames", type=int, default=512, metavar="N", help="cut videos after so many (default: 512)"
    )
    what.add_argument("--no-track", action="store_true", help="no ids in segments of videos")
    where = parser.add_argument_group("where the persons are (default: boxes of the list, else the whole frame)")
    where.add_argument("--boxes", type=Path, metavar="FILE", help="COCO JSON, or CSV: file,x1,y1,x2,y2[,score][,frame]")
    where.add_argument("--detector", type=Path, metavar="D", help="its engine, ONNX file, deploy zip or catalogue name")
    where.add_argument(
        "--box-threshold",
        type=finite,
        help=f"lowest score of a box of --boxes or --detector (default: {LOWEST_SCORE}, or the detector's)",
    )
    how = parser.add_argument_group("how")
    how.add_argument("--engine", help="an engine folder, or the name of a bundled engine (default: the bundled one)")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    how.add_argument("--threads", type=int, help="threads of ONNX Runtime and the native ops, a worker")
    how.add_argument("--flip-test", action="store_true", help="also run the mirrored crop")
    how.add_argument("--refine", default="none", choices=("none", "parabola", "dark", "expectation"))
    how.add_argument("--batch", type=int, default=16, metavar="N", help="pictures estimated together (default: 16)")
    how.add_argument("--block", type=int, default=512, metavar="N", help="pictures a file of rows (default: 512)")
    ray = parser.add_argument_group("on Ray")
    ray.add_argument(
        "--workers", type=int, default=0, metavar="N", help="0: this process alone; else actors of Ray (default: 0)"
    )
    ray.add_argument("--address", help="join this cluster (auto: the one that runs here) instead of starting one")
    ray.add_argument(
        "--gpus-per-worker", type=finite, metavar="G", help="a share of one, or whole ones (default: one, if any)"
    )
    ray.add_argument("--cpus-per-worker", type=finite, default=1.0, metavar="C", help="(default: 1)")
    ray.add_argument("--readers", type=int, metavar="N", help="who read and decode (default: the cores left)")
    ray.add_argument("--retries", type=int, default=3, metavar="N", help="of work whose process died (default: 3)")
    ray.add_argument("--store-mb", type=int, default=256, metavar="MB", help="memory of what travels (default: 256)")


def run(arguments: argparse.Namespace) -> int:
    from sdk.scale.annotating import annotate
    from sdk.scale.stores import shown

    job = _job(arguments)
    _refuse_overwriting(arguments)
    with _Progress() as progress:
        report = annotate(job, _way(arguments), progress=progress)
    _tell(report)
    if arguments.json:
        print(json.dumps({**asdict(report), "rate": report.rate}))
    nothing = not report.found and report.frames > 0 and report.errors == report.frames
    if nothing:
        log.error("no picture could be read; see the column 'error' in '%s'", shown(str(job.output)))
    return 1 if report.missing or nothing else 0


def _way(arguments: argparse.Namespace) -> Way:
    from sdk.scale.cluster import Cluster
    from sdk.scale.on_ray import OnRay
    from sdk.scale.plain import pieces

    told = {name: getattr(arguments, dest) for name, dest in OF_RAY.items()}
    if arguments.workers == 0:
        usual = asdict(Cluster())
        given = [dest.replace("_", "-") for name, dest in OF_RAY.items() if told[name] != usual[name]]
        if given:
            raise UsageError(f"--{given[0]} is of Ray's workers, and there are none; give --workers N too")
        return pieces
    cluster = Cluster(arguments.workers, **told)
    cluster.check()
    return OnRay(cluster)


def _job(arguments: argparse.Namespace) -> Job:
    from sdk.scale.estimating import How
    from sdk.scale.job import Job

    detector = None if arguments.detector is None else str(fetched(arguments.detector))
    names = ("engine", "device", "box_threshold", "refine", "flip_test", "threads")
    how = How(detector=detector, **{name: getattr(arguments, name) for name in names})
    more = ("output", "coco", "recursive", "root", "path_column", "boxes", "block", "batch", "segment_frames")
    told: dict[str, Any] = {name: getattr(arguments, name) for name in (*more, "retry_errors")}
    return Job(tuple(arguments.sources), how=how, track=not arguments.no_track, **told)


def _refuse_overwriting(arguments: argparse.Namespace) -> None:
    """UsageError where the COCO results would replace something read."""
    from sdk.scale.stores import is_url

    read = [Path(source) for source in arguments.sources if not is_url(source)]
    read += [path for path in (arguments.detector, arguments.boxes) if path is not None]
    read += engine_files(arguments.engine) if arguments.engine else []
    refuse_overwriting({"--coco": arguments.coco}, read)


def _tell(report: Report) -> None:
    over = ", ".join(f"{count} {what}" for what, count in report.passed_over.items())
    log.info(
        "%s in %s, %d of them with an error; %s done%s%s%s",
        counted(report.persons, "person"),
        counted(report.frames, "picture"),
        report.errors,
        counted(report.blocks, "block"),
        f", {report.found} of them before" if report.found else "",
        f", {report.again} of them again, since a worker died" if report.again else "",
        f"; passed over: {over}" if over else "",
    )
    if report.frames:
        then = f", then {report.rate:.1f} a second" if report.rate else ""  # one piece tells of no rate
        log.info("listed in %.1f s, started in %.1f s%s", report.listing_s, report.starting_s, then)
    if report.missing:
        log.error("%s not done; run the command again", counted(report.missing, "block"))


class _Progress:
    """Lines of how far the work is: on a terminal one that is renewed and ended, else one in the log now and then."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._every_s = EVERY_S / 10 if self._terminal else EVERY_S
        self._told = monotonic()
        self._begun = False  # a line of the terminal

    def __call__(self, report: Report, plan: Plan) -> None:
        if monotonic() - self._told < self._every_s:
            return
        self._told = monotonic()
        line = progress_line(report, plan)
        if self._terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
            self._begun = True
        else:
            log.info("%s", line)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._begun:
            print(file=sys.stderr)


def progress_line(report: Report, plan: Plan) -> str:
    """Of how many, how fast and how long still; by blocks where shards do not tell how many pictures they hold."""
    from tqdm import tqdm

    left = plan.left
    share = (report.blocks - report.found) / left.blocks if left.shards else report.frames_seen / max(1, left.frames)
    known = f"{report.frames_seen} pictures" + ("" if left.shards else f" of {left.frames}") + f" ({100 * share:.0f} %)"
    still = f", {tqdm.format_interval(report.working_s * (1 - share) / share)} left" if 0 < share <= 1 else ""
    rate = f", {report.rate:.1f} a second" if report.rate else ""
    return f"{known}{rate}, {report.persons} persons, {report.errors} errors{still}"

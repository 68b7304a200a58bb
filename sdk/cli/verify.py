"""`sdk verify`: an engine's accuracy on annotated pictures, as deployed, or against another engine.

sdk verify body.int8 --dataset lsp --annotations val.json --images photos --against body.fp32 --max-drop 0.5
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdk.cli._numbers import finite
from sdk.cli._paths import engine_files, refuse_overwriting

if TYPE_CHECKING:
    from sdk.evaluate.verify import VerifyOptions

__all__ = ["add_arguments", "run"]


DATASETS = ("coco", "crowdpose", "mpii", "wholebody", "hand", "face", "ap10k", "lsp", "custom")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("engine", help="an engine folder, or the name of a bundled engine")
    parser.add_argument("--dataset", required=True, choices=DATASETS)
    parser.add_argument("--annotations", required=True, type=Path, metavar="JSON")
    parser.add_argument("--images", required=True, type=Path, metavar="DIR", help="where its file names start from")
    parser.add_argument("--detections", type=Path, metavar="JSON", help="boxes of a detector; else the annotated ones")
    parser.add_argument("--head-boxes", type=Path, metavar="MAT", help="MPII's gt_valid.mat, for PCKh")
    parser.add_argument(
        "--boxes",
        choices=("paper", "mmpose", "plain"),
        help="how annotated boxes are cropped; else as the code did that published the network",
    )
    parser.add_argument(
        "--partly", action="store_true", help="the file lacks joints of the network: measure the others"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the first N pictures only")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--flip-test", action="store_true", help="average with the mirrored crop")
    parser.add_argument("--refine", default="none", choices=("none", "parabola", "dark", "expectation"))
    parser.add_argument("--nms", default="hard", choices=("hard", "soft", "none"), help="OKS-NMS between persons")
    parser.add_argument("--against", metavar="ENGINE2", help="the reference: the same crops through both engines")
    parser.add_argument("--against-device", metavar="DEVICE", help="where the reference runs, if not on --device")
    parser.add_argument("--max-drop", type=finite, default=0.5, metavar="POINTS", help="exit 1 above it (0.5)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="reports go there; a stopped run goes on from there")
    parser.add_argument("--restart", action="store_true", help="do not go on with the run in --output")
    parser.add_argument("--threads", type=int, metavar="N", help="of the network on the CPU; all cores")
    parser.add_argument("--workers", type=int, metavar="N", help="threads that read and crop; one a core")
    parser.add_argument("--samples", type=int, default=500, metavar="N", help="of the bootstrap (500)")
    parser.add_argument("--json", action="store_true", help="the report as JSON on stdout")


def run(arguments: argparse.Namespace) -> int:
    """Verify, write the reports, print the figures."""
    from sdk.evaluate.pages.html import check_page_packages
    from sdk.evaluate.pages.report import markdown, report_table, write_report
    from sdk.evaluate.verify import verify

    _refuse_overwriting(arguments)
    if arguments.output is not None:
        check_page_packages()
    verification = verify(_options(arguments))
    table = report_table(verification)
    print(json.dumps(table, indent=2) if arguments.json else markdown(table), end="\n" if arguments.json else "")
    if arguments.output is not None:
        write_report(verification, arguments.output)
        print(f"reports: {arguments.output / 'report.html'}", file=sys.stderr)
    for line in verification.dataset.problems.lines():
        print(f"left out: {line}", file=sys.stderr)
    return 0 if verification.passed else 1


def _refuse_overwriting(arguments: argparse.Namespace) -> None:
    """UsageError where a report would replace what the verification reads."""
    from sdk.evaluate.pages.report import report_files

    if arguments.output is None:
        return
    read = [arguments.annotations, arguments.detections, arguments.head_boxes, *engine_files(arguments.engine)]
    against = [] if arguments.against is None else engine_files(arguments.against)
    written = {f"--output ({path.name})": path for path in report_files(arguments.output)}
    refuse_overwriting(written, [*read, *against])


def _options(arguments: argparse.Namespace) -> VerifyOptions:
    from sdk.evaluate.datasets.dataset import DatasetOptions
    from sdk.evaluate.verify import VerifyOptions

    same: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in (
            "engine", "device", "flip_test", "refine", "nms", "against", "against_device", "max_drop", "output",
            "restart", "threads", "workers", "samples",
        )
    }  # fmt: skip
    dataset = DatasetOptions(
        arguments.dataset,
        arguments.annotations,
        arguments.images,
        arguments.detections,
        arguments.head_boxes,
        arguments.limit,
        arguments.boxes,
        arguments.partly,
    )
    return VerifyOptions(dataset=dataset, progress=sys.stderr.isatty() and not arguments.quiet, **same)

"""`sdk benchmark`: an engine's latency and throughput, stage by stage, beside a peer, or two runs side by side.

sdk benchmark body.fp16 --persons 1,8 --seconds 10 --json fp16.json --html fp16.html
sdk benchmark --compare fp32.json fp16.json
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdk.cli._numbers import finite
from sdk.cli._paths import engine_files, refuse_overwriting
from sdk.errors import UsageError
from sdk.files import write_text

if TYPE_CHECKING:
    from sdk.evaluate.speed.benchmark import BenchmarkOptions

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("engine", nargs="?", help="an engine folder, or the name of a bundled engine")
    parser.add_argument(
        "--batch", type=_numbers, default=(1,), metavar="N,...", help="the network alone (1); '' for none"
    )
    parser.add_argument("--persons", type=_numbers, default=(1, 8), metavar="N,...", help="the whole call (1,8)")
    parser.add_argument(
        "--frame", type=_size, default=(1920, 1080), metavar="WxH", help="of the noise frame (1920x1080)"
    )
    parser.add_argument("--seconds", type=finite, default=10.0, help="per case, after the warm-up (10)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU's work; all cores")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--flip-test", action="store_true", help="with the mirrored crop")
    parser.add_argument("--peer", choices=("rtmlib",), help="time this library on the same graph, frame and boxes")
    parser.add_argument("--dataset", metavar="KIND", help="also the accuracy on it, as `sdk verify --dataset` does")
    parser.add_argument("--annotations", type=Path, metavar="JSON", help="of --dataset")
    parser.add_argument("--images", type=Path, metavar="DIR", help="of --dataset")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="the result as JSON, to FILE or stdout")
    parser.add_argument("--html", type=Path, metavar="FILE", help="charts on one self-contained page")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="table two results of --json")


def run(arguments: argparse.Namespace) -> int:
    """Time an engine, or compare two results."""
    from sdk.evaluate.pages.benchmark_page import comparison_text, read_benchmark
    from sdk.evaluate.pages.html import check_page_packages

    _check_words(arguments)

    if arguments.compare is not None:
        print(comparison_text(*(read_benchmark(path) for path in arguments.compare)), end="")
        return 0
    if arguments.html is not None:
        check_page_packages()
    show = sys.stderr.isatty() and not arguments.quiet
    accuracy = _accuracy(arguments, show=show)  # first: what fails after the timing costs the timing
    table = _timed(_options(arguments), show=show)
    if accuracy is not None:
        table["row"]["accuracy"] = accuracy
    _report(table, arguments)
    return 0


def _check_words(arguments: argparse.Namespace) -> None:
    """UsageError where there is nothing to time, or a result would replace something."""
    if arguments.compare is not None:
        if arguments.engine or arguments.json or arguments.html:
            raise UsageError("--compare prints its table and takes no engine, --json or --html; leave them out")
        return
    if arguments.engine is None:
        taken = arguments.json not in (None, "-")
        raise UsageError(
            f"name an engine to time: '{arguments.json}' was taken for the file of --json; put the engine first"
            if taken
            else "name an engine to time, or two results to --compare"
        )
    given = [name for name in ("dataset", "annotations", "images") if getattr(arguments, name) is not None]
    if given and len(given) < 3:
        raise UsageError(f"--dataset, --annotations and --images come together (got only --{' and --'.join(given)})")
    json_file = None if arguments.json in (None, "-") else Path(arguments.json)
    refuse_overwriting({"--json": json_file, "--html": arguments.html}, engine_files(arguments.engine))


def _accuracy(arguments: argparse.Namespace, *, show: bool) -> dict[str, Any] | None:
    """The headline figure of the dataset that was given, by `sdk verify`'s own rules; None where none was."""
    if arguments.dataset is None:
        return None
    from sdk.evaluate.datasets.dataset import DatasetOptions
    from sdk.evaluate.verify import VerifyOptions, verify

    dataset = DatasetOptions(arguments.dataset, arguments.annotations, arguments.images)
    options = VerifyOptions(
        engine=arguments.engine, dataset=dataset, device=arguments.device, flip_test=arguments.flip_test, progress=show
    )
    scores = verify(options).scores[0]
    told = f"{arguments.dataset}, {arguments.annotations.name}"
    return {"name": scores.headline, "value": scores.figures[scores.headline], "dataset": told}


def _timed(options: BenchmarkOptions, *, show: bool) -> dict[str, Any]:
    from tqdm import tqdm

    from sdk.evaluate.speed.benchmark import benchmark

    with tqdm(total=100, unit="%", disable=not show, bar_format="{l_bar}{bar}| {elapsed}") as bar:

        def on_progress(share: float) -> None:
            bar.update(100 * share - bar.n)

        return benchmark(options, on_progress)


def _report(table: dict[str, Any], arguments: argparse.Namespace) -> None:
    from sdk.evaluate.pages.benchmark_page import benchmark_page, benchmark_text

    text = json.dumps(table, indent=2) + "\n"
    print(text if arguments.json == "-" else benchmark_text(table), end="")
    if arguments.json not in (None, "-"):
        write_text(Path(arguments.json), text)
        print(f"result: {arguments.json}", file=sys.stderr)
    if arguments.html is not None:
        write_text(arguments.html, benchmark_page(table))
        print(f"plots: {arguments.html}", file=sys.stderr)


def _options(arguments: argparse.Namespace) -> BenchmarkOptions:
    from sdk.evaluate.speed.benchmark import BenchmarkOptions

    return BenchmarkOptions(
        engine=arguments.engine,
        device=arguments.device,
        batches=arguments.batch,
        persons=arguments.persons,
        frame_wh=arguments.frame,
        seconds=arguments.seconds,
        threads=arguments.threads,
        flip_test=arguments.flip_test,
        peer=arguments.peer,
    )


def _numbers(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"(\d+(,\d+)*)?", text):
        raise argparse.ArgumentTypeError(f"must be whole numbers with commas between, as in 1,4,16 (got '{text}')")
    return tuple(int(word) for word in text.split(",") if word)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be width x height, as in 1920x1080 (got '{text}')")
    return int(match[1]), int(match[2])

"""Seconds and peak memory of `sdk build-engine`, one network a family; with --all, every recipe of the catalogue.

    python benchmarks/build.py                                  # one a family, fp32 and fp16, batch 1-16
    python benchmarks/build.py --all                            # the whole catalogue; hours on a small machine
    python benchmarks/build.py rtmpose-m-256x192 --repeat 3
    python benchmarks/build.py --all --compute-capability 7.5   # whether each compiles for Turing, or is refused

Each build is a process of its own, with random weights, export and comparison with torch included. Repeats are
interleaved and medians printed. Exit status 1 when a build failed; what the SDK refuses for a target, in words, has not
failed. --done F keeps finished rows and resumes from them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sdk.recipe import catalogue

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = (
    "body17-nano-128x128",
    "rtmpose-s-256x192",
    "simba-r50-deconv-256x192",
    "simba-r50-upfree-256x192",
    "simba-r50-heatmap-256x192",
    "mmpose-simcc-r50-256x192",
    "mmpose-simcc-mobilenetv2-256x192",
    "hrnet-w32-256x192",
    "tokenpose-s-256x192",
)
PRECISIONS = ("fp32", "fp16")
COMMAND = "import sys; from sdk.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class Row:
    """One build: wall and processor seconds, peak resident memory, sizes of graph and plan; `error` when it failed."""

    recipe: str
    precision: str
    seconds: float
    cpu_seconds: float
    peak_mib: float
    graph_mb: float
    plan_mb: float
    error: str = ""

    @property
    def refused(self) -> bool:
        """Whether the SDK said beforehand that the target does not take this network."""
        return "cannot be written otherwise" in self.error


def main() -> int:
    arguments = _arguments()
    names = list(catalogue()) if arguments.all else arguments.recipes or list(FAMILIES)
    print(_machine(arguments.compiler))
    print(f"{'recipe':36} {'':4} {'wall s':>7} {'cpu s':>6} {'peak MiB':>8} {'graph MB':>8} {'plan MB':>8}")
    done = _done(arguments.done)
    runs: dict[tuple[str, str], list[Row]] = {}
    for _ in range(arguments.repeat):
        for name in names:
            for precision in PRECISIONS:
                row = done.get((name, precision)) or _build(name, precision, arguments)
                runs.setdefault((name, precision), []).append(row)
                if arguments.repeat == 1:
                    _show([row])
                if arguments.done is not None and (name, precision) not in done:
                    _keep(arguments.done, row)
    for rows in runs.values() if arguments.repeat > 1 else ():
        _show(rows)
    rows = [row for rows in runs.values() for row in rows]
    failed = [row for row in rows if row.error and not row.refused]
    print(f"{len(runs)} builds, {sum(row.refused for row in rows)} refused, {len(failed)} failed")
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE")
    parser.add_argument("--all", action="store_true", help="every recipe of the catalogue")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--compiler", default="tensorrt-rtx", choices=("tensorrt", "tensorrt-rtx", "none"))
    parser.add_argument("--compute-capability", nargs="+", default=[], metavar="CC", help="targets of tensorrt-rtx")
    parser.add_argument("--done", type=Path, metavar="F", help="JSON lines of finished rows, to resume from")
    return parser.parse_args()


def _build(name: str, precision: str, arguments: argparse.Namespace) -> Row:
    compiler, targets = arguments.compiler, arguments.compute_capability
    with tempfile.TemporaryDirectory() as folder:
        engine = Path(folder) / "engine"
        words = ["build-engine", name, "--weights", "random", "--precision", precision, "--compiler", compiler]
        words += ["--compute-capability", *targets] if targets else []
        started = time.perf_counter()
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    COMMAND,
                    *words,
                    "--min-batch",
                    "1",
                    "--max-batch",
                    "16",
                    "--output",
                    str(engine),
                ],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            log.seek(0)
            error = "" if status == 0 else (log.read().strip().splitlines() or ["no message"])[-1]
        graph, plan = (_megabytes(engine / file) for file in ("network.onnx", f"{compiler}.plan"))
        cpu = usage.ru_utime + usage.ru_stime
        return Row(name, precision, seconds, cpu, usage.ru_maxrss / 1024, graph, plan, error)


def _show(rows: Sequence[Row]) -> None:
    first = rows[0]
    if first.error:
        print(
            f"{first.recipe:36} {first.precision} {'refused' if first.refused else 'FAILED'}: {first.error}", flush=True
        )
        return
    middle = [median(getattr(row, field) for row in rows) for field in ("seconds", "cpu_seconds", "peak_mib")]
    print(
        f"{first.recipe:36} {first.precision} {middle[0]:7.1f} {middle[1]:6.1f} {middle[2]:8.0f} "
        f"{first.graph_mb:8.1f} {first.plan_mb:8.1f}",
        flush=True,
    )


def _done(path: Path | None) -> dict[tuple[str, str], Row]:
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    rows = [Row(**json.loads(line)) for line in lines]
    return {(row.recipe, row.precision): row for row in rows if not row.error or row.refused}


def _keep(path: Path, row: Row) -> None:
    with path.open("a") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def _machine(compiler: str) -> str:
    packages = ("torch", "onnx", "onnxruntime", "tensorrt" if compiler == "tensorrt" else "tensorrt-rtx")
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    return f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {versions}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _megabytes(path: Path) -> float:
    return path.stat().st_size / 1e6 if path.exists() else 0.0


if __name__ == "__main__":
    sys.exit(main())

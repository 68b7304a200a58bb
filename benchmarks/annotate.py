"""What `sdk annotate` makes of a folder, beside loops written by hand: pictures a second, start-up apart, and memory.

    python benchmarks/annotate.py [ENGINE] [--pictures 400] [--persons 1] [--rounds 3] [--ray]
    python benchmarks/annotate.py --memory               # the driver's peak memory, 10^3 to 10^6 simulated entries

A loop of `estimate.many`, the loop that users of rtmlib write (a picture, a person after the other; no detector, one
graph), and `sdk annotate` on one process take turns over the same files; with `--ray`, one worker of Ray too. All have
all cores. Medians are printed, and ratios of the same rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
BATCH = 16
COUNTS = (1_000, 10_000, 100_000, 1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", nargs="?", help="default: the bundled engine")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--persons", type=int, default=1, help="a picture")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)  # a child's share of --memory
    arguments = parser.parse_args()
    if arguments.count:
        print(peak_mib(arguments.count))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}")
    if arguments.memory:
        print_memory()
        return
    with tempfile.TemporaryDirectory(prefix="sdk-annotate-") as place:
        print_rates(Path(place), arguments)


def print_rates(place: Path, arguments: argparse.Namespace) -> None:
    folder = write_pictures(place / "pictures", arguments.pictures)
    boxes = write_boxes(place / "boxes.csv", folder, arguments.persons)
    with ExitStack() as stack:
        ways = _ways(arguments.engine, place, folder, boxes, stack, with_ray=arguments.ray)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                rates[name].append(way())
    for name, found in rates.items():
        ratios = [median(a / b for a, b in zip(found, rates[other], strict=True)) for other in list(rates)[:2]]
        spread = f"{min(found):.1f} to {max(found):.1f}"
        print(f"{name:22} {median(found):8.1f} pictures/s ({spread}); {ratios[0]:.2f}x many, {ratios[1]:.2f}x rtmlib")


def _ways(
    engine: str | None, place: Path, folder: Path, boxes: Path, stack: ExitStack, *, with_ray: bool
) -> dict[str, Callable[[], float]]:
    """Name -> one pass over the folder; pictures a second."""
    from sdk.runtime.opening import engine_from

    opened = engine_from(engine)
    by_hand, peer = loop_of_many(opened, folder, boxes, stack), loop_of_rtmlib(opened, folder, boxes)
    ways = {"loop of many": by_hand, "loop of rtmlib": peer}
    ways["annotate, one process"] = annotated(opened, place, folder, boxes, None)
    if with_ray:
        from sdk.scale.cluster import Cluster, started
        from sdk.scale.on_ray import OnRay

        cluster = Cluster(workers=1, readers=1, store_mb=200)
        began = perf_counter()
        stack.enter_context(started(cluster))
        print(f"Ray started in {perf_counter() - began:.1f} s")
        ways["annotate, Ray, 1 worker"] = annotated(opened, place, folder, boxes, OnRay(cluster))
    return ways


def write_pictures(folder: Path, count: int) -> Path:
    """JPEGs of 640 x 480, 100 KB each, as photographs of that size have."""
    import cv2

    folder.mkdir()
    for index in range(count):
        small = np.random.default_rng(index).integers(0, 256, (120, 160, 3), np.uint8)
        cv2.imwrite(str(folder / f"{index:06d}.jpg"), cv2.resize(small, (640, 480), interpolation=cv2.INTER_CUBIC))
    return folder


def write_boxes(path: Path, folder: Path, persons: int) -> Path:
    lines = ["file,x1,y1,x2,y2"]
    for index, picture in enumerate(sorted(folder.iterdir())):
        corners = np.random.default_rng(index).uniform(0, 300, (persons, 2))
        lines += [f"{picture.name},{x:.1f},{y:.1f},{x + 150:.1f},{y + 170:.1f}" for x, y in corners]
    path.write_text("\n".join(lines))
    return path


def loop_of_many(engine: Any, folder: Path, boxes: Path, stack: ExitStack) -> Callable[[], float]:
    """What one writes by hand: read sixteen, estimate them together, keep the joints."""
    from sdk import PoseEstimator
    from sdk.media.boxfile import boxes_from_file
    from sdk.media.sources import read_image

    estimate, table = stack.enter_context(PoseEstimator(engine, device="cpu")), boxes_from_file(boxes)

    def run() -> float:
        began, paths, kept = perf_counter(), sorted(folder.iterdir()), []
        for start in range(0, len(paths), BATCH):
            some = paths[start : start + BATCH]
            kept += estimate.many([read_image(path) for path in some], [table.of(path)[0] for path in some])
        return len(kept) / (perf_counter() - began)

    return run


def loop_of_rtmlib(engine: Any, folder: Path, boxes: Path) -> Callable[[], float]:
    """As its users do: cv2.imread, then its model on the boxes."""
    import cv2

    from sdk.evaluate.speed.peer import rtmlib_peer
    from sdk.media.boxfile import boxes_from_file

    peer, table = rtmlib_peer(engine), boxes_from_file(boxes)

    def run() -> float:
        began, paths, kept = perf_counter(), sorted(folder.iterdir()), []
        for path in paths:
            kept.append(peer.estimate(cv2.imread(str(path)), table.of(path)[0]))
        return len(kept) / (perf_counter() - began)

    return run


def annotated(engine: Any, place: Path, folder: Path, boxes: Path, way: Any) -> Callable[[], float]:
    """`sdk annotate`, rows written; the rate after the first rows, as its report has it."""
    from sdk.scale.annotating import annotate
    from sdk.scale.estimating import How
    from sdk.scale.job import Job

    def run() -> float:
        with tempfile.TemporaryDirectory(dir=place) as out:
            how = How(str(engine.folder), device="cpu")
            job = Job((str(folder),), Path(out) / "rows", how, boxes=boxes, batch=BATCH, block=64)
            report = annotate(job) if way is None else annotate(job, way)
        print(f"  started in {report.starting_s:.2f} s, then {report.rate:.1f} pictures/s", file=sys.stderr)
        return report.rate

    return run


def print_memory() -> None:
    """The whole of the driver but for reading and estimating: listing, plan, blocks, Parquet, manifest."""
    found = {}
    for count in COUNTS:
        words = [sys.executable, __file__, "--count", str(count)]
        found[count] = float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        print(f"{count:9,} entries: {found[count]:.0f} MiB at most", flush=True)
    print(f"{found[COUNTS[-1]] / found[COUNTS[0]]:.3f}x from the fewest to the most")


def peak_mib(count: int) -> float:
    """Peak resident memory of a process that annotates a list of `count` pictures which nobody reads."""
    from sdk.runtime.opening import engine_from
    from sdk.scale.annotating import annotate
    from sdk.scale.estimating import How
    from sdk.scale.job import Job, Piece, Work
    from sdk.scale.pictures import Picture
    from sdk.scale.rows import rows_from, schema_for

    schema = schema_for(engine_from(None).manifest.recipe)

    def simulated(work: Work) -> Iterator[Piece]:
        for block in work.plan.todo():
            pictures = [Picture(entry.place, error="simulated") for entry in block.entries]
            yield Piece(block.name, 0, True, rows_from(pictures, ["simulated"] * len(pictures), schema, "0" * 16))

    with tempfile.TemporaryDirectory() as place:
        names = Path(place) / "list.txt"
        with names.open("w") as file:
            file.writelines(f"/archive/{index // 1000:06d}/{index:09d}.jpg\n" for index in range(count))
        annotate(Job((str(names),), Path(place) / "rows", How()), simulated)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()

"""Several cameras on one plan, in real time: how full batches are, how evenly cameras are served, how long frames wait.

    python benchmarks/cameras.py [ENGINE] [--cameras 8] [--fps 30] [--seconds 10] [--device auto] [--detector FILE]

Each camera is a live source of 720p pictures at a phase of its own (`--in-step`: all at once), with up to 4 ms of
jitter.
What a machine cannot serve is passed over, and told. The first second does not count. When batches begin is held to
figures by `tests/test_gathering.py` on a clock of its own; this shows a machine.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.estimator_overhead import print_machine  # noqa: E402
from benchmarks.walks import walk  # noqa: E402

JITTER_S = 0.004
WARM_S = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", nargs="?", help="an engine folder; the bundled network where none is named")
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--persons", type=int, default=2)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--detector", help="a person detector; without, each picture is one person")
    parser.add_argument("--detect-every", type=int, default=5)
    parser.add_argument("--in-step", action="store_true")
    arguments = parser.parse_args()
    print_machine()
    print(line_of(served(arguments), arguments))


def camera(pictures: list[NDArray[np.uint8]], number: int, arguments: Any) -> Iterator[NDArray[np.uint8]]:
    """A picture each period from a common beginning on, at this camera's phase."""
    rng = np.random.default_rng(number)
    period_s = 1 / arguments.fps
    start_s = monotonic() + (0.0 if arguments.in_step else float(rng.uniform(0, period_s)))
    for step in range(round((WARM_S + arguments.seconds) * arguments.fps)):
        sleep(max(0.0, start_s + step * period_s + float(rng.uniform(0, JITTER_S)) - monotonic()))
        yield pictures[step % len(pictures)]


def served(arguments: Any) -> list[Any]:
    """What came of each frame after the first second: (CameraPoses, when)."""
    from sdk import Cameras, open_source

    pictures = [picture for picture, _ in walk(arguments.persons, 20, 0)]
    sources = [open_source(camera(pictures, each, arguments), live=True) for each in range(arguments.cameras)]
    rules = {"detector": arguments.detector, "detect_every": arguments.detect_every if arguments.detector else 1}
    with Cameras(sources, arguments.engine, device=arguments.device, **rules) as cameras:
        cameras.warm()
        found = [(each, monotonic()) for each in cameras]
    begin = found[0][1] + WARM_S
    return [each for each, at_s in found if at_s >= begin]


def line_of(found: list[Any], arguments: Any) -> str:
    rates = [count / arguments.seconds for count in Counter(each.camera for each in found).values()]
    waited = np.array([each.waited_ms for each in found])
    batches = sum(1 / each.together for each in found)
    return (
        f"{arguments.cameras} cameras of {arguments.fps:g} frames a second: {min(rates):.2f} to {max(rates):.2f} "
        f"a second each; {len(found) / batches:.2f} frames a batch; a frame waits {np.median(waited):.1f} ms, "
        f"99 % at most {np.percentile(waited, 99):.1f} (half a period is {500 / arguments.fps:.1f}); "
        f"{np.mean([len(each.poses) for each in found]):.2f} persons a frame"
    )


if __name__ == "__main__":
    main()

"""What a call costs on the CPU beside crop, network and decode, the `host` column of `sdk benchmark`; and what frames
of one person each gain in shared batches.

    python benchmarks/cpu_host.py [--against CHECKOUT] [--rounds 12] [--threads 2]

The bundled network on a 1080p frame of noise. `--against` names another checkout with its extension built in place:
both are timed in turns, in processes of their own, by medians. Run it on an idle machine: what others leave in the
caches counts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FRAME_HW = (1080, 1920)
FRAMES = 16
MEASURE = "--measure"
CALLS = {1: 60, 8: 20}  # persons -> calls a round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    sys.path.append(str(ROOT))
    from benchmarks.children import Child, checkouts

    words = (__file__, MEASURE, str(arguments.threads))
    with ExitStack() as stack:
        children = [stack.enter_context(Child(each, *words)) for each in checkouts(arguments.against)]
        rounds = [[child.asked() for child in children] for _ in range(1 + arguments.rounds)][1:]
    for what in rounds[0][0]:
        told = [[each[i][what] for each in rounds] for i in range(len(children)) if what in rounds[0][i]]
        ours, *others = map(median, told)
        print(f"{what}: {ours:.1f}" + "".join(f", {other:.1f} there: {ours / other:.2f}x" for other in others))


def measure(threads: int) -> None:
    """A round of all cases for each line of the standard input; the checkout on the path is the one that is timed."""
    from sdk import PoseEstimator

    frame = np.random.default_rng(0).integers(0, 256, (*FRAME_HW, 3), np.uint8)
    frames = [np.ascontiguousarray(frame[: 480 + 16 * index, :640]) for index in range(FRAMES)]
    boxes = [np.array([[100 + index, 50, 260 + index, 400]], np.float32) for index in range(FRAMES)]
    with PoseEstimator(device="cpu", threads=threads) as estimate:
        for _ in sys.stdin:
            told = {f"host of a call, {count} persons, us": host_us(estimate, frame, count) for count in CALLS}
            if hasattr(estimate, "many"):
                told |= shared(estimate, frames, boxes)
            print(json.dumps(told), flush=True)


def host_us(estimate: Any, frame: Any, count: int) -> float:
    boxes, spent = persons(count), []
    for _ in range(CALLS[count]):
        timings = dict(estimate(frame, boxes).timings_ms)
        total = timings.pop("total")
        spent.append(1e3 * (total - sum(timings.values())))
    return median(spent)


def shared(estimate: Any, frames: Any, boxes: Any) -> dict[str, float]:
    one_by_one = ms(lambda: [estimate(*each) for each in zip(frames, boxes, strict=True)])
    together = ms(lambda: estimate.many(frames, boxes))
    return {f"{FRAMES} frames of one person, a call each, ms": one_by_one, "all in many, ms": together}


def ms(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return 1e3 * (perf_counter() - start)


def persons(count: int) -> Any:
    """Upright persons, 40 to 90 % of the frame's height."""
    rng = np.random.default_rng(count)
    tall = rng.uniform(0.4, 0.9, count) * FRAME_HW[0]
    wide = tall * rng.uniform(0.35, 0.6, count)
    left, top = rng.uniform(0, 1, count) * (FRAME_HW[1] - wide), rng.uniform(0, 1, count) * (FRAME_HW[0] - tall)
    return np.stack([left, top, left + wide, top + tall], axis=1).astype(np.float32)


if __name__ == "__main__":
    if sys.argv[1:2] == [MEASURE]:
        measure(int(sys.argv[2]))
    else:
        main()

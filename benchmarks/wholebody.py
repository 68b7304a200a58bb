"""rtmlib's whole-body call beside the SDK's on one graph, on the CPU: time of a frame, and how far joints lie apart.

    python benchmarks/wholebody.py [ENGINE] [--recipe rtmpose-m-wholebody-256x192] [--persons 1 4] [--rounds 15]

Both get a frame and its boxes and give keypoints and scores, as `rtmlib.Wholebody` does behind its detector: one person
a run there, one batch here. Without an engine the recipe's graph is made on the spot with random weights. Runs are
interleaved, medians are printed, with the machine and the versions.

With random weights many rows are nearly flat, and a grey level of the crop, by which the libraries may differ, moves
their highest bin: hence the median and the share of joints beside the largest distance.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.estimator_overhead import print_machine  # noqa: E402

Frame = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", nargs="?", type=Path)
    parser.add_argument("--recipe", default="rtmpose-m-wholebody-256x192")
    parser.add_argument("--persons", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--cpu-time", action="store_true", help="count processor time of the process: for one thread on a busy machine"
    )
    arguments = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        engine = arguments.engine or made_engine(arguments.recipe, Path(folder) / "wholebody.fp32")
        for persons in arguments.persons:
            clock = process_time if arguments.cpu_time else perf_counter
            print(line_of(engine, persons, arguments.rounds, arguments.threads, clock))


def line_of(engine: Path, persons: int, rounds: int, threads: int, clock: Callable[[], float]) -> str:
    """Medians of both, their ratio, and how far their joints lie apart."""
    from sdk import PoseEstimator
    from sdk.evaluate.speed.peer import rtmlib_peer

    frame, boxes = scene(persons)
    with PoseEstimator(engine, device="cpu", threads=threads) as estimate:
        peer = rtmlib_peer(estimate.engine, threads)
        theirs = peer.in_its_order(frame)
        calls: dict[str, Callable[[], Any]] = {
            "sdk": lambda: estimate(frame, boxes),
            peer.name: lambda: peer.estimate(theirs, boxes),
        }
        times = interleaved(calls, rounds, clock)
        ours, (keypoints, _) = calls["sdk"](), calls[peer.name]()
        apart = np.linalg.norm(ours.keypoints - keypoints, axis=2)
    sdk, rtmlib = median(times["sdk"]), median(times[peer.name])
    return (
        f"{persons} persons, {threads} threads: {peer.name} {peer.version} {1e3 * rtmlib:.1f} ms, "
        f"sdk {1e3 * sdk:.1f} ms, {rtmlib / sdk:.2f}x; joints apart: median {np.median(apart):.4f} px, "
        f"{100 * float((apart <= 0.01).mean()):.1f} % within 0.01 px, most {apart.max():.2f}"
    )


def interleaved(calls: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of each call, in turns, after two of each that do not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 2):
        for name, call in calls.items():
            start = clock()
            call()
            if number >= 2:
                times[name].append(clock() - start)
    return times


def scene(persons: int) -> tuple[Frame, NDArray[np.float32]]:
    """A frame of 1280 x 720 with coarse structure, and boxes of upright persons in it."""
    import cv2

    rng = np.random.default_rng(persons)
    coarse = rng.integers(0, 256, (18, 32, 3), np.uint8)
    frame = np.asarray(cv2.resize(coarse, (1280, 720), interpolation=cv2.INTER_CUBIC), np.uint8)
    corner = rng.uniform([0, 0], [1000, 250], (persons, 2))
    return frame, np.concatenate([corner, corner + np.array([180, 420])], axis=1).astype(np.float32)


def made_engine(name: str, folder: Path) -> Path:
    """An engine folder of the recipe's graph, with random weights."""
    import onnx

    from sdk.networks import network_from_recipe, random_weights
    from sdk.recipe import recipe_by_name
    from sdk.toolchain.export import graph_from_network
    from tests.support.engines import wrapped_engine

    recipe = recipe_by_name(name)
    network = network_from_recipe(recipe)
    random_weights(network, 0)
    path = folder.with_suffix(".onnx")
    onnx.save(graph_from_network(network, recipe), str(path))
    return wrapped_engine(path, folder, recipe)


if __name__ == "__main__":
    main()

"""What the estimator costs beside the bare ONNX Runtime call on the same batch.

    python benchmarks/estimator_overhead.py [ENGINE] [--persons 1 4 16] [--rounds 60]

Without an engine a SimCC-shaped graph is made on the spot. Runs are interleaved; medians are printed, with the machine.
The estimator's call holds everything: checks, affines, crop, network, decode, assembly of `Poses`.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", nargs="?", type=Path)
    parser.add_argument("--persons", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        engine = arguments.engine or made_engine(Path(folder))
        for persons in arguments.persons:
            print_overhead(engine, persons, arguments.rounds, arguments.threads)


def print_overhead(engine: Path, persons: int, rounds: int, threads: int) -> None:
    """One line: the whole call, the bare ONNX Runtime call, and what lies between them."""
    from sdk import PoseEstimator
    from sdk.onnx_runtime import onnxruntime

    rng = np.random.default_rng(persons)
    frame = rng.integers(0, 256, (1080, 1920, 3), np.uint8)
    corner = rng.uniform(0, 900, (persons, 2))
    boxes = np.concatenate([corner, corner + np.array([150, 400])], axis=1).astype(np.float32)
    options = onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads
    with PoseEstimator(engine, device="cpu", threads=threads) as estimate:
        if persons > estimate.engine.manifest.batch.max:
            print(f"{persons:3} persons: above the engine's batch of {estimate.engine.manifest.batch.max}, left out")
            return
        source = estimate.recipe.input
        path = str(estimate.engine.graph_path)
        bare = onnxruntime().InferenceSession(path, options, providers=["CPUExecutionProvider"])
        crops = rng.standard_normal((persons, 3, *source.size_hw)).astype(np.float32)
        stages: list[float] = []

        def whole() -> None:
            timings = estimate(frame, boxes).timings_ms
            stages.append(float(timings["crop"]) + float(timings["decode"]))

        whole_ms, bare_ms = interleaved([whole, lambda: bare.run(None, {source.name: crops})], rounds)
        name = estimate.recipe.name
    ops_ms = median(stages[-rounds:])
    print(
        f"{name}, {persons:2} persons: estimator {whole_ms:.3f} ms, bare ONNX Runtime {bare_ms:.3f} ms, "
        f"overhead {whole_ms - bare_ms:.3f} ms, of which crop and decode {ops_ms:.3f} ms"
    )


def interleaved(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median milliseconds of each call, the calls taking turns; the first five rounds warm up."""
    spent: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds + 5):
        for index, call in enumerate(calls):
            start = perf_counter()
            call()
            if turn >= 5:
                spent[index].append(1e3 * (perf_counter() - start))
    return [median(each) for each in spent]


def made_engine(folder: Path) -> Path:
    """An engine around a small SimCC graph with seeded weights."""
    from tests.support.engines import BODY14, pooled_simcc_graph, wrapped_engine

    return wrapped_engine(pooled_simcc_graph(folder / "graph.onnx", BODY14), folder / "engine", max_batch=64)


def print_machine() -> None:
    import sdk
    from sdk.onnx_runtime import onnxruntime

    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    print(f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.system()} {platform.machine()}")
    print(f"Python {platform.python_version()}, sdk {sdk.__version__}, onnxruntime {onnxruntime().__version__}")


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


if __name__ == "__main__":
    main()

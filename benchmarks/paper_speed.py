"""SimCC's headline on this machine: the same backbone with heatmaps and with SimCC, on the CPU, decode included.

The paper (Li et al., ECCV 2022) has SimpleBaseline-R50 at 256x192 go from 17 to 21 frames a second (1.235x) with 57 %
fewer GFLOPs when heatmaps and their deconvolutions give way to two classifications. Weights are random: speed does not
depend on them. Batch 1, both sides of a pair in turn, sample by sample, so that whatever else the machine does hits
both. Prints Markdown.

    python benchmarks/paper_speed.py --samples 300
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np

from sdk.cores import allowed_cores
from sdk.evaluate.speed.machine import machine_facts
from sdk.heatmap import decode_heatmaps
from sdk.recipe import Output, Recipe, recipe_by_name
from sdk.recipe_networks import HeatmapHead

WARM_UP = 10
PAUSE_SECONDS = 0.02  # before each sample: the other side's idle threads spin for some milliseconds, then sleep
PAPER = "paper: 21 against 17 frames a second, 1.235x; GFLOPs -57 % as the paper counts"
Step = Callable[[Any], Any]


@dataclass(frozen=True)
class Pair:
    """One network with heatmaps and with SimCC."""

    name: str
    heatmap: Recipe
    simcc: Recipe
    paper: str = ""


def pairs() -> dict[str, Pair]:
    """What is compared, by the word that chooses it."""
    wide = recipe_by_name("hrnet-w48-256x192")
    wide_heatmap = replace(
        wide,
        name="hrnet-w48-heatmap-256x192",
        network=replace(wide.network, head=HeatmapHead("heatmap", ())),
        output=Output("heatmap"),
    )
    small = recipe_by_name("simba-r50-heatmap-256x192")
    return {
        "simba": Pair(
            "SimpleBaseline-R50, upsampling dropped", small, recipe_by_name("simba-r50-upfree-256x192"), PAPER
        ),
        "simba-deconv": Pair(
            "SimpleBaseline-R50, deconvolutions kept", small, recipe_by_name("simba-r50-deconv-256x192")
        ),
        "hrnet": Pair("HRNet-W48", wide_heatmap, wide),
        "tokenpose": Pair(
            "TokenPose-S", recipe_by_name("tokenpose-s-v1-heatmap-256x192"), recipe_by_name("tokenpose-s-256x192")
        ),
    }


def main() -> int:
    """Measure the pairs asked for and print them."""
    arguments = _arguments()
    chosen = [pairs()[name] for name in arguments.pairs]
    threads = arguments.threads or allowed_cores()
    _print_machine(threads, arguments.samples)
    rows = []
    for engine, steps in (("torch", torch_steps), ("ONNX Runtime", onnxruntime_steps)):
        if engine.split()[0].lower() not in arguments.engines:
            continue
        for pair in chosen:
            rows.append(_row(pair, engine, measured(*steps(pair, threads), arguments.samples)))
            print(" | ".join(rows[-1][:5]), file=sys.stderr)
    print(_table(rows))
    print(_cost_table(chosen))
    return 0


def torch_steps(pair: Pair, threads: int) -> tuple[Step, Step, Any]:
    """Crop to joints through torch: heatmap side, SimCC side, and the crop."""
    import torch

    from sdk.networks import network_from_recipe, random_weights

    torch.set_num_threads(threads)
    crop = torch.from_numpy(_crop(pair.simcc))

    def step_of(recipe: Recipe) -> Step:
        network = network_from_recipe(recipe)
        random_weights(network, 0)
        network = network.eval()
        decode = _decode_of(recipe)

        def step(crops: Any) -> Any:
            with torch.inference_mode():
                outputs = network(crops)
            found = outputs if isinstance(outputs, tuple | list) else (outputs,)
            return decode([output.numpy() for output in found])

        return step

    return step_of(pair.heatmap), step_of(pair.simcc), crop


def onnxruntime_steps(pair: Pair, threads: int) -> tuple[Step, Step, Any]:
    """Crop to joints through ONNX Runtime: heatmap side, SimCC side, and the crop."""
    from sdk.networks import network_from_recipe, random_weights
    from sdk.runtime.ort_session import onnxruntime_session
    from sdk.toolchain.export import graph_from_network

    def step_of(recipe: Recipe) -> Step:
        network = network_from_recipe(recipe)
        random_weights(network, 0)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            path.write_bytes(graph_from_network(network, recipe).SerializeToString())
            session = onnxruntime_session(path, threads)
        names, decode = list(recipe.output.names), _decode_of(recipe)
        return lambda crops: decode(session.run(names, {recipe.input.name: crops}))

    return step_of(pair.heatmap), step_of(pair.simcc), _crop(pair.simcc)


def measured(heatmap: Step, simcc: Step, crop: Any, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of each side, one after the other, taking turns to be first."""
    sides = (heatmap, simcc)
    times = np.zeros((2, samples))
    for _ in range(WARM_UP):
        for side in sides:
            side(crop)
    for sample in range(samples):
        for at in (0, 1) if sample % 2 == 0 else (1, 0):
            sleep(PAUSE_SECONDS)
            start = perf_counter()
            sides[at](crop)
            times[at, sample] = 1e3 * (perf_counter() - start)
    return times[0], times[1]


def paper_macs(recipe: Recipe) -> int:
    """Multiply-adds as pose papers count them: a deconvolution as a convolution over its output, kernel and all.

    That is 4 times (the stride squared) what a transposed convolution of stride 2 computes.
    """
    from sdk.networks import cost_of

    total, head = cost_of(recipe).macs, recipe.network.head
    height, width = recipe.input.height // 32, recipe.input.width // 32
    channels = 2048
    for made in getattr(head, "deconv", ()):
        total += (4 - 1) * height * width * channels * made * 16
        height, width, channels = 2 * height, 2 * width, made
    return total


def _decode_of(recipe: Recipe) -> Step:
    from sdk import ops

    affines = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
    if recipe.output.kind == "heatmap":
        return lambda outputs: decode_heatmaps(outputs[0], affines, recipe.input.size_hw)
    split_ratio, score = recipe.output.split_ratio, recipe.output.score
    assert split_ratio is not None and score is not None, "a SimCC recipe has both"
    return lambda outputs: ops.decode(outputs[0], outputs[1], affines, split_ratio, score=score)


def _crop(recipe: Recipe) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 3, *recipe.input.size_hw)).astype(np.float32)


def _row(pair: Pair, engine: str, times: tuple[np.ndarray, np.ndarray]) -> list[str]:
    heatmap, simcc = times
    middle = np.median(heatmap) / np.median(simcc)
    low, high = np.percentile(heatmap / simcc, [25, 75])
    cells = [f"{np.median(side):.2f} ({1e3 / side.mean():.1f})" for side in times]
    return [pair.name, engine, *cells, f"**{middle:.3f}x** ({low:.2f} to {high:.2f})", pair.paper.split(";")[0]]


def _table(rows: list[list[str]]) -> str:
    head = [
        "network, 256x192", "run by", "heatmap, median ms (frames/s)", "SimCC, median ms (frames/s)",
        "ratio (middle half of sample pairs)", "published",
    ]  # fmt: skip
    return _markdown([head, ["---"] * len(head), *rows])


def _cost_table(chosen: list[Pair]) -> str:
    from sdk.networks import cost_of

    rows = [["network", "", "heatmap", "SimCC", "change"], ["---"] * 5]
    for pair in chosen:
        sides = (pair.heatmap, pair.simcc)
        costs = [cost_of(recipe) for recipe in sides]
        for words, (a, b) in (
            ("parameters, M", tuple(cost.parameters / 1e6 for cost in costs)),
            ("GMACs computed", tuple(cost.macs / 1e9 for cost in costs)),
            ("GFLOPs as the paper counts", tuple(paper_macs(recipe) / 1e9 for recipe in sides)),
        ):
            rows.append([pair.name, words, f"{a:.2f}", f"{b:.2f}", f"{100 * (b / a - 1):+.0f} %"])
    return _markdown(rows)


def _markdown(rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _print_machine(threads: int, samples: int) -> None:
    facts = machine_facts()
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    print(
        f"{facts['processor']}, {threads} threads of {facts['cores']} cores, clock {facts['clock_mhz']}, load "
        f"{facts['load_1_minute']} at the start; Python {facts['python']}, {packages}; {samples} samples a side, "
        "batch 1.\n"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--threads", type=int, help="all cores")
    parser.add_argument("--pairs", nargs="+", choices=list(pairs()), default=list(pairs()))
    parser.add_argument("--engines", nargs="+", choices=("torch", "onnx"), default=["torch", "onnx"])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

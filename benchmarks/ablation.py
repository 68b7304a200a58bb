"""The paper's ablations on a small budget: split ratio, label smoothing, upsampling, SimCC against a heatmap.

One backbone, one seed, one schedule, the same persons for every variant; only what a row names differs. Budgets are
small on purpose: the figures rank the variants at equal cost, they are not what the variants reach in the end.

    python benchmarks/ablation.py --data ../shared/data/lspet                        # a few minutes
    python benchmarks/ablation.py --data ../shared/data/lspet --persons 7534 --epochs 30 --output ablation.md
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sdk.recipe import Recipe, recipe_by_name, recipe_from_table
from sdk.training.augment import Augmentation
from sdk.training.codecs import Smoothing
from sdk.training.settings import Settings

STRIDE_16 = {"kind": "lowres", "channels": [24, 32, 64, 128, 192], "depths": [1, 1, 1, 1], "neck": [96]}
STRIDE_8 = {**STRIDE_16, "neck": [96, 96]}
LINEAR = {"kind": "simcc", "deconv": [], "maps_per_joint": 1}
UPSAMPLED = {"kind": "simcc", "deconv": [96, 96], "maps_per_joint": 1}
HEATMAP = {"kind": "heatmap", "deconv": [96, 96]}
MARGINAL = {"kind": "marginal", "depth": 0}
AUGMENTATION = Augmentation(half_body=0.0, rotation_deg=40.0, cut_out=0.0, blur=0.0, grey=0.0)
LATENCY_RUNS = 30


@dataclass(frozen=True)
class Variant:
    """A row of the table. `width` of the smoothing is in parts of the crop's side, except for 'equal'."""

    question: str
    what: str
    head: dict[str, Any]
    split_ratio: float | None
    smoothing: str = "gaussian"
    width: float = 3 / 128


def variants() -> Iterator[Variant]:
    """Every row asks one question of the row 'gaussian, k = 2, no upsampling'."""
    for ratio in (1.0, 2.0, 3.0, 4.0):
        yield Variant("split ratio", f"SimCC, Gaussian, k = {ratio:g}", LINEAR, ratio)
    yield Variant("smoothing", "SimCC, Laplace, k = 2", LINEAR, 2.0, "laplace", 2 / 128)
    yield Variant("smoothing", "SimCC, equal 0.1, k = 2", LINEAR, 2.0, "equal", 0.1)
    yield Variant("upsampling", "SimCC, two deconvolutions, k = 2", UPSAMPLED, 2.0)
    yield Variant("representation", "heatmap, two deconvolutions", HEATMAP, None)
    yield Variant("representation", "marginalised SimCC maps, k = 2", MARGINAL, 2.0)


def recipe_of(variant: Variant, size: int) -> Recipe:
    table = recipe_by_name("body14-nano-128x128").to_table()
    table["name"] = f"ablation-{size}x{size}"
    table["input"] = {**table["input"], "height": size, "width": size}
    backbone = STRIDE_8 if variant.head["kind"] == "marginal" else STRIDE_16
    table["network"] = {"backbone": backbone, "head": variant.head}
    simcc = {"kind": "simcc", "split_ratio": variant.split_ratio, "score": "min_softmax"}
    table["output"] = {"kind": "heatmap"} if variant.split_ratio is None else simcc
    return recipe_from_table(table, "ablation")


def measured(variant: Variant, size: int, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train the variant: its figures and its network."""
    from sdk.training.trainer import Trainer

    recipe = recipe_of(variant, size)
    width = variant.width if variant.smoothing == "equal" else variant.width * size
    settings = replace(settings_of(arguments), smoothing=Smoothing(variant.smoothing, width))  # type: ignore[arg-type]
    train, val = datasets(arguments, recipe)
    run = Trainer(recipe, settings, train, val, folder / f"{size}-{variant.what}", progress=sys.stderr.isatty())
    scores = run.fit()
    parameters = sum(p.numel() for p in run.network.parameters()) / 1e6
    return {**scores, "network": run.average, "parameters": parameters}


def add_latencies(rows: list[tuple[int, Variant, dict[str, Any]]]) -> None:
    """Time every row's network on one crop and one thread, all rows in turn."""
    import torch

    torch.set_num_threads(1)
    spent_ms: list[list[float]] = [[] for _ in rows]
    crops = [torch.zeros(1, 3, size, size).contiguous(memory_format=torch.channels_last) for size, _, _ in rows]
    with torch.inference_mode():
        for _ in range(LATENCY_RUNS):
            for times, crop, (_, _, row) in zip(spent_ms, crops, rows, strict=True):
                started = time.perf_counter()
                row["network"](crop)
                times.append(1e3 * (time.perf_counter() - started))
    for times, (_, _, row) in zip(spent_ms, rows, strict=True):
        row["ms"] = median(times)


def settings_of(arguments: argparse.Namespace) -> Settings:
    return Settings(
        epochs=arguments.epochs,
        batch=32,
        warmup=0.1,
        ema=0.99,
        augmentation=AUGMENTATION,
        plain_epochs=0,
        precision=arguments.precision,
        workers=arguments.workers,
        validate_every=arguments.epochs,
        seed=arguments.seed,
    )


def datasets(arguments: argparse.Namespace, recipe: Recipe) -> tuple[Any, Any]:
    """The first persons of each file, the same for every variant of a size."""
    from sdk.training.dataset import PersonDataset
    from sdk.training.label_files import LabelFile

    sets = []
    for name, limit in (("train.json", arguments.persons), ("val.json", arguments.val_persons)):
        path, exact = arguments.data / name, name == "val.json"
        chosen = PersonDataset([LabelFile(path, arguments.data)], recipe, seed=arguments.seed, limit=limit, exact=exact)
        sets.append(chosen)
    return sets[0], sets[1]


def table_of(rows: list[tuple[int, Variant, dict[str, Any]]]) -> str:
    lines = ["| input | question | variant | PCK@0.2 | PCK@0.1 | AP | M parameters | ms |", "| --- " * 8 + "|"]
    for size, variant, row in rows:
        lines.append(
            f"| {size}x{size} | {variant.question} | {variant.what} | {row['pck_0.2']:.2f} | {row['pck_0.1']:.2f} | "
            f"{row['ap']:.2f} | {row['parameters']:.2f} | {row['ms']:.2f} |"
        )
    return "\n".join(lines)


def verdict(rows: list[tuple[int, Variant, dict[str, Any]]]) -> str:
    """The paper's claim, held against the figures: SimCC ahead of the heatmap at low resolution."""
    sentences = []
    for size in sorted({size for size, _, _ in rows}):
        found = {variant.what: row["pck_0.2"] for at, variant, row in rows if at == size}
        heatmap = found["heatmap, two deconvolutions"]
        for what in ("SimCC, Gaussian, k = 2", "SimCC, two deconvolutions, k = 2", "marginalised SimCC maps, k = 2"):
            lead = found[what] - heatmap
            word = "ahead of" if lead > 0 else "behind"
            sentences.append(f"- {size}x{size}: {what} is {abs(lead):.2f} points {word} the heatmap.")
    return "\n".join(sentences)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="train.json, val.json and the images")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--persons", type=int, default=1500, help="training persons (default 1500)")
    parser.add_argument("--val-persons", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the table as Markdown")
    arguments = parser.parse_args()
    import torch

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            for variant in variants():
                row = measured(variant, size, arguments, Path(folder))
                rows.append((size, variant, row))
                print(f"{size} {variant.what}: {row['pck_0.2']:.2f}", file=sys.stderr)
    add_latencies(rows)
    about = (
        f"{arguments.persons} persons, {arguments.epochs} epochs, seed {arguments.seed}, {arguments.precision}; torch "
        f"{torch.__version__}, {platform.machine()}, {os.cpu_count()} cores; "
        f"ms: one crop, float32, one thread, rows interleaved, median of {LATENCY_RUNS}"
    )
    page = f"{about}\n\n{table_of(rows)}\n\n{verdict(rows)}\n"
    print(page)
    if arguments.output is not None:
        arguments.output.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

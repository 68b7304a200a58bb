"""What each ingredient of the bundled network's training is worth: short runs that leave one out, some seeds of each.

    python benchmarks/ingredients.py --data ../shared/data/lspet --output runs/ingredients       # hours on two cores
    python benchmarks/ingredients.py --data ... --output ... --only "everything" "no patches" --seeds 0 1 2
    python benchmarks/ingredients.py --data ... --output ... --teacher body17-small.fp32

Every run is of `body17-nano-128x128` from the beginning, with the same persons, steps and schedule; a row differs from
"everything" in what it names. PCK and AP are of the arms and legs of the human `val.json`, measured once, at the end.
A run is a process of one thread, `--jobs` at a time; runs that lie in `--output` are not made again, so more seeds or
rows may be added later, and a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sdk.recipe import Recipe, recipe_by_name, recipe_from_table
from sdk.resources import DEFAULT_ENGINE
from sdk.training.augment import Augmentation
from sdk.training.codecs import Smoothing
from sdk.training.files import LOG
from sdk.training.settings import Settings, Stage

MERGED, HUMAN, NETWORK = "coco17/train.merged.json", "train.json", "coco17/train.json"
FIGURES = ("pck_0.2", "pck_0.1", "ap")
SMALL = Stage(until=0.5, height=96, width=96)


@dataclass(frozen=True)
class Row:
    """A row of the table: what is left out, as changes of the settings, of their augmentation, of the head, or else."""

    name: str
    settings: dict[str, Any]
    augmentation: dict[str, float]
    head: dict[str, Any]
    labels: str = MERGED
    taught: bool = False


def rows(teacher: bool) -> Iterator[Row]:
    def row(name: str, settings: Any = None, augmentation: Any = None, head: Any = None, **others: Any) -> Row:
        return Row(name, settings or {}, augmentation or {}, head or {}, **others)

    yield row("everything")
    yield row("human labels alone", labels=HUMAN)
    yield row("the other network's labels alone", labels=NETWORK)
    yield row("the whole size from the beginning", {"stages": ()})
    yield row("no average of the weights", {"ema": 0.0})
    yield row("no rendered figures", {"figures": 0})
    yield row("nothing said of joints off the crop", {"absent": 0.0})
    yield row("no last epochs of geometry alone", {"plain_epochs": 0})
    yield row("no blur in the head", head={"blur_px": 0.0})
    yield row("whole persons alone", augmentation={"half_body": 0.0, "close_up": 0.0, "beside": 0.0, "cut_off": 0.0})
    yield row("no turning", augmentation={"rotate": 0.0, "turn": 0.0})
    yield row("no change of scale and place", augmentation={"scale": 0.0, "shift": 0.0})
    yield row("no patches", augmentation={"cut_out": 0.0})
    yield row("no change of colour", augmentation={"colour": 0.0, "grey": 0.0})
    yield row("no blur and no coarse pixels", augmentation={"blur": 0.0, "motion_blur": 0.0, "coarse": 0.0})
    if teacher:
        yield row("everything and a teacher", taught=True)


def settings_of(row: Row, epochs: int, seed: int) -> Settings:
    augmentation = Augmentation(
        turn=0.05, coarse=0.05, motion_blur=0.04, cut_out=0.3, half_body=0.06, close_up=0.02, beside=0.03, cut_off=0.08
    )
    everything = Settings(
        epochs=epochs,
        batch=64,
        ema=0.998,
        absent=0.3,
        smoothing=Smoothing("gaussian", 4.0),
        augmentation=replace(augmentation, **row.augmentation),
        plain_epochs=max(1, epochs // 10),
        figures=300,
        precision="bfloat16",
        workers=0,
        validate_every=epochs,
        stages=(SMALL,),
        seed=seed,
    )
    return replace(everything, **row.settings)


def recipe_of(row: Row) -> Recipe:
    table = recipe_by_name(Path(DEFAULT_ENGINE).stem).to_table()
    table["network"]["head"] |= row.head
    return recipe_from_table(table, "ingredients")


def train(row: Row, seed: int, arguments: argparse.Namespace) -> None:
    """One run, in this process."""
    from sdk.training.dataset import PersonDataset
    from sdk.training.label_files import LabelFile
    from sdk.training.teacher import Teacher
    from sdk.training.trainer import Trainer

    settings, recipe, data = settings_of(row, arguments.epochs, seed), recipe_of(row), arguments.data
    people = PersonDataset(
        [LabelFile(data / row.labels, data)], recipe, seed=seed, figures=settings.figures, limit=arguments.persons,
        partly=True,
    )  # fmt: skip
    val = PersonDataset([LabelFile(data / "val.json", data)], recipe, exact=True, partly=True)
    with (
        Teacher(arguments.teacher, recipe, temperature=settings.temperature) if row.taught else nullcontext() as teacher
    ):
        Trainer(recipe, settings, people, val, folder_of(row, seed, arguments), resume=True, teacher=teacher).fit()


def folder_of(row: Row, seed: int, arguments: argparse.Namespace) -> Path:
    """By all that runs of a row may differ in but the data: what lies there is what would be made."""
    told = [row.name.replace(" ", "-"), arguments.epochs, *([arguments.persons] if arguments.persons else []), seed]
    told += [Path(arguments.teacher).name] if row.taught else []
    folder: Path = arguments.output / "-".join(map(str, told))
    return folder


def measured(row: Row, seed: int, arguments: argparse.Namespace) -> dict[str, float] | None:
    """The figures of a run that has ended."""
    path = folder_of(row, seed, arguments) / LOG
    if not path.exists():
        return None
    last = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))[-1]
    ended = int(last["epoch"]) == arguments.epochs
    return {name: float(last[name]) for name in FIGURES} if ended else None


def run(row: Row, seed: int, arguments: argparse.Namespace) -> None:
    """One run in a process of its own, unless it lies there already."""
    if measured(row, seed, arguments) is None:
        words = [sys.executable, __file__, *sys.argv[1:], "--one", row.name, str(seed)]
        subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    print(f"{row.name}, seed {seed}: {measured(row, seed, arguments)}", file=sys.stderr, flush=True)


def table_of(chosen: Sequence[Row], arguments: argparse.Namespace) -> str:
    """Markdown: means over the seeds, the least and the most of PCK@0.2, and how far from the first row."""
    lines = ["| left out | seeds | PCK@0.2 | from, to | PCK@0.1 | AP | PCK@0.2 lost |", "| --- " * 7 + "|"]
    first: float | None = None
    for row in chosen:
        found = [figures for seed in arguments.seeds if (figures := measured(row, seed, arguments)) is not None]
        if not found:
            continue
        best, fine, ap = (mean(figures[name] for figures in found) for name in FIGURES)
        first = best if first is None else first
        low, high = (choose(figures["pck_0.2"] for figures in found) for choose in (min, max))
        told = f"{best:.2f} | {low:.2f}, {high:.2f} | {fine:.2f} | {ap:.2f} | {first - best:.2f}"
        lines.append(f"| {row.name} | {len(found)} | {told} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="lspet: val.json, coco17, the images")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--persons", type=int, metavar="N", help="the first N alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", metavar="ROW")
    parser.add_argument("--teacher", metavar="ENGINE", help="adds a row: everything, and this engine as a teacher")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    known = {row.name: row for row in rows(arguments.teacher is not None)}
    if arguments.one is not None:
        train(known[arguments.one[0]], int(arguments.one[1]), arguments)
        return
    unknown = sorted(set(arguments.only or ()) - set(known))
    if unknown:
        parser.error(f"no row '{unknown[0]}'; the rows: {', '.join(known)}")
    chosen = [row for row in known.values() if arguments.only is None or row.name in arguments.only]
    needed = sorted({"val.json", *(row.labels for row in chosen)})
    if missing := [name for name in needed if not (arguments.data / name).is_file()]:
        parser.error(f"--data '{arguments.data}' has no {', '.join(missing)}; give the folder that holds them")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        tasks = [pool.submit(run, row, seed, arguments) for seed in arguments.seeds for row in chosen]
        for task in tasks:
            task.result()
    print(table_of(chosen, arguments))


if __name__ == "__main__":
    main()

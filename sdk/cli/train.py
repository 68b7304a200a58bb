"""`sdk train`: train or fine-tune a recipe's network on COCO-format data, then write its graph.

sdk train body14-nano-128x128 --train train.json --val val.json --images photos --output runs/mine
torchrun --nproc-per-node 2 --no-python sdk train ...         # several GPUs, or CPU processes
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdk.cli._paths import refuse_overwriting
from sdk.cli._recipes import add_recipe_arguments, recipe_from
from sdk.errors import UsageError
from sdk.wording import counted

if TYPE_CHECKING:
    from sdk.recipe import Recipe
    from sdk.training.dataset import PersonDataset
    from sdk.training.settings import Settings
    from sdk.training.trainer import Trainer

__all__ = ["add_arguments", "run"]

OVERRIDES = {
    "epochs": (int, "passes over the training persons"),
    "batch": (int, "persons a step and process"),
    "learning-rate": (float, "peak of the schedule"),
    "workers": (int, "loader processes"),
    "seed": (int, "decides weights, order and augmentation"),
    "figures": (int, "rendered figures added to the training persons"),
    "validate-every": (int, "epochs between validations"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    add_recipe_arguments(parser)
    for name, help_text in (("train", "persons to learn from"), ("val", "persons to measure on")):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="JSON", help=f"COCO keypoints: {help_text}")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="what the file names are relative to")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the run's folder")
    parser.add_argument("--settings", type=Path, metavar="TOML", help="other settings than the defaults")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="fine-tune from these: .safetensors, or a released checkpoint"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output, exactly")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), help="of the forward pass")
    for name, (kind, help_text) in OVERRIDES.items():
        parser.add_argument(f"--{name}", type=kind, help=help_text)
    parser.add_argument("--json", action="store_true", help="the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Train, then write the best network's graph beside its weights."""
    from sdk.training.packages import GRAPH, TRAINING, check_packages
    from sdk.training.trainer import Trainer

    if arguments.recipe is None and arguments.recipe_file is None:
        raise UsageError("name a RECIPE of the catalogue to train, or give --recipe-file F")
    check_packages((*TRAINING, *GRAPH))
    _refuse_overwriting(arguments)
    recipe, settings = recipe_from(arguments), _settings(arguments)
    train, val = _datasets(arguments, recipe, settings)
    trainer = Trainer(
        recipe,
        settings,
        train,
        val,
        arguments.output,
        device=_device(arguments.device),
        resume=arguments.resume,
        weights=arguments.weights,
        progress=sys.stderr.isatty() and not arguments.quiet,
    )
    last = trainer.fit()
    if trainer.processes.first:
        _report(trainer, last, arguments)
    trainer.processes.leave()
    return 0


def _refuse_overwriting(arguments: argparse.Namespace) -> None:
    """UsageError where a file of the run would replace what it reads."""
    from sdk.training.files import RUN_FILES

    written = {f"--output ({name})": arguments.output / name for name in RUN_FILES}
    read = (arguments.train, arguments.val, arguments.settings, arguments.weights, arguments.recipe_file)
    refuse_overwriting(written, read)


def _settings(arguments: argparse.Namespace) -> Settings:
    from sdk.training.settings import Settings, settings_from_file

    settings = settings_from_file(arguments.settings) if arguments.settings else Settings()
    names = [*(name.replace("-", "_") for name in OVERRIDES), "precision"]
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return replace(settings, **given)


def _datasets(arguments: argparse.Namespace, recipe: Recipe, settings: Settings) -> tuple[PersonDataset, PersonDataset]:
    from sdk.training.dataset import PersonDataset

    train = PersonDataset(
        arguments.train,
        arguments.images,
        recipe,
        seed=settings.seed,
        cache_gib=settings.cache_gib,
        figures=settings.figures,
    )
    return train, PersonDataset(arguments.val, arguments.images, recipe, cache_gib=settings.cache_gib, exact=True)


def _device(asked: str) -> str:
    import logging

    import torch

    if asked != "auto":
        return asked
    chosen = "cuda" if torch.cuda.is_available() else "cpu"
    logging.getLogger(__name__).info("training on %s", chosen)
    return chosen


def _report(trainer: Trainer, last: dict[str, float], arguments: argparse.Namespace) -> None:
    from sdk.toolchain.export import graph_from_recipe, write_graph
    from sdk.training.files import CURVES, GRAPH, LOG, WEIGHTS

    output: Path = arguments.output
    graph, weights = output / GRAPH, output / WEIGHTS
    model, _ = graph_from_recipe(trainer.recipe, weights=weights)
    write_graph(model, graph)
    files = [str(path) for path in (weights, graph, output / LOG, output / CURVES)]
    if arguments.json:
        print(json.dumps({"epochs": trainer.epoch, "best_pck_0.2": trainer.best, "last": last, "files": files}))
        return
    print(f"best PCK@0.2 {trainer.best:.2f} in {counted(trainer.epoch, 'epoch')}; the last: AP {last['ap']:.2f}")
    print(*files, sep="\n")

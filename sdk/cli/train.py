"""`sdk train`: train or fine-tune a recipe's network on COCO-format data, then write its graph.

sdk train body17-nano-128x128 --train train.json --val val.json --images photos --output runs/mine
sdk train body17-nano-128x128 --train train.json --images photos --pack train.pack      # then --train train.pack
torchrun --nproc-per-node 2 --no-python sdk train ...         # several GPUs, or CPU processes
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractContextManager, nullcontext
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
    from sdk.training.label_files import LabelFile
    from sdk.training.settings import Settings
    from sdk.training.teacher import Teacher
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
OF_TRAINING = ("val", "output", "teacher", "settings", "weights", "resume", "device", "precision", *OVERRIDES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument(
        "--train", type=Path, required=True, action="append", metavar="FILE",
        help="persons to learn from: COCO keypoints, or a pack; once for each file, joints are matched by name",
    )  # fmt: skip
    parser.add_argument("--val", type=Path, metavar="JSON", help="COCO keypoints: persons to measure on")
    parser.add_argument(
        "--images", type=Path, action="append", default=[], metavar="DIR",
        help="what the file names are relative to: one for all, or one for each --train and then --val's",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="DIR", help="the run's folder")
    parser.add_argument(
        "--pack", type=Path, metavar="FILE", help="do not train: write the persons of --train into one file, .pack"
    )
    parser.add_argument(
        "--teacher", metavar="ENGINE", help="also learn from this engine of a SimCC network of the same joints"
    )
    parser.add_argument("--settings", type=Path, metavar="TOML", help="other settings than the defaults")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="fine-tune from these: .safetensors, or a released checkpoint"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output, exactly")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
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
    if arguments.pack is None and (arguments.val is None or arguments.output is None):
        raise UsageError("give --val JSON and --output DIR to train, or --pack FILE to pack the persons of --train")
    _check_pack(arguments)
    check_packages((*TRAINING, *GRAPH))
    _refuse_overwriting(arguments)
    recipe, settings = recipe_from(arguments), _settings(arguments)
    files = _label_files(arguments, settings)
    if arguments.pack is not None:
        return _pack(arguments, files, recipe)
    device = _device(arguments.device)
    with _teacher(arguments, recipe, settings) as teacher:  # before the pictures are read
        train, val = _datasets(files, arguments, recipe, settings)
        trainer = Trainer(
            recipe,
            settings,
            train,
            val,
            arguments.output,
            device=device,
            resume=arguments.resume,
            weights=arguments.weights,
            teacher=teacher,
            progress=_shows_progress(arguments),
        )
        last = trainer.fit()
    if trainer.processes.first:
        _report(trainer, last, arguments)
    trainer.processes.leave()
    return 0


def _check_pack(arguments: argparse.Namespace) -> None:
    """UsageError for an option of the training beside --pack, which trains nothing."""
    if arguments.pack is None:
        return
    for name in OF_TRAINING:
        if getattr(arguments, name.replace("-", "_")) not in (None, False, "auto"):
            raise UsageError(f"--{name} is of a training, and --pack does not train: leave it out")


def _refuse_overwriting(arguments: argparse.Namespace) -> None:
    """UsageError where a file of the run would replace what it reads."""
    from sdk.training.files import RUN_FILES

    written = {} if arguments.output is None else {f"--output ({name})": arguments.output / name for name in RUN_FILES}
    if arguments.pack is not None:
        written["--pack"] = arguments.pack
    read = (*arguments.train, arguments.val, arguments.settings, arguments.weights, arguments.recipe_file)
    refuse_overwriting(written, read)


def _settings(arguments: argparse.Namespace) -> Settings:
    from sdk.training.settings import Settings, settings_from_file

    settings = settings_from_file(arguments.settings) if arguments.settings else Settings()
    names = [*(name.replace("-", "_") for name in OVERRIDES), "precision"]
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return replace(settings, **given)


def _label_files(arguments: argparse.Namespace, settings: Settings) -> list[LabelFile]:
    """The files of --train, each with its pictures' folder and its weight; then, where there is one, --val's."""
    from sdk.training.label_files import LabelFile

    train, images = arguments.train, list(arguments.images)
    paths = [*train] if arguments.val is None else [*train, arguments.val]
    if len(images) not in {1, len(paths)} and not (not images and all(LabelFile(p, p).is_pack for p in paths)):
        raise UsageError(
            f"--images must be given once, or once for each of the {len(paths)} files of --train and --val, in their "
            f"order (got {len(images)})"
        )
    weights = settings.file_weights or (1.0,) * len(train)
    if len(weights) != len(train):
        raise UsageError(f"setting 'file_weights' must hold a number for each --train file (got {weights})")
    folders = images if len(images) == len(paths) else (images or [Path()]) * len(paths)
    return [LabelFile(*each) for each in zip(paths, folders, (*weights, 1.0), strict=False)]


def _pack(arguments: argparse.Namespace, files: list[LabelFile], recipe: Recipe) -> int:
    from sdk.training.label_files import annotations_of_files
    from sdk.training.pack import PACK_SUFFIX, write_pack

    if arguments.pack.suffix != PACK_SUFFIX:
        raise UsageError(f"--pack must end in {PACK_SUFFIX}, by which --train knows it (got '{arguments.pack}')")
    people = annotations_of_files(files[: len(arguments.train)], recipe.skeleton.joints, partly=True)
    count = write_pack(arguments.pack, people, recipe, progress=_shows_progress(arguments))
    size = arguments.pack.stat().st_size
    if arguments.json:
        print(json.dumps({"persons": count, "bytes": size, "file": str(arguments.pack)}))
    else:
        print(f"{arguments.pack}: {counted(count, 'person')}, {size / 2**20:.1f} MiB")
    return 0


def _datasets(
    files: list[LabelFile], arguments: argparse.Namespace, recipe: Recipe, settings: Settings
) -> tuple[PersonDataset, PersonDataset]:
    from sdk.training.dataset import PersonDataset

    train = PersonDataset(
        files[: len(arguments.train)],
        recipe,
        seed=settings.seed,
        cache_gib=settings.cache_gib,
        figures=settings.figures,
    )
    val = PersonDataset(files[-1:], recipe, cache_gib=settings.cache_gib, exact=True, partly=True)
    return train, val


def _teacher(
    arguments: argparse.Namespace, recipe: Recipe, settings: Settings
) -> Teacher | AbstractContextManager[None]:
    if arguments.teacher is None:
        return nullcontext()
    from sdk.training.teacher import Teacher

    return Teacher(arguments.teacher, recipe, temperature=settings.temperature, device=arguments.device)


def _shows_progress(arguments: argparse.Namespace) -> bool:
    return sys.stderr.isatty() and not arguments.quiet


def _device(asked: str) -> str:
    import logging

    import torch

    from sdk.training.parallel import check_device

    if asked != "auto":
        check_device(asked)
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

"""`sdk verify` as a function: an engine's accuracy on annotated pictures, as deployed, and against another engine.

    verification = verify(VerifyOptions(engine=Path("body.int8"), dataset=dataset_options, against=Path("body.fp32")))
    verification.scores[0].figures, verification.comparison.drop, verification.passed

The report of a verification is `sdk.evaluate.pages.report`'s work.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.cores import allowed_cores
from sdk.errors import DatasetError, InputError
from sdk.evaluate.datasets.dataset import Dataset, DatasetOptions, limited
from sdk.evaluate.datasets.loading import load_dataset
from sdk.evaluate.predictions.journal import Journal
from sdk.evaluate.predictions.predict import Runner, Timing, open_runners, predict
from sdk.evaluate.scores.comparison import SAMPLES, Comparison, compare
from sdk.evaluate.scores.reliability import Reliability
from sdk.evaluate.scores.scoring import Nms, Rules, Scores, scores_of
from sdk.evaluate.speed.machine import machine_facts, tell_if_busy
from sdk.evaluate.spread import SpreadRun, held
from sdk.files import real_path
from sdk.locks import held_folder
from sdk.manifest import Engine, sha256_of_file
from sdk.recipe import Recipe
from sdk.runtime.opening import engine_from
from sdk.runtime.pipeline import Refine

__all__ = ["Verification", "VerifyOptions", "verify"]

log = logging.getLogger(__name__)

JOURNAL_NAME = "predictions.journal"
SPREAD_PERSONS = 256  # on whom a calibrated spread is judged: 3 s of the bundled network
UNSCORED_SHARE = 5.0  # per cent of the persons, above which a report says that AP ranks them blindly


@dataclass(frozen=True)
class VerifyOptions:
    """One verification. `max_drop` is in points of the headline figure; `output` makes the run resumable."""

    engine: Path | str
    dataset: DatasetOptions
    device: str = "auto"
    flip_test: bool = False
    refine: Refine = "none"
    nms: Nms = "hard"
    against: Path | str | None = None
    against_device: str | None = None  # None: `device`
    max_drop: float = 0.5
    output: Path | None = None
    restart: bool = False
    threads: int | None = None
    workers: int | None = None
    samples: int = SAMPLES
    progress: bool = False

    def __post_init__(self) -> None:
        for name, value in (("threads", self.threads), ("workers", self.workers), ("samples", self.samples)):
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1 (got {value})")
        if not self.max_drop >= 0:
            raise InputError(f"max_drop must be 0 or more: it is how far the figure may fall (got {self.max_drop})")


@dataclass(frozen=True)
class Verification:
    """What was measured. Engines, devices and scores: the verified one first, then the one it is held against."""

    options: VerifyOptions
    engines: tuple[Engine, ...]
    devices: tuple[str, ...]
    dataset: Dataset
    persons: NDArray[np.float32]  # P x engines x K x 3
    scores: tuple[Scores, ...]
    comparison: Comparison | None
    timing: Timing
    scoring_seconds: float
    resumed: int = 0
    notes: tuple[str, ...] = field(default=())
    machine: Mapping[str, Any] = field(default_factory=machine_facts)  # as the run began
    reliability: Reliability | None = None  # of the engine's spread, where it is calibrated

    @property
    def recipe(self) -> Recipe:
        return self.engines[0].manifest.recipe

    @property
    def passed(self) -> bool:
        """Whether the figure fell by no more than `max_drop`; True where there is nothing to hold it against."""
        return self.comparison is None or bool(self.comparison.drop <= self.options.max_drop)


def verify(options: VerifyOptions) -> Verification:
    """Run the engine (and its reference) over the dataset and score it. DatasetError where nothing can be scored."""
    names = [options.engine] if options.against is None else [options.engine, options.against]
    engines = tuple(engine_from(name) for name in names)
    recipe = engines[0].manifest.recipe
    dataset = load_dataset(options.dataset, recipe)
    devices = [options.device, options.against_device or options.device][: len(engines)]
    machine = tell_if_busy(machine_facts())
    runners = open_runners(engines, devices, flip=options.flip_test, refine=options.refine, threads=options.threads)
    try:
        persons, timing, resumed = _predicted(options, engines, runners, dataset)
    finally:
        for runner in runners:
            runner.close()
    dataset, persons = _usable(dataset, persons)
    start = perf_counter()
    scores = tuple(
        scores_of(dataset, persons[:, n], Rules(e.manifest.recipe, options.nms)) for n, e in enumerate(engines)
    )
    comparison = None
    if options.against is not None:
        comparison = compare(
            dataset, persons[:, 0], persons[:, 1], scores[0], scores[1], recipe, samples=options.samples
        )
    return Verification(
        options,
        engines,
        tuple(runner.device for runner in runners),
        dataset,
        persons,
        scores,
        comparison,
        timing,
        perf_counter() - start,
        resumed,
        _notes(options, engines, persons),
        machine,
        _reliability(options, engines[0], dataset),
    )


def _reliability(options: VerifyOptions, engine: Engine, dataset: Dataset) -> Reliability | None:
    """How the engine's calibrated spread holds on some of the persons; None without one, or with too few labels."""
    if engine.manifest.spread is None:
        return None
    run = SpreadRun(options.device, SPREAD_PERSONS, threads=options.threads)
    try:
        return held(engine, dataset, run)
    except DatasetError as error:
        log.info("the spread is not held against labels: %s", error)
        return None


def _predicted(
    options: VerifyOptions, engines: tuple[Engine, ...], runners: list[Runner], dataset: Dataset
) -> tuple[NDArray[np.float32], Timing, int]:
    workers = options.workers or allowed_cores()
    shape = (len(engines), len(dataset.skeleton.joints), 3)
    folder = options.output
    with (
        nullcontext() if folder is None else held_folder(folder),
        Journal.open(
            None if folder is None else folder / JOURNAL_NAME,
            _run_key(options, engines, runners, dataset),
            shape,
            restart=options.restart,
        ) as journal,
    ):
        resumed = len(journal)
        if resumed:
            log.info("going on after %d of %d persons, from '%s'", resumed, len(dataset), folder)
        persons, timing, unusable = predict(dataset, runners, journal, workers=workers, progress=options.progress)
    lost = np.unique(dataset.picture[np.isnan(persons).all(axis=(1, 2, 3))])
    for position in lost.tolist():
        reason = unusable.get(position, "picture could not be used when the run began")
        dataset.problems.add(f"{reason}, left out of every figure", dataset.pictures[position].path.name)
    return persons, timing, resumed


def _run_key(
    options: VerifyOptions, engines: tuple[Engine, ...], runners: list[Runner], dataset: Dataset
) -> Mapping[str, Any]:
    """What must be the same for a journal to be gone on with."""
    chosen = options.dataset
    return {
        "annotations": sha256_of_file(chosen.annotations),
        "images": str(real_path(chosen.images)),
        "detections": None if chosen.detections is None else sha256_of_file(chosen.detections),
        "dataset": chosen.kind,
        "limit": chosen.limit,
        "boxes": dataset.convention,
        "persons": len(dataset),
        "pictures": len(dataset.pictures),
        "engines": [dict(sorted(engine.manifest.files.items())) for engine in engines],
        "recipes": [engine.manifest.recipe.to_table() for engine in engines],
        "devices": [runner.device for runner in runners],
        "flip_test": options.flip_test,
        "refine": options.refine,
    }


def _usable(dataset: Dataset, persons: NDArray[np.float32]) -> tuple[Dataset, NDArray[np.float32]]:
    """Without pictures that could not be read: their persons are NaN, and their truth must not count as missed."""
    lost = np.isnan(persons).all(axis=(1, 2, 3))
    if lost.all():
        reasons = "; ".join(dataset.problems.lines())
        raise DatasetError(f"no picture of '{dataset.pictures[0].path.parent}' could be used ({reasons})")
    keep = np.ones(len(dataset.pictures), bool)
    keep[dataset.picture[lost]] = False
    return limited(dataset, keep), persons[keep[dataset.picture]]


def _notes(options: VerifyOptions, engines: tuple[Engine, ...], persons: NDArray[np.float32]) -> tuple[str, ...]:
    recipe = engines[0].manifest.recipe
    notes = [
        f"engine '{engine.folder.name}' has random weights: its accuracy means nothing"
        for engine in engines
        if engine.manifest.weights.kind == "random"
    ]
    if recipe.published and recipe.protocol.flip_test and not options.flip_test:
        notes.append("the published figure was measured with the flip test, this one without (--flip-test)")
    for n, engine in enumerate(engines):
        threshold = engine.manifest.recipe.joint_threshold
        share = 100 * float((persons[:, n, :, 2] <= threshold).all(axis=1).mean())
        if share > UNSCORED_SHARE:
            notes.append(
                f"{share:.0f} % of the persons of '{engine.folder.name}' have no joint above its recipe's "
                f"joint_threshold {threshold:g}: they score 0 and AP cannot rank them; lower it in the recipe"
            )
    return tuple(notes)

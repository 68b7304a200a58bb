"""How a network is trained: every number of a run, strict like a recipe, kept beside the run's results.

`sdk train --settings FILE` reads them from TOML; what it leaves out has its default here.

    settings = settings_from_file(Path("mine.toml"))
    Settings(epochs=2, batch=32)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sdk.errors import TrainingError
from sdk.reading import toml_from_file
from sdk.strict import LARGEST, Count, strict_from_table
from sdk.training.augment import Augmentation
from sdk.training.codecs import Smoothing

__all__ = ["Settings", "Stage", "settings_from_file"]

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Stage:
    """Train at `height` x `width` until the part `until` (0..1) of the epochs; after the last: the recipe's size."""

    until: float
    height: Count
    width: Count


@dataclass(frozen=True)
class Settings:
    """A training run. `batch` is per process; `ema` is the average's decay a step.

    `accumulate`: batches whose gradients make one step. `file_weights`: how much the labels of each --train file count.
    `unsure`: how much wider a label is made the less it counts. `absent`: how much it counts that a joint known to lie
    off the crop is found nowhere on it. `distil`: a teacher's share of the loss.
    """

    epochs: int = 80
    batch: int = 64
    learning_rate: float = 2e-3
    final_rate: float = 0.01  # of learning_rate, at the end of the cosine
    weight_decay: float = 0.05
    warmup: float = 0.02  # of the run
    accumulate: int = 1
    clip_norm: float = 5.0
    ema: float = 0.998
    smoothing: Smoothing = field(default_factory=Smoothing)
    beta: float = 1.0
    soften_targets: bool = False
    unsure: float = 0.0
    absent: float = 0.0
    distil: float = 0.5
    temperature: float = 2.0
    file_weights: tuple[float, ...] = ()
    stages: tuple[Stage, ...] = ()
    augmentation: Augmentation = field(default_factory=Augmentation)
    plain_epochs: int = 8  # the last ones, with geometry alone
    figures: int = 0  # rendered figures added to the persons
    precision: Precision = "float32"
    workers: int = 1
    validate_every: int = 10
    cache_gib: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "accumulate", "validate_every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"setting '{name}' must be at least 1 (got {getattr(self, name)})")
        for name in ("learning_rate", "clip_norm", "beta", "temperature", "cache_gib"):
            if not 0 < getattr(self, name) < math.inf:
                raise TrainingError(f"setting '{name}' must be positive and finite (got {getattr(self, name)})")
        for name in ("weight_decay", "unsure", "absent", "workers", "seed", "plain_epochs", "figures"):
            if not 0 <= getattr(self, name) <= LARGEST:
                raise TrainingError(f"setting '{name}' must be from 0 to 2^63 - 1 (got {getattr(self, name)})")
        for name in ("final_rate", "warmup", "distil", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise TrainingError(f"setting '{name}' must be at least 0 and below 1 (got {getattr(self, name)})")
        if not all(0 < weight < math.inf for weight in self.file_weights):
            raise TrainingError(f"setting 'file_weights' must hold positive numbers (got {self.file_weights})")
        ends = [stage.until for stage in self.stages]
        if ends != sorted(set(ends)) or any(not 0 < end <= 1 for end in ends):
            raise TrainingError(f"stages: 'until' must rise within 0..1 (got {ends})")


def settings_from_file(path: Path) -> Settings:
    """Settings from a TOML file; TrainingError names the unknown key or the wrong type."""
    table = toml_from_file(path, "settings", TrainingError)
    return strict_from_table(Settings, table, where=path.name, error=TrainingError)

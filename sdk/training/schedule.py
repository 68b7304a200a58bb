"""When a run does what: its learning rate, the size of its crops and its augmentation, by step and epoch.

schedule = Schedule(settings, steps_an_epoch=118, size_hw=(128, 128))
schedule.rate(step), schedule.size_hw(epoch), schedule.augmentation(epoch)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from sdk.errors import TrainingError
from sdk.recipe import Recipe
from sdk.recipe_networks import HeatmapHead, MarginalHead
from sdk.training.augment import Augmentation
from sdk.training.settings import Settings

__all__ = ["Schedule", "check_stages"]

STRIDE = 32  # of every backbone that trains at several sizes


@dataclass(frozen=True)
class Schedule:
    """Of a run whose crops have `size_hw` after the last stage."""

    settings: Settings
    steps_an_epoch: int
    size_at_last_hw: tuple[int, int]

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.settings.epochs * self.steps_an_epoch

    def rate(self, step: int) -> float:
        """Warm-up, then cosine down to `final_rate`."""
        settings = self.settings
        part = step / max(1, self.steps)
        cosine = 0.5 * (1 + math.cos(math.pi * part)) * (1 - settings.final_rate) + settings.final_rate
        warm = max(1, int(settings.warmup * self.steps))
        return settings.learning_rate * min(1.0, (step + 1) / warm) * cosine

    def size_hw(self, epoch: int) -> tuple[int, int]:
        part = epoch / self.settings.epochs
        for stage in self.settings.stages:
            if part < stage.until:
                return stage.height, stage.width
        return self.size_at_last_hw

    def augmentation(self, epoch: int) -> Augmentation:
        """As set; in the last `plain_epochs` geometry alone."""
        chosen = self.settings.augmentation
        if epoch < self.settings.epochs - self.settings.plain_epochs:
            return chosen
        looks = dict.fromkeys(("colour", "grey", "blur", "motion_blur", "coarse", "cut_out"), 0.0)
        return replace(chosen, half_body=0.0, close_up=0.0, beside=0.0, cut_off=0.0, **looks)


def check_stages(recipe: Recipe, settings: Settings) -> None:
    """TrainingError for a stage whose size the recipe's network does not take."""
    head, whole = recipe.design.head, recipe.input.size_hw
    for stage in settings.stages:
        size = (stage.height, stage.width)
        if size == whole:
            continue
        if not isinstance(head, (HeatmapHead, MarginalHead)):
            raise TrainingError(
                f"stages: head '{head.kind}' of recipe '{recipe.name}' learns a weight for each place of the crop, so "
                f"every stage must have the recipe's size {whole[0]} x {whole[1]} (got {size[0]} x {size[1]}); leave "
                "the stages out"
            )
        if min(size) < STRIDE or size[0] % STRIDE or size[1] % STRIDE:
            raise TrainingError(
                f"stages: height and width must be multiples of {STRIDE} (got {size[0]} x {size[1]}); choose others"
            )

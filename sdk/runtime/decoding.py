"""What the decode of an engine is asked for beside x, y and the score: by its recipe a depth, on request a spread.

decoding = decoding_of(engine.manifest, spread=True)
decoding.columns.count                  # of the decoded joints, N x K x C
decoding.calibrated                     # whether the engine keeps a calibration of its spread
"""

from __future__ import annotations

from dataclasses import dataclass

from sdk.columns import Columns, Depth, Spread
from sdk.errors import InputError
from sdk.manifest import SpreadNote
from sdk.recipe import Recipe

__all__ = ["Decoding", "decoding_of", "stated_spread"]

MMPOSE_SHARPNESS = (
    10.0  # `beta` of the loss that RTMPose and its kin are trained with: logits times it are log-probabilities
)


@dataclass(frozen=True)
class Decoding:
    """Rules for `sdk.ops.decode`; None where a column is not asked for."""

    depth: Depth | None = None
    spread: Spread | None = None
    calibrated: bool = False

    @property
    def columns(self) -> Columns:
        asked = self.spread is not None
        return Columns(depth=self.depth is not None, spread=asked, second=asked)


def decoding_of(recipe: Recipe, note: SpreadNote | None = None, *, spread: bool = False) -> Decoding:
    """What a decode is asked for; with `spread`, the spread and a second peak. InputError for heatmaps.

    `note`: how the spread was calibrated, as an engine's manifest keeps it.
    """
    axis = recipe.output.depth
    depth = None if axis is None else Depth(axis.span, pixels=axis.unit == "px")
    if not spread:
        return Decoding(depth)
    if recipe.output.kind == "heatmap":
        raise InputError("spread must be left out for a heatmap engine: it is read from SimCC's distributions")
    if note is None:
        return Decoding(depth, stated_spread(recipe))
    return Decoding(depth, Spread(note.sharpness, note.gain, note.curve, note.floor), calibrated=True)


def stated_spread(recipe: Recipe) -> Spread:
    """The spread as a network of this recipe states it, held against no data."""
    return Spread(1.0 if recipe.output.score == "min_softmax" else MMPOSE_SHARPNESS)

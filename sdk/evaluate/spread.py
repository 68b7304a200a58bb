"""An engine's stated spread held against labelled persons: its calibration, and what share of joints it holds.

note = calibrated(engine, dataset, SpreadRun("cpu"), "train.json")      # for the manifest: `sdk calibrate --spread`
found = held(engine, dataset, SpreadRun("cpu"))                         # a Reliability: `sdk verify`
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.columns import Spread
from sdk.errors import DatasetError
from sdk.evaluate.datasets.dataset import Dataset, limited
from sdk.evaluate.predictions.predict import read_picture
from sdk.evaluate.scores.reliability import Reliability, fitted, reliability
from sdk.geometry import crop_affines
from sdk.manifest import Engine, SpreadNote
from sdk.runtime.decoding import decoding_of, stated_spread
from sdk.runtime.opening import open_session
from sdk.runtime.session import Session
from sdk.toolchain.crops import FEW_IMAGES
from sdk.wording import counted

__all__ = ["SpreadRun", "calibrated", "held"]

Float32Array = NDArray[np.float32]
Floats = NDArray[np.float64]
log = logging.getLogger(__name__)
STEPS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # times the sharpness that the network's loss states


@dataclass(frozen=True)
class SpreadRun:
    """Where the engine runs, how many persons at most, and by which draw of the pictures."""

    device: str = "auto"
    persons: int = 512
    seed: int = 0
    threads: int | None = None
    progress: bool = False


def calibrated(engine: Engine, dataset: Dataset, run: SpreadRun, data: str) -> SpreadNote:
    """The calibration of the engine's spread on labelled persons, those of the file `data`. Warns of few."""
    recipe = engine.manifest.recipe
    decoding_of(recipe, spread=True)  # refuses heatmaps
    stated = stated_spread(recipe).sharpness
    rules = [Spread(stated * step) for step in STEPS]
    drawn = _drawn(dataset, run)
    persons = int(np.count_nonzero(drawn.row >= 0))
    if persons < FEW_IMAGES:
        log.warning(
            "calibrating a spread with %s: fewer than %d miss rare poses; give more data or raise --images",
            counted(persons, "person"), FEW_IMAGES,
        )  # fmt: skip
    spreads, errors, scales = _coordinates(engine, drawn, run, rules)
    bins = (recipe.output.split_ratio or 1.0) / scales  # of a frame pixel
    variances = {rule.sharpness: (each * bins) ** 2 for rule, each in zip(rules, spreads, strict=True)}
    chosen = fitted(variances, errors * bins)
    raw = variances[chosen.sharpness]
    widths = np.sqrt(chosen.floor + raw * (chosen.gain + chosen.curve * raw))
    covered = float(np.mean(errors * bins <= widths))
    return SpreadNote(
        chosen.sharpness, chosen.gain, chosen.curve, chosen.floor, data, len(errors) // 2, round(covered, 4)
    )


def held(engine: Engine, dataset: Dataset, run: SpreadRun) -> Reliability:
    """What shares of labelled joints the engine's spread holds, as its manifest has it calibrated."""
    manifest = engine.manifest
    rule = decoding_of(manifest.recipe, manifest.spread, spread=True).spread
    assert rule is not None, "it was asked for"
    (spreads,), errors, _ = _coordinates(engine, _drawn(dataset, run), run, [rule])
    return reliability(spreads, errors)


def _coordinates(
    engine: Engine, drawn: Dataset, run: SpreadRun, rules: Sequence[Spread]
) -> tuple[list[Floats], Floats, Floats]:
    """Of each labelled coordinate M: its spread by each rule, its error, and the frame pixels of a crop pixel."""
    parts: list[tuple[Floats, Floats, Floats]] = []
    with open_session(engine, run.device, threads=run.threads) as session:
        for frame_persons, truth, scales in _decoded(session, drawn, rules, progress=run.progress):
            seen = (truth[..., 2] > 0) & np.isfinite(frame_persons[0][..., 3])
            errors = np.abs(frame_persons[0][..., :2].astype(np.float64) - truth[..., :2])[seen]  # m x 2
            spreads = np.stack([each[..., 3:5][seen] for each in frame_persons]).astype(np.float64)  # rules x m x 2
            parts.append((spreads.reshape(len(rules), -1), errors.reshape(-1), np.repeat(scales[seen], 2)))
    if not parts:
        raise DatasetError("a spread must be held against labelled persons in pictures that can be read (got none)")
    spreads, errors, scales = (np.concatenate(each, axis=-1) for each in zip(*parts, strict=True))
    return list(spreads), errors, scales


def _drawn(dataset: Dataset, run: SpreadRun) -> Dataset:
    """So many pictures that they hold the persons wanted, drawn by the seed."""
    order = np.random.default_rng(run.seed).permutation(len(dataset.pictures))
    persons = np.bincount(dataset.picture, minlength=len(dataset.pictures))[order]
    keep = np.zeros(len(dataset.pictures), bool)
    keep[order[: int(np.searchsorted(np.cumsum(persons), run.persons)) + 1]] = True
    return limited(dataset, keep)


def _decoded(
    session: Session, dataset: Dataset, rules: Sequence[Spread], *, progress: bool
) -> Iterator[tuple[list[Float32Array], Floats, Floats]]:
    """Batch by batch: joints N x K x 5 by each rule, the truth N x K x 3, and each joint's scale N x K."""
    from tqdm import tqdm

    from sdk import ops

    recipe = session.recipe
    source, output = recipe.input, recipe.output
    assert output.split_ratio is not None and output.score is not None, "heatmaps have no spread"
    colours: dict[str, Any] = {"mean": source.mean, "std": source.std, "channel_order": source.colour}
    for position, picture in enumerate(tqdm(dataset.pictures, unit="picture", disable=not progress)):
        persons = np.flatnonzero((dataset.picture == position) & (dataset.row >= 0))
        frame = read_picture(picture) if len(persons) else "no labelled person"
        for first in range(0, len(persons), session.max_batch):
            if isinstance(frame, str):
                break
            rows = persons[first : first + session.max_batch]
            affines = crop_affines(dataset.boxes_xyxy[rows].astype(np.float32), source.size_hw, source.box_padding)
            x, y = session.run(ops.crop(frame, affines, source.size_hw, **colours))[:2]
            options: dict[str, Any] = {"score": output.score}
            joints = [ops.decode(x, y, affines, output.split_ratio, spread=rule, **options) for rule in rules]
            truth = dataset.truth.keypoints[dataset.row[rows]].astype(np.float64)
            yield joints, truth, np.repeat(affines[:, 0, :1].astype(np.float64), recipe.joints, axis=1)

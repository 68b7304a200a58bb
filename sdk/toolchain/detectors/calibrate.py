"""Calibration of a detector: activation ranges of whole pictures, letterboxed by the run-time op.

table = calibrate_detector(model, PictureSet.below(Path("photos"), recipe), source="photos")
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from sdk.detector_recipe import DetectorRecipe
from sdk.errors import CalibrationError
from sdk.media.sources import Unreadable, pictures_below, read_image
from sdk.people.detector_forms import blob_of
from sdk.toolchain.calibrate import HELD_OUT_EVERY, observe, range_of, versions
from sdk.toolchain.crops import FEW_IMAGES
from sdk.toolchain.fingerprint import fingerprint_of
from sdk.toolchain.placement import PlacementOptions, placement_of
from sdk.toolchain.ranges import Method
from sdk.toolchain.table import TABLE_FORMAT, CalibrationTable, DataNote

__all__ = ["MOST", "PictureSet", "calibrate_detector"]

MOST = 512  # pictures

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """One, by its file."""

    image: Path


@dataclass(frozen=True)
class PictureBatch:
    """Pictures as the network takes them."""

    inputs: NDArray[np.float32]  # N x 3 x h x w
    people: tuple[Picture, ...]  # the pictures, under the name that `observe` knows


@dataclass(frozen=True)
class PictureSet:
    """Pictures drawn from a folder, and the recipe that they are letterboxed by."""

    pictures: tuple[Picture, ...]
    recipe: DetectorRecipe
    found: int
    seed: int = 0

    @classmethod
    def below(cls, folder: Path, recipe: DetectorRecipe, *, count: int = MOST, seed: int = 0) -> PictureSet:
        """`count` pictures of a folder at random without repetition, or all where there are fewer."""
        paths = pictures_below(folder)
        if not paths:
            raise CalibrationError(f"calibration data '{folder}' has no pictures; give a folder of photographs")
        order = np.random.default_rng(seed).permutation(len(paths))[:count]
        return cls(tuple(Picture(paths[i]) for i in order), recipe, len(paths), seed)

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def sha256(self) -> str:
        """Digest of which pictures, in which order, fed how."""
        digest = hashlib.sha256(f"{self.seed} {self.recipe.input}".encode())
        for picture in self.pictures:
            digest.update(f"{picture.image.name};".encode())
        return digest.hexdigest()

    def batches(self, size: int, start: int = 0) -> Iterator[PictureBatch]:
        """Batches of `size`, from picture `start` on. CalibrationError names one that cannot be read."""
        for first in range(start, len(self.pictures), size):
            part = self.pictures[first : first + size]
            yield PictureBatch(np.concatenate([self._blob(picture.image) for picture in part]), part)

    def _blob(self, path: Path) -> NDArray[np.float32]:
        frame = read_image(path)
        if isinstance(frame, Unreadable):
            raise CalibrationError(f"picture '{path}' cannot be read ({frame.reason}); remove it from the data")
        return blob_of(frame, self.recipe.input)


def calibrate_detector(
    model: onnx.ModelProto, pictures: PictureSet, source: str, method: Method = "auto"
) -> CalibrationTable:
    """The calibration table of a detector's float graph: 'auto' takes what errs least on held-out pictures, by tensor.

    Warns of few pictures; refuses NaN and dead tensors by name.
    """
    warnings: tuple[str, ...] = ()
    if len(pictures) < FEW_IMAGES:
        few = f"calibrating with {len(pictures)} pictures: fewer than {FEW_IMAGES} give ranges that miss rare scenes"
        log.warning("%s; give more", few)
        warnings = (few,)
    tensors = placement_of(model, PlacementOptions(quantise_all=True)).tensors
    seen = observe(model, pictures, tensors, batch=1)
    held_out = len(range(HELD_OUT_EVERY - 1, len(pictures), HELD_OUT_EVERY))
    return CalibrationTable(
        format=TABLE_FORMAT,
        recipe=pictures.recipe.name,
        graph=fingerprint_of(model),
        method=method,
        data=DataNote(source, pictures.found, len(pictures), held_out, pictures.seed, 0.0, pictures.sha256),
        tensors={name: range_of(name, observed, method) for name, observed in seen.items()},
        versions=versions(),
        warnings=warnings,
    )

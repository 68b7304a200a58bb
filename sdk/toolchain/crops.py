"""Real crops for calibration: persons of a COCO file or a folder of photographs, cut out by the run-time crop op.

No second pre-processor: `sdk.ops.crop` with the recipe's numbers, so ranges are those of the crops that come later.

    people = people_from_data(Path("train.json"), None, recipe)
    crops = CropSet.drawn(people, recipe, count=512, seed=0)
    for batch in crops.batches(16): batch.inputs, batch.affines            # N x 3 x h x w, N x 2 x 3
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk import ops
from sdk.errors import CalibrationError, InputError
from sdk.geometry import crop_affines
from sdk.recipe import Recipe

__all__ = ["CropBatch", "CropSet", "Person", "people_from_data", "synthetic_reason"]

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
FLAT_GREY_LEVELS = 2.0  # a crop whose grey levels vary less is a constant picture
NOISE_CORRELATION = 0.5  # of neighbouring pixels: photographs have 0.9 and more, noise 0

Float32Array = NDArray[np.float32]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Person:
    """A box in a picture; where it is annotated, K x 3 keypoints in frame pixels with visibility, and the area."""

    image: Path
    box_xyxy: tuple[float, float, float, float]
    keypoints: Float32Array | None = None
    area_px2: float | None = None


@dataclass(frozen=True)
class CropBatch:
    """Crops and what they were cut by."""

    inputs: Float32Array  # N x 3 x h x w, normalised
    affines: Float32Array  # N x 2 x 3, crop -> frame pixels
    people: tuple[Person, ...]


@dataclass(frozen=True)
class CropSet:
    """The persons drawn, in order, and the recipe that cuts them out. Iterating twice gives the same crops."""

    people: tuple[Person, ...]
    recipe: Recipe
    found: int  # usable persons they were drawn from
    seed: int
    jitter: float

    @classmethod
    def drawn(
        cls, people: Sequence[Person], recipe: Recipe, *, count: int, seed: int = 0, jitter: float = 0.0
    ) -> CropSet:
        """`count` persons at random without repetition, or all where there are fewer."""
        if count < 1 or not 0 <= jitter < 0.5:
            raise InputError(f"images must be at least 1 and jitter from 0 to below 0.5 (got {count}, {jitter})")
        order = np.random.default_rng(seed).permutation(len(people))[:count]
        return cls(tuple(people[i] for i in order), recipe, len(people), seed, jitter)

    def __len__(self) -> int:
        return len(self.people)

    @property
    def sha256(self) -> str:
        """Digest of which persons, in which order, jittered how."""
        digest = hashlib.sha256(f"{self.seed} {self.jitter} {self.recipe.input}".encode())
        for person in self.people:
            digest.update(f"{person.image.name} {person.box_xyxy};".encode())
        return digest.hexdigest()

    def some(self, indices: Iterable[int]) -> CropSet:
        """A set of only these persons, in this order."""
        return replace(self, people=tuple(self.people[i] for i in indices))

    def batches(self, size: int, start: int = 0) -> Iterator[CropBatch]:
        """Batches of `size` crops, from crop `start` on. CalibrationError names a picture that cannot be read."""
        for first in range(start, len(self.people), size):
            people = self.people[first : first + size]
            affines = crop_affines(self._boxes(first, people), self.recipe.input.size_hw, self.recipe.input.box_padding)
            crops = [self._crop(person, affine) for person, affine in zip(people, affines, strict=True)]
            yield CropBatch(np.concatenate(crops), affines, people)

    def _boxes(self, first: int, people: Sequence[Person]) -> Float32Array:  # N x 4 xyxy
        boxes = np.array([person.box_xyxy for person in people], np.float32)
        if self.jitter == 0.0:
            return boxes
        moves = [np.random.default_rng((self.seed, first + i)).uniform(-1, 1, 4) for i in range(len(people))]
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        return (boxes + sides * np.array(moves) * self.jitter).astype(np.float32)

    def _crop(self, person: Person, affine: Float32Array) -> Float32Array:  # 1 x 3 x h x w
        i = self.recipe.input
        frame = _frame(person.image)
        crop: Float32Array = ops.crop(
            frame, affine[None], i.size_hw, mean=i.mean, std=i.std, channel_order=i.colour, pixel_format="bgr"
        )
        return crop


def people_from_data(data: Path, boxes: Path | None, recipe: Recipe) -> list[Person]:
    """Usable persons of `data`: a COCO JSON (its boxes, or those of `boxes`), or a folder of photographs (`boxes`, or
    each whole picture). CalibrationError where none is usable, with what was wrong with them."""
    problems: dict[str, int] = {}
    if data.is_dir():
        people = _people_of_folder(data, boxes, problems)
    else:
        people = _people_of_coco(data, boxes, recipe, problems)
    told = ", ".join(f"{count} with {reason}" for reason, count in problems.items())
    if not people:
        raise CalibrationError(
            f"calibration data '{data}' has no usable person ({told or 'it names no picture'}); give a COCO keypoint "
            "JSON or a folder of photographs"
        )
    if told:
        log.warning("calibration data '%s': left out %s", data.name, told)
    return people


def synthetic_reason(inputs: Float32Array, recipe: Recipe) -> str | None:  # N x 3 x h x w
    """Why crops do not look like photographs, or None: constant, or without likeness between neighbouring pixels.

    Looks at the middle of each crop: at the border there may be no picture.
    """
    height, width = inputs.shape[2:]
    middle = inputs[:, :, height // 4 : -(height // 4), width // 4 : -(width // 4)]
    grey = middle * np.asarray(recipe.input.std, np.float32)[:, None, None]
    spread = grey.std(axis=(2, 3)).max(axis=1)
    flat = float((spread < FLAT_GREY_LEVELS).mean())
    if flat > 0.5:
        return f"{flat:.0%} of the crops are one colour"
    centred = grey - grey.mean(axis=(2, 3), keepdims=True)
    likeness = (centred[..., 1:] * centred[..., :-1]).mean() / max(float((centred**2).mean()), 1e-12)
    if likeness < NOISE_CORRELATION:
        return f"neighbouring pixels hardly resemble each other (correlation {likeness:.2f})"
    return None


def _people_of_folder(folder: Path, boxes: Path | None, problems: dict[str, int]) -> list[Person]:
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if boxes is not None:
        named = {path.name: path for path in images}
        document = _json(boxes, "box file")
        files = {image["id"]: named.get(Path(image["file_name"]).name) for image in _records(document, "images", boxes)}
        return list(_people(_records(document, "annotations", boxes), files, 0, problems))
    people = []
    for path in images:
        height, width = _frame(path).shape[:2]
        people.append(Person(path, (0.0, 0.0, float(width), float(height))))
    return people


def _people_of_coco(data: Path, boxes: Path | None, recipe: Recipe, problems: dict[str, int]) -> list[Person]:
    document = _json(data, "calibration data")
    folders = [data.parent, data.parent / "images", data.parent.parent / data.stem]
    files = {}
    for image in _records(document, "images", data):
        paths = (folder / str(image.get("file_name", "")) for folder in folders)
        files[image.get("id")] = next((path for path in paths if path.is_file()), None)
    if boxes is None:
        return list(_people(_records(document, "annotations", data), files, recipe.joints, problems))
    detections = _json(boxes, "box file")
    if not isinstance(detections, list):
        raise CalibrationError(f"box file '{boxes}' must be a list of COCO detections, as a detector's results are")
    return list(_people(detections, files, 0, problems))


def _people(
    records: Sequence[Mapping[str, Any]], files: Mapping[Any, Path | None], joints: int, problems: dict[str, int]
) -> Iterator[Person]:
    for record in records:
        path = files.get(record.get("image_id"))
        box = record.get("bbox")
        reason = "no picture" if path is None else _box_problem(box, record)
        if reason is not None or path is None:
            problems[str(reason)] = problems.get(str(reason), 0) + 1
            continue
        x, y, w, h = (float(value) for value in box)  # type: ignore[union-attr]
        points = np.asarray(record.get("keypoints", []), np.float32)
        truth = points.reshape(-1, 3) if joints and points.size == 3 * joints else None
        area = float(record.get("area", 0.53 * w * h)) if truth is not None else None
        yield Person(path, (x, y, x + w, y + h), truth, area)


def _box_problem(box: Any, record: Mapping[str, Any]) -> str | None:
    if record.get("iscrowd"):
        return "a crowd region"
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        return "no box"
    numbers = np.asarray(box, np.float64)
    return None if np.isfinite(numbers).all() and numbers[2:].min() > 0 else "a box without area"


def _frame(path: Path) -> NDArray[np.uint8]:  # H x W x 3, BGR
    import cv2

    frame = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if frame is None:
        raise CalibrationError(f"picture '{path}' cannot be read as an image; remove it from the calibration data")
    return np.asarray(frame, np.uint8)


def _json(path: Path, what: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CalibrationError(f"{what} '{path}' cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise CalibrationError(f"{what} '{path}' is not JSON ({error})") from error


def _records(document: Any, key: str, path: Path) -> list[Mapping[str, Any]]:
    records = document.get(key) if isinstance(document, dict) else None
    if not isinstance(records, list):
        raise CalibrationError(f"'{path}': key '{key}' must be a list, as in COCO's format")
    return records

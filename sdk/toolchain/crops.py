"""Real crops for calibration: persons of a COCO file or a folder of photographs, cut out by the run-time crop op.

No second pre-processor: `sdk.ops.crop` with the recipe's numbers, so ranges are those of the crops that come later.

    people = people_from_data(Path("train.json"), None, recipe)
    crops = CropSet.drawn(people, recipe, count=512, seed=0)
    for batch in crops.batches(16): batch.inputs, batch.affines            # N x 3 x h x w, N x 2 x 3
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdk import ops
from sdk.coco import (
    LOWEST_SCORE,
    PERSON,
    CocoRecord,
    image_names,
    person_categories,
    record_from,
    records_of,
    result_tables,
)
from sdk.coco_joints import CocoJoints
from sdk.coco_persons import check_units, of_pictures, persons_among
from sdk.errors import CalibrationError, InputError
from sdk.geometry import crop_affines
from sdk.media.sources import Unreadable, pictures_below, read_image, read_stored_image
from sdk.oks import areas_from_boxes
from sdk.reading import json_from_file
from sdk.recipe import Recipe

__all__ = ["FEW_IMAGES", "CropBatch", "CropSet", "Person", "people_from_data", "synthetic_reason"]

FEW_IMAGES = 500  # or persons: with fewer a calibration warns
FLAT_GREY_LEVELS = 2.0  # a crop whose grey levels vary less is a constant picture
NOISE_CORRELATION = 0.5  # of neighbouring pixels: photographs have 0.9 and more, noise 0

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Person:
    """A box in a picture; where it is annotated, K x 3 keypoints in frame pixels with visibility, and the area.

    A box is in the pixels that the file stores; a whole picture is `turned` as its EXIF says, to show persons upright.
    """

    image: Path
    box_xyxy: tuple[float, float, float, float]
    keypoints: Float32Array | None = None
    area_px2: float | None = None
    turned: bool = False


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
            affines = crop_affines(self._boxes(people), self.recipe.input.size_hw, self.recipe.input.box_padding)
            crops = [self._crop(person, affine) for person, affine in zip(people, affines, strict=True)]
            yield CropBatch(np.concatenate(crops), affines, people)

    def _boxes(self, people: Sequence[Person]) -> Float32Array:  # N x 4 xyxy
        boxes = np.array([person.box_xyxy for person in people], np.float32)
        if self.jitter == 0.0:
            return boxes
        moves = [_moves(self.seed, person) for person in people]
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        return (boxes + sides * np.array(moves) * self.jitter).astype(np.float32)

    def _crop(self, person: Person, affine: Float32Array) -> Float32Array:  # 1 x 3 x h x w
        i = self.recipe.input
        frame = _frame(person.image, turned=person.turned)
        crop: Float32Array = ops.crop(
            frame, affine[None], i.size_hw, mean=i.mean, std=i.std, channel_order=i.colour, pixel_format="bgr"
        )
        return crop


def people_from_data(data: Path, boxes: Path | None, recipe: Recipe, pictures: Path | None = None) -> list[Person]:
    """Usable persons of `data`: a COCO JSON (its boxes, or those of `boxes`), or a folder of photographs (`boxes`, or
    each whole picture). CalibrationError where none is usable, with what was wrong with them.

    `pictures`: the folder of a COCO JSON's pictures; None looks beside the file, in `images/` there, and in the folder
    above that is called as the file is.
    """
    problems: dict[str, int] = {}
    if data.is_dir():
        people = _people_of_folder(data, boxes, problems)
    else:
        folders = _picture_folders(data) if pictures is None else [pictures]
        people = _people_of_coco(data, boxes, recipe, folders, problems)
    told = ", ".join(f"{count} with {reason}" for reason, count in problems.items())
    if not people:
        raise CalibrationError(
            f"calibration data '{data}' has no usable person ({told or 'it names no picture'}); give a COCO keypoint "
            "JSON, with --pictures DIR where its pictures lie elsewhere, or a folder of photographs"
        )
    if told:
        log.warning("calibration data '%s': left out %s", data.name, told)
    check_units(f"calibration data '{data.name}'", CalibrationError, np.array([person.box_xyxy for person in people]))
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
    images = pictures_below(folder)
    if boxes is not None:
        document = json_from_file(boxes, "box file", CalibrationError)
        names = image_names(document, boxes, CalibrationError)
        files = {identity: _picture_called(name, folder, images) for identity, name in names.items()}
        records = records_of(document, boxes, CalibrationError)
        return list(_people(records, files, person_categories(document), None, f"'{folder}'", problems))
    people = []
    for path in images:
        height, width = _frame(path, turned=True).shape[:2]
        people.append(Person(path, (0.0, 0.0, float(width), float(height)), turned=True))
    return people


def _picture_called(name: str, folder: Path, images: Sequence[Path]) -> Path | None:
    """The picture at `name` in the folder, or the only one below it that has the name."""
    if (folder / name).is_file():
        return folder / name
    called = [path for path in images if path.name == Path(name).name]
    return called[0] if len(called) == 1 else None


def _picture_folders(annotations: Path) -> list[Path]:
    """Where the pictures of a COCO JSON are looked for."""
    return [annotations.parent, annotations.parent / "images", annotations.parent.parent / annotations.stem]


def _people_of_coco(
    data: Path, boxes: Path | None, recipe: Recipe, folders: Sequence[Path], problems: dict[str, int]
) -> list[Person]:
    document = json_from_file(data, "calibration data", CalibrationError)
    files, names = {}, image_names(document, data, CalibrationError)
    for identity, name in names.items():
        paths = (folder / name for folder in folders)
        files[identity] = next((path for path in paths if path.is_file()), None)
    persons, told = person_categories(document), " or ".join(f"'{folder}'" for folder in folders)
    if boxes is None:
        records = records_of(document, data, CalibrationError)
        return list(_people(records, files, persons, _joints_of(document, data, recipe), told, problems))
    detections = result_tables(json_from_file(boxes, "box file", CalibrationError), boxes, CalibrationError)
    found, remarks = of_pictures([record_from(table) for table in detections], names)
    for remark in remarks:
        log.warning("box file '%s': %s", boxes.name, remark)
    return list(_people(found, files, persons or {PERSON}, None, told, problems))


def _joints_of(document: object, data: Path, recipe: Recipe) -> CocoJoints | None:
    """The file's joints; None where they are others than the recipe's: boxes serve without them."""
    joints = CocoJoints.of_file(document, recipe.skeleton.joints)
    for remark in joints.remarks:
        log.warning("calibration data '%s': %s", data.name, remark)
    if joints.problem is None:
        return joints
    log.warning("calibration data '%s' %s; until then its boxes serve, not its joints", data.name, joints.problem)
    return None


def _people(
    records: Sequence[CocoRecord],
    files: Mapping[int, Path | None],
    persons: Collection[int],
    joints: CocoJoints | None,
    folders_told: str,
    problems: dict[str, int],
) -> Iterator[Person]:
    found, remarks = persons_among(records, persons)
    for remark in remarks:
        log.warning("calibration data: %s", remark)
    for record in filter(None, found):
        path = None if record.image_id is None else files.get(record.image_id)
        box, reason = record.box_xyxy, _box_problem(record)
        if path is None or box is None or reason is not None:
            reason = reason or (f"no picture in {folders_told}" if record.image_id in files else "no picture")
            problems[reason] = problems.get(reason, 0) + 1
            continue
        truth = None if joints is None else joints.of_record(record)
        area = float(areas_from_boxes(np.array(box))) if record.area_px2 is None else record.area_px2
        yield Person(path, box, truth, None if truth is None else area)


def _box_problem(record: CocoRecord) -> str | None:
    if record.crowd:
        return "a crowd region"
    if record.box_xywh is None:
        return "no box"
    if not record.has_area:
        return "a box without area"
    return f"a score below {LOWEST_SCORE}" if record.score is not None and record.score < LOWEST_SCORE else None


def _moves(seed: int, person: Person) -> Float64Array:  # 4
    """How far the sides of a person's box move, -1 to 1: decided by the person, whatever set it is in."""
    digest = hashlib.sha256(f"{person.image.name} {person.box_xyxy}".encode()).digest()
    return np.random.default_rng((seed, int.from_bytes(digest[:8], "big"))).uniform(-1, 1, 4)


def _frame(path: Path, *, turned: bool) -> NDArray[np.uint8]:  # H x W x 3, BGR
    frame = read_image(path) if turned else read_stored_image(path)
    if isinstance(frame, Unreadable):
        raise CalibrationError(f"picture '{path}' cannot be read ({frame.reason}); remove it from the calibration data")
    return frame

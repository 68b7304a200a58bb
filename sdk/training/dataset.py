"""COCO-format persons for training: read once, cut from their photographs, kept in memory, augmented on demand.

Any joint set: the categories' `keypoints` must hold every joint of the recipe's skeleton, by name (`sdk.coco_joints`).
Images that do not decode and persons without an annotated joint or a box are reported in the log and skipped. The
photograph's region about a person is kept (never resampled unless it is far larger than the crop), so that a training
crop is interpolated once, as the deployed one is.

    dataset = PersonDataset(Path("train.json"), Path("lspet"), recipe, seed=0)
    crop, keypoints = dataset.sample(person=3, epoch=0, augmentation=Augmentation())
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.coco import CocoRecord, image_from, image_names, person_categories, records_of, tables_of
from sdk.coco_joints import CocoJoints
from sdk.coco_persons import check_units, parted_problem, persons_among
from sdk.errors import DatasetError
from sdk.files import some_name
from sdk.in_flight import in_flight
from sdk.media.figures import rendered_figure
from sdk.media.sources import Unreadable, read_stored_image
from sdk.oks import areas_from_boxes
from sdk.reading import json_from_file
from sdk.recipe import Recipe
from sdk.skeletons import skeleton_by_name
from sdk.training.augment import Augmentation, PersonImage, augmented_crop
from sdk.wording import counted

__all__ = ["Annotation", "PersonDataset", "annotations_from_coco", "batch_loader", "epoch_batches"]

logger = logging.getLogger(__name__)
REACH = 1.25  # region kept about a box, in longer sides of the box either way: enough for scale, shift and rotation
NAMED = 5  # pictures that cannot be read and are told one by one
SHRINK_ABOVE = 1.25  # a box longer than this many crop sides is shrunk when it is read


@dataclass(frozen=True)
class Annotation:
    """One usable person of a COCO file."""

    identity: int | None
    image_id: int
    path: Path
    keypoints: NDArray[np.float32]  # K x 3, image pixels, in the skeleton's order
    box_xyxy: NDArray[np.float32]  # 4
    area_px: float


def annotations_from_coco(path: Path, images: Path, joints: tuple[str, ...]) -> list[Annotation]:
    """The usable persons of a COCO keypoint file; unusable ones are counted in the log by reason."""
    document = json_from_file(path, "annotation file", DatasetError)
    files, tables = image_names(document, path, DatasetError), tables_of(document, "images", path, DatasetError)
    records = records_of(document, "annotations", path, DatasetError)
    tables_of(document, "categories", path, DatasetError)  # must be there
    order = CocoJoints.of_file(document, joints)
    if order.problem is not None:
        raise DatasetError(f"{path.name}: {order.problem}")
    for remark in order.remarks:
        logger.warning("%s: %s", path.name, remark)
    parted = parted_problem(document, records)
    if parted is not None:
        raise DatasetError(f"{path.name}: {parted}")
    found, remarks = persons_among(records, person_categories(document))
    for remark in remarks:
        logger.warning("%s: %s", path.name, remark)
    skipped: dict[str, int] = {}
    usable = []
    for record, person in zip(records, found, strict=True):
        reason, annotation = _annotation(person or record, files, images, order)
        if annotation is None:
            skipped[reason] = skipped.get(reason, 0) + 1
        else:
            usable.append(annotation)
    for reason, count in sorted(skipped.items()):
        logger.warning("%s: skipped %d of %d persons: %s", path.name, count, len(records), reason)
    if not usable:
        raise DatasetError(f"'{path}' holds no usable person (skipped: {skipped or 'the file lists none'})")
    sizes = {image.identity: image.size_wh for image in map(image_from, tables) if image is not None}
    check_units(
        path.name,
        DatasetError,
        np.array([person.box_xyxy for person in usable]),
        np.array([sizes.get(person.image_id) or (np.inf, np.inf) for person in usable], np.float64),
        np.array([person.keypoints for person in usable]),
    )
    return usable


class PersonDataset:
    """Persons in memory up to `cache_gib`, the rest read from their file each time; then `figures` rendered ones.

    `limit`: only the first persons of the file. `exact`: never shrink, so that a crop is the deployed one to the pixel.
    """

    def __init__(
        self,
        path: Path,
        images: Path,
        recipe: Recipe,
        *,
        seed: int = 0,
        cache_gib: float = 4.0,
        figures: int = 0,
        limit: int | None = None,
        exact: bool = False,
    ) -> None:
        self.annotations = annotations_from_coco(path, images, recipe.skeleton.joints)[:limit]
        self.recipe = recipe
        self.seed = seed
        self._images = images
        self._shrink_above = math.inf if exact else SHRINK_ABOVE * max(recipe.input.size_hw)
        self._cache: dict[int, PersonImage] = {}
        self._fill(cache_gib * 2**30)
        self._figures = [_rendered_person(recipe, seed, index) for index in range(figures)]

    def __len__(self) -> int:
        return len(self.annotations) + len(self._figures)

    def person(self, index: int) -> PersonImage:
        """PersonImage `index`, cut from its photograph."""
        if index >= len(self.annotations):
            return self._figures[index - len(self.annotations)]
        if index in self._cache:
            return self._cache[index]
        person = _person_from_file(self.annotations[index], self._shrink_above)
        if isinstance(person, Unreadable):
            path = self.annotations[index].path
            raise DatasetError(f"image '{path}' can no longer be read ({person.reason}); it could when training began")
        return person

    def sample(
        self, index: int, epoch: int, augmentation: Augmentation, size_hw: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Crop and keypoints of person `index` in `epoch`: they depend on (seed, epoch, index) alone."""
        return augmented_crop(
            self.person(index),
            size_hw or self.recipe.input.size_hw,
            self.recipe.input.box_padding,
            self.recipe.skeleton,
            augmentation,
            np.random.default_rng((self.seed, epoch, index)),
        )

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The order of `epoch`: a permutation that depends on (seed, epoch) alone."""
        return np.random.default_rng((self.seed, epoch)).permutation(len(self))

    def _fill(self, budget_bytes: float) -> None:
        """Read every photograph once: broken ones are dropped, the first ones are kept up to the budget."""
        kept: list[Annotation] = []
        lost: dict[str, None] = {}  # each picture once, although several persons may be on it
        used = 0
        for annotation in self.annotations:
            person = _person_from_file(annotation, self._shrink_above)
            if isinstance(person, Unreadable):
                lost[f"image '{annotation.path}' cannot be read ({person.reason})"] = None
                continue
            used += person.image.nbytes
            if used <= budget_bytes:
                self._cache[len(kept)] = person
            kept.append(annotation)
        _tell_lost(list(lost), len(self.annotations) - len(kept))
        if not kept:
            raise DatasetError(
                f"no image of the data set could be read ({next(iter(lost))}); give the folder that its file names "
                f"start from (in '{self._images}': {some_name(self._images)})"
            )
        if len(self._cache) < len(kept):
            logger.info("%d of %d persons fit into the cache", len(self._cache), len(kept))
        self.annotations = kept


def _tell_lost(reasons: list[str], persons: int) -> None:
    """Name the first pictures that cannot be read, and count the others."""
    for reason in reasons[:NAMED]:
        logger.warning("%s; skipped", reason)
    if len(reasons) > NAMED:
        more = counted(len(reasons) - NAMED, "more image")
        logger.warning("and %s like these; %s skipped in all", more, counted(persons, "person"))


def _rendered_person(recipe: Recipe, seed: int, index: int) -> PersonImage:
    """Rendered figure `index` as a person; its box is the joints' extent and 15 % a side, as in the photographs."""
    drawn = skeleton_by_name("crowdpose14").joints
    missing = set(recipe.skeleton.joints) - set(drawn)
    if missing:
        raise DatasetError(f"rendered figures have no joint '{min(missing)}'; set figures = 0 for this recipe")
    order = [drawn.index(name) for name in recipe.skeleton.joints]
    side = round(1.6 * max(recipe.input.size_hw))
    frame, joints = rendered_figure(np.random.default_rng((seed, index)), (side, side))
    keypoints = np.column_stack([joints[order], np.full(len(order), 2, np.float32)])
    low, high = joints.min(axis=0), joints.max(axis=0)
    margin = 0.15 * (high - low)
    return PersonImage(frame, keypoints, np.concatenate([low - margin, high + margin]))


def _annotation(
    record: CocoRecord, files: Mapping[int, str], images: Path, joints: CocoJoints
) -> tuple[str, Annotation | None]:
    """The usable person of a record, or the reason why there is none."""
    keypoints = joints.of_record(record)
    if not joints.knows(record) or record.image_id is None or record.image_id not in files:
        return "unknown category or image", None
    if record.crowd:
        return "crowd region", None
    if keypoints is None:
        return joints.why_none(record, "malformed keypoints"), None
    if record.box_xyxy is None or not record.has_area:
        return "no box", None
    corners = np.asarray(record.box_xyxy, np.float32)
    area = float(areas_from_boxes(corners)) if record.area_px2 is None else record.area_px2
    path = images / files[record.image_id]
    person = Annotation(record.identity, record.image_id, path, keypoints, corners, area)
    return ("", person) if (keypoints[:, 2] > 0).any() else ("no annotated joint", None)


def _person_from_file(annotation: Annotation, shrink_above_px: float) -> PersonImage | Unreadable:
    """The person's region of the photograph, or why there is none."""
    import cv2

    image = read_stored_image(annotation.path)
    if isinstance(image, Unreadable):
        return image
    box, keypoints = annotation.box_xyxy.copy(), annotation.keypoints.copy()
    side = float((box[2:] - box[:2]).max())
    centre = (box[:2] + box[2:]) / 2
    low = np.clip(np.floor(centre - REACH * side), 0, None).astype(int)
    high = np.ceil(centre + REACH * side).astype(int)
    image = image[low[1] : max(high[1], low[1] + 1), low[0] : max(high[0], low[0] + 1)]
    if image.size == 0:
        return Unreadable(f"the box of annotation {annotation.identity} lies outside it")
    box -= np.tile(low, 2)
    keypoints[:, :2] -= low
    factor = shrink_above_px / side
    if factor < 1:
        image = np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)
        box = (box + 0.5) * factor - 0.5
        keypoints[:, :2] = (keypoints[:, :2] + 0.5) * factor - 0.5
    return PersonImage(np.ascontiguousarray(image), keypoints, box.astype(np.float32))


class _Epoch:
    """One epoch's samples, by index; what loader workers see."""

    def __init__(
        self, dataset: PersonDataset, epoch: int, augmentation: Augmentation, size_hw: tuple[int, int] | None
    ) -> None:
        self.dataset, self.epoch, self.augmentation, self.size_hw = dataset, epoch, augmentation, size_hw

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        import cv2

        cv2.setNumThreads(0)  # one sample is too small to share among threads; workers share the cores
        return self.dataset.sample(index, self.epoch, self.augmentation, self.size_hw)


def batch_loader(
    dataset: PersonDataset,
    batches: Sequence[Sequence[int]],
    epoch: int,
    augmentation: Augmentation,
    workers: int,
    size_hw: tuple[int, int] | None = None,
) -> Iterator[tuple[Any, Any]]:
    """What a torch loader gives: (crops uint8 N x h x w x 3 BGR, keypoints N x K x 3), in the order of `batches`."""
    from torch.utils.data import DataLoader

    view = _Epoch(dataset, epoch, augmentation, size_hw)
    return _counted(DataLoader(view, batch_sampler=batches, num_workers=workers))  # type: ignore


def _counted(loader: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """The batches, each of whose making is a call in flight."""
    batches = iter(loader)
    while True:
        with in_flight:
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def epoch_batches(order: NDArray[np.int64], size: int, rank: int, world: int) -> list[list[int]]:
    """Full batches of `order`; each of `world` processes takes its own slice of every batch."""
    starts = range(0, len(order) - size * world + 1, size * world)
    return [order[start + rank * size : start + (rank + 1) * size].tolist() for start in starts]

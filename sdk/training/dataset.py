"""Persons for training: read once, kept in memory, drawn and cut on demand. Labels are `sdk.training.labels`' matter.

Pictures that do not decode are reported in the log and skipped. A sample depends on (seed, epoch, person) alone.

    dataset = PersonDataset((LabelFile(Path("train.json"), Path("lspet")),), recipe, seed=0)
    sample = dataset.sample(index=3, epoch=0, augmentation=Augmentation())
    for batch in batch_loader(dataset, epoch_batches(dataset.order(0), 64, 0, 1), 0, Augmentation(), workers=1): ...
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdk import ops
from sdk.errors import DatasetError
from sdk.files import some_name
from sdk.in_flight import in_flight
from sdk.media.sources import Unreadable
from sdk.recipe import Recipe
from sdk.training.augment import Augmentation, drawn_sample
from sdk.training.label_files import LabelFile, annotations_of_files
from sdk.training.labels import Annotation
from sdk.training.persons import SHRINK_ABOVE, PersonImage, person_from_picture, rendered_person
from sdk.training.pictures import StoredPicture
from sdk.training.views import View
from sdk.wording import counted

__all__ = ["Batch", "PersonDataset", "batch_loader", "epoch_batches", "raw_crop"]

logger = logging.getLogger(__name__)
NAMED = 5  # pictures that cannot be read and are told one by one

Float32Array = NDArray[np.float32]


class Batch(NamedTuple):
    """N samples. Crops are grey levels, BGR; empty where a device keeps the pictures itself.

    Arrays, not tensors: these let go of the interpreter when they are freed, wherever that is, and a daemon thread that
    frees one while the program ends aborts the process (torch 2.13).
    """

    crops: Float32Array  # N x 3 x h x w
    keypoints: Float32Array  # N x K x 3, crop pixels, visibility
    weights: Float32Array  # N x K
    looks: Float32Array  # N x F, of sdk.training.looks
    views: Float32Array  # N x 3 x h x w of the teacher's size, or empty
    rows: NDArray[np.int64]  # N, which persons
    affines: Float32Array  # N x 2 x 3, crop -> picture pixels


@dataclass(frozen=True)
class _Cut:
    """What is cut of each person: in `size_hw`, and what a teacher sees; nothing where a device cuts."""

    size_hw: tuple[int, int]
    view: View | None = None
    here: bool = True


class PersonDataset:
    """Persons in memory up to `cache_gib`, the rest read from their file each time; then `figures` rendered ones.

    `limit`: only the first persons. `exact`: never shrink, so that a crop is the deployed one to the pixel. `partly`:
    joints of the recipe that no file annotates are left out of it, as for validation on another joint set.
    """

    def __init__(
        self,
        files: Sequence[LabelFile],
        recipe: Recipe,
        *,
        seed: int = 0,
        cache_gib: float = 4.0,
        figures: int = 0,
        limit: int | None = None,
        exact: bool = False,
        partly: bool = False,
    ) -> None:
        self.annotations = annotations_of_files(tuple(files), recipe.skeleton.joints, partly=partly)[:limit]
        self.recipe = recipe
        self.seed = seed
        self._shrink_above = math.inf if exact else SHRINK_ABOVE * max(recipe.input.size_hw)
        self._cache: dict[int, PersonImage] = {}
        self._fill(cache_gib * 2**30)
        self._figures = [rendered_person(recipe, seed, index) for index in range(figures)]

    def __len__(self) -> int:
        return len(self.annotations) + len(self._figures)

    @property
    def all_in_memory(self) -> bool:
        return len(self._cache) == len(self.annotations)

    def person(self, index: int) -> PersonImage:
        """PersonImage `index`, cut from its picture."""
        if index >= len(self.annotations):
            return self._figures[index - len(self.annotations)]
        if index in self._cache:
            return self._cache[index]
        person = person_from_picture(self.annotations[index], self._shrink_above)
        if isinstance(person, Unreadable):
            told = self.annotations[index].picture
            raise DatasetError(f"{told} can no longer be read ({person.reason}); it could when training began")
        return person

    def sample(
        self, index: int, epoch: int, augmentation: Augmentation, cut: _Cut | None = None
    ) -> tuple[Float32Array, Float32Array, Float32Array, Float32Array, Float32Array, int, Float32Array]:
        """What of person `index` enters a `Batch` in `epoch`: it depends on (seed, epoch, index) alone."""
        person, source = self.person(index), self.recipe.input
        cut = cut or _Cut(source.size_hw)
        rng = np.random.default_rng((self.seed, epoch, index))
        drawn = drawn_sample(person, cut.size_hw, source.box_padding, self.recipe.skeleton, augmentation, rng)
        crop = view = np.empty(0, np.float32)
        if cut.here:
            crop = raw_crop(person.image, drawn.affine, cut.size_hw)
            if cut.view is not None:
                view = raw_crop(person.image, cut.view.affines(drawn.affine, cut.size_hw), cut.view.size_hw)
        return crop, drawn.keypoints, drawn.weights, drawn.look, view, index, drawn.affine

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The order of `epoch`: a permutation that depends on (seed, epoch) alone."""
        return np.random.default_rng((self.seed, epoch)).permutation(len(self))

    def _fill(self, budget_bytes: float) -> None:
        """Read every person once: broken ones are dropped, the first ones are kept up to the budget."""
        kept: list[Annotation] = []
        lost: dict[str, None] = {}  # each picture once, although several persons may be on it
        used = 0
        for annotation in self.annotations:
            person = person_from_picture(annotation, self._shrink_above)
            if isinstance(person, Unreadable):
                lost[f"{annotation.picture} cannot be read ({person.reason})"] = None
                continue
            used += person.image.nbytes
            if used <= budget_bytes:
                self._cache[len(kept)] = person
            kept.append(annotation)
        _tell_lost(list(lost), len(self.annotations) - len(kept))
        if not kept:
            raise DatasetError(_none_read(self.annotations[0], next(iter(lost))))
        if len(self._cache) < len(kept):
            logger.info("%d of %d persons fit into the cache", len(self._cache), len(kept))
        self.annotations = kept


def raw_crop(picture: NDArray[np.uint8], affine: Float32Array, size_hw: tuple[int, int]) -> Float32Array:
    """3 x h x w grey levels, BGR, of the deployed crop op. `affine`: crop -> picture pixels."""
    crop: Float32Array = ops.crop(picture, affine[None], size_hw, mean=(0, 0, 0), std=(1, 1, 1), channel_order="bgr")[0]
    return crop


def _none_read(first: Annotation, reason: str) -> str:
    told = f"no image of the data set could be read ({reason})"
    if not isinstance(first.picture, StoredPicture):
        return f"{told}; make the pack anew"
    folder = first.picture.root
    return f"{told}; give the folder that its file names start from (in '{folder}': {some_name(folder)})"


def _tell_lost(reasons: list[str], persons: int) -> None:
    """Name the first pictures that cannot be read, and count the others."""
    for reason in reasons[:NAMED]:
        logger.warning("%s; skipped", reason)
    if len(reasons) > NAMED:
        more = counted(len(reasons) - NAMED, "more image")
        logger.warning("and %s like these; %s skipped in all", more, counted(persons, "person"))


class _Epoch:
    """One epoch's samples, by index; what loader workers see."""

    def __init__(self, dataset: PersonDataset, epoch: int, augmentation: Augmentation, cut: _Cut) -> None:
        self.dataset, self.epoch, self.augmentation, self.cut = dataset, epoch, augmentation, cut

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self.dataset.sample(index, self.epoch, self.augmentation, self.cut)


def batch_loader(
    dataset: PersonDataset,
    batches: Sequence[Sequence[int]],
    epoch: int,
    augmentation: Augmentation,
    workers: int,
    *,
    size_hw: tuple[int, int] | None = None,
    view: View | None = None,
    here: bool = True,
) -> Iterator[Batch]:
    """The samples in the order of `batches`. `view`: what a teacher sees of each; not `here`: a device cuts them."""
    from torch.utils.data import DataLoader

    cut = _Cut(size_hw or dataset.recipe.input.size_hw, view, here)
    epochs = _Epoch(dataset, epoch, augmentation, cut)
    return _counted(DataLoader(epochs, batch_sampler=batches, num_workers=workers, collate_fn=_stacked))  # type: ignore


def _stacked(samples: Sequence[tuple[Any, ...]]) -> Batch:
    return Batch(*(np.stack(column) for column in zip(*samples, strict=True)))


def _counted(loader: Iterable[Batch]) -> Iterator[Batch]:
    """The batches, each of whose making is a call in flight."""
    with in_flight:
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

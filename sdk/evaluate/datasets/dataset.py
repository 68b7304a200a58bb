"""Annotated pictures for verification, checked when they are read: what is to be cropped, and what is true.

Nothing here opens a picture or runs an engine. A record that cannot be used is left out and counted under a word of
`problems`, so that a report can say what a figure rests on; what would make every figure wrong is refused.

    dataset = load_dataset(DatasetOptions("coco", annotations, images, detections), recipe)
    dataset.boxes_xyxy, dataset.truth.keypoints, dataset.problems["zero-area box"]

Kinds, of COCO keypoint JSON: `coco` and `crowdpose` (OKS AP), `ap10k` (the mean AP of its kinds), `lsp` and `custom`
(PCK and OKS AP). Of that or of COCO-WholeBody's JSON: `wholebody` (OKS AP of every part), `hand` (PCK and AUC) and
`face` (NME). `mpii`: the list of records of HRNet's and mmpose's `mpii_val.json` (PCKh).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sdk.evaluate.datasets.boxes import Convention, convention_of
from sdk.recipe import Recipe
from sdk.skeletons import Skeleton

__all__ = [
    "DATASET_KINDS",
    "Dataset",
    "DatasetKind",
    "DatasetOptions",
    "Picture",
    "Problems",
    "Truth",
    "limited",
]

DatasetKind = Literal["coco", "crowdpose", "mpii", "wholebody", "hand", "face", "ap10k", "lsp", "custom"]
DATASET_KINDS: tuple[str, ...] = get_args(DatasetKind)

EXAMPLES_KEPT = 5


@dataclass(frozen=True)
class DatasetOptions:
    """Where a dataset lies. `head_boxes` is MPII's `gt_valid.mat`; `limit` keeps the first pictures.

    `convention` says how annotated boxes are cropped; None takes that of the code that published the network.
    `partly`: the file may lack joints of the network, and every figure is of those that it has.
    """

    kind: DatasetKind
    annotations: Path
    images: Path
    detections: Path | None = None
    head_boxes: Path | None = None
    limit: int | None = None
    convention: Convention | None = None
    partly: bool = False

    def convention_for(self, recipe: Recipe) -> Convention:
        """How annotated boxes are cropped for an engine of `recipe`."""
        return self.convention or convention_of(recipe)


@dataclass(frozen=True)
class Picture:
    """A picture of the dataset. Without an annotated size, any size is taken."""

    id: int
    path: Path
    size_wh: tuple[int, int] | None = None
    crowd_index: float | None = None


@dataclass
class Problems:
    """Records left out, counted by reason, with the first few named."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, subject: object) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1
        named = self.examples.setdefault(reason, [])
        if len(named) < EXAMPLES_KEPT:
            named.append(str(subject))

    def lines(self) -> list[str]:
        """One line a reason: 'zero-area box: 3 (annotation 12, annotation 40, annotation 51)'."""
        return [f"{reason}: {count} ({self._named(reason)})" for reason, count in self.counts.items()]

    def _named(self, reason: str) -> str:
        named = self.examples[reason]
        return ", ".join([*named, "…"] if self.counts[reason] > len(named) else named)


@dataclass(frozen=True)
class Truth:
    """Annotated persons, row by row: all that a metric must know of, cropped or not."""

    picture: NDArray[np.intp]  # A, position in pictures
    keypoints: NDArray[np.float32]  # A x K x 3, frame pixels and visibility
    boxes_xyxy: NDArray[np.float64]  # A x 4, as annotated
    areas_px2: NDArray[np.float64]  # A
    crowd: NDArray[np.bool_]  # A
    names: tuple[str, ...]  # A, for reports
    head_px: NDArray[np.float64] | None = None  # A, MPII
    category: NDArray[np.int64] | None = None  # A, where there are several kinds


@dataclass(frozen=True)
class Dataset:
    """Persons to crop, in order of pictures, and the truth. `row`: a person's row of the truth, -1 for a detection."""

    kind: DatasetKind
    skeleton: Skeleton
    pictures: tuple[Picture, ...]
    truth: Truth
    picture: NDArray[np.intp]  # P, position in pictures, never falling
    boxes_xyxy: NDArray[np.float64]  # P x 4
    box_scores: NDArray[np.float64]  # P
    row: NDArray[np.intp]  # P
    boxes: Literal["annotated", "detected"]
    convention: Convention
    problems: Problems
    notes: tuple[str, ...] = ()
    category: NDArray[np.int64] | None = None  # P, where there are several kinds

    def __len__(self) -> int:
        return len(self.picture)


def limited(dataset: Dataset, keep: NDArray[np.bool_]) -> Dataset:  # one a picture
    """The dataset with only the pictures that `keep` marks, and their persons and truth."""
    position = np.cumsum(keep) - 1
    rows, persons = keep[dataset.truth.picture], keep[dataset.picture]
    moved_row = np.where(dataset.row >= 0, (np.cumsum(rows) - 1)[dataset.row], -1) if len(rows) else dataset.row
    truth = dataset.truth
    return replace(
        dataset,
        pictures=tuple(picture for picture, kept in zip(dataset.pictures, keep, strict=True) if kept),
        truth=Truth(
            position[truth.picture[rows]],
            truth.keypoints[rows],
            truth.boxes_xyxy[rows],
            truth.areas_px2[rows],
            truth.crowd[rows],
            tuple(name for name, kept in zip(truth.names, rows, strict=True) if kept),
            None if truth.head_px is None else truth.head_px[rows],
            None if truth.category is None else truth.category[rows],
        ),
        picture=position[dataset.picture[persons]],
        boxes_xyxy=dataset.boxes_xyxy[persons],
        box_scores=dataset.box_scores[persons],
        row=moved_row[persons],
        category=None if dataset.category is None else dataset.category[persons],
    )

"""The persons of all files that a run learns from: COCO keypoint files and packs, each counting as much as told.

files = (LabelFile(Path("human.json"), Path("photos")), LabelFile(Path("network.json"), Path("photos"), weight=0.5))
people = annotations_of_files(files, skeleton.joints)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sdk.errors import DatasetError
from sdk.training.labels import Annotation, annotations_from_coco
from sdk.training.pack import PACK_SUFFIX, annotations_from_pack

__all__ = ["LabelFile", "annotations_of_files"]


@dataclass(frozen=True)
class LabelFile:
    """A COCO keypoint file with the folder of its pictures, or a pack; and how much its labels count."""

    path: Path
    images: Path
    weight: float = 1.0

    @property
    def is_pack(self) -> bool:
        return self.path.suffix == PACK_SUFFIX


def annotations_of_files(
    files: Sequence[LabelFile], joints: tuple[str, ...], *, partly: bool = False
) -> list[Annotation]:
    """The usable persons of all files, in order; DatasetError for a joint that none annotates, unless `partly`."""
    found: list[Annotation] = []
    some = partly or len(files) > 1
    for file in files:
        found += [
            replace(person, weights=person.weights * np.float32(file.weight))
            for person in (
                annotations_from_pack(file.path, joints)
                if file.is_pack
                else annotations_from_coco(file.path, file.images, joints, partly=some)
            )
        ]
    known = np.any([(person.keypoints[:, 2] > 0) & (person.weights > 0) for person in found], axis=0)
    missing = [name for name, is_known in zip(joints, known, strict=True) if not is_known]
    if missing and not partly:
        more = f", nor {len(missing) - 1} more" if len(missing) > 1 else ""
        told = "', '".join(str(file.path) for file in files)
        raise DatasetError(
            f"'{told}': no person has joint '{missing[0]}' annotated{more}; give "
            "a file that has it, or a recipe with the data's joint set"
        )
    return found

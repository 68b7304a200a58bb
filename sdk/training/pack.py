"""A pack: the persons of label files with their part of the photograph, in one file that is mapped into memory.

Photographs are read once, cut to what crops of a recipe's size can reach, and kept as WebP: a pack of LSPET's 7,534
persons for 128x128 crops has 57 MiB. `sdk train --train` takes it like a label file.

    write_pack(Path("lspet.pack"), annotations, recipe)
    annotations_from_pack(Path("lspet.pack"), skeleton.joints)         # boxes and joints in the packed pictures' pixels
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import DatasetError
from sdk.files import real_path, write_bytes
from sdk.joints import match_joints
from sdk.media.sources import Unreadable
from sdk.recipe import Recipe
from sdk.training.labels import Annotation
from sdk.training.persons import person_from_picture
from sdk.training.pictures import PICTURES, PackedPicture, opened_pack

__all__ = ["PACK_SUFFIX", "annotations_from_pack", "write_pack"]

logger = logging.getLogger(__name__)
PACK_SUFFIX = ".pack"
FORMAT = "sdk-pack-1"
SEPARATOR = ", "  # of the joints' names, which hold none
# Kept about a box, in longer sides of the box either way; crops drawn beyond see black there.
REACH = 1.0
SIDE = 1.0  # of a person's longer side, in sides of the crop: above, the picture is shrunk
# 57 MiB of LSPET at 128x128, 2.4 grey levels off on average; JPEG of 81 MiB is 2.2 off, of 56 MiB 3.2.
WEBP_QUALITY = 85


def write_pack(path: Path, annotations: Sequence[Annotation], recipe: Recipe, *, progress: bool = False) -> int:
    """Write the persons whose picture can be read; how many these are. Written whole or not at all."""
    import cv2
    from safetensors.numpy import save
    from tqdm import tqdm

    pictures, people, areas = [], [], []
    for annotation in tqdm(annotations, "packing", leave=False, disable=not progress):
        person = person_from_picture(annotation, SIDE * max(recipe.input.size_hw), reach=REACH)
        if isinstance(person, Unreadable):
            logger.warning("%s cannot be read (%s); left out of the pack", annotation.picture, person.reason)
            continue
        encoded, data = cv2.imencode(".webp", person.image, [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])
        if not encoded:
            raise DatasetError(f"{annotation.picture}: OpenCV cannot write it as WebP; leave it out of the labels")
        whole, part = (np.prod(box[2:] - box[:2]) for box in (annotation.box_xyxy, person.box_xyxy))
        pictures.append(np.asarray(data, np.uint8).ravel())
        people.append(person)
        areas.append(annotation.area_px * float(part / whole))
    if not people:
        raise DatasetError(f"pack '{path}': no picture of the {len(annotations)} persons could be read")
    tensors: dict[str, NDArray[Any]] = {
        PICTURES: np.concatenate(pictures),
        "ends": np.cumsum([len(picture) for picture in pictures], dtype=np.int64),
        "keypoints": np.stack([person.keypoints for person in people]),
        "weights": np.stack([person.weights for person in people]),
        "boxes": np.stack([person.box_xyxy for person in people]),
        "areas": np.array(areas, np.float32),
    }
    notes = {"format": FORMAT, "joints": SEPARATOR.join(recipe.skeleton.joints), "for": recipe.name}
    write_bytes(path, save(tensors, notes))
    return len(people)


def annotations_from_pack(path: Path, joints: tuple[str, ...]) -> list[Annotation]:
    """The persons of a pack, joints taken by name; DatasetError for a file that is none."""
    mapped = real_path(path)
    tensors, listed = _tensors(path, mapped)
    matched = match_joints(listed, joints)
    if len(matched.missing) == len(joints):
        raise DatasetError(f"pack '{path}' has none of the recipe's joints (it lists {', '.join(listed)})")
    keypoints, weights = (matched.in_order(tensors[name], axis=1) for name in ("keypoints", "weights"))
    ends = tensors["ends"].tolist()
    return [
        Annotation(
            row, row, PackedPicture(mapped, first, end), keypoints[row], tensors["boxes"][row],
            float(tensors["areas"][row]), weights[row],
        )
        for row, (first, end) in enumerate(zip([0, *ends], ends, strict=False))
    ]  # fmt: skip


def _tensors(path: Path, mapped: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The labels of a pack, and the joints that it lists."""
    from safetensors import SafetensorError

    try:
        pack = opened_pack(mapped)
        notes = pack.metadata() or {}
        if notes.get("format") != FORMAT:
            raise DatasetError(f"'{path}' is no pack of this version ({FORMAT}); make it with `sdk train --pack`")
        names = ("ends", "keypoints", "weights", "boxes", "areas")
        tensors, joints = {name: pack.get_tensor(name) for name in names}, notes["joints"].split(SEPARATOR)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DatasetError(f"pack '{path}' cannot be read ({error}); make it with `sdk train --pack`") from error
    count = len(tensors["ends"])
    shapes = {"ends": (count,), "keypoints": (count, len(joints), 3), "weights": (count, len(joints))}
    shapes |= {"boxes": (count, 4), "areas": (count,)}
    wrong = [name for name, shape in shapes.items() if tensors[name].shape != shape]
    size = pack.get_slice(PICTURES).get_shape()[0]
    if wrong or not count or (np.diff(tensors["ends"], prepend=0) <= 0).any() or tensors["ends"][-1] != size:
        raise DatasetError(f"pack '{path}' is damaged ({', '.join(wrong) or 'its pictures'}); make it anew")
    return tensors, joints

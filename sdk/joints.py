"""Which of somebody's joints is which of a skeleton's: by name, the one rule for datasets and checkpoints alike.

A name is matched as it is written; where none is, whatever its spelling ('Left Shoulder', 'leftShoulder',
'shoulder_left'), and by the few other names that public datasets use. A place never decides.

    matched = match_joints(["Neck", "leftShoulder", ...], skeleton.joints)
    matched.places, matched.missing, matched.remarks(), matched.extra
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["JointMatch", "in_order", "match_joints"]

SIDES = {"l": "left", "r": "right"}
OTHER_NAMES = {"head": "top_head"}  # CrowdPose's own file calls the top of the head 'head'


@dataclass(frozen=True)
class JointMatch:
    """Each wanted joint's place among those listed, None where it is not. `renamed`: (listed, wanted) spelled apart."""

    places: tuple[int | None, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]  # listed and not wanted
    renamed: tuple[tuple[str, str], ...]

    def in_order(self, values: NDArray[Any], axis: int = 0) -> NDArray[Any]:
        """What is said of each listed joint, along `axis`, in the wanted order; 0 for one that is missing."""
        return in_order(values, self.places, axis)

    def remarks(self) -> tuple[str, ...]:
        """What a reader of the result should know of the matching."""
        notes = []
        if self.renamed:
            pairs = ", ".join(f"'{listed}' for '{wanted}'" for listed, wanted in self.renamed)
            notes.append(f"joints are matched by name, spelled differently: {pairs}")
        if self.extra:
            notes.append(f"joints that are not asked for are left aside: {', '.join(self.extra)}")
        return tuple(notes)


def in_order(values: NDArray[Any], places: Sequence[int | None], axis: int = 0) -> NDArray[Any]:
    """The values at `places` along `axis`; 0 where a place is None."""
    found: NDArray[Any] = np.take(values, [place or 0 for place in places], axis)
    np.moveaxis(found, axis, 0)[[place is None for place in places]] = 0
    return found


def match_joints(listed: Sequence[str], wanted: Sequence[str]) -> JointMatch:
    """The place in `listed` of each name of `wanted`; each listed joint is taken once."""
    places: dict[str, int] = {}
    for theirs, ours in RULES:
        free = {theirs(name): at for at, name in reversed(list(enumerate(listed))) if at not in places.values()}
        for name in wanted:
            if name not in places and ours(name) in free:
                places[name] = free.pop(ours(name))
    taken = set(places.values())
    return JointMatch(
        tuple(places.get(name) for name in wanted),
        tuple(name for name in wanted if name not in places),
        tuple(name for at, name in enumerate(listed) if at not in taken),
        tuple((listed[at], name) for name, at in places.items() if listed[at] != name),
    )


def _as_written(name: str) -> str:
    return name


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()


def _words(name: str) -> str:
    """The words of a name in one order, sides in full."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    return " ".join(sorted(SIDES.get(word.lower(), word.lower()) for word in words))


def _other_name(name: str) -> str:
    return _letters(OTHER_NAMES.get(_letters(name), name))


RULES = (  # how a listed and a wanted name are compared, the strictest first
    (_as_written, _as_written),
    (_letters, _letters),
    (_words, _words),
    (_other_name, _letters),
)

"""Which joints of a COCO file are a skeleton's, in one way for verification, calibration and training: by name.

A file's person categories list their joints; each record's keypoints come out in the skeleton's order. A file that
names none is taken to be in that order, and the remarks say so.

    joints = CocoJoints.of_file(document, skeleton.joints)
    joints.problem, joints.remarks                           # None, or why the file cannot serve; what to tell of it
    joints.of_record(record)                                 # K x 3: x, y, visibility; or None
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdk.coco import CocoCategory, CocoRecord, joint_kinds, person_kinds
from sdk.joints import in_order, match_joints

__all__ = ["CocoJoints"]

Places = tuple[int | None, ...]  # of each wanted joint among those listed
UNNAMED = "the annotations do not name their joints; they are taken to be in the recipe's order"


@dataclass(frozen=True)
class CocoJoints:
    """Where each person category lists the wanted joints, None for one it lacks, and how many joints it lists."""

    places: Mapping[int | None, Places]  # under None: of records without a category, and of all where none is told
    listed: Mapping[int | None, int]
    problem: str | None = None
    remarks: tuple[str, ...] = ()

    @classmethod
    def of_file(cls, document: object, wanted: tuple[str, ...], *, partly: bool = False) -> CocoJoints:
        """The joints of a file's person categories. `partly`: some of `wanted` will do; others are not annotated."""
        kinds = {kind.identity: kind.joints for kind in person_kinds(document)}
        elsewhere = [] if any(kinds.values()) else joint_kinds(document)
        if kinds and elsewhere:
            return cls({}, {}, _parted(elsewhere[0]))
        places: dict[int | None, Places] = {}
        remarks: dict[str, None] = {}
        for identity, names in kinds.items():
            matched = match_joints(names or wanted, wanted)
            if matched.missing and not (partly and len(matched.missing) < len(wanted)):
                return cls({}, {}, _lacking(matched.missing, names))
            places[identity] = matched.places
            remarks |= dict.fromkeys(matched.remarks() if names else (UNNAMED,))
        listed = {identity: len(names or wanted) for identity, names in kinds.items()}
        if not kinds:
            return cls({None: tuple(range(len(wanted)))}, {None: len(wanted)}, None, (UNNAMED,))
        if len(kinds) == 1:
            only = next(iter(kinds))
            places[None], listed[None] = places[only], listed[only]
        return cls(places, listed, None, tuple(remarks))

    def knows(self, record: CocoRecord) -> bool:
        """Whether the record is of a person: of a category that lists joints, or of none where that leaves no doubt."""
        return self._kind(record) in self.places

    def of_record(self, record: CocoRecord) -> NDArray[np.float32] | None:  # K x 3
        """The record's keypoints in the wanted order; None where they are not of the number that its category lists."""
        kind = self._kind(record)
        if kind not in self.places or len(record.keypoints or ()) != 3 * self.listed[kind]:
            return None
        return self.in_order(record, np.asarray(record.keypoints, np.float32).reshape(-1, 3))

    def in_order(self, record: CocoRecord, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """What a record says of each joint its category lists, in the wanted order; 0 for a joint that it lacks."""
        return in_order(values, self.places[self._kind(record)])

    def why_none(self, record: CocoRecord, otherwise: str) -> str:
        """Why a record gives no keypoints: some exports write several persons into one; else `otherwise`."""
        count, listed = len(record.keypoints or ()), 3 * self.listed.get(self._kind(record), 0)
        several = listed and count > listed and count % listed == 0
        return "joints of several persons in one record" if several else otherwise

    def _kind(self, record: CocoRecord) -> int | None:
        return None if set(self.places) == {None} else record.category


def _parted(kind: CocoCategory) -> str:
    return (
        f"lists its joints in category {kind.identity}, which is not that of its persons' boxes; a person's box and "
        "keypoints must be of one record, in one category"
    )


def _lacking(missing: tuple[str, ...], names: tuple[str, ...]) -> str:
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return (
        f"lacks joint '{missing[0]}'{more} of the recipe's skeleton (it lists {', '.join(names)}); name it so in the "
        "file's categories, or use a recipe with the data's joint set"
    )

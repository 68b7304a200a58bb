"""How a joint set looks when it is drawn: which joints are a body, a hand or a face, in which colour, how thick.

A body is coloured by side: left is orange, right is blue, the middle is white. A hand is coloured by finger and
thinner; a face is dots. Groups named `face`, `face_...` and `..._hand` say which joints are one; a set without limbs is
a face, a set with fingers and without groups is a hand. Nothing is drawn here (`drawing`).

    for part in parts_of(skeleton):       # in the order they are drawn: hands and faces lie on top of the body
        part.kind, part.joints, part.limbs, part.thickness(unit, extent_px)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from sdk.skeletons import Skeleton

__all__ = ["FINGER_COLOURS", "RIM", "SIDE_COLOURS", "Colour", "Part", "parts_of"]

Colour = tuple[int, int, int]  # BGR
Kind = Literal["body", "head", "hand", "face"]

SIDE_COLOURS: dict[str, Colour] = {  # of equal lightness; apart for the usual kinds of colour blindness
    "left": (46, 139, 255),
    "right": (255, 156, 56),
    "middle": (235, 235, 235),
}
FINGER_COLOURS: dict[str, Colour] = {  # by a word of the joint's name; next to each other, far apart
    "thumb": (84, 84, 255),
    "fore": (60, 200, 255),
    "index": (60, 200, 255),
    "middle_finger": (96, 214, 96),
    "ring": (245, 190, 70),
    "pinky": (240, 120, 220),
    "little": (240, 120, 220),
}
RIM: Colour = (28, 24, 22)
# Thickness beside a body's limb, and the most of the part's own diagonal: a hand of 60 pixels has lines of 2, a face of
# 80 dots of 1, and neither runs together when the person is far away.
SHARE = {"body": 1.0, "head": 0.4, "hand": 0.45, "face": 0.4}
OF_EXTENT = {"body": 1.0, "head": 1.0, "hand": 1 / 28, "face": 1 / 80}
THINNEST = {"body": 1.0, "head": 0.8, "hand": 0.6, "face": 0.5}
HEAD = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")


@dataclass(frozen=True)
class Part:
    """Joints that are drawn alike. `small_joints`: a body's, whose wrists would hide its hands. A head is one only
    where a face is drawn too, which it would hide."""

    kind: Kind
    joints: tuple[int, ...]
    colours: tuple[Colour, ...]  # one a joint
    limbs: tuple[tuple[int, int, Colour], ...]
    alone: bool  # the set has no other part
    small_joints: bool = False

    def thickness(self, unit: float, extent_px: float) -> float:
        """Pixels, of a person whose body's limbs are `unit` thick; `extent_px` is the part's own diagonal."""
        share = min(1.0, SHARE[self.kind] * 2) if self.alone else SHARE[self.kind]
        return max(THINNEST[self.kind], min(unit * share, extent_px * OF_EXTENT[self.kind] * (2 if self.alone else 1)))


@lru_cache(maxsize=16)
def parts_of(skeleton: Skeleton) -> tuple[Part, ...]:
    """The parts of a joint set, in the order they are drawn."""
    everything = tuple(range(len(skeleton.joints)))
    faces = [members for name, members in skeleton.groups.items() if name.split("_")[0] == "face"]
    hands = [members for name, members in skeleton.groups.items() if name.endswith("hand")]
    if not skeleton.limbs and not faces:
        faces = [everything]
    elif not skeleton.groups and any(finger_of(joint) for joint in skeleton.joints):
        hands = [everything]
    taken = {joint for members in (*faces, *hands) for joint in members}
    head = tuple(joint for joint in everything if faces and joint not in taken and skeleton.joints[joint] in HEAD)
    body = tuple(joint for joint in everything if joint not in taken and joint not in head)
    listed: tuple[tuple[Kind, list[tuple[int, ...]]], ...] = (
        ("body", [body]),
        ("head", [head]),
        ("hand", hands),
        ("face", faces),
    )
    parts = [(kind, members) for kind, groups in listed for members in groups if members]
    return tuple(_part(skeleton, kind, members, alone=len(parts) == 1) for kind, members in parts)


def finger_of(joint: str) -> str | None:
    """The word of FINGER_COLOURS that a joint's name holds."""
    return next((word for word in FINGER_COLOURS if word in joint), None)


def _part(skeleton: Skeleton, kind: Kind, members: tuple[int, ...], *, alone: bool) -> Part:
    limbs = [(a, b) for a, b in skeleton.limbs if _belongs(skeleton, kind, members, (a, b))]
    if kind == "hand":
        named = {joint: finger_of(skeleton.joints[joint]) for joint in members}
        colours = {joint: _colour_of_finger(skeleton, joint, word) for joint, word in named.items()}
        lines = tuple((a, b, colours[b if named[b] else a]) for a, b in limbs)
    else:
        colours = {joint: SIDE_COLOURS[skeleton.side(joint)] for joint in members}
        lines = tuple((a, b, SIDE_COLOURS[_side_of_limb(skeleton, a, b)]) for a, b in limbs)
    small = kind == "body" and not alone
    return Part(kind, members, tuple(colours[joint] for joint in members), lines, alone, small)


def _belongs(skeleton: Skeleton, kind: Kind, members: tuple[int, ...], limb: tuple[int, int]) -> bool:
    """Whether a limb is the part's: both its ends are, or one is a body's and the other its head's."""
    inside = [joint in members for joint in limb]
    return all(inside) or (kind == "body" and any(inside) and any(skeleton.joints[joint] in HEAD for joint in limb))


def _colour_of_finger(skeleton: Skeleton, joint: int, word: str | None) -> Colour:
    return SIDE_COLOURS[skeleton.side(joint)] if word is None else FINGER_COLOURS[word]


def _side_of_limb(skeleton: Skeleton, a: int, b: int) -> str:
    """The side both ends have, or the one end has whose other end is in the middle; else the middle."""
    sides = {skeleton.side(a), skeleton.side(b)} - {"middle"}
    return sides.pop() if len(sides) == 1 else "middle"

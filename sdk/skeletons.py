"""Joint sets: names, mirror pairs, limbs, OKS sigmas and named groups. Data only; drawing and metrics live elsewhere.

    from sdk.skeletons import skeleton_by_name
    skeleton_by_name("coco17").joints[0]                    # 'nose'
    skeleton_by_name("wholebody133").part("left_hand")      # a set of its own, 21 joints

Sources. COCO-17: Lin et al., ECCV 2014, and the sigmas of pycocotools; Human-Art's set of 17 (Ju et al., CVPR 2023) is
the same. CrowdPose-14: Li et al., CVPR 2019, and the sigmas of crowdposetools. MPII-16: Andriluka et al., CVPR 2014; it
has no published OKS sigmas, mmpose's values are used. Halpe-26: Fang et al. (AlphaPose), sigmas as in mmpose.
COCO-WholeBody: Jin et al., ECCV 2020, its own sigmas; its face and its hand are sets of their own too. LaPa-106: Liu et
al., AAAI 2020. WFLW-98: Wu et al., CVPR 2018. AP-10K: Yu et al., NeurIPS 2021. AnimalPose-20: Cao et al., ICCV 2019;
both animals' sigmas as in mmpose. Names, pairs and limbs are those of open-mmlab/mmpose's data set descriptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sdk.errors import InputError, RecipeError

__all__ = ["SKELETONS", "Skeleton", "skeleton_by_name"]

SIGMA_OF_NONE = 0.025  # an eye's of COCO: how far joints of a set without sigmas may lie apart and be alike
LARGEST_SIGMA = 10.0  # published ones: 0.025 to 0.179


@dataclass(frozen=True)
class Skeleton:
    """A joint set. `flip_pairs`, `limbs` and `groups` hold joint indices; `sigmas` is one OKS constant per joint.

    A set whose error is measured by the distance of two joints (NME, of faces) names them in `nme_joints` and may have
    no sigmas. A single hand has no mirror pairs: a mirrored hand is a hand.
    """

    name: str
    joints: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    limbs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...] = ()
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    nme_joints: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        count = len(self.joints)
        if count == 0 or len(set(self.joints)) != count:
            raise RecipeError(f"skeleton '{self.name}': joints must be unique and not empty (got {list(self.joints)})")
        without = not self.sigmas and self.nme_joints is not None
        if not without and (len(self.sigmas) != count or not all(0 < sigma <= LARGEST_SIGMA for sigma in self.sigmas)):
            raise RecipeError(
                f"skeleton '{self.name}': sigmas must be {count} positive numbers of at most {LARGEST_SIGMA}, one per "
                f"joint (got {self.sigmas}); a set that is measured by NME may leave them out and name its nme_joints"
            )
        measure = () if self.nme_joints is None else (self.nme_joints,)
        for key, pairs in (("flip_pairs", self.flip_pairs), ("limbs", self.limbs), ("nme_joints", measure)):
            for a, b in pairs:
                if not (0 <= a < count and 0 <= b < count and a != b):
                    raise RecipeError(
                        f"skeleton '{self.name}': {key} must join two joints of 0 to {count - 1} (got [{a}, {b}])"
                    )
        mirrored = [joint for pair in self.flip_pairs for joint in pair]
        if len(set(mirrored)) != len(mirrored):
            twice = next(joint for joint in mirrored if mirrored.count(joint) > 1)
            raise RecipeError(
                f"skeleton '{self.name}': flip_pairs must name each joint once (joint {twice}, "
                f"'{self.joints[twice]}', is in two); its mirror is one joint"
            )
        for key, members in self.groups.items():
            if not members or len(set(members)) != len(members) or not all(0 <= joint < count for joint in members):
                raise RecipeError(
                    f"skeleton '{self.name}': groups.{key} must hold joints of 0 to {count - 1}, each once (got "
                    f"{list(members)})"
                )

    @property
    def tolerances(self) -> tuple[float, ...]:
        """One number a joint to judge likeness by: the sigmas; for a set that has none, an eye's for each."""
        return self.sigmas or (SIGMA_OF_NONE,) * len(self.joints)

    def members(self, group: str) -> tuple[int, ...]:
        """The joints of a group, by index; InputError lists the groups there are."""
        if group not in self.groups:
            known = f"it has {', '.join(self.groups)}" if self.groups else "it has none"
            raise InputError(f"skeleton '{self.name}' has no group '{group}'; {known}")
        return self.groups[group]

    def part(self, group: str) -> Skeleton:
        """The joint set of one group: its joints in its order, and the pairs, limbs and sigmas among them."""
        members = self.members(group)
        place = {joint: position for position, joint in enumerate(members)}
        measure = () if self.nme_joints is None else _within((self.nme_joints,), place)
        return Skeleton(
            f"{self.name}.{group}",
            tuple(self.joints[joint] for joint in members),
            _within(self.flip_pairs, place),
            _within(self.limbs, place),
            tuple(self.tolerances[joint] for joint in members),
            nme_joints=measure[0] if measure else None,
        )

    @property
    def flip_order(self) -> tuple[int, ...]:
        """Joint index that each joint takes after mirroring; length K."""
        order = list(range(len(self.joints)))
        for a, b in self.flip_pairs:
            order[a], order[b] = b, a
        return tuple(order)

    def side(self, joint: int) -> str:
        """'left', 'right' or 'middle', read from the joint's name: 'left_eye', or 'L_Eye' as animals have it."""
        name = self.joints[joint]
        return next((side for side in ("left", "right") if name.startswith((side, f"{side[0].upper()}_"))), "middle")


def _within(pairs: tuple[tuple[int, int], ...], place: Mapping[int, int]) -> tuple[tuple[int, int], ...]:
    """The pairs both of whose joints have a place, by place."""
    return tuple((place[a], place[b]) for a, b in pairs if a in place and b in place)


def _moved(pairs: tuple[tuple[int, int], ...], by: int) -> tuple[tuple[int, int], ...]:
    return tuple((a + by, b + by) for a, b in pairs)


COCO17 = Skeleton(
    name="coco17",
    joints=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    limbs=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
        (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
        0.089,
    ),
)  # fmt: skip

CROWDPOSE14 = Skeleton(
    name="crowdpose14",
    joints=(
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
        "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "top_head", "neck",
    ),
    flip_pairs=((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)),
    limbs=(
        (12, 13), (13, 0), (13, 1), (0, 2), (2, 4), (1, 3), (3, 5), (0, 6), (1, 7), (6, 7), (6, 8), (8, 10), (7, 9),
        (9, 11),
    ),
    sigmas=(0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079),
)  # fmt: skip

MPII16 = Skeleton(
    name="mpii16",
    joints=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax",
        "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
        "left_wrist",
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    limbs=(
        (0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (8, 12), (12, 11), (11, 10), (8, 13),
        (13, 14), (14, 15),
    ),
    sigmas=(
        0.089, 0.083, 0.107, 0.107, 0.083, 0.089, 0.026, 0.026, 0.026, 0.026, 0.062, 0.072, 0.179, 0.179, 0.072, 0.062,
    ),
)  # fmt: skip

HALPE26 = Skeleton(
    name="halpe26",
    joints=(
        *COCO17.joints, "head", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe",
        "left_heel", "right_heel",
    ),
    flip_pairs=(*COCO17.flip_pairs, (20, 21), (22, 23), (24, 25)),
    limbs=(
        (15, 13), (13, 11), (11, 19), (16, 14), (14, 12), (12, 19), (17, 18), (18, 19), (18, 5), (5, 7), (7, 9),
        (18, 6), (6, 8), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (15, 20), (15, 22), (15, 24),
        (16, 21), (16, 23), (16, 25),
    ),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
        0.089, 0.026, 0.026, 0.066, 0.079, 0.079, 0.079, 0.079, 0.079, 0.079,
    ),
    groups={"body": tuple(range(20)), "foot": tuple(range(20, 26))},
)  # fmt: skip

FACE68 = Skeleton(
    name="face68",
    joints=tuple(f"face-{i}" for i in range(68)),
    flip_pairs=(
        (0, 16), (1, 15), (2, 14), (3, 13), (4, 12), (5, 11), (6, 10), (7, 9), (17, 26), (18, 25), (19, 24), (20, 23),
        (21, 22), (31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46), (48, 54), (49, 53),
        (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67),
    ),
    limbs=(),
    sigmas=(
        0.042, 0.043, 0.044, 0.043, 0.04, 0.035, 0.031, 0.025, 0.02, 0.023, 0.029, 0.032, 0.037, 0.038, 0.043, 0.041,
        0.045, 0.013, 0.012, 0.011, 0.011, 0.012, 0.012, 0.011, 0.011, 0.013, 0.015, 0.009, 0.007, 0.007, 0.007, 0.012,
        0.009, 0.008, 0.016, 0.01, 0.017, 0.011, 0.009, 0.011, 0.009, 0.007, 0.013, 0.008, 0.011, 0.012, 0.01, 0.034,
        0.008, 0.008, 0.009, 0.008, 0.008, 0.007, 0.01, 0.008, 0.009, 0.009, 0.009, 0.007, 0.007, 0.008, 0.011, 0.008,
        0.008, 0.008, 0.01, 0.008,
    ),
    nme_joints=(36, 45),
)  # fmt: skip

FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")

HAND21 = Skeleton(
    name="hand21",
    joints=("wrist", *(f"{finger}{i}" for finger in FINGERS for i in range(1, 5))),
    flip_pairs=(),
    limbs=tuple((i if i % 4 else 0, i + 1) for i in range(20)),  # from the wrist out along each finger
    sigmas=(
        0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024, 0.022, 0.026, 0.017, 0.021, 0.021,
        0.032, 0.02, 0.019, 0.022, 0.031,
    ),
)  # fmt: skip

FACE, LEFT_HAND, RIGHT_HAND = 23, 91, 112  # where they begin in WHOLEBODY133

WHOLEBODY133 = Skeleton(
    name="wholebody133",
    joints=(
        *COCO17.joints, "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
        *FACE68.joints, *(f"{side}_{name}" for side in ("left", "right") for name in ("hand_root", *HAND21.joints[1:])),
    ),
    flip_pairs=(
        *COCO17.flip_pairs, (17, 20), (18, 21), (19, 22), *_moved(FACE68.flip_pairs, FACE),
        *((LEFT_HAND + i, RIGHT_HAND + i) for i in range(21)),
    ),
    limbs=(
        *COCO17.limbs, (15, 17), (15, 18), (15, 19), (16, 20), (16, 21), (16, 22), *_moved(HAND21.limbs, LEFT_HAND),
        *_moved(HAND21.limbs, RIGHT_HAND),
    ),
    sigmas=(
        *COCO17.sigmas, 0.068, 0.066, 0.066, 0.092, 0.094, 0.094, *FACE68.sigmas, *HAND21.sigmas, *HAND21.sigmas,
    ),
    groups={
        "body": tuple(range(17)),
        "foot": tuple(range(17, FACE)),
        "face": tuple(range(FACE, LEFT_HAND)),
        "left_hand": tuple(range(LEFT_HAND, RIGHT_HAND)),
        "right_hand": tuple(range(RIGHT_HAND, 133)),
    },
)  # fmt: skip

BROWS_AND_CONTOUR = (  # shared by LaPa and WFLW
    *((i, 32 - i) for i in range(16)), (33, 46), (34, 45), (35, 44), (36, 43), (37, 42), (38, 50), (39, 49), (40, 48),
    (41, 47),
)  # fmt: skip

LAPA106 = Skeleton(
    name="lapa106",
    joints=tuple(f"kpt-{i}" for i in range(106)),
    flip_pairs=(
        *BROWS_AND_CONTOUR, (55, 65), (56, 64), (57, 63), (58, 62), (59, 61), (66, 79), (67, 78), (68, 77), (69, 76),
        (70, 75), (71, 82), (72, 81), (73, 80), (74, 83), (84, 90), (85, 89), (86, 88), (91, 95), (92, 94), (96, 100),
        (97, 99), (101, 103), (104, 105),
    ),
    limbs=(),
    nme_joints=(66, 79),
)  # fmt: skip

WFLW98 = Skeleton(
    name="wflw98",
    joints=tuple(f"kpt-{i}" for i in range(98)),
    flip_pairs=(
        *BROWS_AND_CONTOUR, (55, 59), (56, 58), (60, 72), (61, 71), (62, 70), (63, 69), (64, 68), (65, 75), (66, 74),
        (67, 73), (76, 82), (77, 81), (78, 80), (83, 87), (84, 86), (88, 92), (89, 91), (93, 95), (96, 97),
    ),
    limbs=(),
    nme_joints=(60, 72),
)  # fmt: skip

AP10K17 = Skeleton(
    name="ap10k17",
    joints=(
        "L_Eye", "R_Eye", "Nose", "Neck", "Root of tail", "L_Shoulder", "L_Elbow", "L_F_Paw", "R_Shoulder", "R_Elbow",
        "R_F_Paw", "L_Hip", "L_Knee", "L_B_Paw", "R_Hip", "R_Knee", "R_B_Paw",
    ),
    flip_pairs=((0, 1), (5, 8), (6, 9), (7, 10), (11, 14), (12, 15), (13, 16)),
    limbs=(
        (0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (5, 6), (6, 7), (3, 8), (8, 9), (9, 10), (4, 11), (11, 12),
        (12, 13), (4, 14), (14, 15), (15, 16),
    ),
    sigmas=(
        0.025, 0.025, 0.026, 0.035, 0.035, 0.079, 0.072, 0.062, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089, 0.107, 0.087,
        0.089,
    ),
)  # fmt: skip

ANIMALPOSE20 = Skeleton(
    name="animalpose20",
    joints=(
        "L_Eye", "R_Eye", "L_EarBase", "R_EarBase", "Nose", "Throat", "TailBase", "Withers", "L_F_Elbow", "R_F_Elbow",
        "L_B_Elbow", "R_B_Elbow", "L_F_Knee", "R_F_Knee", "L_B_Knee", "R_B_Knee", "L_F_Paw", "R_F_Paw", "L_B_Paw",
        "R_B_Paw",
    ),
    flip_pairs=((0, 1), (2, 3), (8, 9), (10, 11), (12, 13), (14, 15), (16, 17), (18, 19)),
    limbs=(
        (0, 1), (0, 2), (1, 3), (0, 4), (1, 4), (4, 5), (5, 7), (6, 7), (5, 8), (8, 12), (12, 16), (5, 9), (9, 13),
        (13, 17), (6, 10), (10, 14), (14, 18), (6, 11), (11, 15), (15, 19),
    ),
    sigmas=(
        0.025, 0.025, 0.026, 0.035, 0.035, 0.1, 0.1, 0.1, 0.107, 0.107, 0.107, 0.107, 0.087, 0.087, 0.087, 0.087, 0.089,
        0.089, 0.089, 0.089,
    ),
)  # fmt: skip

SKELETONS: Mapping[str, Skeleton] = {
    skeleton.name: skeleton
    for skeleton in (
        COCO17, CROWDPOSE14, MPII16, HALPE26, WHOLEBODY133, HAND21, FACE68, LAPA106, WFLW98, AP10K17, ANIMALPOSE20,
    )
}  # fmt: skip


def skeleton_by_name(name: str) -> Skeleton:
    """The joint set called `name`; RecipeError lists the known ones."""
    if name not in SKELETONS:
        raise RecipeError(f"skeleton must be one of {', '.join(sorted(SKELETONS))} or a table (got '{name}')")
    return SKELETONS[name]

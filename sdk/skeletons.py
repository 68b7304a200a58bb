"""Joint sets: names, mirror pairs, limbs and OKS sigmas. Data only; drawing and metrics live elsewhere.

    from sdk.skeletons import skeleton_by_name
    skeleton_by_name("coco17").joints[0]      # 'nose'

Sources. COCO-17: Lin et al., ECCV 2014, and the sigmas of pycocotools. CrowdPose-14: Li et al., CVPR 2019, and the
sigmas of crowdposetools. MPII-16: Andriluka et al., CVPR 2014; it has no published OKS sigmas, mmpose's values are
used. Halpe-26: Fang et al. (AlphaPose), sigmas as in mmpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdk.errors import RecipeError

__all__ = ["SKELETONS", "Skeleton", "skeleton_by_name"]


@dataclass(frozen=True)
class Skeleton:
    """A joint set. `flip_pairs` and `limbs` hold joint indices; `sigmas` is one OKS constant per joint."""

    name: str
    joints: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    limbs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        count = len(self.joints)
        if count == 0 or len(set(self.joints)) != count:
            raise RecipeError(f"skeleton '{self.name}': joints must be unique and not empty (got {list(self.joints)})")
        if len(self.sigmas) != count or min(self.sigmas) <= 0:
            raise RecipeError(
                f"skeleton '{self.name}': sigmas must be {count} positive numbers, one per joint (got {self.sigmas})"
            )
        for key, pairs in (("flip_pairs", self.flip_pairs), ("limbs", self.limbs)):
            for a, b in pairs:
                if not (0 <= a < count and 0 <= b < count and a != b):
                    raise RecipeError(
                        f"skeleton '{self.name}': {key} must join two joints of 0 to {count - 1} (got [{a}, {b}])"
                    )

    @property
    def flip_order(self) -> tuple[int, ...]:
        """Joint index that each joint takes after mirroring; length K."""
        order = list(range(len(self.joints)))
        for a, b in self.flip_pairs:
            order[a], order[b] = b, a
        return tuple(order)

    def side(self, joint: int) -> str:
        """'left', 'right' or 'middle', read from the joint's name."""
        name = self.joints[joint]
        return next((side for side in ("left", "right") if name.startswith(side)), "middle")


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
)  # fmt: skip

SKELETONS: Mapping[str, Skeleton] = {s.name: s for s in (COCO17, CROWDPOSE14, MPII16, HALPE26)}


def skeleton_by_name(name: str) -> Skeleton:
    """The joint set called `name`; RecipeError lists the known ones."""
    if name not in SKELETONS:
        raise RecipeError(f"skeleton must be one of {', '.join(sorted(SKELETONS))} or a table (got '{name}')")
    return SKELETONS[name]

"""Hands and faces by networks of their own, found by the body's joints: two stages, as users of DWPose do by hand.

    with PoseEstimator("body.fp16") as estimate, PartEstimator(["hand.fp16", "face.fp16"]) as with_parts:
        poses = with_parts(frame, estimate(frame))
        poses.part("left_hand").keypoints                 # 21 joints; score 0 where no hand was looked for

All hands of a frame go through the hand's network as one batch, left and right, and all faces through the face's. Where
the body's network has the group already, its box is taken, and its joints are replaced where the part's network is
fairly sure of them; else the joints are added, as groups `left_hand`, `right_hand` and `face`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError, SdkError
from sdk.geometry import boxes_from_keypoints
from sdk.manifest import Engine
from sdk.poses import Poses
from sdk.runtime.closing import Closing
from sdk.runtime.estimator import BoxEstimator
from sdk.runtime.pipeline import Refine
from sdk.skeletons import Skeleton

__all__ = ["PartEstimator", "face_boxes", "hand_boxes"]

Float32Array = NDArray[np.float32]
Kind = Literal["hand", "face"]

GROUPS: dict[Kind, tuple[str, ...]] = {"hand": ("left_hand", "right_hand"), "face": ("face",)}
MARGIN = 0.1  # at each side of a group's own joints
SMALLEST_PX = 4.0  # side of a box that is worth a crop
# A hand's box as OpenPose's hand detector has it: a third of the forearm beyond the wrist, 1.5 forearms wide (or 0.9
# upper arms); that is the whole crop, of which the network's padding is a part.
BEYOND_WRIST, HAND_OF_ARM, FOREARM_OF_UPPER = 0.33, 1.5, 0.9
# A face's side as a multiple of distances on it: an adult's face is some 190 mm from chin to forehead, eyes lie 63 mm
# apart, ears 150 mm, the nose's tip 50 mm from an eye and 110 mm from an ear. The largest counts, however it is turned.
FACE_SIDE = {
    ("left_eye", "right_eye"): 3.0,
    ("left_ear", "right_ear"): 1.25,
    ("nose", "left_eye"): 3.5,
    ("nose", "right_eye"): 3.5,
    ("nose", "left_ear"): 1.7,
    ("nose", "right_ear"): 1.7,
}


class PartEstimator(Closing):
    """Engines of hands and faces, opened: folders or names, at most one of each. Options are the estimator's."""

    def __init__(
        self,
        engines: Sequence[Engine | str | Path],
        *,
        device: str = "auto",
        refine: Refine = "none",
        flip_test: bool = False,
        threads: int | None = None,
        pixel_format: str = "bgr",
        spread: bool = False,
    ) -> None:
        if isinstance(engines, (str, Path, Engine)):
            raise InputError(f"engines must be a list, of a hand's engine and a face's at most (got {engines!r})")
        self._estimators: dict[Kind, BoxEstimator] = {}
        try:
            for engine in engines:
                estimator = BoxEstimator(
                    engine,
                    device=device,
                    refine=refine,
                    flip_test=flip_test,
                    threads=threads,
                    pixel_format=pixel_format,
                    spread=spread,
                )
                self._take(estimator)
        except SdkError:
            self.close()
            raise

    def check(self, body: BoxEstimator) -> None:
        """InputError where a part cannot be found by the joints of `body`, or scores joints by another rule."""
        skeleton = body.recipe.skeleton
        for kind, estimator in self._estimators.items():
            ours, theirs = (each.recipe.output.score or "a heatmap's peak" for each in (estimator, body))
            if ours != theirs:
                raise InputError(
                    f"engine '{estimator.engine.folder.name}' scores joints by {ours} and the body's by {theirs}; "
                    "scores of one pose must be of one rule"
                )
            for group in GROUPS[kind]:
                names = _names_for(group)
                if group not in skeleton.groups and not names <= set(skeleton.joints):
                    raise InputError(
                        f"skeleton '{skeleton.name}' has no group '{group}', nor {', '.join(sorted(names))} to find "
                        f"one by; leave '{estimator.engine.folder.name}' out"
                    )

    def __call__(self, frame: object, poses: Poses) -> Poses:
        """The poses with their hands and faces, of the frame (as the estimator takes it) that they were found in."""
        start = perf_counter()
        for kind, estimator in self._estimators.items():
            poses = _with_parts(poses, kind, estimator, frame)
        spent = 1e3 * (perf_counter() - start)
        total = float(poses.timings_ms.get("total", 0.0)) + spent
        return replace(poses, timings_ms={**poses.timings_ms, "parts": spent, "total": total})

    def close(self) -> None:
        for estimator in self._estimators.values():
            estimator.close()

    def _take(self, estimator: BoxEstimator) -> None:
        kind = _kind_of(estimator.recipe.skeleton)
        name = estimator.engine.folder.name
        if kind is None or kind in self._estimators:
            estimator.close()
            if kind is None:
                joints = estimator.recipe.skeleton.name
                raise InputError(f"engine '{name}' must be of a hand or of a face (its joints are '{joints}')")
            raise InputError(f"engine '{name}' is a second one of a {kind}; give one of each")
        self._estimators[kind] = estimator


def hand_boxes(poses: Poses, group: str) -> Float32Array:
    """N x 4 xyxy, NaN where the hand cannot be told: about the group's joints, else beyond the wrist."""
    if group in poses.skeleton.groups:
        return _group_boxes(poses, group)
    side = group.removesuffix("_hand")
    wrist, elbow, shoulder = (_joint(poses, f"{side}_{name}") for name in ("wrist", "elbow", "shoulder"))
    forearm, upper = (np.linalg.norm(b - elbow, axis=1) for b in (wrist, shoulder))
    width = HAND_OF_ARM * np.fmax(forearm, FOREARM_OF_UPPER * upper)  # fmax: a shoulder that is not seen has no say
    return _squares(wrist + BEYOND_WRIST * (wrist - elbow), width / 1.25)


def face_boxes(poses: Poses) -> Float32Array:
    """N x 4 xyxy, NaN where the face cannot be told: about the group's joints, else about nose, eyes and ears."""
    if "face" in poses.skeleton.groups:
        return _group_boxes(poses, "face")
    seen = {name: _joint(poses, name) for pair in FACE_SIDE for name in pair}
    sides = [ratio * np.linalg.norm(seen[a] - seen[b], axis=1) for (a, b), ratio in FACE_SIDE.items()]
    side = np.fmax.reduce(sides)
    eyes = np.where(np.isnan(seen["left_eye"]), seen["right_eye"], seen["left_eye"])
    return _squares(np.where(np.isnan(seen["nose"]), eyes, seen["nose"]), side)


def _joint(poses: Poses, name: str) -> Float32Array:  # N x 2
    """A joint of every person; NaN where it is not fair."""
    if name not in poses.skeleton.joints:
        raise InputError(f"skeleton '{poses.skeleton.name}' has no joint '{name}' to find a hand or a face by")
    index = poses.skeleton.joints.index(name)
    seen = poses.scores[:, index] >= poses.score_scale.fair
    return np.where(seen[:, None], poses.keypoints[:, index], np.nan).astype(np.float32)


def _group_boxes(poses: Poses, group: str) -> Float32Array:
    part = poses.part(group)
    return boxes_from_keypoints(part.keypoints, part.scores, poses.score_scale.fair, MARGIN)


def _squares(centres: Float32Array, sides: Float32Array) -> Float32Array:  # N x 2, N -> N x 4
    half = (sides / 2)[:, None]
    return np.concatenate([centres - half, centres + half], axis=1).astype(np.float32)


def _with_parts(poses: Poses, kind: Kind, estimator: BoxEstimator, frame: object) -> Poses:
    """The poses with all parts of a kind, which are looked at in one call."""
    groups, persons = GROUPS[kind], len(poses)
    boxes = [hand_boxes(poses, group) if kind == "hand" else face_boxes(poses) for group in groups]
    flat = np.concatenate(boxes)  # group by group
    usable = (flat[:, 2:] - flat[:, :2]).min(axis=1) >= SMALLEST_PX  # NaN is not
    parts = estimator(frame, flat[usable])
    place = np.full(len(flat), -1)
    place[usable] = np.arange(len(parts))
    for number, group in enumerate(groups):
        poses = _joined(poses, group, parts, place[number * persons : (number + 1) * persons])
    return poses


def _joined(poses: Poses, group: str, parts: Poses, place: NDArray[np.intp]) -> Poses:  # N, -1 where there is none
    """The poses with one group of joints: replaced where the poses have as many, else added."""
    found = place >= 0
    if len(poses.skeleton.groups.get(group, ())) == len(parts.skeleton.joints):
        sure = np.zeros(len(poses), bool)
        sure[found] = np.median(parts.scores[place[found]], axis=1) >= poses.score_scale.fair
        target = np.ix_(np.flatnonzero(sure), np.array(poses.skeleton.members(group)))
        changed: dict[str, Any] = {}
        for name, array in poses.by_joint().items():
            changed[name] = array.copy()
            if (theirs := getattr(parts, name)) is not None:
                changed[name][target] = theirs[place[sure]]
        return replace(poses, **changed)
    name = f"{group}_{parts.skeleton.name}" if group in poses.skeleton.groups else group
    added: dict[str, Any] = {}
    for column, array in poses.by_joint().items():
        fill = 0 if column in ("keypoints", "scores") else np.nan
        more = np.full((len(poses), len(parts.skeleton.joints), *array.shape[2:]), fill, np.float32)
        if (theirs := getattr(parts, column)) is not None:
            more[found] = theirs[place[found]]
        added[column] = np.concatenate([array, more], axis=1)
    return replace(poses, skeleton=_extended(poses.skeleton, name, parts.skeleton), **added)


@lru_cache(maxsize=16)
def _extended(body: Skeleton, group: str, part: Skeleton) -> Skeleton:
    """The joint set of the body with one more group, whose joints are named after it."""
    first, count = len(body.joints), len(part.joints)
    other = body.groups.get(group.replace("right", "left")) if group.startswith("right") else None
    mirrored = tuple((left, first + i) for i, left in enumerate(other)) if other and len(other) == count else ()
    return Skeleton(
        f"{body.name}+{group}",
        (*body.joints, *(f"{group}_{joint}" for joint in part.joints)),
        (*body.flip_pairs, *((first + a, first + b) for a, b in part.flip_pairs), *mirrored),
        (*body.limbs, *((first + a, first + b) for a, b in part.limbs)),
        (*body.tolerances, *part.tolerances),
        {**(body.groups or {"body": tuple(range(first))}), group: tuple(range(first, first + count))},
    )


def _kind_of(skeleton: Skeleton) -> Kind | None:
    """What a joint set is of: a face is measured by two of its joints, a hand has a thumb and no sides."""
    if skeleton.nme_joints is not None:
        return "face"
    return "hand" if not skeleton.groups and any("thumb" in joint for joint in skeleton.joints) else None


def _names_for(group: str) -> set[str]:
    """The joints that a group is found by."""
    if group == "face":
        return {name for pair in FACE_SIDE for name in pair}
    return {f"{group.removesuffix('_hand')}_{name}" for name in ("wrist", "elbow", "shoulder")}

"""What an estimator returns: the persons of one frame. Plain numpy; cv2 only when drawing.

poses = estimate(frame, boxes)
keypoints, scores = poses            # (N, K, 2) frame pixels, (N, K)
sure = poses[poses.box_scores > 0.5]
hands = poses.part("left_hand")      # of a whole body; 21 joints
depths = poses.depths                # (N, K) in poses.depth_unit, of a network with a third axis; else None
cv2.imwrite("out.png", sure.draw(frame))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sdk.errors import InputError, MissingDependencyError, RowError
from sdk.wording import counted

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from sdk.camera import Camera
    from sdk.skeletons import Skeleton

__all__ = ["Poses", "ScoreScale"]


@dataclass(frozen=True)
class ScoreScale:
    """What a joint's score means: it counts from `fair` on, and is certain from `sure` on. Score rules differ in it."""

    fair: float = 0.3
    sure: float = 0.8


@dataclass(frozen=True, eq=False)
class Poses:
    """Persons of one frame, row by row. N may be 0; the shapes stay. Two are equal where they are the same object."""

    keypoints: NDArray[np.float32]  # N x K x 2, frame pixels
    scores: NDArray[np.float32]  # N x K
    boxes: NDArray[np.float32]  # N x 4, xyxy, frame pixels
    box_scores: NDArray[np.float32]  # N
    skeleton: Skeleton
    track_ids: NDArray[np.int64] | None = None  # N, aligned with the rows
    timings_ms: Mapping[str, float | str] = field(default_factory=dict)
    score_scale: ScoreScale = ScoreScale()
    depths: NDArray[np.float32] | None = (
        None  # N x K, from the root away from the camera; NaN where a joint is not seen
    )
    depth_unit: Literal["m", "px"] = "m"
    spread: NDArray[np.float32] | None = None  # N x K x 2, standard deviations of x and y, frame pixels
    second: NDArray[np.float32] | None = None  # N x K x 2, where a joint may be instead, frame pixels; NaN: nowhere

    @classmethod
    def of_call(cls, **told: Any) -> Poses:
        """As the constructor with these fields, `timings_ms` among them, for an estimator on every frame: 0.8 us in
        place of 1.9, since a frozen class sets each field by a call of its own."""
        poses = object.__new__(cls)
        poses.__dict__.update(DEFAULTS, **told)
        return poses

    def but(self, **told: Any) -> Poses:
        """As `dataclasses.replace` with these fields, for a tracker on every frame: see `of_call`."""
        poses = object.__new__(type(self))
        poses.__dict__.update(self.__dict__, **told)
        return poses

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """`keypoints, scores = poses`, as rtmlib returns them."""
        return iter((self.keypoints, self.scores))

    def __len__(self) -> int:
        return len(self.keypoints)

    def __getitem__(self, rows: Any) -> Poses:
        """Persons by number, slice, mask or list of numbers, as `Poses` of their own: `poses[0]`, `poses[mask]`."""
        chosen = self._rows(rows)
        return replace(
            self,
            boxes=self.boxes[chosen],
            box_scores=self.box_scores[chosen],
            track_ids=None if self.track_ids is None else self.track_ids[chosen],
            **self._of_joints(chosen),
        )

    @property
    def groups(self) -> Mapping[str, Poses]:
        """The parts that the joint set names, each as `part` gives it: of a whole body body, foot, face and hands."""
        return {name: self.part(name) for name in self.skeleton.groups}

    def part(self, group: str) -> Poses:
        """The joints of one group, as `Poses` of their own and with the persons' boxes: `poses.part("left_hand")`.

        The arrays are views where the group's joints follow one another, as those of a whole body do.
        """
        members = self.skeleton.members(group)
        following = members == tuple(range(members[0], members[0] + len(members)))
        chosen = slice(members[0], members[-1] + 1) if following else list(members)
        return replace(
            self,
            skeleton=self.skeleton.part(group),
            **self._of_joints((slice(None), chosen)),
        )

    def by_joint(self) -> dict[str, NDArray[np.float32]]:
        """What is told joint by joint (N x K ...) by its name, of that which there is: keypoints, scores, depths ..."""
        names = ("keypoints", "scores", "depths", "spread", "second")
        return {name: array for name in names if (array := getattr(self, name)) is not None}

    def in_camera(self, camera: Camera, root_m: ArrayLike) -> NDArray[np.float32]:
        """N x K x 3: x, y and z of each joint in metres, as `camera` sees it; NaN where a joint has no depth.

        `root_m`: how far the root is from the camera, one number or one a person; no picture alone tells it.
        """
        if self.depths is None or self.depth_unit != "m":
            raise InputError(
                "in_camera needs depths in metres, of a network with a third axis in metres "
                f"(got {'none' if self.depths is None else 'pixels'})"
            )
        return camera.points(self.keypoints, self.depths, root_m)

    def __repr__(self) -> str:
        """As in `Poses(2 persons, 17 joints, track ids [1, 4])`."""
        ids = "" if self.track_ids is None else f", track ids {self.track_ids[:8].tolist()}"
        more = " and more" if self.track_ids is not None and len(self) > 8 else ""
        return f"Poses({counted(len(self), 'person')}, {self.scores.shape[1]} joints{ids}{more})"

    def to_coco(self, image_id: int, category_id: int = 1) -> list[dict[str, Any]]:
        """COCO results: one record a person, `keypoints` flat as x, y, score; `score` = box x mean joint score.

        Where there are depths, spreads and second peaks, they follow as lists of their own, joint by joint.
        """
        try:
            numbers = int(image_id), int(category_id)
        except (TypeError, ValueError) as error:
            raise InputError(f"image_id and category_id must be whole numbers, as COCO's are ({error})") from error
        triples = np.concatenate([self.keypoints, self.scores[..., None]], axis=2)
        flat = triples.reshape(len(self), 3 * self.scores.shape[1])
        person = self.box_scores * self.scores.mean(axis=1)
        more = self._told()
        return [
            {
                "image_id": numbers[0],
                "category_id": numbers[1],
                "keypoints": [round(float(value), 4) for value in row],
                "score": float(score),
                **{name: each[index] for name, each in more.items()},
            }
            for index, (row, score) in enumerate(zip(flat, person, strict=True))
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON; None for a depth or a second peak that there is not."""
        unit = {} if self.depths is None else {"depth_unit": self.depth_unit}
        return {
            "joints": list(self.skeleton.joints),
            "keypoints": self.keypoints.tolist(),
            "scores": self.scores.tolist(),
            "boxes": self.boxes.tolist(),
            "box_scores": self.box_scores.tolist(),
            "track_ids": None if self.track_ids is None else self.track_ids.tolist(),
            **self._told(),
            **unit,
            "timings_ms": dict(self.timings_ms),
        }

    def to_supervision(self) -> tuple[Any, Any]:
        """`supervision.KeyPoints` and `supervision.Detections` of the persons, row by row; needs supervision 0.31.

        Key points have no place for ids there: they are in `data["tracker_id"]`, and `tracker_id` of the detections.
        """
        try:
            import supervision
        except ImportError as error:
            told = "to_supervision needs its package: pip install 'simcc-edge-sdk[supervision]'"
            raise MissingDependencyError(told) from error
        classes = np.zeros(len(self), int)
        ids: dict[str, Any] = {} if self.track_ids is None else {"tracker_id": self.track_ids}
        points = supervision.KeyPoints(
            xy=self.keypoints,
            class_id=classes,
            keypoint_confidence=self.scores,
            detection_confidence=self.box_scores,
            visible=self.scores >= self.score_scale.fair,
            data=ids,
        )
        found = supervision.Detections(
            xyxy=self.boxes, confidence=self.box_scores, class_id=classes, tracker_id=self.track_ids
        )
        return points, found

    def draw(
        self,
        frame: object,  # uint8 H x W x 3; NV12: (H * 3/2) x W
        threshold: float | None = None,
        *,
        boxes: bool = False,
        pixel_format: str = "bgr",
        style: str = "overlay",
        spread: bool = False,
    ) -> NDArray[np.uint8]:
        """A copy of `frame` with limbs coloured by side, hands by finger, faces as dots, joints sized by confidence.

        With `boxes`, the boxes too; with `spread`, an ellipse about each joint that holds it in 68 of 100 cases along
        each axis; with depths, what is farther first. `style` 'openpose': black, and the poses as ControlNet takes
        them. `pixel_format` says what the frame is, as for the estimator: an RGB frame gives an RGB picture, NV12 a
        BGR one.
        """
        import sdk  # its face names who draws; this module knows nobody

        return sdk.draw_poses(
            frame, self, threshold, boxes=boxes, pixel_format=pixel_format, style=style, spread=spread
        )

    def _of_joints(self, index: Any) -> dict[str, Any]:
        """What is told joint by joint, at an index of persons or of persons and joints."""
        return {name: array[index] for name, array in self.by_joint().items()}

    def _told(self) -> dict[str, Any]:
        """Depths, spreads and second peaks as plain lists, of those there are."""
        found = {"depths": self.depths, "spread": self.spread, "second": self.second}
        return {name: _without_nan(array) for name, array in found.items() if array is not None}

    def _rows(self, rows: Any) -> NDArray[np.intp]:
        """The numbers of the persons that an index names; RowError where it names none."""
        try:
            chosen = np.atleast_1d(np.arange(len(self))[rows])
        except (IndexError, TypeError, ValueError) as error:
            persons = counted(len(self), "person")
            raise RowError(f"poses[{rows!r}]: out of {persons}, numbered from 0 ({error})") from error
        if chosen.ndim != 1:
            raise RowError(f"poses[{rows!r}]: persons are one row each; give a number, a slice, a mask or a list")
        return chosen


DEFAULTS = {each.name: each.default for each in fields(Poses) if each.default is not MISSING}


def _without_nan(array: NDArray[np.float32]) -> list[Any]:
    """Nested lists with None in place of NaN, which JSON has no word for."""
    told = array.astype(object)
    told[np.isnan(array)] = None
    listed: list[Any] = told.tolist()
    return listed

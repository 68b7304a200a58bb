"""What a person detector is shown and what its raw outputs mean: the letterbox, and the form of boxes and scores.
Shared words: nothing here runs a network; `sdk.ops.crop` makes the letterbox, `sdk.ops.detections` reads the outputs.

    box = letterbox((720, 1280), (320, 320))                 # affines of the crop, and from input to frame pixels
    blob = ops.crop(frame, box.crop, (320, 320), mean=mean, std=std, channel_order="bgr", border=114)
    form = DetectionForm("xyxy", boxes=Part(0), scores=Part(1), suppress=True)
    boxes_xyxy, scores = ops.detections(
        outputs, form, to_frame=box.to_frame, size_hw=(320, 320), frame_hw=(720, 1280), score_threshold=0.3, iou=0.65
    )
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.numeric import is_whole

__all__ = ["Activation", "BoxForm", "DetectionForm", "Letterbox", "Part", "Place", "Units", "letterbox"]

BoxForm = Literal["xyxy", "cxcywh", "grid"]
Units = Literal["pixels", "shares"]
Activation = Literal["none", "sigmoid", "softmax"]
Place = Literal["corner", "centre", "stretch"]
MAX_STRIDES = 4  # of `sdk::DetectionSpec` in cpp_ext/shared/detection_math.h


@dataclass(frozen=True)
class Part:
    """Where columns lie: in which output, numbered as the graph gives them, and from which column on.

    The output is 1 x M x C where `rows_first`, else 1 x C x M; 1 x M is one column.
    """

    output: int = 0
    column: int = 0
    rows_first: bool = True

    def __post_init__(self) -> None:
        if not all(is_whole(number, 0) for number in (self.output, self.column)):
            raise InputError(f"a part's output and column must be whole numbers from 0 on (got {self})")


@dataclass(frozen=True)
class DetectionForm:
    """How the raw outputs of a detector are read, one row a place of its grid or a query.

    `box_form`: corners; centre and sides; or YOLOX's grid, centres counted in cells of `strides` and the logarithms of
    sides. `units`: pixels of the network's input, or shares of it. `scores`: the first of `classes` columns, that of
    the person being the `person_class`-th. `objectness`: the column of the same output that scores are multiplied by.
    `label`: a column that says of what class a row's one score is. `activation`: what makes scores of the numbers.
    `suppress`: whether boxes of one person are still among each other, as before NMS.
    """

    box_form: BoxForm
    boxes: Part
    scores: Part
    units: Units = "pixels"
    classes: int = 1
    person_class: int = 0
    objectness: int | None = None
    label: Part | None = None
    activation: Activation = "none"
    suppress: bool = True
    strides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, kind in (("box_form", BoxForm), ("units", Units), ("activation", Activation)):
            if getattr(self, name) not in get_args(kind):
                raise InputError(f"{name} must be one of {', '.join(get_args(kind))} (got {getattr(self, name)!r})")
        if not is_whole(self.classes, 1) or not is_whole(self.person_class, 0):
            raise InputError(
                "classes must be a whole number from 1 on and person_class one from 0 on "
                f"(got {self.classes!r} and {self.person_class!r})"
            )
        if self.label is None and self.person_class >= self.classes:
            raise InputError(f"person_class must be one of the {self.classes} classes (got {self.person_class})")
        if self.label is not None and self.classes != 1:
            raise InputError(f"classes must be 1 where a label says whose score it is (got {self.classes})")
        if self.objectness is not None and not is_whole(self.objectness, 0):
            raise InputError(f"objectness must be a column, or None (got {self.objectness!r})")
        if self.activation == "softmax" and self.classes < 2:
            raise InputError("activation 'softmax' must have at least 2 classes to share among (got 1)")
        self._check_strides()

    def _check_strides(self) -> None:
        strides = self.strides
        if (self.box_form == "grid") != bool(strides):
            raise InputError(f"strides must be given for box_form 'grid', and for no other (got {strides})")
        if len(strides) > MAX_STRIDES or not all(is_whole(stride, 1) for stride in strides):
            raise InputError(f"strides must be at most {MAX_STRIDES} positive whole numbers (got {strides})")
        if strides and self.units == "shares":
            raise InputError("units must be 'pixels' for box_form 'grid', which counts cells (got 'shares')")


@dataclass(frozen=True)
class Letterbox:
    """A frame placed into a detector's input. Of `crop` integers are pixel centres; boxes of `to_frame` are edges."""

    crop: NDArray[np.float32]  # 1 x 2 x 3, input -> frame pixels
    to_frame: NDArray[np.float32]  # 2 x 3, input -> frame pixels
    inner_hw: tuple[int, int]  # of the input, what the frame fills


@lru_cache(maxsize=256)
def letterbox(frame_hw: tuple[int, int], size_hw: tuple[int, int], place: Place = "corner") -> Letterbox:
    """The frame resized to the largest whole size that fits, in the input's upper left corner or in its centre.

    'stretch' fills the whole input. The rest is the border. Its arrays are read-only, as all callers share them.
    """
    if place not in get_args(Place):
        raise InputError(f"place must be one of {', '.join(get_args(Place))} (got {place!r})")
    if not all(is_whole(side, 1) for side in (*frame_hw, *size_hw)):
        raise InputError(f"a letterbox must have positive sides (got a frame {frame_hw} and an input {size_hw})")
    ratio = min(size / frame for size, frame in zip(size_hw, frame_hw, strict=True))
    inner = tuple(max(1, round(side * ratio)) for side in frame_hw) if place != "stretch" else tuple(size_hw)
    before = [(size - side) // 2 if place == "centre" else 0 for size, side in zip(size_hw, inner, strict=True)]
    (scale_y, scale_x), (top, left) = (frame / side for frame, side in zip(frame_hw, inner, strict=True)), before
    edges = np.array([[scale_x, 0, 0 - scale_x * left], [0, scale_y, 0 - scale_y * top]])
    centres = edges.copy()
    centres[:, 2] += ((scale_x - 1) / 2, (scale_y - 1) / 2)
    crop, to_frame = centres[None].astype(np.float32), edges.astype(np.float32)
    crop.flags.writeable = to_frame.flags.writeable = False
    return Letterbox(crop, to_frame, (inner[0], inner[1]))

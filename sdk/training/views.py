"""What a teacher sees of a sample: the same part of the picture, in its own size and aspect.

view = View.of(teacher_recipe, student_recipe)
view.affines(student_affines, (128, 128))            # teacher's crop -> picture pixels
view.bins(0, (128, 128), (2.0, 2.0))                 # where the student's bins along x lie among its own
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdk.recipe import Recipe

__all__ = ["View"]

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """A teacher's crop about the middle of the student's. `wider`: its box padding in the student's."""

    size_hw: tuple[int, int]
    wider: float

    @classmethod
    def of(cls, teacher: Recipe, student: Recipe) -> View:
        return cls(teacher.input.size_hw, teacher.input.box_padding / student.input.box_padding)

    def scale(self, student_hw: tuple[int, int]) -> float:
        """Student's crop pixels in one of the teacher's, which sees all of it, and persons padded as it is used to."""
        return self.wider * max(theirs / own for theirs, own in zip(student_hw, self.size_hw, strict=True))

    def affines(self, student: Float32Array, student_hw: tuple[int, int]) -> Float32Array:  # ... x 2 x 3
        """Teacher's crop -> picture pixels, of the student's crop -> picture pixels."""
        scale = self.scale(student_hw)
        placed = student * np.float32(scale)
        for axis in (0, 1):
            mine, theirs = student_hw[1 - axis], self.size_hw[1 - axis]
            placed[..., 2] += student[..., axis] * np.float32((mine - 1) / 2 - scale * (theirs - 1) / 2)
        placed[..., 2] += student[..., 2] * np.float32(1 - scale)
        return placed

    def bins(self, axis: int, student_hw: tuple[int, int], ratios: tuple[float, float]) -> Float32Array:
        """Where the student's bins of an axis (0: x, 1: y) lie among the teacher's. `ratios`: bins a pixel, of both."""
        mine, theirs = student_hw[1 - axis], self.size_hw[1 - axis]
        own = np.arange(int(mine * ratios[0])) / ratios[0]
        pixels = (own - (mine - 1) / 2) / self.scale(student_hw) + (theirs - 1) / 2
        return (pixels * ratios[1]).astype(np.float32)

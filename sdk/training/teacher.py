"""A teacher: the engine of a larger SimCC network, whose distributions a smaller one learns beside the labels.

Its logits are made distributions at a temperature and moved onto the student's bins; a joint counts as much as of its
distribution lies within the student's crop. Only joints that both have are taught, by name.

    with Teacher("rtmpose-m-256x192.fp32", recipe, temperature=2.0) as teacher:
        targets = teacher.targets(views, (128, 128))                # views N x 3 x h x w, grey levels; student's crop
        loss = loss + teacher.loss(outputs, targets)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sdk.errors import TrainingError
from sdk.joints import match_joints
from sdk.recipe import Recipe
from sdk.runtime.closing import Closing
from sdk.runtime.decoding import stated_spread
from sdk.runtime.opening import open_session
from sdk.training.views import View

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Teacher"]

Float32Array = NDArray[np.float32]


class Teacher(Closing):
    """An open engine that teaches networks of `student`."""

    def __init__(self, engine: str | Path, student: Recipe, *, temperature: float, device: str = "auto") -> None:
        self._session = open_session(engine, device)
        recipe = self._session.recipe
        if recipe.output.kind != "simcc" or student.output.kind != "simcc":
            self._session.close()
            raise TrainingError(
                f"teacher '{engine}' of {recipe.output.kind} outputs cannot teach recipe '{student.name}' of "
                f"{student.output.kind} outputs: both must be SimCC networks"
            )
        matched = match_joints(recipe.skeleton.joints, student.skeleton.joints)
        if len(matched.missing) == student.joints:
            self._session.close()
            raise TrainingError(
                f"teacher '{engine}' has none of the joints of recipe '{student.name}' (it has "
                f"{', '.join(recipe.skeleton.joints)}); choose one of the same joints"
            )
        self.view = View.of(recipe, student)
        self._places = [place or 0 for place in matched.places]
        self._known = np.array([place is not None for place in matched.places], np.float32)
        self._sharpness = stated_spread(recipe).sharpness
        self._temperature = temperature
        self._ratios = float(student.output.split_ratio or 0), float(recipe.output.split_ratio or 0)

    @property
    def key(self) -> str:
        """Which engine it is."""
        return self._session.engine.manifest.key

    def targets(self, views: Float32Array, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """What the teacher says of N crops: distributions along x (N x K x Wx) and y (N x K x Hy), and weights N x K.

        `size_hw`: of the student's crop, whose bins they are over.
        """
        import torch

        chosen = self._session.recipe.input
        pixels = views[:, ::-1] if chosen.colour == "rgb" else views
        mean, std = (np.reshape(np.array(values, np.float32), (1, 3, 1, 1)) for values in (chosen.mean, chosen.std))
        crops = np.ascontiguousarray((pixels - mean) / std)
        size = self._session.max_batch
        parts = [self._session.run(crops[first : first + size]) for first in range(0, len(crops), size)]
        axes = list(zip(*parts, strict=True))[:2]
        logits = [torch.from_numpy(np.concatenate(axis)[:, self._places]) for axis in axes]
        (x, inside_x), (y, inside_y) = (self._moved(axis, which, size_hw) for which, axis in enumerate(logits))
        return x, y, torch.from_numpy(self._known) * torch.minimum(inside_x, inside_y)

    def loss(self, outputs: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Weighted mean KL divergence at the temperature, times its square (Hinton et al., 2015)."""
        from sdk.training.losses import simcc_loss

        device, heat = outputs[0].device, self._temperature
        x, y, weights = (target.to(device) for target in targets)
        return heat**2 * simcc_loss((outputs[0], outputs[1]), (x, y), weights, beta=1 / heat)

    def close(self) -> None:
        self._session.close()

    def _moved(self, logits: Tensor, axis: int, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Distributions over the student's bins, N x K x bins, and how much of the teacher's lay within, N x K."""
        import torch

        probable = (self._sharpness * logits / self._temperature).softmax(dim=2)
        places = torch.from_numpy(self.view.bins(axis, size_hw, self._ratios))
        low = places.floor().long()
        part, last = places - low, logits.shape[2] - 1
        inside = (places >= 0) & (places <= last)
        left, right = (probable[..., index.clamp(0, last)] for index in (low, low + 1))
        moved = (left + (right - left) * part) * inside
        total = moved.sum(dim=2, keepdim=True)
        step = float(places[1] - places[0])
        return moved / total.clamp_min(1e-6), (total[..., 0] * step).clamp(0, 1)

"""The proof of a graph put into the SDK's form: what it gives, and the poses made of it, beside the original's.

The original's outputs are read by plain numpy (argmax, its own score rule), ours by the engine's own decoding. Crops
are given to ours together, to the original one by one.

    proof = Proof(recipe, ends, crops=proof_crops(recipe), expected=rows, tolerance=1e-3)
    reason = proof.differs(model, batch=None)                  # None: nothing differs
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from sdk.recipe import Recipe
from sdk.runtime.ort_session import onnxruntime_errors
from sdk.toolchain.comparison import rendered_picture
from sdk.toolchain.ends import End
from sdk.toolchain.graphs import graph_session

__all__ = ["Proof", "first_line", "proof_crops"]

CROPS = 3

Array = NDArray[Any]
Rows = list[Array]  # an array for each end: crops x K x bins


@dataclass(frozen=True)
class Proof:
    """Crops, and what the original gives for each of them by itself. `expected`: an array for each end."""

    recipe: Recipe
    ends: tuple[End, ...]
    crops: NDArray[np.uint8]  # N x h x w x 3, in the recipe's colour order
    expected: Rows
    tolerance: float

    def differs(self, model: onnx.ModelProto, batch: int | None) -> str | None:
        """How a graph in our form, with this batch or any, differs from the original; None where it does not."""
        source = self.recipe.input
        values = (self.crops.astype(np.float64) - source.mean) / source.std
        feed = np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)
        parts = [feed] if batch is None else [np.repeat(crop[None], batch, axis=0) for crop in feed]
        try:
            session = graph_session(model)
            runs = [session.run(list(self.recipe.output.names), {source.name: part}) for part in parts]
        except onnxruntime_errors() as error:
            return first_line(error)
        found = [
            np.concatenate([run[i][: len(feed) if batch is None else 1] for run in runs]) for i in range(len(self.ends))
        ]
        for end, ours, theirs in zip(self.ends, found, self.expected, strict=True):
            if ours.shape != theirs.shape:
                return f"output '{end.target}' has the shape {ours.shape}, not {theirs.shape}"
            given = _softmax(ours) if end.probabilities else ours
            distance = float(np.abs(given - theirs).max() / max(np.abs(theirs).max(), 1e-30))
            if not distance <= self.tolerance:
                return f"output '{end.target}' differs by {distance:.2g} of its largest value"
        return self._other_poses(found)

    def _other_poses(self, found: Rows) -> str | None:
        """How the poses that the engine's decoding makes of ours differ from plain argmax of the original's."""
        if self.recipe.output.kind == "heatmap":
            return None
        poses, rule = _decoded(found, self.recipe), self.recipe.output.score
        peaks, slack = [], 0.0
        for axis, (end, theirs) in enumerate(zip(self.ends[:2], self.expected[:2], strict=True)):
            bins = np.rint(poses[..., axis] * (self.recipe.output.split_ratio or 1.0)).astype(int)[..., None]
            best, near = theirs.max(axis=-1), 2 * self.tolerance * np.abs(theirs).max()
            if not (np.take_along_axis(theirs, bins, axis=-1)[..., 0] >= best - near).all():
                return f"joints lie in other bins of '{end.target}'"
            peaks.append(best if end.probabilities or rule != "min_softmax" else _softmax(theirs).max(axis=-1))
            slack = max(slack, near)
        score = np.mean(peaks, axis=0) if rule == "mean_logit" else np.min(peaks, axis=0)
        return None if np.abs(score - poses[..., 2]).max() <= slack else "scores differ"


def proof_crops(recipe: Recipe) -> NDArray[np.uint8]:
    """Crops N x h x w x 3 of whole grey levels: rendered figures under noise."""
    import cv2

    width, height = recipe.input.width, recipe.input.height
    crops = [cv2.resize(rendered_picture(seed), (width, height)) for seed in range(CROPS)]
    noise = np.random.default_rng(0).integers(-40, 41, (CROPS, height, width, 3))
    return np.asarray(np.clip(np.stack(crops) + noise, 0, 255), np.uint8)


def _decoded(outputs: Rows, recipe: Recipe) -> NDArray[np.float32]:
    from sdk import ops

    output = recipe.output
    assert output.split_ratio is not None and output.score is not None
    affines = np.broadcast_to(np.array([[1, 0, 0], [0, 1, 0]], np.float32), (len(outputs[0]), 2, 3)).copy()
    x, y = (np.ascontiguousarray(array, np.float32) for array in outputs[:2])  # a third axis has no say in the score
    poses: NDArray[np.float32] = ops.decode(x, y, affines, output.split_ratio, score=output.score)
    return poses


def _softmax(logits: Array) -> Array:
    exact = np.asarray(logits, np.float64)
    powers = np.exp(exact - exact.max(axis=-1, keepdims=True))
    sums: Array = powers / powers.sum(axis=-1, keepdims=True)
    return sums


def first_line(error: Exception) -> str:
    """An error of another library in one line."""
    return (str(error) or type(error).__name__).splitlines()[0][:300]

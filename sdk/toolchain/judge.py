"""What a changed graph costs on real crops, against the float graph: keypoint distance, OKS, AP, output divergence.

Runs the Q/DQ graph as it is written, on ONNX Runtime (`sdk.toolchain.graphs.graph_session`).
Benchmarks and reports of finished engines are `sdk.evaluate`'s; this serves decisions while an engine is built.

    judge = Judge(model, crops)
    judge.cost_of(quantised).oks_loss          # 100 x (1 - mean OKS with the float network's keypoints)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from sdk import ops
from sdk.heatmap import decode_heatmaps
from sdk.oks import areas_from_boxes, joint_similarity
from sdk.recipe import Recipe
from sdk.toolchain.crops import CropBatch, CropSet, Person
from sdk.toolchain.graphs import graph_session

__all__ = ["Cost", "Judge", "single_person_ap"]

THRESHOLDS = np.arange(0.5, 0.96, 0.05)  # of OKS, as COCO's AP
RECALLS = np.linspace(0, 1, 101)

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cost:
    """Losses against the float network on the judge's crops; `ap_loss` is None without ground truth."""

    distance_px: float  # crop pixels
    oks_loss: float  # points
    ap_loss: float | None  # points
    divergence: float  # of softmaxed bins (Kullback-Leibler, nats a joint and axis); of heatmaps: noise over signal


class Judge:
    """Crops, and what the float graph answers on them. One judge serves many graphs."""

    def __init__(self, model: onnx.ModelProto, crops: CropSet, *, batch: int = 16) -> None:
        self.recipe = crops.recipe
        self.batches = list(crops.batches(batch))
        self.people = [person for part in self.batches for person in part.people]
        self._scale_px = np.concatenate([part.affines[:, 0, 0] for part in self.batches])  # frame pixels a crop pixel
        self._outputs = self._run(model)
        self._keypoints = self._decoded(self._outputs)
        self.float_ap = self._ap(self._keypoints)

    def cost_of(self, model: onnx.ModelProto) -> Cost:
        """What `model` loses against the float graph."""
        outputs = self._run(model)
        keypoints = self._decoded(outputs)
        distances = np.linalg.norm(keypoints[..., :2] - self._keypoints[..., :2], axis=2) / self._scale_px[:, None]
        similar = joint_similarity(
            keypoints[..., :2], self._keypoints[..., :2], _areas(self.people), self.recipe.skeleton.tolerances
        ).mean()
        ap = self._ap(keypoints)
        return Cost(
            distance_px=float(distances.mean()),
            oks_loss=100 * (1 - float(similar)),
            ap_loss=None if ap is None or self.float_ap is None else self.float_ap - ap,
            divergence=_divergence(outputs, self._outputs, self.recipe),
        )

    def _run(self, model: onnx.ModelProto) -> list[list[Float32Array]]:
        session, names = graph_session(model, threads=0), list(self.recipe.output.names)
        return [session.run(names, {self.recipe.input.name: part.inputs}) for part in self.batches]

    def _decoded(self, outputs: Sequence[Sequence[Float32Array]]) -> Float32Array:  # P x K x 3, frame pixels
        decoded = [_keypoints(o, part, self.recipe) for o, part in zip(outputs, self.batches, strict=True)]
        return np.concatenate(decoded)

    def _ap(self, keypoints: Float32Array) -> float | None:  # P x K x 3
        annotated = [i for i, person in enumerate(self.people) if person.keypoints is not None]
        if not annotated:
            return None
        truth = np.stack([np.asarray(self.people[i].keypoints) for i in annotated])
        areas = _areas([self.people[i] for i in annotated])
        joints = joint_similarity(keypoints[annotated, :, :2], truth[..., :2], areas, self.recipe.skeleton.tolerances)
        seen = truth[..., 2] > 0
        counted = seen.any(axis=1)
        similar = (joints * seen).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
        scores = keypoints[annotated, :, 2].mean(axis=1)
        return single_person_ap(similar[counted], scores[counted]) if counted.any() else None


def single_person_ap(
    oks: Float64Array,  # P, of each prediction with its own annotation
    scores: NDArray[np.floating[Any]],  # P
) -> float:
    """COCO's AP in points where every annotated person has exactly one prediction, its own."""
    order = np.argsort(-scores, kind="stable")
    precisions = []
    for threshold in THRESHOLDS:
        right = np.cumsum(oks[order] >= threshold)
        precision = right / np.arange(1, len(order) + 1)
        ceiling = np.maximum.accumulate(precision[::-1])[::-1]
        reached = np.searchsorted(right / len(order), RECALLS)
        precisions.append(np.append(ceiling, 0.0)[reached].mean())
    return 100 * float(np.mean(precisions))


def _keypoints(outputs: Sequence[Float32Array], part: CropBatch, recipe: Recipe) -> Float32Array:
    ratio, score = recipe.output.split_ratio, recipe.output.score
    if ratio is None or score is None:
        return decode_heatmaps(outputs[0], part.affines, recipe.input.size_hw)
    decoded: Float32Array = ops.decode(outputs[0], outputs[1], part.affines, ratio, score=score)
    return decoded


def _areas(people: Sequence[Person]) -> Float64Array:
    """Annotated areas in frame pixels, else those of the boxes."""
    whole = areas_from_boxes(np.array([person.box_xyxy for person in people], np.float64))
    return np.array([w if p.area_px2 is None else p.area_px2 for p, w in zip(people, whole, strict=True)])


def _divergence(
    outputs: Sequence[Sequence[Float32Array]], expected: Sequence[Sequence[Float32Array]], recipe: Recipe
) -> float:
    pairs = [pair for o, e in zip(outputs, expected, strict=True) for pair in zip(o, e, strict=True)]
    if recipe.output.kind == "heatmap":
        noise = sum(float(np.square(o - e).sum()) for o, e in pairs)
        return noise / sum(float(np.square(e).sum()) for _, e in pairs)
    total = sum(float((np.exp(_log_softmax(e)) * (_log_softmax(e) - _log_softmax(o))).sum()) for o, e in pairs)
    return total / float(sum(e.shape[0] * e.shape[1] for _, e in pairs))


def _log_softmax(logits: Float32Array) -> Float64Array:  # N x K x bins
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), np.float64)

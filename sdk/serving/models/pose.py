"""Triton's Python backend: frames and boxes of requests, poses of all of them in one batch (`PoseEstimator.many`).

The server's Python needs the SDK installed. `engine/` beside this file is the engine that it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from sdk import PoseEstimator, Poses, SdkError
from sdk.serving.tensors import array_from, tensor_from

__all__ = ["TritonPythonModel"]


class TritonPythonModel:
    """FRAME B x H x W x 3 and, where given, BOXES B x N x 4 -> KEYPOINTS B x N x K x 2, SCORES B x N x K."""

    def initialize(self, args: Mapping[str, str]) -> None:
        folder = Path(args["model_repository"]) / args["model_version"] / "engine"
        on_gpu = args["model_instance_kind"] == "GPU"
        self.estimate = PoseEstimator(folder, device=f"cuda:{args['model_instance_device_id']}" if on_gpu else "cpu")
        self.estimate.warm()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """An answer for each request; one that cannot be served is told so, and the others are."""
        given = [_frames_of(request) for request in requests]
        try:
            together = self._poses([pair for pairs in given for pair in pairs])
        except SdkError:
            return [self._alone(pairs) for pairs in given]
        answers = iter(together)
        return [_response([next(answers) for _ in pairs]) for pairs in given]

    def finalize(self) -> None:
        self.estimate.close()

    def _alone(self, pairs: Sequence[tuple[Any, Any]]) -> Any:
        try:
            return _response(self._poses(pairs))
        except SdkError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))

    def _poses(self, pairs: Sequence[tuple[Any, Any]]) -> list[Poses]:
        return self.estimate.many([frame for frame, _ in pairs], [boxes for _, boxes in pairs])


def _frames_of(request: Any) -> list[tuple[NDArray[np.uint8], NDArray[np.float32] | None]]:
    """The frames of a request, each with its boxes, or None for the whole frame."""
    frames = array_from(pb_utils.get_input_tensor_by_name(request, "FRAME"))
    given = pb_utils.get_input_tensor_by_name(request, "BOXES")
    boxes = [None] * len(frames) if given is None else list(array_from(given))
    return list(zip(frames, boxes, strict=True))


def _response(poses: Sequence[Poses]) -> Any:
    values = {"KEYPOINTS": [each.keypoints for each in poses], "SCORES": [each.scores for each in poses]}
    if poses[0].depths is not None:
        values["DEPTHS"] = [each.depths for each in poses if each.depths is not None]
    return pb_utils.InferenceResponse([tensor_from(pb_utils, name, np.stack(rows)) for name, rows in values.items()])

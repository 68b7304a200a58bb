"""Triton's Python backend: a network's distributions and the crops' affines, joints in frame pixels (`sdk.ops.decode`).

The server's Python needs the SDK installed. `engine.json` beside this file says how the network is to be decoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from sdk import SdkError, ops
from sdk.errors import EngineError
from sdk.manifest import MANIFEST_NAME, Manifest, manifest_from_table
from sdk.reading import json_from_file
from sdk.runtime.decoding import decoding_of
from sdk.serving.tensors import array_from, tensor_from

__all__ = ["TritonPythonModel"]


class TritonPythonModel:
    """Distributions N x K x bins of each axis, AFFINES N x 2 x 3 -> JOINTS N x K x C: x, y, score, and a depth."""

    def initialize(self, args: Mapping[str, str]) -> None:
        path = Path(args["model_repository"]) / args["model_version"] / MANIFEST_NAME
        manifest = manifest_from_table(json_from_file(path, "manifest", EngineError), str(path))
        if not isinstance(manifest, Manifest):
            raise EngineError(f"'{path}' is of a detector; export the model repository again")
        output = manifest.recipe.output
        assert output.split_ratio is not None and output.score is not None, "of kind simcc"
        self.names, self.split_ratio, self.score = output.names, output.split_ratio, output.score
        self.depth = decoding_of(manifest.recipe).depth

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        names = (*self.names, "AFFINES")
        x, y, *z, affines = (array_from(pb_utils.get_input_tensor_by_name(request, name)) for name in names)
        try:
            joints = ops.decode(
                x, y, affines, self.split_ratio, score=self.score, simcc_z=z[0] if z else None, depth=self.depth
            )
        except SdkError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        return pb_utils.InferenceResponse([tensor_from(pb_utils, "JOINTS", joints)])

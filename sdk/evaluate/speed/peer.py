"""Another library on the same graph, for `sdk benchmark --peer`: rtmlib, as its users call it. Only for comparison.

    peer = rtmlib_peer(engine, threads=None)
    keypoints, scores = peer.estimate(frame_bgr, boxes_xyxy)

rtmlib takes pixels as they come and does not turn BGR into RGB; it is handed the frame in the network's channel order,
turned before the clock starts, so that both libraries compute the same poses.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError, MissingDependencyError
from sdk.manifest import Engine
from sdk.onnx_runtime import onnxruntime
from sdk.runtime.ort_session import onnxruntime_session
from sdk.wording import counted

__all__ = ["Peer", "rtmlib_peer"]

Frame = NDArray[np.uint8]
RTMLIB_SPLIT_RATIO = 2.0  # fixed in its code
RTMLIB_PADDING = 1.25


@dataclass(frozen=True)
class Peer:
    """A library to hold the SDK against. `in_its_order` prepares a BGR frame, outside the timing."""

    name: str
    version: str
    note: str
    estimate: Callable[[Frame, Any], tuple[NDArray[np.float32], NDArray[np.float32]]]
    in_its_order: Callable[[Frame], Frame]


def rtmlib_peer(engine: Engine, threads: int | None = None) -> Peer:
    """rtmlib's `RTMPose` on the engine's graph, on the CPU, with ONNX Runtime. InputError for what it cannot run."""
    recipe = engine.manifest.recipe
    if recipe.output.split_ratio != RTMLIB_SPLIT_RATIO or recipe.input.box_padding != RTMLIB_PADDING:
        raise InputError(
            "rtmlib decodes with 2 bins a pixel and pads boxes by 1.25, fixed in its code; engine "
            f"'{engine.folder.name}' has {recipe.output.split_ratio} and {recipe.input.box_padding}; compare another"
        )
    try:
        onnxruntime()  # before rtmlib imports it
        from rtmlib import RTMPose
    except ImportError as error:
        raise MissingDependencyError("--peer rtmlib needs rtmlib; pip install rtmlib") from error
    height, width = recipe.input.size_hw
    with contextlib.redirect_stdout(io.StringIO()):  # its constructor prints
        model = RTMPose(
            str(engine.graph_path),
            model_input_size=(width, height),
            mean=recipe.input.mean,
            std=recipe.input.std,
            backend="onnxruntime",
            device="cpu",
        )
    if threads is not None:
        model.session = onnxruntime_session(engine.graph_path, threads)
    turned = recipe.input.colour == "rgb"
    return Peer(
        "rtmlib",
        metadata.version("rtmlib"),
        f"ONNX Runtime on the CPU, {counted(threads, 'thread') if threads else 'all cores'}, one person a run, "
        "as rtmlib does",
        model,
        lambda frame: np.ascontiguousarray(frame[..., ::-1]) if turned else frame,
    )

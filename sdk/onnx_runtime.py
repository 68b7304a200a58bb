"""ONNX Runtime in one place: the only module that imports it. What is run on it is `sdk.runtime` and `sdk.toolchain`.

From 1.29 on its wheels for Linux and macOS tell Microsoft of their use, cameras or not: hashes and names of graphs, the
machine, an identifier kept in the user's cache folder (looked at in 1.32; microsoft/onnxruntime#27379). They ask the
environment once, when they are imported, and not to do so is asked of them here, unless the variable is set already. A
program that imports ONNX Runtime itself, and before, has decided for itself.

    session = onnxruntime().InferenceSession("network.onnx")
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

__all__ = ["TELEMETRY_VARIABLE", "onnxruntime"]

TELEMETRY_VARIABLE = "ORT_DISABLE_TELEMETRY"


def onnxruntime() -> Any:
    """The module, imported; ImportError where it cannot be."""
    os.environ.setdefault(TELEMETRY_VARIABLE, "1")
    return import_module("onnxruntime")

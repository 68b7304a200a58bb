"""What a training run needs installed: asked before the first epoch, not found out after the last.

check_packages(TRAINING)                # MissingDependencyError names what is missing and how to get it
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from sdk.errors import MissingDependencyError

__all__ = ["GRAPH", "TRAINING", "check_packages"]

TRAINING = ("torch", "safetensors", "matplotlib", "pycocotools")
GRAPH = ("onnx", "onnxscript", "onnxslim")  # of the graph that `sdk train` writes at the end


def check_packages(names: Sequence[str]) -> None:
    """MissingDependencyError where one of the packages is not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"training needs {', '.join(missing)}, not installed here; pip install 'simcc-edge-sdk[train]'"
        )

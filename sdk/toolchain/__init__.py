"""From a network to an engine: export, precision, calibration, quantisation, compilation. Build time only.

from sdk.toolchain.build import BuildOptions, build_engine
"""

from sdk.errors import MissingDependencyError

__all__: list[str] = []

try:
    import onnx as onnx
except ImportError as error:
    raise MissingDependencyError(
        f"building needs the onnx package, which cannot be imported ({error}); pip install onnx to rebuild an engine "
        "from its own graph, 'simcc-edge-sdk[build]' to start from a checkpoint"
    ) from error

"""What the Python bindings of a TensorRT version offer, recorded from the real ones for `tests/test_trt_api.py`.

A record is {class: {member: "property" | "value" | [signature, ...]}}. To record another version of TensorRT, or the
TensorRT-RTX that is installed:

    tests/support/trt_api/record.sh 10.16.1.11
    python -m tests.support.trt_api tensorrt_rtx tests/support/trt_api/tensorrt-rtx-1.7.1.116.json
"""

import importlib
import importlib.machinery
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

CLASSES = (
    "Builder", "BuilderFlag", "ComputeCapability", "CudaGraphStrategy", "DataType", "DeviceType",
    "DynamicShapesKernelSpecializationStrategy", "EngineInspector",
    "EngineInvalidityDiagnostics", "EngineValidity",
    "ExecutionContextAllocationStrategy", "IBuilderConfig", "ICudaEngine", "IExecutionContext", "IHostMemory",
    "ILogger", "INetworkDefinition", "IOptimizationProfile", "IProgressMonitor", "IRuntimeCache", "IRuntimeConfig",
    "ITimingCache", "LayerInformationFormat", "MemoryPoolType", "NetworkDefinitionCreationFlag", "OnnxParser",
    "ParserError", "ProfilingVerbosity", "Runtime", "TensorIOMode",
)  # fmt: skip

BITS = {  # of EngineInvalidityDiagnostics
    "VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4, "OLD_CUDA_RUNTIME": 8,
    "INSUFFICIENT_GPU_MEMORY": 16, "MALFORMED_ENGINE": 32, "CUDA_ERROR": 64,
}  # fmt: skip


def record_of(module):
    """The record of an imported bindings module."""
    return {
        name: {
            member: described(getattr(cls, member))
            for member in sorted(dir(cls))
            if not member.startswith("_") or member == "__init__"
        }
        for name in CLASSES
        if (cls := getattr(module, name, None)) is not None
    }


def described(member):
    if isinstance(member, property):
        return "property"
    lines = re.findall(r"^(?:\d+\. )?\w+\(self.*\).*$", getattr(member, "__doc__", "") or "", re.MULTILINE)
    return [_short(line) for line in lines] if callable(member) else "value"


def _short(line):
    """A signature without names of modules and the enumerations' numbers, which differ for no reason that matters."""
    line = re.sub(r"^\d+\. ", "", line)
    line = re.sub(r"\b(?:tensorrt_rtx_bindings\.tensorrt_rtx|tensorrt_bindings\.tensorrt|tensorrt)\.", "", line)
    line = re.sub(r"\b(?:collections\.abc|typing_extensions|types)\.(?=Buffer|CapsuleType)", "", line)
    return re.sub(r"<(\w+\.\w+): -?\d+>", r"\1", line)


def arities(signatures):
    """(fewest, most) arguments after self of each overload."""
    found = []
    for signature in signatures:
        inside = signature[signature.index("(") + 1 : signature.rindex(")")] if "->" not in signature else (
            signature[signature.index("(") + 1 : signature.rindex(") ->")]
        )  # fmt: skip
        parameters = _split(inside)[1:]
        found.append((sum("=" not in each for each in parameters), len(parameters)))
    return found


def _split(text):
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def records():
    """Every record kept here, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(Path(__file__).parent.glob("*.json"))}


def bindings_at(path):
    """The module of a bindings file, its symbols bound only when called, so that empty libraries serve."""
    sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_LOCAL)
    loader = importlib.machinery.ExtensionFileLoader("tensorrt", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("tensorrt", path, loader=loader))
    loader.exec_module(module)
    return module

"""The build backend: setuptools', and a compiler for the GPU that is there. pyproject.toml names it.

Where a driver of CUDA 13 or newer is found, or SDK_CUDA_ARCHITECTURES names GPUs, and no nvcc is, the build asks for
NVIDIA's compiler packages; the frontend installs them for the length of the build. Elsewhere it asks for nothing.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  a backend is the functions that its module names

sys.path.insert(0, str(Path(__file__).resolve().parent))
from build_native import cuda_toolkit

# One release of all: nvcc's own requirement names no versions, and mixed releases fail. ptxas before 13.1
# stores some halves wrong (docs/kernels.md). cccl holds cuda_fp16.h's <nv/target>.
COMPILER = (
    "nvidia-cuda-nvcc==13.5.37",
    "nvidia-nvvm==13.5.37",
    "nvidia-cuda-crt==13.5.37",
    "nvidia-cuda-runtime==13.5.37",
    "nvidia-cuda-cccl==13.3.5.0.6",
)
OLDEST_DRIVER = 13000  # as cuDriverGetVersion counts; the index has no nvcc of CUDA 12
Settings = Mapping[str, Any]


def get_requires_for_build_wheel(config_settings: Settings | None = None) -> list[str]:
    """setuptools' requirements, and the compiler where it is wanted."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *compiler_packages()]


def get_requires_for_build_editable(config_settings: Settings | None = None) -> list[str]:
    """The same for an editable install."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *compiler_packages()]


def compiler_packages() -> tuple[str, ...]:
    """What the build of the CUDA half needs beside setuptools on this machine."""
    asked = os.environ.get("SDK_CUDA_ARCHITECTURES", "").strip()
    if asked == "none" or cuda_toolkit.named_home() or cuda_toolkit.find_nvcc().path:
        return ()
    return COMPILER if asked or driver_version() >= OLDEST_DRIVER else ()


def driver_version() -> int:
    """What the driver serves, as in 13000 for CUDA 13.0; 0 without one."""
    version = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    return version.value if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 else 0

"""The checks of tests/gpu on a simulated device, so that they are known to work before a GPU is at hand:

    python -m pytest -p tests.support.rehearsal tests/gpu/test_ops_gpu.py tests/gpu/test_pipeline.py

The SDK's own CUDA code runs on the CPU (`emulated_gpu`), a stand-in takes the plan's place, PyCUDA is simulated. What
needs a process of its own, another library on the GPU or a second context is skipped. It proves nothing of a GPU.
"""

import atexit
import shutil
import tempfile
from pathlib import Path

import pytest

FEW = {"FRAMES": 40, "WARM": 8, "TURNS": 3}  # of what a GPU does by the thousand
NEEDS_MORE = ("another_context", "time_of_the_ops")


def pytest_configure(config):
    begin()


def begin(**switches):
    """Put the simulated device in the GPU's place, for the rest of the process."""
    from sdk import _native
    from sdk.runtime.cuda import gpu_pipeline, tensorrt_session
    from tests.support import gpu_engines, stand_in
    from tests.support.emulated_gpu import emulated_cuda
    from tests.support.simulated_cuda import Simulated, install_device

    folder = Path(tempfile.mkdtemp(prefix="rehearsal-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    patch = pytest.MonkeyPatch()
    cuda = emulated_cuda(folder)
    kernels = install_device(patch, Simulated(memory_bytes=8 << 30, **switches), cuda)
    patch.setattr(_native, "cuda", cuda)
    for module in (gpu_pipeline, tensorrt_session):
        patch.setattr(module, "NativeKernels", lambda: kernels)
    patch.setattr(gpu_engines, "compilers", list)
    for module in (gpu_engines, stand_in):
        patch.setattr(module, "library_of", lambda folder: cuda.library)


def pytest_collection_modifyitems(items):
    for item in items:
        for name, few in FEW.items():
            if hasattr(item.module, name):
                setattr(item.module, name, few)
        if any(part in item.name for part in NEEDS_MORE):
            item.add_marker(pytest.mark.skip(reason="the simulated device has one context and no speed"))

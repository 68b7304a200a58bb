"""cpp_ext/cuda, kernels and bindings, compiled as C++ and run on the CPU, thread by thread; see emulated_cuda/.

cuda = emulated_cuda(folder)                 # a module like sdk._native.cuda
gpu = EmulatedGpu(cuda)                      # both ops on numpy arrays
gpu.crop(out, frame, affines, mean=MEAN, std=STD)
"""

import ctypes
import importlib.machinery
import importlib.util
import re
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path

import numpy as np

from sdk.runtime.cuda.kernels import NativeKernels, frame_record

ROOT = Path(__file__).resolve().parents[2]
SHIM = Path(__file__).resolve().parent / "emulated_cuda"
LAUNCH = re.compile(r"(\w+<[^<>]*>)<<<(.*?)>>>\((.*?)\);", re.DOTALL)
FLAGS = ("-std=c++17", "-O1", "-g0", "-ffp-contract=off", "-fPIC", "-fvisibility=default", "-w", "-pthread")
FLAGS += ("-U_FORTIFY_SOURCE",)  # which takes a jump to another thread's stack for a fault
NANOBIND = ("-DNB_DOMAIN=emulated",)  # types of its own: sdk._native may be loaded too
CUDA = (*NANOBIND, "-D__CUDACC__=1", "-DSDK_WITH_CUDA", '-DSDK_CUDA_ARCHITECTURES="emulated"')


def compiler():
    return shutil.which("g++") or shutil.which("clang++")


@cache
def emulated_cuda(folder):
    """Compile into `folder` and load. Launches become calls of emulate_launch; nothing else of cpp_ext is changed."""
    import nanobind

    sources = {SHIM / name: CUDA for name in ("driver.cpp", "runtime.cpp", "module.cpp")}
    sources[ROOT / "cpp_ext/cuda/bindings_cuda.cpp"] = CUDA
    sources[Path(nanobind.source_dir()) / "nb_combined.cpp"] = (*NANOBIND, "-fno-strict-aliasing")
    for kernel in (ROOT / "cpp_ext/cuda/crop.cu", ROOT / "cpp_ext/cuda/decode.cu", SHIM.parent / "stand_in.cu"):
        text, launches = LAUNCH.subn(r"emulate_launch(\2, Kernel<\1>::with(\3));", kernel.read_text())
        assert launches >= 1
        written = folder / f"{kernel.stem}.cpp"
        written.write_text(text.replace('"../sdk_ops.h"', '"sdk_ops.h"'))
        sources[written] = CUDA
    package = Path(nanobind.include_dir())
    robin_map = package.parent / "ext/robin_map/include"
    includes = [f"-I{path}" for path in (SHIM, ROOT / "cpp_ext", package, robin_map, sysconfig.get_path("include"))]
    run_together(
        [compiler(), *FLAGS, *flags, *includes, "-c", source, "-o", folder / f"{source.stem}.o"]
        for source, flags in sources.items()
    )
    library = folder / "emulated.so"
    subprocess.run([compiler(), "-shared", "-o", library, *folder.glob("*.o"), "-pthread"], check=True)
    return loaded(library)


def run_together(commands):
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    for each in running:
        _, said = each.communicate()
        assert each.returncode == 0, said


def loaded(library):
    """The module in a library that `emulated_cuda` made."""
    loader = importlib.machinery.ExtensionFileLoader("emulated", str(library))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("emulated", loader))
    loader.exec_module(module)
    cuda = module.cuda
    cuda.path, cuda.library = library, ctypes.CDLL(str(library))
    cuda.library.emulated_bad_reads.restype = ctypes.c_int64
    return cuda


CODE, POINTER = ctypes.c_int, ctypes.c_void_p
RUN = ctypes.CFUNCTYPE(None, POINTER)


class Hooks(ctypes.Structure):
    """A simulated device's functions, as in emulated_cuda/runtime.cpp."""

    _fields_ = (
        ("put", ctypes.CFUNCTYPE(CODE, POINTER, POINTER, POINTER)),
        ("query", ctypes.CFUNCTYPE(CODE, POINTER)),
        ("begin", ctypes.CFUNCTYPE(CODE, POINTER)),
        ("capturing", ctypes.CFUNCTYPE(CODE, POINTER)),
        ("end", ctypes.CFUNCTYPE(POINTER, POINTER)),
        ("instantiate", ctypes.CFUNCTYPE(CODE, POINTER)),
        ("launch", ctypes.CFUNCTYPE(CODE, POINTER, POINTER)),
        ("destroy", ctypes.CFUNCTYPE(None, POINTER)),
        ("wait", ctypes.CFUNCTYPE(CODE, POINTER, POINTER)),
        ("mapped", ctypes.CFUNCTYPE(POINTER, POINTER)),
    )


class EmulatedKernels(NativeKernels):
    """What the run time asks of the extension, from the emulated CUDA half on a simulated device."""

    def __init__(self, cuda, device, hooks):
        self._cuda, self.device, cuda.hooks = cuda, device, hooks  # the library keeps no hold of them
        cuda.library.emulated_hooks(ctypes.byref(hooks))


def address(array):
    return array.ctypes.data if array is not None else 0


class EmulatedGpu:
    """Both ops as the CUDA half binds them, on numpy arrays."""

    def __init__(self, cuda):
        self._cuda = cuda

    def crop(self, out, frame, affines, *, mean, std, swap=True, yuv=None, on_device=False):
        """Fills `out`; the number of reads outside the frame. `frame`: H x W x 3, or, with `yuv`, NV12's planes."""
        from sdk import ops

        data, chroma = frame if yuv else (frame, None)
        strides = data.strides[0], chroma.strides[0] if yuv else 0
        values = (address(data), address(chroma), *strides, *data.shape[:2])
        record = ctypes.create_string_buffer(frame_record(*values), 40)
        rules = (*ops.normalisation(mean, std), swap, out.dtype == np.float16, yuv is not None, yuv or (0.0,) * 6, 0)
        sizes = (address(affines), len(affines), *out.shape[2:])
        self._cuda.library.emulated_declare(record, int(yuv is not None))
        try:
            if on_device:
                self._cuda.crop(address(out), ctypes.addressof(record), *sizes, *rules)
            else:
                self._cuda.crop_frame(address(out), values, *sizes, *rules)
        finally:
            self._cuda.library.emulated_declare(None, 0)
        return self._cuda.library.emulated_bad_reads()

    def decode(
        self, x, y, affines, split_ratio, *, score="min_logit", refine="none", flipped=None, partner=None, shift=0
    ):
        """N x K x 3 float32."""
        from sdk import ops

        out = np.full((*x.shape[:2], 3), np.nan, np.float32)
        mirrored = flipped or (None, None)
        self._cuda.decode(
            *map(address, (out, x, y, affines)), *x.shape[:2], x.shape[2], y.shape[2], split_ratio, ops.SCORES[score],
            ops.REFINEMENTS[refine], x.dtype == np.float16, 0, *map(address, (*mirrored, partner)), shift,
        )  # fmt: skip
        return out

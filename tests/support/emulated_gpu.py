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
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from sdk.runtime.cuda.kernels import FRAME_BYTES, NativeKernels, frame_record

ROOT = Path(__file__).resolve().parents[2]
SHIM = Path(__file__).resolve().parent / "emulated_cuda"
LAUNCH = re.compile(r"(\w+(?:<[^<>]*>)?)<<<(.*?)>>>\((.*?)\);", re.DOTALL)
FLAGS = ("-std=c++17", "-O1", "-g0", "-ffp-contract=off", "-fPIC", "-fvisibility=default", "-w", "-pthread")
FLAGS += ("-U_FORTIFY_SOURCE",)  # which takes a jump to another thread's stack for a fault
NANOBIND = ("-DNB_DOMAIN=emulated",)  # types of its own: sdk._native may be loaded too
CUDA = (
    *NANOBIND,
    "-D__CUDACC__=1",
    "-DSDK_WITH_CUDA",
    '-DSDK_CUDA_ARCHITECTURES="emulated"',
    '-DSDK_CUDA_COMPILER="g++"',
)


def compiler():
    return shutil.which("g++") or shutil.which("clang++")


@cache
def emulated_cuda(folder):
    """Compile into `folder` and load. Launches become calls of emulate_launch; nothing else of cpp_ext is changed."""
    import nanobind

    sources = {SHIM / name: CUDA for name in ("driver.cpp", "runtime.cpp", "module.cpp")}
    sources[ROOT / "cpp_ext/cuda/bindings_cuda.cpp"] = CUDA
    sources[Path(nanobind.source_dir()) / "nb_combined.cpp"] = (*NANOBIND, "-fno-strict-aliasing")
    kernels = sorted((ROOT / "cpp_ext/cuda").glob("*.cu"))
    for kernel in (*kernels, SHIM.parent / "stand_in.cu"):
        text, launches = LAUNCH.subn(r"emulate_launch(\2, Kernel<\1>::with(\3));", kernel.read_text())
        assert launches >= 1
        written = folder / f"{kernel.stem}.cpp"
        written.write_text(text.replace('#include "../', '#include "'))
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


CODE, POINTER, SIZE = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
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
        ("copy", ctypes.CFUNCTYPE(CODE, POINTER, POINTER, POINTER, SIZE, SIZE, SIZE, SIZE)),
        ("kernels", ctypes.CFUNCTYPE(SIZE, POINTER)),
    )


class EmulatedKernels(NativeKernels):
    """What the run time asks of the extension, from the emulated CUDA half on a simulated device."""

    def __init__(self, cuda, device, hooks):
        self._cuda, self.device, cuda.hooks = cuda, device, hooks  # the library keeps no hold of them
        cuda.library.emulated_hooks(ctypes.byref(hooks))


def address(array):
    return array.ctypes.data if array is not None else 0


def frame_values(data, chroma=None):
    """What a frame record holds of H x W x 3, or of NV12's planes."""
    strides = data.strides[0], chroma.strides[0] if chroma is not None else 0
    return (address(data), address(chroma), *strides, *data.shape[:2])


def listed(frame):
    return frame if isinstance(frame, list) else [frame]


class EmulatedGpu:
    """The ops as the CUDA half binds them, on numpy arrays."""

    def __init__(self, cuda):
        self._cuda, self.kernels = cuda, NativeKernels.__new__(NativeKernels)
        self.kernels._cuda = cuda

    def crop(self, out, frame, affines, *, mean, std, swap=True, yuv=None, on_device=False, border=0):
        """Fills `out`; the number of reads outside the frame. `frame`: H x W x 3, or, with `yuv`, NV12's planes.

        `on_device`: from a record a crop in memory; `frame` may then be a list of frames, one a crop.
        """
        values = [frame_values(*each) if yuv else frame_values(each) for each in listed(frame)]
        records = b"".join(frame_record(*each) for each in values)
        with self.declared(records, nv12=yuv is not None):
            if on_device:
                per_crop = records if isinstance(frame, list) else records * len(affines)
                self.crop_records(out, per_crop, affines, mean=mean, std=std, swap=swap, yuv=yuv)
            else:
                self._cuda.crop_frame(address(out), values[0], *self._work(out, affines, mean, std, swap, yuv), border)
        return self.bad_reads()

    def bad_reads(self):
        return self._cuda.library.emulated_bad_reads()

    def crop_records(self, out, records, affines, *, mean, std, swap=True, yuv=None):
        """Fills `out` from a record a crop, wherever the records say that the frames lie."""
        held = np.frombuffer(bytearray(records or bytes(FRAME_BYTES)), np.uint64)
        self._cuda.crop(address(out), address(held), *self._work(out, affines, mean, std, swap, yuv))

    @contextmanager
    def declared(self, records, *, nv12):
        """Reads outside the frames of these records are counted; `bad_reads` says how many there were."""
        held = ctypes.create_string_buffer(records, len(records))
        declare, count = self._cuda.library.emulated_declare, ctypes.c_size_t(len(records) // FRAME_BYTES)
        declare(held, count, int(nv12))
        try:
            yield
        finally:
            declare(None, ctypes.c_size_t(0), 0)

    @staticmethod
    def _work(out, affines, mean, std, swap, yuv):
        from sdk import ops

        rules = (*ops.normalisation(mean, std), swap, out.dtype == np.float16, yuv is not None, yuv or (0.0,) * 6, 0)
        return (address(affines), len(affines), *out.shape[2:], *rules)

    def decode(
        self,
        x,
        y,
        affines,
        split_ratio,
        *,
        score="min_logit",
        refine="none",
        z=None,
        depth=(0.0, False),
        spread=None,
        second=False,
        flipped=None,
        partner=None,
        shift=0,
    ):
        """N x K x C float32."""
        from sdk import ops

        columns = ops.Columns(z is not None, spread is not None, second).count
        out = np.full((*x.shape[:2], columns), np.nan, np.float32)
        mirrored = (*(flipped or ()), None, None, None)[:3]
        self._cuda.decode(
            *map(address, (out, x, y, affines)), *x.shape[:2], x.shape[2], y.shape[2], split_ratio, ops.SCORES[score],
            ops.REFINEMENTS[refine], x.dtype == np.float16, 0, *map(address, (*mirrored[:2], partner)), shift,
            address(z), address(mirrored[2]), 0 if z is None else z.shape[2], depth, spread, second,
        )  # fmt: skip
        return out

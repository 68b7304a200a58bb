"""The CUDA kernels compiled as C++ and run on the CPU, thread by thread; see emulated_cuda/cuda_runtime.h.

gpu = EmulatedGpu.built(tmp_path)
gpu.crop(out, frame, affines, mean=MEAN, std=STD)
"""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SHIM = Path(__file__).resolve().parent / "emulated_cuda"
LAUNCH = re.compile(r"(\w+<[^<>]*>)<<<(.*?)>>>\((.*?)\);", re.DOTALL)
SCORES = {"min_logit": 0, "mean_logit": 1, "min_softmax": 2}
REFINEMENTS = {"none": 0, "parabola": 1, "dark": 2, "expectation": 3}


class Frame(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("chroma", ctypes.c_void_p), ("stride", ctypes.c_int64),
        ("chroma_stride", ctypes.c_int64), ("height", ctypes.c_int32), ("width", ctypes.c_int32),
    )  # fmt: skip


class CropSpec(ctypes.Structure):
    _fields_ = (
        ("height", ctypes.c_int32), ("width", ctypes.c_int32),
        ("scale", ctypes.c_float * 3), ("bias", ctypes.c_float * 3),
        ("plane", ctypes.c_int32 * 3), ("half", ctypes.c_bool), ("yuv", ctypes.c_float * 6),
    )  # fmt: skip


class DecodeSpec(ctypes.Structure):
    _fields_ = (
        ("joints", ctypes.c_int32), ("x_bins", ctypes.c_int32), ("y_bins", ctypes.c_int32),
        ("split_ratio", ctypes.c_double),
        ("score", ctypes.c_int32), ("refine", ctypes.c_int32), ("half", ctypes.c_bool), ("flip_shift", ctypes.c_int32),
    )  # fmt: skip


class Logits(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in ("x", "y", "mirrored_x", "mirrored_y", "partner"))


def address(array):
    return array.ctypes.data if array is not None else None


class EmulatedGpu:
    """Both ops as the CUDA launchers offer them, on numpy arrays."""

    def __init__(self, library):
        self._library = ctypes.CDLL(str(library))
        self._library.emulated_crop.restype = ctypes.c_int64

    @classmethod
    def built(cls, folder):
        """Compile into `folder`. Launches become calls of emulate_launch; nothing else of the kernels is changed."""
        compiler = shutil.which("g++") or shutil.which("clang++")
        sources = [SHIM / "driver.cpp"]
        for name in ("crop", "decode"):
            text, launches = LAUNCH.subn(
                r"emulate_launch(\2, [&] { \1(\3); });", (ROOT / f"cpp_ext/cuda/{name}.cu").read_text()
            )
            assert launches >= 1
            sources.append(folder / f"{name}.cpp")
            sources[-1].write_text(text.replace('"../sdk_ops.h"', '"sdk_ops.h"'))
        flags = [
            "-std=c++17",
            "-O1",
            "-g",
            "-ffp-contract=off",
            "-fPIC",
            "-shared",
            "-D__CUDACC__=1",
            f"-I{SHIM}",
            f"-I{ROOT / 'cpp_ext'}",
        ]
        library = folder / "emulated.so"
        subprocess.run(
            [compiler, *flags, *map(str, sources), "-o", str(library)], check=True, capture_output=True, text=True
        )
        return cls(library)

    def crop(self, out, frame, affines, *, mean, std, swap=True, yuv=None, on_device=False):
        """Fills `out`; the number of reads outside the frame. `frame`: H x W x 3, or, with `yuv`, NV12's planes."""
        data, chroma = frame if yuv else (frame, None)
        height, width = data.shape[:2]
        record = Frame(address(data), address(chroma), data.strides[0], chroma.strides[0] if yuv else 0, height, width)
        planes = (2, 1, 0) if swap else (0, 1, 2)
        scale, bias = [1 / s for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
        spec = CropSpec(
            out.shape[2], out.shape[3], (ctypes.c_float * 3)(*(scale[p] for p in planes)),
            (ctypes.c_float * 3)(*(bias[p] for p in planes)), (ctypes.c_int32 * 3)(*planes), out.dtype == np.float16,
            (ctypes.c_float * 6)(*(yuv or (0,) * 6)),
        )  # fmt: skip
        return self._library.emulated_crop(
            ctypes.c_void_p(address(out)), ctypes.byref(record), int(on_device), int(yuv is not None),
            ctypes.c_void_p(address(affines)), len(affines), ctypes.byref(spec),
        )  # fmt: skip

    def decode(
        self, x, y, affines, split_ratio, *, score="min_logit", refine="none", flipped=None, partner=None, shift=0
    ):
        """N x K x 3 float32."""
        out = np.full((*x.shape[:2], 3), np.nan, np.float32)
        spec = DecodeSpec(
            x.shape[1],
            x.shape[2],
            y.shape[2],
            split_ratio,
            SCORES[score],
            REFINEMENTS[refine],
            x.dtype == np.float16,
            shift,
        )
        mirrored = flipped or (None, None)
        logits = Logits(address(x), address(y), address(mirrored[0]), address(mirrored[1]), address(partner))
        refused = self._library.emulated_decode(
            ctypes.c_void_p(address(out)),
            ctypes.byref(logits),
            ctypes.c_void_p(address(affines)),
            len(affines),
            ctypes.byref(spec),
        )
        assert refused == 0
        return out

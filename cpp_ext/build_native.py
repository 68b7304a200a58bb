"""Builds `sdk/_native`: one object per C++ file, the CPU kernels once per instruction set, nvcc where it is found.

setup.py is its only caller. Needs a C++17 compiler (GCC or Clang) and nanobind; nothing else is asked for.

    CUDA_HOME=/usr/local/cuda SDK_CUDA_ARCHITECTURES="87 90" pip install .

`SDK_CUDA_ARCHITECTURES` narrows the GPUs, "none" leaves the CUDA half out.
"""

from __future__ import annotations

import platform
from pathlib import Path

import nanobind
from setuptools import Extension
from setuptools.command.build_ext import build_ext

__all__ = ["NativeBuild", "native_extension"]

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("bindings.cpp", "cpu/ops.cpp", "cpu/pool.cpp")
COMMON_FLAGS = ("-std=c++17", "-O3", "-fvisibility=hidden", "-ffunction-sections", "-fdata-sections", "-Wno-psabi", "-DNDEBUG")
KERNEL_FLAGS = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
INSTRUCTION_SETS = {
    "baseline": (),
    "avx2": ("-mavx2", "-mf16c"),
    "avx512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mf16c", "-mprefer-vector-width=512"),
}


def native_extension() -> Extension:
    """The one extension module, with every file whose change must rebuild it."""
    depends = [str(p.relative_to(ROOT)) for p in sorted((ROOT / "cpp_ext").rglob("*")) if p.suffix in {".h", ".cu", ".cpp", ".py"}]
    return Extension("sdk._native", sources=[f"cpp_ext/{name}" for name in SOURCES], depends=depends, language="c++")


class NativeBuild(build_ext):
    """Compiles each file with its own flags, which setuptools' Extension cannot express."""

    def build_extension(self, ext: Extension) -> None:
        """Compile, link, and say in one line what was built."""
        folder = Path(nanobind.include_dir()).parent
        includes = [str(folder / "include"), str(folder / "ext/robin_map/include"), *self.compiler.include_dirs]
        objects = self._compile("base", [*ext.sources], includes, COMMON_FLAGS)
        objects += self._compile("nanobind", [str(Path(nanobind.source_dir()) / "nb_combined.cpp")], includes, (*COMMON_FLAGS, "-fno-strict-aliasing"))
        sets = list(INSTRUCTION_SETS) if platform.machine() in {"x86_64", "AMD64"} else ["baseline"]
        for name in sets:
            flags = (*COMMON_FLAGS, *KERNEL_FLAGS, *INSTRUCTION_SETS[name], f"-DSDK_KERNELS={name}_kernels")
            objects += self._compile(name, ["cpp_ext/cpu/kernels.cpp"], includes, flags)
        self.compiler.link_shared_object(
            objects, self.get_ext_fullpath(ext.name), extra_postargs=["-Wl,--gc-sections", "-Wl,-s", "-pthread"], target_lang="c++",
        )
        self.announce(f"sdk._native: CPU ({', '.join(sets)})", level=2)

    def _compile(self, folder: str, sources: list[str], includes: list[str], flags: tuple[str, ...]) -> list[str]:
        return self.compiler.compile(
            sources, output_dir=str(Path(self.build_temp) / folder), include_dirs=includes, extra_postargs=list(flags)
        )

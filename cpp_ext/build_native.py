"""Builds `sdk/_native`: one object per C++ file, the CPU kernels once per instruction set, nvcc where it is found.

setup.py is its only caller. Needs a C++17 compiler (GCC or Clang) and nanobind; without nvcc the CUDA half is left out,
and the extension says why (`_native.WITHOUT_CUDA`). Where nvcc is: `sdk/cuda_toolkit.py`.

    CUDA_HOME=/usr/local/cuda SDK_CUDA_ARCHITECTURES="87 90" pip install .

`SDK_CUDA_ARCHITECTURES` narrows the GPUs; "none" leaves the CUDA half out although nvcc is there. An nvcc that nobody
named and that fails costs the CUDA half, not the installation. For another machine, name its compilers:

    CC=aarch64-linux-gnu-gcc CXX=aarch64-linux-gnu-g++ NVCC_CCBIN=aarch64-linux-gnu-g++ python setup.py build_ext
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import nanobind
from setuptools import Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError
from setuptools.modified import newer_group

__all__ = ["STABLE_ABI", "NativeBuild", "native_extension"]

ROOT = Path(__file__).resolve().parent.parent


def _by_path(name: str) -> ModuleType:
    """A module of the package by its path: importing the package would need what it is built for."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "sdk" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cuda_toolkit = _by_path("cuda_toolkit")
SOURCES = ("bindings.cpp", "ending.cpp", "cpu/detections.cpp", "cpu/ops.cpp", "cpu/pool.cpp")
CUDA_SOURCES = ("cuda/crop.cu", "cuda/decode.cu", "cuda/detections.cu")
STABLE_ABI = sys.version_info >= (3, 12) and not sysconfig.get_config_var("Py_GIL_DISABLED")  # as nanobind needs it
# Its Python.h brings no stdio.h, which nanobind uses and libc++, unlike libstdc++, does not happen to bring.
STABLE_FLAGS = ("-DPy_LIMITED_API=0x030C0000", "-include", "stdio.h")
FLAGS = (
    *("-std=c++17", "-O3", "-fvisibility=hidden", "-ffunction-sections", "-fdata-sections", "-Wno-psabi", "-DNDEBUG"),
    "-ffp-contract=off",  # affines, too, round alike everywhere
    *(STABLE_FLAGS if STABLE_ABI else ()),
)
KERNEL_FLAGS = (
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-uninitialized",
    "-Wno-maybe-uninitialized",
)
INSTRUCTION_SETS = {
    "baseline": (),
    "avx2": ("-mavx2", "-mf16c"),
    "avx512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mf16c"),
}
NVCC_FLAGS = ("-std=c++17", "-O3", "-fmad=false")  # no fused multiply-add, as on the CPU
DEFAULT_ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 110, 120)  # 87: Orin, 110: Thor


@dataclass(frozen=True)
class Toolkit:
    """An nvcc, the folder it belongs to, the architectures to compile for, ascending, and its version."""

    nvcc: Path
    home: Path
    architectures: tuple[int, ...]
    version: str


def native_extension() -> Extension:
    """The one extension module, with every file whose change must rebuild it. From 3.12 on, one for every Python."""
    suffixes = {".h", ".cu", ".cpp", ".py"}
    depends = [str(p.relative_to(ROOT)) for p in sorted((ROOT / "cpp_ext").rglob("*")) if p.suffix in suffixes]
    sources = [f"cpp_ext/{name}" for name in SOURCES]
    return Extension("sdk._native", sources, depends=depends, language="c++", py_limited_api=STABLE_ABI)


def find_toolkit() -> Toolkit | None:
    """The CUDA toolkit to build with, or None; an error when it is asked for and unusable."""
    wanted = wanted_architectures()
    if wanted == ["none"]:
        return None
    found = cuda_toolkit.find_nvcc()
    if found.path is None:
        if wanted or cuda_toolkit.named_home():
            raise CompileError(f"no nvcc in {found.place} (SDK_CUDA_ARCHITECTURES={' '.join(wanted)})")
        return None
    nvcc = str(found.path)
    known = {int(number) for number in re.findall(r"compute_(\d+)\b", _said_by(nvcc, "--list-gpu-arch"))}
    unknown = [name for name in wanted if not name.isdigit() or int(name) not in known]
    if unknown:
        raise CompileError(f"SDK_CUDA_ARCHITECTURES names {unknown}; this nvcc knows {sorted(known)}")
    architectures = sorted(known & set(map(int, wanted) if wanted else DEFAULT_ARCHITECTURES))
    top = re.search(
        r"TOP=(.+)", _said_by(nvcc, "--dryrun", "-x", "cu", os.devnull)
    )  # nvcc itself may be a link or a script
    home = Path(top.group(1).strip()).resolve() if top else found.path.resolve().parent.parent
    return Toolkit(found.path, home, tuple(architectures), cuda_toolkit.nvcc_version(found.path))


def target_machine(compiler: list[str]) -> str:
    """What `compiler` compiles for, which need not be this machine; as in x86_64-linux-gnu."""
    return _said_by(*compiler, "-dumpmachine").strip()


def instruction_sets(machine: str) -> list[str]:
    """The kernels' instruction sets for a machine."""
    return list(INSTRUCTION_SETS) if machine.startswith("x86_64") else ["baseline"]


def wanted_architectures() -> list[str]:
    """What SDK_CUDA_ARCHITECTURES names; empty where it names nothing."""
    return os.environ.get("SDK_CUDA_ARCHITECTURES", "").replace(",", " ").split()


def _said_by(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


class NativeBuild(build_ext):
    """Compiles each file with its own flags, which setuptools' Extension cannot express."""

    def build_extension(self, ext: Extension) -> None:
        """Compile, link, and say in one line what was built."""
        package = Path(nanobind.include_dir()).parent
        self.includes = [str(package / "include"), str(package / "ext/robin_map/include")]
        self.machine = target_machine(self.compiler.compiler_so_cxx)
        sets = instruction_sets(self.machine)
        toolkit, cuda_objects, without = self._cuda_half()
        objects = self._host_objects(ext, sets, toolkit is not None, without) + cuda_objects
        libraries = [] if toolkit is None else [*self._library_flags(toolkit), "-lcudart_static", "-ldl", "-lrt"]
        self.compiler.link_shared_object(
            objects,
            self.get_ext_fullpath(ext.name),
            extra_postargs=[*libraries, "-Wl,--gc-sections", "-Wl,-s", "-Wl,--exclude-libs,ALL", "-pthread"],
            target_lang="c++",
        )
        gpus = (
            f"CUDA ({' '.join(map(str, toolkit.architectures))}, PTX) by nvcc {toolkit.version}"
            if toolkit
            else f"no CUDA: {without}"
        )
        sys.stdout.write(f"sdk._native: CPU ({' '.join(sets)}), {gpus}\n")

    def _cuda_half(self) -> tuple[Toolkit | None, list[str], str]:
        """(toolkit, its objects, ''), or (None, [], why there is no CUDA half)."""
        toolkit = find_toolkit()
        if toolkit is None:
            none = "SDK_CUDA_ARCHITECTURES was 'none'" if wanted_architectures() else "no nvcc was found"
            return None, [], none
        try:
            return toolkit, self._cuda_objects(toolkit), ""
        except CompileError as error:
            if wanted_architectures() or cuda_toolkit.named_home():  # somebody wants it, or nothing
                raise
            return None, [], f"nvcc {toolkit.version} was there, and: {error}"

    def _host_objects(self, ext: Extension, sets: list[str], with_cuda: bool, without: str) -> list[str]:
        nanobind_source = str(Path(nanobind.source_dir()) / "nb_combined.cpp")
        half = "-DSDK_WITH_CUDA" if with_cuda else f"-DSDK_WITHOUT_CUDA={json.dumps(without)}"
        objects = self._compile("base", ext.sources, (*FLAGS, half))
        objects += self._compile("nanobind", [nanobind_source], (*FLAGS, "-fno-strict-aliasing"))
        for name in sets:
            flags = (*FLAGS, *KERNEL_FLAGS, *INSTRUCTION_SETS[name], f"-DSDK_KERNELS={name}_kernels")
            objects += self._compile(name, ["cpp_ext/cpu/kernels.cpp"], flags)
        return objects

    def _cuda_objects(self, toolkit: Toolkit) -> list[str]:
        self.includes.append(str(toolkit.home / "include"))
        names = " ".join(map(str, toolkit.architectures))
        objects = self._compile(
            "cuda",
            ["cpp_ext/cuda/bindings_cuda.cpp"],
            (
                *FLAGS,
                "-DSDK_WITH_CUDA",
                f'-DSDK_CUDA_ARCHITECTURES="{names}"',
                f'-DSDK_CUDA_COMPILER="{toolkit.version}"',
            ),
        )
        return [*objects, *self._device_objects(toolkit)]

    def _device_objects(self, toolkit: Toolkit) -> list[str]:
        """What nvcc makes: the same for every Python, so kept beside the builds and made once for all of them."""
        kind = "-".join(map(str, ("nvcc", toolkit.version, self.machine, *toolkit.architectures)))
        folder = Path(self.get_finalized_command("build").build_base, kind)
        folder.mkdir(parents=True, exist_ok=True)
        headers = toolkit.home / "include"  # for another machine nvcc looks in folders that few installations have
        flags = [*nvcc_flags(toolkit.architectures), f"-I{headers}", f"-I{headers / 'cccl'}"]
        objects = []
        for source in CUDA_SOURCES:
            target = folder / f"{Path(source).stem}.cu.o"
            objects.append(str(target))
            if self.force or newer_group(native_extension().depends, str(target)):
                part = target.with_suffix(".part.o")  # renamed when whole: a killed nvcc leaves half a file
                seed = f"--frandom-seed={Path(source).stem}"  # names of what is local to a file: else new each time
                self._nvcc([str(toolkit.nvcc), *flags, seed, "-c", f"cpp_ext/{source}", "-o", str(part)])
                part.replace(target)
        return objects

    def _nvcc(self, command: list[str]) -> None:
        """Run it, show what it says, and keep of a failure the line that tells why."""
        sys.stdout.write(" ".join(command) + "\n")
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        sys.stdout.write(done.stdout)
        if done.returncode:
            said = done.stdout.splitlines()
            why = next((line for line in said if "error" in line), said[-1] if said else "it said nothing")
            raise CompileError(f"nvcc failed with status {done.returncode}: {why.strip()}")

    def _library_flags(self, toolkit: Toolkit) -> list[str]:
        folders = [toolkit.home / "lib64", *toolkit.home.glob("targets/*/lib"), toolkit.home / "lib"]
        return [f"-L{folder}" for folder in folders if (folder / "libcudart_static.a").is_file()]

    def _compile(self, folder: str, sources: list[str], flags: tuple[str, ...]) -> list[str]:
        return self.compiler.compile(
            sources,
            output_dir=str(Path(self.build_temp) / folder),
            include_dirs=[*self.includes, *self.compiler.include_dirs],
            extra_postargs=list(flags),
        )


def nvcc_flags(architectures: tuple[int, ...]) -> list[str]:
    """Machine code for each architecture, PTX of the newest."""
    codes = [f"arch=compute_{a},code=sm_{a}" for a in architectures]
    codes.append(f"arch=compute_{architectures[-1]},code=compute_{architectures[-1]}")
    flags = [*NVCC_FLAGS, "--threads", "2", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
    return flags + [part for code in codes for part in ("-gencode", code)]

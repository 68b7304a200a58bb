"""Which nvcc is found, what the build asks for on which machine, and that a compiler nobody named may fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdk import cuda_toolkit
from sdk.cuda_toolkit import PACKAGES, find_nvcc, nvcc_version

ROOT = Path(__file__).resolve().parents[1]
VARIABLES = ("CUDA_HOME", "CUDA_PATH", "SDK_CUDA_ARCHITECTURES")


def nvcc_in(folder, script="echo 'release 13.5, V13.5.37'"):
    """A toolkit of a shell script; its folder."""
    path = folder / "bin" / "nvcc"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def backend():
    return pytest.importorskip("cpp_ext.build_backend", reason="setuptools or nanobind is not installed")


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without any toolkit: nothing named, nothing on PATH, none in the usual place, none in packages."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(cuda_toolkit, "USUAL_HOME", tmp_path / "usual")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    return tmp_path


PLACES = {
    "CUDA_HOME": lambda m, p: m.setenv("CUDA_HOME", str(nvcc_in(p / "home"))),
    "CUDA_PATH": lambda m, p: m.setenv("CUDA_PATH", str(nvcc_in(p / "path"))),
    "PATH": lambda m, p: m.setenv("PATH", str(nvcc_in(p / "on") / "bin")),
    "usual": lambda m, p: nvcc_in(p / "usual"),
    PACKAGES: lambda m, p: nvcc_in(p / "site" / "nvidia" / "cu13"),
}


def test_the_places_are_asked_in_their_order(bare, monkeypatch):
    assert find_nvcc().path is None and PACKAGES in find_nvcc().place
    for place, put in reversed(PLACES.items()):  # each later one goes before those put earlier
        put(monkeypatch, bare)
        found = find_nvcc()
        assert (found.place, found.path.name) == (str(bare / place) if place == "usual" else place, "nvcc")
        assert nvcc_version(found.path) == "13.5.37"


def test_a_named_home_without_nvcc_is_not_passed_over(bare, monkeypatch):
    nvcc_in(bare / "usual")
    monkeypatch.setenv("CUDA_HOME", "/nowhere")
    assert find_nvcc() == cuda_toolkit.FoundNvcc(None, "CUDA_HOME=/nowhere")


@pytest.mark.parametrize(("script", "error"), [("echo gcc 12", ValueError), ("exit 3", ValueError)])
def test_what_is_no_nvcc_says_so(tmp_path, script, error):
    with pytest.raises(error, match="says no version"):
        nvcc_version(nvcc_in(tmp_path / "t", script) / "bin" / "nvcc")


ASKS = {  # (driver, environment, an nvcc) -> whether the build asks for a compiler
    "no driver": (0, {}, False, False),
    "driver of CUDA 12": (12080, {}, False, False),
    "driver of CUDA 13": (13000, {}, False, True),
    "GPUs named, no driver": (0, {"SDK_CUDA_ARCHITECTURES": "87"}, False, True),
    "none wanted": (13000, {"SDK_CUDA_ARCHITECTURES": "none"}, False, False),
    "an nvcc is there": (13000, {}, True, False),
    "a home is named": (13000, {"CUDA_HOME": "/nowhere"}, False, False),
}


@pytest.mark.parametrize(("driver", "environment", "nvcc", "asks"), ASKS.values(), ids=ASKS)
def test_a_compiler_is_asked_for_only_where_it_serves(backend, bare, monkeypatch, driver, environment, nvcc, asks):
    monkeypatch.setattr(backend, "driver_version", lambda: driver)
    monkeypatch.setattr(backend, "cuda_toolkit", cuda_toolkit)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if nvcc:
        nvcc_in(bare / "usual")
    packages = backend.compiler_packages()
    assert bool(packages) == asks
    if asks:
        releases = {name.partition("==")[2] for name in packages if "cccl" not in name}
        assert len(releases) == 1, "one release of nvcc, nvvm, crt and runtime: mixed ones fail"
        assert tuple(map(int, releases.pop().split("."))) >= (13, 1)


CUDA_HALF = """
import sys
sys.path.insert(0, "cpp_ext")
from build_native import NativeBuild, native_extension
from setuptools.dist import Distribution
build = NativeBuild(Distribution({"ext_modules": [native_extension()]}))
build.ensure_finalized()
build.build_temp, build.includes, build._compile = sys.argv[1], [], lambda *_: []
build.machine, build.get_finalized_command("build").build_base = "x86_64-linux-gnu", sys.argv[1]
print(build._cuda_half())
"""
FALLS = {  # environment -> whether the build goes on without the CUDA half
    "nobody named it": ({}, True),
    "GPUs are named": ({"SDK_CUDA_ARCHITECTURES": "87"}, False),
    "the home is named": ({"CUDA_HOME": "toolkit"}, False),
}
BROKEN = """case "$*" in *list-gpu-arch*) echo compute_87;; *dryrun*) ;; *version*) echo V13.5.37;;
*) echo 'host_config.h:1: error: unsupported GNU version'; exit 7;; esac"""


@pytest.mark.parametrize(("environment", "goes_on"), FALLS.values(), ids=FALLS)
def test_a_compiler_that_fails_costs_no_installation_unless_it_was_named(tmp_path, environment, goes_on):
    pytest.importorskip("nanobind")
    (tmp_path / "toolkit").mkdir()
    nvcc_in(tmp_path / "toolkit" / "cuda", BROKEN)
    given = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    given |= {"PATH": f"{tmp_path / 'toolkit' / 'cuda' / 'bin'}:{os.environ['PATH']}", **environment}
    if "CUDA_HOME" in environment:
        given["CUDA_HOME"] = str(tmp_path / "toolkit" / "cuda")
    command = [sys.executable, "-c", CUDA_HALF, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == goes_on, done.stderr
    if goes_on:
        why = "nvcc 13.5.37 was there, and: nvcc failed with status 7: host_config.h:1: error: unsupported GNU version"
        assert f"(None, [], '{why}')" in done.stdout


@pytest.mark.parametrize(("machine", "sets"), [("x86_64-linux-gnu", 3), ("aarch64-linux-gnu", 1)], ids=["x86", "arm"])
def test_the_instruction_sets_are_those_of_the_target(backend, tmp_path, machine, sets):
    compiler = tmp_path / "g++"
    compiler.write_text(f"#!/bin/sh\necho {machine}\n")
    compiler.chmod(0o755)
    build_native = sys.modules["build_native"]
    assert len(build_native.instruction_sets(build_native.target_machine([str(compiler), "-O3"]))) == sets

"""`sdk doctor`: what it finds, what it says is missing, and that every missing thing comes with its mend."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdk import cuda_toolkit, trt
from sdk.cli import _findings as doctor
from sdk.cli import main
from sdk.cli._findings import Finding, examine, jetpack_from_release, runnable_devices
from sdk.cuda_devices import CudaDevice
from sdk.trt_validity import unserved

ROOT = Path(__file__).resolve().parents[1]
HOPPER = CudaDevice(0, "NVIDIA H200", "9.0", 143771)
GPU_89 = CudaDevice(1, "RTX 4090", "8.9", 24564)


def named(findings):
    return {finding.name: finding for finding in findings}


def test_every_fault_says_what_it_disables_and_how_to_mend_it():
    findings = examine()
    assert len({finding.name for finding in findings}) == len(findings) >= 20
    for finding in findings:
        assert finding.found
        if finding.status != "ok":
            assert finding.disables and finding.mend, finding


def test_json_is_the_whole_report(capsys):
    status = main(["doctor", "--json"])
    table = json.loads(capsys.readouterr().out)
    assert status == (0 if table["devices"] else 1)
    names = [finding["name"] for finding in table["findings"]]
    for name in (
        "Python", "system", "Jetson", "GPU", "driver", "CUDA toolkit", "tensorrt", "tensorrt-rtx", "CUDA binding",
        "native extension", "native extension, CUDA half", "ONNX Runtime", "OpenCV", "cache folder",
    ):  # fmt: skip
        assert name in names
    for finding in table["findings"]:
        assert set(finding) == {"name", "status", "found", "disables", "mend", "details"}


def test_the_text_shows_each_finding_and_the_devices(capsys):
    main(["doctor"])
    printed = capsys.readouterr().out
    assert "engines run here on: " in printed
    for finding in examine():
        assert finding.name in printed
        assert not finding.mend or finding.mend in printed


def test_the_extras_are_those_of_the_package():
    project = (ROOT / "pyproject.toml").read_text()
    for extra, (_, packages) in doctor.EXTRAS.items():
        wanted = re.search(rf"^{extra} = \[(.*)\]$", project, re.MULTILINE)[1]
        assert re.findall(r'"([\w-]+)', wanted) == list(packages), extra


@pytest.mark.parametrize(
    ("gone", "status", "found", "mend"),
    [
        ((), "ok", "installed: live av annotate ray parquet rerun supervision trackers", ""),
        (
            ("websockets", "rerun-sdk"),
            "missing",
            "installed: av annotate ray parquet supervision trackers; not: live (websockets), rerun (rerun-sdk)",
            "of these what you want: pip install 'simcc-edge-sdk[live,rerun]'",
        ),
    ],
    ids=["all", "two lacking"],
)
def test_extras_that_are_not_installed_are_named(monkeypatch, gone, status, found, mend):
    monkeypatch.setattr(doctor, "_distribution_version", lambda name: doctor.UNKNOWN_VERSION if name in gone else "1")
    finding = doctor._extras()
    assert (finding.status, finding.found, finding.mend) == (status, found, mend)
    assert not gone or finding.disables == "`sdk live`, results for Rerun"


def test_the_pythons_are_those_of_the_package():
    project = (ROOT / "pyproject.toml").read_text()
    (low, high) = doctor.PYTHONS
    assert f'requires-python = ">={low[0]}.{low[1]},<{high[0]}.{high[1] + 1}"' in project
    assert re.findall(r"Python :: (3\.\d+)", project) == [f"3.{minor}" for minor in range(low[1], high[1] + 1)]


RELEASES = {
    "JetPack 6.2": (
        "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64",
        ("6.2", "36.4.3", True),
    ),
    "JetPack 6.1": (
        "# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64",
        ("6.1", "36.4.0", True),
    ),
    "JetPack 6.0": (
        "# R36 (release), REVISION: 3.0, GCID: 36191598, BOARD: generic, EABI: aarch64",
        ("6.0", "36.3.0", False),
    ),
    "JetPack 5": (
        "# R35 (release), REVISION: 5.0, GCID: 35550185, BOARD: t186ref, EABI: aarch64",
        ("5", "35.5.0", False),
    ),
    "JetPack 4": ("# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref", ("4 or older", "32.7.1", False)),
    "JetPack 7": ("# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic", ("7", "38.2.0", True)),
    "no minor": ("# R38 (release), REVISION: 2, GCID: 1", ("7", "38.2.0", True)),
    "something else": ("Debian", None),
    "nothing": ("", None),
}


@pytest.mark.parametrize(("text", "expected"), RELEASES.values(), ids=RELEASES)
def test_jetpack_is_read_from_the_release(text, expected):
    assert jetpack_from_release(text) == expected


def test_an_old_jetpack_is_told(monkeypatch):
    files = {"/etc/nv_tegra_release": RELEASES["JetPack 5"][0], "/proc/device-tree/model": "NVIDIA Orin NX\0"}
    monkeypatch.setattr(doctor, "_text", lambda path: files.get(str(path), ""))
    finding = named(examine())["Jetson"]
    assert finding.found == "NVIDIA Orin NX, JetPack 5 (L4T 35.5.0)" and finding.status == "warning"
    assert finding.mend == "install JetPack 6.1 or newer"


def test_a_gpu_is_listed(monkeypatch):
    monkeypatch.setattr(doctor, "cuda_devices", lambda: (CudaDevice(0, "Orin", "8.7", 62841),))
    finding = named(examine())["GPU"]
    assert finding.found == "0: Orin, compute capability 8.7, 62841 MiB"
    assert finding.details["devices"][0]["capability"] == "8.7"


BROKEN = {
    "missing": (ModuleNotFoundError("No module named 'cv2'", name="cv2"), "not installed"),
    "a missing part": (ModuleNotFoundError("No module named 'x'", name="x"), "installed but cannot be imported"),
    "a missing library": (ImportError("libGL.so.1: cannot open"), r"cannot be imported (libGL.so.1"),
    "an unreadable library": (OSError("libcudart.so.13"), "cannot be imported (libcudart.so.13)"),
}


@pytest.mark.parametrize(("error", "told"), BROKEN.values(), ids=BROKEN)
def test_a_broken_package_is_told_from_a_missing_one(monkeypatch, error, told):
    real = doctor.import_module

    def broken(name):
        if name == "cv2":
            raise error
        return real(name)

    monkeypatch.setattr(doctor, "import_module", broken)
    finding = named(examine())["OpenCV"]
    assert finding.status == "missing" and told in finding.found
    assert finding.mend.startswith("pip install opencv-python, or where no libGL is, opencv-python-headless")


def test_without_the_extension_nothing_runs(monkeypatch, capsys):
    real = doctor.import_module

    def broken(name):
        if name == "sdk._native":
            raise ModuleNotFoundError("No module named 'sdk._native'", name="sdk._native")
        return real(name)

    monkeypatch.setattr(doctor, "import_module", broken)
    assert runnable_devices(examine()) == ()
    assert main(["doctor"]) == 1
    assert "engines run here on: no device" in capsys.readouterr().out


HALVES = {
    "without nvcc": (None, "missing", "when it was built, no nvcc was found"),
    "with nvcc": (
        SimpleNamespace(ARCHITECTURES="75 87", TOOLKIT="12.6", COMPILER="12.6.85"),
        "ok",
        "architectures 75 87, CUDA 12.6, by nvcc 12.6.85",
    ),
}


@pytest.mark.parametrize(("cuda", "status", "found"), HALVES.values(), ids=HALVES)
def test_the_cuda_half_is_told(monkeypatch, cuda, status, found):
    real = doctor.import_module
    native = SimpleNamespace(cuda=cuda, WITHOUT_CUDA="no nvcc was found", instruction_set=lambda: "baseline")
    monkeypatch.setattr(doctor, "import_module", lambda name: native if name == "sdk._native" else real(name))
    finding = named(examine())["native extension, CUDA half"]
    assert (finding.status, finding.found) == (status, found)


def test_tensorrt_of_the_system_is_shown_to_a_virtual_environment(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([Path("/usr/lib/python3.10/dist-packages/tensorrt")]))
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(sys, "prefix", "/venv")
    finding = doctor._flavour_probe(trt.Flavour("tensorrt", None, "not installed; pip install x"))()
    assert finding.status == "missing" and "--system-site-packages" in finding.mend


def ok(*names):
    return [Finding(name, "ok", "x") for name in names]


DEVICES = {
    "cpu": (ok("native extension", "ONNX Runtime"), ("cpu",)),
    "cuda": (ok("GPU", "CUDA binding", "native extension, CUDA half", "tensorrt-rtx"), ("cuda",)),
    "no runtime": (ok("native extension"), ()),
    "no TensorRT": (ok("GPU", "CUDA binding", "native extension, CUDA half"), ()),
    "a warning is not well": ([*ok("native extension"), Finding("ONNX Runtime", "warning", "x", "y", "z")], ()),
}


@pytest.mark.parametrize(("findings", "devices"), DEVICES.values(), ids=DEVICES)
def test_devices_follow_from_the_findings(findings, devices):
    assert runnable_devices(findings) == devices


def test_a_cache_that_cannot_be_written_is_told(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SIMCC_EDGE_SDK_CACHE", str(tmp_path / "file" / "cache"))
    finding = named(examine())["cache folder"]
    assert finding.status == "warning" and "SIMCC_EDGE_SDK_CACHE" in finding.mend


def test_an_nvcc_that_hangs_is_told(monkeypatch):
    def hang(*_, **__):
        raise subprocess.TimeoutExpired("nvcc", 20)

    monkeypatch.setattr(doctor, "find_nvcc", lambda: cuda_toolkit.FoundNvcc(Path("/opt/nvcc"), "PATH"))
    monkeypatch.setattr(cuda_toolkit.subprocess, "run", hang)
    assert named(examine())["CUDA toolkit"].found.startswith("/opt/nvcc does not run (/opt/nvcc gave no answer within")


BINDINGS = {  # what is installed, whether a driver is there -> (status, what is found, the mend's beginning)
    "PyCUDA": ({"pycuda": "2026.1"}, True, ("ok", "pycuda 2026.1", "")),
    "both": ({"pycuda": "2026.1", "cuda-bindings": "13.5.0"}, True, ("ok", "pycuda 2026.1", "")),
    "neither": ({}, True, ("missing", "PyCUDA: none; cuda-bindings: none", "pip install 'cuda-bindings")),
    "neither, no driver": ({}, False, ("missing", "PyCUDA: none; cuda-bindings: none", "pip install 'cuda-bindings")),
    "no driver": (
        {"cuda-bindings": "13.5"}, False, ("missing", "cuda-bindings 13.5, and no driver", "install the NVIDIA driver"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("installed", "driver", "expected"), BINDINGS.values(), ids=BINDINGS)
def test_who_calls_the_driver_is_told(monkeypatch, installed, driver, expected):
    def chosen():
        if "pycuda" not in installed:
            raise ImportError("PyCUDA: none; cuda-bindings: none")
        return SimpleNamespace()

    monkeypatch.setattr(doctor, "cuda_driver", chosen)
    monkeypatch.setattr(doctor, "driver_is_there", lambda: driver)
    monkeypatch.setattr(doctor, "_distribution_version", lambda name: installed.get(name, doctor.UNKNOWN_VERSION))
    finding = named(examine())["CUDA binding"]
    assert (finding.status, finding.found) == expected[:2] and finding.mend.startswith(expected[2])


def test_a_report_holds_the_findings_and_no_names(monkeypatch, capsys):
    found = "/opt/env/bin/x, ~ /home/ada/secret-client/app, seen by ada on orion-7; adapter"
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("SDK", "ok", found)])
    monkeypatch.setattr(doctor.sys, "prefix", "/opt/env")
    monkeypatch.setattr(doctor.Path, "home", lambda: Path("/home/ada"))
    monkeypatch.setattr(doctor.platform, "node", lambda: "orion-7")
    monkeypatch.setattr(doctor.getpass, "getuser", lambda: "ada")
    monkeypatch.setenv("CUDA_HOME", "/home/ada/cuda")
    assert main(["doctor", "--report"]) == 1
    report = capsys.readouterr().out
    assert "| ok | SDK | {environment}/bin/x, ~ ~/..., seen by {user} on {machine}; adapter |" in report
    assert "CUDA_HOME" in report and "/home" not in report and "secret" not in report


PYCUDA = """
import ctypes
from pathlib import Path

try:
    ctypes.CDLL(str(Path(__file__).with_name("_driver.so")))
except OSError as error:
    raise ImportError(str(error))
"""
ASKED = """
from sdk.cli import _findings
finding = _findings._binding()
print(finding.status, finding.found)
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("driver", [True, False], ids=["a driver", "no driver"])
def test_a_pycuda_that_does_not_name_libcuda_works_where_the_driver_is(tmp_path, driver):
    """As one that was built where libcuda was a stub: its symbols are looked for among those loaded globally."""
    package = tmp_path / "pycuda"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = '2026.1'")
    (package / "driver.py").write_text(PYCUDA)
    made = {tmp_path / "libcuda.so.1": "int cuInit(int f) { return 100; }"} if driver else {}
    made[package / "_driver.so"] = "int cuInit(int); int start(void) { return cuInit(0); }"
    for target, source in made.items():
        words = ["cc", "-shared", "-fPIC", "-Wl,-z,now", "-x", "c", "-", "-o", target]
        subprocess.run(words, input=source, text=True, check=True)
    paths = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", ASKED], env={**os.environ, **paths}, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("ok pycuda" if driver else "missing"), done.stderr


SERVED = {
    "a GPU it serves": ((GPU_89,), "ok", "1.7.1"),
    "none": ((), "ok", "1.7.1"),
    "one of two": ((HOPPER, GPU_89), "ok", "1.7.1"),
    "a GPU it does not serve": (
        (HOPPER,), "warning",
        "tensorrt-rtx 1.7.1 serves GPUs of compute capability 8.6, 8.9, and this one has 9.0",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("devices", "status", "found"), SERVED.values(), ids=SERVED)
def test_a_tensorrt_rtx_that_serves_no_gpu_here_is_told(monkeypatch, devices, status, found):
    monkeypatch.setattr(doctor, "cuda_devices", lambda: devices)
    monkeypatch.setattr(trt, "rtx_problem", lambda capability: unserved(capability, "1.7.1", ("8.6", "8.9")))
    finding = doctor._flavour_probe(trt.Flavour("tensorrt-rtx", "1.7.1"))()
    assert (finding.status, finding.found) == (status, found)
    assert ("simcc-edge-sdk[tensorrt]" in finding.mend) == (status == "warning")

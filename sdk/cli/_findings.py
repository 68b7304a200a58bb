"""What this machine has, what is missing, what that disables, and the command that mends it. It changes nothing.

Everything is probed by trying it, so that a broken installation shows as what it is. Works with numpy alone.

    findings = examine()
    runnable_devices(findings)              # ('cpu', 'cuda')
"""

from __future__ import annotations

import getpass
import os
import platform
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

from sdk import __version__, trt
from sdk.cuda_devices import cuda_devices, driver_is_there, driver_version
from sdk.cuda_toolkit import find_nvcc, nvcc_version
from sdk.onnx_runtime import onnxruntime
from sdk.resources import CACHE_VARIABLE, bundled_engines, cache_folder
from sdk.runtime.cuda.bindings_driver import BindingsDriver
from sdk.runtime.cuda.driver import INSTALL_BINDING, cuda_driver
from sdk.trt_validity import USE_TENSORRT

__all__ = [
    "Finding",
    "examine",
    "jetpack_from_release",
    "report_from_findings",
    "runnable_devices",
    "table_from_findings",
]

Status = Literal["ok", "missing", "warning"]
PYTHONS = ((3, 10), (3, 14))  # lowest and highest that is tested
PROBE_SECONDS = 20
NOT_INSTALLED = "not installed"
UNKNOWN_VERSION = "unknown version"


@dataclass(frozen=True)
class Finding:
    """One thing asked of the machine. `disables` and `mend` are empty where all is well."""

    name: str
    status: Status
    found: str
    disables: str = ""
    mend: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Package:
    """A Python package: what it is for, and how it comes."""

    name: str
    module: str
    disables: str
    mend: str


PACKAGES = (
    _Package(
        "OpenCV",
        "cv2",
        "`sdk predict`, detectors, drawing",
        "pip install opencv-python, or where no libGL is, opencv-python-headless in its place",
    ),
    _Package("tqdm", "tqdm", "progress bars and `sdk predict`", "pip install tqdm"),
    _Package(
        "torch", "torch", "`sdk export`, `sdk train`, building from checkpoints", "pip install 'simcc-edge-sdk[build]'"
    ),
    _Package("onnx", "onnx", "`sdk export`, `sdk build-engine`", "pip install 'simcc-edge-sdk[build]'"),
    _Package("onnxslim", "onnxslim", "`sdk export`, `sdk build-engine`", "pip install 'simcc-edge-sdk[build]'"),
    _Package("safetensors", "safetensors", "checkpoints in safetensors", "pip install 'simcc-edge-sdk[build]'"),
    _Package("pycocotools", "pycocotools.cocoeval", "COCO AP in `sdk verify`", "pip install 'simcc-edge-sdk[eval]'"),
    _Package(
        "faster-coco-eval", "faster_coco_eval", "CrowdPose AP in `sdk verify`", "pip install 'simcc-edge-sdk[eval]'"
    ),
    _Package(
        "matplotlib",
        "matplotlib",
        "plots of `sdk verify`, `benchmark` and `train`",
        "pip install 'simcc-edge-sdk[eval]'",
    ),
)

EXTRAS = {  # extra -> what it is for, and the packages that it brings
    "live": ("`sdk live`", ("starlette", "uvicorn", "websockets")),
    "av": ("H.264 and hardware decoding by PyAV", ("av",)),
    "annotate": ("`sdk annotate`", ("pyarrow", "fsspec", "av")),
    "ray": ("`sdk annotate --workers`", ("ray", "pyarrow", "fsspec", "av")),
    "parquet": ("results as Parquet", ("pyarrow",)),
    "rerun": ("results for Rerun", ("rerun-sdk",)),
    "supervision": ("`Poses.to_supervision`", ("supervision",)),
    "trackers": ("the trackers 'bytetrack' and 'ocsort'", ("trackers",)),
}


def examine() -> list[Finding]:
    """All findings, in the order in which one looks for a fault."""
    probes: Sequence[Callable[[], Finding]] = (
        _sdk, _python, _system, _jetson, _gpu, _driver, _toolkit, *(_flavour_probe(each) for each in trt.flavours()),
        _binding, _native, _native_cuda, _onnxruntime, *(_package_probe(package) for package in PACKAGES), _extras,
        _cache, _bundled,
    )  # fmt: skip
    return [probe() for probe in probes]


def runnable_devices(findings: Sequence[Finding]) -> tuple[str, ...]:
    """The devices on which an engine can run here."""
    well = {finding.name for finding in findings if finding.status == "ok"}
    devices = []
    if {"native extension", "ONNX Runtime"} <= well:
        devices.append("cpu")
    if {"GPU", "CUDA binding", "native extension, CUDA half"} <= well and well & {"tensorrt", "tensorrt-rtx"}:
        devices.append("cuda")
    return tuple(devices)


def table_from_findings(findings: Sequence[Finding]) -> dict[str, Any]:
    """Plain tables, for JSON."""
    return {"devices": list(runnable_devices(findings)), "findings": [asdict(finding) for finding in findings]}


def report_from_findings(findings: Sequence[Finding]) -> str:
    """Markdown for a bug report. Names and folders of the user and of the machine are replaced by what they are."""
    rows = [f"| {finding.status} | {finding.name} | {finding.found.replace('|', '/')} |" for finding in findings]
    named = sorted(name for name in os.environ if name.startswith(("CUDA_", "SDK_", "SIMCC_", "NVIDIA_")))
    lines = [
        "| status | what | found |",
        "| --- | --- | --- |",
        *rows,
        "",
        f"Engines run on: {', '.join(runnable_devices(findings)) or 'no device'}. "
        f"Environment variables set: {', '.join(named) or 'none for CUDA or the SDK'}.",
    ]
    return _without_names("\n".join(lines))


def _without_names(text: str) -> str:
    """`text` with folders and names put by what they are, the longest first."""
    package = str(Path(__file__).resolve().parents[1])
    secrets = {package: "{sdk}", sys.prefix: "{environment}", str(Path.home()): "~", platform.node(): "{machine}"}
    with suppress(KeyError, OSError):  # a user without a name
        secrets[getpass.getuser()] = "{user}"
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = re.sub(rf"(?<![\w-]){re.escape(secret)}(?![\w-])", secrets[secret], text)
    return re.sub(r"(?<=~)/[^\s;,)|]+|/(?:home|media|mnt)/[^\s;,)|]+", "/...", text)


def jetpack_from_release(text: str) -> tuple[str, str, bool] | None:
    """(JetPack, L4T, supported) from the text of /etc/nv_tegra_release; None where it is something else."""
    match = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*(\d+)(?:\.(\d+))?", text)
    if match is None:
        return None
    release, major, minor = int(match[1]), int(match[2]), int(match[3] or 0)
    l4t = f"{release}.{major}.{minor}"
    if release >= 38:
        return "7", l4t, True
    if release == 36:
        if (major, minor) >= (4, 3):
            return "6.2", l4t, True
        return ("6.1", l4t, True) if major >= 4 else ("6.0", l4t, False)
    return ("5" if release in (34, 35) else "4 or older"), l4t, False


def _sdk() -> Finding:
    return Finding("SDK", "ok", f"{__version__}, {Path(__file__).resolve().parents[1]}")


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    inside = "virtual environment" if sys.prefix != sys.base_prefix else "no virtual environment"
    found = f"{version}, {inside}"
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return Finding("Python", "ok", found, details={"executable": sys.executable})
    low, high = (".".join(map(str, each)) for each in PYTHONS)
    return Finding("Python", "warning", found, "nothing for certain; it is untested", f"use Python {low} to {high}")


def _system() -> Finding:
    release = _text(Path("/etc/os-release"))
    name = re.search(r'^PRETTY_NAME="?([^"\n]+)', release, re.MULTILINE)
    libc = " ".join(platform.libc_ver())
    found = f"{name[1] if name else platform.system()}, {platform.machine()}, {platform.release()}, {libc}".rstrip(", ")
    if platform.system() == "Linux" and platform.machine() in ("x86_64", "aarch64"):
        return Finding("system", "ok", found, details={"cores": os.cpu_count()})
    return Finding("system", "warning", found, "nothing for certain; it is untested", "use Linux on x86_64 or aarch64")


def _jetson() -> Finding:
    release = jetpack_from_release(_text(Path("/etc/nv_tegra_release")))
    if release is None:
        return Finding("Jetson", "ok", "not a Jetson")
    jetpack, l4t, supported = release
    board = _text(Path("/proc/device-tree/model")).strip("\0\n ") or "unknown board"
    found = f"{board}, JetPack {jetpack} (L4T {l4t})"
    if supported:
        return Finding("Jetson", "ok", found)
    return Finding("Jetson", "warning", found, "device 'cuda': TensorRT is below 10.3", "install JetPack 6.1 or newer")


def _gpu() -> Finding:
    devices = cuda_devices()
    if not devices:
        return Finding("GPU", "missing", "no CUDA device", "device 'cuda'", "none, on a machine without an NVIDIA GPU")
    listed = "; ".join(f"{d.index}: {d.name}, compute capability {d.capability}, {d.memory_mib} MiB" for d in devices)
    return Finding("GPU", "ok", listed, details={"devices": [asdict(device) for device in devices]})


def _driver() -> Finding:
    version = re.search(r"Kernel Module[^\n]*?\s(\d+\.\d[\d.]*)", _text(Path("/proc/driver/nvidia/version")))
    serves = driver_version()
    if serves is None:
        mend = "install the NVIDIA driver, where there is a GPU; in a container, start it with --gpus all"
        return Finding("driver", "missing", "libcuda.so.1 cannot be loaded or started", "device 'cuda'", mend)
    return Finding("driver", "ok", f"{version[1] if version else 'unknown version'}, serves CUDA up to {serves}")


def _toolkit() -> Finding:
    found = find_nvcc()
    if found.path is None:
        disables = "nothing on a GPU of a driver of CUDA 13 or newer, for which an installation fetches a compiler"
        mend = "elsewhere install the CUDA toolkit, and set CUDA_HOME where it is in none of these"
        return Finding("CUDA toolkit", "missing", f"no nvcc in {found.place}", disables, mend)
    try:
        version = nvcc_version(found.path)
    except (OSError, ValueError) as error:
        return Finding(
            "CUDA toolkit", "warning", f"{found.path} does not run ({error})", "compiling", "install it again"
        )
    return Finding("CUDA toolkit", "ok", f"{version}, {found.path} (by {found.place})")


def _flavour_probe(flavour: trt.Flavour) -> Callable[[], Finding]:
    def probe() -> Finding:
        if flavour.version is not None:
            return _usable_flavour(flavour.name, flavour.version)
        problem, _, mend = (flavour.problem or "").partition("; ")
        system = sorted(Path("/usr/lib").glob("python3*/dist-packages/tensorrt"))
        if flavour.name == "tensorrt" and system and sys.prefix != sys.base_prefix:
            mend = f"it is in {system[0].parent}: make the environment with `python3 -m venv --system-site-packages`"
        status: Status = "missing" if problem.startswith("not installed") else "warning"
        return Finding(flavour.name, status, problem, f"compiling and running plans of {flavour.name}", mend)

    return probe


def _binding() -> Finding:
    """Who makes the driver's calls, by the run time's own choice."""
    name = "CUDA binding"
    installed = [
        f"{package} {version}"
        for package in ("pycuda", "cuda-bindings")
        if (version := _distribution_version(package)) != UNKNOWN_VERSION
    ]
    try:
        driver = cuda_driver()
    except ImportError as error:
        if installed and not driver_is_there():
            mend = "install the NVIDIA driver"
            return Finding(name, "missing", f"{', '.join(installed)}, and no driver", "device 'cuda'", mend)
        return Finding(name, "missing", str(error), "device 'cuda'", INSTALL_BINDING)
    chosen = "cuda-bindings" if isinstance(driver, BindingsDriver) else "pycuda"
    return Finding(name, "ok", f"{chosen} {_distribution_version(chosen)}")


def _usable_flavour(name: trt.CompilerName, version: str) -> Finding:
    """Well, but for a TensorRT-RTX that makes no plans for any GPU that is here."""
    problems = [trt.rtx_problem(device.capability) for device in cuda_devices()] if name == "tensorrt-rtx" else []
    if not problems or not all(problems):
        return Finding(name, "ok", version)
    return Finding(name, "warning", str(problems[0]), "plans of tensorrt-rtx on the GPU here", USE_TENSORRT)


def _native() -> Finding:
    try:
        native = import_module("sdk._native")
    except (ImportError, OSError) as error:
        mend = "install the package again, or in a checkout: python setup.py build_ext --inplace"
        return Finding("native extension", "missing", str(error), "crop and decode: every estimator", mend)
    return Finding("native extension", "ok", f"CPU half, {native.instruction_set()} instructions")


def _native_cuda() -> Finding:
    name = "native extension, CUDA half"
    try:
        native = import_module("sdk._native")
    except (ImportError, OSError) as error:
        return Finding(name, "missing", str(error), "device 'cuda'", "build the native extension first")
    cuda = native.cuda
    if cuda is None:
        mend = "install simcc-edge-sdk from source again; `pip install -v` shows what its build says"
        return Finding(name, "missing", f"when it was built, {native.WITHOUT_CUDA}", "device 'cuda'", mend)
    built = f"architectures {cuda.ARCHITECTURES}, CUDA {cuda.TOOLKIT}, by nvcc {cuda.COMPILER}"
    details = {"architectures": str(cuda.ARCHITECTURES), "toolkit": cuda.TOOLKIT, "compiler": cuda.COMPILER}
    return Finding(name, "ok", built, details=details)


def _onnxruntime() -> Finding:
    found, problem = _imported("onnxruntime", load=onnxruntime)
    if found is None:
        disables = "device 'cpu', detectors, comparing graphs"
        return Finding("ONNX Runtime", "missing", problem, disables, "pip install onnxruntime")
    providers = list(onnxruntime().get_available_providers())
    return Finding("ONNX Runtime", "ok", f"{found}, {' '.join(providers)}", details={"providers": providers})


def _package_probe(package: _Package) -> Callable[[], Finding]:
    def probe() -> Finding:
        found, problem = _imported(package.module)
        if found is not None:
            return Finding(package.name, "ok", found)
        return Finding(package.name, "missing", problem, package.disables, package.mend)

    return probe


def _extras() -> Finding:
    """The extras that one thing alone needs, by what is installed: to import ray or supervision takes seconds."""
    lacks = {
        extra: gone
        for extra, (_, packages) in EXTRAS.items()
        if (gone := [name for name in packages if _distribution_version(name) == UNKNOWN_VERSION])
    }
    installed = f"installed: {' '.join(extra for extra in EXTRAS if extra not in lacks) or 'none'}"
    if not lacks:
        return Finding("extras", "ok", installed)
    absent = ", ".join(f"{extra} ({' '.join(gone)})" for extra, gone in lacks.items())
    disables = ", ".join(EXTRAS[extra][0] for extra in lacks)
    mend = f"of these what you want: pip install 'simcc-edge-sdk[{','.join(lacks)}]'"
    return Finding("extras", "missing", f"{installed}; not: {absent}", disables, mend, {"missing": lacks})


def _cache() -> Finding:
    folder = cache_folder()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        mend = f"choose another folder with the environment variable {CACHE_VARIABLE}"
        return Finding("cache folder", "warning", f"{folder}, not writable", "downloading weights", mend)
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()] if folder.exists() else []
    free = shutil.disk_usage(existing).free
    details = {"path": str(folder), "bytes": sum(sizes), "free_bytes": free}
    found = f"{folder}, {len(sizes)} files, {sum(sizes) >> 20} MiB; {free >> 30} GiB free"
    return Finding("cache folder", "ok", found, details=details)


def _bundled() -> Finding:
    names = list(bundled_engines())
    if names:
        return Finding("bundled engines", "ok", " ".join(names), details={"names": names})
    disables = "PoseEstimator() without an engine's name"
    return Finding("bundled engines", "missing", "none", disables, "build one: sdk build-engine")


def _imported(module: str, package: str | None = None, load: Callable[[], Any] | None = None) -> tuple[str | None, str]:
    """(version, '') of a module that imports, else (None, why not). `load`: what imports it, else Python."""
    top = package or module.partition(".")[0]
    try:
        with warnings.catch_warnings():  # what a package thinks of the machine on import is no finding
            warnings.simplefilter("ignore")
            import_module(module) if load is None else load()
        version = getattr(import_module(top), "__version__", None) or _distribution_version(top)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == top:
            return None, NOT_INSTALLED
        return None, f"installed but cannot be imported ({error})"
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # what half-installed packages raise
        return None, f"installed but cannot be imported ({error})"
    return str(version), ""


def _distribution_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return UNKNOWN_VERSION


def _text(path: Path) -> str:
    """The text of a system file, empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

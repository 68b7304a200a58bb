"""Which device an engine runs on: the names a user may give, what `auto` means, and why a GPU cannot be used.

It only asks; contexts, streams and memory belong to `sdk.runtime.cuda`. CUDA and TensorRT are probed, never required.

    device, reason = choose_device(engine, "auto")        # Device('cpu'), "the engine has no plan"
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from sdk.cuda_devices import driver_is_there, driver_version
from sdk.errors import DeviceError, EngineError, MissingDependencyError
from sdk.manifest import AnyEngine, CompilerNote, Engine
from sdk.runtime.cuda.driver import INSTALL_BINDING, cuda_driver

__all__ = [
    "Device",
    "choose_device",
    "compute_capability",
    "cuda_problem",
    "device_from_name",
    "native_problem",
    "plan_mismatch",
    "plan_problem",
    "toolkit_mismatch",
]


PORTABLE = ("8.0", "8.6", "8.9", "12.0")  # what TensorRT-RTX compiles for where nothing is named (its support matrix)


@dataclass(frozen=True)
class Device:
    """`cpu`, or the CUDA device with this index."""

    kind: Literal["cpu", "cuda"]
    index: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"cuda:{self.index}"


def device_from_name(name: str) -> Device | None:
    """The device called `name`; None for 'auto'. DeviceError lists the names there are."""
    match = re.fullmatch(r"cuda(?::(\d+))?", name) if isinstance(name, str) else None
    if match:
        return Device("cuda", int(match[1] or 0))
    if name == "cpu":
        return Device("cpu")
    if name == "auto":
        return None
    raise DeviceError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N' (got {name!r})")


def choose_device(engine: Engine, name: str) -> tuple[Device, str]:
    """The device to run `engine` on, and why. A device asked for by name that cannot serve is an error."""
    wanted = device_from_name(name)
    if wanted == Device("cpu"):
        return wanted, "asked for"
    device = wanted or Device("cuda")
    problem = cuda_problem(device.index) or native_problem()
    if wanted and problem:
        raise DeviceError(f"device '{name}' cannot be used: {problem}; `sdk doctor` lists what is missing")
    if not problem:
        problem = plan_problem(engine, device.index)
        if wanted and problem:
            raise EngineError(f"engine '{engine.folder}' cannot run on {device}: {problem}")
    if problem:
        return Device("cpu"), problem
    return device, "the engine has a plan for it" if wanted is None else "asked for"


def cuda_problem(index: int = 0) -> str | None:
    """Why CUDA device `index` cannot be used, or None. Creates no context."""
    try:
        cuda = cuda_driver()
    except ImportError as error:
        if not driver_is_there():
            return "no CUDA driver is installed"
        return f"neither PyCUDA nor cuda-bindings serves ({error}); {INSTALL_BINDING}"
    try:
        cuda.init()
        count = int(cuda.Device.count())
    except cuda.Error as error:
        return f"the CUDA driver answers: {error}"
    if count == 0:
        return "the CUDA driver sees no device"
    if index >= count:
        return f"there is no device {index}; the driver sees {count}, numbered from 0"
    return None


def native_problem() -> str | None:
    """Why the native extension cannot crop and decode on a GPU, or None."""
    try:
        from sdk import ops

        half = ops.cuda_half()
    except MissingDependencyError as error:
        return str(error)
    return toolkit_mismatch(half.TOOLKIT, driver_version())


def toolkit_mismatch(toolkit: str, driver: str | None) -> str | None:
    """Why a driver cannot run what this CUDA toolkit built, or None. Both as in '13.0'. Pure.

    Within a major version of CUDA any driver runs what any toolkit built.
    """
    if driver is None or int(toolkit.split(".", maxsplit=1)[0]) <= int(driver.split(".")[0]):
        return None
    return (
        f"sdk._native was built with CUDA {toolkit} and the driver serves CUDA {driver}: update the driver, or build "
        f"the SDK again with a toolkit of CUDA {driver.split('.')[0]} (CUDA_HOME)"
    )


def compute_capability(index: int = 0) -> str:
    """'8.7' for an Orin; only where `cuda_problem` found none."""
    cuda = cuda_driver()
    cuda.init()
    major, minor = cuda.Device(index).compute_capability()
    return f"{major}.{minor}"


def plan_problem(engine: AnyEngine, index: int = 0) -> str | None:
    """Why the plan of `engine` cannot run on CUDA device `index`, or None; asks the TensorRT that is installed."""
    compiler = engine.manifest.compiler
    if compiler is None:
        return "it has no plan, only its graph; " + _rebuild(engine, "auto")
    from sdk import trt

    installed = trt.flavour(compiler.name)
    if installed.version is None:
        return f"its plan needs {compiler.name}, which is {installed.problem}"
    capability = compute_capability(index)
    unserved = trt.rtx_problem(capability) if compiler.name == "tensorrt-rtx" else None
    if unserved:
        return f"its plan is TensorRT-RTX's: {unserved}; {_rebuild(engine, 'tensorrt')}"
    return plan_mismatch(compiler, installed.version, capability, partial(_rebuild, engine, compiler.name))


def plan_mismatch(compiler: CompilerNote, version: str, capability: str, mend: Callable[[str], str]) -> str | None:
    """What differs between the machine a plan was compiled for and this one, or None. Pure.

    `mend`: options of a rebuild -> what to do.
    """
    if compiler.version != version:
        made = f"{compiler.name} {compiler.version}"
        return f"its plan was compiled by {made} and {version} is installed here; {mend('')}"
    compiled, options = (compiler.target,), ""
    fits = compiler.target == capability
    named = tuple(compiler.options.get("compute_capabilities", ()))
    if compiler.target in ("portable", *named):  # for later GPUs of the families it was compiled for, not for others
        compiled = named or PORTABLE
        fits = capability.partition(".")[0] in {each.partition(".")[0] for each in compiled}
        options = " --compute-capability current"
    if fits:
        return None
    made = ", ".join(compiled)
    return f"its plan was compiled for compute capability {made} and this GPU has {capability}; {mend(options)}"


def _rebuild(engine: AnyEngine, compiler: str, options: str = "") -> str:
    command = f"sdk build-engine --rebuild {engine.folder} --compiler {compiler}{options}"
    return f"rebuild it here from its own graph: `{command}`"

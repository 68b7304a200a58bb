"""From a typed graph to a plan: which compiler, which options, progress, Ctrl-C, timing cache, memory.

Not the engine folder (`sdk.toolchain.engine`) and not TensorRT's API (`sdk.trt`).

    compiler = choose_compiler(options)                     # None: leave the engine without a plan
    plan = plan_from_graph(graph_bytes, compiler, options)
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import onnx

from sdk import trt
from sdk.cuda_devices import cuda_devices
from sdk.errors import DeviceError, InputError, MissingDependencyError, OutOfMemoryError, OutputError
from sdk.files import write_bytes
from sdk.interrupts import stop_handled_by
from sdk.manifest import BATCH_RULE, DEFAULT_BATCH, BatchRange, CompilerNote
from sdk.toolchain.graphs import graph_inputs, serialized
from sdk.toolchain.turing import TURING, turing_graph_from_graph
from sdk.trt_validity import USE_TENSORRT

__all__ = [
    "CompileOptions",
    "CompilerChoice",
    "check_memory",
    "choose_compiler",
    "compiler_note",
    "plan_from_graph",
]

CompilerChoice = Literal["auto", "tensorrt", "tensorrt-rtx", "none"]
BASE_MIB = {"tensorrt": 1500, "tensorrt-rtx": 400}  # the compiler's own libraries and kernels, resident during a build
GRAPH_COPIES = 5  # bytes, parsed, folded, plan, and its copy; tensorrt-rtx 1.7 took 292, 473, 853 MiB for 7, 47, 130

log = logging.getLogger(__name__)
T = TypeVar("T")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class CompileOptions:
    """What a plan is compiled with; None leaves the compiler's own default."""

    compiler: CompilerChoice = "auto"
    batch: BatchRange = DEFAULT_BATCH
    workspace_mib: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    compute_capabilities: tuple[str, ...] = ()
    dla_core: int | None = None

    def __post_init__(self) -> None:
        if not self.batch.holds:
            raise InputError(f"batch must hold {BATCH_RULE} (got {self.batch})")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise InputError(f"workspace must be at least 1 MiB (got {self.workspace_mib})")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise InputError(f"optimization level must be 0 to 5 (got {self.optimization_level})")


def choose_compiler(options: CompileOptions) -> trt.CompilerName | None:
    """The compiler that will be used, with `auto` resolved and told in the log. Errors say what is missing."""
    if options.compiler == "none":
        _refuse_without_compiler(options)
        return None
    if options.compiler != "auto":
        _require(options.compiler)
        _check_options(options.compiler, options)
        return options.compiler
    flavours = {found.name: found for found in trt.flavours()}
    devices = cuda_devices()
    if flavours["tensorrt"].problem is None and devices:
        chosen: trt.CompilerName | None = "tensorrt"
        reason = f"it is installed, for device 0, {devices[0].name}"
    elif flavours["tensorrt-rtx"].problem is None:
        chosen, reason = "tensorrt-rtx", "it is installed and compiles without a device"
    else:
        chosen = None
        reason = "; ".join(f"{found.name}: {found.problem or 'no CUDA device'}" for found in flavours.values())
    log.info("compiler auto: %s (%s)", chosen or "none, the engine holds its graph only", reason)
    if chosen is not None:
        _check_options(chosen, options)
    return chosen


def compiler_note(compiler: trt.CompilerName, options: CompileOptions) -> CompilerNote:
    """The manifest's record of a compiler: version, target and the options that shape the plan."""
    version = trt.flavour(compiler).version
    assert version is not None
    named = options.compute_capabilities
    here = compiler == "tensorrt" or "current" in named
    target = cuda_devices()[0].capability if here else named[0] if len(named) == 1 else "portable"
    given = {
        "workspace_mib": options.workspace_mib,
        "optimization_level": options.optimization_level,
        "compute_capabilities": list(named) or None,
        "dla_core": options.dla_core,
    }
    kept = {key: value for key, value in given.items() if value is not None}
    return CompilerNote(compiler, version, target, f"{compiler}.plan", kept)


def plan_from_graph(graph: bytes, compiler: trt.CompilerName, options: CompileOptions) -> bytes:
    """The plan of a typed graph, with a progress bar on stderr. Ctrl-C stops the compiler, then is raised."""
    check_memory(compiler, len(graph), options.workspace_mib)
    taken = _for_turing(graph) if compiler == "tensorrt-rtx" and TURING in _targets(options) else graph
    settings = trt.BuildSettings(
        shapes=_shapes(graph, options.batch),
        workspace_mib=options.workspace_mib,
        optimization_level=options.optimization_level,
        timing_cache=None if options.timing_cache is None else _read_cache(options.timing_cache),
        compute_capabilities=options.compute_capabilities,
        dla_core=options.dla_core,
    )
    with _ProgressBar() as bar:
        built = _interruptible(lambda: trt.build_plan(compiler, taken, settings, bar), bar.stop)
    if options.timing_cache is not None and built.timing_cache is not None:
        _write_cache(options.timing_cache, built.timing_cache)
    return built.plan


def _targets(options: CompileOptions) -> tuple[str, ...]:
    """The compute capabilities named, 'current' as the one of the GPU that is here."""
    return tuple(cuda_devices()[0].capability if each == "current" else each for each in options.compute_capabilities)


def _for_turing(graph: bytes) -> bytes:
    """The graph as TensorRT-RTX takes it for Turing. The engine keeps the one it was given."""
    log.info("FP32 matrix products are written as convolutions and sums, for compute capability %s", TURING)
    return serialized(turing_graph_from_graph(onnx.load_from_string(graph)))


def check_memory(compiler: str, graph_bytes: int, workspace_mib: int | None = None) -> None:
    """OutOfMemoryError when the machine is unlikely to survive the build: better a sentence now than a kill later."""
    needed = BASE_MIB[compiler] + GRAPH_COPIES * (graph_bytes >> 20)
    if compiler == "tensorrt":  # workspace is device memory, which on a Jetson is the same memory
        needed += workspace_mib or 0
    free = _available_mib()
    if free is not None and free < needed:
        raise OutOfMemoryError(
            f"the build needs about {needed} MiB of memory and {free} MiB are available; close other programs, add "
            "swap, lower --workspace, or make the engine elsewhere with --compiler none and rebuild it here"
        )


def _require(compiler: trt.CompilerName) -> None:
    found = trt.flavour(compiler)
    if found.problem is not None:
        raise MissingDependencyError(f"compiler '{compiler}' cannot be used: {found.problem}")
    if compiler == "tensorrt" and not cuda_devices():
        raise DeviceError(
            "compiler 'tensorrt' needs a CUDA device while it compiles and none is visible; build on the device, or "
            "use --compiler tensorrt-rtx or none"
        )


def _check_options(compiler: trt.CompilerName, options: CompileOptions) -> None:
    if compiler == "tensorrt-rtx":
        if options.timing_cache is not None:
            raise InputError("tensorrt-rtx times nothing while it builds: leave --timing-cache out")
        if options.dla_core is not None:
            raise InputError("tensorrt-rtx has no DLA: leave --dla-core out, or use --compiler tensorrt")
        known = (*trt.compute_capabilities(), "current")
        _check_current_gpu(options)
        for capability in options.compute_capabilities:
            if capability not in known:
                raise InputError(f"compute capability must be one of {', '.join(known)} (got '{capability}')")
    elif options.compute_capabilities:
        raise InputError("tensorrt compiles for the device it runs on: leave --compute-capability out")
    elif options.dla_core is not None and options.batch.min != options.batch.max:
        raise InputError(
            f"a DLA takes one batch size (got {options.batch.min} to {options.batch.max}): give --min-batch, "
            "--opt-batch and --max-batch the same number"
        )


def _check_current_gpu(options: CompileOptions) -> None:
    """DeviceError where the plan is to be for the GPU that is here, and cannot be; a warning where it will not be."""
    current, devices = "current" in options.compute_capabilities, cuda_devices()
    if current and not devices:
        raise DeviceError("compute capability 'current' needs a CUDA device and none is visible: name one instead")
    problem = trt.rtx_problem(devices[0].capability) if devices else None
    if problem and current:
        raise DeviceError(f"no plan for the GPU that is here, {devices[0].name}: {problem}; {USE_TENSORRT}")
    if problem:
        log.warning("the plan will be for other GPUs than the one here, %s: %s", devices[0].name, problem)


def _refuse_without_compiler(options: CompileOptions) -> None:
    for field in fields(options):
        if field.name not in ("compiler", "batch") and getattr(options, field.name) not in (None, ()):
            raise InputError(f"{field.name} is for a compiler and the compiler is none: leave it out, or name one")


def _shapes(graph: bytes, batch: BatchRange) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Smallest, best and largest shape of each input; a graph whose batch is fixed takes no other."""
    model = onnx.load_from_string(graph)
    shapes = {}
    for tensor in graph_inputs(model):
        fixed, rest = tensor.shape[0], tuple(int(size) for size in tensor.shape[1:])
        if isinstance(fixed, int) and {fixed} != {batch.min, batch.opt, batch.max}:
            raise InputError(f"the graph's batch is fixed at {fixed}: batch min, opt and max must be {fixed}")
        low, best, high = ((count, *rest) for count in (batch.min, batch.opt, batch.max))
        shapes[tensor.name] = (low, best, high)
    return shapes


def _read_cache(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise InputError(f"timing cache '{path}' cannot be read ({error.strerror}); check the path") from error


def _write_cache(path: Path, data: bytes) -> None:
    """Keep the timings; where that fails the plan is worth more, and the log says it."""
    try:
        write_bytes(path, data)
    except OutputError as error:
        log.warning("the timings of this build are not kept: %s", error)


def _available_mib() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return next((int(kib) >> 10 for kib in found), None)


def _interruptible(work: Callable[[], T], stop: Callable[[], None]) -> T:
    """`work` in a thread of its own, so that Ctrl-C is heard while native code runs.

    Ctrl-C calls `stop`, which asks the compiler to end; its end is awaited, then KeyboardInterrupt is raised.
    """
    pressed = threading.Event()

    def on_ctrl_c(*_: object) -> None:
        pressed.set()
        stop()

    with stop_handled_by(on_ctrl_c), ThreadPoolExecutor(1, thread_name_prefix="compile") as executor:
        future = executor.submit(work)
        fault = future.exception()
    if pressed.is_set():
        raise KeyboardInterrupt
    if fault is not None:
        raise fault
    return future.result()


class _ProgressBar:
    """A build's outer phases as one tqdm bar on stderr, the inner phase beside it."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._bar: Any = None
        self._outer: str | None = None

    def __enter__(self) -> _ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._close()

    def stop(self) -> None:
        """Answer False to the compiler's next question."""
        self._stopped.set()

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        from tqdm import tqdm

        with self._lock:
            if parent is None:
                self._close()
                self._outer = phase
                self._bar = tqdm(total=steps, desc=phase, unit="step", leave=False, file=sys.stderr, disable=None)
            elif self._bar is not None:
                self._bar.set_postfix_str(phase)

    def step(self, phase: str, step: int) -> bool:
        with self._lock:
            if phase == self._outer and self._bar is not None:
                self._bar.update(step + 1 - self._bar.n)
        return not self._stopped.is_set()

    def finish(self, phase: str) -> None:
        with self._lock:
            if phase == self._outer:
                self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = self._outer = None

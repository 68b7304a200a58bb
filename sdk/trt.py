"""TensorRT in one place: the only module that imports `tensorrt` or `tensorrt_rtx`, to build plans and to run them.

It hides what differs between TensorRT 10.3, 10.x, 11.x and TensorRT-RTX. It decides nothing: which compiler, what to do
with progress and files is `sdk.toolchain.compile`; device memory and streams are `sdk.runtime`.

    data = build_plan("tensorrt-rtx", graph_bytes, BuildSettings(shapes={"input": (low, best, high)})).plan
    plan = load_plan("tensorrt-rtx", data)
    context = plan.create_context()
    context.set_shape("input", (4, 3, 256, 192)); context.set_memory(scratch, plan.activation_bytes)
    context.set_address("input", pointer); context.enqueue(stream)
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, get_args

from sdk.errors import BuildError, DeviceError, EngineError, InputError, MissingDependencyError
from sdk.trt_messages import Monitor, new_logger, progress_class, told
from sdk.trt_validity import reasons_from_bits, unserved

__all__ = [
    "BuildSettings",
    "Built",
    "CompilerName",
    "Context",
    "Flavour",
    "Monitor",
    "Plan",
    "Tensor",
    "build_plan",
    "compute_capabilities",
    "flavour",
    "flavours",
    "load_plan",
    "rtx_problem",
]

CompilerName = Literal["tensorrt", "tensorrt-rtx"]
Shape = tuple[int, ...]

MODULES: Mapping[str, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
FLOORS: Mapping[str, tuple[int, int]] = {"tensorrt": (10, 3), "tensorrt-rtx": (1, 1)}
EXTRAS: Mapping[str, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
NUMPY_NAMES: Mapping[str, str] = {
    "FLOAT": "float32", "HALF": "float16", "INT8": "int8", "UINT8": "uint8", "INT32": "int32", "INT64": "int64",
    "BOOL": "bool",
}  # fmt: skip

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Flavour:
    """One TensorRT package: its version when it can be used, else what is wrong and the command that mends it."""

    name: CompilerName
    version: str | None
    problem: str | None = None


@dataclass(frozen=True)
class BuildSettings:
    """What a plan is built with. `shapes`: input name -> smallest, best and largest shape."""

    shapes: Mapping[str, tuple[Shape, Shape, Shape]]
    workspace_mib: int | None = None
    optimization_level: int | None = None
    timing_cache: bytes | None = None  # b"" starts a new one; None keeps none
    compute_capabilities: tuple[str, ...] = ()  # TensorRT-RTX only; none: portable; "current": the GPU that is here
    dla_core: int | None = None


@dataclass(frozen=True)
class Built:
    """A plan, and the timing cache as the build left it when one was asked for."""

    plan: bytes
    timing_cache: bytes | None = None


@dataclass(frozen=True)
class Tensor:
    """An input or output of a plan. -1 in `shape` is the batch; `dtype` is numpy's name."""

    name: str
    is_input: bool
    dtype: str
    shape: Shape


def flavours() -> tuple[Flavour, ...]:
    """Both flavours, installed or not."""
    return tuple(flavour(name) for name in get_args(CompilerName))


def flavour(name: CompilerName) -> Flavour:
    """One flavour; importing a broken installation is told in `problem`, not raised."""
    if find_spec(MODULES[name]) is None:
        return Flavour(name, None, f"not installed; pip install 'simcc-edge-sdk[{EXTRAS[name]}]'")
    try:
        version = str(import_module(MODULES[name]).__version__)
    except (ImportError, OSError) as error:
        return Flavour(name, None, f"installed but cannot be imported ({error}); install it again")
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < FLOORS[name]:
        floor = ".".join(map(str, FLOORS[name]))
        return Flavour(name, None, f"version {version} is below the floor {floor}; on a Jetson install JetPack 6.1")
    return Flavour(name, version)


def compute_capabilities() -> tuple[str, ...]:
    """Compute capabilities that TensorRT-RTX can be told to compile for, such as '8.6'."""
    names = _module("tensorrt-rtx").ComputeCapability.__members__
    digits = (re.fullmatch(r"SM(\d+)(\d)", name) for name in names)
    return tuple(f"{match[1]}.{match[2]}" for match in digits if match)


def rtx_problem(capability: str) -> str | None:
    """Why no plan of the TensorRT-RTX that is installed runs on GPUs of this compute capability; None: one does."""
    return unserved(capability, str(_module("tensorrt-rtx").__version__), compute_capabilities())


def build_plan(compiler: CompilerName, graph: bytes, settings: BuildSettings, monitor: Monitor | None = None) -> Built:
    """A plan of a typed graph. BuildError lists every node the parser refuses, or what the builder said.

    Precision is in the graph's types alone: the network is strongly typed wherever that is a choice, and TF32 is off.
    """
    trt, logger = _module(compiler), _logger(compiler)
    with logger.collected() as errors:
        builder = trt.Builder(logger)
        if builder is None:
            raise BuildError(f"{compiler} {trt.__version__} cannot start: {told(errors)}")
        network = builder.create_network(_network_flags(trt))
        _parse(trt, network, logger, compiler, graph)
        config = builder.create_builder_config()
        _configure(trt, config, compiler, settings)
        config.add_optimization_profile(_profile(builder, settings))
        if settings.dla_core is not None:
            _use_dla(trt, builder, network, config, settings.dla_core)
        cache = _attach_timing_cache(config, compiler, settings)
        if monitor is not None:
            progress = _progress(compiler)(monitor)  # kept in a variable: it must outlive the build
            config.progress_monitor = progress
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise BuildError(f"{compiler} {trt.__version__} could not build the plan: {told(errors)}")
        return Built(bytes(plan), None if cache is None else bytes(config.get_timing_cache().serialize()))


def load_plan(compiler: CompilerName, data: bytes, *, dla_core: int | None = None) -> Plan:
    """The plan, ready to make contexts. EngineError says what TensorRT said. The caller verified the bytes' sha256.

    `dla_core`: the core it was built for.
    """
    trt, logger = _module(compiler), _logger(compiler)
    with logger.collected() as errors:
        runtime = trt.Runtime(logger)
        if runtime is None:
            raise DeviceError(f"{compiler} {trt.__version__} cannot start: {told(errors)}")
        if runtime.engine_host_code_allowed:
            raise AssertionError("a plan must never bring host code")
        if dla_core is not None:
            runtime.DLA_core = dla_core
        _check_validity(trt, runtime, compiler, data, errors)
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise EngineError(
                f"{compiler} {trt.__version__} cannot load the plan: {told(errors)}; rebuild the engine on this "
                "machine with `sdk build-engine --rebuild ENGINE`"
            )
    return Plan(compiler, runtime, engine)


class Plan:
    """A deserialised plan. It may serve several contexts, each for one thread and one stream.

    TensorRT-RTX compiles kernels when a context gets its shapes; all contexts keep them in one cache, `kernels()`.
    """

    def __init__(self, compiler: CompilerName, runtime: Any, engine: Any) -> None:
        self.compiler = compiler
        self._runtime, self._engine = runtime, engine  # the engine must not outlive its runtime
        self._kernels: Any = None
        self.tensors = tuple(self._tensor(index) for index in range(engine.num_io_tensors))
        self.aux_streams = int(engine.num_aux_streams)
        self.activation_bytes = int(engine.device_memory_size_v2)

    def use_kernels(self, blob: bytes) -> None:
        """Begin with what `kernels()` gave in an earlier process, before the first context; TensorRT-RTX alone."""
        if not self._kernel_cache().deserialize(blob):
            log.info("the kernel cache is of another machine or version; kernels are compiled anew")

    def kernels(self) -> bytes | None:
        """Kernels compiled so far; None for `tensorrt`, which compiles none at run time."""
        return None if self._kernels is None else bytes(self._kernels.serialize())

    def create_context(self, *, own_graph: bool = False) -> Context:
        """An execution context without memory of its own: `Context.set_memory` comes before the first enqueue.

        `own_graph`, TensorRT-RTX alone: it captures the plan in a CUDA graph by itself; no other capture may hold it.
        """
        trt, logger = _module(self.compiler), _logger(self.compiler)
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        with logger.collected() as errors:
            if self.compiler == "tensorrt":
                context = self._engine.create_execution_context(strategy)
            else:
                config = self._engine.create_runtime_config()
                config.set_execution_context_allocation_strategy(strategy)
                choices = trt.DynamicShapesKernelSpecializationStrategy
                config.dynamic_shapes_kernel_specialization_strategy = choices.EAGER
                config.set_runtime_cache(self._kernel_cache())
                if own_graph:
                    config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
                context = self._engine.create_execution_context(config)
            if context is None:
                raise DeviceError(f"{self.compiler} cannot make an execution context: {told(errors)}")
        return Context(self, context)

    def _kernel_cache(self) -> Any:
        if self._kernels is None:
            self._kernels = self._engine.create_runtime_config().create_runtime_cache()
        return self._kernels

    def _tensor(self, index: int) -> Tensor:
        trt, engine = _module(self.compiler), self._engine
        name = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        kind = engine.get_tensor_dtype(name).name
        return Tensor(name, is_input, NUMPY_NAMES.get(kind, kind.lower()), tuple(engine.get_tensor_shape(name)))


class Context:
    """One thread's use of a plan. Pointers and streams are plain integers; nothing here allocates or synchronises."""

    def __init__(self, plan: Plan, context: Any) -> None:
        self.plan = plan
        self._context = context

    def set_shape(self, name: str, shape: Sequence[int]) -> None:
        """Fix an input's shape for the next enqueue."""
        self._must("take the shape", self._context.set_input_shape, name, tuple(shape))

    def set_address(self, name: str, pointer: int) -> None:
        """Where a tensor lies on the device."""
        self._must("take the address", self._context.set_tensor_address, name, pointer)

    def set_memory(self, pointer: int, size_bytes: int) -> None:
        """Device memory for activations, at least `plan.activation_bytes`, aligned to 256 bytes."""
        self._context.set_device_memory(pointer, size_bytes)

    def set_aux_streams(self, streams: Sequence[int]) -> None:
        """Streams for the plan's side branches, `plan.aux_streams` of them, so that TensorRT makes none of its own."""
        self._context.set_aux_streams(list(streams))

    def capturable(self, stream: int) -> bool:
        """Whether an enqueue on `stream` can be captured into a CUDA graph now (TensorRT-RTX may answer no)."""
        asks = getattr(self._context, "is_stream_capturable", None)
        return True if asks is None else bool(asks(stream))

    def enqueue(self, stream: int) -> None:
        """Run once, asynchronously. DeviceError when TensorRT refuses: outputs are then not to be read."""
        self._must("run", self._context.execute_async_v3, stream)

    def _must(self, deed: str, call: Any, *arguments: Any) -> None:
        with _logger(self.plan.compiler).collected() as errors:
            if not call(*arguments):
                raise DeviceError(f"{self.plan.compiler} did not {deed} {list(arguments)}: {told(errors)}")


def _module(compiler: CompilerName) -> Any:
    found = flavour(compiler)
    if found.problem is not None:
        raise MissingDependencyError(f"compiler '{compiler}' cannot be used: {found.problem}")
    return import_module(MODULES[compiler])


def _network_flags(trt: Any) -> int:
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parse(trt: Any, network: Any, logger: Any, compiler: CompilerName, graph: bytes) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse(graph):
        return
    found = [parser.get_error(index) for index in range(parser.num_errors)]
    lines = [f"node {e.node()} '{e.node_name()}' ({e.node_operator()}): {e.desc()}" for e in found]
    raise BuildError(
        f"{compiler} {trt.__version__} cannot parse the graph; {len(lines)} errors:\n  " + "\n  ".join(lines)
    )


def _configure(trt: Any, config: Any, compiler: CompilerName, settings: BuildSettings) -> None:
    config.clear_flag(trt.BuilderFlag.TF32)
    if settings.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib << 20)
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
    if settings.compute_capabilities:
        _set_capabilities(trt, config, compiler, settings.compute_capabilities)


def _use_dla(trt: Any, builder: Any, network: Any, config: Any, core: int) -> None:
    """Place on a DLA what it can run, and say which layers stay on the GPU."""
    cores = int(getattr(builder, "num_DLA_cores", 0))
    if not 0 <= core < cores:
        raise BuildError(
            f"tensorrt {trt.__version__} finds {cores} DLA cores on this device (asked for core {core}); "
            "leave --dla-core out, or see docs/jetson.md for the boards and versions that have one"
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    fallen = [layer.name for layer in layers if not config.can_run_on_DLA(layer)]
    log.warning("%d of %d layers cannot run on the DLA and stay on the GPU: %s", len(fallen), len(layers), fallen)


def _set_capabilities(trt: Any, config: Any, compiler: CompilerName, wanted: Sequence[str]) -> None:
    if compiler != "tensorrt-rtx":
        raise InputError(
            "a compute capability can be chosen for compiler tensorrt-rtx alone; tensorrt compiles for the device it "
            "runs on: leave --compute-capability out"
        )
    known = (*compute_capabilities(), "current")
    for capability in wanted:
        if capability not in known:
            raise InputError(f"compute capability must be one of {', '.join(known)} (got '{capability}')")
        if capability == "current" and len(wanted) > 1:
            raise InputError("compute capability 'current' stands alone: leave the others out")
    config.num_compute_capabilities = len(wanted)
    for index, capability in enumerate(wanted):
        name = "CURRENT" if capability == "current" else "SM" + capability.replace(".", "")
        member = getattr(trt.ComputeCapability, name)
        if not config.set_compute_capability(member, index):
            raise BuildError(f"{compiler} {trt.__version__} does not take compute capability {capability}")


def _profile(builder: Any, settings: BuildSettings) -> Any:
    profile = builder.create_optimization_profile()
    for name, (low, best, high) in settings.shapes.items():
        profile.set_shape(name, low, best, high)
    return profile


def _attach_timing_cache(config: Any, compiler: CompilerName, settings: BuildSettings) -> Any:
    if settings.timing_cache is None:
        return None
    if compiler == "tensorrt-rtx":
        raise InputError(
            "tensorrt-rtx times nothing during a build and keeps no timing cache: leave --timing-cache out"
        )
    cache = config.create_timing_cache(settings.timing_cache)
    if cache is None or not config.set_timing_cache(cache, False):
        raise BuildError("the timing cache is damaged or of another device or version; remove it and build again")
    return cache


def _check_validity(trt: Any, runtime: Any, compiler: CompilerName, data: bytes, errors: list[str]) -> None:
    """TensorRT-RTX says beforehand whether a plan fits this machine; older packages do not."""
    if not hasattr(runtime, "get_engine_validity"):
        return
    validity, bits = runtime.get_engine_validity(data)
    if validity == trt.EngineValidity.VALID:
        return
    why = told([*reasons_from_bits(trt, bits, compute_capabilities()), *errors])
    if validity == trt.EngineValidity.INVALID:
        raise EngineError(f"{compiler} {trt.__version__} cannot run this plan here: {why}")
    log.warning("the plan runs on this device below its best: %s", why)


@cache
def _logger(compiler: CompilerName) -> Any:
    """One for the process and flavour, because TensorRT keeps the first it is given."""
    return new_logger(_module(compiler), f"{__name__}.{MODULES[compiler]}")


@cache
def _progress(compiler: CompilerName) -> Any:
    return progress_class(_module(compiler))

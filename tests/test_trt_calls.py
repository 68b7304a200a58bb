"""What `sdk.trt` asks of TensorRT and makes of its answers, on a stand-in for the bindings that records its calls."""

from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import MagicMock, call

import pytest

from sdk import trt, trt_validity
from sdk.cuda_devices import CudaDevice
from sdk.errors import BuildError, DeviceError, EngineError, InputError
from tests.support.trt_api import BITS

RTX = "tensorrt-rtx"
SHAPES = {"input": ((1, 3, 8, 8), (4, 3, 8, 8), (16, 3, 8, 8))}


@contextmanager
def collected():
    yield ["it has its reasons"]


@contextmanager
def silent():
    yield []


@pytest.fixture
def bindings(monkeypatch):
    """The bindings' module: every call is recorded and gives another stand-in."""
    module = MagicMock(__version__="10.3.0")
    module.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=3)
    runtime, engine = module.Runtime.return_value, module.Runtime.return_value.deserialize_cuda_engine.return_value
    runtime.engine_host_code_allowed = False
    runtime.get_engine_validity.return_value = (module.EngineValidity.VALID, 0)
    engine.num_io_tensors, engine.num_aux_streams, engine.device_memory_size_v2 = 0, 2, 512
    monkeypatch.setattr(trt, "_module", lambda compiler: module)
    monkeypatch.setattr(trt, "_logger", lambda compiler: SimpleNamespace(collected=collected))
    return module


@pytest.fixture
def engine(bindings):
    return bindings.Runtime.return_value.deserialize_cuda_engine.return_value


def config_of(bindings):
    return bindings.Builder.return_value.create_builder_config.return_value


# ---- building --------------------------------------------------------------------------------------------------


def test_precision_is_in_the_graphs_types_alone(bindings):
    trt.build_plan("tensorrt", b"graph", trt.BuildSettings(SHAPES))
    bindings.Builder.return_value.create_network.assert_called_once_with(1 << 3)
    config_of(bindings).clear_flag.assert_called_once_with(bindings.BuilderFlag.TF32)


def test_the_profile_goes_from_the_smallest_by_the_best_to_the_largest(bindings):
    trt.build_plan("tensorrt", b"graph", trt.BuildSettings(SHAPES, workspace_mib=3))
    profile = bindings.Builder.return_value.create_optimization_profile.return_value
    assert profile.set_shape.mock_calls == [call("input", *SHAPES["input"])]
    config_of(bindings).set_memory_pool_limit.assert_called_once_with(bindings.MemoryPoolType.WORKSPACE, 3 << 20)


@pytest.mark.parametrize("core", [-1, 2])
def test_a_dla_core_must_be_there(bindings, core):
    bindings.Builder.return_value.num_DLA_cores = 2
    with pytest.raises(BuildError, match=rf"finds 2 DLA cores on this device \(asked for core {core}\)"):
        trt.build_plan("tensorrt", b"graph", trt.BuildSettings(SHAPES, dla_core=core))


def test_what_the_dla_cannot_run_stays_on_the_gpu(bindings):
    bindings.Builder.return_value.num_DLA_cores = 2
    bindings.Builder.return_value.create_network.return_value.num_layers = 0
    trt.build_plan("tensorrt", b"graph", trt.BuildSettings(SHAPES, dla_core=1))
    config = config_of(bindings)
    assert (config.default_device_type, config.DLA_core) == (bindings.DeviceType.DLA, 1)
    config.set_flag.assert_called_once_with(bindings.BuilderFlag.GPU_FALLBACK)


def test_current_stands_alone(bindings, monkeypatch):
    monkeypatch.setattr(trt, "compute_capabilities", lambda: ("8.6", "8.9"))
    with pytest.raises(InputError, match="'current' stands alone"):
        trt.build_plan(RTX, b"graph", trt.BuildSettings(SHAPES, compute_capabilities=("8.6", "current")))


def test_each_compute_capability_has_its_place(bindings, monkeypatch):
    monkeypatch.setattr(trt, "compute_capabilities", lambda: ("8.6", "8.9"))
    trt.build_plan(RTX, b"graph", trt.BuildSettings(SHAPES, compute_capabilities=("8.6", "8.9")))
    known = bindings.ComputeCapability
    assert config_of(bindings).set_compute_capability.call_args_list == [call(known.SM86, 0), call(known.SM89, 1)]


def test_a_timing_cache_that_is_not_taken_is_told(bindings):
    config_of(bindings).set_timing_cache.return_value = False
    with pytest.raises(BuildError, match="the timing cache is damaged or of another device or version"):
        trt.build_plan("tensorrt", b"graph", trt.BuildSettings(SHAPES, timing_cache=b""))


# ---- loading ---------------------------------------------------------------------------------------------------


def test_a_plan_is_loaded_for_its_dla_core(bindings):
    trt.load_plan("tensorrt", b"plan", dla_core=1)
    assert bindings.Runtime.return_value.DLA_core == 1


def test_a_plan_must_never_bring_host_code(bindings):
    bindings.Runtime.return_value.engine_host_code_allowed = True
    with pytest.raises(AssertionError, match="host code"):
        trt.load_plan("tensorrt", b"plan")


def test_a_plan_that_is_not_taken_says_why(bindings):
    bindings.Runtime.return_value.deserialize_cuda_engine.return_value = None
    with pytest.raises(EngineError, match=r"cannot load the plan: it has its reasons; rebuild .* --rebuild ENGINE"):
        trt.load_plan("tensorrt", b"plan")


HOPPER, ADA = CudaDevice(0, "NVIDIA H200", "9.0", 143771), CudaDevice(0, "RTX 4090", "8.9", 24564)
REASONS = {
    "version": (1, ADA, r"of another version of TensorRT-RTX \(here: 10.3.0\): rebuild it here: `sdk build-engine"),
    "another GPU": (2, ADA, r"for other GPUs \(here: RTX 4090, .* 8.9, 24564 MiB\): .* --compute-capability current`"),
    "a GPU that is not served": (
        2,
        HOPPER,
        r"serves GPUs of .* 8.6, 8.9, and this one has 9.0; .*--compiler tensorrt$",
    ),
    "driver": (4, ADA, r"newer driver \(here: one for CUDA 12.4\): update the driver"),
    "runtime": (8, ADA, r"newer CUDA runtime .*pip install --upgrade tensorrt-rtx"),
    "memory": (16, ADA, r"out of memory \(here: RTX 4090, compute capability 8.9, 24564 MiB\): .*--max-batch"),
    "damaged": (32, ADA, r"bytes are damaged, or no plan: copy the engine again, or rebuild it"),
    "CUDA": (64, ADA, r"CUDA does not work here: `sdk doctor`"),
    "two": (1 | 32, ADA, r"another version .*; its bytes are damaged"),
    "a new one": (256, ADA, r"a reason that this SDK does not know \(bit 256\)"),
}


@pytest.fixture
def rtx(bindings, monkeypatch):
    """The bindings of a TensorRT-RTX that says of a plan what it is told, on one GPU: set(validity, bits, gpu)."""
    members = {name: SimpleNamespace(value=bit) for name, bit in BITS.items()}
    bindings.EngineInvalidityDiagnostics = SimpleNamespace(__members__=members)
    monkeypatch.setattr(trt, "compute_capabilities", lambda: ("8.6", "8.9"))
    monkeypatch.setattr(trt_validity, "driver_version", lambda: "12.4")

    def told(validity, bits, gpu=ADA):
        monkeypatch.setattr(trt_validity, "cuda_devices", lambda: (gpu,))
        runtime = bindings.Runtime.return_value
        runtime.get_engine_validity.return_value = (getattr(bindings.EngineValidity, validity), bits)
        return runtime

    return told


@pytest.mark.parametrize(("bits", "gpu", "message"), REASONS.values(), ids=REASONS)
def test_why_a_plan_will_not_run_is_told_bit_by_bit(rtx, monkeypatch, bits, gpu, message):
    monkeypatch.setattr(trt, "_logger", lambda compiler: SimpleNamespace(collected=silent))
    runtime = rtx("INVALID", bits, gpu)
    with pytest.raises(EngineError, match=f"tensorrt-rtx 10.3.0 cannot run this plan here: .*{message}") as caught:
        trt.load_plan(RTX, b"plan")
    assert "no reason" not in str(caught.value)
    runtime.deserialize_cuda_engine.assert_not_called()


@pytest.mark.parametrize(
    ("capability", "served"),
    [("7.5", True), ("8.0", True), ("8.7", True), ("12.0", True), ("7.0", False), ("9.0", False), ("10.0", False)],
)
def test_a_gpu_is_served_by_plans_for_its_family(capability, served):
    assert (trt_validity.unserved(capability, "1.7.1", ("7.5", "8.0", "8.6", "12.0")) is None) == served


def test_what_the_log_says_is_told_besides(rtx):
    rtx("INVALID", 32)
    with pytest.raises(EngineError, match=r"damaged.*; it has its reasons"):
        trt.load_plan(RTX, b"plan")


def test_no_bit_and_no_message_is_no_reason(rtx, monkeypatch):
    monkeypatch.setattr(trt, "_logger", lambda compiler: SimpleNamespace(collected=silent))
    rtx("INVALID", 0)
    with pytest.raises(EngineError, match="cannot run this plan here: it gave no reason"):
        trt.load_plan(RTX, b"plan")


@pytest.mark.parametrize("validity", ["SUBOPTIMAL", "VALID"])
def test_a_plan_that_runs_below_its_best_is_loaded_with_a_warning(rtx, caplog, validity):
    rtx(validity, 2)
    trt.load_plan(RTX, b"plan")
    assert ("below its best: it was compiled for other GPUs" in caplog.text) == (validity == "SUBOPTIMAL")


# ---- contexts --------------------------------------------------------------------------------------------------


def test_a_context_has_no_memory_of_its_own(bindings, engine):
    trt.load_plan("tensorrt", b"plan").create_context()
    strategy = bindings.ExecutionContextAllocationStrategy.USER_MANAGED
    engine.create_execution_context.assert_called_once_with(strategy)


@pytest.mark.parametrize("own_graph", [False, True])
def test_a_context_of_rtx_keeps_its_kernels_and_knows_its_shapes(bindings, engine, own_graph):
    plan = trt.load_plan(RTX, b"plan")
    config = engine.create_runtime_config.return_value
    config.cuda_graph_strategy = None
    plan.use_kernels(b"compiled before")
    cache = config.create_runtime_cache.return_value
    cache.deserialize.assert_called_once_with(b"compiled before")
    plan.create_context(own_graph=own_graph)
    strategy = bindings.ExecutionContextAllocationStrategy.USER_MANAGED
    config.set_execution_context_allocation_strategy.assert_called_once_with(strategy)
    config.set_runtime_cache.assert_called_once_with(cache)
    kernels = bindings.DynamicShapesKernelSpecializationStrategy
    assert config.dynamic_shapes_kernel_specialization_strategy == kernels.EAGER
    whole = bindings.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    assert config.cuda_graph_strategy == (whole if own_graph else None)
    engine.create_execution_context.assert_called_once_with(config)


def test_kernels_of_another_machine_are_compiled_anew(bindings, engine, caplog):
    cache = engine.create_runtime_config.return_value.create_runtime_cache.return_value
    cache.deserialize.return_value = False
    with caplog.at_level("INFO"):
        trt.load_plan(RTX, b"plan").use_kernels(b"another machine's")
    assert "kernels are compiled anew" in caplog.text


def test_a_context_that_cannot_be_made_says_why(bindings, engine):
    engine.create_execution_context.return_value = None
    with pytest.raises(DeviceError, match="tensorrt cannot make an execution context: it has its reasons"):
        trt.load_plan("tensorrt", b"plan").create_context()


@pytest.mark.parametrize(
    ("asked", "name", "message"),
    [
        (lambda context: context.enqueue(5), "execute_async_v3", r"did not run \[5\]: it has its reasons"),
        (
            lambda context: context.set_shape("x", [2, 3]),
            "set_input_shape",
            r"did not take the shape \['x', \(2, 3\)\]",
        ),
        (lambda context: context.set_address("x", 256), "set_tensor_address", r"did not take the address \['x', 256\]"),
    ],
    ids=["run", "shape", "address"],
)
def test_a_no_is_an_error_and_never_stale_output(bindings, engine, asked, name, message):
    context, made = trt.load_plan("tensorrt", b"plan").create_context(), engine.create_execution_context.return_value
    asked(context)
    getattr(made, name).return_value = False
    with pytest.raises(DeviceError, match=message):
        asked(context)


@pytest.mark.parametrize("answer", [True, False])
def test_rtx_says_whether_a_context_can_be_captured(bindings, engine, answer):
    engine.create_execution_context.return_value.is_stream_capturable.return_value = answer
    assert trt.load_plan(RTX, b"plan").create_context().capturable(5) is answer
    engine.create_execution_context.return_value.is_stream_capturable.assert_called_once_with(5)


def test_what_cannot_be_asked_can_be_captured(bindings, engine):
    del engine.create_execution_context.return_value.is_stream_capturable
    assert trt.load_plan("tensorrt", b"plan").create_context().capturable(5)

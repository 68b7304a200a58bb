"""What `sdk.trt` asks of TensorRT and makes of its answers, on a stand-in for the bindings that records its calls."""

from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import MagicMock, call

import pytest

from sdk import trt
from sdk.errors import BuildError, DeviceError, EngineError, InputError

RTX = "tensorrt-rtx"
SHAPES = {"input": ((1, 3, 8, 8), (4, 3, 8, 8), (16, 3, 8, 8))}


@contextmanager
def collected():
    yield ["it has its reasons"]


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


@pytest.mark.parametrize("validity", ["INVALID", "SUBOPTIMAL", "VALID"])
def test_what_rtx_says_of_a_plan_beforehand_is_heard(bindings, caplog, validity):
    runtime = bindings.Runtime.return_value
    runtime.get_engine_validity.return_value = (getattr(bindings.EngineValidity, validity), 7)
    if validity == "INVALID":
        with pytest.raises(EngineError, match=r"cannot run this plan here \(diagnostics 7\): it has its reasons"):
            trt.load_plan(RTX, b"plan")
        runtime.deserialize_cuda_engine.assert_not_called()
        return
    trt.load_plan(RTX, b"plan")
    assert ("below its best" in caplog.text) == (validity == "SUBOPTIMAL")


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

"""`sdk/trt.py` against the real bindings of TensorRT 10.3, 10.13, 10.16, 11.4 and TensorRT-RTX: every name it uses
exists there and takes the arguments it is given.

The bindings were recorded (`tests/support/trt_api`); those installed here are asked themselves. What a call does is
shown by compiling (elsewhere) and by `tests/gpu`; here it is shown that there is such a call.
"""

import ast
import importlib
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdk import trt
from sdk.errors import BuildError, DeviceError, EngineError
from sdk.runtime.device import cuda_problem
from tests.support.engines import SMALL, pooled_simcc_graph
from tests.support.trt_api import BITS, arities, record_of, records

RECORDS = records()
CLASSIC = tuple(name for name in RECORDS if not name.startswith("tensorrt-rtx"))
RTX = tuple(name for name in RECORDS if name.startswith("tensorrt-rtx"))
EVERYWHERE = CLASSIC + RTX

CALLS = {  # class -> member -> number of arguments
    "Builder": {
        "__init__": 1, "create_network": 1, "create_builder_config": 0, "create_optimization_profile": 0,
        "build_serialized_network": 2,
    },
    "OnnxParser": {"__init__": 2, "parse": 1, "get_error": 1},
    "ParserError": {"node": 0, "node_name": 0, "node_operator": 0, "desc": 0},
    "IBuilderConfig": {
        "clear_flag": 1, "set_flag": 1, "set_memory_pool_limit": 2, "add_optimization_profile": 1,
        "create_timing_cache": 1, "set_timing_cache": 2, "get_timing_cache": 0,
    },
    "ITimingCache": {"serialize": 0},
    "IOptimizationProfile": {"set_shape": 4},
    "IProgressMonitor": {"__init__": 0, "phase_start": 3, "step_complete": 2, "phase_finish": 1},
    "ILogger": {"__init__": 0, "log": 2},
    "Runtime": {"__init__": 1, "deserialize_cuda_engine": 1},
    "ICudaEngine": {
        "get_tensor_name": 1, "get_tensor_mode": 1, "get_tensor_dtype": 1, "get_tensor_shape": 1,
        "create_execution_context": 1,
    },
    "IExecutionContext": {
        "set_input_shape": 2, "set_tensor_address": 2, "set_device_memory": 2,
        "set_aux_streams": 1, "execute_async_v3": 1,
    },
}  # fmt: skip
RTX_CALLS = {
    "ICudaEngine": {"create_runtime_config": 0},
    "IRuntimeConfig": {
        "set_execution_context_allocation_strategy": 1, "create_runtime_cache": 0, "set_runtime_cache": 1,
    },
    "IRuntimeCache": {"deserialize": 1, "serialize": 0},
    "IExecutionContext": {"is_stream_capturable": 1},
    "Runtime": {"get_engine_validity": 1},
    "IBuilderConfig": {"set_compute_capability": 2},
}  # fmt: skip
PROPERTIES = {
    "OnnxParser": ("num_errors",),
    "IBuilderConfig": ("builder_optimization_level", "progress_monitor"),
    "Runtime": ("engine_host_code_allowed",),
    "ICudaEngine": ("num_io_tensors", "num_aux_streams", "device_memory_size_v2"),
}
RTX_PROPERTIES = {
    "IRuntimeConfig": ("dynamic_shapes_kernel_specialization_strategy", "cuda_graph_strategy"),
    "IBuilderConfig": ("num_compute_capabilities",),
}
DLA_CALLS = {"IBuilderConfig": {"can_run_on_DLA": 1}, "INetworkDefinition": {"get_layer": 1}}
DLA_PROPERTIES = {
    "Builder": ("num_DLA_cores",),
    "Runtime": ("DLA_core",),
    "IBuilderConfig": ("default_device_type", "DLA_core"),
    "INetworkDefinition": ("num_layers",),
}
DLA_VALUES = {"DeviceType": ("DLA",), "BuilderFlag": ("GPU_FALLBACK",)}
VALUES = {
    "BuilderFlag": ("TF32",),
    "MemoryPoolType": ("WORKSPACE",),
    "TensorIOMode": ("INPUT",),
    "ExecutionContextAllocationStrategy": ("USER_MANAGED",),
    "DataType": ("FLOAT", "HALF", "INT8", "UINT8", "INT32", "INT64", "BOOL"),
    "ILogger": ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"),
}
RTX_VALUES = {
    "DynamicShapesKernelSpecializationStrategy": ("EAGER",),
    "CudaGraphStrategy": ("WHOLE_GRAPH_CAPTURE",),
    "EngineValidity": ("INVALID", "SUBOPTIMAL", "VALID"),
    "EngineInvalidityDiagnostics": tuple(BITS),
    "ComputeCapability": ("SM75", "SM80", "SM86", "SM89", "SM120"),
}


def rows(table, versions):
    return [(v, c, m) for v in versions for c, members in table.items() for m in members]


def wrong_calls(record, calls):
    """What of `calls` a record does not offer."""
    wrong = []
    for cls, members in calls.items():
        for member, count in members.items():
            signatures = record.get(cls, {}).get(member)
            if not isinstance(signatures, list):
                wrong.append(f"{cls}.{member} is missing")
            elif signatures and not any(low <= count <= high for low, high in arities(signatures)):
                wrong.append(f"{cls}.{member} does not take {count} arguments: {signatures}")
    return wrong


def missing(record, table, kind):
    return [f"{c}.{m}" for c, members in table.items() for m in members if record.get(c, {}).get(m) != kind]


def problems(record, *, rtx):
    """Everything `sdk/trt.py` uses that a record lacks."""
    found = wrong_calls(record, CALLS) + missing(record, PROPERTIES, "property") + missing(record, VALUES, "value")
    if not rtx:
        found += wrong_calls(record, DLA_CALLS) + missing(record, DLA_PROPERTIES, "property")
        found += missing(record, DLA_VALUES, "value")
    if rtx:
        found += wrong_calls(record, RTX_CALLS) + missing(record, RTX_PROPERTIES, "property")
        found += missing(record, RTX_VALUES, "value")
    return found


@pytest.mark.parametrize("version", EVERYWHERE)
def test_everything_used_is_offered(version):
    assert problems(RECORDS[version], rtx=version in RTX) == []


@pytest.mark.tensorrt
@pytest.mark.parametrize("compiler", ["tensorrt", "tensorrt-rtx"])
def test_everything_used_is_offered_by_what_is_installed(compiler):
    module = trt.MODULES[compiler]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    live = record_of(importlib.import_module(module))
    assert problems(live, rtx=compiler == "tensorrt-rtx") == []
    recorded = RECORDS.get(f"{compiler}-{importlib.import_module(module).__version__}")
    if recorded is not None:
        assert live == recorded


def test_the_check_notices_what_is_missing_or_changed():
    record = {cls: dict(members) for cls, members in RECORDS[CLASSIC[0]].items()}
    del record["IExecutionContext"]["execute_async_v3"]
    record["IOptimizationProfile"]["set_shape"] = ["set_shape(self: IOptimizationProfile, input: str) -> None"]
    del record["TensorIOMode"]["INPUT"]
    assert [line.split(" ")[0] for line in problems(record, rtx=False)] == [
        "IOptimizationProfile.set_shape",
        "IExecutionContext.execute_async_v3",
        "TensorIOMode.INPUT",
    ]


def test_the_tables_name_everything_that_the_module_uses():
    """A member that `sdk/trt.py` begins to use must be added above, or this fails."""
    source = Path(trt.__file__).read_text(encoding="utf-8")
    used = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    tables = (CALLS, RTX_CALLS, DLA_CALLS, PROPERTIES, RTX_PROPERTIES, DLA_PROPERTIES, VALUES, RTX_VALUES, DLA_VALUES)
    listed = {member for table in tables for members in table.values() for member in members}
    offered = {member for record in RECORDS.values() for members in record.values() for member in members}
    ours = {"name", "monitor", "replace", "shapes", "DEBUG", "log", "plan"}
    assert {each for each in used & offered if not each.startswith("_")} - listed - ours == set()


# DLA: the refusal and the list of layers, on stand-ins for TensorRT's objects; a board has yet to show the rest.


class Config:
    def __init__(self):
        self.flags = []

    def set_flag(self, flag):
        self.flags.append(flag)

    def can_run_on_DLA(self, layer):  # noqa: N802 (TensorRT's name)
        return "conv" in layer.name


def test_without_a_dla_the_core_asked_for_is_refused():
    module, builder = SimpleNamespace(__version__="10.3.0"), SimpleNamespace(num_DLA_cores=0)
    with pytest.raises(BuildError, match=r"finds 0 DLA cores on this device .asked for core 1."):
        trt._use_dla(module, builder, None, Config(), 1)


def test_layers_that_stay_on_the_gpu_are_listed(caplog):
    module = SimpleNamespace(
        __version__="10.3.0",
        DeviceType=SimpleNamespace(DLA="dla"),
        BuilderFlag=SimpleNamespace(GPU_FALLBACK="fallback"),
    )
    layers = [SimpleNamespace(name=name) for name in ("conv1", "silu1", "conv2", "softmax")]
    network, config = SimpleNamespace(num_layers=4, get_layer=lambda index: layers[index]), Config()
    with caplog.at_level("WARNING", logger="sdk.trt"):
        trt._use_dla(module, SimpleNamespace(num_DLA_cores=2), network, config, 1)
    assert (config.DLA_core, config.default_device_type, config.flags) == (1, "dla", ["fallback"])
    assert "2 of 4 layers" in caplog.text and "['silu1', 'softmax']" in caplog.text


# What differs between versions, and is therefore asked for before it is used.

DIFFERENCES = {  # (class, member) -> versions that have it
    ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"): EVERYWHERE,
    ("BuilderFlag", "FP16"): ("tensorrt-10.13.3.9", "tensorrt-10.16.1.11", "tensorrt-10.3.0"),
    ("BuilderFlag", "GPU_FALLBACK"): EVERYWHERE,
    ("IExecutionContext", "is_stream_capturable"): RTX,
    ("Runtime", "get_engine_validity"): RTX,
    ("EngineInvalidityDiagnostics", "UNSUPPORTED_CC"): RTX,
    ("ICudaEngine", "create_runtime_config"): (
        "tensorrt-10.13.3.9",
        "tensorrt-10.16.1.11",
        "tensorrt-11.4.0.106",
        *RTX,
    ),
    ("IRuntimeConfig", "create_runtime_cache"): RTX,
    ("Builder", "platform_has_fast_fp16"): ("tensorrt-10.13.3.9", "tensorrt-10.16.1.11", "tensorrt-10.3.0"),
    ("ICudaEngine", "device_memory_size"): ("tensorrt-10.13.3.9", "tensorrt-10.16.1.11", "tensorrt-10.3.0"),
    ("ICudaEngine", "device_memory_size_v2"): EVERYWHERE,
}


@pytest.mark.parametrize("case", DIFFERENCES, ids=".".join)
def test_what_differs_between_versions(case):
    cls, member = case
    assert sorted(v for v in RECORDS if member in RECORDS[v].get(cls, {})) == sorted(DIFFERENCES[case])


def test_every_bit_of_the_diagnostics_has_its_words():
    """Of the bindings there are, those without it say nothing of a plan beforehand."""
    offered = {m for v in RTX for m, kind in RECORDS[v]["EngineInvalidityDiagnostics"].items() if kind == "value"}
    assert offered == set(BITS)
    if trt.flavour("tensorrt-rtx").version:
        members = pytest.importorskip("tensorrt_rtx").EngineInvalidityDiagnostics.__members__
        assert {name: int(member) for name, member in members.items()} == BITS


# Answers of the real library on a machine without a driver.

ACTIVE = [name for name in ("tensorrt", "tensorrt-rtx") if trt.flavour(name).version]


@pytest.mark.tensorrt
@pytest.mark.parametrize("compiler", ACTIVE)
@pytest.mark.parametrize("data", [b"", b"not a plan", b"ptrt" + bytes(4096)], ids=["empty", "garbage", "zeros"])
def test_what_is_no_plan_is_refused_in_words(compiler, data):
    with pytest.raises((EngineError, DeviceError), match=r"cannot (load|run|start)"):
        trt.load_plan(compiler, data)


@pytest.mark.tensorrt
@pytest.mark.skipif("tensorrt-rtx" not in ACTIVE, reason="tensorrt_rtx is not installed")
@pytest.mark.skipif(cuda_problem() is None, reason="this machine has a CUDA device; tests/gpu runs on it")
def test_a_sound_plan_is_refused_in_words_without_a_driver(tmp_path):
    pytest.importorskip("onnx")
    graph = pooled_simcc_graph(tmp_path / "small.onnx", SMALL).read_bytes()
    shapes = {"input": tuple((batch, 3, 64, 48) for batch in (1, 2, 4))}
    plan = trt.build_plan("tensorrt-rtx", graph, trt.BuildSettings(shapes)).plan
    with pytest.raises((EngineError, DeviceError), match=r"cannot (load|run|start)"):
        trt.load_plan("tensorrt-rtx", plan)

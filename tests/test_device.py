"""Devices: names, what is chosen and why, which plan fits which GPU and driver."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from sdk import trt
from sdk.errors import DeviceError, EngineError
from sdk.manifest import CompilerNote
from sdk.runtime import device as device_module
from sdk.runtime.device import (
    Device,
    choose_device,
    cuda_problem,
    device_from_name,
    plan_mismatch,
    plan_problem,
    toolkit_mismatch,
)
from sdk.runtime.opening import engine_from, open_session
from sdk.trt import Flavour
from tests.support.engines import SMALL, given_plan

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def crops_of(count, size_hw=(64, 48)):
    return np.random.default_rng(count).standard_normal((count, 3, *size_hw)).astype(np.float32)


DEVICE_NAMES = {"cpu": Device("cpu"), "cuda": Device("cuda", 0), "cuda:1": Device("cuda", 1), "auto": None}


@pytest.mark.parametrize(("name", "device"), DEVICE_NAMES.items(), ids=DEVICE_NAMES)
def test_device_names(name, device):
    assert device_from_name(name) == device


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "CPU", "", 0, None, "cuda:1 "])
def test_other_device_names_are_refused(name):
    with pytest.raises(DeviceError, match=r"device must be 'auto', 'cpu', 'cuda' or 'cuda:N' \(got"):
        device_from_name(name)


def test_cuda_without_cuda_says_why(small_engine):
    problem = cuda_problem()
    if problem is None:
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(DeviceError, match=r"device 'cuda' cannot be used: .*`sdk doctor`"):
        open_session(small_engine, "cuda")


def test_without_a_driver_the_driver_is_named_not_its_bindings(monkeypatch):
    from sdk.runtime import device

    def missing():
        raise ImportError("PyCUDA: No module named 'pycuda'; cuda-bindings: No module named 'cuda'")

    monkeypatch.setattr(device, "cuda_driver", missing)
    monkeypatch.setattr(device, "driver_is_there", lambda: False)
    assert cuda_problem() == "no CUDA driver is installed"
    monkeypatch.setattr(device, "driver_is_there", lambda: True)
    assert cuda_problem() == (
        "neither PyCUDA nor cuda-bindings serves (PyCUDA: No module named 'pycuda'; cuda-bindings: No module named "
        "'cuda'); pip install 'cuda-bindings>=13,<14', or 'simcc-edge-sdk[cuda]' for PyCUDA"
    )


def test_auto_says_what_it_chose_and_why(small_engine, caplog):
    with caplog.at_level("INFO", "sdk"), open_session(small_engine, "auto") as session:
        assert session.device == "cpu"
    assert "runs on cpu: " in caplog.text


class FakeCuda:
    """A driver with two devices, an Orin and an RTX 40, as `pycuda.driver` shows it."""

    class Error(Exception):
        pass

    class Device:
        def __init__(self, index):
            self.index = index

        @staticmethod
        def count():
            return 2

        def compute_capability(self):
            return 8, 7 + 2 * self.index

    def init(self):
        pass


@pytest.fixture
def two_gpus(monkeypatch):
    from sdk.runtime import device

    monkeypatch.setattr(device, "cuda_driver", FakeCuda)
    monkeypatch.setattr(device, "native_problem", lambda: None)


@pytest.mark.native
def test_a_build_without_nvcc_is_told(small_engine, two_gpus, monkeypatch):
    from sdk import _native
    from sdk.runtime import device

    monkeypatch.undo()
    monkeypatch.setattr(device, "cuda_driver", FakeCuda)
    monkeypatch.setattr(_native, "cuda", None)
    monkeypatch.setattr(_native, "WITHOUT_CUDA", "no nvcc was found")
    message = "this build of sdk._native has no CUDA half: when it was built, no nvcc was found"
    with pytest.raises(DeviceError, match=f"device 'cuda' cannot be used: {message}"):
        choose_device(engine_from(small_engine), "cuda")
    assert choose_device(engine_from(small_engine), "auto")[1].startswith(message)


def test_a_device_beyond_the_last_is_refused(small_engine, two_gpus):
    with pytest.raises(DeviceError, match="there is no device 5; the driver sees 2, numbered from 0"):
        choose_device(engine_from(small_engine), "cuda:5")


def test_a_plan_is_for_the_device_that_is_asked_for(small_engine, tmp_path, two_gpus, monkeypatch):
    monkeypatch.setattr("sdk.trt.flavour", lambda name: Flavour(name, "10.3.0"))
    engine = given_plan(
        shutil.copytree(small_engine, tmp_path / "planned"),
        CompilerNote("tensorrt", "10.3.0", "8.9", "tensorrt.plan"),
        b"plan",
    )
    assert choose_device(engine, "cuda:1")[0] == Device("cuda", 1)
    with pytest.raises(EngineError, match=r"cannot run on cuda:0: .* compute capability 8\.9 and this GPU has 8\.7"):
        choose_device(engine, "cuda:0")


def test_a_driver_that_sees_no_device_says_so(two_gpus, monkeypatch):
    monkeypatch.setattr(FakeCuda.Device, "count", staticmethod(lambda: 0))
    assert cuda_problem() == "the CUDA driver sees no device"


def test_an_engine_without_a_plan_names_the_build_command(small_engine, two_gpus):
    with pytest.raises(
        EngineError, match=r"it has no plan, only its graph; rebuild it here.*: `sdk build-engine --rebuild "
    ):
        choose_device(engine_from(small_engine), "cuda")
    device, reason = choose_device(engine_from(small_engine), "auto")
    assert device == Device("cpu") and "it has no plan" in reason


MISMATCHES = {
    "same": (("tensorrt", "10.3.0", "8.7"), "10.3.0", "8.7", None),
    "other version": (
        ("tensorrt", "10.3.0", "8.7"),
        "10.7.0",
        "8.7",
        "compiled by tensorrt 10.3.0 and 10.7.0 is installed",
    ),
    "other GPU": (("tensorrt", "10.3.0", "8.7"), "10.3.0", "8.9", "compute capability 8.7 and this GPU has 8.9"),
    "portable": (("tensorrt-rtx", "1.5.0", "portable"), "1.5.0", "12.0", None),
    "portable, Hopper": (
        ("tensorrt-rtx", "1.5.0", "portable"),
        "1.5.0",
        "9.0",
        "8.9, 12.0 and this GPU has 9.0",
    ),
    "portable, Turing": (("tensorrt-rtx", "1.5.0", "portable"), "1.5.0", "7.5", "this GPU has 7.5"),
    "portable, other version": (("tensorrt-rtx", "1.5.0", "portable"), "1.4.0", "8.6", "1.5.0 and 1.4.0 is installed"),
}


@pytest.mark.parametrize(("made", "version", "capability", "message"), MISMATCHES.values(), ids=MISMATCHES)
def test_a_plan_for_another_machine_names_both_and_the_mend(made, version, capability, message):
    name, made_version, target = made
    note = CompilerNote(name, made_version, target, f"{name}.plan")
    problem = plan_mismatch(note, version, capability, "rebuild it{}".format)
    assert (problem is None) == (message is None)
    if message:
        here = target == "portable" and version == made_version
        assert message in problem and problem.endswith("rebuild it" + " --compute-capability current" * here)


def test_a_plan_for_one_named_capability_runs_on_its_family():
    note = CompilerNote("tensorrt-rtx", "1.5.0", "8.6", "x.plan", {"compute_capabilities": ["8.6"]})
    assert plan_mismatch(note, "1.5.0", "8.9", str) is None
    assert "compiled for compute capability 8.6 and this GPU has 7.5" in plan_mismatch(note, "1.5.0", "7.5", str)
    here = CompilerNote("tensorrt-rtx", "1.5.0", "8.6", "x.plan", {"compute_capabilities": ["current"]})
    assert plan_mismatch(here, "1.5.0", "8.9", str) is not None


def test_a_plan_of_rtx_on_a_gpu_it_does_not_serve_points_to_tensorrt(small_engine, monkeypatch):
    note = CompilerNote("tensorrt-rtx", "1.7.1", "portable", "tensorrt-rtx.plan")
    engine = SimpleNamespace(folder=small_engine, manifest=SimpleNamespace(compiler=note))
    monkeypatch.setattr(trt, "flavour", lambda name: trt.Flavour(name, "1.7.1"))
    monkeypatch.setattr(trt, "rtx_problem", lambda capability: f"it serves no {capability}")
    monkeypatch.setattr(device_module, "compute_capability", lambda index: "9.0")
    problem = plan_problem(engine)
    assert "TensorRT-RTX's: it serves no 9.0; rebuild it here" in problem and "--compiler tensorrt`" in problem


def test_a_portable_plan_for_named_capabilities_runs_on_those_families():
    options = {"compute_capabilities": ["7.5", "8.6"]}
    note = CompilerNote("tensorrt-rtx", "1.5.0", "portable", "tensorrt-rtx.plan", options)
    assert plan_mismatch(note, "1.5.0", "7.5", str) is None
    assert plan_mismatch(note, "1.5.0", "8.9", str) is None
    assert "compiled for compute capability 7.5, 8.6" in plan_mismatch(note, "1.5.0", "12.0", str)


@pytest.mark.parametrize(
    ("toolkit", "driver", "fits"),
    [
        ("13.0", "13.1", True),
        ("13.2", "13.0", True),
        ("12.6", "13.0", True),
        ("13.0", "12.8", False),
        ("13.0", None, True),
    ],
)
def test_a_toolkit_newer_than_the_driver_is_told(toolkit, driver, fits):
    problem = toolkit_mismatch(toolkit, driver)
    assert (problem is None) == fits
    if problem:
        assert f"built with CUDA {toolkit} and the driver serves CUDA {driver}: update" in problem


@pytest.fixture(scope="module")
def compiled(small_graphs, tmp_path_factory):
    """An engine with a real plan, as the toolchain builds it."""
    from sdk.toolchain.build import BuildOptions, build_engine

    output = tmp_path_factory.mktemp("compiled") / "small.fp16"
    return build_engine(BuildOptions(SMALL, "fp16", onnx=small_graphs["simcc"][0], output=output))


@pytest.mark.tensorrt
@pytest.mark.torch
def test_an_engine_with_a_plan_runs_on_the_cpu_from_its_graph(compiled, small_engine):
    assert compiled.plan_path.is_file()
    with open_session(compiled, "cpu") as typed, open_session(small_engine, "cpu") as single:
        for half, full in zip(typed.run(crops_of(3)), single.run(crops_of(3)), strict=True):
            np.testing.assert_allclose(half, full, atol=2e-2)


@pytest.mark.tensorrt
@pytest.mark.torch
def test_a_flipped_byte_of_the_plan_is_found_before_anything_reads_it(compiled, tmp_path):
    copy = shutil.copytree(compiled.folder, tmp_path / "copy")
    plan = copy / compiled.plan_path.name
    data = bytearray(plan.read_bytes())
    data[-1] ^= 1
    plan.write_bytes(data)
    for device in ("cpu", "auto"):
        with pytest.raises(EngineError, match=rf"'{plan.name}' was altered .* copy it again or rebuild the engine"):
            open_session(copy, device)


@pytest.mark.tensorrt
@pytest.mark.torch
def test_a_plan_of_another_version_names_both_and_the_command(compiled, two_gpus):

    note = replace(compiled.manifest.compiler, version="0.9.1")
    old = replace(compiled, manifest=replace(compiled.manifest, compiler=note))
    installed = compiled.manifest.compiler.version
    with pytest.raises(
        EngineError, match=rf"0\.9\.1 and {installed} is installed here; rebuild it here .*`sdk build-engine"
    ):
        choose_device(old, "cuda")
    device, reason = choose_device(old, "auto")
    assert device == Device("cpu") and "0.9.1" in reason
    assert choose_device(compiled, "auto") == (Device("cuda", 0), "the engine has a plan for it")

"""Choosing and driving a compiler: auto, refusals before any work, timing cache, memory, Ctrl-C."""

import logging
import os
import signal
import threading
import time

import pytest

pytest.importorskip("onnx")

from sdk import trt
from sdk.cuda_devices import CudaDevice
from sdk.errors import DeviceError, InputError, MissingDependencyError, OutOfMemoryError
from sdk.manifest import BatchRange
from sdk.toolchain import compile as compile_module
from sdk.toolchain.compile import CompileOptions, check_memory, choose_compiler, compiler_note, plan_from_graph
from sdk.trt_validity import unserved
from tests.support.engines import SMALL, pooled_simcc_graph
from tests.support.full_disk import full_disk

RTX = "tensorrt-rtx"
ABSENT = "not installed; pip install it"
ORIN = CudaDevice(0, "Orin", "8.7", 62841)
HOPPER = CudaDevice(0, "NVIDIA H200", "9.0", 143771)


@pytest.fixture
def graph(tmp_path):
    return pooled_simcc_graph(tmp_path / "small.onnx", SMALL).read_bytes()


@pytest.fixture
def machine(monkeypatch):
    """Pretend which flavours and devices this machine has."""

    def pretend(*installed, devices=()):
        def flavour(name):
            return trt.Flavour(name, "10.3.0" if name in installed else None, None if name in installed else ABSENT)

        monkeypatch.setattr(trt, "flavour", flavour)
        monkeypatch.setattr(compile_module, "cuda_devices", lambda: tuple(devices))
        monkeypatch.setattr(trt, "compute_capabilities", lambda: ("8.6", "8.9"))
        monkeypatch.setattr(trt, "rtx_problem", lambda capability: unserved(capability, "1.7.1", ("8.6", "8.9")))

    return pretend


AUTO = {
    "both, and a device": (("tensorrt", RTX), (ORIN,), "tensorrt", "device 0, Orin"),
    "both, no device": (("tensorrt", RTX), (), RTX, "compiles without a device"),
    "rtx alone": ((RTX,), (ORIN,), RTX, "compiles without a device"),
    "tensorrt alone, no device": (("tensorrt",), (), None, "tensorrt: no CUDA device; tensorrt-rtx: not installed"),
    "neither": ((), (ORIN,), None, "none, the engine holds its graph only"),
}


@pytest.mark.parametrize(("installed", "devices", "expected", "told"), AUTO.values(), ids=AUTO)
def test_auto_says_what_it_chose_and_why(machine, caplog, installed, devices, expected, told):
    caplog.set_level(logging.INFO, logger="sdk")
    machine(*installed, devices=devices)
    assert choose_compiler(CompileOptions()) == expected
    assert told in caplog.text


def test_none_is_none(machine):
    machine(RTX)
    assert choose_compiler(CompileOptions("none")) is None


REFUSED = {
    "rtx absent": ((), (), {"compiler": RTX}, MissingDependencyError, "'tensorrt-rtx' cannot be used: not installed"),
    "tensorrt without a device": (("tensorrt",), (), {"compiler": "tensorrt"}, DeviceError, "needs a CUDA device"),
    "a timing cache with rtx": ((RTX,), (), {"timing_cache": "x"}, InputError, "leave --timing-cache out"),
    "a workspace for nothing": ((), (), {"compiler": "none", "workspace_mib": 64}, InputError, "the compiler is none"),
    "a DLA with rtx": ((RTX,), (), {"dla_core": 0}, InputError, "has no DLA"),
    "a DLA with batches": (("tensorrt",), (ORIN,), {"dla_core": 0}, InputError, r"one batch size \(got 1 to 16\)"),
    "a GPU that rtx does not serve": (
        ("tensorrt", RTX), (HOPPER,), {"compiler": RTX, "compute_capabilities": ("current",)}, DeviceError,
        r"the GPU that is here, NVIDIA H200: tensorrt-rtx 1.7.1 serves .* has 9.0; .*--compiler tensorrt$",
    ),
    "current without a device": (
        (RTX,), (), {"compute_capabilities": ("current",)}, DeviceError, "needs a CUDA device and none is visible",
    ),
    "an unknown capability": ((RTX,), (), {"compute_capabilities": ("3.0",)}, InputError, "one of 8.6, 8.9, .*'3.0'"),
    "a capability with tensorrt": (
        ("tensorrt",), (ORIN,), {"compute_capabilities": ("8.6",)}, InputError, "compiles for the device it runs on",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("installed", "devices", "options", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_before_any_work(machine, installed, devices, options, error, message):
    machine(*installed, devices=devices)
    with pytest.raises(error, match=message):
        choose_compiler(CompileOptions(**options))


BAD_OPTIONS = {
    "no batch": ({"batch": BatchRange(0, 1, 1)}, r"1 <= min <= opt <= max <= 4096 \(got min 0"),
    "best above largest": ({"batch": BatchRange(1, 8, 4)}, r"got min 1, opt 8, max 4"),
    "more than any engine holds": ({"batch": BatchRange(1, 4, 5000)}, r"max <= 4096 \(got min 1, opt 4, max 5000"),
    "smallest above best": ({"batch": BatchRange(3, 2, 4)}, r"got min 3, opt 2, max 4"),
    "no workspace": ({"workspace_mib": 0}, r"workspace must be at least 1 MiB \(got 0\)"),
    "level 6": ({"optimization_level": 6}, r"optimization level must be 0 to 5 \(got 6\)"),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        CompileOptions(**options)


@pytest.mark.parametrize(
    ("compiler", "target"), [("tensorrt", "8.7"), (RTX, "portable")], ids=["tensorrt", "tensorrt-rtx"]
)
def test_the_manifests_note_names_version_and_target(machine, compiler, target):
    machine("tensorrt", RTX, devices=(ORIN,))
    note = compiler_note(compiler, CompileOptions(optimization_level=3))
    assert (note.name, note.version, note.target, note.plan) == (compiler, "10.3.0", target, f"{compiler}.plan")
    assert note.options == {"optimization_level": 3}


TARGETS = {
    "none named": ((), "portable"),
    "one": (("7.5",), "7.5"),
    "several": (("7.5", "8.6"), "portable"),
    "the one here": (("current",), "8.7"),
}


@pytest.mark.parametrize(("named", "target"), TARGETS.values(), ids=TARGETS)
def test_a_plan_for_one_capability_is_not_called_portable(machine, named, target):
    machine(RTX, devices=(ORIN,))
    note = compiler_note(RTX, CompileOptions(RTX, compute_capabilities=named))
    assert note.target == target and note.options.get("compute_capabilities", []) == list(named)


def test_a_plan_for_other_gpus_than_the_one_here_is_told(machine, caplog):
    machine(RTX, devices=(HOPPER,))
    assert choose_compiler(CompileOptions(RTX)) == RTX
    assert "the plan will be for other GPUs than the one here, NVIDIA H200: tensorrt-rtx 1.7.1 serves" in caplog.text


def test_memory_is_asked_for_before_the_build(monkeypatch):
    monkeypatch.setattr(compile_module, "_available_mib", lambda: 1000)
    with pytest.raises(OutOfMemoryError, match=r"needs about \d+ MiB of memory and 1000 MiB are available; close"):
        check_memory("tensorrt", 50 << 20, workspace_mib=512)
    check_memory(RTX, 50 << 20)
    monkeypatch.setattr(compile_module, "_available_mib", lambda: None)
    check_memory("tensorrt", 1 << 40)


def test_available_memory_is_read_from_the_system():
    found = compile_module._available_mib()
    assert found is None or found > 0


class FakeCompiler:
    """Stands for `trt.build_plan`: notes the settings, hears the monitor, answers a cache."""

    def __init__(self, monkeypatch, steps=3, pause_s=0.0):
        self.steps, self.pause_s, self.heard, self.started = steps, pause_s, [], threading.Event()
        monkeypatch.setattr(trt, "build_plan", self)
        monkeypatch.setattr(compile_module, "check_memory", lambda *_: None)

    def __call__(self, compiler, graph, settings, monitor):
        self.settings = settings
        monitor.start("Building", None, self.steps)
        self.started.set()
        for step in range(self.steps):
            monitor.start("inner", "Building", 1)
            self.heard.append(monitor.step("Building", step))
            if not self.heard[-1]:
                break
            time.sleep(self.pause_s)
        monitor.finish("Building")
        return trt.Built(b"plan", None if settings.timing_cache is None else settings.timing_cache + b"+")


def test_shapes_follow_from_graph_and_batch(monkeypatch, graph):
    fake = FakeCompiler(monkeypatch)
    assert plan_from_graph(graph, "tensorrt", CompileOptions(batch=BatchRange(2, 3, 5))) == b"plan"
    assert fake.settings.shapes == {"input": ((2, 3, 64, 48), (3, 3, 64, 48), (5, 3, 64, 48))}
    assert fake.heard == [True, True, True]


def test_a_graph_with_a_fixed_batch_takes_no_other(monkeypatch, graph):
    import onnx

    FakeCompiler(monkeypatch)
    model = onnx.load_from_string(graph)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    data = model.SerializeToString()
    with pytest.raises(InputError, match="fixed at 1: batch min, opt and max must be 1"):
        plan_from_graph(data, "tensorrt", CompileOptions())
    assert plan_from_graph(data, "tensorrt", CompileOptions(batch=BatchRange(1, 1, 1))) == b"plan"


def test_the_timing_cache_is_kept_between_builds(monkeypatch, graph, tmp_path):
    fake = FakeCompiler(monkeypatch)
    options = CompileOptions(timing_cache=tmp_path / "timing.cache")
    plan_from_graph(graph, "tensorrt", options)
    assert fake.settings.timing_cache == b""
    plan_from_graph(graph, "tensorrt", options)
    assert fake.settings.timing_cache == b"+"
    assert [path.name for path in tmp_path.iterdir() if "cache" in path.name] == ["timing.cache"]


def test_a_timing_cache_that_cannot_be_read_is_an_error(monkeypatch, graph, tmp_path):
    FakeCompiler(monkeypatch)
    with pytest.raises(InputError, match=r"timing cache .* cannot be read \(Is a directory\)"):
        plan_from_graph(graph, "tensorrt", CompileOptions(timing_cache=tmp_path))


def test_a_timing_cache_in_a_new_folder_makes_it(monkeypatch, graph, tmp_path):
    FakeCompiler(monkeypatch)
    options = CompileOptions(timing_cache=tmp_path / "new" / "timing.cache")
    assert plan_from_graph(graph, "tensorrt", options) == b"plan"
    assert (tmp_path / "new" / "timing.cache").read_bytes() == b"+"


def test_a_full_disk_costs_the_timings_and_not_the_plan(monkeypatch, graph, tmp_path, caplog):
    FakeCompiler(monkeypatch)
    path = tmp_path / "cache" / "timing.cache"
    path.parent.mkdir()
    path.write_bytes(b"old")
    with full_disk(room=2):
        assert plan_from_graph(graph, "tensorrt", CompileOptions(timing_cache=path)) == b"plan"
    assert "the timings of this build are not kept: " in caplog.text
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_ctrl_c_stops_the_compiler_and_is_raised(monkeypatch, graph):
    fake = FakeCompiler(monkeypatch, steps=1000, pause_s=0.02)

    def press():
        fake.started.wait(10)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        plan_from_graph(graph, "tensorrt", CompileOptions())
    assert fake.heard[-1] is False
    assert len(fake.heard) < 1000
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not any(thread.name.startswith("compile") for thread in threading.enumerate())


def test_a_fault_of_the_compiler_reaches_the_caller(monkeypatch, graph):
    def broken(*_):
        raise trt.BuildError("no kernel")

    monkeypatch.setattr(trt, "build_plan", broken)
    with pytest.raises(trt.BuildError, match="no kernel"):
        plan_from_graph(graph, "tensorrt-rtx", CompileOptions())


def test_the_progress_bar_follows_the_outer_phase(monkeypatch, graph, capsys):
    import tqdm

    seen = []

    class Bar(tqdm.tqdm):
        def close(self):
            seen.append((self.desc, self.n, self.total))
            super().close()

    monkeypatch.setattr(tqdm, "tqdm", lambda *a, **k: Bar(*a, **{**k, "disable": False}))
    FakeCompiler(monkeypatch)
    plan_from_graph(graph, "tensorrt", CompileOptions())
    assert ("Building", 3, 3) in seen
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Building" in captured.err

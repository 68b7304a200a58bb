"""What a test may need of the machine, asked once, with the reason for a skip."""

import importlib.util
import os
import signal

import pytest

from sdk.onnx_runtime import TELEMETRY_VARIABLE
from sdk.runtime.device import cuda_problem
from tests.support import ptx
from tests.support.emulated_gpu import compiler, emulated_cuda
from tests.support.shared import SHARED

os.environ.setdefault(TELEMETRY_VARIABLE, "1")  # tests import ONNX Runtime themselves


def _installed(*names):
    return all(importlib.util.find_spec(name) is not None for name in names)


def _unmet(met, reason):
    return None if met else reason


def _no_native():
    built = importlib.util.find_spec("sdk._native") is not None
    return _unmet(built, "the native extension is not built (python setup.py build_ext --inplace)")


def _no_tensorrt():
    return _unmet(_installed("tensorrt_rtx") or _installed("tensorrt"), "no TensorRT flavour is installed")


def _no_torch():
    return _unmet(_installed("torch", "onnx"), "torch or onnx is not installed (pip install '.[build]')")


def _no_data():
    return _unmet(SHARED.is_dir(), "the shared data folder is not beside the project")


# A mark -> why a test that bears it cannot run here, or None.
PROBLEMS = {
    "native": _no_native,
    "tensorrt": _no_tensorrt,
    "torch": _no_torch,
    "gpu": cuda_problem,
    "data": _no_data,
}


def pytest_configure():
    """A shell that starts the tests in the background makes them ignore Ctrl-C, and their children with them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    problems = {name: problem() for name, problem in PROBLEMS.items()}
    for item in items:
        for name, problem in problems.items():
            if problem and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=problem))


@pytest.fixture(scope="session")
def shared():
    """The shared data folder; skips where it is absent."""
    problem = _no_data()
    if problem:
        pytest.skip(problem)
    return SHARED


@pytest.fixture(scope="session")
def parity(shared):
    return shared / "parity"


@pytest.fixture(scope="session")
def lspet(shared):
    return shared / "data" / "lspet"


@pytest.fixture(scope="session")
def emulated(tmp_path_factory):
    """The CUDA half of the extension, run on the CPU: a module like `sdk._native.cuda`."""
    pytest.importorskip("nanobind")
    if not compiler():
        pytest.skip("needs a C++ compiler")
    return emulated_cuda(tmp_path_factory.mktemp("emulated"))


@pytest.fixture(scope="session")
def ptx_files(tmp_path_factory):
    """'oldest', 'orin' or 'newest' architecture -> the PTX files of the kernels."""
    pytest.importorskip("nanobind")
    toolkit = ptx.toolkit()
    if toolkit is None:
        pytest.skip("needs nvcc, on PATH or in CUDA_HOME")
    numbers = {"oldest": toolkit.architectures[0], "orin": 87, "newest": toolkit.architectures[-1]}
    return {name: ptx.ptx_files(tmp_path_factory.mktemp(name), number) for name, number in numbers.items()}


@pytest.fixture(scope="session")
def small_graphs(tmp_path_factory):
    """Kind -> (graph, recipe) of two tiny networks."""
    from tests.support.engines import SMALL, SMALL_3D, SMALL_HEATMAP, pooled_heatmap_graph, pooled_simcc_graph

    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("graphs")
    return {
        "simcc": (pooled_simcc_graph(folder / "simcc.onnx", SMALL), SMALL),
        "three axes": (pooled_simcc_graph(folder / "three.onnx", SMALL_3D), SMALL_3D),
        "heatmap": (pooled_heatmap_graph(folder / "heatmap.onnx", SMALL_HEATMAP), SMALL_HEATMAP),
    }


@pytest.fixture(scope="session")
def small_engine(small_graphs, tmp_path_factory):
    """The folder of an engine of the tiny SimCC network. To be read only."""
    from tests.support.engines import wrapped_engine

    graph, recipe = small_graphs["simcc"]
    return wrapped_engine(graph, tmp_path_factory.mktemp("engine") / "small.fp32", recipe)


@pytest.fixture(scope="session")
def small(small_engine):
    """The same engine, opened."""
    from sdk.runtime.opening import engine_from

    return engine_from(small_engine)


@pytest.fixture(scope="session")
def tiny_model():
    """The graph that INT8 is tried on. To be read only."""
    from tests.support.int8 import tiny_graph

    return tiny_graph()


@pytest.fixture(scope="session")
def people_file(tmp_path_factory):
    """Twenty annotated photographs to calibrate that graph on, COCO's form, the pictures beside it. To be read only."""
    from tests.support.int8 import write_photographs

    return write_photographs(tmp_path_factory.mktemp("photographs"), 20)


@pytest.fixture(scope="session")
def people_crops(people_file):
    """Their persons as crops."""
    from sdk.toolchain.crops import CropSet, people_from_data
    from tests.support.int8 import tiny_recipe

    recipe = tiny_recipe()
    return CropSet.drawn(people_from_data(people_file, None, recipe), recipe, count=20)


@pytest.fixture
def graph_file(tmp_path):
    """The tiny SimCC network's graph in a file that the test may change."""
    from tests.support.engines import SMALL, pooled_simcc_graph

    return pooled_simcc_graph(tmp_path / "small.onnx", SMALL)


@pytest.fixture
def build_folder(graph_file, tmp_path, monkeypatch):
    """The current folder, with that graph, small.onnx, and its recipe, small.toml."""
    from tests.support.cli_build import RECIPE

    (tmp_path / "small.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys, caplog):
    """A function that runs one command of `sdk`: (exit status, stdout, stderr and log)."""
    from sdk.cli import main

    def run_words(*words):
        caplog.clear()
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err + caplog.text

    return run_words


@pytest.fixture
def place(tmp_path):
    """Where the engine of a test goes; nothing is there yet."""
    return tmp_path / "small.fp16"


@pytest.fixture
def photos(tmp_path):
    """A folder of three pictures, 0.png to 2.png."""
    from tests.support.predict import write_photos

    return write_photos(tmp_path / "photos")


@pytest.fixture
def clip(tmp_path):
    """A video of five frames, ten a second."""
    from tests.support.predict import write_clip

    return write_clip(tmp_path / "clip.avi")


@pytest.fixture
def simulate(small_graphs, emulated, tmp_path, monkeypatch):
    """A function that opens a simulated device for one kind of engine: (device, engine, kernels)."""
    from tests.support.engines import wrapped_engine
    from tests.support.simulated_cuda import Simulated
    from tests.support.simulated_plan import install, simulated_engine

    devices = []

    def opened(kind="simcc", detector=None, **switches):
        path, recipe = small_graphs[kind]
        engine = simulated_engine(wrapped_engine(path, tmp_path / kind, recipe))
        device = Simulated(**switches)
        devices.append(device)
        return device, engine, install(monkeypatch, device, engine, emulated, detector)

    yield opened
    assert [fault for device in devices for fault in device.faults] == []

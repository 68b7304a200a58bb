"""The run time through the real PyCUDA, on a libcuda that simulates a device; and PyCUDA's real answers without one.

Needs PyCUDA, whose wheel must be compiled where it is used, and a C compiler; skips elsewhere.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engines import SMALL, pooled_simcc_graph, wrapped_engine
from tests.support.libcuda import SIMULATED, compiled_libcuda
from tests.support.simulated_plan import simulated_engine

ROOT = Path(__file__).resolve().parents[1]
COMPILER = shutil.which("cc") or shutil.which("gcc")
SPEC = importlib.util.find_spec("pycuda")
pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(SPEC is None, reason="pycuda is not installed"),
    pytest.mark.skipif(COMPILER is None or shutil.which("nm") is None, reason="there is no C compiler"),
]

NO_DEVICE = """
#include <stddef.h>
int cuInit(unsigned flags) { return 100; }
int cuGetErrorString(int error, const char** text) { *text = "no CUDA-capable device is detected"; return 0; }
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A function that compiles a libcuda from the source of what it can do."""
    return lambda name, source: compiled_libcuda(tmp_path_factory.mktemp(name), source)


@pytest.fixture(scope="module")
def simulated(compiled):
    return compiled("simulated", SIMULATED.read_text())


@pytest.fixture(scope="module")
def engine_folder(tmp_path_factory):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("engine")
    graph = pooled_simcc_graph(folder / "small.onnx", SMALL)
    return simulated_engine(wrapped_engine(graph, folder / "small", SMALL)).folder


def run(preload, *arguments):
    environment = {**os.environ, "LD_PRELOAD": str(preload), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], check=False, env=environment, cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "deed", ["close", "memory", "foreign", "drop-in-a-thread", "exit", "exit-while-running", "interrupts"]
)
def test_the_pipeline_uses_pycuda_as_it_is(simulated, emulated, engine_folder, deed):
    words = "tests/support/pycuda_on_simulated_libcuda.py", engine_folder, deed, simulated, emulated.path
    done = run(simulated, *words)
    assert done.returncode == 0, done.stderr
    assert "PyCUDA" not in done.stderr and "cleaned up" not in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["wrong"] == []
    assert report["depth"] == 0 or deed == "interrupts"  # a push cut off by an interrupt is popped at exit
    if deed == "memory":
        assert "free" in report["message"] and "needed" in report["message"]
    if deed == "foreign":
        assert "another CUDA context" in report["message"] and "autoprimaryctx" in report["message"]
    if deed == "interrupts":
        assert int(report["message"].split()[0]) > 20
    if not deed.startswith("exit"):
        assert (report["device"], report["host"], report["events"]) == (0, 0, 0)
        assert report["streams"] == 2  # the device's own, which live as long as the process


ANSWERS = """
from sdk.runtime.device import cuda_problem
from sdk.errors import DeviceError
import sdk
print(cuda_problem())
for call in (lambda: sdk.pinned_frame(8, 8), lambda: sdk.PoseEstimator(device="cuda")):
    try:
        call()
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_a_driver_without_a_device_is_said_in_words(compiled):
    done = run(compiled("no-device", NO_DEVICE), "-c", ANSWERS)
    assert done.returncode == 0, done.stderr
    assert "no CUDA-capable device is detected" in done.stdout.splitlines()[0]
    assert "DeviceError device 'cuda:0' cannot be used" in done.stdout


def test_no_driver_at_all_is_said_in_words():
    done = run("", "-c", ANSWERS)
    if "no CUDA driver" not in done.stdout:
        pytest.skip("this machine has a CUDA driver")
    assert "DeviceError device 'cuda:0' cannot be used: no CUDA driver" in done.stdout

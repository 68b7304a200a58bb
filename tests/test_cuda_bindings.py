"""The run time through the real PyCUDA and the real cuda-bindings, on a libcuda that simulates a device; and their real
answers without one.

Needs a C compiler, and the package that is tested (PyCUDA must be compiled where it is used); skips elsewhere.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engines import SMALL, pooled_simcc_graph, wrapped_engine
from tests.support.libcuda import BINDINGS, SIMULATED, compiled_libcuda, is_installed
from tests.support.simulated_plan import simulated_engine

ROOT = Path(__file__).resolve().parents[1]
COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(COMPILER is None or shutil.which("nm") is None, reason="there is no C compiler"),
]

NO_DEVICE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
int cuGetProcAddress_v2(const char* name, void** found, int version, unsigned long flags, int* status) {
    *found = dlsym(RTLD_DEFAULT, name);
    return *found ? 0 : 500;
}
int cuInit(unsigned flags) { return 100; }
int cuGetErrorString(int error, const char** text) { *text = "no CUDA-capable device is detected"; return 0; }
"""


@pytest.fixture(scope="module", params=list(BINDINGS))
def binding(request):
    """The package that makes the driver's calls."""
    if not is_installed(request.param):
        pytest.skip(f"{request.param} is not installed")
    return request.param


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
def test_the_pipeline_uses_the_bindings_as_they_are(binding, simulated, emulated, engine_folder, deed):
    words = "tests/support/bindings_on_simulated_libcuda.py", binding, engine_folder, deed, simulated, emulated.path
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
import sys
from tests.support.libcuda import use_only
use_only(sys.argv[1])
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


def test_a_driver_without_a_device_is_said_in_words(binding, compiled):
    done = run(compiled("no-device", NO_DEVICE), "-c", ANSWERS, binding)
    assert done.returncode == 0, done.stderr
    assert "no CUDA-capable device is detected" in done.stdout.splitlines()[0]
    assert "DeviceError device 'cuda:0' cannot be used" in done.stdout


def test_no_driver_at_all_is_said_in_words(binding):
    done = run("", "-c", ANSWERS, binding)
    if "no CUDA driver" not in done.stdout:
        pytest.skip("this machine has a CUDA driver")
    assert "DeviceError device 'cuda:0' cannot be used: no CUDA driver" in done.stdout

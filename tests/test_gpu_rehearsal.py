"""The checks of tests/gpu work: rehearsed on a simulated device (tests/support/rehearsal.py), each file on its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.emulated_gpu import compiler

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [
    pytest.mark.native,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not compiler(), reason="needs a C++ compiler"),
]


@pytest.mark.parametrize("name", ["test_ops_gpu", "test_pipeline", "test_soak"])
def test_the_gpu_checks_pass_on_a_simulated_device(name):
    pytest.importorskip("nanobind")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.rehearsal", f"tests/gpu/{name}.py"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


BENCHMARK = """
import sys
from tests.support import rehearsal
rehearsal.begin(integrated=sys.argv[2] == "jetson")
from benchmarks import gpu, gpu_frames, gpu_measures
gpu_measures.WARM_UP, gpu.RECIPES, gpu_frames.FRAME_HW = 1, sys.argv[3:], (540, 960)
sys.argv = ["gpu.py", "--stand-in", "--rounds", "1", "--output", sys.argv[1]]
gpu.main()
"""


CARD_ROWS = (
    "whole call, frame on the device / the plan alone",
    "whole call less the device's time",
    "finding and estimating 4 persons less both plans alone, ms |",
    "stand-in-320: whole frame on the device, 4 persons, ms",
    "p99 / p50 of 5 calls",
    "a pageable frame adds, N=1, ms",
    "a pageable frame adds / its bytes' time, N=8",
    "16 frames of one person, on the device: calls / many",
    "plain enqueue / graph",
    "the best transfer",
    "N=16 / N=1",
    "our CPU ops / the device",
)
JETSON_ROWS = ("whole call, frame on the device / the plan alone", "from shared memory, 0.250 from device memory")


@pytest.mark.parametrize(
    ("device", "recipes", "rows"),
    [
        ("card", ("body14-nano-128x128", "rtmpose-t-256x192"), CARD_ROWS),
        ("jetson", ("body14-nano-128x128",), JETSON_ROWS),
    ],
    ids=["card", "jetson"],
)
def test_the_gpu_benchmark_runs_on_a_simulated_device(tmp_path, device, recipes, rows):
    pytest.importorskip("nanobind")
    words = [sys.executable, "-c", BENCHMARK, str(tmp_path), device, *recipes]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report = (tmp_path / "simulated.md").read_text()
    for row in rows:
        assert row in report
    assert "tensorrt stand-in" in report and "| nan" not in report

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

"""ONNX Runtime is asked to keep to itself, before it is imported, and whoever wants otherwise is heard."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdk.onnx_runtime import TELEMETRY_VARIABLE

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).resolve().parents[1]
OPENED = """
import os, sys
from pathlib import Path
from sdk import PoseEstimator
with PoseEstimator(device="cpu", threads=1):
    print(os.environ["ORT_DISABLE_TELEMETRY"], *sorted(p.name for p in Path(os.environ["HOME"]).rglob("*")))
"""


def told(code, home, **variables):
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    environment = {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), **variables}  # without a CI's own signs
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_an_open_engine_tells_nobody_and_leaves_no_identifier_at_home(tmp_path):
    assert told(OPENED, tmp_path) == ["1"]


def test_who_has_set_the_variable_is_heard(tmp_path):
    code = "import os\nfrom sdk.onnx_runtime import onnxruntime\nprint(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert told(code, tmp_path, **{TELEMETRY_VARIABLE: "true"}) == ["true"]


def test_nothing_is_asked_of_a_process_that_does_not_use_it(tmp_path):
    assert told(
        "import os, sdk\nfrom sdk import PoseEstimator\nprint('ORT_DISABLE_TELEMETRY' in os.environ)", tmp_path
    ) == ["False"]

"""When things go wrong on a real GPU: each in a process of its own, which must end by itself and say why."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.gpu_engines import compiled_engine

pytestmark = [pytest.mark.gpu, pytest.mark.native, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def engine_folder(tmp_path_factory):
    return compiled_engine(tmp_path_factory.mktemp("engine"), "fp32").folder


def script(deed, folder):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    return [sys.executable, "-m", "tests.support.gpu_deeds", deed, str(folder)], {"cwd": ROOT, "env": environment}


def ended(deed, folder, time_out=120):
    words, options = script(deed, folder)
    done = subprocess.run(words, **options, capture_output=True, text=True, timeout=time_out, check=False)
    assert "PyCUDA" not in done.stderr and "Segmentation" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize(
    "deed",
    [
        "out-of-memory",
        "sticky-error",
        "fork",
        "drop",
        "drop-in-a-thread",
        "exit-while-open",
        "exit-while-running",
    ],
)
def test_it_ends_cleanly_and_in_words(engine_folder, deed):
    done = ended(deed, engine_folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("as it should"), done.stdout + done.stderr


def test_a_hung_device_ends_the_process_within_two_seconds_of_its_end(engine_folder):
    done = ended("hang", engine_folder)
    after = time.time()
    assert done.returncode == 0, done.stderr
    said, over = done.stdout.strip().rsplit("\n", 1)
    assert said.endswith("as it should"), done.stdout + done.stderr
    assert after - float(over.removeprefix("over at ")) < 2.0


def test_ctrl_c_at_any_moment_ends_the_process(engine_folder):
    words, options = script("run-for-ever", engine_folder)
    for delay in (0.5, 1.0, 2.0, 3.0, 3.7, 4.9, 5.3):
        child = subprocess.Popen(words, **options, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(delay)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
        assert child.returncode in (1, -signal.SIGINT, 130), said
        assert "KeyboardInterrupt" in said and "PyCUDA" not in said, said


@pytest.mark.parametrize("deed", ["both-ops", "one-frame"])
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck"])
def test_compute_sanitizer_finds_nothing(engine_folder, tool, deed):
    from shutil import which

    sanitizer = which("compute-sanitizer") or which("/usr/local/cuda/bin/compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    words, options = script(deed, engine_folder)
    arguments = [sanitizer, "--tool", tool, "--error-exitcode", "9"]
    arguments += ["--report-api-errors", "no"] * (tool == "memcheck")  # asking what memory is may be answered with one
    done = subprocess.run([*arguments, *words], **options, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]

"""A process whose device is lost ends, with its status, its buffers flushed and other exit handlers run; where nothing
is lost, whatever takes its time at the end may take it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "tests/support/hung_driver.c"
COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = [pytest.mark.native, pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")]

PROGRAM = """
import atexit, ctypes, os, sys
from sdk.runtime.cuda import context
from tests.support.simulated_cuda import Simulated, _driver

context.END_S = float(sys.argv[3])
atexit.register(print, "Python's handler ran")
ctypes.CDLL(sys.argv[1])
device = context.DeviceContext(_driver(Simulated()), 0)
for _ in range(int(sys.argv[4])):
    device.lose("it did not finish a frame within 5 s")
ctypes.CDLL(None).printf(b"C's buffer; ")
print("Python's buffer", end="; ")
exec(sys.argv[2])
"""
RAN = ("C's buffer", "Python's buffer", "Python's handler ran", "the handler after the driver ran")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    library = tmp_path_factory.mktemp("driver") / "libhung.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", SOURCE, "-o", library], check=True)
    return library


def ended(driver, last_line, *, losses, end_s=0.2, **variables):
    words = [sys.executable, "-c", PROGRAM, str(driver), last_line, str(end_s), str(losses)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("last_line", "status", "losses"),
    [("pass", 0, 1), ("sys.exit(7)", 7, 2), ("raise ValueError('the program failed')", 1, 1)],
    ids=["at the end", "by sys.exit, lost twice", "by an error"],
)
def test_it_ends_although_the_driver_waits_for_ever(driver, last_line, status, losses):
    done = ended(driver, last_line, losses=losses)
    assert done.returncode == status, done.stderr
    assert all(line in done.stdout for line in RAN), done.stdout
    assert ("the program failed" in done.stderr) == (status == 1)


def test_where_nothing_is_lost_the_driver_may_take_its_time(driver):
    done = ended(driver, "sys.exit(7)", losses=0, end_s=0.01, HUNG_DRIVER_S="0.5")
    assert done.returncode == 7, done.stderr
    assert all(
        line in done.stdout for line in (*RAN, "the driver's handler ended", "the handler before the driver ran")
    )


def test_a_lost_device_whose_driver_ends_in_time_cuts_nothing_off(driver):
    done = ended(driver, "sys.exit(7)", losses=1, end_s=30, HUNG_DRIVER_S="0.01")
    assert done.returncode == 7, done.stderr
    assert all(
        line in done.stdout for line in (*RAN, "the driver's handler ended", "the handler before the driver ran")
    )


def test_a_child_forked_after_the_loss_ends_in_its_own_time(driver):
    child = "child = os.fork(); sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else 5)"
    done = ended(driver, child, losses=1, end_s=0.01, HUNG_DRIVER_S="0.3")
    assert "the driver's handler ended" in done.stdout  # the child's: it was not cut off
    assert done.returncode == 5, done.stderr

"""The CPU half under many threads, in forked children, over a million calls, and beside other Python threads."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.support.ops_cases import MEAN, STD, noise_frame

pytestmark = pytest.mark.native

ops = pytest.importorskip("sdk.ops", exc_type=ImportError)

FRAME = noise_frame(240, 320)
AFFINES = np.random.default_rng(2).uniform(-1, 1, (6, 2, 3)).astype(np.float32) * np.float32([1, 1, 200])
LOGITS = tuple(np.random.default_rng(3).standard_normal((6, 17, n)).astype(np.float32) for n in (384, 512))
GROWTH_LIMIT_BYTES = 8 * 2**20
ROOT = Path(__file__).resolve().parents[1]


def crops():
    return ops.crop(FRAME, AFFINES, (128, 96), mean=MEAN, std=STD)


def joints():
    return ops.decode(*LOGITS, AFFINES, 2.0, score="min_softmax", refine="dark")


@pytest.fixture
def two_threads():
    ops.set_threads(2)
    yield
    ops.set_threads(1)


@pytest.mark.parametrize("threads", [1, 3])
def test_eight_threads_at_once_are_bit_identical(threads):
    ops.set_threads(threads)
    try:
        expected = crops(), joints()
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _: (crops(), joints()), range(64)))
    finally:
        ops.set_threads(1)
    for crop, joint in results:
        assert np.array_equal(crop, expected[0])
        assert np.array_equal(joint, expected[1])


def test_a_forked_child_has_threads_of_its_own(two_threads):
    expected = crops()
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(crops(), expected) else 1)
    deadline = time.monotonic() + 60
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
        assert time.monotonic() < deadline, "the forked child hangs"
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(done[1]) == 0


def first_to_act():
    """Who acts first when a long crop starts: the thread that crops, once it is done, or the one that waits for it."""
    many = np.tile(AFFINES, (100, 1, 1))
    out = np.empty((len(many), 3, 128, 96), np.float32)
    running, acted = threading.Event(), []

    def crop_once():
        running.set()
        ops.crop(FRAME, many, (128, 96), mean=MEAN, std=STD, out=out)
        acted.append("cropping")

    thread = threading.Thread(target=crop_once)
    thread.start()
    running.wait()
    acted.append("waiting")
    thread.join()
    return acted[0]


def test_the_gil_is_released():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # nobody is made to give the GIL up
    try:
        assert "waiting" in (first_to_act() for _ in range(20))  # a busy machine may wake the waiting thread late
    finally:
        sys.setswitchinterval(interval)


GROWTH = """
import os
from pathlib import Path
import numpy as np
from sdk import ops

FRAME = np.random.default_rng(4).integers(0, 256, (48, 64, 3), np.uint8)
ONE = np.array([[[1, 0, 2], [0, 1, 3]]], np.float32)
ROWS = np.random.default_rng(3).standard_normal((1, 2, 32)).astype(np.float32)
leaked = []

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def call(leak_bytes):
    ops.crop(FRAME, ONE, (4, 4), mean=(0, 0, 0), std=(1, 1, 1))
    ops.decode(ROWS, ROWS, ONE, 2.0, refine="dark")
    if leak_bytes:
        leaked.append(bytearray(os.urandom(leak_bytes)))

def growth_bytes(count, leak_bytes):
    for _ in range(1000):
        call(0)
    before = resident_bytes()
    for _ in range(count):
        call(leak_bytes)
    return resident_bytes() - before
"""


def growth_bytes(count, leak_bytes):
    """Growth of a process of its own: in this one, memory that earlier tests freed could hide a leak."""
    program = f"{GROWTH}\nprint(growth_bytes({count}, {leak_bytes}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_million_calls_do_not_grow_memory():
    assert growth_bytes(500_000, 0) < GROWTH_LIMIT_BYTES


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_leak_of_a_kibibyte_a_call_would_be_seen():
    assert growth_bytes(20_000, 1024) > GROWTH_LIMIT_BYTES

"""The end of a program whose daemon threads are inside native code: it ends as it would without them."""

import subprocess
import sys
import threading

import pytest

from sdk import in_flight as module
from sdk.errors import ClosedError, InputError
from sdk.in_flight import InFlight
from tests.support.frames import noise, random_boxes
from tests.support.threads import in_threads

START = """
import sys, threading, time
import numpy as np
sys.path.insert(0, {root!r})
begun = threading.Event()

def for_ever(call):
    while True:
        call()
        begun.set()

{prepare}
for _ in range(3):
    threading.Thread(target=for_ever, args=(call,), daemon=True).start()
begun.wait(60)
time.sleep(0.1)
print("done")
"""
PREPARE = {
    "ops": """
from sdk import ops
frame, affines = np.zeros((400, 600, 3), np.uint8), np.tile(np.eye(2, 3, dtype=np.float32), (8, 1, 1))
call = lambda: ops.crop(frame, affines, (256, 192), mean=(1, 2, 3), std=(1, 2, 3))
""",
    "estimator": """
from sdk import PoseEstimator
estimate = PoseEstimator({engine!r}, device="cpu")
call = lambda: estimate(np.zeros((400, 600, 3), np.uint8), [[0, 0, 99, 99]] * 8)
""",
    "opening": """
from sdk import PoseEstimator
call = lambda: PoseEstimator({engine!r}, device="cpu").close()
""",
    "training loader": """
from pathlib import Path
from sdk.recipe import recipe_by_name
from sdk.training.augment import Augmentation
from sdk.training.dataset import PersonDataset, batch_loader
from sdk.training.label_files import LabelFile
from tests.support.training import write_data
data = write_data(Path({folder!r}), 8)
persons = PersonDataset([LabelFile(data, data.parent)], recipe_by_name("body14-nano-128x128"), seed=0)
call = lambda: list(batch_loader(persons, [[0, 1, 2, 3]] * 8, 0, Augmentation(), workers=0))
""",
}


@pytest.mark.native
@pytest.mark.parametrize("what", PREPARE)
def test_a_program_ends_well_while_daemon_threads_call(what, small_engine, tmp_path, pytestconfig):
    pytest.importorskip("torch" if "training" in what else "onnxruntime")
    prepare = PREPARE[what].format(engine=str(small_engine), folder=str(tmp_path))
    code = START.format(root=str(pytestconfig.rootpath), prepare=prepare)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0 and run.stdout == "done\n", run.stderr
    assert "terminate called" not in run.stderr
    assert all("ClosedError" in line for line in run.stderr.splitlines() if "Error" in line), run.stderr


def test_a_call_that_has_begun_is_waited_for_and_may_hold_others():
    calls, inside, leave, seen = InFlight(), threading.Event(), threading.Event(), []

    def call():
        with calls:
            inside.set()
            leave.wait(10)
            with calls:  # of the same call: it goes on
                seen.append("inner")

    caller = threading.Thread(target=call)
    caller.start()
    inside.wait(10)
    threading.Timer(0.05, leave.set).start()
    calls.end()
    assert seen == ["inner"]
    caller.join()


def test_at_the_end_other_threads_are_refused_and_the_ending_one_is_not():
    calls, refused = InFlight(), []
    calls.end()

    def call(_):
        with pytest.raises(ClosedError, match="the program is ending: no new call begins"), calls:
            refused.append("began")

    in_threads(call, 2)
    assert not refused
    with calls:
        pass


def test_a_call_that_does_not_end_is_not_waited_for_without_end(monkeypatch, caplog):
    monkeypatch.setattr(module, "WAIT_S", 0.02)
    calls, leave, inside = InFlight(), threading.Event(), threading.Event()

    def call():
        with calls:
            inside.set()
            leave.wait(10)

    caller = threading.Thread(target=call)
    caller.start()
    inside.wait(10)
    calls.end()
    assert "the program ends while 1 calls are still running" in caplog.text
    leave.set()
    caller.join()


@pytest.mark.native
def test_closing_under_load_is_a_closed_error_to_the_others(small_engine):
    pytest.importorskip("onnxruntime")
    from sdk import PoseEstimator

    estimate, errors, frame, boxes = PoseEstimator(small_engine, device="cpu"), [], noise(), random_boxes(2)

    def call(index):
        try:
            while True:
                (estimate if index % 2 else lambda *it: estimate.submit(*it).result())(frame, boxes)
        except Exception as error:  # noqa: BLE001 (of which type is the question)
            errors.append(error)

    threading.Timer(0.1, estimate.close).start()
    in_threads(call, 6)
    assert len(errors) == 6 and {type(error) for error in errors} <= {ClosedError}, errors


@pytest.mark.native
@pytest.mark.parametrize("tracker", [None, True], ids=["alone", "tracking"])
@pytest.mark.parametrize("way", ["submit", "submit of submit"])
def test_a_detector_that_waits_for_its_own_estimator_is_told(small_engine, tracker, way):
    pytest.importorskip("onnxruntime")
    from sdk import PoseEstimator

    def detector(frame):
        return estimate.submit(frame, random_boxes(1)).result().boxes, [1.0]

    with PoseEstimator(small_engine, device="cpu", detector=detector, tracker=tracker) as estimate:
        call = estimate if way == "submit" else lambda frame: estimate.submit(frame).result(60)
        with pytest.raises(InputError, match="a detector must not call the estimator that it finds persons for"):
            call(noise())
        assert len(estimate(noise(), random_boxes(2))) == 2


@pytest.mark.native
def test_a_tracking_detector_that_calls_its_own_estimator_is_told(small_engine):
    pytest.importorskip("onnxruntime")
    from sdk import PoseEstimator

    detector = lambda frame: estimate(frame, random_boxes(1))  # noqa: E731
    with (
        PoseEstimator(small_engine, device="cpu", tracker=True, detector=detector) as estimate,
        pytest.raises(InputError, match="a detector must not call"),
    ):
        estimate(noise())

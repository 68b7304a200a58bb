"""The attack of `python -m tests.stress` in its smallest: that it runs, finds nothing, and finds what there is."""

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("cv2")

from tests.stress import mutants
from tests.stress.__main__ import ATTACKS, one
from tests.stress.findings import Ended, in_child, judged

pytestmark = pytest.mark.native


@pytest.mark.parametrize(("name", "amount"), [("engines", 3), ("disks", 6), ("server", 6)])
def test_an_attack_prints_its_figures_and_finds_nothing(capsys, monkeypatch, name, amount):
    monkeypatch.setenv("SIMCC_EDGE_SDK_CACHE", "/nowhere")  # set anew by the attack on downloads, put back at its end
    from sdk.networks import download

    for bound in ("ANSWER_S", "ATTEMPTS"):
        monkeypatch.setattr(download, bound, getattr(download, bound))
    assert one(name, ATTACKS[name][0], amount, seed=1) == 0
    said = capsys.readouterr().out
    assert name in said and f"{amount} " in said and "FOUND" not in said


def test_what_goes_wrong_is_found(capsys, monkeypatch):
    monkeypatch.setattr(mutants, "_poses_of", lambda place, frame: {}["lost"])
    assert one("engines", mutants.engines, 2, seed=1) == 1
    assert "FOUND 2 x an exception that is no SdkError: KeyError: 'lost'" in capsys.readouterr().out


def test_a_child_that_ends_is_told_and_one_that_answers_is_measured():
    import os

    assert in_child(os._exit, 3)[0] == Ended("exit status 3")
    answer, peak_mib = in_child(np.ones, 3)
    assert answer.sum() == 3 and peak_mib > 1
    assert judged(int, "x")[0] == "untyped"


def test_a_night_is_a_million_calls_and_ten_thousand_mutants():
    nightly = {name: amount for name, (_, _, amount) in ATTACKS.items()}
    assert nightly["threads"] + nightly["soak"] + nightly["ops"] >= 1_000_000
    assert nightly["engines"] + nightly["files"] >= 10_000

"""benchmarks/paper_speed.py: its pairs, its way of counting multiply-adds, its turns. Not the time itself."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.torch
SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "paper_speed.py"


@pytest.fixture(scope="module")
def paper_speed():
    spec = importlib.util.spec_from_file_location("paper_speed", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["paper_speed"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["paper_speed"]


def test_a_pair_is_one_network_with_both_outputs(paper_speed):
    for pair in paper_speed.pairs().values():
        assert pair.heatmap.output.kind == "heatmap" and pair.simcc.output.kind == "simcc"
        assert pair.heatmap.input.size_hw == pair.simcc.input.size_hw == (256, 192)
        assert pair.heatmap.network.backbone == pair.simcc.network.backbone


def test_dropping_the_deconvolutions_saves_what_the_paper_says(paper_speed):
    pair = paper_speed.pairs()["simba"]
    heatmap, simcc = (paper_speed.paper_macs(recipe) for recipe in (pair.heatmap, pair.simcc))
    assert 100 * (1 - simcc / heatmap) == pytest.approx(57, abs=1.5)


def test_sides_take_turns_and_each_is_timed_alone(paper_speed, monkeypatch):
    now, order = [0.0], []
    monkeypatch.setattr(paper_speed, "perf_counter", lambda: now[0])
    monkeypatch.setattr(paper_speed, "sleep", lambda seconds: now.__setitem__(0, now[0] + 100))

    def side(name, seconds):
        def step(crop):
            order.append(name)
            now[0] += seconds

        return step

    heatmap, simcc = paper_speed.measured(side("h", 0.003), side("s", 0.002), None, 4)
    assert heatmap.tolist() == pytest.approx([3.0] * 4) and simcc.tolist() == pytest.approx([2.0] * 4)
    assert "".join(order[2 * paper_speed.WARM_UP :]) == "hsshhssh"
    row = paper_speed._row(paper_speed.pairs()["simba"], "torch", (np.asarray(heatmap), np.asarray(simcc)))
    assert "**1.500x**" in row[4] and row[2] == "3.00 (333.3)"

"""`sdk benchmark`: how samples become figures, the peer, two runs side by side, and the verb."""

import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from sdk.cli import main
from sdk.errors import InputError
from sdk.evaluate.pages.benchmark_page import benchmark_page, benchmark_text, comparison_text, read_benchmark
from sdk.evaluate.speed import latency
from sdk.evaluate.speed.benchmark import BenchmarkOptions, _pace_table, benchmark, boxes_in_frame, noise_frame
from sdk.evaluate.speed.device_times import DeviceClock, device_times
from sdk.evaluate.speed.latency import Case, measure, warm_up
from sdk.evaluate.speed.machine import _busy_percent, _core_ticks, machine_facts, tell_if_busy
from sdk.evaluate.speed.paces import Pace
from sdk.evaluate.verify import verify
from sdk.manifest import open_engine
from sdk.recipe import Output
from tests.support.engines import SMALL, pooled_simcc_graph, wrapped_engine
from tests.support.verify import options, write_annotated


class Clock:
    """A clock that only calls move."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency, "perf_counter", clock)
    return clock


def scripted(clock, times_ms, **stages):
    """A call that takes these times, one after the other, then the last one for ever."""
    left = list(times_ms)

    def call():
        clock.now += 1e-3 * (left.pop(0) if len(left) > 1 else left[0])
        return stages

    return call


def test_percentiles_throughput_and_stages_of_known_times(clock):
    case = Case("c", "estimate", 4, scripted(clock, range(1, 101), crop=0.25, network="in the CUDA graph"))
    case.turn(5.0495)  # 1 + 2 + .. + 100 ms = 5.05 s
    summary = case.summary()
    assert summary["calls"] == 100
    assert summary["latency_ms"] == pytest.approx(
        {"p50": 50.5, "p90": 90.1, "p99": 99.01, "mean": 50.5, "min": 1, "max": 100}
    )
    assert summary["throughput_a_second"] == pytest.approx(4 * 100 / 5.05, abs=1e-3)
    assert summary["stages_ms"]["crop"]["p50"] == 0.25
    assert summary["stages_ms"]["network"] == "in the CUDA graph"
    assert summary["joules_a_person"] == "unavailable"
    assert len(summary["over_time"]["ms"]) == len(summary["over_time"]["seconds"]) == 100


def test_the_warm_up_ends_when_two_windows_agree_and_leaves_nothing(clock):
    slow_then_steady = [50.0] * 8 + [20.0] * 8 + [10.0] * 100
    case = Case("c", "network", 1, scripted(clock, slow_then_steady))
    warm_up(case, limit_seconds=100)
    assert case.steady and case.warm_up_calls == 4 * latency.WINDOW  # 50, 20, 10, 10
    assert case.samples_ms == [] and case.spans == []


def test_a_warm_up_that_never_settles_is_said(clock):
    case = Case("c", "network", 1, scripted(clock, [1.0 * 2 ** (n // 8) for n in range(64)]))
    warm_up(case, limit_seconds=0.2)
    assert not case.steady


def test_turns_are_interleaved_until_each_case_was_busy_long_enough(clock):
    order, shares = [], []

    def named(name, ms):
        def call():
            order.append(name)
            clock.now += 1e-3 * ms
            return {}

        return call

    cases = [Case("a", "network", 1, named("a", 10)), Case("b", "network", 1, named("b", 100))]
    measure(cases, 1.0, on_turn=shares.append)
    assert all(case.busy_seconds >= 1.0 for case in cases)
    timed = "".join(order[sum(case.warm_up_calls for case in cases) :])
    assert re.fullmatch(r"(a+b+){4}", timed)  # turns of 0.25 s
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)


class Clocked:
    """A pipeline as a GPU's: it has a clock of its own."""

    recipe, max_batch = SMALL, 4

    def stages(self, frame, affines, *, flip=False):
        assert len(affines) <= self.max_batch
        return {"upload": 1.0, "crop": 0.1 * len(affines)}

    def network_ms(self, count, repeats=100):
        return [float(count)] * repeats

    def launches(self, count, *, flip=False):
        return 9


def test_the_devices_own_clock():
    assert isinstance(Clocked(), DeviceClock)
    boxes = [boxes_in_frame(count, (320, 240)) for count in (1, 9)]
    table = device_times(Clocked(), noise_frame((320, 240)), (1, 16), boxes)
    assert {batch: figures["p99"] for batch, figures in table["network_ms"].items()} == {"1": 1.0, "16": 16.0}
    assert table["stages_ms"]["4"]["crop"]["p50"] == pytest.approx(0.4)  # 9 persons are cut to a chunk of 4
    assert set(table["stages_ms"]) == {"1", "4"}


LOADS = {  # load, per cent of the cores' time -> whether that is told, on two cores
    "idle": (0.3, 3.0, None),
    "one's own minute before": (1.9, 2.0, None),
    "a load of 21": (21.0, 4.0, "a load of 21 on 2 cores"),
    "cores at work": (0.1, 90.0, "its cores 90 % at work before the first call"),
    "not to be found out": (0.1, "unavailable", None),
}


@pytest.mark.parametrize(("load", "busy", "told"), LOADS.values(), ids=LOADS)
def test_a_busy_machine_is_told(load, busy, told, monkeypatch, caplog):
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("sdk.evaluate.speed.machine._busy_percent", lambda: busy)
    facts = tell_if_busy(machine_facts())
    assert (told in facts["busy"] and told in caplog.text) if told else not facts["busy"] + caplog.text


def test_the_cores_time_of_others_is_read_from_the_kernel(monkeypatch):
    ticks = iter([{0: (100, 200), 1: (50, 200)}, {0: (110, 220), 1: (50, 220)}])  # idle, all
    monkeypatch.setattr("sdk.evaluate.speed.machine._core_ticks", lambda: next(ticks))
    monkeypatch.setattr("sdk.evaluate.speed.machine.WATCH_SECONDS", 0.0)
    assert _busy_percent() == 75.0  # a half of the one, all of the other
    monkeypatch.undo()
    for idle, whole in _core_ticks().values():
        assert 0 < idle < whole


def test_machine_facts_are_plain_and_complete():
    facts = json.loads(json.dumps(machine_facts()))
    assert {"processor", "cores", "clock_mhz", "power_mode", "gpus", "packages", "python", "load_1_minute"} <= set(
        facts
    )
    assert facts["packages"].get("cv2") == getattr(sys.modules.get("cv2"), "__version__", None)
    assert facts["cores"] >= 1 and facts["packages"]["numpy"] == np.__version__


@pytest.mark.parametrize("frame_wh", [(1920, 1080), (64, 48), (1080, 1920)], ids=str)
@pytest.mark.parametrize("count", [1, 16])
def test_boxes_lie_in_the_frame(frame_wh, count):
    boxes = boxes_in_frame(count, frame_wh)
    assert boxes.shape == (count, 4) and (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= np.array(frame_wh) + 1e-3).all()
    assert noise_frame(frame_wh).shape == (frame_wh[1], frame_wh[0], 3)


QUICK = {"device": "cpu", "seconds": 0.05, "frame_wh": (320, 240)}


@pytest.fixture(scope="module")
def table(small_engine):
    pytest.importorskip("rtmlib")
    return benchmark(BenchmarkOptions(small_engine, batches=(1, 4), persons=(1, 3), peer="rtmlib", **QUICK))


@pytest.mark.native
def test_the_devices_figures_are_in_the_text(table):
    spread = {"p50": 0.25, "p99": 0.5}
    clock = {"network_ms": {"4": spread}, "stages_ms": {"8": {"upload": spread}}}
    text = benchmark_text({**table, "device_clock": clock})
    assert "plan alone, batch 4" in text and "upload apart, 8 persons" in text and "0.250" in text


@pytest.mark.native
def test_the_row_to_compare_by_names_the_plan_and_tells_each_pace(table, small_engine):
    row = table["row"]
    assert row["plan"] == f"network.onnx {open_engine(small_engine).manifest.files['network.onnx'][:12]}"
    assert (row["launches"], row["case"]) == ("no GPU", "estimate, 1 person")
    assert [each["pace"] for each in row["paces"]] == ["back to back", "spaced by 200 ms", "at 30 Hz"]
    text = benchmark_text({**table, "row": {**row, "launches": 31}})
    assert "31 kernels a call; AP: no dataset given; power mode" in text
    for each in row["paces"]:
        assert each["calls"] >= 1 and each["latency_ms"]["p50"] > 0
        assert re.search(rf"{each['pace']} +{each['calls']} +{each['latency_ms']['p50']:.3f}", text)
    told = {**row, "accuracy": {"name": "AP", "value": 71.234, "dataset": "coco, val.json"}}
    assert "AP 71.23 on coco, val.json" in benchmark_text({**table, "row": told})


@pytest.mark.native
def test_energy_is_what_goes_beyond_the_idle_board():
    lasted = []  # seconds

    def joules(spans):
        lasted.append(spans[0][1] - spans[0][0])
        return 12.0 * lasted[-1]

    case, log = Case("estimate, 2 persons", "estimate", 2, lambda: {}), SimpleNamespace(joules=joules)
    found = _pace_table(case, Pace("at 50 Hz", period_s=0.02), 0.2, log, 5.0)
    assert found["net_joules_a_person"] == pytest.approx(7.0 * lasted[0] / (2 * found["calls"]), abs=1e-6)
    assert _pace_table(case, Pace("x"), 0.01, log, None)["net_joules_a_person"] == "unavailable"


@pytest.mark.native
def test_every_case_is_timed_and_stages_add_up(table):
    assert [case["name"] for case in table["cases"]] == [
        "network, batch 1", "network, batch 4", "estimate, 1 person", "estimate, 3 persons", "rtmlib, 1 person",
        "rtmlib, 3 persons",
    ]  # fmt: skip
    for case in table["cases"]:
        spread = case["latency_ms"]
        assert 0 < spread["min"] <= spread["p50"] <= spread["p90"] <= spread["p99"] <= spread["max"]
        if case["kind"] == "estimate":
            assert set(case["stages_ms"]) == {"crop", "network", "decode", "host"}
            assert sum(stage["mean"] for stage in case["stages_ms"].values()) <= spread["mean"] * 1.0001 + 1e-3
    assert table["device"] == "cpu" and json.loads(json.dumps(table)) == table


@pytest.mark.native
def test_the_peer_computes_the_same_poses(table):
    assert table["peer"]["median_distance_px"] < 0.05
    assert [each["persons"] for each in table["peer"]["ratios"]] == [1, 3]
    ours, theirs = (
        next(c for c in table["cases"] if c["name"] == f"{who}, 3 persons") for who in ("estimate", "rtmlib")
    )
    expected = theirs["latency_ms"]["p50"] / ours["latency_ms"]["p50"]
    assert table["peer"]["ratios"][1]["ratio_p50"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.native
def test_the_text_and_the_page_hold_the_figures(table):
    text, page = benchmark_text(table), benchmark_page(table)
    for case in table["cases"]:
        assert case["name"] in text and f"{case['latency_ms']['p50']:.3f}" in text
    assert "its latency over ours" in text
    assert "{'" not in page and "packages, numpy" in page and "1 persons" not in text
    assert page.count("<svg") == 2 + 6 + 3 and "<script" not in page and not re.search(r"(src|href)=\"http", page)
    for title in ("Stages of the whole call", "How latency spreads", "By persons", "Over time, the peer"):
        assert f"{title}<" in page
    for at in ("p50", "p90", "p99"):
        assert len(re.findall(rf">{at}</text>", page)) == 6  # a mark in each histogram


@pytest.mark.native
@pytest.mark.parametrize("busy", ["", "the machine was busy with other work (a load of 21 on 2 cores)"])
def test_a_busy_machine_is_told_on_the_page_and_in_the_terminal(table, busy):
    told = {**table, "machine": {**table["machine"], "busy": busy}}
    for shown in (benchmark_text(told), benchmark_page(told)):
        assert ("the machine was busy" in shown) == bool(busy)


@pytest.mark.native
def test_a_benchmark_of_a_gpu_shows_the_devices_clock_and_no_stages_of_its_own(table):
    spent = {"p50": 0.2, "p99": 0.3}
    clock = {"network_ms": {"1": spent}, "stages_ms": {"1": {"upload": spent, "crop": spent}}}
    cases = [{**case, "stages_ms": {"network": "in one CUDA graph"}} for case in table["cases"]]
    page = benchmark_page({**table, "cases": cases, "device_clock": clock})
    assert "Stages by the device&#39;s clock" in page and "Stages of the whole call" not in page
    assert "<td>upload apart, 1 person</td><td>0.200</td><td>0.300</td>" in page


@pytest.mark.native
def test_two_runs_side_by_side(table):
    slower = json.loads(json.dumps(table))
    for case in slower["cases"]:
        case["latency_ms"] = {name: 2 * value for name, value in case["latency_ms"].items()}
    slower["cases"].append({**slower["cases"][0], "name": "network, batch 64"})
    text = comparison_text(slower, table)
    row = next(line for line in text.splitlines() if line.startswith("network, batch 4"))
    assert row.split()[5] == "2.000" and row.split()[8] == "2.000"
    assert "only in A: network, batch 64" in text
    with pytest.raises(InputError, match="no case in common"):
        comparison_text({**table, "cases": []}, table)


REFUSED = {
    "batch-above-the-engines": ({"batches": (64,)}, "at most the engine's largest, 8 .* larger --max-batch"),
    "batch-0": ({"batches": (0,)}, "batch must be whole numbers"),
    "nothing": ({"batches": (), "persons": ()}, "nothing to time"),
    "no-time": ({"seconds": 0.0}, "seconds must be"),
    "peer-without-persons": ({"persons": (), "peer": "rtmlib"}, "a peer is timed on persons"),
}


@pytest.mark.native
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_timed(small_engine, case):
    changes, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        benchmark(BenchmarkOptions(small_engine, **{**QUICK, **changes}))


USAGE = {  # words after `sdk benchmark` -> message; ENGINE is a folder
    "nothing": ([], "name an engine to time, or two results to --compare"),
    "the engine as a file": (["--json", "ENGINE"], "' was taken for the file of --json; put the engine first"),
    "the engine's own file": (["ENGINE", "--json", "ENGINE/engine.json"], "--json would overwrite the input '"),
    "one file twice": (["ENGINE", "--json", "x", "--html", "x"], "--html and --json would both be written to 'x'"),
    "compare and write": (["--compare", "a", "b", "--html", "x"], "--compare prints its table and takes no engine"),
}


@pytest.mark.parametrize(("words", "message"), USAGE.values(), ids=USAGE)
def test_words_that_do_not_go_together(small_engine, capsys, words, message):
    assert main(["benchmark", *(word.replace("ENGINE", str(small_engine)) for word in words)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.native
def test_a_peer_with_other_rules_is_refused(tmp_path):
    pytest.importorskip("onnx")
    recipe = replace(SMALL, output=Output("simcc", 3.0, "min_logit"))
    folder = wrapped_engine(pooled_simcc_graph(tmp_path / "g.onnx", recipe), tmp_path / "e", recipe)
    with pytest.raises(InputError, match="2 bins a pixel"):
        benchmark(BenchmarkOptions(folder, peer="rtmlib", **QUICK))


@pytest.mark.native
def test_the_verb(small_engine, tmp_path, capsys):
    quick = ["--device", "cpu", "--seconds", "0.02", "--frame", "320x240", "-q"]
    result, page = tmp_path / "a.json", tmp_path / "a.html"
    more = ["--batch", "", "--persons", "2", "--json", str(result), "--html", str(page)]
    assert main(["benchmark", str(small_engine), *quick, *more]) == 0
    assert "estimate, 2 persons" in capsys.readouterr().out
    assert [case["name"] for case in read_benchmark(result)["cases"]] == ["estimate, 2 persons"]
    assert page.read_text().startswith("<!doctype html>")
    assert main(["benchmark", "--compare", str(result), str(result)]) == 0
    assert "A/B p50" in capsys.readouterr().out
    assert main(["benchmark", str(small_engine), *quick, "--batch", "1", "--persons", "", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cases"][0]["name"] == "network, batch 1"


BAD_FILES = {"missing": (None, "cannot be read"), "text": ("{", "is not JSON"), "other": ("{}", "not a benchmark of")}


@pytest.mark.parametrize("case", BAD_FILES)
def test_results_that_cannot_be_compared(tmp_path, capsys, case):
    content, message = BAD_FILES[case]
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content)
    assert main(["benchmark", "--compare", str(path), str(path)]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["e", "--batch", "1;2"], ["e", "--frame", "big"], ["e", "--compare", "one"]], ids=str
)
def test_usage_errors(words):
    with pytest.raises(SystemExit) as usage:
        main(["benchmark", *words])
    assert usage.value.code == 2


@pytest.mark.native
def test_the_verb_gives_the_accuracy_on_a_dataset(small_engine, tmp_path, capsys):
    pytest.importorskip("cv2")
    folder = write_annotated(tmp_path)
    given = ["--dataset", "lsp", "--annotations", str(folder / "annotations.json"), "--images", str(folder)]
    words = [
        "benchmark",
        str(small_engine),
        "--persons",
        "1",
        "--batch",
        "",
        "--seconds",
        "0.05",
        "--device",
        "cpu",
        "-q",
    ]
    assert main([*words, *given, "--json"]) == 0
    accuracy = json.loads(capsys.readouterr().out)["row"]["accuracy"]
    scores = verify(options(small_engine, folder)).scores[0]
    assert accuracy["dataset"] == "lsp, annotations.json"
    assert (accuracy["name"], accuracy["value"]) == (scores.headline, pytest.approx(scores.figures[scores.headline]))


def test_the_parts_of_a_dataset_come_together(small_engine, capsys):
    assert main(["benchmark", str(small_engine), "--dataset", "lsp", "--images", "photos"]) == 2
    assert "come together (got only --dataset and --images)" in capsys.readouterr().err

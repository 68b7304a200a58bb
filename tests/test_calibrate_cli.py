"""`sdk calibrate`, and INT8 and `auto` builds on the tables it writes."""

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx

from sdk.cli import main
from sdk.locks import held
from sdk.manifest import open_engine
from sdk.toolchain.table import (
    BudgetPoint,
    GroupCost,
    Sensitivity,
    table_from_file,
    write_table,
)
from tests.support.int8 import changed, photograph, tiny_recipe

pytestmark = [pytest.mark.torch, pytest.mark.native]
RECIPE = tiny_recipe()


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_model, people_file):
    """A recipe file, an ONNX file, and a table made by the verb."""
    folder = tmp_path_factory.mktemp("verb")
    table = RECIPE.to_table()
    name = table.pop("name")
    lines = ["format = 1", f'[recipes."{name}"]', *toml_lines(table, f'recipes."{name}"')]
    (folder / "tiny.toml").write_text("\n".join(lines))
    onnx.save(tiny_model, folder / "tiny.onnx")
    source = ["--recipe-file", str(folder / "tiny.toml"), "--onnx", str(folder / "tiny.onnx")]
    made = [
        "calibrate",
        *source,
        "--data",
        str(people_file),
        "--images",
        "12",
        "--output",
        str(folder / "tiny.json"),
        "-q",
    ]
    assert main(made) == 0
    return folder, source


def toml_lines(table, path):
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += [f"[{path}.{key}]", *toml_lines(value, f"{path}.{key}")]
    return lines


def test_the_verb_writes_the_table_and_nothing_else(files, capsys):
    folder, _ = files
    assert sorted(path.name for path in folder.iterdir()) == ["tiny.json", "tiny.onnx", "tiny.toml"]
    assert table_from_file(folder / "tiny.json").data.images == 12


def test_a_second_run_for_one_table_is_refused_while_the_first_one_works(files, people_file, tmp_path, capsys):
    with held(tmp_path / "t.json"):
        assert (
            main(["calibrate", *files[1], "--data", str(people_file), "--output", str(tmp_path / "t.json"), "-q"]) == 1
        )
    assert "t.json' is being written by another run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == []


def test_an_int8_engine_tells_its_ranges_and_what_stayed_float(files, tmp_path, capsys):
    folder, source = files
    build = ["build-engine", *source, "--precision", "int8", "--calibration", str(folder / "tiny.json")]
    assert main([*build, "--compiler", "none", "--output", str(tmp_path / "e"), "-q"]) == 0
    manifest = open_engine(tmp_path / "e").manifest
    assert manifest.precision == "int8"
    assert manifest.opset == 19
    note = manifest.calibration
    assert (note.table, note.images, note.method) == ("tiny.json", 12, "auto")
    assert note.details["int8_nodes"] == 8
    assert "protected: stem" in note.details["float"].values()


def test_an_engine_stands_for_its_graph_and_inspect_tells_what_stayed_float(files, tmp_path, people_file, capsys):
    _, source = files
    build = ["build-engine", *source, "--precision", "fp32", "--compiler", "none", "-q"]
    assert main([*build, "--output", str(tmp_path / "fp32")]) == 0
    words = ["calibrate", str(tmp_path / "fp32"), "--data", str(people_file), "--images", "6", "-q"]
    assert main([*words, "--output", str(tmp_path / "t.json")]) == 0
    words = ["build-engine", str(tmp_path / "fp32"), "--precision", "int8", "--calibration", str(tmp_path / "t.json")]
    assert main([*words, "--compiler", "none", "--output", str(tmp_path / "int8"), "-q"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "int8")]) == 0
    told = capsys.readouterr().out
    assert "int8      45.0 % of the multiply-accumulates" in told
    assert "float     protected: stem: /stem" in told


def with_costs(path, tmp_path, *losses):
    """The table in `path` with a sensitivity whose sets cost `losses` points."""
    table = table_from_file(path)
    groups = tuple(GroupCost(name, (), 1, 0.0, 0.0) for name in ("block", "pair.relu", "gated"))
    curve = tuple(BudgetPoint(count, count / 3, 0.0, loss) for count, loss in enumerate(losses, start=1))
    write_table(replace(table, sensitivity=Sensitivity(1, 1, 0, groups, curve)), tmp_path / "costs.json")
    return str(tmp_path / "costs.json")


def test_half_a_point_is_the_budget_unless_another_is_given(files, tmp_path):
    folder, source = files
    costs = with_costs(folder / "tiny.json", tmp_path, 0.1, 0.4, 0.6)
    build = ["build-engine", *source, "--precision", "int8", "--calibration", costs, "--compiler", "none", "-q"]
    found = {}
    for name, words in (("default", []), ("more", ["--max-drop", "1"]), ("less", ["--max-drop", "0.2"])):
        assert main([*build, *words, "--output", str(tmp_path / name)]) == 0
        details = open_engine(tmp_path / name).manifest.calibration.details
        found[name] = (details["int8_nodes"], details["max_drop"], details["measured_drop"])
    assert found == {"default": (2, 0.5, 0.4), "more": (3, 1.0, 0.6), "less": (1, 0.2, 0.1)}


def test_a_budget_that_no_set_keeps_is_an_error_and_not_an_engine_without_int8(files, tmp_path, capsys):
    folder, source = files
    costs = with_costs(folder / "tiny.json", tmp_path, 0.7, 0.8)
    build = ["build-engine", *source, "--precision", "int8", "--calibration", costs, "--compiler", "none"]
    assert main([*build, "--output", str(tmp_path / "e")]) == 1
    told = "no set of INT8 layers costs at most 0.5 points (the smallest costs 0.70); give a larger --max-drop"
    assert f"calibration table 'costs.json': {told}" in capsys.readouterr().err
    assert not (tmp_path / "e").exists()


@pytest.fixture
def timing(monkeypatch):
    """Pretend what the machine has and how fast it is; the compiler writes b'plan' and counts."""
    from sdk.manifest import CompilerNote
    from sdk.toolchain import auto, build

    plans = []

    def compiled(*_):
        plans.append(f"plan {len(plans)}".encode())
        return plans[-1]

    def pretend(*, cuda=None, native=None, here="8.6", fp16_ms=3.0, int8_ms=2.0):
        note = CompilerNote("tensorrt-rtx", "1.7", "portable", "tensorrt-rtx.plan")
        for module in (auto, build):
            monkeypatch.setattr(module, "choose_compiler", lambda _: "tensorrt-rtx")
        monkeypatch.setattr(build, "compiler_note", lambda *_: note)
        monkeypatch.setattr(build, "plan_from_graph", compiled)
        monkeypatch.setattr(auto, "cuda_problem", lambda: cuda)
        monkeypatch.setattr(auto, "native_problem", lambda: native)
        monkeypatch.setattr(auto, "compute_capability", lambda: here)
        monkeypatch.setattr(auto, "open_session", lambda folder, device: nullcontext(folder))
        monkeypatch.setattr(auto, "_medians_ms", lambda *_: (fp16_ms, int8_ms))
        return plans

    return pretend


UNTIMED = {
    "no PyCUDA": ({"cuda": "PyCUDA is not installed"}, [], "no GPU here can time it: PyCUDA is not installed"),
    "no CUDA half": ({"native": "built without nvcc"}, [], "no GPU here can time it: built without nvcc"),
    "for other GPUs": (
        {"here": "8.9"}, ["--compute-capability", "8.6", "12.0"],
        "it is built for compute capability 8.6, 12.0 and this GPU has 8.9, which cannot time it",
    ),
    "over the budget": ({}, ["--max-drop", "0.05"], "no set of INT8 layers costs at most 0.05 points (the smallest"),
}  # fmt: skip


@pytest.mark.parametrize(("machine", "words", "reason"), UNTIMED.values(), ids=UNTIMED)
def test_auto_builds_once_where_it_cannot_choose(files, tmp_path, timing, machine, words, reason):
    plans = timing(**machine)
    folder, source = files
    costs = with_costs(folder / "tiny.json", tmp_path, 0.1, 0.2, 0.3)
    build = ["build-engine", *source, "--precision", "auto", "--calibration", costs, *words, "-q"]
    assert main([*build, "--output", str(tmp_path / "e")]) == 0
    manifest = open_engine(tmp_path / "e").manifest
    assert manifest.precision == "fp16"
    assert manifest.notes[-1].startswith(f"auto kept fp16: {reason}")
    assert plans == [b"plan 0"]


@pytest.mark.parametrize(
    ("int8_ms", "kept", "plan"), [(2.0, "int8", b"plan 1"), (3.2, "fp16", b"plan 0")], ids=["int8 pays", "it does not"]
)
def test_auto_keeps_the_very_engine_that_it_timed(files, tmp_path, timing, monkeypatch, int8_ms, kept, plan):
    plans = timing(int8_ms=int8_ms)
    monkeypatch.chdir(tmp_path)
    folder, source = files
    costs = with_costs(folder / "tiny.json", tmp_path, 0.1, 0.2, 0.3)
    assert main(["build-engine", *source, "--precision", "auto", "--calibration", costs, "-q"]) == 0
    engine = open_engine(tmp_path / f"tiny-32x32.{kept}")
    assert engine.manifest.precision == kept
    assert engine.plan_path.read_bytes() == plan
    assert engine.manifest.notes[-1].startswith(f"auto kept {kept}: ")
    assert len(plans) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["costs.json", f"tiny-32x32.{kept}"]


def test_auto_asks_for_its_place_before_it_builds(files, tmp_path, timing, capsys):
    plans = timing()
    folder, source = files
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "photo.jpg").write_text("mine")
    costs = with_costs(folder / "tiny.json", tmp_path, 0.1, 0.2, 0.3)
    build = ["build-engine", *source, "--precision", "auto", "--calibration", costs]
    assert main([*build, "--output", str(tmp_path / "used")]) == 1
    assert "exists and is not an engine folder" in capsys.readouterr().err
    assert plans == []


def test_auto_says_why_it_kept_fp16_where_nothing_compiles(files, tmp_path):
    folder, source = files
    build = ["build-engine", *source, "--precision", "auto", "--calibration", str(folder / "tiny.json")]
    assert main([*build, "--compiler", "none", "--output", str(tmp_path / "e"), "-q"]) == 0
    manifest = open_engine(tmp_path / "e").manifest
    assert manifest.precision == "fp16"
    assert "auto kept fp16: nothing here compiles a plan" in manifest.notes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "int8"], "no calibration table ships for 'tiny-32x32': make one with `sdk calibrate"),
        (["--precision", "int8", "--calibration", "{table}", "--max-drop", "0.5"], "has no sensitivity, so a budget"),
        (["--precision", "fp16", "--max-drop", "0.5"], "--max-drop is for --precision int8 or auto (got fp16)"),
        (["--precision", "int8", "--calibration", "absent.json"], "calibration table 'absent.json' cannot be read"),
        (["--precision", "int8", "--calibration", "{table}", "--keep-float", "/x*"], "matches no convolution"),
    ],
    ids=["no table", "no sensitivity", "not int8", "absent", "pattern"],
)
def test_what_the_build_refuses(files, tmp_path, capsys, words, message):
    folder, source = files
    words = [word.format(table=folder / "tiny.json") for word in words]
    assert main(["build-engine", *source, *words, "--compiler", "none", "--output", str(tmp_path / "e")]) == 1 + (
        "fp16" in words
    )
    assert message in capsys.readouterr().err
    assert not (tmp_path / "e").exists()


def test_calibrating_over_its_own_data_is_refused(files, people_file, capsys):
    (_, source), before = files, people_file.read_bytes()
    assert main(["calibrate", *source, "--data", str(people_file), "--output", str(people_file)]) == 2
    assert "--output would overwrite the input" in capsys.readouterr().err and people_file.read_bytes() == before


def test_a_table_of_other_weights_is_refused(files, tmp_path, capsys, tiny_model):
    folder, source = files
    onnx.save(changed(tiny_model, "first.b", 0.5), tmp_path / "other.onnx")
    words = ["--recipe-file", source[1], "--onnx", str(tmp_path / "other.onnx"), "--precision", "int8"]
    words += ["--calibration", str(folder / "tiny.json"), "--compiler", "none", "--output", str(tmp_path / "e")]
    assert main(["build-engine", *words]) == 1
    assert "(weights 'first.b': mean" in capsys.readouterr().err


def test_an_engine_of_lower_precision_is_not_calibrated(files, tmp_path, people_file, capsys):
    _, source = files
    build = ["build-engine", *source, "--precision", "fp16", "--compiler", "none", "-q"]
    assert main([*build, "--output", str(tmp_path / "e")]) == 0
    words = ["calibrate", str(tmp_path / "e"), "--data", str(people_file), "--output", str(tmp_path / "t.json")]
    assert main(words) == 1
    assert "holds an fp16 graph: only from an fp32 graph can another precision be made" in capsys.readouterr().err


def test_a_photograph_resembles_one():
    grey = photograph(0).astype(float).mean(axis=2)
    assert np.corrcoef(grey[:, 1:].ravel(), grey[:, :-1].ravel())[0, 1] > 0.8

"""`sdk train` from the command line, on rendered figures and a tiny recipe of a file."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sdk.cli import main

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")
pytest.importorskip("matplotlib")
pytest.importorskip("pycocotools")

from sdk.training.packages import GRAPH, TRAINING  # noqa: E402
from tests.support.training import write_data, write_tiny_recipe  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    train, val = write_data(folder, 8), write_data(folder, 4, seed=1)
    recipe = write_tiny_recipe(folder / "tiny.toml")
    settings = folder / "settings.toml"
    settings.write_text("batch = 4\nworkers = 0\nwarmup = 0.1\n")
    files = ["--train", str(train), "--val", str(val), "--images", str(folder), "--settings", str(settings)]
    return ["train", "--recipe-file", str(recipe), *files, "--epochs", "1", "--device", "cpu"]


def test_it_trains_and_writes_a_graph(command, tmp_path, capsys):
    output = tmp_path / "run"
    assert main([*command, "--output", str(output), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["epochs"] == 1 and {"pck_0.2", "ap", "loss"} <= set(result["last"])
    assert [Path(path).name for path in result["files"]] == [
        "best.safetensors",
        "network.onnx",
        "log.csv",
        "curves.png",
    ]
    assert all(Path(path).stat().st_size for path in result["files"])
    session = onnxruntime.InferenceSession(str(output / "network.onnx"))
    assert [value.name for value in session.get_outputs()] == ["simcc_x", "simcc_y"]

    assert main([*command, "--output", str(output)]) == 1
    assert "already holds a run" in capsys.readouterr().err
    assert main([*command, "--output", str(output), "--resume"]) == 0
    assert "best PCK@0.2" in capsys.readouterr().out


def test_a_pack_is_written_and_trained_on(command, tmp_path, capsys):
    train, images = command[command.index("--train") + 1], command[command.index("--images") + 1]
    pack = tmp_path / "people.pack"
    recipe = command[1:3]
    assert main(["train", *recipe, "--train", train, "--images", images, "--pack", str(pack), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"persons": 8, "bytes": pack.stat().st_size, "file": str(pack)}
    two = [*command, "--train", str(pack), "--output", str(tmp_path / "run"), "--json"]
    assert main(two) == 0
    assert json.loads(capsys.readouterr().out)["epochs"] == 1


def test_a_teacher_is_an_engine(command, tmp_path, capsys):
    told = [*command, "--teacher", "body14-nano-128x128.fp32", "--output", str(tmp_path / "run"), "--json"]
    assert main(told) == 0 and json.loads(capsys.readouterr().out)["epochs"] == 1
    assert main([*command, "--teacher", "none.fp32", "--output", str(tmp_path / "other")]) == 1
    assert "engine 'none.fp32' is neither a folder nor a bundled engine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --val JSON and --output DIR to train, or --pack FILE"),
        (["--pack", "x.zip"], "--pack must end in .pack, by which --train knows it (got 'x.zip')"),
        (
            ["--pack", "x.pack", "--images", "a", "--images", "b"],
            "--images must be given once, or once for each of the 1",
        ),
        (["--pack", "x.pack", "--epochs", "1"], "--epochs is of a training, and --pack does not train: leave it out"),
        (["--pack", "x.pack", "--resume"], "--resume is of a training"),
        (["--pack", "x.pack", "--val", "v.json"], "--val is of a training"),
    ],
)
def test_a_command_that_is_not_whole_is_told(command, capsys, options, message):
    images = [] if "--images" in options else ["--images", "."]
    assert main(["train", *command[1:3], "--train", command[4], *images, *options]) == 2
    assert message in capsys.readouterr().err


def test_torchrun_starts_several(command, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = tmp_path / "sdk_main.py"
    script.write_text("import sys\nfrom sdk.cli import main\nsys.exit(main(sys.argv[1:]))\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = [*launch, str(script), *command, "--batch", "2", "--output", str(tmp_path / "run"), "--json"]
    said = subprocess.run(run, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
    assert len(said.strip().splitlines()) == 1
    assert json.loads(said)["epochs"] == 1


def test_a_recipe_must_be_named(capsys):
    assert main(["train", "--train", "t.json", "--val", "v.json", "--images", ".", "--output", "run"]) == 2
    assert "name a RECIPE of the catalogue to train, or give --recipe-file F" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--weights", "--settings"])
def test_a_run_does_not_replace_what_it_reads(command, tmp_path, capsys, option):
    given = tmp_path / "best.safetensors"
    given.write_text("mine")
    assert main([*command, "--output", str(tmp_path), option, str(given)]) == 2
    assert "--output (best.safetensors) would overwrite the input" in capsys.readouterr().err
    assert given.read_text() == "mine"


@pytest.mark.parametrize("name", [*TRAINING, *GRAPH])
def test_a_missing_package_is_told_before_the_training(command, tmp_path, capsys, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    assert main([*command, "--output", str(tmp_path / "run")]) == 1
    assert f"training needs {name}, not installed here" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_extra_brings_every_package():
    extra = re.search(r"^train = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)[1]
    assert set(re.findall(r'"(\w+)>=', extra)) == {*TRAINING, *GRAPH}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "setting 'epochs' must be at least 1 (got 0)"),
        (["--train", "none.json"], "'none.json' cannot be read"),
        (["--settings", "none.toml"], "settings 'none.toml' cannot be read"),
        (["--device", "cuda:x"], "training device must be cpu, cuda or cuda:N (got 'cuda:x')"),
    ],
)
def test_misuse_is_told(command, tmp_path, capsys, options, message):
    assert main([*command, "--output", str(tmp_path / "run"), *options]) == 1
    assert message in capsys.readouterr().err


def test_a_cuda_device_is_taken_by_its_number(monkeypatch):
    import torch

    from sdk.errors import DeviceError
    from sdk.training.parallel import check_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [check_device(name) for name in ("cpu", "cuda", "cuda:1")] == [("cpu", None), ("cuda", None), ("cuda", 1)]
    with pytest.raises(DeviceError, match="device cuda:2 is not there: torch finds 2, counted from 0"):
        check_device("cuda:2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DeviceError, match="device cuda:1 would be every process's; give cuda"):
        check_device("cuda:1")

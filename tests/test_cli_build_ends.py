"""`sdk build-engine` that fails, is stopped or meets another: words and exit status, and nothing left half-written."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxslim")
pytest.importorskip("sdk._native")

from sdk import trt
from sdk.cli import main
from sdk.manifest import open_engine
from tests.support.cli_build import SMALL_BUILD, left

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("build_folder")


def pickled_with_code(path):
    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {path}.ran",)

    path.write_bytes(pickle.dumps(Bomb()))


FAILS = {
    "no recipe for a graph made elsewhere": (
        ["build-engine", "--onnx", "small.onnx"], "'small.onnx' does not say --mean, --std, --colour, --padding,",
    ),
    "a convention without a graph": (
        ["build-engine", "body14-nano-128x128", "--convention", "mmpose"], "--convention says something of a graph",
    ),
    "a graph that is not there": (["build-engine", "--onnx", "no.onnx"], "'no.onnx' cannot be read (No such file"),
    "a graph that is none": (["build-engine", "--onnx", "cut.onnx"], "'cut.onnx' is not an ONNX file, or is truncated"),
    "nothing at all": (["build-engine"], "name a RECIPE of the catalogue or give --recipe-file F"),
    "an unknown recipe": (["build-engine", "rtmpose-q-256x192"], "is not in the catalogue; did you mean rtmpose-"),
    "a recipe that the file does not hold": (
        ["build-engine", "other-64x48", "--recipe-file", "small.toml"], "'small.toml' holds small-64x48: name one",
    ),
    "a recipe file that is not there": (["build-engine", "--recipe-file", "no.toml"], "cannot be read (No such file"),
    "two sources of weights": (
        [*SMALL_BUILD, "--weights", "random"], "weights must come from one place (got random_seed",
    ),
    "a batch range upside down": ([*SMALL_BUILD, "--min-batch", "8", "--max-batch", "2"], "1 <= min <= opt <= max"),
    "an output that is something else": ([*SMALL_BUILD, "--output", "small.onnx"], "is not an engine folder; choose"),
    "a rebuild with a recipe": (["build-engine", "x", "--rebuild", "e"], "leave recipe out"),
    "a rebuild with a pattern": (["build-engine", "--rebuild", "e", "--keep-float", "*"], "leave keep-float out"),
    "a rebuild of nothing": (["build-engine", "--rebuild", "nowhere"], "'nowhere' is not an engine folder"),
    "tensorrt without tensorrt or device": (
        [*SMALL_BUILD[:-1], "tensorrt"], "compiler 'tensorrt'",
    ),
    "inspecting nothing": (["inspect", "nowhere"], "engine 'nowhere' is neither a folder nor a bundled engine"),
    "a keep-float pattern that fits nothing": ([*SMALL_BUILD, "--keep-float", "*/gau/*"], "matches no node"),
    "a missing checkpoint": (["build-engine", "body14-nano-128x128", "--weights", "no.pth"], "no.pth"),
    "an empty checkpoint": (["build-engine", "body14-nano-128x128", "--weights", "empty.pth"], "empty.pth"),
    "a truncated checkpoint": (["build-engine", "body14-nano-128x128", "--weights", "cut.pth"], "cut.pth"),
    "a checkpoint with code in it": (["build-engine", "body14-nano-128x128", "--weights", "bomb.pth"], "bomb.pth"),
    "a drop below none": ([*SMALL_BUILD, "--precision", "int8", "--max-drop", "-1"], "0 or more (got -1.0)"),
}  # fmt: skip


MISUSED = [
    FAILS[name][0]
    for name in (
        "nothing at all", "a rebuild with a recipe", "a rebuild with a pattern", "a convention without a graph",
    )
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), FAILS.values(), ids=FAILS)
def test_what_fails_says_why_and_leaves_nothing(run, build_folder, words, message):
    if trt.flavour("tensorrt").problem is None and "tensorrt" in words:
        pytest.skip("tensorrt is installed here")
    (build_folder / "empty.pth").write_bytes(b"")
    (build_folder / "cut.pth").write_bytes((build_folder / "small.onnx").read_bytes()[:1000])
    (build_folder / "cut.onnx").write_bytes((build_folder / "small.onnx").read_bytes()[:1000])
    pickled_with_code(build_folder / "bomb.pth")
    before = left(build_folder)
    status, out, err = run(*words)
    assert (status, out) == (2 if words in MISUSED else 1, "")
    assert message in err
    assert left(build_folder) == before


@pytest.mark.parametrize(
    "words",
    [
        ["build-engine", "--precision", "fp7"],
        ["export", "rtmpose-t-256x192"],
        ["inspect"],
        ["build-engine", "--compiler", "x"],
    ],
    ids=["unknown precision", "export without output", "inspect without engine", "unknown compiler"],
)
def test_misuse_is_exit_2(capsys, words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: sdk" in capsys.readouterr().err


SLOW_BUILD = textwrap.dedent(
    """
    import sys, time
    from sdk import trt
    from sdk.cli import main
    from sdk.toolchain import compile as compiling

    def slow(compiler, graph, settings, monitor):
        monitor.start("Building", None, 1000)
        print("compiling", file=sys.stderr, flush=True)
        for step in range(1000):
            if not monitor.step("Building", step):
                raise trt.BuildError("cancelled")
            time.sleep(0.05)

    trt.build_plan = slow
    trt.flavour = lambda name: trt.Flavour(name, "1.7")
    sys.exit(main(sys.argv[1:]))
    """
)


def wait_for(stream, text):
    """Lines of a process up to the one with `text`."""
    lines = []
    for line in stream:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"'{text}' never came: {''.join(lines)}")


def started(folder, *words):
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("there", [False, True], ids=["nothing there", "an engine there"])
def test_ctrl_c_leaves_what_was_there(run, build_folder, there):
    if there:
        run(*SMALL_BUILD, "--precision", "fp32")
    before = left(build_folder)
    words = [*SMALL_BUILD[:-1], "tensorrt-rtx", "--precision", "fp32", "--max-batch", "7"]
    with started(build_folder, *words) as process:
        wait_for(process.stderr, "compiling\n")
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 1
    assert "interrupted; no result was left half-written" in rest
    assert "Traceback" not in rest
    assert left(build_folder) == before
    if there:
        assert open_engine(build_folder / "small-64x48.fp32").manifest.batch.max == 16


def test_two_processes_that_build_the_same_engine_do_not_collide(build_folder):
    command = [sys.executable, "-c", "import sys; from sdk.cli import main; sys.exit(main())", *SMALL_BUILD]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    builders = [
        subprocess.Popen(
            [*command, "--precision", "fp32"], cwd=build_folder, env=environment, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    logs = [builder.communicate(timeout=240)[1] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0, 0], logs
    assert sum("is there already, built of the same content" in log for log in logs) == 2
    assert left(build_folder) == ["small-64x48.fp32"]
    open_engine(build_folder / "small-64x48.fp32")


def test_a_full_disk_is_an_error_in_words(run, build_folder, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    status, out, err = run(*SMALL_BUILD, "--precision", "fp32")
    assert (status, out) == (1, "")
    assert "cannot be written (No space left on device); free some space" in err
    assert left(build_folder) == []

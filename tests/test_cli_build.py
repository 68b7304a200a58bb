"""`sdk export`, `sdk build-engine` and `sdk inspect`, as a user types them: results on stdout, nothing half-written."""

import json
import os
import re
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
from sdk.recipe import recipes_from_file
from tests.support.engines import SMALL, pooled_simcc_graph

ROOT = Path(__file__).resolve().parents[1]
COMPILER = "none" if trt.flavour("tensorrt-rtx").problem else "tensorrt-rtx"
RECIPE = """
format = 1
[recipes."small-64x48"]
description = "test network"
source = "tests"
licence = "Apache-2.0"
skeleton = "crowdpose14"
network.backbone = {kind = "cspnext", deepen = 0.167, widen = 0.375}
network.head = {kind = "simcc", deconv = [], maps_per_joint = 1}
output = {kind = "simcc", split_ratio = 2, score = "min_logit"}
protocol = {flip_test = false, flip_shift = false}
[recipes."small-64x48".input]
height = 64
width = 48
mean = [123.675, 116.28, 103.53]
std = [58.395, 57.12, 57.375]
colour = "rgb"
box_padding = 1.25
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with a graph and its recipe; every command is run from it."""
    pooled_simcc_graph(tmp_path / "small.onnx", SMALL)
    (tmp_path / "small.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


SMALL_BUILD = ["build-engine", "--recipe-file", "small.toml", "--onnx", "small.onnx", "--compiler", COMPILER]


@pytest.fixture
def run(capsys, caplog):
    """A function that runs one command: (exit status, stdout, stderr and log)."""

    def run_words(*words):
        caplog.clear()
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err + caplog.text

    return run_words


def test_the_documents_recipe_of_a_graph_is_enough_for_it(run, folder):
    page = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    (folder / "cart.toml").write_text(re.search(r"```toml\n(.*?)```", page, re.DOTALL)[1], encoding="utf-8")
    (cart,) = recipes_from_file(folder / "cart.toml").values()
    pooled_simcc_graph(folder / "cart.onnx", cart)
    words = ("build-engine", "--recipe-file", "cart.toml")
    status, out, log = run(*words, "--onnx", "cart.onnx", "--precision", "fp32", "--compiler", "none")
    assert (status, out) == (0, "hand-cart-96x96.fp32\n"), log
    assert open_engine(folder / "hand-cart-96x96.fp32").manifest.recipe == cart
    status, out, log = run(*words, "--weights", "random")
    assert status == 1 and "has no key 'network': it serves a graph made elsewhere" in log


def left(folder):
    return sorted(path.name for path in folder.iterdir() if path.name not in ("small.onnx", "small.toml"))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_onnx_file_becomes_an_engine(run, folder, precision):
    status, out, _ = run(*SMALL_BUILD, "--precision", precision)
    assert (status, out) == (0, f"small-64x48.{precision}\n")
    engine = open_engine(folder / f"small-64x48.{precision}")
    assert engine.manifest.precision == precision
    assert engine.manifest.weights.kind == "onnx"
    assert (engine.manifest.batch.min, engine.manifest.batch.opt, engine.manifest.batch.max) == (1, 4, 16)
    assert (engine.plan_path is None) == (COMPILER == "none")
    assert left(folder) == [f"small-64x48.{precision}"]


def test_options_reach_the_manifest(run, folder):
    words = ["--precision", "fp32", "--min-batch", "2", "--max-batch", "3", "--output", "out/engine", "--json"]
    status, out, _ = run(*SMALL_BUILD, *words)
    table = json.loads(out)
    assert status == 0
    assert table["folder"] == "out/engine"
    assert table["batch"] == {"min": 2, "opt": 3, "max": 3}
    assert open_engine(folder / "out" / "engine").manifest.key == table["key"]


@pytest.mark.skipif(COMPILER == "none", reason="needs tensorrt-rtx: it compiles anywhere")
def test_compute_capabilities_reach_the_manifest(run, folder):
    words = ["--precision", "fp16", "--compute-capability", "8.6", "12.0", "--optimization-level", "2", "--json"]
    _, out, err = run(*SMALL_BUILD, *words)
    compiler = json.loads(out)["compiler"]
    assert compiler["options"] == {"compute_capabilities": ["8.6", "12.0"], "optimization_level": 2}
    assert (compiler["target"], compiler["plan"]) == ("portable", "tensorrt-rtx.plan")
    assert "compiling with tensorrt-rtx" in err
    assert "for target portable" in err
    assert "peak memory" in err


@pytest.mark.skipif(COMPILER == "none", reason="needs tensorrt-rtx: it compiles anywhere")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_plan_for_turing_alone_is_called_by_its_compute_capability(run, folder, precision):
    """The network has FP32 matrix products, which TensorRT-RTX does not build for it; its engine keeps them."""
    _, out, err = run(*SMALL_BUILD, "--precision", precision, "--compute-capability", "7.5", "--json")
    table = json.loads(out)
    assert table["compiler"]["target"] == "7.5" and "for target 7.5" in err
    graph = pytest.importorskip("onnx").load(open_engine(folder / f"small-64x48.{precision}").graph_path)
    assert {"MatMul", "Gemm"} & {node.op_type for node in graph.graph.node}


def test_the_same_build_is_reused_and_force_builds_again(run, folder):
    run(*SMALL_BUILD, "--precision", "fp16")
    path = folder / "small-64x48.fp16" / "engine.json"
    before = path.stat().st_ino
    _, out, err = run(*SMALL_BUILD, "--precision", "fp16")
    assert "is there already, built of the same content" in err
    assert out == "small-64x48.fp16\n"
    assert path.stat().st_ino == before
    _, _, err = run(*SMALL_BUILD, "--precision", "fp16", "--force")
    assert "is there already" not in err
    assert path.stat().st_ino != before
    _, _, err = run(*SMALL_BUILD, "--precision", "fp16", "--max-batch", "8")
    assert "is there already" not in err


def test_a_graph_that_overflows_in_fp16_is_refused_in_fp16_alone(run, folder):
    import onnx

    model = onnx.load("small.onnx")
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_weights"):
            array = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array / abs(array).max() * 60000, tensor.name))
    onnx.save(model, "small.onnx")
    status, out, err = run(*SMALL_BUILD, "--precision", "fp16")
    assert (status, out) == (1, "")
    assert "'small-64x48' overflows in FP16 on 4 rendered figures" in err
    assert "keep the layers that overflow in FP32 with --keep-float PATTERN" in err
    assert left(folder) == []
    assert run(*SMALL_BUILD, "--precision", "fp16", "--keep-float", "*")[0] == 0
    assert run(*SMALL_BUILD, "--precision", "fp32")[0] == 0


def test_rebuild_compiles_an_engines_own_graph(run, folder):
    run(*SMALL_BUILD, "--precision", "fp16", "--max-batch", "5")
    before = open_engine(folder / "small-64x48.fp16").manifest
    status, out, _ = run("build-engine", "--rebuild", "small-64x48.fp16", "--compiler", "none", "--output", "moved")
    assert (status, out) == (0, "moved\n")
    after = open_engine(folder / "moved").manifest
    assert after.compiler is None
    assert after.files["network.onnx"] == before.files["network.onnx"]
    assert (after.batch, after.recipe, after.precision, after.weights) == (
        before.batch, before.recipe, before.precision, before.weights,
    )  # fmt: skip


def test_an_engine_that_has_run_is_built_and_rebuilt_again(run, folder):
    from sdk.manifest import kernel_cache_name

    run(*SMALL_BUILD, "--precision", "fp32")
    cache = folder / "small-64x48.fp32" / kernel_cache_name("1.7.1", "8.6", "0" * 64)
    cache.write_bytes(b"kernels")
    assert run(*SMALL_BUILD, "--precision", "fp32")[0] == 0
    assert cache.exists(), "the same build is reused as it is"
    assert run("build-engine", "--rebuild", "small-64x48.fp32", "--compiler", "none", "--force")[0] == 0
    assert not cache.exists()


def test_a_rebuild_asks_for_its_place_before_it_compiles(run, folder, monkeypatch):
    from sdk.toolchain import build

    run(*SMALL_BUILD, "--precision", "fp32")
    (folder / "used").mkdir()
    (folder / "used" / "photo.jpg").write_text("mine")

    def never(*_):
        raise AssertionError("it compiled first")

    monkeypatch.setattr(build, "choose_compiler", never)
    status, _, err = run("build-engine", "--rebuild", "small-64x48.fp32", "--output", "used")
    assert status == 1
    assert "output 'used' exists and is not an engine folder" in err


def test_a_rebuild_finds_the_engine_that_a_killed_one_moved_aside(run, folder):
    run(*SMALL_BUILD, "--precision", "fp32")
    (folder / "small-64x48.fp32").rename(folder / ".small-64x48.fp32.abcdefgh.replaced")
    status, out, err = run("build-engine", "--rebuild", "small-64x48.fp32", "--compiler", "none")
    assert (status, out) == (0, "small-64x48.fp32\n")
    assert "is put back: the build that was to replace it was killed" in err
    assert left(folder) == ["small-64x48.fp32"]


def test_inspect_shows_and_verifies(run, folder):
    run(*SMALL_BUILD, "--precision", "fp16")
    status, out, _ = run("inspect", "small-64x48.fp16")
    assert status == 0
    for text in (
        "small-64x48, fp16, opset 19, batch 1-16",
        "onnx: small.onnx, sha256",
        "sha256 verified",
        "network.onnx",
    ):
        assert text in out
    assert "input  input           float32  batch x 3 x 64 x 48" in out
    status, out, _ = run("inspect", "small-64x48.fp16", "--json")
    facts = json.loads(out)
    assert facts["layers"]["MatMul"] == {"fp16": 2}
    assert set(facts["layers_by_precision"]) == {"fp16", "other"}
    assert facts["manifest"]["recipe"]["name"] == "small-64x48"
    graph = folder / "small-64x48.fp16" / "network.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\x01")
    status, out, err = run("inspect", "small-64x48.fp16")
    assert (status, out) == (1, "")
    assert "was altered" in err


@pytest.mark.torch
def test_export_then_build_needs_no_recipe(run, folder):
    pytest.importorskip("torch")
    status, out, _ = run("export", "body14-nano-128x128", "--weights", "random", "--seed", "3", "--output", "g.onnx")
    assert (status, out) == (0, "g.onnx\n")
    status, _, _ = run("build-engine", "--onnx", "g.onnx", "--precision", "fp32", "--compiler", "none")
    assert status == 0
    assert open_engine(folder / "body14-nano-128x128.fp32").manifest.weights.source == "g.onnx"


@pytest.mark.torch
def test_random_weights_are_said_everywhere(run, folder):
    pytest.importorskip("torch")
    words = ["--weights", "random", "--seed", "5", "--precision", "fp16", "--compiler", "none", "--output", "e"]
    _, _, err = run("build-engine", "body14-nano-128x128", *words)
    assert "has random weights: for timing and tests" in err
    weights = open_engine(folder / "e").manifest.weights
    assert (weights.kind, weights.source) == ("random", "seed 5")
    assert "RANDOM WEIGHTS" in run("inspect", "e")[1]


def pickled_with_code(path):
    import pickle

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
def test_what_fails_says_why_and_leaves_nothing(run, folder, words, message):
    if trt.flavour("tensorrt").problem is None and "tensorrt" in words:
        pytest.skip("tensorrt is installed here")
    (folder / "empty.pth").write_bytes(b"")
    (folder / "cut.pth").write_bytes((folder / "small.onnx").read_bytes()[:1000])
    (folder / "cut.onnx").write_bytes((folder / "small.onnx").read_bytes()[:1000])
    pickled_with_code(folder / "bomb.pth")
    before = left(folder)
    status, out, err = run(*words)
    assert (status, out) == (2 if words in MISUSED else 1, "")
    assert message in err
    assert left(folder) == before


def test_a_bundled_engine_is_inspected_and_rebuilt_by_its_name(run, folder):
    status, out, _ = run("inspect", "body14-nano-128x128.fp32")
    assert status == 0 and out.startswith("body14-nano-128x128, fp32")
    status, out, err = run("build-engine", "--rebuild", "body14-nano-128x128.fp32", "--compiler", "tensorrt-rtx")
    if trt.flavour("tensorrt-rtx").problem is None:
        assert (status, out) == (0, "body14-nano-128x128.fp32\n")
        assert open_engine(folder / "body14-nano-128x128.fp32").manifest.compiler.name == "tensorrt-rtx"
    else:
        assert "compiler 'tensorrt-rtx' cannot be used" in err


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
def test_ctrl_c_leaves_what_was_there(run, folder, there):
    if there:
        run(*SMALL_BUILD, "--precision", "fp32")
    before = left(folder)
    words = [*SMALL_BUILD[:-1], "tensorrt-rtx", "--precision", "fp32", "--max-batch", "7"]
    with started(folder, *words) as process:
        wait_for(process.stderr, "compiling\n")
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 1
    assert "interrupted; no result was left half-written" in rest
    assert "Traceback" not in rest
    assert left(folder) == before
    if there:
        assert open_engine(folder / "small-64x48.fp32").manifest.batch.max == 16


def test_two_processes_that_build_the_same_engine_do_not_collide(folder):
    command = [sys.executable, "-c", "import sys; from sdk.cli import main; sys.exit(main())", *SMALL_BUILD]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    builders = [
        subprocess.Popen(
            [*command, "--precision", "fp32"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    logs = [builder.communicate(timeout=240)[1] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0, 0], logs
    assert sum("is there already, built of the same content" in log for log in logs) == 2
    assert left(folder) == ["small-64x48.fp32"]
    open_engine(folder / "small-64x48.fp32")


def test_a_full_disk_is_an_error_in_words(run, folder, monkeypatch):
    import errno

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    status, out, err = run(*SMALL_BUILD, "--precision", "fp32")
    assert (status, out) == (1, "")
    assert "cannot be written (No space left on device); free some space" in err
    assert left(folder) == []


WITHOUT_TORCH = """
import sys
for name in ("torch", "onnxslim", "onnxscript", "onnxruntime"):
    sys.modules[name] = None
from sdk.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_rebuild_needs_neither_torch_nor_onnxslim(run, folder):
    run(*SMALL_BUILD, "--precision", "fp16")
    words = ["build-engine", "--rebuild", "small-64x48.fp16", "--compiler", COMPILER, "--output", "here"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "here\n"), done.stderr

"""`sdk export`, `sdk build-engine` and `sdk inspect`, as a user types them: results on stdout, nothing half-written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxslim")
pytest.importorskip("sdk._native")

from sdk import trt
from sdk.manifest import open_engine
from sdk.recipe import recipes_from_file
from sdk.resources import DEFAULT_ENGINE, bundled_engines
from tests.support.cli_build import COMPILER, SMALL_BUILD, left
from tests.support.engines import pooled_simcc_graph

ROOT = Path(__file__).resolve().parents[1]
NAME = DEFAULT_ENGINE.removesuffix(".fp32")
pytestmark = pytest.mark.usefixtures("build_folder")


def test_the_documents_recipe_of_a_graph_is_enough_for_it(run, build_folder):
    page = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    (build_folder / "cart.toml").write_text(re.search(r"```toml\n(.*?)```", page, re.DOTALL)[1], encoding="utf-8")
    (cart,) = recipes_from_file(build_folder / "cart.toml").values()
    pooled_simcc_graph(build_folder / "cart.onnx", cart)
    words = ("build-engine", "--recipe-file", "cart.toml")
    status, out, log = run(*words, "--onnx", "cart.onnx", "--precision", "fp32", "--compiler", "none")
    assert (status, out) == (0, "hand-cart-96x96.fp32\n"), log
    assert open_engine(build_folder / "hand-cart-96x96.fp32").manifest.recipe == cart
    status, out, log = run(*words, "--weights", "random")
    assert status == 1 and "has no key 'network': it serves a graph made elsewhere" in log


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_onnx_file_becomes_an_engine(run, build_folder, precision):
    status, out, _ = run(*SMALL_BUILD, "--precision", precision)
    assert (status, out) == (0, f"small-64x48.{precision}\n")
    engine = open_engine(build_folder / f"small-64x48.{precision}")
    assert engine.manifest.precision == precision
    assert engine.manifest.weights.kind == "onnx"
    assert (engine.manifest.batch.min, engine.manifest.batch.opt, engine.manifest.batch.max) == (1, 4, 16)
    assert (engine.plan_path is None) == (COMPILER == "none")
    assert left(build_folder) == [f"small-64x48.{precision}"]


def test_options_reach_the_manifest(run, build_folder):
    words = ["--precision", "fp32", "--min-batch", "2", "--max-batch", "3", "--output", "out/engine", "--json"]
    status, out, _ = run(*SMALL_BUILD, *words)
    table = json.loads(out)
    assert status == 0
    assert table["folder"] == "out/engine"
    assert table["batch"] == {"min": 2, "opt": 3, "max": 3}
    assert open_engine(build_folder / "out" / "engine").manifest.key == table["key"]


@pytest.mark.skipif(COMPILER == "none", reason="needs tensorrt-rtx: it compiles anywhere")
def test_compute_capabilities_reach_the_manifest(run, build_folder):
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
def test_a_plan_for_turing_alone_is_called_by_its_compute_capability(run, build_folder, precision):
    """The network has FP32 matrix products, which TensorRT-RTX does not build for it; its engine keeps them."""
    _, out, err = run(*SMALL_BUILD, "--precision", precision, "--compute-capability", "7.5", "--json")
    table = json.loads(out)
    assert table["compiler"]["target"] == "7.5" and "for target 7.5" in err
    graph = pytest.importorskip("onnx").load(open_engine(build_folder / f"small-64x48.{precision}").graph_path)
    assert {"MatMul", "Gemm"} & {node.op_type for node in graph.graph.node}


def test_the_same_build_is_reused_and_force_builds_again(run, build_folder):
    run(*SMALL_BUILD, "--precision", "fp16")
    path = build_folder / "small-64x48.fp16" / "engine.json"
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


def test_a_graph_that_overflows_in_fp16_is_refused_in_fp16_alone(run, build_folder):
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
    assert left(build_folder) == []
    assert run(*SMALL_BUILD, "--precision", "fp16", "--keep-float", "*")[0] == 0
    assert run(*SMALL_BUILD, "--precision", "fp32")[0] == 0


def test_rebuild_compiles_an_engines_own_graph(run, build_folder):
    run(*SMALL_BUILD, "--precision", "fp16", "--max-batch", "5")
    before = open_engine(build_folder / "small-64x48.fp16").manifest
    status, out, _ = run("build-engine", "--rebuild", "small-64x48.fp16", "--compiler", "none", "--output", "moved")
    assert (status, out) == (0, "moved\n")
    after = open_engine(build_folder / "moved").manifest
    assert after.compiler is None
    assert after.files["network.onnx"] == before.files["network.onnx"]
    assert (after.batch, after.recipe, after.precision, after.weights) == (
        before.batch, before.recipe, before.precision, before.weights,
    )  # fmt: skip


def test_an_engine_that_has_run_is_built_and_rebuilt_again(run, build_folder):
    from sdk.manifest import kernel_cache_name

    run(*SMALL_BUILD, "--precision", "fp32")
    cache = build_folder / "small-64x48.fp32" / kernel_cache_name("1.7.1", "8.6", "0" * 64)
    cache.write_bytes(b"kernels")
    assert run(*SMALL_BUILD, "--precision", "fp32")[0] == 0
    assert cache.exists(), "the same build is reused as it is"
    assert run("build-engine", "--rebuild", "small-64x48.fp32", "--compiler", "none", "--force")[0] == 0
    assert not cache.exists()


def test_a_rebuild_asks_for_its_place_before_it_compiles(run, build_folder, monkeypatch):
    from sdk.toolchain import build

    run(*SMALL_BUILD, "--precision", "fp32")
    (build_folder / "used").mkdir()
    (build_folder / "used" / "photo.jpg").write_text("mine")

    def never(*_):
        raise AssertionError("it compiled first")

    monkeypatch.setattr(build, "choose_compiler", never)
    status, _, err = run("build-engine", "--rebuild", "small-64x48.fp32", "--output", "used")
    assert status == 1
    assert "output 'used' exists and is not an engine folder" in err


def test_a_rebuild_finds_the_engine_that_a_killed_one_moved_aside(run, build_folder):
    run(*SMALL_BUILD, "--precision", "fp32")
    (build_folder / "small-64x48.fp32").rename(build_folder / ".small-64x48.fp32.abcdefgh.replaced")
    status, out, err = run("build-engine", "--rebuild", "small-64x48.fp32", "--compiler", "none")
    assert (status, out) == (0, "small-64x48.fp32\n")
    assert "is put back: the build that was to replace it was killed" in err
    assert left(build_folder) == ["small-64x48.fp32"]


def test_inspect_shows_and_verifies(run, build_folder):
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
    graph = build_folder / "small-64x48.fp16" / "network.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\x01")
    status, out, err = run("inspect", "small-64x48.fp16")
    assert (status, out) == (1, "")
    assert "was altered" in err


@pytest.mark.torch
def test_export_then_build_needs_no_recipe(run, build_folder):
    pytest.importorskip("torch")
    status, out, _ = run("export", "body14-nano-128x128", "--weights", "random", "--seed", "3", "--output", "g.onnx")
    assert (status, out) == (0, "g.onnx\n")
    status, _, _ = run("build-engine", "--onnx", "g.onnx", "--precision", "fp32", "--compiler", "none")
    assert status == 0
    assert open_engine(build_folder / "body14-nano-128x128.fp32").manifest.weights.source == "g.onnx"


@pytest.mark.torch
def test_random_weights_are_said_everywhere(run, build_folder):
    pytest.importorskip("torch")
    words = ["--weights", "random", "--seed", "5", "--precision", "fp16", "--compiler", "none", "--output", "e"]
    _, _, err = run("build-engine", "body14-nano-128x128", *words)
    assert "has random weights: for timing and tests" in err
    weights = open_engine(build_folder / "e").manifest.weights
    assert (weights.kind, weights.source) == ("random", "seed 5")
    assert "RANDOM WEIGHTS" in run("inspect", "e")[1]


def test_a_bundled_engine_is_inspected_and_rebuilt_by_its_name(run, build_folder):
    status, out, _ = run("inspect", "body14-nano-128x128.fp32")
    assert status == 0 and out.startswith("body14-nano-128x128, fp32")
    status, out, err = run("build-engine", "--rebuild", "body14-nano-128x128.fp32", "--compiler", "tensorrt-rtx")
    if trt.flavour("tensorrt-rtx").problem is None:
        assert (status, out) == (0, "body14-nano-128x128.fp32\n")
        assert open_engine(build_folder / "body14-nano-128x128.fp32").manifest.compiler.name == "tensorrt-rtx"
    else:
        assert "compiler 'tensorrt-rtx' cannot be used" in err


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_bundled_network_is_built_from_its_engine_without_torch(run, build_folder, monkeypatch, precision):
    for name in ("torch", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    status, out, err = run("build-engine", NAME, "--precision", precision, "--compiler", "none")
    assert (status, out) == (0, f"{NAME}.{precision}\n"), err
    built, bundled = open_engine(build_folder / f"{NAME}.{precision}"), open_engine(bundled_engines()[f"{NAME}.fp32"])
    assert built.manifest.weights == bundled.manifest.weights
    status, out, _ = run(
        "build-engine", f"{NAME}.fp32", "--precision", precision, "--compiler", "none", "--output", "e"
    )
    assert (status, out) == (0, "e\n")
    assert open_engine(build_folder / "e").manifest.files == built.manifest.files


def test_an_engine_and_other_weights_are_not_mixed(run):
    status, _, err = run("build-engine", f"{NAME}.fp32", "--weights", "w.safetensors", "--compiler", "none")
    assert status == 1 and "weights must come from one place (got weights and engine)" in err
    status, _, err = run("build-engine", f"{NAME}.fp32", "--onnx", "small.onnx", "--compiler", "none")
    assert status == 1 and "weights must come from one place (got onnx and engine)" in err


WITHOUT_TORCH = """
import sys
for name in ("torch", "onnxslim", "onnxscript", "onnxruntime"):
    sys.modules[name] = None
from sdk.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_rebuild_needs_neither_torch_nor_onnxslim(run, build_folder):
    run(*SMALL_BUILD, "--precision", "fp16")
    words = ["build-engine", "--rebuild", "small-64x48.fp16", "--compiler", COMPILER, "--output", "here"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words],
        cwd=build_folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "here\n"), done.stderr

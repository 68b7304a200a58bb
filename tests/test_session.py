"""Sessions: opening an engine folder, what is refused and how, running on ONNX Runtime."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sdk.errors import ClosedError, EngineError, InputError
from sdk.manifest import GRAPH_NAME, MANIFEST_NAME, sha256_of_file
from sdk.recipe import Output
from sdk.resources import DEFAULT_ENGINE, bundled_engines
from sdk.runtime.opening import engine_from, open_session
from sdk.runtime.session import check_crops
from sdk.skeletons import skeleton_by_name
from tests.support.engines import (
    SMALL,
    SMALL_HEATMAP,
    pooled_heatmap_graph,
    pooled_simcc_graph,
    wrapped_engine,
)

pytest.importorskip("onnx")
ONNX_RUNTIME = tuple(map(int, pytest.importorskip("onnxruntime").__version__.split(".")[:2]))


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return pooled_simcc_graph(tmp_path_factory.mktemp("graph") / "small.onnx", SMALL)


@pytest.fixture
def folder(graph, tmp_path):
    return wrapped_engine(graph, tmp_path / "small.fp32", SMALL)


def crops_of(count, size_hw=(64, 48)):
    return np.random.default_rng(count).standard_normal((count, 3, *size_hw)).astype(np.float32)


def test_a_simcc_engine_gives_both_axes(folder):
    with open_session(folder, "cpu") as session:
        x, y = session.run(crops_of(3))
        assert x.shape == (3, 14, 96) and y.shape == (3, 14, 128) and x.dtype == y.dtype == np.float32
        assert session.device == "cpu" and session.max_batch == 8 and session.recipe == SMALL


def test_quantised_graphs_run_as_they_are_written(folder):
    with open_session(folder, "cpu") as session:
        options = session._session.get_session_options()
    assert options.get_session_config_entry("session.disable_quant_qdq") == "1"


def test_the_batch_does_not_change_a_person(folder):
    with open_session(folder, "cpu", threads=1) as session:
        together = session.run(crops_of(4))
        for row in range(4):
            alone = session.run(crops_of(4)[row : row + 1])
            for a, b in zip(together, alone, strict=True):
                np.testing.assert_allclose(a[row : row + 1], b, atol=1e-5)


def test_a_heatmap_engine_gives_one_map_a_joint(tmp_path):
    graph = pooled_heatmap_graph(tmp_path / "h.onnx", SMALL_HEATMAP)
    with open_session(wrapped_engine(graph, tmp_path / "h", SMALL_HEATMAP), "cpu") as session:
        (heatmap,) = session.run(crops_of(2))
        assert heatmap.shape == (2, 14, 16, 12)


def test_a_graph_of_fixed_batch_serves_smaller_ones(tmp_path):
    import onnx

    path = pooled_simcc_graph(tmp_path / "g.onnx", SMALL)
    model = onnx.load(path)
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "fixed.onnx")
    with (
        open_session(wrapped_engine(path, tmp_path / "free", SMALL), "cpu") as free,
        open_session(wrapped_engine(tmp_path / "fixed.onnx", tmp_path / "fixed", SMALL), "cpu") as fixed,
    ):
        assert fixed.max_batch == 4
        for a, b in zip(free.run(crops_of(3)), fixed.run(crops_of(3)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def flip_byte(folder):
    data = bytearray((folder / GRAPH_NAME).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / GRAPH_NAME).write_bytes(data)


def edit_manifest(**changes):
    def edit(folder):
        path = folder / MANIFEST_NAME
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def break_graph(folder):
    (folder / GRAPH_NAME).write_bytes(b"not a graph")
    edit_manifest(files={GRAPH_NAME: sha256_of_file(folder / GRAPH_NAME)})(folder)


def rename_output(folder):
    import onnx

    model = onnx.load(folder / GRAPH_NAME)
    model.graph.output[0].name = model.graph.node[-3].output[0] = "other"
    for node in model.graph.node:
        node.output[:] = ["other" if name == "simcc_x" else name for name in node.output]
    onnx.save(model, folder / GRAPH_NAME)
    edit_manifest(files={GRAPH_NAME: sha256_of_file(folder / GRAPH_NAME)})(folder)


def move_weights_outside(folder):
    import onnx

    model = onnx.load(folder / GRAPH_NAME)
    weights = model.graph.initializer[0]
    (folder.parent / "elsewhere.bin").write_bytes(weights.raw_data)
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", "../elsewhere.bin"
    (folder / GRAPH_NAME).write_bytes(model.SerializeToString())
    edit_manifest(files={GRAPH_NAME: sha256_of_file(folder / GRAPH_NAME)})(folder)


BROKEN_FOLDERS = {
    "flipped byte": (flip_byte, r"'network\.onnx' was altered .* copy it again or rebuild"),
    "missing graph": (lambda f: (f / GRAPH_NAME).unlink(), r"'network\.onnx' is missing; copy it again"),
    "missing manifest": (lambda f: (f / MANIFEST_NAME).unlink(), r"not an engine folder.*sdk build-engine"),
    "empty manifest": (
        lambda f: (f / MANIFEST_NAME).write_text(""),
        r"manifest '.*json' is not JSON .* build the engine",
    ),
    "newer format": (edit_manifest(format=2), r"'format' must be 1 \(got 2\); open the engine with the SDK that built"),
    "unknown key": (edit_manifest(colour="blue"), "unknown key 'colour'"),
    "file outside": (edit_manifest(files={"../x": "0", GRAPH_NAME: "0"}), "must not leave the folder"),
    "not a graph": (break_graph, "ONNX Runtime .* refuses it"),
    "weights outside": (move_weights_outside, "ONNX Runtime .* refuses it .*escapes"),
    "other tensors": (rename_output, r"its recipe names 'input' and \['simcc_x', 'simcc_y'\]; build the engine again"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN_FOLDERS.values(), ids=BROKEN_FOLDERS)
def test_a_damaged_engine_is_refused_in_words(folder, damage, message):
    if damage is move_weights_outside and ONNX_RUNTIME < (1, 24):
        pytest.skip("ONNX Runtime before 1.24 does not look where weights lie")
    damage(folder)
    with pytest.raises(EngineError, match=message):
        open_session(folder, "cpu")


def edit_recipe(**changes):
    """The recipe of `SMALL`, other than the graph in one thing that the graph itself says."""
    return edit_manifest(recipe=replace(SMALL, **changes).to_table())


CONTRADICTIONS = {
    "input size": (
        edit_recipe(name="small-128x96", input=replace(SMALL.input, height=128, width=96)),
        r"tensor 'input' of its graph must be float32 with the shape \['any', 3, 128, 96\] .*got .*3, 64, 48\]",
    ),
    "split ratio": (
        edit_recipe(output=replace(SMALL.output, split_ratio=3.0)),
        r"tensor 'simcc_x' .* \['any', 14, 144\] by its recipe \(got tensor\(float\) \['batch', 14, 96\]\)",
    ),
    "joints": (edit_recipe(skeleton=skeleton_by_name("coco17")), r"tensor 'simcc_x' .* \['any', 17, 96\]"),
    "the axes' names swapped": (
        edit_recipe(output=replace(SMALL.output, x_name="simcc_y", y_name="simcc_x")),
        r"tensor 'simcc_y' of its graph must be .* \['any', 14, 96\]",
    ),
    "output kind": (
        edit_recipe(output=Output("heatmap", heatmap_name="simcc_x")),
        r"tensor 'simcc_x' .* \['any', 14, 'any', 'any'\]",
    ),
}


@pytest.mark.parametrize(("edit", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_recipe_that_contradicts_its_graph_is_refused_at_opening(folder, edit, message):
    edit(folder)
    with pytest.raises(EngineError, match=message):
        open_session(folder, "cpu")


def test_what_onnx_runtime_cannot_run_is_told_with_the_file(tmp_path):
    import onnx

    path = pooled_simcc_graph(tmp_path / "g.onnx", SMALL)
    model = onnx.load(path)
    for tensor in model.graph.initializer:  # a batch of one baked in, behind a declaration of any batch
        if tensor.name.endswith("_shape"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).clip(1), tensor.name))
    onnx.save(model, path)
    with open_session(wrapped_engine(path, tmp_path / "one", SMALL), "cpu") as session:
        session.run(crops_of(1))
        with pytest.raises(
            EngineError, match=r"network\.onnx': ONNX Runtime cannot run it on 'input' \[3, 3, .*Reshape"
        ):
            session.run(crops_of(3))


NO_ENGINE = {
    "neither": ("no-such-engine", r"neither a folder nor a bundled engine"),
    "a recipe": ("rtmpose-s-256x192", r"is a recipe: build it first with `sdk build-engine rtmpose-s-256x192 "),
    "a file": (__file__, "not an engine folder"),
    "the manifest": (
        str(bundled_engines()["body14-nano-128x128.fp32"] / "engine.json"),
        r"not an engine folder but the manifest in one; name '.*body14-nano-128x128\.fp32'",
    ),
}


@pytest.mark.parametrize(("name", "message"), NO_ENGINE.values(), ids=NO_ENGINE)
def test_an_engine_that_is_not_there(name, message):
    with pytest.raises(EngineError, match=message):
        engine_from(name)


BAD_CROPS = {
    "another size": (np.zeros((1, 3, 32, 48), np.float32), r"shape N x 3 x 64 x 48 \(got float32 \(1, 3, 32, 48\)\)"),
    "another type": (np.zeros((1, 3, 64, 48)), "float64"),
    "not an array": ([1.0], "list"),
}


@pytest.mark.parametrize(("crops", "message"), BAD_CROPS.values(), ids=BAD_CROPS)
def test_crops_of_another_kind_are_refused(folder, crops, message):
    with open_session(folder, "cpu") as session, pytest.raises(InputError, match=message):
        session.run(crops)


def test_checked_crops_are_contiguous():
    assert check_crops(crops_of(2)[..., ::-1], SMALL).flags.c_contiguous


def test_a_folder_goes_before_the_bundled_engine_of_its_name(tmp_path, monkeypatch):
    name = next(iter(bundled_engines()))
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match=MANIFEST_NAME):
        engine_from(name)


def test_an_installation_without_engines_says_so(monkeypatch):
    monkeypatch.setattr("sdk.runtime.opening.bundled_engines", dict)
    with pytest.raises(EngineError, match="no engine ships with this installation; name an engine folder"):
        engine_from(None)


def test_the_default_is_the_engine_that_is_named_so_not_the_first(monkeypatch, tmp_path):
    there = {"a.fp32": tmp_path, **bundled_engines()}
    monkeypatch.setattr("sdk.runtime.opening.bundled_engines", lambda: there)
    assert engine_from(None).folder.name == DEFAULT_ENGINE


def test_a_bundled_recipes_name_is_its_bundled_engine_and_the_log_says_so(caplog):
    recipe = DEFAULT_ENGINE.partition(".")[0]
    with caplog.at_level("INFO"):
        assert engine_from(recipe).folder == bundled_engines()[DEFAULT_ENGINE]
    assert f"'{recipe}' is a recipe: its engine '{DEFAULT_ENGINE}' is taken" in caplog.text
    caplog.clear()
    engine_from("body14-nano-128x128")
    assert "leaves with the next release" in caplog.text


def test_a_bundled_recipes_name_is_the_folder_here_where_there_is_one(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, DEFAULT_ENGINE)
    assert engine_from(DEFAULT_ENGINE.partition(".")[0]).folder == Path(DEFAULT_ENGINE)


def test_an_engine_that_leaves_still_opens_and_says_so(caplog):
    assert engine_from("body14-nano-128x128.fp32").manifest.recipe.joints == 14
    assert "leaves with the next release; use 'body17-nano-128x128.fp32'" in caplog.text
    caplog.clear()
    engine_from(None)
    engine_from(DEFAULT_ENGINE)
    assert not caplog.text


def test_a_name_that_is_nearly_one_is_guessed_at():
    name = next(iter(bundled_engines()))
    with pytest.raises(EngineError, match=f"did you mean '{name}'"):
        engine_from(name[:-1])


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2", 257, 99999, 1 << 40])
def test_threads_must_be_a_count(folder, threads):
    with pytest.raises(InputError, match="threads must be a whole number from 1 to 256, or None for all cores"):
        open_session(folder, "cpu", threads=threads)


def test_more_threads_than_four_a_core_are_not_started(folder, monkeypatch, caplog):
    import onnxruntime

    asked = []
    real = onnxruntime.InferenceSession

    def recording(path, options, **rest):
        asked.append(options.intra_op_num_threads)
        return real(path, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", recording)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with caplog.at_level("INFO", "sdk"):
        for threads in (None, 3, 4, 5, 256):
            open_session(folder, "cpu", threads=threads).close()
    assert asked == [0, 3, 4, 4, 4]
    assert [record.getMessage() for record in caplog.records if "threads" in record.getMessage()] == [
        f"threads: ONNX Runtime takes 4 of the {threads} asked for, 4 a core" for threads in (5, 256)
    ]


def test_a_closed_session_says_so(folder):
    session = open_session(folder, "cpu")
    session.close()
    session.close()
    with pytest.raises(ClosedError, match=r"'small\.fp32' is closed; open it again"):
        session.run(crops_of(1))


def test_a_session_from_before_a_fork_says_so(folder, monkeypatch):
    session = open_session(folder, "cpu")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(ClosedError, match="before a fork"):
        session.run(crops_of(1))

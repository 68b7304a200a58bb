"""Graphs made elsewhere: found by shape, given the SDK's names, proven to run; anything else refused with reasons."""

import logging
import zipfile
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

import onnx
from onnx import TensorProto, helper

from sdk.errors import GraphError
from sdk.toolchain.foreign import OPSET, graph_from_file
from sdk.toolchain.graphs import graph_inputs, graph_outputs, graph_session, opset_of
from tests.support.engines import BODY14, SMALL, SMALL_HEATMAP, pooled_heatmap_graph, pooled_simcc_graph

HEIGHT, WIDTH = SMALL.input.size_hw
SQUARE = replace(SMALL, name="small-64x64", input=replace(SMALL.input, width=64))


@pytest.fixture
def path(tmp_path):
    return pooled_simcc_graph(tmp_path / "small.onnx", SMALL)


def changed(path, change):
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return path


def rename(model, names):
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)


def crops(count, recipe=SMALL):
    return np.random.default_rng(0).standard_normal((count, 3, *recipe.input.size_hw)).astype(np.float32)


def outputs_of(model, count=3, recipe=SMALL):
    return graph_session(model).run(None, {"input": crops(count, recipe)})


def assert_standard(model, recipe=SMALL):
    assert [t.name for t in graph_inputs(model)] == ["input"]
    assert [t.name for t in graph_outputs(model)] == ["simcc_x", "simcc_y"]
    assert [t.shape for t in graph_outputs(model)] == [("batch", recipe.joints, bins) for bins in recipe.bins_xy]
    assert opset_of(model) in (19, 20)
    assert all(node.name for node in model.graph.node)


def test_a_graph_with_the_recipes_names_is_taken_as_it_is(path):
    model = graph_from_file(path, SMALL)
    assert_standard(model)
    for ours, theirs in zip(outputs_of(model), outputs_of(onnx.load(path)), strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    "names",
    [
        {"input": "images", "simcc_x": "x_logits", "simcc_y": "y_logits"},
        {"simcc_x": "output", "simcc_y": "700"},
        {"simcc_x": "simcc_y", "simcc_y": "simcc_x"},
        {"input": "simcc_x", "simcc_x": "input", "simcc_y": "y"},
    ],
    ids=["other names", "mmdeploy names", "the names swapped", "the input called like an output"],
)
def test_tensors_are_found_by_shape(path, names, caplog):
    caplog.set_level(logging.INFO, logger="sdk")
    expected = outputs_of(onnx.load(path))
    changed(path, lambda model: rename(model, names))
    model = graph_from_file(path, SMALL)
    assert_standard(model)
    assert "found by shape" in caplog.text
    for ours, theirs in zip(outputs_of(model), expected, strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)


def test_outputs_of_one_shape_keep_their_order(tmp_path):
    path = pooled_simcc_graph(tmp_path / "square.onnx", SQUARE)
    expected = outputs_of(onnx.load(path), recipe=SQUARE)
    changed(path, lambda model: rename(model, {"simcc_x": "first", "simcc_y": "second"}))
    for ours, theirs in zip(outputs_of(graph_from_file(path, SQUARE), recipe=SQUARE), expected, strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)


def test_names_of_the_recipe_are_used_when_it_names_the_files(path):
    recipe = replace(SMALL, output=replace(SMALL.output, x_name="u", y_name="v"))
    changed(path, lambda model: rename(model, {"simcc_x": "u", "simcc_y": "v"}))
    assert [t.name for t in graph_outputs(graph_from_file(path, recipe))] == ["u", "v"]


def test_outputs_that_nobody_needs_are_dropped(path):
    def add(model):
        model.graph.node.append(helper.make_node("Relu", ["flat"], ["features"]))
        model.graph.output.insert(0, helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, None]))

    model = graph_from_file(changed(path, add), SMALL)
    assert_standard(model)
    assert not any(node.op_type == "Relu" for node in model.graph.node)


def test_a_heatmap_recipe_takes_a_heatmap_graph(tmp_path):
    model = graph_from_file(pooled_heatmap_graph(tmp_path / "h.onnx", SMALL_HEATMAP), SMALL_HEATMAP)
    assert [t.shape for t in graph_outputs(model)] == [("batch", SMALL.joints, HEIGHT // 4, WIDTH // 4)]


def test_sizes_and_batch_that_a_file_leaves_open_are_filled_in(path):
    def open_up(model):
        for value in (*model.graph.input, *model.graph.output):
            for dim in value.type.tensor_type.shape.dim:
                dim.Clear()

    model = graph_from_file(changed(path, open_up), SMALL)
    assert graph_inputs(model)[0].shape == ("batch", 3, HEIGHT, WIDTH)
    assert_standard(model)


def test_a_batch_that_only_the_declaration_fixes_is_freed(path):
    def fix(model):
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1

    assert outputs_of(graph_from_file(changed(path, fix), SMALL), count=5)[0].shape[0] == 5


def test_external_data_beside_the_file_is_read_in(path):
    expected = outputs_of(onnx.load(path))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = graph_from_file(path, SMALL)
    assert all(t.data_location != TensorProto.EXTERNAL for t in model.graph.initializer)
    assert np.allclose(outputs_of(model)[0], expected[0], atol=1e-5)


def zipped(path, *names):
    archive = path.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for name in names:
            file.write(path, name)
        file.writestr("deploy/deploy.json", "{}")
    return archive


def spoiled_zip(path, spoil):
    """A deflated zip with one ONNX file, its bytes changed; `spoil` gets them and where the directory begins."""
    archive = path.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(path, "m.onnx")
    data = bytearray(archive.read_bytes())
    spoil(data, data.find(b"PK\x01\x02"))
    archive.write_bytes(data)
    return archive


def encrypted(data, directory):
    data[6] |= 1
    data[directory + 8] |= 1


def of_method_99(data, directory):
    data[8] = data[directory + 10] = 99


def with_damaged_data(data, directory):
    for at in range(40, 60):
        data[at] ^= 0xFF


def test_a_deploy_zip_is_read_in_place(path):
    before = sorted(path.parent.iterdir())
    archive = zipped(path, "20230831/rtmpose_onnx/end2end.onnx")
    assert_standard(graph_from_file(archive, SMALL))
    assert sorted(path.parent.iterdir()) == sorted([*before, archive])


def external(location):
    def change(path):
        onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            next(e for e in tensor.external_data if e.key == "location").value = location
        path.write_bytes(model.SerializeToString())
        return path

    return change


def with_symlink(path):
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    outside = path.parent.parent / f"{path.parent.name}-outside.bin"
    (path.parent / "w.bin").rename(outside)
    (path.parent / "w.bin").symlink_to(outside)
    return path


def without_its_data(path):
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    (path.parent / "w.bin").unlink()
    return path


def custom_operator(model):
    model.graph.node[0].op_type, model.graph.node[0].domain = "ROIAlignRotated", "mmdeploy"
    model.opset_import.append(helper.make_opsetid("mmdeploy", 1))


def second_input(model):
    model.graph.input.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, [1]))
    model.graph.node.append(helper.make_node("Identity", ["extra"], ["extra_out"]))


def wrong_size(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 96


def batch_in_a_reshape(model):
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_shape"):
            array = onnx.numpy_helper.to_array(tensor).copy()
            array[0] = 1
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def mixes_the_batch(model):
    node = next(n for n in model.graph.node if n.op_type == "Reshape" and n.output[0] == "simcc_x")
    node.output[0] = "mixed"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0], np.int64), "axis0"))
    model.graph.node.append(helper.make_node("ReduceMax", ["mixed"], ["most"], axes=[0], keepdims=1))
    model.graph.node.append(helper.make_node("Add", ["mixed", "most"], ["simcc_x"]))


def half_weights(model):
    tensor = next(t for t in model.graph.initializer if t.name == "simcc_x_weights")
    half = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), "simcc_x_half")
    model.graph.initializer.append(half)
    model.graph.node.insert(0, helper.make_node("Cast", ["simcc_x_half"], ["simcc_x_weights"], to=TensorProto.FLOAT))
    model.graph.initializer.remove(tensor)


def opset(version):
    def change(model):
        model.opset_import[0].version = version

    return change


REFUSED = {
    "no such file": (lambda p: p.with_name("nowhere.onnx"), r"cannot be read \(No such file"),
    "a folder": (lambda p: p.parent, r"cannot be read \(Is a directory"),
    "empty": (lambda p: (p.write_bytes(b"") and p) or p, "holds no graph"),
    "not a graph": (lambda p: (p.write_bytes(b"\x80junk" * 50), p)[1], "is not an ONNX file, or is truncated"),
    "truncated": (lambda p: (p.write_bytes(p.read_bytes()[:-900]), p)[1], "is not an ONNX file, or is truncated"),
    "data in the parent folder": (external("../w.bin"), r"data in '../w.bin', outside the file's own folder"),
    "data at an absolute path": (external("/etc/passwd"), r"data in '/etc/passwd', outside"),
    "data behind a link": (with_symlink, "outside the file's own folder"),
    "data missing": (without_its_data, "its external data cannot be read"),
    "a custom operator": (
        lambda p: changed(p, custom_operator),
        r"outside the ONNX standard \(mmdeploy.ROIAlignRotated",
    ),
    "two inputs": (lambda p: changed(p, second_input), r"one float32 input N x 3 x 64 x 48; inputs: .*extra float32 1"),
    "another input size": (
        lambda p: changed(p, wrong_size),
        r"inputs: input float32 batch x 3 x 96 x 48; outputs: simcc_x",
    ),
    "a batch fixed inside": (lambda p: changed(p, batch_in_a_reshape), r"batch \(torch\.onnx\.export: dynamic_shapes"),
    "crops that see each other": (lambda p: changed(p, mixes_the_batch), "give other outputs than one by one"),
    "FP16 already": (lambda p: changed(p, half_weights), r"typed already \(FP16, at 'simcc_x_half'\)"),
    "an opset of the future": (lambda p: changed(p, opset(21)), "is of opset 21; export it with opset 19 to 20"),
    "a zip without a graph": (zipped, r"exactly one ONNX file \(got none\)"),
    "a zip with two": (lambda p: zipped(p, "a.onnx", "b.onnx"), r"exactly one ONNX file \(got a.onnx, b.onnx\)"),
    "a zip under a password": (lambda p: spoiled_zip(p, encrypted), r"deploy zip .* cannot be read \(.*encrypted"),
    "a zip of unknown compression": (lambda p: spoiled_zip(p, of_method_99), "deploy zip .* cannot be read"),
    "a zip with a damaged stream": (lambda p: spoiled_zip(p, with_damaged_data), "deploy zip .* cannot be read"),
    "a zip that is none": (
        lambda p: (p.with_suffix(".zip").write_bytes(b"PK"), p.with_suffix(".zip"))[1],
        "deploy zip",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_graph_of_the_recipe_is_refused(path, spoil, message):
    with pytest.raises(GraphError, match=message):
        graph_from_file(spoil(path), SMALL)


@pytest.mark.parametrize("fault", [RuntimeError, onnx.version_converter.ConvertError], ids=lambda fault: fault.__name__)
def test_an_opset_that_cannot_be_raised_is_told(path, monkeypatch, fault):
    def refuse(*_):
        raise fault("no adapter")

    monkeypatch.setattr(onnx.version_converter, "convert_version", refuse)
    with pytest.raises(GraphError, match=r"is of opset 17 and cannot be raised to 19 \(no adapter\); export it with"):
        graph_from_file(path, SMALL)


def test_outputs_of_other_shapes_are_listed(tmp_path):
    path = pooled_heatmap_graph(tmp_path / "h.onnx", SMALL_HEATMAP)
    with pytest.raises(
        GraphError, match=r"must be 1 x 14 x 96, 1 x 14 x 128; .*outputs: heatmap float32 1 x 14 x 16 x 12"
    ):
        graph_from_file(path, SMALL)


def test_a_file_larger_than_any_graph_is_not_read(path, monkeypatch):
    from sdk.toolchain import foreign

    monkeypatch.setattr(foreign, "LARGEST_BYTES", 100)
    with pytest.raises(GraphError, match="must be at most 100"):
        graph_from_file(path, SMALL)
    with pytest.raises(GraphError, match="unpacks to more than 100"):
        graph_from_file(zipped(path, "end2end.onnx"), SMALL)


def test_a_graph_that_cannot_be_simplified_is_refused(path, monkeypatch):
    from sdk.toolchain import foreign

    def broken(_):
        raise AssertionError("no shape of 'pooled'\nat line 3")

    monkeypatch.setattr(foreign, "slim", broken)
    with pytest.raises(GraphError, match=r"cannot be simplified \(no shape of 'pooled'\); export it anew"):
        graph_from_file(path, SMALL)


@pytest.mark.torch
def test_rtmlibs_end2end_layout_works(tmp_path):
    """Opset 11, `input`, `simcc_x`, `simcc_y`, a ScaleNorm and a GAU in it: as OpenMMLab's deploy zips have it."""
    torch = pytest.importorskip("torch")
    from sdk.networks import network_from_recipe, random_weights
    from sdk.recipe import recipe_by_name

    recipe = recipe_by_name("rtmpose-t-256x192")
    network = network_from_recipe(recipe)
    random_weights(network, 0)
    path, names = tmp_path / "end2end.onnx", ["simcc_x", "simcc_y"]
    axes = {name: {0: "batch"} for name in ("input", *names)}
    sample = torch.zeros(1, 3, *recipe.input.size_hw)
    torch.onnx.export(
        network, (sample,), path, input_names=["input"], output_names=names, dynamic_axes=axes, opset_version=11,
        dynamo=False,
    )  # fmt: skip
    model = graph_from_file(path, recipe)
    assert opset_of(model) == OPSET
    with torch.no_grad():
        expected = network(torch.from_numpy(crops(2, recipe)))
    for ours, theirs in zip(outputs_of(model, 2, recipe), expected, strict=True):
        assert np.abs(ours - theirs.numpy()).max() <= 1e-4 * theirs.abs().max().item()


@pytest.mark.data
def test_a_network_trained_elsewhere_is_read(shared):
    model = graph_from_file(shared / "models" / "body14-lspet-128x128.onnx", BODY14)
    assert_standard(model, BODY14)

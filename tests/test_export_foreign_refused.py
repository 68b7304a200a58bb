"""Graphs made elsewhere that are no graph of a recipe: refused with reasons."""

import zipfile

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

import onnx
from onnx import TensorProto, helper

from sdk.errors import GraphError
from tests.support import foreign_forms as forms
from tests.support.engines import SMALL_HEATMAP, pooled_heatmap_graph
from tests.support.foreign_forms import before, behind, changed, rename
from tests.support.foreign_graphs import batch_normalised, branch, taken, zipped


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


def quantised(model):
    scale = forms.constant(model, "scale", np.float32(0.1))
    node = next(n for n in model.graph.node if n.op_type == "Flatten")
    model.graph.node.insert(1, helper.make_node("QuantizeLinear", ["pooled", scale], ["q"], name="q_pooled"))
    model.graph.node.insert(2, helper.make_node("DequantizeLinear", ["q", scale], ["d"]))
    node.input[0] = "d"


def one_axis_of_probabilities(model):
    model.graph.node.append(helper.make_node("Softmax", ["simcc_x"], ["p"], axis=-1))
    model.graph.output[0].name = "p"


def rivals(model):
    behind(forms.softmax, keep=True)(model)
    rename(model, {"simcc_x": "one", "simcc_y": "two", "simcc_x_more": "one_more", "simcc_y_more": "two_more"})


REFUSED = {
    "no such file": (lambda p: p.with_name("nowhere.onnx"), r"cannot be read \(No such file"),
    "a folder without one": (lambda p: (p.unlink(), p.parent)[1], r"must hold exactly one ONNX file \(got none\)"),
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
    "two inputs": (
        lambda p: changed(p, second_input),
        r"the shape N x 3 x 64 x 48 or N x 64 x 48 x 3; inputs: .*extra float32 1",
    ),
    "another input size": (
        lambda p: changed(p, wrong_size),
        r"inputs: input float32 batch x 3 x 96 x 48; outputs: simcc_x",
    ),
    "INT8 already": (lambda p: changed(p, quantised), r"quantised already \(INT8, at 'q_pooled'\)"),
    "a branch": (
        lambda p: changed(p, branch("If")),
        r"node 'bend' \(If\) holds a branch or a loop, which is refused before",
    ),
    "a loop": (lambda p: changed(p, branch("Loop")), r"node 'bend' \(Loop\) holds a branch or a loop"),
    "a scan": (lambda p: changed(p, branch("Scan")), r"node 'bend' \(Scan\) holds a branch or a loop"),
    "one axis of probabilities": (
        lambda p: changed(p, one_axis_of_probabilities),
        "probabilities on one axis and logits",
    ),
    "rival outputs": (
        lambda p: changed(p, rivals),
        r"more outputs of the shapes .*\(one, one_more, two, two_more\); name",
    ),
    "an unknown mean inside": (
        lambda p: changed(p, before(("Sub", (np.float32(7),), {}))),
        r"subtracts 7 7 7 and divides by 1 1 1 inside, not as the recipe .* --pixels 0\.\.255, 0\.\.1 or normalised",
    ),
    "a batch normalisation first": (
        lambda p: changed(p, batch_normalised),
        r"begins with a batch normalisation of its input, .* --pixels 0\.\.255, 0\.\.1 or normalised",
    ),
    "the mean of the other order": (
        lambda p: changed(
            p,
            before(("Sub", (forms.MEAN[::-1].reshape(3, 1, 1),), {}), ("Div", (forms.STD[::-1].reshape(3, 1, 1),), {})),
        ),
        "say what the graph is fed with, --colour rgb or bgr",
    ),
    "an opset of the future": (
        lambda p: changed(p, forms.opset(99)),
        "is of opset 99, newer than the onnx package|not a valid",
    ),
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
def test_what_is_no_graph_of_the_recipe_is_refused(graph_file, spoil, message):
    with pytest.raises(GraphError, match=message):
        taken(spoil(graph_file))


@pytest.mark.parametrize("fault", [RuntimeError, onnx.version_converter.ConvertError], ids=lambda fault: fault.__name__)
def test_an_opset_that_cannot_be_raised_is_told(graph_file, monkeypatch, fault):
    def refuse(*_):
        raise fault("no adapter")

    monkeypatch.setattr(onnx.version_converter, "convert_version", refuse)
    with pytest.raises(GraphError, match=r"is of opset 17 and cannot be raised to 19 \(no adapter\); export it with"):
        taken(graph_file)


def test_outputs_of_other_shapes_are_listed(tmp_path):
    path = pooled_heatmap_graph(tmp_path / "h.onnx", SMALL_HEATMAP)
    with pytest.raises(
        GraphError, match=r"must be 1 x 14 x 96, 1 x 14 x 128 .*outputs: heatmap float32 1 x 14 x 16 x 12"
    ):
        taken(path)


def test_a_file_larger_than_any_graph_is_not_read(graph_file, monkeypatch):
    from sdk.toolchain import graph_files

    monkeypatch.setattr(graph_files, "LARGEST_BYTES", 100)
    with pytest.raises(GraphError, match="must be at most 100"):
        taken(graph_file)
    with pytest.raises(GraphError, match="which no network does"):
        taken(zipped(graph_file, "end2end.onnx"))


def test_a_graph_that_cannot_be_simplified_is_refused(graph_file, monkeypatch):
    from sdk.toolchain import foreign

    def broken(_):
        raise AssertionError("no shape of 'pooled'\nat line 3")

    monkeypatch.setattr(foreign, "slim", broken)
    with pytest.raises(GraphError, match=r"cannot be simplified \(no shape of 'pooled'\); export it anew"):
        taken(graph_file)

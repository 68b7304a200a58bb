"""Graphs made elsewhere: taken in every form in which people have them, proved; the rest refused with reasons."""

import logging
import zipfile
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

import onnx
from onnx import TensorProto, helper

from sdk.errors import GraphError, UsageError
from sdk.recipe import DepthAxis
from sdk.skeletons import skeleton_by_name
from sdk.toolchain.conventions import CONVENTIONS, Told
from sdk.toolchain.foreign import graph_from_file, take
from sdk.toolchain.graphs import OPSET, graph_inputs, graph_outputs, graph_session, opset_of
from sdk.toolchain.limits import limited
from tests.support import foreign_forms as forms
from tests.support.engines import BODY14, SMALL, SMALL_HEATMAP, pooled_heatmap_graph, pooled_simcc_graph
from tests.support.foreign_forms import before, behind, changed, in_turn, rename
from tests.support.limited_work import ERRORS

HEIGHT, WIDTH = SMALL.input.size_hw
SQUARE = replace(SMALL, name="small-64x64", input=replace(SMALL.input, width=64))
UINT8 = TensorProto.UINT8


@pytest.fixture
def path(tmp_path):
    return pooled_simcc_graph(tmp_path / "small.onnx", SMALL)


def taken(path, recipe=SMALL, **told):
    return take(path, recipe, Told(**told))


def crops(count, recipe=SMALL):
    return np.random.default_rng(0).standard_normal((count, 3, *recipe.input.size_hw)).astype(np.float32)


def outputs_of(model, count=3, recipe=SMALL):
    return graph_session(model).run(None, {"input": crops(count, recipe)})


def assert_standard(model, recipe=SMALL, batch="batch"):
    assert [t.name for t in graph_inputs(model)] == ["input"]
    assert [t.name for t in graph_outputs(model)] == ["simcc_x", "simcc_y"]
    assert [t.shape for t in graph_outputs(model)] == [(batch, recipe.joints, bins) for bins in recipe.bins_xy]
    assert opset_of(model) in (19, 20)
    assert all(node.name for node in model.graph.node)


# A form -> (change of the plain graph, how far its logits may move in units of the largest, part of a note).
FORMS = {
    "as it is": (lambda model: None, 1e-5, "raised from opset 17 to 19"),
    "FP16, its input too": (forms.half, 3e-3, "widened to float32"),
    "FP16 inside": (forms.half_inside, 3e-3, "widened to float32"),
    "uint8": (before(forms.CAST, forms.SUB, forms.DIV, dtype=UINT8), 1e-5, "takes uint8 pixels, 0..255: normal"),
    "uint8, by 255 first": (
        before(forms.CAST, forms.BY_255, forms.SUB_UNIT, forms.DIV_UNIT, dtype=UINT8), 1e-4, "mean 123.675 116.28"
    ),
    "uint8, N x h x w x 3": (
        before(forms.CAST, forms.SUB_LAST, forms.DIV_LAST, forms.TO_NCHW, dtype=UINT8, shape=forms.NHWC), 1e-5,
        "takes N x h x w x 3",
    ),
    "uint8, turned to planes first": (
        before(forms.TO_NCHW, forms.CAST, forms.SUB, forms.DIV, dtype=UINT8, shape=forms.NHWC), 1e-5,
        "takes N x h x w x 3",
    ),
    "plain pixels": (before(forms.SUB, forms.DIV), 1e-5, "takes float32 pixels, 0..255"),
    "pixels of 0..1": (before(forms.SUB_UNIT, forms.DIV_UNIT), 1e-4, "takes float32 pixels, 0..1"),
    "N x h x w x 3": (before(forms.TO_NCHW, shape=forms.NHWC), 1e-5, "takes N x h x w x 3"),
    "softmax inside": (behind(forms.softmax), 1e-5, "softmax inside the graph taken out"),
    "softmax by hand": (behind(forms.softmax_by_hand), None, "their logarithms serve as logits"),
    "softmax, then turned": (behind(forms.softmax_then_turned), 1e-5, "softmax inside the graph taken out"),
    "outputs swapped": (forms.swap_outputs, 1e-5, ""),
    "other names": (
        forms.renamed({"input": "images", "simcc_x": "x_logits", "simcc_y": "y_logits"}), 1e-5, "found by shape"
    ),
    "mmdeploy's names": (forms.renamed({"simcc_x": "output", "simcc_y": "700"}), 1e-5, "simcc_y = '700'"),
    "the names swapped": (forms.renamed({"simcc_x": "simcc_y", "simcc_y": "simcc_x"}), 1e-5, "simcc_x = 'simcc_y'"),
    "the input called like an output": (
        forms.renamed({"input": "simcc_x", "simcc_x": "input", "simcc_y": "y"}), 1e-5, "simcc_x = 'input'"
    ),
    "joints first": (behind(forms.transposed(1, 0, 2)), 1e-5, "is turned to N x K x bins"),
    "bins before joints": (behind(forms.transposed(0, 2, 1)), 1e-5, "is turned to N x K x bins"),
    "an axis of one more": (behind(forms.unsqueezed, rank=4), 1e-5, "found by shape"),
    "an argmax beside": (behind(forms.argmax, rank=2, dtype=TensorProto.INT64, keep=True), 1e-5, ""),
    "decoded only": (
        behind(forms.argmax, rank=2, dtype=TensorProto.INT64), 1e-5, "decodes by itself: simcc_x, simcc_y are taken"
    ),
    "a batch of one": (forms.batch_of(1), 1e-5, "its batch of 1 is freed"),
    "a batch of four": (forms.batch_of(4), 1e-5, "its batch of 4 is freed"),
    "a batch of one squeezed away": (
        in_turn(forms.batch_of(1), behind(forms.squeezed, rank=2)), 1e-5, "batch of 1, baked into the graph, is freed"
    ),
    "all at once": (
        in_turn(
            before(forms.TO_NCHW, forms.CAST, forms.SUB, forms.DIV, dtype=UINT8, shape=(1, 64, 48, 3)),
            forms.batch_of(1), behind(forms.softmax_then_turned), forms.opset(22),
        ), 1e-5, "lowered from opset 22 to 20",
    ),
    **{f"opset {v}": (forms.opset(v), 1e-5, f"raised from opset {v} to 19") for v in (9, 11, 13, 18)},
    **{f"opset {v}": (forms.opset(v), 1e-5, "") for v in (19, 20)},
}  # fmt: skip


@pytest.mark.parametrize(("change", "distance", "note"), FORMS.values(), ids=FORMS)
def test_every_form_becomes_the_plain_graph(path, change, distance, note):
    expected = outputs_of(onnx.load(path))
    found = taken(changed(path, change))
    assert_standard(found.model)
    assert found.batch is None
    assert note in "; ".join(found.notes)
    assert found.recipe.input.mean == pytest.approx(SMALL.input.mean, rel=1e-3)
    for ours, theirs in zip(outputs_of(found.model), expected, strict=True):
        if distance is None:  # logarithms of probabilities: logits but for a number a row
            ours, theirs = (array - array.max(axis=-1, keepdims=True) for array in (ours, theirs))
        assert np.abs(ours - theirs).max() <= (distance or 1e-4) * np.abs(theirs).max()


@pytest.mark.parametrize("version", range(21, 27))
def test_newer_opsets_are_lowered_and_proved(path, version):
    if version > onnx.defs.onnx_opset_version():
        pytest.skip(f"the onnx package here knows no opset {version}")
    found = taken(changed(path, forms.opset(version)))
    assert opset_of(found.model) == 20
    assert found.model.ir_version == 9
    assert f"lowered from opset {version} to 20" in found.notes


def newer_operator(op, version, **attributes):
    def change(model):
        constants = [forms.constant(model, "gain", np.full(48, 2, np.float32))] if op == "RMSNormalization" else []
        rename(model, {"input": "body"})
        model.graph.input[0].name = "input"
        model.graph.node.insert(0, helper.make_node(op, ["input", *constants], ["body"], **attributes))
        forms.opset(version)(model)

    return change


@pytest.mark.parametrize(
    ("op", "version"), [("RMSNormalization", 23), ("RMSNormalization", 25), ("Swish", 24), ("Swish", 25)], ids=str
)
def test_operators_that_older_opsets_lack_are_written_out(path, op, version):
    if version > onnx.defs.onnx_opset_version():
        pytest.skip(f"the onnx package here knows no opset {version}")
    found = taken(changed(path, newer_operator(op, version)))
    assert opset_of(found.model) == 20
    assert op not in {node.op_type for node in found.model.graph.node}


TURNED = {
    "gathered": before(forms.GATHER_TURN, forms.SUB, forms.DIV),
    "sliced": before(forms.CAST, forms.SLICE_TURN, forms.SUB, forms.DIV, dtype=UINT8),
    "after the mean": before(forms.CAST, ("Sub", (forms.MEAN[::-1].reshape(3, 1, 1),), {}),
                             ("Div", (forms.STD[::-1].reshape(3, 1, 1),), {}), forms.GATHER_TURN, dtype=UINT8),
}  # fmt: skip


@pytest.mark.parametrize("change", TURNED.values(), ids=TURNED)
def test_colours_that_the_graph_turns_round_are_known_by_its_mean(path, change):
    """The recipe's network takes RGB; its file takes BGR and turns it, so the engine's crop gives BGR."""
    recipe = taken(changed(path, change)).recipe
    assert recipe.input.colour == "bgr"
    assert recipe.input.mean == pytest.approx(SMALL.input.mean[::-1], rel=1e-5)


def test_a_batch_normalisation_of_plain_pixels_stays_when_it_is_told(path):
    expected = outputs_of(onnx.load(path))
    found = taken(changed(path, batch_normalised), pixels="0..255")
    assert (found.recipe.input.mean, found.recipe.input.std) == ((0, 0, 0), (1, 1, 1))
    pixels = crops(3) * np.float32(forms.STD).reshape(3, 1, 1) + np.float32(forms.MEAN).reshape(3, 1, 1)
    for ours, theirs in zip(graph_session(found.model).run(None, {"input": pixels}), expected, strict=True):
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_scores_of_probabilities_are_those_that_the_graph_gave(path):
    """min_logit on probabilities is min_softmax on the logits behind them; their mean is no rule of ours."""
    changed(path, behind(forms.softmax))
    found = taken(path)
    assert found.recipe.output.score == "min_softmax"
    assert "scores are min_softmax: min_logit on the probabilities that the graph gave" in found.notes
    mean = replace(SMALL, output=replace(SMALL.output, score="mean_logit"))
    with pytest.raises(GraphError, match=r"no score rule is their mean .* give --score min_softmax"):
        taken(path, mean)
    assert taken(path, mean, score="min_softmax").recipe.output.score == "min_softmax"


def test_crops_that_see_each_other_run_one_after_another(path, caplog):
    found = taken(changed(path, forms.mixes_the_batch))
    assert found.batch == 1
    assert_standard(found.model, batch=1)
    assert caplog.records[-1].levelname == "WARNING"
    assert "one crop after another: the graph runs with a batch of 1 only (node" in found.notes[-1]


def test_outputs_of_one_shape_keep_their_order_and_that_is_told(tmp_path, caplog):
    path = pooled_simcc_graph(tmp_path / "square.onnx", SQUARE)
    expected = outputs_of(onnx.load(path), recipe=SQUARE)
    changed(path, lambda model: rename(model, {"simcc_x": "first", "simcc_y": "second"}))
    found = taken(path, SQUARE)
    assert "taken in their order, x first (simcc_x = 'first', simcc_y = 'second'); --outputs" in caplog.text
    for ours, theirs in zip(outputs_of(found.model, recipe=SQUARE), expected, strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)
    for ours, theirs in zip(
        outputs_of(taken(path, SQUARE, outputs=("second", "first")).model, recipe=SQUARE), expected[::-1], strict=True
    ):
        assert np.allclose(ours, theirs, atol=1e-5)


def test_outputs_of_one_shape_are_told_apart_by_an_x_and_a_y_in_their_names(tmp_path):
    path = pooled_simcc_graph(tmp_path / "square.onnx", SQUARE)
    expected = outputs_of(onnx.load(path), recipe=SQUARE)
    changed(
        path, in_turn(forms.swap_outputs, lambda model: rename(model, {"simcc_x": "head/x", "simcc_y": "head/y:0"}))
    )
    for ours, theirs in zip(outputs_of(taken(path, SQUARE).model, recipe=SQUARE), expected, strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)


def test_names_of_the_recipe_are_used_when_it_names_the_files(path):
    recipe = replace(SMALL, output=replace(SMALL.output, x_name="u", y_name="v"))
    changed(path, lambda model: rename(model, {"simcc_x": "u", "simcc_y": "v"}))
    assert [t.name for t in graph_outputs(taken(path, recipe).model)] == ["u", "v"]


def test_a_tensor_inside_the_graph_may_be_named(path):
    def hide(model):
        for value in model.graph.output:
            model.graph.node.append(helper.make_node("Relu", [value.name], [f"{value.name}_relu"]))
            value.name += "_relu"

    expected = outputs_of(onnx.load(path))
    found = taken(changed(path, hide), outputs=("simcc_x", "simcc_y"))
    for ours, theirs in zip(outputs_of(found.model), expected, strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)


def test_outputs_that_nobody_needs_are_dropped(path):
    def add(model):
        model.graph.node.append(helper.make_node("Relu", ["flat"], ["features"]))
        model.graph.output.insert(0, helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, None]))

    model = taken(changed(path, add)).model
    assert_standard(model)
    assert not any(node.op_type == "Relu" for node in model.graph.node)


def test_a_heatmap_recipe_takes_a_heatmap_graph(tmp_path):
    model = taken(pooled_heatmap_graph(tmp_path / "h.onnx", SMALL_HEATMAP), SMALL_HEATMAP).model
    assert [t.shape for t in graph_outputs(model)] == [("batch", SMALL.joints, HEIGHT // 4, WIDTH // 4)]


def test_sizes_and_batch_that_a_file_leaves_open_are_filled_in(path):
    def open_up(model):
        for value in (*model.graph.input, *model.graph.output):
            for dim in value.type.tensor_type.shape.dim:
                dim.Clear()

    model = taken(changed(path, open_up)).model
    assert graph_inputs(model)[0].shape == ("batch", 3, HEIGHT, WIDTH)
    assert_standard(model)


def test_external_data_beside_the_file_is_read_in(path):
    expected = outputs_of(onnx.load(path))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = taken(path).model
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
    assert_standard(taken(archive).model)
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


def quantised(model):
    scale = forms.constant(model, "scale", np.float32(0.1))
    node = next(n for n in model.graph.node if n.op_type == "Flatten")
    model.graph.node.insert(1, helper.make_node("QuantizeLinear", ["pooled", scale], ["q"], name="q_pooled"))
    model.graph.node.insert(2, helper.make_node("DequantizeLinear", ["q", scale], ["d"]))
    node.input[0] = "d"


def branch(op):
    """A node that holds graphs of its own. What it would do is nothing: it must not come to that."""

    def change(model):
        inner = helper.make_graph([helper.make_node("Identity", ["simcc_x"], ["inner"])], "inner", [], [
            helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)])  # fmt: skip
        keys = {"If": ("then_branch", "else_branch")}.get(op, ("body",))
        more = {"num_scan_inputs": 1} if op == "Scan" else {}
        forms.constant(model, "condition", np.array(True))
        model.graph.node.append(
            helper.make_node(op, ["condition"], ["out"], name="bend", **dict.fromkeys(keys, inner), **more)
        )

    return change


def batch_normalised(model):
    """Normalisation of plain pixels as an operator with weights."""
    constants = [np.ones(3, np.float32), np.zeros(3, np.float32), forms.MEAN, forms.STD**2]
    before(("BatchNormalization", constants, {"epsilon": 0.0}))(model)


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
def test_what_is_no_graph_of_the_recipe_is_refused(path, spoil, message):
    with pytest.raises(GraphError, match=message):
        taken(spoil(path))


@pytest.mark.parametrize("fault", [RuntimeError, onnx.version_converter.ConvertError], ids=lambda fault: fault.__name__)
def test_an_opset_that_cannot_be_raised_is_told(path, monkeypatch, fault):
    def refuse(*_):
        raise fault("no adapter")

    monkeypatch.setattr(onnx.version_converter, "convert_version", refuse)
    with pytest.raises(GraphError, match=r"is of opset 17 and cannot be raised to 19 \(no adapter\); export it with"):
        taken(path)


def test_outputs_of_other_shapes_are_listed(tmp_path):
    path = pooled_heatmap_graph(tmp_path / "h.onnx", SMALL_HEATMAP)
    with pytest.raises(
        GraphError, match=r"must be 1 x 14 x 96, 1 x 14 x 128 .*outputs: heatmap float32 1 x 14 x 16 x 12"
    ):
        taken(path)


def test_a_file_larger_than_any_graph_is_not_read(path, monkeypatch):
    from sdk.toolchain import graph_files

    monkeypatch.setattr(graph_files, "LARGEST_BYTES", 100)
    with pytest.raises(GraphError, match="must be at most 100"):
        taken(path)
    with pytest.raises(GraphError, match="which no network does"):
        taken(zipped(path, "end2end.onnx"))


def test_a_graph_that_cannot_be_simplified_is_refused(path, monkeypatch):
    from sdk.toolchain import foreign

    def broken(_):
        raise AssertionError("no shape of 'pooled'\nat line 3")

    monkeypatch.setattr(foreign, "slim", broken)
    with pytest.raises(GraphError, match=r"cannot be simplified \(no shape of 'pooled'\); export it anew"):
        taken(path)


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
    model = taken(path, recipe).model
    assert opset_of(model) == OPSET
    with torch.no_grad():
        expected = network(torch.from_numpy(crops(2, recipe)))
    for ours, theirs in zip(outputs_of(model, 2, recipe), expected, strict=True):
        assert np.abs(ours - theirs.numpy()).max() <= 1e-4 * theirs.abs().max().item()


@pytest.mark.data
def test_a_network_trained_elsewhere_is_read(shared):
    model = taken(shared / "models" / "body14-lspet-128x128.onnx", BODY14).model
    assert_standard(model, BODY14)


# Conventions, and what lies beside a graph.

SKELETON = SMALL.skeleton


def test_a_graph_without_a_recipe_asks_for_what_it_does_not_say(path):
    with pytest.raises(
        GraphError, match=r"does not say --mean, --std, --colour, --padding, --score .*--convention mmp"
    ):
        taken(path, None)
    with pytest.raises(GraphError, match=r"has 14 joints and does not name them: give --skeleton NAME .*crowdpose14"):
        taken(path, None, convention="mmpose")
    with pytest.raises(GraphError, match="has 14 joints, skeleton 'coco17' 17"):
        taken(path, None, convention="mmpose", skeleton=skeleton_by_name("coco17"))


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_convention_makes_the_recipe_with_the_graph(path, name):
    found, convention = taken(path, None, convention=name, skeleton=SKELETON), CONVENTIONS[name]
    recipe = found.recipe
    assert (recipe.name, recipe.skeleton, recipe.bins_xy) == ("small-64x48", SKELETON, SMALL.bins_xy)
    assert (recipe.input.mean, recipe.input.colour, recipe.input.box_padding) == (
        convention.mean, convention.colour, convention.padding
    )  # fmt: skip
    assert recipe.output.score == convention.score
    assert f"score {convention.score} (convention {name})" in found.notes[0]
    assert "14 joints, split ratio 2 (the graph)" in found.notes[0]


def test_what_is_told_goes_before_a_convention_and_a_recipe(path):
    told = {"padding": 1.1, "colour": "bgr", "score": "mean_logit", "mean": (1.0, 2.0, 3.0)}
    for found in (taken(path, None, convention="mmpose", skeleton=SKELETON, **told), taken(path, SMALL, **told)):
        recipe = found.recipe
        assert (recipe.input.box_padding, recipe.input.colour, recipe.input.mean) == (1.1, "bgr", (1.0, 2.0, 3.0))
        assert recipe.output.score == "mean_logit"
        assert "told" in found.notes[0]
    with pytest.raises(UsageError, match="leave RECIPE or those options out"):
        taken(path, SMALL, convention="mmpose")


def test_a_graph_that_leaves_its_size_open_asks_for_it(path):
    def open_up(model):
        for dim in model.graph.input[0].type.tensor_type.shape.dim:
            dim.Clear()

    changed(path, open_up)
    with pytest.raises(GraphError, match="give --size HxW or a RECIPE"):
        taken(path, None, convention="mmpose", skeleton=SKELETON)
    found = taken(path, None, convention="mmpose", skeleton=SKELETON, size_hw=(64, 48))
    assert found.recipe.name == "small-64x48"


DEPLOYED = {"a folder": forms.deploy_folder, "a zip": forms.deploy_zip}


@pytest.mark.parametrize("deploy", DEPLOYED.values(), ids=DEPLOYED)
def test_deploy_files_say_what_the_graph_does_not(path, tmp_path, deploy):
    said = {
        "padding": 1.4, "mean": [10, 20, 30], "std": [40, 50, 60], "to_rgb": False,
        "output_map": {"output": "simcc_x", "700": "simcc_y"},
        "more": {"flip_pairs": [[1, 0], *SKELETON.flip_pairs[1:]]},
    }  # fmt: skip
    changed(path, lambda model: rename(model, {"simcc_x": "output", "simcc_y": "700"}))
    place = deploy(tmp_path / "rtmpose.zip", path, SMALL, **said)
    found = taken(place, None, skeleton=SKELETON)
    source = found.recipe.input
    assert (source.box_padding, source.mean, source.std, source.colour) == (1.4, (10, 20, 30), (40, 50, 60), "bgr")
    assert (found.recipe.output.score, found.recipe.name) == ("min_logit", "end2end-64x48")
    assert found.recipe.source == "mmpose 1.3.1 rtmpose-t.py"
    assert "padding 1.4, split ratio 2.0, flip pairs (0, 1) (2, 3)" in found.notes[0]
    assert "outputs named by pipeline.json" in found.notes


def test_files_beside_an_onnx_file_are_read_when_they_are_its_own(path, tmp_path):
    folder = forms.deploy_folder(tmp_path / "deployed", path, SMALL, padding=1.4)
    assert taken(folder / "end2end.onnx", None, skeleton=SKELETON).recipe.input.box_padding == 1.4
    (folder / "end2end.onnx").rename(folder / "other.onnx")
    assert taken(folder / "other.onnx").recipe == SMALL  # detail.json is of another file


DEPLOY_REFUSED = {
    "padding": ({"padding": 1.0}, r"pipeline.json beside it says padding 1, recipe 'small-64x48' 1.25; take another"),
    "mean": ({"mean": [1, 2, 3]}, "says mean 1 2 3, recipe"),
    "colour": ({"to_rgb": False}, "says colour bgr, recipe 'small-64x48' rgb"),
    "split ratio": ({"simcc_split_ratio": 3.0}, "says split ratio 3, recipe 'small-64x48' 2"),
    "flip pairs": ({"more": {"flip_indices": [1, 0, 2]}}, "says flip pairs 0 1, recipe"),
    "a UDP crop": ({"use_udp": True}, "'use_udp' is set, and the SDK crops without it"),
    "not numbers": ({"mean": "imagenet"}, r"pipeline.json: 'mean' must be 3 numbers \(got 'imagenet'\)"),
    "not a number": ({"padding": "1.25"}, r"'padding' must be a number \(got '1.25'\)"),
}


@pytest.mark.parametrize(("said", "message"), DEPLOY_REFUSED.values(), ids=DEPLOY_REFUSED)
def test_deploy_files_that_contradict_the_recipe_are_refused(path, tmp_path, said, message):
    with pytest.raises(GraphError, match=message):
        taken(forms.deploy_folder(tmp_path / "d", path, SMALL, **said))


def test_damaged_deploy_files_are_told(path, tmp_path):
    folder = forms.deploy_folder(tmp_path / "d", path, SMALL)
    (folder / "pipeline.json").write_text("{")
    with pytest.raises(GraphError, match=r"pipeline\.json"):
        taken(folder)


# The child process.


def test_a_graph_is_taken_in_a_child_process_as_in_this_one(path, caplog):
    caplog.set_level(logging.INFO, logger="sdk")
    changed(path, in_turn(forms.batch_of(1), behind(forms.softmax)))
    here, there = taken(path), graph_from_file(path, SMALL)
    assert there.model == here.model
    assert (there.recipe, there.batch, there.notes) == (here.recipe, here.batch, here.notes)
    assert caplog.text.count("softmax inside the graph taken out") == 2  # the child's log is ours


def test_errors_of_the_child_are_ours(path):
    with pytest.raises(GraphError, match="holds a branch or a loop"):
        graph_from_file(changed(path, branch("Loop")), SMALL)


def test_a_graph_that_needs_more_memory_than_its_limit_is_told(path, monkeypatch):
    from sdk.toolchain import limits

    monkeypatch.setattr(limits, "MEMORY_BYTES", 100 << 20)  # the packages alone need more
    monkeypatch.setattr(limits, "MEMORY_FACTOR", 0)
    with pytest.raises(GraphError, match=r"small.onnx' ended the process that read it, which had 0 GiB of memory"):
        graph_from_file(path, SMALL)


@pytest.mark.parametrize("error", ERRORS)
def test_a_want_of_memory_that_is_told_as_a_fault_of_the_graph_is_still_one_of_memory(error):
    with pytest.raises(GraphError, match=r"'a.onnx' ended the process that read it, .* GiB of memory"):
        limited("tests.support.limited_work", "lacks_memory", {"error": error}, subject="'a.onnx'", size=0)


def test_a_graph_that_takes_longer_than_its_limit_is_told(path, monkeypatch):
    from sdk.toolchain import limits

    monkeypatch.setattr(limits, "TIME_S", 0.05)
    with pytest.raises(GraphError, match=r"small.onnx' cannot be worked on within 0.05 seconds"):
        graph_from_file(path, SMALL)


def test_a_third_axis_is_taken_too_and_dropped_where_no_recipe_asks_for_it(tmp_path):
    depth = DepthAxis(bins=80, span=1.0, unit="m", root=SMALL.skeleton.joints[:1])
    deep = replace(SMALL, output=replace(SMALL.output, depth=depth))
    path = pooled_simcc_graph(tmp_path / "deep.onnx", deep)
    changed(path, in_turn(forms.batch_of(1), behind(forms.transposed(1, 0, 2))))
    found = taken(path, deep)
    assert [t.shape for t in graph_outputs(found.model)] == [("batch", 14, bins) for bins in (96, 128, 80)]
    assert "outputs that nothing needs are dropped: simcc_z_out" in taken(path).notes

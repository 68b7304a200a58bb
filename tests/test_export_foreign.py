"""Graphs made elsewhere: taken in every form in which people have them, and proved."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

import onnx
from onnx import TensorProto, helper

from sdk.errors import GraphError
from sdk.recipe import DepthAxis
from sdk.toolchain.graphs import OPSET, graph_inputs, graph_outputs, graph_session, opset_of
from tests.support import foreign_forms as forms
from tests.support.engines import BODY14, SMALL, SMALL_HEATMAP, pooled_heatmap_graph, pooled_simcc_graph
from tests.support.foreign_forms import before, behind, changed, in_turn, rename
from tests.support.foreign_graphs import assert_standard, batch_normalised, crops, outputs_of, taken

HEIGHT, WIDTH = SMALL.input.size_hw
SQUARE = replace(SMALL, name="small-64x64", input=replace(SMALL.input, width=64))
UINT8 = TensorProto.UINT8


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
def test_every_form_becomes_the_plain_graph(graph_file, change, distance, note):
    expected = outputs_of(onnx.load(graph_file))
    found = taken(changed(graph_file, change))
    assert_standard(found.model)
    assert found.batch is None
    assert note in "; ".join(found.notes)
    assert found.recipe.input.mean == pytest.approx(SMALL.input.mean, rel=1e-3)
    for ours, theirs in zip(outputs_of(found.model), expected, strict=True):
        if distance is None:  # logarithms of probabilities: logits but for a number a row
            ours, theirs = (array - array.max(axis=-1, keepdims=True) for array in (ours, theirs))
        assert np.abs(ours - theirs).max() <= (distance or 1e-4) * np.abs(theirs).max()


@pytest.mark.parametrize("version", range(21, 27))
def test_newer_opsets_are_lowered_and_proved(graph_file, version):
    if version > onnx.defs.onnx_opset_version():
        pytest.skip(f"the onnx package here knows no opset {version}")
    found = taken(changed(graph_file, forms.opset(version)))
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
def test_operators_that_older_opsets_lack_are_written_out(graph_file, op, version):
    if version > onnx.defs.onnx_opset_version():
        pytest.skip(f"the onnx package here knows no opset {version}")
    found = taken(changed(graph_file, newer_operator(op, version)))
    assert opset_of(found.model) == 20
    assert op not in {node.op_type for node in found.model.graph.node}


TURNED = {
    "gathered": before(forms.GATHER_TURN, forms.SUB, forms.DIV),
    "sliced": before(forms.CAST, forms.SLICE_TURN, forms.SUB, forms.DIV, dtype=UINT8),
    "after the mean": before(forms.CAST, ("Sub", (forms.MEAN[::-1].reshape(3, 1, 1),), {}),
                             ("Div", (forms.STD[::-1].reshape(3, 1, 1),), {}), forms.GATHER_TURN, dtype=UINT8),
}  # fmt: skip


@pytest.mark.parametrize("change", TURNED.values(), ids=TURNED)
def test_colours_that_the_graph_turns_round_are_known_by_its_mean(graph_file, change):
    """The recipe's network takes RGB; its file takes BGR and turns it, so the engine's crop gives BGR."""
    recipe = taken(changed(graph_file, change)).recipe
    assert recipe.input.colour == "bgr"
    assert recipe.input.mean == pytest.approx(SMALL.input.mean[::-1], rel=1e-5)


def test_a_batch_normalisation_of_plain_pixels_stays_when_it_is_told(graph_file):
    expected = outputs_of(onnx.load(graph_file))
    found = taken(changed(graph_file, batch_normalised), pixels="0..255")
    assert (found.recipe.input.mean, found.recipe.input.std) == ((0, 0, 0), (1, 1, 1))
    pixels = crops(3) * np.float32(forms.STD).reshape(3, 1, 1) + np.float32(forms.MEAN).reshape(3, 1, 1)
    for ours, theirs in zip(graph_session(found.model).run(None, {"input": pixels}), expected, strict=True):
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_scores_of_probabilities_are_those_that_the_graph_gave(graph_file):
    """min_logit on probabilities is min_softmax on the logits behind them; their mean is no rule of ours."""
    changed(graph_file, behind(forms.softmax))
    found = taken(graph_file)
    assert found.recipe.output.score == "min_softmax"
    assert "scores are min_softmax: min_logit on the probabilities that the graph gave" in found.notes
    mean = replace(SMALL, output=replace(SMALL.output, score="mean_logit"))
    with pytest.raises(GraphError, match=r"no score rule is their mean .* give --score min_softmax"):
        taken(graph_file, mean)
    assert taken(graph_file, mean, score="min_softmax").recipe.output.score == "min_softmax"


def test_crops_that_see_each_other_run_one_after_another(graph_file, caplog):
    found = taken(changed(graph_file, forms.mixes_the_batch))
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


def test_names_of_the_recipe_are_used_when_it_names_the_files(graph_file):
    recipe = replace(SMALL, output=replace(SMALL.output, x_name="u", y_name="v"))
    changed(graph_file, lambda model: rename(model, {"simcc_x": "u", "simcc_y": "v"}))
    assert [t.name for t in graph_outputs(taken(graph_file, recipe).model)] == ["u", "v"]


def test_a_tensor_inside_the_graph_may_be_named(graph_file):
    def hide(model):
        for value in model.graph.output:
            model.graph.node.append(helper.make_node("Relu", [value.name], [f"{value.name}_relu"]))
            value.name += "_relu"

    expected = outputs_of(onnx.load(graph_file))
    found = taken(changed(graph_file, hide), outputs=("simcc_x", "simcc_y"))
    for ours, theirs in zip(outputs_of(found.model), expected, strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)


def test_outputs_that_nobody_needs_are_dropped(graph_file):
    def add(model):
        model.graph.node.append(helper.make_node("Relu", ["flat"], ["features"]))
        model.graph.output.insert(0, helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, None]))

    model = taken(changed(graph_file, add)).model
    assert_standard(model)
    assert not any(node.op_type == "Relu" for node in model.graph.node)


def test_a_heatmap_recipe_takes_a_heatmap_graph(tmp_path):
    model = taken(pooled_heatmap_graph(tmp_path / "h.onnx", SMALL_HEATMAP), SMALL_HEATMAP).model
    assert [t.shape for t in graph_outputs(model)] == [("batch", SMALL.joints, HEIGHT // 4, WIDTH // 4)]


def test_sizes_and_batch_that_a_file_leaves_open_are_filled_in(graph_file):
    def open_up(model):
        for value in (*model.graph.input, *model.graph.output):
            for dim in value.type.tensor_type.shape.dim:
                dim.Clear()

    model = taken(changed(graph_file, open_up)).model
    assert graph_inputs(model)[0].shape == ("batch", 3, HEIGHT, WIDTH)
    assert_standard(model)


def test_external_data_beside_the_file_is_read_in(graph_file):
    expected = outputs_of(onnx.load(graph_file))
    onnx.save(onnx.load(graph_file), graph_file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = taken(graph_file).model
    assert all(t.data_location != TensorProto.EXTERNAL for t in model.graph.initializer)
    assert np.allclose(outputs_of(model)[0], expected[0], atol=1e-5)


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


def test_a_third_axis_is_taken_too_and_dropped_where_no_recipe_asks_for_it(tmp_path):
    depth = DepthAxis(bins=80, span=1.0, unit="m", root=SMALL.skeleton.joints[:1])
    deep = replace(SMALL, output=replace(SMALL.output, depth=depth))
    path = pooled_simcc_graph(tmp_path / "deep.onnx", deep)
    changed(path, in_turn(forms.batch_of(1), behind(forms.transposed(1, 0, 2))))
    found = taken(path, deep)
    assert [t.shape for t in graph_outputs(found.model)] == [("batch", 14, bins) for bins in (96, 128, 80)]
    assert "outputs that nothing needs are dropped: simcc_z_out" in taken(path).notes

"""From a network to a graph: one network of each family exports, agrees with torch, and compiles in fp32 and fp16."""

import json
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("torch")
pytest.importorskip("sdk._native")

import torch

from sdk import trt
from sdk.errors import DatasetError, GraphError, InputError, OutputError, RecipeError
from sdk.networks import network_from_recipe, random_weights
from sdk.recipe import recipe_by_name
from sdk.recipe_networks import CSPNeXt, Pafpn, RtmwHead
from sdk.toolchain.comparison import comparison_crops, keypoint_distance
from sdk.toolchain.export import (
    check_graph,
    graph_from_network,
    graph_from_recipe,
    recipe_from_graph,
    write_graph,
)
from sdk.toolchain.graphs import (
    OPSET,
    array_of,
    graph_inputs,
    graph_outputs,
    graph_session,
    initializers,
    opset_of,
    serialized,
)
from sdk.toolchain.placement import PROTECTED, placement_of
from sdk.toolchain.precision import fp16_graph_from_graph, layer_precisions
from tests.support.full_disk import full_disk
from tests.support.networks import recipe_of

pytestmark = [pytest.mark.torch, pytest.mark.native]

FAMILIES = (
    "body14-nano-128x128",
    "hrnet-w32-64x64",
    "mmpose-simcc-mobilenetv2-256x192",
    "rtmpose-t-256x192",
    "simba-r50-deconv-64x64",
    "simba-r50-heatmap-64x64",
    "simba-r50-upfree-64x64",
    "tokenpose-s-64x64",
    "tokenpose-s-v1-heatmap-256x192",
    "rtmw3d-tiny-64x64",
)
# The smallest network of RTMW's kind, with three axes: of the catalogue's, each takes half a minute here
SPECIAL = {
    "rtmw3d-tiny-64x64": recipe_of(
        CSPNeXt("cspnext", 0.167, 0.375), RtmwHead("rtmw", 7, 64, 32, 2), (64, 64), neck=Pafpn("pafpn", 1),
        joints=21, bins_z=96,
    )
}  # fmt: skip
SMALLEST = "body14-nano-128x128"
needs_rtx = pytest.mark.skipif(
    trt.flavour("tensorrt-rtx").problem is not None, reason="needs tensorrt-rtx: it compiles anywhere"
)


def made(name):
    """(recipe, network with random weights, its graph)."""
    recipe = SPECIAL.get(name) or recipe_by_name(name)
    network = network_from_recipe(recipe)
    random_weights(network, 0)
    return recipe, network, graph_from_network(network, recipe)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return made(request.param)


@pytest.fixture(scope="module")
def smallest():
    return made(SMALLEST)


def test_one_network_of_each_family_exports(family):
    recipe, network, model = family
    assert [t.name for t in graph_inputs(model)] == [recipe.input.name]
    assert graph_inputs(model)[0].shape == ("batch", 3, *recipe.input.size_hw)
    assert [t.name for t in graph_outputs(model)] == list(recipe.output.names)
    assert opset_of(model) == OPSET
    assert check_graph(model, network, recipe, comparison_crops(recipe)) <= 0.05
    kinds = Counter(node.op_type for node in model.graph.node)
    assert not kinds.keys() & {"BatchNormalization", "Identity", "Constant", "If"}
    assert kinds["Shape"] <= 1, "of the batch alone: TokenPose repeats its tokens"
    convolutions = [node.name for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    assert all(name.startswith(("/backbone/", "/neck/", "/head/")) for name in convolutions), "module paths are kept"


def test_the_last_convolutions_before_a_gated_head_stay_float(family):
    """RTMW has two, of two strides."""
    recipe, _, model = family
    floats = placement_of(model).floats
    last = [name for name, reason in floats.items() if reason == PROTECTED["last_conv"]]
    expected = {"gau": ["/head/final/Conv"], "rtmw": ["/head/final/conv/Conv", "/head/final_fine/conv/Conv"]}
    assert last == expected.get(recipe.network.head.kind, last)


def test_one_network_of_each_family_is_typed_fp16(family):
    recipe, _, model = family
    typed = fp16_graph_from_graph(model)
    precisions = layer_precisions(typed)
    convolutions = [n for n in typed.graph.node if n.op_type in ("Conv", "ConvTranspose")]
    assert {precisions[node.name] for node in convolutions} == {"fp16"}
    noise = np.random.default_rng(0).standard_normal((3, 3, *recipe.input.size_hw)).astype(np.float32)
    for ours, theirs in zip(*(graph_session(m).run(None, {"input": noise}) for m in (typed, model)), strict=True):
        assert ours.dtype == np.float32
        assert np.abs(ours - theirs).max() <= 0.01 * np.abs(theirs).max()


@needs_rtx
def test_one_network_of_each_family_compiles(family):
    recipe, _, model = family
    settings = trt.BuildSettings({"input": tuple((count, 3, *recipe.input.size_hw) for count in (1, 4, 16))})
    sizes = [
        len(trt.build_plan("tensorrt-rtx", serialized(graph), settings).plan)
        for graph in (model, fp16_graph_from_graph(model))
    ]
    weights = sum(array_of(tensor).nbytes for tensor in initializers(model).values())
    assert sizes[0] > weights
    assert sizes[1] < 0.8 * sizes[0]


def test_the_same_network_gives_the_same_bytes(smallest):
    recipe, network, model = smallest
    assert serialized(graph_from_network(network, recipe)) == serialized(model)


def test_the_file_carries_its_recipe(smallest, tmp_path):
    recipe, _, model = smallest
    write_graph(model, tmp_path / "g.onnx")
    assert recipe_from_graph(tmp_path / "g.onnx") == recipe
    assert [path.name for path in tmp_path.iterdir()] == ["g.onnx"]


def test_a_graph_that_differs_is_refused_and_told_by_how_much(smallest):
    recipe, network, model = smallest
    other = type(model)()
    other.CopyFrom(model)
    import onnx

    for tensor in other.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 4:
            noise = np.random.default_rng(0).standard_normal(tuple(tensor.dims)).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(noise * array_of(tensor).std(), tensor.name))
    crops = comparison_crops(recipe)
    with pytest.raises(GraphError, match=r"4 rendered figures .*must be at most 0.05 px \(got \d+\.\d+\)"):
        check_graph(other, network, recipe, crops)


def test_outputs_that_are_not_numbers_are_refused(smallest):
    import onnx

    recipe, network, model = smallest
    other = type(model)()
    other.CopyFrom(model)
    tensor = next(t for t in other.graph.initializer if len(t.dims) == 4)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(tensor.dims), np.nan, np.float32), tensor.name))
    with pytest.raises(GraphError, match="differs from its network"):
        check_graph(other, network, recipe, comparison_crops(recipe))


def test_a_full_disk_leaves_no_half_graph(smallest, tmp_path):
    with full_disk(), pytest.raises(OutputError, match=r"g.onnx' cannot be written \(File too large\)"):
        write_graph(smallest[2], tmp_path / "g.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_may_go_into_a_new_folder(smallest, tmp_path):
    write_graph(smallest[2], tmp_path / "new" / "g.onnx")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["g.onnx"]


def test_a_recipe_without_released_weights_asks_for_some():
    with pytest.raises(InputError, match="names no released weights; give --weights FILE, or --weights random"):
        graph_from_recipe(recipe_by_name("hrnet-w32-64x64"))


def test_random_weights_are_noted_with_their_seed():
    _, note = graph_from_recipe(recipe_by_name(SMALLEST), random_seed=7)
    assert (note.kind, note.source, note.sha256) == ("random", "seed 7", None)


def test_a_checkpoint_is_noted_with_its_hash(tmp_path):
    import hashlib

    recipe = recipe_by_name(SMALLEST)
    network = network_from_recipe(recipe)
    random_weights(network, 3)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    model, note = graph_from_recipe(recipe, weights=tmp_path / "mine.pth")
    assert (note.kind, note.source) == ("checkpoint", "mine.pth")
    assert note.sha256 == hashlib.sha256((tmp_path / "mine.pth").read_bytes()).hexdigest()
    assert serialized(model) == serialized(graph_from_recipe(recipe, random_seed=3)[0])


def test_rendered_figures_are_pictures_and_always_the_same():
    recipe = recipe_by_name(SMALLEST)
    one, other = comparison_crops(recipe), comparison_crops(recipe)
    assert np.array_equal(one.crops, other.crops)
    assert one.crops.shape == (4, 3, 128, 128)
    assert one.crops.std() > 0.3
    assert "rendered" in one.source


@pytest.mark.data
def test_photographs_are_used_when_given(shared):
    recipe = recipe_by_name(SMALLEST)
    found = comparison_crops(recipe, shared / "data" / "lspet")
    assert found.crops.shape == (16, 3, 128, 128)
    assert found.source.startswith("16 photographs of")


@pytest.mark.parametrize("content", [None, "text"], ids=["empty folder", "an unreadable image"])
def test_images_that_are_none_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "a.jpg").write_text(content)
    with pytest.raises(
        DatasetError, match="must be a folder with photographs" if content is None else "cannot be read"
    ):
        comparison_crops(recipe_by_name(SMALLEST), tmp_path)


def test_distances_are_in_crop_pixels():
    recipe = recipe_by_name(SMALLEST)
    bins_x, bins_y = recipe.bins_xy
    x, y = np.zeros((1, recipe.joints, bins_x), np.float32), np.zeros((1, recipe.joints, bins_y), np.float32)
    moved_x, moved_y = x.copy(), y.copy()
    x[..., 10], y[..., 10] = 1, 1
    moved_x[..., 16], moved_y[..., 18] = 1, 1
    expected = 10 / recipe.output.split_ratio
    assert keypoint_distance((moved_x, moved_y), (x, y), recipe) == pytest.approx(expected)
    heat = recipe_by_name("simba-r50-heatmap-64x64")
    one, other = np.zeros((2, 1, heat.joints, 16, 16), np.float32)
    one[..., 2, 3], other[..., 2, 5] = 1, 1
    assert keypoint_distance((one,), (other,), heat) == pytest.approx(8)


NAMED_TO_LEAVE = {**recipe_by_name(SMALLEST).to_table(), "name": "../elsewhere-128x128"}


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ('{"name": ', GraphError, "the recipe in its metadata is not JSON"),
        ("5", RecipeError, r"g.onnx': recipe in its metadata: must be a table \(got 5, a whole number\)"),
        ("[1]", RecipeError, r"must be a table \(got \[1\], a list\)"),
        ("null", RecipeError, r"must be a table \(got nothing\)"),
        ('"x"', RecipeError, r"must be a table \(got 'x', a text\)"),
        (json.dumps(NAMED_TO_LEAVE), RecipeError, r"name must be of A-Z, .* \(got '\.\./elsewhere-128x128'\)"),
    ],
    ids=["cut", "number", "list", "null", "text", "a name that leaves the folder"],
)
def test_a_damaged_recipe_in_a_file_is_told(smallest, tmp_path, value, error, message):
    _, _, model = smallest
    other = type(model)()
    other.CopyFrom(model)
    other.metadata_props[0].value = value
    write_graph(other, tmp_path / "g.onnx")
    with pytest.raises(error, match=message):
        recipe_from_graph(tmp_path / "g.onnx")

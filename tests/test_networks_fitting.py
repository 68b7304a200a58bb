"""What a checkpoint's keys and shapes say of its network, without a recipe."""

import pytest

from sdk.networks import network_from_recipe
from sdk.networks.fitting import found_in_shapes, layout_of_keys, nearest_recipe
from sdk.recipe import catalogue
from sdk.recipe_networks import LinearSimccHead, ResNet
from tests.support.networks import recipe_of

pytestmark = pytest.mark.torch

CATALOGUE = catalogue()


def shapes_of(recipe):
    import torch

    with torch.device("meta"):
        state = network_from_recipe(recipe).state_dict()
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_network_is_known_by_its_shapes(name):
    recipe = CATALOGUE[name]
    simcc = recipe.output.kind == "simcc" and recipe.network.head.kind != "marginal"
    for size_hw in (None, recipe.input.size_hw):
        found = found_in_shapes(shapes_of(recipe), size_hw)
        assert (found.network, found.joints) == (recipe.network, recipe.joints)
        assert found.bins_xy == (recipe.bins_xy if simcc else None)
        assert found.bins_z == (recipe.output.depth.bins if recipe.output.depth is not None else None)
        assert found.size_hw == (recipe.input.size_hw if simcc else size_hw)
        assert found.split_ratio == (recipe.output.split_ratio if simcc else None)
    nearest, differing = nearest_recipe(found, CATALOGUE)
    assert differing == ()
    assert CATALOGUE[nearest].network == recipe.network


@pytest.mark.parametrize(
    ("keys", "layout"),
    [
        (["conv1.weight", "final_layer.weight", "mlp_head_x.weight"], "simcc"),
        (["features.conv1.weight", "features.mlp_head.1.weight"], "tokenpose"),
        (["backbone.stem.0.conv.weight", "head.final_layer.weight", "head.cls_x.weight"], "mmpose"),
        (["backbone.stem.0.conv.weight", "head.final.weight", "head.classify_x.weight"], "sdk"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_layouts_are_told_apart(keys, layout):
    assert layout_of_keys(dict.fromkeys(keys, ())) == layout


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"weight": (3, 3)},
        {"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 2048)},
        {"transition1.0.0.weight": (32, 256, 3, 3)},
        {"features.keypoint_token": (1, 17, 192)},
        {"backbone.stem.2.conv.weight": (24, 12, 3, 3), "head.final_layer.weight": (17, 384, 7, 7)},
        {"layer4.0.conv1.weight": (512, 1024, 1, 1), "final_layer.weight": (17, 256, 1, 1)},
    ],
    ids=["empty", "one tensor", "a classifier", "part of HRNet", "part of TokenPose", "part of RTMPose", "odd ResNet"],
)
def test_unknown_networks_are_unknown(shapes):
    """Parts of a network give no answer: neither half a network nor an error of Python's."""
    assert found_in_shapes(shapes) is None


def test_the_nearest_recipe_and_its_differences():
    recipe = recipe_of(ResNet("resnet", 50), LinearSimccHead("simcc", (256, 256, 256), 1), (256, 256), joints=14)
    name, differing = nearest_recipe(found_in_shapes(shapes_of(recipe)), CATALOGUE)
    assert CATALOGUE[name].network == recipe.network
    assert set(differing) == {"joints", "bins", "input size"}


def test_no_recipe_of_the_kind():
    found = found_in_shapes(shapes_of(CATALOGUE["rtmpose-t-256x192"]))
    assert nearest_recipe(found, {"simba": CATALOGUE["simba-r50-deconv-64x64"]}) is None


def test_the_description_names_what_matters():
    found = found_in_shapes(shapes_of(CATALOGUE["simba-r50-upfree-64x64"]))
    assert str(found) == "resnet (depth 50), head simcc, 17 joints, 192 x 192 bins, input 64x64"

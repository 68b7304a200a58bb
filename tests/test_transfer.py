"""Weights of one joint set as the start for another: what is kept, what goes by name, what starts anew."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sdk.errors import CheckpointError
from sdk.networks import load_checkpoint, network_from_recipe, random_weights
from sdk.networks.transfer import start_from
from sdk.recipe_networks import (
    CSPNeXt,
    GauHead,
    HeatmapHead,
    LinearSimccHead,
    LowRes,
    MarginalHead,
    Pafpn,
    RtmwHead,
    TokenPose,
    TokenSimccHead,
)
from sdk.skeletons import Skeleton, skeleton_by_name
from tests.support.networks import recipe_of

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

SMALL = LowRes("lowres", (4, 4, 8, 8, 8), (0, 0, 0, 0), (8, 8))
KINDS = {  # name -> backbone, head, split ratio, neck
    "heatmap": (SMALL, HeatmapHead("heatmap", ()), None, None),
    "linear": (SMALL, LinearSimccHead("simcc", (), 2), 2.0, None),
    "marginal": (SMALL, MarginalHead("marginal", 0), 2.0, None),
    "gau": (SMALL, GauHead("gau", 7, 32, 16, 2), 2.0, None),
    "rtmw": (CSPNeXt("cspnext", 0.167, 0.375), RtmwHead("rtmw", 7, 32, 16, 2), 2.0, Pafpn("pafpn", 1)),
    "tokens": (TokenPose("tokenpose", (4, 4), 16, 1, 8, 2), TokenSimccHead("token-simcc"), 2.0, None),
}  # fmt: skip
MINE = Skeleton(
    "mine", ("top_head", "right_knee", "tail", "left_knee", "nose"), ((1, 3),), ((1, 3),), (0.1,) * 5
)  # fmt: skip
CARRIED = {"right_knee": "right_knee", "left_knee": "left_knee", "nose": "nose"}


def recipes(kind):
    backbone, head, ratio, neck = KINDS[kind]
    theirs = recipe_of(backbone, head, (64, 64), neck=neck, split_ratio=ratio)
    return theirs, replace(theirs, name="mine-64x64", skeleton=MINE)


def saved(recipe, path, *, notes=None, change=lambda state: state):
    """A checkpoint of `recipe` with seeded weights; its network."""
    from safetensors.torch import save_file

    network = network_from_recipe(recipe)
    random_weights(network, 3)
    state = change({key: tensor.contiguous() for key, tensor in network.state_dict().items()})
    save_file(
        state, path, {"recipe": recipe.name, "joints": json.dumps(recipe.skeleton.joints)} if notes is None else notes
    )
    return network.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_the_trunk_stays_and_joints_go_by_name(kind, tmp_path):
    theirs, mine = recipes(kind)
    old = saved(theirs, tmp_path / "a.safetensors").state_dict()
    network = network_from_recipe(mine).eval()
    fresh = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    start = start_from(network, mine, tmp_path / "a.safetensors")
    assert set(start.carried) == set(CARRIED) and start.anew == ("top_head", "tail") and start.named
    assert "3 of 5 joints carried over by name; anew: top_head, tail" in str(start)
    owned = 0
    for key, tensor in network.state_dict().items():
        if tensor.shape == old[key].shape:
            assert torch.equal(tensor, old[key]), key
            continue
        owned += 1
        axis = 1 if key.endswith("keypoint_token") else 0
        sides = 2 if kind == "marginal" else 1
        view = [t.movedim(axis, 0).reshape(sides, k, -1) for t, k in ((tensor, 5), (old[key], 17), (fresh[key], 5))]
        for place, joint in enumerate(MINE.joints):
            source = theirs.skeleton.joints.index(joint) if joint in CARRIED else place
            assert torch.equal(view[0][:, place], view[1 if joint in CARRIED else 2][:, source]), (key, joint)
    assert owned == len(old) - start.shared > 0


@pytest.mark.parametrize("kind", ["heatmap", "linear", "marginal"])  # in the others joints attend to each other
def test_a_joint_carried_over_answers_as_before(kind, tmp_path):
    theirs, mine = recipes(kind)
    old, new = saved(theirs, tmp_path / "a.safetensors"), network_from_recipe(mine).eval()
    start_from(new, mine, tmp_path / "a.safetensors")
    crops = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32))
    with torch.inference_mode():
        before, after = (out if isinstance(out, tuple) else (out,) for out in (old(crops), new(crops)))
    for one, other in zip(before, after, strict=True):
        for joint in CARRIED:
            place = theirs.skeleton.joints.index(joint)
            assert torch.allclose(one[:, place], other[:, MINE.joints.index(joint)], rtol=1e-4, atol=1e-5)


def test_equal_counts_of_other_joints_go_by_name_too(tmp_path):
    theirs, _ = recipes("heatmap")
    turned = replace(theirs.skeleton, name="turned", joints=theirs.skeleton.joints[::-1], flip_pairs=(), limbs=())
    mine = replace(theirs, name="mine-64x64", skeleton=turned)
    old, network = saved(theirs, tmp_path / "a.safetensors"), network_from_recipe(mine)
    assert start_from(network, mine, tmp_path / "a.safetensors").carried == turned.joints
    assert torch.equal(network.head.final.bias, old.head.final.bias.flip(0))
    with pytest.raises(CheckpointError, match="joint 0 is 'nose' there and 'right_ankle' here"):
        load_checkpoint(network, mine, tmp_path / "a.safetensors")


NAMED = {  # what the file says -> whether joints have names, and which are carried over
    "spelled in another way": (["Left Knee", *map(str, range(15)), "RightKnee"], True, {"left_knee", "right_knee"}),
    "other joints": ([f"j{n}" for n in range(17)], True, set()),
    "none": ([], False, set()),
}  # fmt: skip


@pytest.mark.parametrize(("names", "named", "carried"), NAMED.values(), ids=NAMED)
def test_what_a_file_says_of_its_joints_decides(names, named, carried, tmp_path):
    theirs, mine = recipes("tokens")
    saved(theirs, tmp_path / "a.safetensors", notes={"recipe": "gone-64x64", "joints": json.dumps(names)})
    start = start_from(network_from_recipe(mine), mine, tmp_path / "a.safetensors")
    assert start.named == named and set(start.carried) == carried
    if not named:
        assert "which joints the checkpoint has is not known, so all 5 start anew" in str(start)


def test_a_file_of_mmengine_says_it_too(tmp_path):
    theirs, mine = recipes("heatmap")
    names = dict(enumerate(theirs.skeleton.joints))
    network = network_from_recipe(theirs)
    content = {"state_dict": network.state_dict(), "meta": {"dataset_meta": {"keypoint_id2name": names}}}
    torch.save(content, tmp_path / "a.pth")
    assert set(start_from(network_from_recipe(mine), mine, tmp_path / "a.pth").carried) == set(CARRIED)


def test_a_file_without_names_is_known_by_the_recipes_that_it_fits(tmp_path):
    from sdk.recipe import recipe_by_name

    theirs = recipe_by_name("body14-nano-128x128")
    saved(theirs, tmp_path / "a.safetensors", notes={})
    mine = replace(theirs, name="mine-128x128", skeleton=replace(MINE, joints=("neck", "a", "b", "c", "left_hip")))
    assert start_from(network_from_recipe(mine), mine, tmp_path / "a.safetensors").carried == ("neck", "left_hip")


def test_one_set_without_names_is_taken_as_it_stands(tmp_path):
    theirs, _ = recipes("heatmap")
    old = saved(theirs, tmp_path / "a.safetensors", notes={})
    network = network_from_recipe(theirs)
    assert "taken to be the recipe's, in its order" in str(start_from(network, theirs, tmp_path / "a.safetensors"))
    assert torch.equal(network.head.final.bias, old.head.final.bias)


def test_rows_of_another_head_are_no_joints(tmp_path):
    """The marginal head's rows are a whole multiple of the heatmap head's."""
    theirs, (_, mine) = recipes("marginal")[0], recipes("heatmap")
    for notes in ({}, None, {"recipe": mine.name}):
        saved(theirs, tmp_path / "a.safetensors", notes=notes)
        with pytest.raises(CheckpointError, match="does not fit recipe 'mine-64x64'"):
            start_from(network_from_recipe(mine), mine, tmp_path / "a.safetensors")


REFUSED = {
    "another trunk": (lambda s: {k: v for k, v in s.items() if "stages.3" not in k}, "by our names: backbone."),
    "a torn joint": (lambda s: s | {"head.final.bias": s["head.final.bias"][:16].clone()}, "of another shape: head."),
    "names of too few": (lambda s: s, "of another shape: head.", {"recipe": "x-1x1", "joints": '["nose"]'}),
    "no number": (lambda s: s | {"head.final.bias": s["head.final.bias"] * float("nan")}, "must be finite numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_else_does_not_fit_is_refused_and_changes_nothing(case, tmp_path):
    change, message, *notes = REFUSED[case]
    theirs, mine = recipes("heatmap")
    saved(theirs, tmp_path / "a.safetensors", change=change, notes=notes[0] if notes else None)
    network = network_from_recipe(mine)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(CheckpointError) as raised:
        start_from(network, mine, tmp_path / "a.safetensors")
    assert message in str(raised.value)
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())


def test_the_joint_sets_of_the_catalogue_share_what_they_share():
    from sdk.joints import match_joints

    halpe, coco = skeleton_by_name("halpe26").joints, skeleton_by_name("coco17").joints
    assert match_joints(coco, halpe).places[:17] == tuple(range(17))

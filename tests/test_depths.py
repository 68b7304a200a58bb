"""The third axis and the spread beyond the op: the recipe's rule, the estimator's poses, records, and the camera."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sdk import PoseEstimator
from sdk.camera import Camera
from sdk.errors import EngineError, InputError, RecipeError
from sdk.manifest import SpreadNote, manifest_from_table, open_engine
from sdk.poses import Poses
from sdk.recipe import recipe_from_table
from sdk.runtime.decoding import decoding_of
from sdk.skeletons import skeleton_by_name
from tests.support.engines import SMALL, SMALL_3D, SMALL_HEATMAP, wrapped_engine

FRAME = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
BOXES = np.array([[10, 5, 60, 80], [30, 10, 110, 85]], np.float32)
NOTE = SpreadNote(0.7, 1.5, 0.1, 0.25, "val.json", 1000, 0.68)


# ---- the recipe ----------------------------------------------------------------------------------------------------


def test_a_recipe_tells_the_third_axis():
    assert SMALL_3D.output.names == ("simcc_x", "simcc_y", "simcc_z")
    assert SMALL_3D.bins == (96, 128, 72) and SMALL.bins == SMALL.bins_xy == SMALL_3D.bins_xy
    assert recipe_from_table(SMALL_3D.to_table(), "here") == SMALL_3D


def edited(recipe, **changes):
    table = recipe.to_table()
    table["output"]["depth"] = {**SMALL_3D.to_table()["output"]["depth"], **changes}
    return table


WRONG = {
    "no bins": ({"bins": 0}, "key 'bins' must be from 1"),
    "span of nothing": ({"span": 0.0}, "key 'span' must be above 0"),
    "unknown unit": ({"unit": "mm"}, "key 'unit' must be one of m, px"),
    "root that is no joint": ({"root": ["pelvis"]}, r"output.depth.root must name the joints .*left_hip.*got 'pelvis'"),
    "no root": ({"root": []}, r"output.depth.root must name .*\(got none\)"),
    "name of another axis": ({"name": "simcc_x"}, "must have names that differ"),
    "unknown key": ({"range": 2.0}, "unknown key 'range'; known keys are bins, span, unit, root, name"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_third_axis_is_refused(change, message):
    with pytest.raises(RecipeError, match=message):
        recipe_from_table(edited(SMALL, **change), "here")


def test_heatmaps_have_no_third_axis_and_no_spread():
    with pytest.raises(RecipeError, match=r"output\.depth belongs to kind 'simcc' and only to it"):
        recipe_from_table(edited(SMALL_HEATMAP), "here")
    with pytest.raises(InputError, match="spread must be left out for a heatmap engine"):
        decoding_of(SMALL_HEATMAP, spread=True)


def test_the_unit_of_the_recipe_is_the_ops():
    pixels = replace(SMALL_3D, output=replace(SMALL_3D.output, depth=replace(SMALL_3D.output.depth, unit="px")))
    assert decoding_of(pixels).depth.pixels and not decoding_of(SMALL_3D).depth.pixels
    assert decoding_of(SMALL).columns.count == 3 and decoding_of(SMALL_3D, spread=True).columns.count == 8


# ---- the spread of an engine ----------------------------------------------------------------------------------------


def test_a_calibrated_spread_is_the_manifests():
    found = decoding_of(SMALL, NOTE, spread=True)
    assert found.calibrated
    assert (found.spread.sharpness, found.spread.gain, found.spread.curve, found.spread.floor) == (0.7, 1.5, 0.1, 0.25)


@pytest.mark.parametrize(("score", "sharpness"), [("min_softmax", 1), ("min_logit", 10), ("mean_logit", 10)])
def test_without_a_calibration_the_networks_loss_tells_the_sharpness(score, sharpness):
    found = decoding_of(replace(SMALL, output=replace(SMALL.output, score=score)), spread=True)
    assert not found.calibrated and found.spread.sharpness == sharpness


def test_a_manifest_keeps_the_calibration_and_older_ones_have_none(small_graphs, tmp_path):
    graph, recipe = small_graphs["simcc"]
    plain = open_engine(wrapped_engine(graph, tmp_path / "plain", recipe)).manifest
    assert plain.spread is None and "spread" not in plain.to_table()
    kept = open_engine(wrapped_engine(graph, tmp_path / "kept", recipe, spread=NOTE)).manifest
    assert kept.spread == NOTE
    table = kept.to_table()
    table["spread"]["gain"] = -1.0
    with pytest.raises(EngineError, match="key 'gain' must be at least 0"):
        manifest_from_table(table, "here")


# ---- poses ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(small_graphs, tmp_path):
    graph, recipe = small_graphs["three axes"]
    return wrapped_engine(graph, tmp_path / "three", recipe, max_batch=1, spread=NOTE)


@pytest.mark.native
def test_an_estimator_tells_depths_and_on_request_the_spread(folder):
    with PoseEstimator(folder, device="cpu") as plain, PoseEstimator(folder, device="cpu", spread=True) as sure:
        poses, more = plain(FRAME, BOXES), sure(FRAME, BOXES)
        nobody = sure(FRAME, np.zeros((0, 4)))
    assert poses.depths.shape == (2, 14) and poses.depth_unit == "m"
    assert poses.spread is None and poses.second is None
    seen = poses.scores > 0
    assert np.array_equal(np.isfinite(poses.depths), seen) and (np.abs(poses.depths[seen]) <= 1.5).all()
    assert np.array_equal(more.depths, poses.depths, equal_nan=True)
    assert np.array_equal(more.keypoints, poses.keypoints)
    assert more.spread.shape == more.second.shape == (2, 14, 2) and (more.spread > 0).all()
    assert nobody.depths.shape == (0, 14) and nobody.spread.shape == nobody.second.shape == (0, 14, 2)


@pytest.mark.native
def test_a_spread_that_was_never_calibrated_is_told(small_graphs, tmp_path, caplog):
    graph, recipe = small_graphs["simcc"]
    with PoseEstimator(wrapped_engine(graph, tmp_path / "plain", recipe), device="cpu", spread=True) as estimate:
        assert estimate(FRAME, BOXES).depths is None
    assert "held against no labels; calibrate it with `sdk calibrate --spread`" in caplog.text


def poses_of(count=3, skeleton="coco17", **changes):
    rng = np.random.default_rng(0)
    joints = len(skeleton_by_name(skeleton).joints)
    depths = rng.uniform(-1, 1, (count, joints)).astype(np.float32)
    depths[0, 3] = np.nan
    second = np.full((count, joints, 2), np.nan, np.float32)
    second[count // 2, 2] = 5, 6
    fields = {
        "keypoints": rng.uniform(0, 90, (count, joints, 2)).astype(np.float32),
        "scores": rng.random((count, joints)).astype(np.float32),
        "boxes": rng.uniform(0, 90, (count, 4)).astype(np.float32),
        "box_scores": np.ones(count, np.float32),
        "skeleton": skeleton_by_name(skeleton),
        "depths": depths,
        "spread": rng.uniform(1, 5, (count, joints, 2)).astype(np.float32),
        "second": second,
    }
    return Poses(**{**fields, **changes})


@pytest.mark.parametrize("name", ["depths", "spread", "second"])
def test_rows_and_parts_keep_what_is_told_joint_by_joint(name):
    whole = poses_of(skeleton="wholebody133")
    array = getattr(whole, name)
    np.testing.assert_array_equal(getattr(whole[[2, 0]], name), array[[2, 0]])
    np.testing.assert_array_equal(getattr(whole.part("left_hand"), name), array[:, 91:112])


def test_records_have_no_nan():
    poses = poses_of()
    told = json.loads(json.dumps(poses.to_dict(), allow_nan=False))
    assert told["depths"][0][3] is None and told["depths"][0][4] == pytest.approx(float(poses.depths[0, 4]))
    assert told["depth_unit"] == "m" and told["second"][0][0] == [None, None] and told["second"][1][2] == [5, 6]
    assert np.array(told["spread"]).shape == (3, 17, 2)
    records = json.loads(json.dumps(poses.to_coco(7), allow_nan=False))
    assert [record["depths"] for record in records] == told["depths"]
    plain = poses_of(depths=None, spread=None, second=None)
    assert not {"depths", "depth_unit", "spread", "second"} & (set(plain.to_dict()) | set(plain.to_coco(1)[0]))


# ---- the camera ----------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_points_in_the_camera_are_the_authors_where_their_camera_is_given(parity):
    """Where none is known theirs takes half of (height, width) for the centre of (x, y): given that, ours agrees."""
    table, name = np.load(parity / "more/simcc3d-decode.npz"), "384x288x288_k2"
    seen = table[f"{name}.scores"] > 0
    for row in range(3):
        depths = np.where(seen[row], table[f"{name}.keypoints"][row, :, 2], np.nan)[None].astype(np.float32)
        keypoints = table[f"{name}.image_keypoints"][row][None].astype(np.float32)
        poses = poses_of(1, keypoints=keypoints, depths=depths)
        height, width = table[f"{name}.image_hw"][row]
        focal = tuple(table[f"{name}.focal"].tolist())
        found = poses.in_camera(Camera(focal, (height / 2, width / 2)), float(table[f"{name}.root_z"][0]))[0]
        np.testing.assert_allclose(found[seen[row]], table[f"{name}.camera_keypoints"][row][seen[row]], atol=2e-5)
        assert np.isnan(found[~seen[row]]).all()
        right = poses.in_camera(Camera(focal, (width / 2, height / 2)), float(table[f"{name}.root_z"][0]))[0]
        assert np.nanmax(np.abs(right - found)) > 0.4


def test_a_root_for_each_person():
    poses = poses_of(2, depths=np.zeros((2, 17), np.float32))
    found = poses.in_camera(Camera((100, 200), (45, 45)), [2.0, 4.0])
    assert found.dtype == np.float32 and (found[0, :, 2] == 2).all() and (found[1, :, 2] == 4).all()
    expected = (poses.keypoints[1] - 45) / [100, 200] * 4
    np.testing.assert_allclose(found[1, :, :2], expected, rtol=1e-5, atol=1e-6)


CAMERA = Camera((100.0, 100.0), (0.0, 0.0))
REFUSED = {
    "focal-0": (lambda: Camera((0.0, 1.0), (1.0, 1.0)), r"focal_px must be two positive numbers of pixels"),
    "focal-one": (lambda: Camera((1.0,), (1.0, 1.0)), "focal_px must be two positive"),
    "centre-nan": (lambda: Camera((1.0, 1.0), (float("nan"), 1.0)), "centre_px must be two finite numbers"),
    "root-behind": (lambda: poses_of().in_camera(CAMERA, -1.0), r"root_m must be a positive distance .* \(got -1\.\)"),
    "roots-of-others": (lambda: poses_of().in_camera(CAMERA, [1.0, 2.0]), "one for each of 3 persons"),
    "no-depths": (lambda: poses_of(depths=None).in_camera(CAMERA, 1.0), r"needs depths in metres.*\(got none\)"),
    "pixels": (lambda: poses_of(depth_unit="px").in_camera(CAMERA, 1.0), r"needs depths in metres.*\(got pixels\)"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_placed_is_told(call, message):
    with pytest.raises(InputError, match=message):
        call()

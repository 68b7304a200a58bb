"""What ships: the bundled engine is small, is the default, is what its weights make, and finds athletes."""

import json

import cv2
import numpy as np
import pytest

from sdk import PoseEstimator
from sdk.evaluate.scores.pck import pck, torso_px
from sdk.manifest import open_engine
from sdk.media.figures import rendered_figure
from sdk.recipe import recipe_by_name
from sdk.resources import bundled_engines, bundled_weights, catalogue_folder

NAME = "body14-nano-128x128"


def test_it_is_small_and_whole():
    folder = catalogue_folder("engines") / "bundled"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 20e6
    engine = open_engine(bundled_engines()[f"{NAME}.fp32"])
    assert engine.manifest.recipe == recipe_by_name(NAME)
    assert engine.manifest.weights.kind == "checkpoint"


def test_it_is_the_default_and_says_nothing_of_where_it_was_made():
    with PoseEstimator(device="cpu") as estimate:
        assert estimate.recipe.name == NAME
    manifest = json.dumps(open_engine(bundled_engines()[f"{NAME}.fp32"]).manifest.to_table())
    assert "/tmp" not in manifest and "/home" not in manifest and "/work" not in manifest


@pytest.mark.torch
def test_the_graph_is_what_the_weights_make():
    import torch

    from sdk.manifest import sha256_of_file
    from sdk.networks import load_checkpoint, network_from_recipe
    from sdk.runtime.opening import open_session

    weights = bundled_weights(NAME)
    engine = open_engine(bundled_engines()[f"{NAME}.fp32"])
    assert engine.manifest.weights.sha256 == sha256_of_file(weights)
    network = network_from_recipe(engine.manifest.recipe)
    load_checkpoint(network, engine.manifest.recipe, weights)
    frame = rendered_figure(np.random.default_rng(0), (128, 128))[0]
    crops = (frame[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32) - 110) / 57
    with torch.no_grad():
        expected = network(torch.from_numpy(np.ascontiguousarray(crops)))
    with open_session(engine, "cpu") as session:
        found = session.run(np.ascontiguousarray(crops))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=2e-3)


@pytest.mark.torch
def test_the_shipped_calibration_table_fits_a_graph_exported_here(tmp_path):
    """The table was made on another machine, whose processor folds batch norms with other last bits."""
    import onnx

    from sdk.networks import load_checkpoint, network_from_recipe
    from sdk.toolchain.export import graph_from_network
    from sdk.toolchain.table import check_graph, table_from_file

    recipe, path = recipe_by_name(NAME), catalogue_folder("calibration") / f"{NAME}.json"
    network = network_from_recipe(recipe)
    load_checkpoint(network, recipe, bundled_weights(NAME))
    check_graph(table_from_file(path), graph_from_network(network, recipe), str(path), NAME)
    check_graph(table_from_file(path), onnx.load(bundled_engines()[f"{NAME}.fp32"] / "network.onnx"), str(path), NAME)


def test_it_finds_rendered_figures():
    near = []
    with PoseEstimator(device="cpu") as estimate:
        for seed in range(1000, 1040):  # training drew from other seeds
            frame, joints = rendered_figure(np.random.default_rng(seed), (200, 200))
            low, high = joints.min(axis=0), joints.max(axis=0)
            margin = 0.15 * (high - low)
            poses = estimate(frame, [[*(low - margin), *(high + margin)]])
            near.append(np.linalg.norm(poses.keypoints[0] - joints, axis=1) < 0.1 * (high - low).max())
    assert np.mean(near) > 0.8


@pytest.mark.data
def test_it_finds_athletes(lspet):
    document = json.loads((lspet / "val.json").read_text())
    files = {image["id"]: image["file_name"] for image in document["images"]}
    records = document["annotations"][::4]
    truth = np.array([np.reshape(record["keypoints"], (14, 3)) for record in records])
    boxes = np.array([record["bbox"] for record in records], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    found = []
    with PoseEstimator(device="cpu") as estimate:
        for record, box in zip(records, boxes, strict=True):
            found.append(estimate(cv2.imread(str(lspet / files[record["image_id"]])), [box]).keypoints[0])
    torsos = torso_px(truth, boxes, recipe_by_name(NAME).skeleton)
    assert pck(np.stack(found), truth, torsos, 0.2).mean > 54
    assert pck(np.stack(found), truth, torsos, 0.1).mean > 28

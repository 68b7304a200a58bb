"""What ships: the bundled engine is small, is the default, is what its weights make, and finds athletes."""

import json

import cv2
import numpy as np
import pytest

from sdk import PoseEstimator
from sdk.evaluate.datasets.dataset import DatasetOptions
from sdk.evaluate.datasets.loading import load_dataset
from sdk.evaluate.scores.pck import pck, torso_px
from sdk.manifest import open_engine
from sdk.media.figures import FIGURE_SKELETON, rendered_figure
from sdk.recipe import recipe_by_name
from sdk.resources import bundled_engines, bundled_weights, catalogue_folder
from sdk.skeletons import skeleton_by_name

NAME, LARGER, BEFORE = "body17-nano-128x128", "body17-small-256x192", "body14-nano-128x128"
FIGURE = skeleton_by_name(FIGURE_SKELETON).joints


@pytest.mark.parametrize("name", [NAME, LARGER, BEFORE])
def test_it_is_small_and_whole(name):
    folder = catalogue_folder("engines") / "bundled"
    assert sum(path.stat().st_size for path in folder.rglob(f"{name}*/*")) <= 13e6
    assert bundled_weights(name).stat().st_size <= 6e6
    engine = open_engine(bundled_engines()[f"{name}.fp32"])
    assert engine.manifest.recipe == recipe_by_name(name)
    assert engine.manifest.weights.kind == "checkpoint"


def test_it_is_the_default_and_says_nothing_of_where_it_was_made():
    with PoseEstimator(device="cpu") as estimate:
        assert estimate.recipe.name == NAME
    manifest = json.dumps(open_engine(bundled_engines()[f"{NAME}.fp32"]).manifest.to_table())
    assert "/tmp" not in manifest and "/home" not in manifest and "/work" not in manifest


@pytest.mark.torch
@pytest.mark.parametrize("name", [NAME, LARGER, BEFORE])
def test_the_graph_is_what_the_weights_make(name):
    import torch

    from sdk.manifest import sha256_of_file
    from sdk.networks import load_checkpoint, network_from_recipe
    from sdk.runtime.opening import open_session

    weights = bundled_weights(name)
    engine = open_engine(bundled_engines()[f"{name}.fp32"])
    assert engine.manifest.weights.sha256 == sha256_of_file(weights)
    network = network_from_recipe(engine.manifest.recipe)
    load_checkpoint(network, engine.manifest.recipe, weights)
    frame = rendered_figure(np.random.default_rng(0), engine.manifest.recipe.input.size_hw)[0]
    crops = (frame[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32) - 110) / 57
    with torch.no_grad():
        expected = network(torch.from_numpy(np.ascontiguousarray(crops)))
    with open_session(engine, "cpu") as session:
        found = session.run(np.ascontiguousarray(crops))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=2e-3)


@pytest.mark.torch
@pytest.mark.parametrize("name", [NAME, LARGER, BEFORE])
def test_the_shipped_calibration_table_fits_a_graph_exported_here(name):
    """The table was made on another machine, whose processor folds batch norms with other last bits."""
    import onnx

    from sdk.networks import load_checkpoint, network_from_recipe
    from sdk.toolchain.export import graph_from_network
    from sdk.toolchain.table import check_graph, table_from_file

    recipe, path = recipe_by_name(name), catalogue_folder("calibration") / f"{name}.json"
    network = network_from_recipe(recipe)
    load_checkpoint(network, recipe, bundled_weights(name))
    check_graph(table_from_file(path), graph_from_network(network, recipe), str(path), name)
    check_graph(table_from_file(path), onnx.load(bundled_engines()[f"{name}.fp32"] / "network.onnx"), str(path), name)


def test_it_finds_rendered_figures():
    near = []
    with PoseEstimator(device="cpu") as estimate:
        for seed in range(1000, 1040):  # training drew from other seeds
            frame, joints = rendered_figure(np.random.default_rng(seed), (200, 200))
            low, high = joints.min(axis=0), joints.max(axis=0)
            margin = 0.15 * (high - low)
            poses = estimate(frame, [[*(low - margin), *(high + margin)]])
            drawn = [name for name in estimate.recipe.skeleton.joints if name in FIGURE]
            found = poses.keypoints[0][[estimate.recipe.skeleton.joints.index(name) for name in drawn]]
            truth = joints[[FIGURE.index(name) for name in drawn]]
            near.append(np.linalg.norm(found - truth, axis=1) < 0.1 * (high - low).max())
    assert np.mean(near) > 0.8


@pytest.mark.data
@pytest.mark.parametrize(("name", "least"), [(NAME, (56, 29)), (LARGER, (61, 36))], ids=[NAME, LARGER])
def test_it_finds_athletes(lspet, name, least):
    options = DatasetOptions("lsp", lspet / "val.json", lspet, partly=True)
    dataset = load_dataset(options, recipe_by_name(name))
    truth, boxes = dataset.truth.keypoints[::4], dataset.truth.boxes_xyxy[::4]
    pictures = [dataset.pictures[at].path for at in dataset.truth.picture[::4]]
    with PoseEstimator(f"{name}.fp32", device="cpu") as estimate:
        found = np.concatenate(
            [estimate(cv2.imread(str(path)), [box]).keypoints for path, box in zip(pictures, boxes, strict=True)]
        )
    torsos = torso_px(truth, boxes, recipe_by_name(name).skeleton)
    for threshold, bound in zip((0.2, 0.1), least, strict=True):
        assert pck(found, truth, torsos, threshold).mean > bound

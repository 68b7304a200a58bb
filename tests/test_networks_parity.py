"""Every network of the authors' own code computes here what it computes there, from its checkpoint's keys alone."""

import numpy as np
import pytest

from sdk.networks import load_checkpoint, network_from_recipe
from sdk.networks.layouts import sdk_key
from tests.support.networks import parity_documents, parity_input, parity_state, recipe_from_parity
from tests.support.shared import SHARED

CASES = parity_documents(SHARED / "parity")
TOLERANCE = 1e-4  # of the largest magnitude, as the folder's README says

pytestmark = [pytest.mark.torch, pytest.mark.data]


def saved(document, folder):
    """The checkpoint as its authors' code leaves it: mmpose under `state_dict`, SimCC's bare, of several GPUs."""
    import torch

    state = {key: torch.from_numpy(value) for key, value in parity_state(document).items()}
    if document["source"] == "open-mmlab/mmpose":
        content = {"meta": {"epoch": 420}, "state_dict": state}
    else:
        content = {f"module.{key}": value for key, value in state.items()}
    path = folder / "checkpoint.pth"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("name", list(CASES) or ["none"])
def test_outputs_are_the_authors(name, tmp_path):
    import torch

    document, outputs_path = CASES[name]
    recipe = recipe_from_parity(document)
    network = network_from_recipe(recipe)
    path = saved(document, tmp_path)
    load_checkpoint(network, recipe, path)
    path.unlink()
    crops = torch.from_numpy(parity_input(document))
    with torch.inference_mode():
        result = network(crops)
        outputs = list(result) if isinstance(result, tuple) else [result]
        if "keypoint_tokens" in document["outputs"]:
            outputs.append(network.backbone(crops))
    theirs = np.load(outputs_path)
    assert len(outputs) == len(document["outputs"])
    for output_name, ours in zip(document["outputs"], outputs, strict=True):
        expected = theirs[output_name]
        assert ours.shape == expected.shape
        assert np.abs(ours.numpy() - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_parity_sees_the_image():
    """With weights that let an image live, another order of colours or another pool is far outside the tolerance."""
    import torch

    document, outputs_path = CASES["rtmpose-t-256x192"]
    recipe = recipe_from_parity(document)
    network = network_from_recipe(recipe)
    state = {sdk_key(key, "mmpose"): torch.from_numpy(value) for key, value in parity_state(document).items()}
    network.load_state_dict(state)
    expected = np.load(outputs_path)["simcc_x"]

    def error(crops):
        with torch.inference_mode():
            return np.abs(network(torch.from_numpy(crops))[0].numpy() - expected).max() / np.abs(expected).max()

    crops = parity_input(document)
    assert error(crops) <= TOLERANCE
    assert error(crops[:, ::-1].copy()) > 100 * TOLERANCE
    network.backbone.stage4[1].poolings[1] = torch.nn.MaxPool2d(7, 1, 3)
    assert error(crops) > 100 * TOLERANCE


@pytest.mark.parametrize("name", list(CASES) or ["none"])
def test_split_ratio_follows_from_the_shapes(name):
    """Nothing in the document but keys and shapes is needed to tell bins from pixels."""
    from sdk.networks.fitting import found_in_shapes

    document, _ = CASES[name]
    found = found_in_shapes({key: tuple(shape) for key, shape in document["state_dict"].items()})
    if document["split_ratio"] is None:
        assert found.split_ratio is None
    else:
        assert (found.size_hw, found.split_ratio) == (tuple(document["input"][2:]), document["split_ratio"])

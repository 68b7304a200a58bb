"""The project's own network: its head is a marginal, moves with the person and stands large logits; its budget."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sdk.networks import network_from_recipe, random_weights  # noqa: E402
from sdk.networks.lowres import MarginalHead, blur_matrix, log_sum_exp  # noqa: E402
from sdk.recipe import recipe_by_name  # noqa: E402

RECIPE = recipe_by_name("body14-nano-128x128")


@pytest.fixture(scope="module")
def network():
    network = network_from_recipe(RECIPE)
    random_weights(network, 0)
    return network


def test_log_sum_exp_is_the_definition_and_does_not_overflow():
    x = np.random.default_rng(0).normal(0, 30, (2, 3, 5, 7))
    want = np.log(np.exp(x).sum(axis=2))
    np.testing.assert_allclose(log_sum_exp(torch.from_numpy(x), 2).numpy(), want, rtol=1e-12)
    huge = torch.full((1, 4), 1000.0)
    assert log_sum_exp(huge, 1).item() == pytest.approx(1000 + np.log(4))


def test_log_sum_exp_has_softmax_for_a_gradient():
    x = torch.from_numpy(np.random.default_rng(1).normal(0, 3, (4, 6))).requires_grad_()
    log_sum_exp(x, 1).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), x.detach().softmax(1).numpy(), atol=1e-12)


def test_softmax_of_the_outputs_is_the_marginal_of_the_plane():
    head = MarginalHead(8, joints=3, bins_a_cell=4, depth=0).eval()
    features = torch.from_numpy(np.random.default_rng(2).normal(0, 2, (2, 8, 5, 6))).float()
    with torch.no_grad():
        head.final.weight.normal_(generator=torch.Generator().manual_seed(0))
        x, y = head(features)
        maps = head.final(features)
    assert x.shape == (2, 3, 24) and y.shape == (2, 3, 20)
    along_x = maps[:, :12].reshape(2, 3, 4, 5, 6).double()
    plane = along_x.permute(0, 1, 3, 4, 2).reshape(2, 3, 5, 24)  # rows, bins along x
    marginal = plane.flatten(2).softmax(2).reshape(2, 3, 5, 24).sum(dim=2)
    np.testing.assert_allclose(x.softmax(2).numpy(), marginal.numpy(), atol=1e-6)
    along_y = maps[:, 12:].reshape(2, 3, 4, 5, 6).double()
    plane = along_y.permute(0, 1, 3, 2, 4).reshape(2, 3, 20, 6)
    marginal = plane.flatten(2).softmax(2).reshape(2, 3, 20, 6).sum(dim=3)
    np.testing.assert_allclose(y.softmax(2).numpy(), marginal.numpy(), atol=1e-6)


def test_the_head_moves_with_the_person():
    head = MarginalHead(8, joints=2, bins_a_cell=4, depth=0).eval()
    features = torch.from_numpy(np.random.default_rng(3).normal(0, 2, (1, 8, 6, 6))).float()
    with torch.no_grad():
        x, y = head(features)
        moved_x, moved_y = head(features.roll(2, dims=3))
    np.testing.assert_allclose(moved_x.numpy(), x.roll(8, dims=2).numpy(), atol=1e-6)
    np.testing.assert_allclose(moved_y.numpy(), y.numpy(), atol=1e-6)


def test_it_fits_its_budget(network):
    from torch.utils.flop_counter import FlopCounterMode

    assert sum(p.numel() for p in network.parameters()) <= 4e6
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        x, y = network(torch.zeros(1, 3, 128, 128))
    assert counter.get_total_flops() / 2 <= 0.20e9
    assert x.shape == y.shape == (1, RECIPE.joints, 256)


@pytest.mark.parametrize("size_hw", [(64, 64), (96, 96), (128, 96), (32, 160)])
def test_any_multiple_of_32_goes_in(network, size_hw):
    with torch.no_grad():
        x, y = network(torch.zeros(2, 3, *size_hw))
    assert x.shape == (2, 14, 2 * size_hw[1])
    assert y.shape == (2, 14, 2 * size_hw[0])


@pytest.mark.parametrize("sigma", [0.5, 6.0, 40.0])
def test_the_blur_is_a_gaussian_that_repeats_the_ends(sigma):
    logits = np.random.default_rng(4).normal(0, 5, 64)
    reach = int(np.ceil(4 * sigma))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    want = np.convolve(np.pad(logits, reach, mode="edge"), taps / taps.sum(), mode="valid")
    np.testing.assert_allclose(logits @ blur_matrix(64, sigma), want, atol=1e-5)


def test_the_blur_leaves_the_logits_of_a_gaussian_label():
    bins = np.arange(256.0)
    parabola = -0.5 * ((bins - 130.4) / 8) ** 2
    inside = slice(30, 226)
    moved = (parabola @ blur_matrix(256, 6.0) - parabola)[inside]
    assert np.ptp(moved) < 1e-3


def test_the_blur_joins_neighbouring_cells():
    plain, blurred = (MarginalHead(4, joints=1, bins_a_cell=8, depth=0, blur_bins=blur).eval() for blur in (0.0, 3.0))
    with torch.no_grad():
        plain.final.weight.normal_(generator=torch.Generator().manual_seed(1))
        blurred.load_state_dict(plain.state_dict())
        features = torch.from_numpy(np.random.default_rng(5).normal(0, 2, (1, 4, 6, 6))).float()
        steps = [np.abs(np.diff(head(features)[0].numpy()[0, 0]))[7::8].max() for head in (plain, blurred)]
    assert steps[1] < 0.4 * steps[0]
    assert not [key for key in blurred.state_dict() if "blur" in key]

"""Heads against their definitions, in float64 numpy: where a checkpoint's small gains would hide a wrong formula."""

import numpy as np
import pytest

pytestmark = pytest.mark.torch


def filled(module, seed, scale=0.6):
    """The module in float64 with every parameter random and of order one."""
    import torch

    rng = np.random.default_rng(seed)
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            shape = tuple(parameter.shape)
            fan_in = np.prod(shape[1:]) if len(shape) > 1 else 1
            parameter.copy_(torch.from_numpy(rng.standard_normal(shape) * scale / np.sqrt(fan_in)))
    return module, {key: value.numpy() for key, value in module.state_dict().items()}


def silu(x):
    return x / (1 + np.exp(-x))


def scale_norm(x, gain):
    """Each token by the root mean square of its values, floored, times one gain."""
    rms = np.sqrt((x**2).mean(-1, keepdims=True))
    return x / np.maximum(rms, 1e-5) * gain


def gated_attention(x, w, width, attention):
    """Hua et al., 2022, as RTMPose uses it: squared ReLU of the scaled products, gated, with a scaled shortcut."""
    hidden = silu(scale_norm(x, w["ln.g"]) @ w["uv.weight"].T)
    u, v, base = hidden[..., :width], hidden[..., width : 2 * width], hidden[..., 2 * width :]
    query, key = base * w["gamma"][0] + w["beta"][0], base * w["gamma"][1] + w["beta"][1]
    weights = np.maximum(np.einsum("nid,njd->nij", query, key) / np.sqrt(attention), 0) ** 2
    return x * w["res_scale.scale"] + (u * np.einsum("nij,njd->nid", weights, v)) @ w["o.weight"].T


@pytest.mark.parametrize(("dim", "attention", "expansion", "tokens"), [(16, 8, 2, 5), (24, 16, 3, 17), (8, 4, 1, 1)])
def test_gated_attention_is_its_definition(dim, attention, expansion, tokens):
    import torch

    from sdk.networks.heads import GatedAttention

    module, _ = filled(GatedAttention(dim, attention, expansion), seed=dim, scale=2.0)
    with torch.no_grad():  # so that attention outweighs the shortcut
        module.gamma *= np.sqrt(attention)
        module.ln.g.fill_(1.3)
    w = {key: value.numpy() for key, value in module.state_dict().items()}
    x = np.random.default_rng(1).standard_normal((3, tokens, dim))
    expected = gated_attention(x, w, dim * expansion, attention)
    assert np.abs(expected - x * w["res_scale.scale"]).max() > 0.05 * np.abs(expected).max()
    with torch.no_grad():
        assert np.allclose(module(torch.from_numpy(x)).numpy(), expected, rtol=1e-10, atol=1e-12)


def test_scale_norm_takes_a_token_of_zeros():
    import torch

    from sdk.networks.heads import ScaleNorm

    module = ScaleNorm(7).double()
    x = np.random.default_rng(2).standard_normal((2, 3, 7))
    x[0, 1] = 0
    x[1, 0] = 1e-9  # under the floor
    with torch.no_grad():
        module.g.fill_(1.7)
        assert np.allclose(module(torch.from_numpy(x)).numpy(), scale_norm(x, 1.7), rtol=1e-12)


@pytest.mark.parametrize("maps_per_joint", [1, 4])
def test_maps_of_a_joint_stay_together(maps_per_joint):
    """Joint k sees maps k m .. k m + m - 1, row by row, and nothing of another joint."""
    import torch

    from sdk.networks.heads import LinearSimccHead

    head, w = filled(
        LinearSimccHead(6, feature_hw=(3, 2), joints=5, bins_xy=(8, 12), deconv=(), maps_per_joint=maps_per_joint),
        seed=3,
    )
    x = np.random.default_rng(4).standard_normal((2, 6, 3, 2))
    maps = np.einsum("oc,nchw->nohw", w["final.weight"][:, :, 0, 0], x) + w["final.bias"][:, None, None]
    tokens = maps.reshape(2, 5, maps_per_joint * 6)
    with torch.no_grad():
        simcc_x, simcc_y = head(torch.from_numpy(x))
    assert np.allclose(simcc_x.numpy(), tokens @ w["classify_x.weight"].T + w["classify_x.bias"])
    assert np.allclose(simcc_y.numpy(), tokens @ w["classify_y.weight"].T + w["classify_y.bias"])


def test_patches_are_cut_row_by_row_channels_last():
    import torch

    from sdk.networks.tokenpose import _patches

    features = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    patches = _patches(features, (2, 3))
    assert patches.shape == (2, 4, 18)
    # the third patch of the second picture: rows 2 and 3, columns 0 to 2, every pixel with its three channels
    expected = [features[1, c, y, x].item() for y in (2, 3) for x in (0, 1, 2) for c in range(3)]
    assert patches[1, 2].tolist() == expected


def test_sine_positions_tell_rows_and_columns_apart():
    from sdk.networks.tokenpose import _sine_positions

    positions = _sine_positions((4, 3), 16).numpy()[0].reshape(4, 3, 16)
    assert np.abs(positions).max() <= 1
    assert (positions[:, :1, :8] == positions[:, 1:2, :8]).all()  # the first half: the row alone
    assert (positions[:1, :, 8:] == positions[1:2, :, 8:]).all()  # the second half: the column alone
    row, width = 2, 8
    angle = 2 * np.pi * (row + 1) / (4 + 1e-6)
    phases = np.array([angle / 10000 ** (2 * (i // 2) / width) for i in range(width)])
    expected = np.where(np.arange(width) % 2 == 0, np.sin(phases), np.cos(phases))
    assert np.allclose(positions[row, 0, :width], expected, atol=1e-6)

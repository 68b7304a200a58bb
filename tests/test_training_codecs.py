"""Label codecs and losses against their definitions, written here in float64 numpy."""

import numpy as np
import pytest

from sdk.errors import TrainingError

torch = pytest.importorskip("torch")

from sdk.training.codecs import (  # noqa: E402
    Smoothing,
    bins_from_coordinates,
    coordinates_from_bins,
    joint_weights,
    soft_labels,
    targets_from_keypoints,
)
from sdk.training.losses import heatmap_loss, heatmap_targets, kl_divergence, simcc_loss  # noqa: E402

RATIOS = [1.0, 1.5, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("ratio", RATIOS)
def test_round_trip_is_within_half_a_bin(ratio):
    coordinates = torch.from_numpy(np.random.default_rng(0).uniform(0, 127, 500)).float()
    back = coordinates_from_bins(bins_from_coordinates(coordinates, ratio), ratio)
    assert (back - coordinates).abs().max() <= 0.5 / ratio + 1e-4


def defined_labels(coordinate, bins, ratio, smoothing):
    """One row, from the text of the definitions."""
    axis = np.arange(bins, dtype=np.float64)
    if smoothing.kind == "equal":
        row = np.full(bins, smoothing.width / (bins - 1))
        row[int(np.rint(coordinate * ratio))] = 1 - smoothing.width
        return row
    s = smoothing.width * ratio
    d = axis - coordinate * ratio
    row = np.exp(-(d**2) / (2 * s**2)) if smoothing.kind == "gaussian" else np.exp(-np.abs(d) / s)
    return row / row.sum()


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize(
    "smoothing",
    [Smoothing("equal", 0.1), Smoothing("gaussian", 1.0), Smoothing("gaussian", 3.0), Smoothing("laplace", 2.0)],
    ids=lambda s: f"{s.kind}-{s.width}",
)
def test_labels_are_the_definition(ratio, smoothing):
    bins = int(64 * ratio)
    coordinates = np.random.default_rng(1).uniform(0.2, 62.8, (3, 5)).astype(np.float32)
    got = soft_labels(torch.from_numpy(coordinates), bins, ratio, smoothing).numpy()
    want = np.array([[defined_labels(float(c), bins, ratio, smoothing) for c in row] for row in coordinates])
    assert got.shape == (3, 5, bins)
    np.testing.assert_allclose(got.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize(
    ("x", "y", "visibility", "weight"),
    [
        (10.0, 20.0, 2, 1), (10.0, 20.0, 1, 1), (10.0, 20.0, 0, 0), (-0.2, 0.0, 2, 1), (-0.3, 0.0, 2, 0),
        (31.7, 63.7, 2, 1), (31.8, 10.0, 2, 0), (10.0, 63.8, 2, 0), (float("nan"), 1.0, 0, 0), (1e9, 1.0, 2, 0),
    ],
    ids=["inside", "occluded", "unlabelled", "left-edge", "left-of-it", "last-bin", "right", "below", "nan", "far"],
)  # fmt: skip
def test_weights_follow_visibility_and_the_crop(x, y, visibility, weight):
    keypoints = torch.tensor([[[x, y, visibility]]])
    assert joint_weights(keypoints, (64, 128), 2.0).item() == weight


def test_off_crop_joints_change_nothing():
    rng = np.random.default_rng(2)
    inside = torch.from_numpy(rng.uniform(5, 27, (2, 4, 3))).float()
    inside[..., 2] = 2
    outside = inside.clone()
    outside[:, 1, 0] = 400.0
    outside[:, 2, 2] = 0
    logits = tuple(torch.from_numpy(rng.standard_normal((2, 4, 64))).float() for _ in range(2))
    x, y, weights = targets_from_keypoints(outside, (64, 64), 2.0, Smoothing())
    assert weights.tolist() == [[1, 0, 0, 1]] * 2
    kept = [0, 3]
    x2, y2, w2 = targets_from_keypoints(inside[:, kept], (64, 64), 2.0, Smoothing())
    want = simcc_loss((logits[0][:, kept], logits[1][:, kept]), (x2, y2), w2)
    assert simcc_loss(logits, (x, y), weights) == pytest.approx(float(want), rel=1e-5)
    assert simcc_loss(logits, (x, y), weights * 0) == 0


def softmax64(values):
    shifted = np.exp(values - values.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


@pytest.mark.parametrize(("beta", "soften"), [(1.0, False), (10.0, False), (10.0, True)])
def test_kl_divergence_is_the_definition(beta, soften):
    rng = np.random.default_rng(3)
    logits = rng.standard_normal((2, 3, 32))
    targets = softmax64(rng.standard_normal((2, 3, 32)) * 3)
    p = softmax64(targets * beta) if soften else targets
    want = (p * (np.log(p) - np.log(softmax64(logits * beta)))).sum(-1)
    got = kl_divergence(torch.from_numpy(logits), torch.from_numpy(targets), beta, soften)
    np.testing.assert_allclose(got.numpy(), want, atol=1e-5)


def test_kl_divergence_of_the_target_itself_is_zero():
    labels = soft_labels(torch.tensor([[7.3, 20.0]]), 64, 2.0, Smoothing("laplace", 1.0))
    assert kl_divergence(labels.log(), labels).abs().max() < 1e-5


def test_heatmap_targets_peak_at_the_joint():
    keypoints = torch.tensor([[[20.0, 36.0, 2.0], [1.0, 1.0, 0.0]]])
    maps = heatmap_targets(keypoints, (16, 12), 4.0, 2.0)
    assert maps.shape == (1, 2, 16, 12)
    assert maps[0, 0, 9, 5] == 1
    assert maps[0, 0].argmax() == 9 * 12 + 5
    assert heatmap_loss(maps, maps, torch.ones(1, 2)) == 0
    assert heatmap_loss(maps + 1, maps, torch.tensor([[1.0, 0.0]])) == pytest.approx(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Smoothing("cosine", 1.0), "smoothing kind must be equal, gaussian or laplace (got 'cosine')"),
        (lambda: Smoothing("gaussian", 0.0), "smoothing width must be positive, in crop pixels (got 0.0)"),
        (lambda: Smoothing("equal", 1.0), "smoothing width must be between 0 and 1 for kind 'equal' (got 1.0)"),
        (lambda: Smoothing("laplace", float("nan")), "smoothing width must be positive, in crop pixels (got nan)"),
    ],
)
def test_bad_smoothing_is_refused(make, message):
    with pytest.raises(TrainingError) as error:
        make()
    assert str(error.value) == message

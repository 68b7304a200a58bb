"""Heatmap decoding against SimpleBaseline's rule, one joint at a time, in float64."""

import numpy as np
import pytest

from sdk.geometry import crop_affines
from sdk.heatmap import decode_heatmaps, merge_flipped


def reference(heatmaps, affines, size_hw):
    count, joints, height, width = heatmaps.shape
    persons = np.zeros((count, joints, 3))
    for n in range(count):
        for k in range(joints):
            values = [(-np.inf if np.isnan(v) else float(v)) for v in heatmaps[n, k].ravel()]
            index = max(range(len(values)), key=lambda i: (values[i], -i))
            score, (row, column) = values[index], divmod(index, width)
            grid = np.array(values).reshape(height, width)
            x, y = (float(column), float(row)) if score > 0 else (0.0, 0.0)
            if 1 < x < width - 1 and 1 < y < height - 1:
                x += 0.25 * np.sign(grid[row, column + 1] - grid[row, column - 1])
                y += 0.25 * np.sign(grid[row + 1, column] - grid[row - 1, column])
            crop = np.array([x * size_hw[1] / width, y * size_hw[0] / height])
            persons[n, k, :2] = affines[n, :, :2].astype(np.float64) @ crop + affines[n, :, 2]
            persons[n, k, 2] = score if np.isfinite(score) else 0
    return persons


def heatmaps_of(kind):
    rng = np.random.default_rng(7)
    maps = rng.standard_normal((3, 5, 16, 12)).astype(np.float32)
    if kind == "borders":
        maps[...] = 0
        for index, (row, column) in enumerate([(0, 0), (15, 11), (1, 5), (5, 1), (8, 10)]):
            maps[:, index, row, column] = 1
    elif kind == "ties":
        maps = rng.integers(0, 2, maps.shape).astype(np.float32)
    elif kind == "negative":
        maps = -np.abs(maps) - 1
    elif kind == "not a number":
        maps[rng.random(maps.shape) < 0.3] = np.nan
        maps[0, 0] = np.nan
    elif kind == "tiny":
        maps = maps[..., :2, :2]
    return maps


@pytest.mark.parametrize("kind", ["noise", "borders", "ties", "negative", "not a number", "tiny"])
def test_decoding_follows_the_rule(kind):
    maps = heatmaps_of(kind)
    affines = crop_affines(np.array([[10, 20, 60, 90], [-5, 0, 40, 300], [0, 0, 1, 1]], np.float32), (64, 48), 1.25)
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(reference(maps, affines, (64, 48)), nan=0.0)
    ours = decode_heatmaps(maps, affines, (64, 48))
    assert ours.dtype == np.float32
    judged = np.isfinite(maps).all(axis=(2, 3)) if kind == "not a number" else np.ones(maps.shape[:2], bool)
    np.testing.assert_allclose(ours[judged], expected[judged], atol=2e-3)
    np.testing.assert_allclose(ours[..., 2], expected[..., 2], atol=1e-6)
    assert np.isfinite(ours).all()


def test_nobody_is_legal():
    assert decode_heatmaps(np.zeros((0, 5, 16, 12), np.float32), np.zeros((0, 2, 3), np.float32), (64, 48)).shape == (
        0,
        5,
        3,
    )


@pytest.mark.parametrize("shift", [False, True])
def test_the_mirrored_map_is_turned_back(shift):
    rng = np.random.default_rng(1)
    maps, mirrored = rng.standard_normal((2, 2, 3, 4, 6)).astype(np.float32)
    merged = merge_flipped(maps, mirrored, (1, 0, 2), shift)
    for n in range(2):
        for k, partner in enumerate((1, 0, 2)):
            for x in range(6):
                source = max(0, x - 1) if shift else x
                turned = mirrored[n, partner, :, 5 - source]
                np.testing.assert_allclose(merged[n, k, :, x], (maps[n, k, :, x] + turned) / 2, rtol=1e-6)

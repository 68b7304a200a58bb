"""The similarity of joints and the area it is measured against, from their definitions."""

import math

import numpy as np
import pytest

from sdk.oks import AREA_SHARE, areas_from_boxes, joint_similarity

SIGMAS = (0.026, 0.079, 0.107)


def by_definition(first, second, area, sigma):
    distance2 = (first[0] - second[0]) ** 2 + (first[1] - second[1]) ** 2
    return math.exp(-distance2 / (2 * area * (2 * sigma) ** 2))


def test_similarity_is_the_definition_for_every_pair():
    rng = np.random.default_rng(0)
    first, second = rng.uniform(0, 100, (4, 3, 2)).astype(np.float32), rng.uniform(0, 100, (2, 3, 2))
    areas = np.array([4e4, 9e4])
    found = joint_similarity(first[:, None], second[None], areas[None], SIGMAS)  # every pose with every other
    assert found.shape == (4, 2, 3) and found.dtype == np.float64
    for n, m, k in np.ndindex(4, 2, 3):
        expected = by_definition(first[n, k].astype(float), second[m, k], areas[m], SIGMAS[k])
        assert found[n, m, k] == pytest.approx(expected, rel=1e-9)


SPECIAL = {  # distance in x, area -> similarity
    "same-place": (0.0, 100.0, 1.0),
    "same-place-no-area": (0.0, 0.0, 1.0),
    "elsewhere-no-area": (1.0, 0.0, 0.0),
    "no-place": (float("nan"), 100.0, float("nan")),
}


@pytest.mark.parametrize(("distance", "area", "expected"), SPECIAL.values(), ids=SPECIAL)
def test_special_places_and_areas(distance, area, expected):
    found = joint_similarity(np.array([[[distance, 0.0]]]), np.zeros((1, 1, 2)), np.array([area]), SIGMAS[:1])
    assert found[0, 0] == pytest.approx(expected, nan_ok=True)


def test_the_area_of_a_box_is_a_share_of_it():
    assert AREA_SHARE == 0.53
    assert areas_from_boxes(np.array([[1, 2, 31, 42], [0, 0, 1, 1]])).tolist() == pytest.approx([0.53 * 1200, 0.53])
    assert float(areas_from_boxes(np.array([0, 0, 2, 3]))) == pytest.approx(0.53 * 6)

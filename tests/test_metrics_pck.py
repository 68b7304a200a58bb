"""PCK and PCKh on tables worked by hand, and the torso rule case by case."""

import math

import numpy as np
import pytest

from sdk.evaluate.datasets.mpii import head_size_px
from sdk.evaluate.scores.pck import pck, pckh, torso_px
from sdk.skeletons import skeleton_by_name

CROWD = skeleton_by_name("crowdpose14")
MPII = skeleton_by_name("mpii16")


def person(skeleton, **joints):
    """1 x K x 3; joints not named are not annotated."""
    truth = np.zeros((1, len(skeleton.joints), 3), np.float32)
    for name, (x, y) in joints.items():
        truth[0, skeleton.joints.index(name)] = (x, y, 2)
    return truth


TORSOS = {
    # 3-4-5 triangles: left shoulder (0,0) to right hip (30,40) is 50; right shoulder (40,0) to left hip (40,30) is 30
    "longer-diagonal": (
        {"left_shoulder": (0, 0), "right_hip": (30, 40), "right_shoulder": (40, 0), "left_hip": (40, 30)},
        (0, 0, 100, 100),
        50.0,
    ),
    "one-hip-missing": (
        {"left_shoulder": (0, 0), "right_hip": (30, 40), "right_shoulder": (40, 0)},
        (0, 0, 130, 260),
        0.35 * 200.0,
    ),
    "longer-side-is-width": ({}, (10, 10, 270, 140), 0.35 * 200.0),
    "at-least-one-pixel": (
        {"left_shoulder": (5, 5), "right_hip": (5, 5), "right_shoulder": (5, 5), "left_hip": (5, 5)},
        (0, 0, 9, 9),
        1.0,
    ),
}


@pytest.mark.parametrize("case", TORSOS)
def test_torso_rule(case):
    joints, box, expected = TORSOS[case]
    got = torso_px(person(CROWD, **joints), np.array([box], np.float32), CROWD)
    assert got.tolist() == pytest.approx([expected])


# One torso of 50 px; threshold 0.2 is 10 px. Distance of the prediction from (100, 100), and whether it counts.
PCK_ROWS = {"exact": ((0, 0), 1), "inside": ((6, 7.9), 1), "on-the-line": ((6, 8), 0), "outside": ((9, 9), 0)}


@pytest.mark.parametrize("row", PCK_ROWS)
def test_pck_boundary_is_strict(row):
    (dx, dy), expected = PCK_ROWS[row]
    truth = person(CROWD, neck=(100, 100))
    predicted = truth[..., :2] + np.array([dx, dy], np.float32)
    result = pck(predicted, truth, np.array([50.0]), 0.2)
    assert result.mean == 100.0 * expected


def test_pck_is_a_micro_average_over_annotated_joints():
    truth = np.zeros((3, 14, 3), np.float32)
    truth[:, 0] = (10, 10, 2)  # joint 0: three persons, two right
    truth[0, 1] = (20, 20, 1)  # joint 1: one person, wrong
    predicted = truth[..., :2].copy()
    predicted[2, 0] += 100
    predicted[0, 1] += 100
    predicted[:, 2] = 999  # not annotated, must not count
    result = pck(predicted, truth, np.full(3, 50.0), 0.2)
    assert result.mean == pytest.approx(50.0)  # 2 of 4; a mean of joints would be 33.3
    assert result.per_joint[:2] == pytest.approx([200 / 3, 0.0])
    assert math.isnan(result.per_joint[2])
    assert result.counted[:3].tolist() == [3, 1, 0]


def test_pck_scales_with_each_persons_torso():
    truth = np.zeros((2, 14, 3), np.float32)
    truth[:, 0] = (0, 0, 2)
    predicted = truth[..., :2].copy()
    predicted[:, 0] = (15, 0)
    assert pck(predicted, truth, np.array([100.0, 50.0]), 0.2).mean == 50.0


def test_pck_counts_missing_predictions_as_misses_and_empty_as_nan():
    truth = person(CROWD, neck=(5, 5), top_head=(5, 0))
    predicted = truth[..., :2].copy()
    predicted[0, 13] = np.nan
    assert pck(predicted, truth, np.array([50.0]), 0.2).mean == 50.0
    nobody = pck(np.zeros((0, 14, 2)), np.zeros((0, 14, 3)), np.zeros(0), 0.2)
    assert math.isnan(nobody.mean)
    assert nobody.counted.sum() == 0


def test_pckh_boundary_is_not_strict_and_leaves_out_pelvis_and_thorax():
    truth = person(MPII, head_top=(0, 0), left_wrist=(0, 0), pelvis=(0, 0), thorax=(0, 0))
    predicted = truth[..., :2].copy()
    predicted[0, MPII.joints.index("head_top")] = (15, 0)  # exactly 0.5 heads of 30 px: counts
    predicted[0, MPII.joints.index("left_wrist")] = (15.1, 0)  # misses
    predicted[0, MPII.joints.index("pelvis")] = (500, 0)  # would pull the mean down
    result = pckh(predicted, truth, np.array([30.0]), 0.5, MPII)
    assert result.mean == 50.0
    assert result.per_joint[MPII.joints.index("pelvis")] == 0.0
    assert result.per_joint[MPII.joints.index("thorax")] == 100.0


def test_head_size_is_six_tenths_of_the_diagonal():
    assert head_size_px(np.array([[10, 20, 40, 60]])).tolist() == pytest.approx([30.0])  # 0.6 x 50


def test_perfect_is_100_and_shuffled_is_near_0():
    rng = np.random.default_rng(7)
    truth = np.concatenate([rng.uniform(0, 1000, (200, 16, 2)), np.full((200, 16, 1), 2.0)], axis=2)
    shuffled = truth[rng.permutation(200)][:, rng.permutation(16), :2]
    torsos = np.full(200, 60.0)
    for score in (lambda p: pck(p, truth, torsos, 0.2), lambda p: pckh(p, truth, torsos, 0.5, MPII)):
        assert score(truth[..., :2]).mean == 100.0
        assert score(shuffled).mean < 2.0

"""Augmentation: joints stay on their pixels, mirroring swaps sides, seeds decide everything."""

import numpy as np
import pytest

from sdk.errors import TrainingError
from sdk.geometry import crop_affines, inverse_affines
from sdk.skeletons import skeleton_by_name
from sdk.training.augment import Augmentation, PersonImage, augmented_crop, body_halves

cv2 = pytest.importorskip("cv2")

SKELETON = skeleton_by_name("crowdpose14")
GEOMETRIC = Augmentation(colour=0, grey=0, blur=0, cut_out=0, rotate=1, flip=0.5, half_body=0.5)


def dotted_person(seed):
    """A dark image with one bright blob a joint; the blob's colour names the joint."""
    rng = np.random.default_rng(seed)
    image = np.zeros((260, 220, 3), np.uint8)
    cells = rng.permutation(30)[:14]
    xy = np.stack([50 + 24 * (cells % 5), 60 + 24 * (cells // 5)], axis=1) + rng.uniform(-3, 3, (14, 2))
    for joint, (x, y) in enumerate(xy):
        cv2.circle(image, (round(x), round(y)), 5, (255, 255 - 15 * joint, 15 * joint), -1)
    keypoints = np.column_stack([np.round(xy), np.full(14, 2)]).astype(np.float32)
    return PersonImage(image, keypoints, np.array([40, 50, 170, 200], np.float32))


@pytest.mark.parametrize("size_hw", [(128, 128), (128, 96), (65, 97)])
@pytest.mark.parametrize("seed", range(4))
def test_joints_stay_on_their_pixels(size_hw, seed):
    crop, keypoints = augmented_crop(
        dotted_person(seed), size_hw, 1.25, SKELETON, GEOMETRIC, np.random.default_rng(seed)
    )
    assert crop.shape == (*size_hw, 3)
    flipped = SKELETON.flip_order
    orders = set()
    for joint, (x, y, _) in enumerate(keypoints):
        if 1 < x < size_hw[1] - 2 and 1 < y < size_hw[0] - 2:
            blue, green, red = (int(v) for v in crop[round(float(y)), round(float(x))])
            assert blue > 120, "a joint left its blob"
            seen = round(14 * red / max(1, (green + red)) * 255 / 210)
            orders.add("same" if abs(seen - joint) <= abs(seen - flipped[joint]) else "mirrored")
    assert orders


def test_without_augmentation_the_crop_is_the_deployed_one():
    person = dotted_person(0)
    crop, keypoints = augmented_crop(person, (128, 96), 1.25, SKELETON, Augmentation.none(), np.random.default_rng(0))
    forward = inverse_affines(crop_affines(person.box_xyxy[None], (128, 96), 1.25))[0]
    np.testing.assert_array_equal(crop, cv2.warpAffine(person.image, forward.astype(np.float64), (96, 128)))
    want = person.keypoints[:, :2] @ forward[:, :2].T + forward[:, 2]
    np.testing.assert_allclose(keypoints[:, :2], want, atol=1e-3)


def test_mirror_swaps_pairs_and_reflects_pixels():
    person = dotted_person(1)
    only_flip = Augmentation(**{**vars(Augmentation.none()), "flip": 1.0})
    plain, points = augmented_crop(person, (96, 96), 1.25, SKELETON, Augmentation.none(), np.random.default_rng(0))
    mirrored, mirrored_points = augmented_crop(person, (96, 96), 1.25, SKELETON, only_flip, np.random.default_rng(0))
    assert np.abs(plain[:, ::-1].astype(int) - mirrored).max() <= 1
    want = points[list(SKELETON.flip_order)]
    want[:, 0] = 95 - want[:, 0]
    np.testing.assert_allclose(mirrored_points, want, atol=1e-3)


def test_the_seed_decides_everything_and_the_person_is_untouched():
    person = dotted_person(2)
    before = person.image.copy(), person.keypoints.copy()
    runs = [
        augmented_crop(person, (64, 64), 1.25, SKELETON, Augmentation(cut_out=1), np.random.default_rng(s))
        for s in (5, 5, 6)
    ]
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    np.testing.assert_array_equal(runs[0][1], runs[1][1])
    assert (runs[0][1] != runs[2][1]).any()
    np.testing.assert_array_equal(person.image, before[0])
    np.testing.assert_array_equal(person.keypoints, before[1])


@pytest.mark.parametrize("name", ["coco17", "crowdpose14", "mpii16", "halpe26"])
def test_body_halves_share_no_joint(name):
    skeleton = skeleton_by_name(name)
    upper, lower = body_halves(skeleton)
    assert sorted(upper + lower) == list(range(len(skeleton.joints)))
    assert {skeleton.joints[j] for j in lower} >= {"left_knee", "right_ankle", "left_hip"}
    assert {skeleton.joints[j] for j in upper} >= {"left_wrist", "right_shoulder"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flip": 1.5}, "augmentation 'flip' is a probability, 0 to 1 (got 1.5)"),
        ({"scale": -0.1}, "augmentation 'scale' must not be negative (got -0.1)"),
    ],
)
def test_bad_augmentation_is_refused(values, message):
    with pytest.raises(TrainingError) as error:
        Augmentation(**values)
    assert str(error.value) == message

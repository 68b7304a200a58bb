"""Augmentation: joints stay on their pixels, mirroring swaps sides, seeds decide everything, looks do what they say."""

from dataclasses import replace

import numpy as np
import pytest

from sdk import ops
from sdk.errors import TrainingError
from sdk.geometry import apply_affines, crop_affines
from sdk.skeletons import skeleton_by_name
from sdk.training.augment import Augmentation, body_halves, drawn_sample
from sdk.training.dataset import raw_crop
from sdk.training.looks import LOOK, plain_look
from sdk.training.persons import PersonImage

cv2 = pytest.importorskip("cv2")

SKELETON = skeleton_by_name("crowdpose14")
GEOMETRIC = Augmentation(colour=0, grey=0, blur=0, cut_out=0, rotate=1, flip=0.5, half_body=0.5)
GEOMETRIES = {
    "usual": GEOMETRIC,
    "any way up": replace(GEOMETRIC, turn=1.0),
    "close up": replace(GEOMETRIC, half_body=0.0, close_up=1.0),
    "cut off": replace(GEOMETRIC, half_body=0.0, cut_off=1.0),
}


def dotted_person(seed):
    """A dark image with one bright blob a joint; the blob's colour names the joint."""
    rng = np.random.default_rng(seed)
    image = np.zeros((260, 220, 3), np.uint8)
    cells = rng.permutation(30)[:14]
    xy = np.stack([50 + 24 * (cells % 5), 60 + 24 * (cells // 5)], axis=1) + rng.uniform(-3, 3, (14, 2))
    for joint, (x, y) in enumerate(xy):
        cv2.circle(image, (round(x), round(y)), 5, (255, 255 - 15 * joint, 15 * joint), -1)
    keypoints = np.column_stack([np.round(xy), np.full(14, 2)]).astype(np.float32)
    return PersonImage(image, keypoints, np.array([40, 50, 170, 200], np.float32), np.ones(14, np.float32))


def crop_of(person, size_hw, augmentation, seed=0):
    drawn = drawn_sample(person, size_hw, 1.25, SKELETON, augmentation, np.random.default_rng(seed))
    return raw_crop(person.image, drawn.affine, size_hw), drawn


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size_hw", [(128, 128), (128, 96), (65, 97)])
@pytest.mark.parametrize("seed", range(4))
def test_joints_stay_on_their_pixels(size_hw, seed, geometry):
    crop, drawn = crop_of(dotted_person(seed), size_hw, GEOMETRIES[geometry], seed)
    assert crop.shape == (3, *size_hw) and crop.dtype == np.float32
    flipped = SKELETON.flip_order
    orders = set()
    for joint, (x, y, _) in enumerate(drawn.keypoints):
        if 1 < x < size_hw[1] - 2 and 1 < y < size_hw[0] - 2:
            blue, green, red = crop[:, round(float(y)), round(float(x))].tolist()
            assert blue > 120, "a joint left its blob"
            seen = round(14 * red / max(1, (green + red)) * 255 / 210)
            orders.add("same" if abs(seen - joint) <= abs(seen - flipped[joint]) else "mirrored")
    assert orders


def test_the_affine_leads_from_the_crop_to_the_joints_of_the_picture():
    person = dotted_person(3)
    _, drawn = crop_of(person, (128, 96), replace(GEOMETRIC, flip=0.0), 3)
    back = apply_affines(drawn.affine[None], drawn.keypoints[None, :, :2])[0]
    np.testing.assert_allclose(back, person.keypoints[:, :2], atol=1e-3)


def test_without_augmentation_the_crop_is_the_deployed_one():
    person = dotted_person(0)
    crop, drawn = crop_of(person, (128, 96), Augmentation.none())
    placed = crop_affines(person.box_xyxy[None], (128, 96), 1.25)
    want = ops.crop(person.image, placed, (128, 96), mean=(0, 0, 0), std=(1, 1, 1), channel_order="bgr")[0]
    np.testing.assert_allclose(crop, want, atol=0.02)  # the affine is turned round and back
    np.testing.assert_allclose(drawn.affine, placed[0], atol=1e-4)


def test_mirror_swaps_pairs_and_reflects_pixels():
    person = replace(dotted_person(1), weights=np.arange(14, dtype=np.float32))
    only_flip = replace(Augmentation.none(), flip=1.0)
    plain, straight = crop_of(person, (96, 96), Augmentation.none())
    mirrored, drawn = crop_of(person, (96, 96), only_flip)
    assert np.abs(plain[:, :, ::-1] - mirrored).max() <= 1
    order = list(SKELETON.flip_order)
    want = straight.keypoints[order]
    want[:, 0] = 95 - want[:, 0]
    np.testing.assert_allclose(drawn.keypoints, want, atol=1e-3)
    np.testing.assert_array_equal(drawn.weights, person.weights[order])


def test_the_seed_decides_everything_and_the_person_is_untouched():
    person = dotted_person(2)
    before = person.image.copy(), person.keypoints.copy()
    every = Augmentation(cut_out=1, motion_blur=1, coarse=1)
    one, same, other = (crop_of(person, (64, 64), every, seed)[1] for seed in (5, 5, 6))
    for name in ("affine", "keypoints", "weights", "look"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert (one.keypoints != other.keypoints).any() and (one.look != other.look).any()
    np.testing.assert_array_equal(person.image, before[0])
    np.testing.assert_array_equal(person.keypoints, before[1])


@pytest.mark.parametrize("seed", range(20))
def test_a_close_up_shows_a_part_of_the_person_with_some_joints(seed):
    person = dotted_person(seed)
    close = replace(Augmentation.none(), close_up=1.0)
    drawn = crop_of(person, (96, 96), close, seed)[1]
    wide = 1.25 * 150 / 96  # picture pixels in one of the whole person's crop
    inside = ((drawn.keypoints[:, :2] > -0.5) & (drawn.keypoints[:, :2] < 95.5)).all(axis=1)
    assert (inside.sum() >= 3 and drawn.affine[0, 0] <= 0.76 * wide) or np.isclose(drawn.affine[0, 0], wide)


@pytest.mark.parametrize("seed", range(12))
def test_beside_a_person_few_of_his_joints_are(seed):
    person = dotted_person(seed)
    aside = replace(Augmentation.none(), beside=1.0)
    drawn = crop_of(person, (96, 96), aside, seed)[1]
    inside = ((drawn.keypoints[:, :2] > -0.5) & (drawn.keypoints[:, :2] < 95.5)).all(axis=1)
    assert inside.mean() < 0.6
    middle = apply_affines(drawn.affine[None], np.full((1, 1, 2), 47.5, np.float32))[0, 0]
    assert ((middle >= -1) & (middle <= np.array([220, 260]) + 1)).all(), "it lies in the picture"


@pytest.mark.parametrize("seed", range(12))
def test_where_the_picture_ends_nothing_is_shown_and_no_joint_counts(seed):
    torch = pytest.importorskip("torch")
    from sdk.training.looks import with_looks

    person = dotted_person(seed)
    ends = replace(Augmentation.none(), cut_off=1.0, flip=0.5, turn=1.0)
    crop, drawn = crop_of(person, (96, 96), ends, seed)
    shown = with_looks(torch.from_numpy(crop[None] + 1), torch.from_numpy(drawn.look[None]))[0].numpy()
    dark = (shown == 0).all(axis=0)
    rows, columns = dark.all(axis=1), dark.all(axis=0)
    assert np.array_equal(dark, rows[:, None] | columns[None]), "it ends along rows or columns"
    assert rows.any() != columns.any() and 0.05 < dark.mean() < 0.5
    for (x, y, _), weight in zip(drawn.keypoints, drawn.weights, strict=True):
        if 0 <= round(float(x)) < 96 and 0 <= round(float(y)) < 96 and min(abs(x % 1 - 0.5), abs(y % 1 - 0.5)) > 0.01:
            assert weight == (not dark[round(float(y)), round(float(x))])
    assert np.abs(drawn.affine[[0, 1], [1, 0]]).max() == 0, "its crop is upright"


def looked(crop, **values):
    torch = pytest.importorskip("torch")
    from sdk.training.looks import with_looks

    look = plain_look()
    for name, value in values.items():
        look[name] = value
    looks = torch.from_numpy(np.stack([plain_look().view(np.float32), look.view(np.float32)]))
    before = torch.from_numpy(np.stack([crop, crop]))
    after = with_looks(before.clone(), looks).numpy()
    np.testing.assert_array_equal(after[0], crop)  # a plain look beside another changes nothing
    return after[1]


@pytest.fixture
def crop():
    return np.random.default_rng(0).uniform(40, 200, (3, 40, 33)).astype(np.float32)


def test_light_and_grey(crop):
    lit = looked(crop, gain=(0.9, 1.0, 1.1), offset=12)
    np.testing.assert_allclose(lit, crop * np.array([0.9, 1, 1.1])[:, None, None] + 12, rtol=1e-5)
    grey = looked(crop, grey=1)
    np.testing.assert_allclose(
        grey, np.broadcast_to(np.tensordot((0.114, 0.587, 0.299), crop, 1), crop.shape), rtol=1e-4
    )
    assert looked(crop, gain=4).max() == 255 and looked(crop, offset=-250).min() == 0


@pytest.mark.parametrize(("blur", "way"), [(1.2, (0, 0)), (0.5, (3, 0)), (0.5, (-1.5, 2.0)), (0.0, (0, 3))])
def test_blur_is_a_gaussian_along_the_way(blur, way):
    point = np.zeros((3, 31, 31), np.float32)
    point[:, 15, 15] = 255
    got = looked(point, blur_px=blur, motion_px=way)[0] / 255
    y, x = np.mgrid[-4:5, -4:5]
    steps = np.linspace(-1, 1, 9)
    deviation = max(blur, 0.5)
    kernel = sum(np.exp(-((x - s * way[0]) ** 2 + (y - s * way[1]) ** 2) / (2 * deviation**2)) for s in steps)
    np.testing.assert_allclose(got[11:20, 11:20], kernel / kernel.sum(), atol=1e-6)
    flat = looked(np.full((3, 16, 16), 90, np.float32), blur_px=blur, motion_px=way)
    np.testing.assert_allclose(flat, 90, rtol=1e-5)  # borders are carried on, not darkened


@pytest.mark.parametrize("factor", [2, 4])
def test_coarse_pixels_hold_what_they_covered(crop, factor):
    got = looked(crop, coarse=factor)
    assert np.abs(np.diff(got, axis=1)).mean() < 0.6 * np.abs(np.diff(crop, axis=1)).mean()
    assert got.mean() == pytest.approx(crop.mean(), rel=0.02)


def test_patches_hide(crop):
    patches = [[2, 3, 10, 9, 1, 2, 3], [0, 0, 1, 33, 200, 100, 50], [30, 0, 40, 33, 0, 0, 0]]
    got = looked(crop, patch=patches)
    want = crop.copy()
    want[:, 2:10, 3:9] = np.array([1, 2, 3])[:, None, None]
    want[:, 0:1] = np.array([200, 100, 50])[:, None, None]
    want[:, 30:] = 0
    np.testing.assert_array_equal(got, want)


def test_a_look_is_numbers():
    assert LOOK.itemsize == 4 * len(plain_look().view(np.float32))


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
        ({"turn": float("nan")}, "augmentation 'turn' is a probability, 0 to 1 (got nan)"),
        ({"scale": -0.1}, "augmentation 'scale' must be finite and not negative (got -0.1)"),
        ({"shift": float("inf")}, "augmentation 'shift' must be finite and not negative (got inf)"),
    ],
)
def test_bad_augmentation_is_refused(values, message):
    with pytest.raises(TrainingError) as error:
        Augmentation(**values)
    assert str(error.value) == message

"""Boxes to crops and back, against the authors' matrices and against the definition."""

import numpy as np
import pytest

from sdk import _native
from sdk.errors import InputError
from sdk.geometry import (
    apply_affines,
    boxes_around,
    boxes_from_keypoints,
    check_boxes,
    crop_affines,
    inverse_affines,
    placed_boxes,
)

pytestmark = pytest.mark.native

SIZES = {"256x192": (256, 192), "64x64": (64, 64), "128x128": (128, 128), "384x288": (384, 288), "odd": (65, 33)}


def boxes(count=5, seed=0):
    rng = np.random.default_rng(seed)
    low = rng.uniform(-50, 300, (count, 2))
    return np.concatenate([low, low + rng.uniform(1, 400, (count, 2))], axis=1).astype(np.float32)


@pytest.mark.data
@pytest.mark.parametrize("size", ["256x192", "64x64", "128x128"])
def test_crops_are_the_authors(size, parity):
    """mmpose's matrices go from the frame to the crop; ours go back."""
    table = np.load(parity / "preprocess.npz")
    images = sorted({name.split("_")[0] for name in table.files})
    assert images
    for image in images:
        case = f"{image}_{size}"
        box = table[f"{case}.box_xyxy"][None]
        ours = inverse_affines(crop_affines(box, SIZES[size], 1.25))[0]
        assert np.abs(ours - table[f"{case}.matrix"]).max() <= 2e-4 * np.abs(table[f"{case}.matrix"]).max()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("padding", [1.0, 1.25, 2.0])
def test_a_crop_holds_the_padded_box_about_its_centre(size, padding):
    height, width = SIZES[size]
    xyxy = boxes()
    affines = crop_affines(xyxy, (height, width), padding)
    corners = np.tile(np.array([[0, 0], [width, height]], np.float32), (len(xyxy), 1, 1))
    framed = apply_affines(affines, corners)
    centre = (xyxy[:, :2] + xyxy[:, 2:]) / 2
    assert np.allclose(framed.mean(axis=1), centre, atol=1e-3)
    extent, wanted = framed[:, 1] - framed[:, 0], (xyxy[:, 2:] - xyxy[:, :2]) * padding
    assert (extent >= wanted * (1 - 1e-5)).all()
    assert np.allclose((extent / wanted).min(axis=1), 1, atol=1e-4)  # and no larger than it must be
    assert np.allclose(extent[:, 0] / width, extent[:, 1] / height, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_the_way_there_and_back(size):
    affines = crop_affines(boxes(7), SIZES[size], 1.25)
    points = np.random.default_rng(1).uniform(0, 200, (7, 9, 2)).astype(np.float32)
    back = apply_affines(inverse_affines(affines), apply_affines(affines, points))
    assert np.abs(back - points).max() < 2e-2


def affines_by_numpy(boxes_xyxy, size_hw, padding):
    """The definition, in float64, as the extension has to round it."""
    height, width = size_hw
    x1, y1, x2, y2 = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4).T
    scale = np.maximum(x2 - x1, (y2 - y1) * (width / height)) * (padding / width)
    affines = np.zeros((len(scale), 2, 3), np.float32)
    affines[:, 0, 0] = affines[:, 1, 1] = scale
    affines[:, 0, 2] = (x1 + x2 - scale * width) / 2
    affines[:, 1, 2] = (y1 + y2 - scale * height) / 2
    return affines


LAYOUTS = {
    "contiguous": lambda table: table,
    "strided": lambda table: np.repeat(np.repeat(table, 2, 0), 2, 1)[::2, ::2],
    "backwards": lambda table: table[::-1][::-1],
    "Fortran": np.asfortranarray,
    "read-only": lambda table: np.frombuffer(table.tobytes(), table.dtype).reshape(table.shape),
    "big-endian": lambda table: table.astype(table.dtype.newbyteorder(">")),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", [np.dtype(code).name for code in "bBhHiIqQefd"])
def test_boxes_and_crops_of_every_number_type_are_numpys_to_the_bit(dtype, layout):
    table = boxes(40, seed=3).clip(0, 120).round(3)
    table[:, 2:] = np.maximum(table[:, 2:], table[:, :2] + 1)
    given = layout(table.astype(dtype))
    checked = check_boxes(given)
    np.testing.assert_array_equal(checked, np.array(given, np.float32))
    for size_hw, padding in (((256, 192), 1.25), ((65, 33), 2.0)):
        expected = affines_by_numpy(checked, size_hw, padding)
        np.testing.assert_array_equal(crop_affines(checked, size_hw, padding), expected)
        np.testing.assert_array_equal(crop_affines(given, size_hw, padding), affines_by_numpy(given, size_hw, padding))


def test_boxes_of_torch_are_boxes():
    torch = pytest.importorskip("torch")
    given = torch.tensor([[1, 2, 3, 4], [5, 6, 9, 9]])
    assert check_boxes(given).tolist() == given.tolist() and check_boxes(given.double()).tolist() == given.tolist()


def test_the_gravest_fault_is_named_before_the_first_box():
    with pytest.raises(InputError, match="box 2 must be finite"):
        check_boxes([[0, 7, 5, 7], [40, 0, 30, 5], [0, NAN, 5, 5]])
    with pytest.raises(InputError, match="box 1 has no area: x2"):
        check_boxes([[0, 7, 5, 7], [40, 0, 30, 5]])


def test_no_boxes_no_crops():
    empty = check_boxes([])
    assert (empty.shape, empty.dtype) == ((0, 4), np.float32)
    assert crop_affines(empty, (64, 64), 1.25).shape == (0, 2, 3)
    assert inverse_affines(crop_affines(empty, (64, 64), 1.25)).shape == (0, 2, 3)


@pytest.mark.parametrize(
    "given",
    [
        [[1, 2, 3, 4]],
        np.array([[1, 2, 3, 4]], np.float64),
        np.array([[1, 2, 3, 4, 9]], np.int64)[:, :4],
        np.array([[1], [2], [3], [4]], np.float32).T,
        (1, 2, 3, 4),
        np.array([1, 2, 3, 4], np.float32),
    ],
    ids=["list", "float64", "strided integers", "Fortran order", "one bare", "one bare array"],
)
def test_boxes_of_any_kind_become_float32(given):
    checked = check_boxes(given)
    assert (checked.dtype, checked.flags.c_contiguous) == (np.float32, True)
    assert checked.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("shape", [(4,), (2, 4)], ids=str)
def test_checked_boxes_are_a_copy(shape):
    buffer = np.tile(np.array([1, 2, 3, 4], np.float32), (*shape[:-1], 1)).reshape(shape)
    checked = check_boxes(buffer)
    buffer[:] = 9
    assert checked.tolist() == [[1, 2, 3, 4]] * len(checked)


NAN = float("nan")
BAD = {
    "text": ("a box", "boxes must be an N x 4 array of numbers"),
    "ragged": ([[1, 2, 3], [1, 2, 3, 4]], "boxes must be an N x 4 array of numbers"),
    "two boxes flat": ([1, 2, 3, 4] * 2, "boxes must have the shape N x 4, xyxy in pixels (got (8,))"),
    "five values": ([[1, 2, 3, 4, 5]], "boxes must have the shape N x 4, xyxy in pixels (got (1, 5))"),
    "NaN": ([[0, 0, 5, 5], [0, NAN, 5, 5]], "box 1 must be finite numbers (got [0.0, nan, 5.0, 5.0])"),
    "infinite": ([[0, 0, float("inf"), 5]], "box 0 must be finite numbers"),
    "near float32's end": (
        [[0, 0, 5, 5], [-3e38, 0, 3e38, 5]],
        "box 1 must lie within 2^30 pixels of the frame's corner (got [-3",
    ),
    "beyond the crop's reach": ([[0, 0, 5, 2.0**30 + 128]], "box 0 must lie within 2^30 pixels"),
    "inverted x": ([[40, 0, 30, 5]], "box 0 has no area: x2 must exceed x1 (got x1=40.0, x2=30.0)"),
    "no height": ([[0, 0, 5, 5], [0, 7, 5, 7]], "box 1 has no area: y2 must exceed y1 (got y1=7.0, y2=7.0)"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_box_is_refused(case):
    given, message = BAD[case]
    with pytest.raises(InputError) as caught:
        check_boxes(given)
    assert message in str(caught.value)


def test_the_farthest_boxes_have_finite_crops():
    far = 2.0**30
    affines = crop_affines(check_boxes([[-far, -far, far, far], [far - 64, 0, far, 1]]), (256, 192), 1.25)
    assert np.isfinite(affines).all() and np.isfinite(inverse_affines(affines)).all()


def test_boxes_around_joints():
    keypoints = np.array([[[10, 20], [30, 60], [90, 90]], [[5, 5], [6, 6], [7, 7]]], np.float32)
    scores = np.array([[0.9, 0.3, 0.1], [0.9, 0.1, 0.1]], np.float32)
    found = boxes_from_keypoints(keypoints, scores, threshold=0.3, margin=0.1)
    assert found[0].tolist() == pytest.approx([8, 16, 32, 64])
    assert np.isnan(found[1]).all()  # one joint is no box


def test_boxes_around_joints_in_a_line_are_none():
    keypoints = np.array([[[10, 20], [10, 60]]], np.float32)
    assert np.isnan(boxes_from_keypoints(keypoints, np.ones((1, 2), np.float32), threshold=0.3)).all()


def box_reference(keypoints, counted, margin):  # K x 2, K
    """4 by the definition; NaN along an axis where a joint's place is."""
    low, high = np.full(2, np.inf, np.float32), np.full(2, -np.inf, np.float32)
    for place in keypoints[counted]:
        low, high = np.minimum(low, place), np.maximum(high, place)
    with np.errstate(invalid="ignore"):
        box = np.concatenate((low - np.float32(margin) * (high - low), high + np.float32(margin) * (high - low)))
        return np.full(4, np.nan, np.float32) if (high - low <= 0).any() else box


@pytest.mark.parametrize("seed", range(10))
def test_boxes_around_joints_are_the_definitions(seed):
    """Of all, some and no joints, doubles, places that are not a number, to the bit."""
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(-50, 500, (40, 9, 2)).astype(np.float32)
    counted = rng.random((40, 9)) < rng.choice([0, 0.2, 0.5, 1], (40, 1))
    keypoints[30:, :, 0] = np.round(keypoints[30:, :1, 0])
    keypoints[rng.random((40, 9, 2)) < 0.02] = np.nan
    expected = [box_reference(*each, 0.15) for each in zip(keypoints, counted, strict=True)]
    np.testing.assert_array_equal(boxes_around(keypoints, counted), expected)
    np.testing.assert_array_equal(boxes_around(keypoints[:, ::-1], counted[:, ::-1]), expected)


def test_the_native_op_refuses_another_number_of_joints():
    out, keypoints = np.empty((1, 4), np.float32), np.zeros((1, 3, 2), np.float32)
    with pytest.raises(ValueError, match="must agree in persons and joints"):
        _native.boxes_around(out, keypoints, np.ones((1, 4), bool), 0.1)


def test_boxes_around_nobody():
    assert boxes_from_keypoints(np.zeros((0, 17, 2), np.float32), np.zeros((0, 17), np.float32), 0.3).shape == (0, 4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_boxes_placed_in_one_call_are_those_checked_and_their_affines(dtype, count):
    corner = np.random.default_rng(count).uniform(0, 90, (count, 2))
    boxes = np.concatenate([corner, corner + 40.7], axis=1).astype(dtype)
    checked, affines = placed_boxes(boxes, (256, 192), 1.25)
    assert np.array_equal(checked, check_boxes(boxes)) and checked.dtype == np.float32
    assert np.array_equal(affines, crop_affines(checked, (256, 192), 1.25))


def test_placing_names_the_bad_box_as_checking_does():
    boxes = np.array([[0, 0, 9, 9], [0, 7, 5, 7], [40, 0, 30, 5]], np.float32)
    with pytest.raises(InputError) as checking:
        check_boxes(boxes)
    with pytest.raises(InputError) as placing:
        placed_boxes(boxes, (256, 192), 1.25)
    assert str(placing.value) == str(checking.value)

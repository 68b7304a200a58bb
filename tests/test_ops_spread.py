"""The columns that `sdk.ops.decode` adds on request, on the CPU: depth, spread, second peak. Against the float64
reference, the authors' third axis, and in words when misused."""

import numpy as np
import pytest

from tests.support.ops_cases import DECODE_CASES, REFINEMENTS, SCORES, special_rows, third_axis, wide_rows
from tests.support.ops_reference import decode_reference, spread_reference

pytestmark = pytest.mark.native

ops = pytest.importorskip("sdk.ops", exc_type=ImportError)
native = pytest.importorskip("sdk._native", exc_type=ImportError)

from sdk.errors import InputError  # noqa: E402

IDENTITY = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
SPREAD = ops.Spread(sharpness=0.7, gain=1.2, curve=0.01, floor=0.5)
RULE = (SPREAD.sharpness, SPREAD.gain, SPREAD.curve, SPREAD.floor)
EXP_ERROR = 1.1e-4  # of the weights, beside float32's rounding


def assert_columns(joints, expected, affines, refine):
    assert joints.dtype == np.float32
    assert joints.shape == expected.shape
    assert np.array_equal(np.isnan(joints), np.isnan(expected))
    slack = (1e-4 if refine != "none" else 0) * np.abs(affines[:, :, :2]).sum(axis=(1, 2))[:, None, None]
    slack = slack + np.abs(expected) * 2**-22 + 1e-6
    slack[..., 4:6] += 4 * EXP_ERROR * expected[..., 4:6]
    wrong = np.abs(joints - expected) > slack
    assert not wrong.any(), (joints[wrong], expected[wrong])


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["float32", "float16"])
@pytest.mark.parametrize("case", DECODE_CASES, ids=str)
def test_every_column_is_the_references(case, dtype, score):
    (x, y), z, affines = case.logits(dtype), third_axis(case, dtype), case.affines()
    refine = REFINEMENTS[SCORES.index(score)]
    pixels = score == "mean_logit"
    options = {"score": score, "refine": refine, "simcc_z": z, "second": True}
    joints = ops.decode(x, y, affines, case.split_ratio, depth=ops.Depth(2.5, pixels), spread=SPREAD, **options)
    expected = decode_reference(x, y, affines, case.split_ratio, depth=(2.5, pixels), spread=RULE, **options)
    assert_columns(joints, expected, affines, refine)


@pytest.mark.parametrize("shift", [False, True], ids=["unshifted", "shifted"])
@pytest.mark.parametrize("case", [c for c in DECODE_CASES if 0 < c.persons < 9], ids=str)
def test_flip_merge_takes_the_third_axis(case, shift):
    (x, y), z, affines = case.logits(), third_axis(case), case.affines()
    rng = np.random.default_rng(8)
    flipped = tuple((rng.standard_normal(rows.shape) * 4).astype(np.float32) for rows in (x, y, z))
    options = {"simcc_z": z, "second": True, "flipped": flipped, "refine": "dark"}
    joints = ops.decode(
        x, y, affines, case.split_ratio, depth=ops.Depth(2.5), spread=SPREAD, flip_pairs=case.flip_pairs(),
        flip_shift=shift, **options,
    )  # fmt: skip
    expected = decode_reference(
        x,
        y,
        affines,
        case.split_ratio,
        depth=(2.5, False),
        spread=RULE,
        partner=case.partner(),
        shift=int(shift),
        **options,
    )
    assert_columns(joints, expected, affines, "dark")


@pytest.mark.parametrize("rows", special_rows(), ids=str)
def test_special_rows(rows):
    for dtype in (np.float32, np.float16):
        x, y = (row[None, None] for row in special_rows(dtype)[rows])
        for z in (x, y):
            options = {"simcc_z": z, "second": True}
            joints = ops.decode(x, y, IDENTITY, 2.0, depth=ops.Depth(2.5), spread=SPREAD, **options)
            expected = decode_reference(x, y, IDENTITY, 2.0, depth=(2.5, False), spread=RULE, **options)
            assert_columns(joints, expected, IDENTITY, "none")


def test_columns_come_in_their_order_whatever_is_asked_for():
    (x, y), z = DECODE_CASES[0].logits(), third_axis(DECODE_CASES[0])
    affines = DECODE_CASES[0].affines()
    every = ops.decode(x, y, affines, 2.0, simcc_z=z, depth=ops.Depth(2.5), spread=SPREAD, second=True)
    assert np.array_equal(every[..., :3], ops.decode(x, y, affines, 2.0))
    assert np.array_equal(every[..., :4], ops.decode(x, y, affines, 2.0, simcc_z=z, depth=ops.Depth(2.5)))
    spread = ops.decode(x, y, affines, 2.0, spread=SPREAD)
    assert np.array_equal(every[..., 4:6], spread[..., 3:])
    both = ops.decode(x, y, affines, 2.0, spread=SPREAD, second=True)
    assert np.array_equal(every[..., 6:], both[..., 5:], equal_nan=True)
    columns = ops.Columns(depth=True, spread=True, second=True)
    assert columns.count == 8
    assert np.array_equal(columns.spread_of(every), every[..., 4:6])
    assert np.array_equal(columns.second_of(every), every[..., 6:8], equal_nan=True)
    assert ops.Columns().depth_of(every) is ops.Columns().spread_of(every) is ops.Columns().second_of(every) is None


@pytest.mark.parametrize("case", [DECODE_CASES[0], DECODE_CASES[4], DECODE_CASES[5]], ids=str)
def test_instruction_sets_agree_bit_for_bit(case):
    best, results = native.instruction_set(), []
    (x, y), z = case.logits(), third_axis(case)
    for name in ("baseline", "avx2", "avx512"):
        try:
            native.set_instruction_set(name)
        except ValueError:
            continue
        for rows in ((x, y), wide_rows(case)):
            options = {"simcc_z": z, "depth": ops.Depth(2.5), "spread": SPREAD, "second": True, "refine": "dark"}
            results.append(ops.decode(*rows, case.affines(), case.split_ratio, **options))
    native.set_instruction_set(best)
    assert all(np.array_equal(results[i % 2], other, equal_nan=True) for i, other in enumerate(results))


# ---- the third axis ----------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize("name", ["384x288x288_k2", "256x192x192_k2", "96x64x48_k1.5"])
def test_depths_are_the_authors(parity, name):
    table = np.load(parity / "more/simcc3d-decode.npz")
    split_ratio, span = float(name.split("_k")[1]), float(table[f"{name}.z_range"])
    x, y, z = (table[f"{name}.simcc_{axis}"] for axis in "xyz")
    joints = ops.decode(x, y, np.repeat(IDENTITY, len(x), 0), split_ratio, simcc_z=z, depth=ops.Depth(span))
    scores, seen = table[f"{name}.scores"], table[f"{name}.scores"] > 0
    assert np.array_equal(joints[..., 2], scores)  # z has no say
    assert not seen.all()
    assert np.isnan(joints[..., 3][~seen]).all()  # theirs: a bin of -1, which looks like a depth
    np.testing.assert_allclose(joints[seen][:, [0, 1, 3]], table[f"{name}.keypoints"][seen], rtol=2e-6, atol=2e-7)
    bins = (joints[..., 3] / span + 1) * z.shape[2] / 2
    assert np.array_equal(np.round(bins[seen]), table[f"{name}.bins"][seen][:, 2])


def test_z_is_not_reversed_when_mirrored_and_joints_change_places():
    x, z = np.full((1, 2, 40), -9, np.float32), np.full((1, 2, 20), -9, np.float32)
    x[0, :, 7], z[0, 0, 3], z[0, 1, 15] = 3, 2, 2
    flipped = x[..., ::-1].copy(), x, z[:, ::-1].copy()
    joints = ops.decode(x, x, IDENTITY, 1.0, simcc_z=z, depth=ops.Depth(10.0), flipped=flipped, flip_pairs=[(0, 1)])
    np.testing.assert_allclose(joints[0, :, 3], [-7, 5])


# ---- how sure ----------------------------------------------------------------------------------------------------


def gaussian_rows(deviation, count=200):
    centres = np.random.default_rng(4).uniform(150, 512 - 150, (1, count))
    return (-((np.arange(512) - centres[..., None]) ** 2) / (2 * deviation**2)).astype(np.float32)


@pytest.mark.parametrize("deviation", [1.6, 2.5, 4, 7, 12, 20])
@pytest.mark.parametrize("sharpness", [1.0, 10.0])
def test_the_spread_of_a_gaussian_is_its_deviation(deviation, sharpness):
    rows = gaussian_rows(deviation) / np.float32(sharpness)
    found = ops.decode(rows, rows, IDENTITY, 2.0, spread=ops.Spread(sharpness))[..., 3:]
    np.testing.assert_allclose(found, deviation / 2, rtol=0.08)


def test_a_second_peak_does_not_widen_the_spread_of_the_first_and_is_told():
    rows = gaussian_rows(3.0)
    other = np.roll(rows, 60, axis=2) - np.float32(0.3)
    both = np.maximum(rows, other)
    alone = ops.decode(rows, rows, IDENTITY, 2.0, spread=ops.Spread(), second=True)
    beside = ops.decode(both, rows, IDENTITY, 2.0, spread=ops.Spread(), second=True)
    np.testing.assert_allclose(beside[..., 3:5], alone[..., 3:5], rtol=0.02)
    assert np.isnan(alone[..., 5:]).all()
    np.testing.assert_allclose(beside[..., 5] - beside[..., 0], 30)
    assert np.array_equal(beside[..., 6], beside[..., 1])  # along y there is one peak


@pytest.mark.parametrize(("drop", "told"), [(0.5, True), (0.69, True), (0.70, False)])
def test_a_second_peak_counts_from_half_the_weight_on(drop, told):
    row = np.full((1, 1, 128), -20, np.float32)
    row[..., 30], row[..., 90] = 5, 5 - drop
    found = ops.decode(row, row, IDENTITY, 1.0, spread=ops.Spread(), second=True)[0, 0, 5:]
    assert np.array_equal(found, [90, 90] if told else [np.nan, np.nan], equal_nan=True)


@pytest.mark.parametrize(("distance", "told"), [(16, False), (17, True)])
def test_what_lies_within_the_gap_is_the_same_peak(distance, told):
    row = np.full((1, 1, 128), -20, np.float32)
    row[..., 30], row[..., 30 + distance] = 5, 4.9
    found = ops.decode(row, row, IDENTITY, 1.0, spread=ops.Spread(), second=True)[0, 0, 5]
    assert (not np.isnan(found)) == told


def test_the_spread_is_taken_through_the_affine():
    x, y = gaussian_rows(4.0, 3), gaussian_rows(8.0, 3)
    crop = ops.decode(x, y, IDENTITY, 2.0, spread=ops.Spread())[..., 3:]
    turned = np.array([[[0, -3, 50], [2, 0, 10]]], np.float32)
    frame = ops.decode(x, y, turned, 2.0, spread=ops.Spread())[..., 3:]
    np.testing.assert_allclose(frame, np.stack([3 * crop[..., 1], 2 * crop[..., 0]], -1), rtol=1e-6)


def test_calibration_is_a_parabola_of_the_variance():
    rows = DECODE_CASES[1].logits()
    affines = np.repeat(IDENTITY, 3, 0)
    raw = ops.decode(*rows, affines, 1.0, spread=ops.Spread())[..., 3:].astype(np.float64) ** 2
    held = ops.decode(*rows, affines, 1.0, spread=ops.Spread(1.0, 2.0, 0.25, 3.0))[..., 3:]
    np.testing.assert_allclose(held**2, 3 + 2 * raw + 0.25 * raw**2, rtol=1e-5)


def test_coarse_exponentials_are_as_good_as_said():
    """One sample a side at the same fall: the variance tells the weight."""
    for fall in np.linspace(0, 80, 401):
        row = np.full(9, -np.float32(fall))
        row[4] = 0
        rows = np.array(row, np.float32)[None, None]
        found = ops.decode(rows, rows, IDENTITY, 1.0, spread=ops.Spread())[0, 0, 3].astype(np.float64) ** 2
        assert found == pytest.approx(spread_reference(row.astype(np.float64), 1.0), rel=2 * EXP_ERROR, abs=1e-37)


X, Y, Z = np.zeros((2, 3, 8), np.float32), np.zeros((2, 3, 9), np.float32), np.zeros((2, 3, 7), np.float32)
TWO = np.zeros((2, 2, 3), np.float32)
GOOD = {"simcc_x": X, "simcc_y": Y, "affines": TWO, "split_ratio": 2.0}
THREE = {"simcc_z": Z, "depth": ops.Depth(1.0)}
MISUSE = {
    "z-without-depth": ({"simcc_z": Z}, "simcc_z and depth must come together"),
    "depth-without-z": ({"depth": ops.Depth(1.0)}, "simcc_z and depth must come together"),
    "z-of-other-joints": ({**THREE, "simcc_z": Z[:, :2].copy()}, "simcc_z must agree with simcc_x in persons, joints"),
    "z-of-half": ({**THREE, "simcc_z": Z.astype(np.float16)}, "simcc_z must agree with simcc_x"),
    "z-of-no-bins": ({**THREE, "simcc_z": Z[..., :0].copy()}, "simcc_z must have at least one bin"),
    "second-alone": ({"second": True}, "second must come with spread"),
    "out-too-narrow": ({**THREE, "out": np.zeros((2, 3, 3), np.float32)}, r"out must be 2 x 3 x 4 float32"),
    "two-mirrored-of-three": (
        {**THREE, "flipped": (X, Y), "flip_pairs": []},
        r"flipped must hold the mirrored crops' logits of all 3 axes \(got 2\)",
    ),
    "three-mirrored-of-two": ({"flipped": (X, Y, Z), "flip_pairs": []}, r"all 2 axes \(got 3\)"),
    "other-z-bins": ({**THREE, "flipped": (X, Y, X), "flip_pairs": []}, r"flipped\[2\] must have the shape"),
}


@pytest.mark.parametrize(("change", "message"), MISUSE.values(), ids=MISUSE)
def test_misuse_is_told_in_words(change, message):
    with pytest.raises(InputError, match=message):
        ops.decode(**{**GOOD, **change})


RULES = {
    "span-0": (lambda: ops.Depth(0), r"depth.span must be positive \(got 0\)"),
    "span-nan": (lambda: ops.Depth(float("nan")), "depth.span must be positive"),
    "sharpness-0": (lambda: ops.Spread(0), r"spread.sharpness must be positive, at most 1e\+06 \(got 0\)"),
    "gain-negative": (lambda: ops.Spread(gain=-1.0), r"spread.gain must be 0 or more, and finite \(got -1.0\)"),
    "floor-infinite": (lambda: ops.Spread(floor=float("inf")), "spread.floor must be 0 or more, and finite"),
}


@pytest.mark.parametrize(("make", "message"), RULES.values(), ids=RULES)
def test_rules_are_checked_when_made(make, message):
    with pytest.raises(InputError, match=message):
        make()

"""`sdk.ops.decode` on the CPU: against its float64 reference, the authors' own decoding, and in words when misused."""

import numpy as np
import pytest

from tests.support.ops_cases import DECODE_CASES, REFINEMENTS, SCORES, special_rows
from tests.support.ops_reference import decode_reference

pytestmark = pytest.mark.native

ops = pytest.importorskip("sdk.ops", exc_type=ImportError)
native = pytest.importorskip("sdk._native", exc_type=ImportError)

from sdk.errors import InputError  # noqa: E402

IDENTITY = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)


def assert_joints(joints, expected, affines, *, pixels):
    """Coordinates to `pixels` of the crop, enlarged by the affine, beside float32's rounding; scores to 1e-6."""
    slack = pixels * np.abs(affines[:, :, :2]).sum(axis=2)[:, None] + np.abs(expected[..., :2]) * 2**-23
    assert (np.abs(joints[..., :2] - expected[..., :2]) <= slack + 1e-30).all()
    np.testing.assert_allclose(joints[..., 2], expected[..., 2], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["float32", "float16"])
@pytest.mark.parametrize("case", DECODE_CASES, ids=str)
def test_decode_is_the_reference(case, dtype, score):
    x, y = case.logits(dtype)
    affines = case.affines()
    joints = ops.decode(x, y, affines, case.split_ratio, score=score)
    expected = decode_reference(x, y, affines, case.split_ratio, score=score)
    assert joints.dtype == np.float32
    assert joints.shape == (case.persons, case.joints, 3)
    assert_joints(joints, expected, affines, pixels=0)


@pytest.mark.parametrize("refine", REFINEMENTS)
@pytest.mark.parametrize("case", DECODE_CASES, ids=str)
def test_refinement_is_the_reference(case, refine):
    x, y = case.logits()
    affines = case.affines()
    joints = ops.decode(x, y, affines, case.split_ratio, refine=refine)
    expected = decode_reference(x, y, affines, case.split_ratio, refine=refine)
    assert_joints(joints, expected, affines, pixels=1e-4)


@pytest.mark.parametrize("shift", [False, True], ids=["unshifted", "shifted"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["float32", "float16"])
@pytest.mark.parametrize("refine", ["none", "dark"])
@pytest.mark.parametrize("case", [c for c in DECODE_CASES if c.persons], ids=str)
def test_flip_merge_is_the_reference(case, refine, dtype, shift):
    (x, y), affines = case.logits(dtype), case.affines()
    rng = np.random.default_rng(8)
    flipped = tuple((rng.standard_normal(rows.shape) * 4).astype(dtype) for rows in (x, y))
    joints = ops.decode(
        x, y, affines, case.split_ratio, refine=refine, flipped=flipped, flip_pairs=case.flip_pairs(), flip_shift=shift
    )
    expected = decode_reference(
        x, y, affines, case.split_ratio, refine=refine, flipped=flipped, partner=case.partner(), shift=int(shift)
    )
    assert_joints(joints, expected, affines, pixels=1e-4 if refine != "none" else 0)


def test_mirrored_logits_of_the_same_peak_decode_to_it():
    x, y = np.full((1, 2, 40), -9, np.float32), np.full((1, 2, 50), -9, np.float32)
    x[0, 0, 7], x[0, 1, 30], y[0, 0, 5], y[0, 1, 6] = 3, 3, 3, 3
    mirrored_x = x[:, ::-1, ::-1].copy()
    joints = ops.decode(x, y, IDENTITY, 1.0, flipped=(mirrored_x, y[:, ::-1].copy()), flip_pairs=[(0, 1)])
    assert np.array_equal(joints[0], [[7, 5, 3], [30, 6, 3]])


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["float32", "float16"])
@pytest.mark.parametrize("rows", special_rows().items(), ids=lambda item: item[0])
def test_special_rows(rows, dtype, score):
    x, y = special_rows(dtype)[rows[0]]
    x, y = x[None, None], y[None, None]
    for refine in REFINEMENTS:
        joints = ops.decode(x, y, IDENTITY, 2.0, score=score, refine=refine)
        expected = decode_reference(x, y, IDENTITY, 2.0, score=score, refine=refine)
        assert_joints(joints, expected, IDENTITY, pixels=1e-4)


def test_a_row_of_nan_scores_0_at_the_middle_of_the_crop():
    x, y = np.full((1, 1, 384), np.nan, np.float32), np.full((1, 1, 512), np.nan, np.float32)
    affine = np.array([[[2, 0, 100], [0, 2, 50]]], np.float32)
    assert ops.decode(x, y, affine, 2.0)[0, 0].tolist() == [2 * 96 + 100, 2 * 128 + 50, 0]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("case", DECODE_CASES[:5], ids=str)
def test_instruction_sets_agree_bit_for_bit(case, score):
    best, results = native.instruction_set(), []
    x, y = case.logits()
    for name in ("baseline", "avx2", "avx512"):
        try:
            native.set_instruction_set(name)
        except ValueError:
            continue
        results.append(ops.decode(x, y, case.affines(), case.split_ratio, score=score, refine="dark"))
    native.set_instruction_set(best)
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.data
@pytest.mark.parametrize("name", ["256x192_k2", "64x64_k3", "384x288_k1.5", "128x128_k2"])
def test_bins_and_scores_are_the_authors(parity, name):
    table = np.load(parity / "decode.npz")
    split_ratio = float(name.split("_k")[1])
    x, y = table[f"{name}.simcc_x"], table[f"{name}.simcc_y"]
    affines = np.repeat(IDENTITY, len(x), axis=0)

    theirs, scores = table[f"{name}.mmpose_bins"], table[f"{name}.mmpose_scores"]
    ours = ops.decode(x, y, affines, split_ratio, score="min_logit")
    seen = scores > 0  # mmpose puts -1 in place of the bins elsewhere
    assert np.array_equal(np.round(ours[..., :2] * split_ratio)[seen], theirs[seen])
    assert np.array_equal(ours[..., 2], scores)
    codec = table[f"{name}.mmpose_codec_keypoints_0"][0]
    np.testing.assert_allclose(ours[0, :, :2][seen[0]], codec[seen[0]], rtol=1e-6)

    ours = ops.decode(x, y, affines, split_ratio, score="min_softmax")
    bins = np.round(table[f"{name}.paper_keypoints"] * split_ratio)
    assert np.array_equal(np.round(ours[..., :2] * split_ratio), bins)
    np.testing.assert_allclose(ours[..., 2], table[f"{name}.paper_scores"], rtol=2e-6)

    ours = ops.decode(x, y, affines, split_ratio, score="mean_logit")
    assert np.array_equal(np.round(ours[..., :2] * split_ratio), bins)
    np.testing.assert_allclose(ours[..., 2], (x.max(-1) + y.max(-1)) / 2, rtol=1e-6)


@pytest.mark.parametrize("refine", ["parabola", "dark"])
def test_gaussian_labels_are_recovered_between_bins(refine):
    centres = np.random.default_rng(4).uniform(20, 100, (1, 64))
    bins = np.arange(128)
    rows = (-((bins - centres[..., None]) ** 2) / (2 * 6.0**2)).astype(np.float32)
    joints = ops.decode(rows, rows, IDENTITY, 2.0, refine=refine)
    assert np.abs(joints[..., 0] * 2 - centres).max() < 1e-3
    assert np.abs(ops.decode(rows, rows, IDENTITY, 2.0)[..., 0] * 2 - centres).max() > 0.4


def test_dark_resists_the_rounding_of_logits_better_than_the_parabola():
    centres = np.random.default_rng(4).uniform(20, 100, (1, 400))
    rows = -((np.arange(128) - centres[..., None]) ** 2) / (2 * 6.0**2)
    rounded = (np.round(rows / 0.02) * 0.02).astype(np.float32)
    errors = {
        mode: np.abs(ops.decode(rounded, rounded, IDENTITY, 1.0, refine=mode)[..., 0] - centres).mean()
        for mode in REFINEMENTS
    }
    assert errors["dark"] < 0.7 * errors["parabola"]
    assert errors["dark"] < errors["none"]


X, Y = np.zeros((2, 3, 8), np.float32), np.zeros((2, 3, 9), np.float32)
TWO = np.zeros((2, 2, 3), np.float32)
GOOD = {"simcc_x": X, "simcc_y": Y, "affines": TWO, "split_ratio": 2.0}
PAIRS = {"flip_pairs": [(0, 1)]}
MISUSE = {
    "flat-logits": ({"simcc_x": X[0]}, r"simcc_x must be N x K x bins, float32 or float16 \(got 3 x 8 float32\)"),
    "double-logits": ({"simcc_y": Y.astype(float)}, r"simcc_y must be N x K x bins.*got 2 x 3 x 9 float64"),
    "mixed-dtypes": ({"simcc_y": Y.astype(np.float16)}, "simcc_y must agree with simcc_x in persons, joints and dtype"),
    "other-joints": ({"simcc_y": Y[:, :2].copy()}, "simcc_y must agree with simcc_x"),
    "strided-logits": ({"simcc_x": np.zeros((2, 3, 16), np.float32)[..., ::2]}, "simcc_x must be contiguous"),
    "other-persons": ({"affines": TWO[:1]}, r"affines must be 2 x 2 x 3 float32.*got 1 x 2 x 3"),
    "no-ratio": ({"split_ratio": 0}, r"split_ratio must be a positive number of bins per pixel \(got 0\)"),
    "nan-ratio": ({"split_ratio": float("nan")}, "split_ratio must be a positive"),
    "unknown-score": ({"score": "max"}, r"score must be one of min_logit, mean_logit, min_softmax \(got 'max'\)"),
    "unknown-refinement": ({"refine": "cubic"}, "refine must be one of none, parabola, dark, expectation"),
    "wrong-out": ({"out": np.zeros((2, 3, 2), np.float32)}, r"out must be 2 x 3 x 3 float32 \(got 2 x 3 x 2 float32\)"),
    "no-pairs": ({"flipped": (X, Y)}, "flip_pairs must be given with flipped"),
    "bad-pairs": ({"flipped": (X, Y), "flip_pairs": [(0, 3)]}, r"flip_pairs must join joints of 0..2 \(got \[0, 3\]\)"),
    "other-bins": ({"flipped": (X[..., :7].copy(), Y), **PAIRS}, "flipped.0. must have the shape"),
    "mirrored-dtype": ({"flipped": (X.astype(np.float16), Y), **PAIRS}, "flipped.0. must agree with simcc_x"),
    "no-array": ({"simcc_x": None}, "simcc_x must be a numpy array, or have DLPack"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), MISUSE.values(), ids=MISUSE)
def test_misuse_is_told_in_words(change, message):
    with pytest.raises(InputError, match=message):
        ops.decode(**{**GOOD, **change})

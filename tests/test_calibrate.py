"""Collecting ranges over real crops, and what is refused or warned of."""

import logging

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import numpy_helper

from sdk.errors import CalibrationError, InputError
from sdk.toolchain import calibrate as calibrating
from sdk.toolchain.calibrate import CalibrateOptions, calibrate, observe
from sdk.toolchain.crops import CropSet, people_from_data
from sdk.toolchain.fingerprint import fingerprint_of
from sdk.toolchain.placement import PlacementOptions, placement_of
from sdk.toolchain.ranges import METHODS
from tests.support.int8 import changed, tiny_recipe, write_photographs

pytestmark = [pytest.mark.torch, pytest.mark.native]
RECIPE = tiny_recipe()


@pytest.fixture(scope="module")
def table(tiny_model, people_crops):
    return calibrate(tiny_model, people_crops, CalibrateOptions(source="people.json"))


def test_every_tensor_that_may_be_int8_has_a_range(tiny_model, table):
    assert set(table.tensors) == set(placement_of(tiny_model, PlacementOptions(quantise_all=True)).tensors)
    for tensor in table.tensors.values():
        assert tensor.amax == tensor.candidates[tensor.method]
        assert tensor.error[tensor.method] == min(tensor.error.values())


def test_the_table_says_where_it_comes_from(tiny_model, people_crops, table):
    assert table.graph == fingerprint_of(tiny_model)
    assert (table.data.source, table.data.images, table.data.held_out, table.data.seed) == ("people.json", 20, 4, 0)
    assert table.data.sha256 == people_crops.sha256
    assert {"onnx", "onnxruntime", "simcc-edge-sdk"} <= set(table.versions)


def test_both_remedies_were_tried_and_the_better_kept(table):
    assert [trial.remedy for trial in table.trials] == ["range equalisation", "bias correction"]
    for trial in table.trials:
        assert trial.kept == (trial.applied < trial.without)
    assert bool(table.equalisation) == table.trials[0].kept
    assert table.correct_bias == table.trials[1].kept


def test_calibrating_twice_gives_the_same_table(tiny_model, people_crops, table):
    assert calibrate(tiny_model, people_crops, CalibrateOptions(source="people.json")) == table


@pytest.mark.parametrize("method", list(METHODS))
def test_a_named_method_is_used_for_every_tensor(tiny_model, people_crops, method):
    table = calibrate(tiny_model, people_crops.some(range(5)), CalibrateOptions(method=method, equalise=False))
    assert {tensor.method for tensor in table.tensors.values()} == {method}


def test_channel_means_are_those_of_the_activations(tiny_model, people_crops):
    seen = observe(tiny_model, people_crops, ("input", "block"), batch=3)
    inputs = np.concatenate([part.inputs for part in people_crops.batches(20)])
    means = seen["input"].channel_sum / seen["input"].values_a_channel
    np.testing.assert_allclose(means, inputs.mean(axis=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen["input"].channel_peak, np.abs(inputs).max(axis=(0, 2, 3)))


def test_an_interrupted_calibration_goes_on_where_it_was(tiny_model, people_crops, tmp_path, monkeypatch, caplog):
    state = tmp_path / "state.npz"
    whole = observe(tiny_model, people_crops, ("input", "block"), batch=1)
    reads = []
    cut = CropSet._crop

    def failing(self, person, affine):
        reads.append(person)
        if len(reads) == 12:
            raise KeyboardInterrupt
        return cut(self, person, affine)

    monkeypatch.setattr(CropSet, "_crop", failing)
    with pytest.raises(KeyboardInterrupt):
        observe(tiny_model, people_crops, ("input", "block"), batch=1, state=state)
    assert state.is_file()
    reads.clear()
    monkeypatch.setattr(CropSet, "_crop", lambda self, person, affine: reads.append(1) or cut(self, person, affine))
    with caplog.at_level(logging.INFO, "sdk"):
        resumed = observe(tiny_model, people_crops, ("input", "block"), batch=1, state=state)
    assert "resuming the calibration after 8 crops" in caplog.text
    assert len(reads) == 12
    assert not state.exists()
    for name, expected in whole.items():
        assert (resumed[name].ranging.counts == expected.ranging.counts).all()
        assert (resumed[name].judging.counts == expected.judging.counts).all()
        np.testing.assert_array_equal(resumed[name].channel_sum, expected.channel_sum)


def test_a_state_of_other_crops_is_not_resumed(tiny_model, people_crops, tmp_path, caplog):
    state = tmp_path / "state.npz"
    seen = observe(tiny_model, people_crops, ("input",), batch=4)
    calibrating._save(state, "of something else", seen, 16)
    fresh = observe(tiny_model, people_crops, ("input",), batch=4, state=state)
    assert "is of another calibration and is not resumed" in caplog.text
    assert fresh["input"].ranging.total == seen["input"].ranging.total


def test_few_crops_are_warned_of(table):
    assert any("calibrating with 20 crops: fewer than 500" in warning for warning in table.warnings)
    assert not any("synthetic" in warning for warning in table.warnings)


def random_picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (90, 70, 3), dtype=np.uint8)


def constant_picture(seed):
    return np.full((90, 70, 3), 40 + seed, np.uint8)


@pytest.mark.parametrize(
    ("picture", "reason"),
    [(random_picture, "neighbouring pixels hardly resemble"), (constant_picture, "100% of the crops are one colour")],
    ids=["random", "constant"],
)
def test_pictures_that_are_no_photographs_are_warned_of(tiny_model, tmp_path, picture, reason):
    people = people_from_data(write_photographs(tmp_path, 6, picture=picture), None, RECIPE)
    table = calibrate(tiny_model, CropSet.drawn(people, RECIPE, count=6), CalibrateOptions(equalise=False))
    assert any(f"look synthetic: {reason}" in warning for warning in table.warnings)


@pytest.mark.parametrize(
    ("weights", "value", "message"),
    [
        ("second.w", np.nan, r"tensor 'block' is NaN or infinite on a crop of '\d+\.png'"),
        ("first.w", np.inf, r"tensor 'first\.silu' is NaN or infinite on a crop of"),
        ("depthwise.b", -1e9, r"tensor 'depthwise\.relu' is zero on every crop: the network or its weights are dead"),
    ],
    ids=["NaN", "infinite", "dead"],
)
def test_unusable_activations_are_named(tiny_model, people_crops, weights, value, message):
    with pytest.raises(CalibrationError, match=message):
        calibrate(changed(tiny_model, weights, value), people_crops.some(range(6)), CalibrateOptions(equalise=False))


def test_every_fifth_crop_judges_and_sets_no_range(tiny_model, people_crops):
    """Counted over batches: crops 4 and 9 of ten, in batches of four."""
    peaks = [
        observe(tiny_model, people_crops.some(range(at, at + 1)), ("block",))["block"].ranging.seen_max
        for at in range(len(people_crops))
    ]
    small, large = np.argsort(peaks)[:8], np.argsort(peaks)[-2:]
    order = [*small[:4], large[1], *small[4:], large[0]]
    seen = observe(tiny_model, people_crops.some(int(at) for at in order), ("block",), batch=4)["block"]
    values = 8 * 16 * 16
    assert (seen.ranging.total, seen.judging.total) == (8 * values, 2 * values)
    assert seen.judging.seen_max == peaks[large[1]]
    assert seen.ranging.seen_max == peaks[small[-1]] < peaks[large[0]]


def reshaped(model, shape):
    """The model with 'block' as another shape, multiplied there by a constant: a tensor to calibrate."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weight = np.ones((8, 8) if shape[-1] == 8 else (shape[-1], 8), np.float32)
    copy.graph.initializer.extend(
        [numpy_helper.from_array(np.array(shape, np.int64), "windows"), numpy_helper.from_array(weight, "by")]
    )
    copy.graph.node.extend(
        [
            onnx.helper.make_node("Reshape", ["block", "windows"], ["parts"], "/parts"),
            onnx.helper.make_node("MatMul", ["parts", "by"], ["mixed_parts"], "/mix"),
        ]
    )
    return copy


def test_the_parts_of_a_crop_side_by_side_are_the_crops(tiny_model, people_crops):
    """A window or a token layout: rows of the first axis one crop after the other."""
    few = people_crops.some(range(6))
    whole, parts = observe(reshaped(tiny_model, (-1, 64, 8)), few, ("block", "parts"), batch=4).values()
    for kind in ("ranging", "judging"):
        np.testing.assert_array_equal(getattr(whole, kind).counts, getattr(parts, kind).counts)


def test_a_tensor_whose_first_axis_is_not_the_crop_is_named(tiny_model, people_crops):
    message = r"tensor 'parts': its first axis must be the crop, .*\(got 8 x 1536 x 1 for 6 crops\); export the graph"
    with pytest.raises(CalibrationError, match=message):
        observe(reshaped(tiny_model, (8, -1, 1)), people_crops.some(range(6)), ("block", "parts"), batch=6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CropSet.drawn([], RECIPE, count=0), "images must be at least 1"),
        (lambda: CropSet.drawn([], RECIPE, count=4, jitter=0.7), "jitter from 0 to below 0.5"),
        (lambda: CalibrateOptions(method="best"), "method must be one of max, percentile, entropy, mse, auto"),
        (lambda: CalibrateOptions(batch=0), "batch must be at least 1"),
    ],
    ids=["no images", "jitter", "method", "batch"],
)
def test_options_out_of_range(call, message):
    with pytest.raises(InputError, match=message):
        call()

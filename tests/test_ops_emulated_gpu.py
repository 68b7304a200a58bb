"""The CUDA kernels, run without a GPU on emulated threads: bit for bit what the CPU half computes.

This holds the kernels' indexing, borders, word loads, reductions and stores: as C++, and as the PTX that nvcc makes of
them, where every access must be aligned as well. It says nothing of speed, nor of what ptxas makes of the PTX.
"""

import numpy as np
import pytest

from sdk.detection import letterbox
from sdk.geometry import crop_affines
from sdk.runtime.cuda.kernels import FRAME_BYTES, frame_record
from tests.support.detections import PADDING, RECORD, SIZE_HW, detected
from tests.support.emulated_gpu import EmulatedGpu, address, compiler
from tests.support.ops_cases import (
    CROP_CASES,
    DECODE_CASES,
    DETECTION_CASES,
    MEAN,
    REFINEMENTS,
    SCORES,
    STD,
    noise_frame,
    noise_nv12,
    special_rows,
    third_axis,
    unfit_rows,
    wide_rows,
)
from tests.support.ptx import in_force, ptx_libraries

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(not compiler(), reason="needs a C++ compiler"),
]

ops = pytest.importorskip("sdk.ops", exc_type=ImportError)

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["float32", "float16"])
PTX = ("oldest", "orin", "newest")  # architectures; nvcc 13.0 makes no other PTX for those between


@pytest.fixture(scope="module", params=["c++", *PTX])
def gpu(request, emulated):
    libraries = []
    if request.param in PTX:
        libraries = ptx_libraries(request.getfixturevalue("ptx_files")[request.param], emulated)
    with in_force(libraries, emulated):
        yield EmulatedGpu(emulated)


@DTYPES
@pytest.mark.parametrize("case", [c for c in CROP_CASES if c.size_hw[0] * c.size_hw[1] < 10000], ids=str)
def test_crop_is_the_cpus(gpu, case, dtype):
    frame, affines = case.frame(), case.affines()
    expected = ops.crop(frame, affines, case.size_hw, mean=MEAN, std=STD, dtype=dtype)
    for on_device in (False, True):
        out = np.full_like(expected, np.nan)
        assert gpu.crop(out, frame, affines, mean=MEAN, std=STD, on_device=on_device) == 0
        assert np.array_equal(out, expected)


@pytest.mark.parametrize("offset", range(4))
def test_any_address_and_stride(gpu, offset):
    memory = noise_frame(1, 8000).reshape(-1)
    frame = np.lib.stride_tricks.as_strided(memory[offset:], (40, 50, 3), (157, 3, 1))
    affines = np.array([[[0.8, 0, -2.25], [0, 0.9, -3.5]], [[-0.5, 0.7, 20], [0.7, 0.5, -4]]], np.float32)
    out = np.empty((2, 3, 50, 67), np.float32)
    assert gpu.crop(out, frame, affines, mean=MEAN, std=STD) == 0
    assert np.array_equal(out, ops.crop(frame, affines, (50, 67), mean=MEAN, std=STD))


@DTYPES
@pytest.mark.parametrize("value_range", ["limited", "full"])
def test_nv12_crop_is_the_cpus(gpu, dtype, value_range):
    frame = noise_nv12(60, 80)
    affines = np.array([[[1.3, 0, -5.5], [0, 1.3, -4.5]], [[1.1, -0.4, 9], [0.4, 1.1, -2]]], np.float32)
    options = {"pixel_format": "nv12", "yuv_matrix": "bt709", "yuv_range": value_range}
    expected = ops.crop(frame, affines, (40, 52), mean=MEAN, std=STD, dtype=dtype, **options)
    out = np.empty_like(expected)
    yuv = ops.yuv_to_rgb("bt709", value_range)
    assert gpu.crop(out, (frame[:60], frame[60:]), affines, mean=MEAN, std=STD, swap=False, yuv=yuv) == 0
    assert np.array_equal(out, expected)


@DTYPES
@pytest.mark.parametrize("nv12", [False, True], ids=["bgr", "nv12"])
def test_each_crop_is_of_its_own_frame(gpu, nv12, dtype):
    frames = [noise_nv12(60, 80), noise_nv12(2, 4), noise_nv12(30, 34)] if nv12 else [
        noise_frame(60, 80), noise_frame(1, 1), noise_frame(30, 33)[::-1]
    ]  # fmt: skip
    affines = np.float32(
        [[[1.3, 0, -5.5], [0, 1.3, -4.5]], [[0.2, 0, -1], [0, 0.2, -1]], [[1.1, -0.4, 9], [0.4, 1, -2]]]
    )
    options = {"mean": MEAN, "std": STD, "dtype": dtype, "pixel_format": "nv12" if nv12 else "bgr"}
    expected = ops.crop(frames, affines, (20, 26), frame_of=[0, 1, 2], **options)
    out = np.full_like(expected, np.nan)
    given = [(each[: len(each) * 2 // 3], each[len(each) * 2 // 3 :]) for each in frames] if nv12 else frames
    yuv = ops.yuv_to_rgb("bt601", "limited") if nv12 else None
    assert gpu.crop(out, given, affines, mean=MEAN, std=STD, swap=not nv12, yuv=yuv, on_device=True) == 0
    assert np.array_equal(out, expected)


MOVED = {  # where the region lies in a frame of 40 x 50: x0, y0, x1, y1
    "inside": (10, 12, 30, 28),
    "left-top": (0, 0, 20, 16),
    "right-bottom": (30, 24, 50, 40),
    "whole": (0, 0, 50, 40),
    "one-column": (49, 0, 50, 40),
    "one-row": (0, 39, 50, 40),
}


@pytest.mark.parametrize("nv12", [False, True], ids=["bgr", "nv12"])
@pytest.mark.parametrize("where", MOVED, ids=str)
def test_a_moved_region_is_cropped_as_if_it_were_still_in_the_frame(gpu, where, nv12):
    """The record's base is where the frame's corner would lie; the border stays the frame's."""
    x0, y0, x1, y1 = MOVED[where]
    frame = noise_nv12(40, 50) if nv12 else noise_frame(40, 50)
    affines = np.array([covering(x0, y0, x1, y1, (40, 50), (24, 20))], np.float32)
    options = {"mean": MEAN, "std": STD, "pixel_format": "nv12" if nv12 else "bgr"}
    expected = ops.crop(frame, affines, (24, 20), **options)
    moved, record = moved_region(frame, (x0, y0, x1, y1), nv12=nv12)
    out, yuv = np.full_like(expected, np.nan), ops.yuv_to_rgb("bt601", "limited") if nv12 else None
    one_row = frame_record(address(moved), 0, 0, 0, 1, len(moved) // (1 if nv12 else 3))
    with gpu.declared(one_row, nv12=nv12):
        gpu.crop_records(out, record, affines, mean=MEAN, std=STD, swap=not nv12, yuv=yuv)
    assert gpu.bad_reads() == 0
    assert np.array_equal(out, expected)


def covering(x0, y0, x1, y1, frame_hw, size_hw):
    """An affine whose taps fall on the pixels x0..x1 and y0..y1 of the frame, and beyond where these are its border."""
    low = [edge - (9 if edge == 0 else 0) for edge in (x0, y0)]
    high = [edge - (1 if edge < limit else -9) for edge, limit in ((x1, frame_hw[1]), (y1, frame_hw[0]))]
    steps = [(last - first - 0.6) / (side - 1) for first, last, side in zip(low, high, size_hw[::-1], strict=True)]
    return [[steps[0], 0, low[0] + 0.3], [0, steps[1], low[1] + 0.3]]


def moved_region(frame, region, *, nv12):
    """The region's bytes, row by row behind a few others, as they are packed; and the record for them."""
    x0, y0, x1, y1 = region
    if not nv12:
        rows = frame[y0:y1, x0:x1].reshape(y1 - y0, -1)
        moved = np.concatenate([np.full(6, 99, np.uint8), rows.reshape(-1), np.full(9, 99, np.uint8)])
        base = address(moved) + 6 - y0 * rows.shape[1] - 3 * x0
        return moved, frame_record(base % 2**64, 0, rows.shape[1], 0, *frame.shape[:2])
    left, right = x0 // 2 * 2, (x1 + 1) // 2 * 2
    luma, chroma = frame[y0:y1, left:right], frame[40 + y0 // 2 : 40 + (y1 + 1) // 2, left:right]
    moved, stride = np.concatenate([luma.reshape(-1), chroma.reshape(-1)]), right - left
    bases = address(moved) - y0 * stride - left, address(moved) + luma.size - y0 // 2 * stride - left
    return moved, frame_record(*(base % 2**64 for base in bases), stride, stride, 40, 50)


def test_more_crops_than_a_grid_holds_are_refused(gpu):
    affines = np.zeros((65536, 2, 3), np.float32)
    with pytest.raises(RuntimeError, match="at most 65535 crops"):
        gpu.crop(np.empty((65536, 3, 1, 1), np.float32), noise_frame(4, 4), affines, mean=MEAN, std=STD)


def assert_same_joints(joints, expected, score):
    if score != "min_softmax":
        assert np.array_equal(joints, expected)
    assert np.array_equal(joints[..., :2], expected[..., :2])
    np.testing.assert_allclose(joints[..., 2], expected[..., 2], rtol=1e-6)  # the sum runs in another order


@pytest.mark.parametrize("score", SCORES)
@DTYPES
@pytest.mark.parametrize("case", DECODE_CASES, ids=str)
def test_decode_is_the_cpus(gpu, case, dtype, score):
    (x, y), affines = case.logits(dtype), case.affines()
    refine = REFINEMENTS[SCORES.index(score) + 1]
    joints = gpu.decode(x, y, affines, case.split_ratio, score=score, refine=refine)
    assert_same_joints(joints, ops.decode(x, y, affines, case.split_ratio, score=score, refine=refine), score)


@pytest.mark.parametrize("shift", [0, 1])
@DTYPES
@pytest.mark.parametrize("case", [c for c in DECODE_CASES if 0 < c.persons < 9], ids=str)
def test_flip_merge_is_the_cpus(gpu, case, dtype, shift):
    (x, y), affines = case.logits(dtype), case.affines()
    flipped = tuple(np.ascontiguousarray(rows[::-1]) * dtype(0.7) for rows in (x, y))
    partner = ops.partners(tuple(case.flip_pairs()), case.joints)
    joints = gpu.decode(x, y, affines, case.split_ratio, flipped=flipped, partner=partner, shift=shift)
    options = {"flipped": flipped, "flip_pairs": case.flip_pairs(), "flip_shift": bool(shift)}
    assert np.array_equal(joints, ops.decode(x, y, affines, case.split_ratio, **options))


SPREAD = ops.Spread(sharpness=0.7, gain=1.2, curve=0.01, floor=0.5)
MORE = {"depth": (2.5, True), "spread": (0.7, 1.2, 0.01, 0.5), "second": True}


def every_column(x, y, z, affines, split_ratio, **options):
    """On the CPU, as MORE asks for it."""
    more = {"simcc_z": z, "depth": ops.Depth(2.5, pixels=True), "spread": SPREAD, "second": True}
    return ops.decode(x, y, affines, split_ratio, **more, **options)


@DTYPES
@pytest.mark.parametrize("case", [c for c in DECODE_CASES if c.persons < 9], ids=str)
def test_every_column_is_the_cpus(gpu, case, dtype):
    z, affines = third_axis(case, dtype), case.affines()
    for x, y in (case.logits(dtype), wide_rows(case, dtype)):
        joints = gpu.decode(x, y, affines, case.split_ratio, z=z, refine="dark", **MORE)
        expected = every_column(x, y, z, affines, case.split_ratio, refine="dark")
        assert np.array_equal(joints, expected, equal_nan=True)


@pytest.mark.parametrize(
    "asked", [{"spread": MORE["spread"]}, {"spread": MORE["spread"], "second": True}], ids=["spread", "second"]
)
def test_columns_without_a_third_axis(gpu, asked):
    (x, y), affines = wide_rows(DECODE_CASES[4]), DECODE_CASES[4].affines()
    joints = gpu.decode(x, y, affines, 1.3, **asked)
    expected = ops.decode(x, y, affines, 1.3, spread=SPREAD, second="second" in asked)
    assert np.array_equal(joints, expected, equal_nan=True)


@DTYPES
@pytest.mark.parametrize("score", ["min_logit", "min_softmax"])
def test_a_third_axis_alone(gpu, dtype, score):
    case = DECODE_CASES[1]
    (x, y), z, affines = case.logits(dtype), third_axis(case, dtype), case.affines()
    joints = gpu.decode(x, y, affines, case.split_ratio, z=z, depth=(2.5, False), score=score)
    expected = ops.decode(x, y, affines, case.split_ratio, simcc_z=z, depth=ops.Depth(2.5), score=score)
    assert_same_joints(joints[..., :3], expected[..., :3], score)
    assert np.array_equal(joints[..., 3], expected[..., 3])


@pytest.mark.parametrize("shift", [0, 1])
@DTYPES
def test_flip_merge_with_every_column_is_the_cpus(gpu, dtype, shift):
    case = DECODE_CASES[4]
    rows, affines = (*wide_rows(case, dtype), third_axis(case, dtype)), case.affines()
    flipped = tuple(np.ascontiguousarray(each[::-1]) * dtype(0.7) for each in rows)
    partner = ops.partners(tuple(case.flip_pairs()), case.joints)
    joints = gpu.decode(*rows[:2], affines, 1.3, z=rows[2], flipped=flipped, partner=partner, shift=shift, **MORE)
    options = {"flipped": flipped, "flip_pairs": case.flip_pairs(), "flip_shift": bool(shift)}
    assert np.array_equal(joints, every_column(*rows, affines, 1.3, **options), equal_nan=True)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("rows", special_rows(), ids=str)
def test_special_rows(gpu, rows, score):
    x, y = (np.ascontiguousarray(row[None, None]) for row in special_rows()[rows])
    affines = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
    joints = gpu.decode(x, y, affines, 2.0, score=score, refine="dark")
    assert_same_joints(joints, ops.decode(x, y, affines, 2.0, score=score, refine="dark"), score)
    joints = gpu.decode(x, y, affines, 2.0, z=x, score=score, **MORE)
    expected = every_column(x, y, x, affines, 2.0, score=score)
    assert np.array_equal(joints[..., 3:], expected[..., 3:], equal_nan=True)


@DTYPES
@pytest.mark.parametrize("case", DETECTION_CASES, ids=str)
def test_detections_are_the_cpus(gpu, case, dtype):
    outputs, arguments = case.outputs(dtype), case.arguments()
    found = detected(gpu.kernels, case.form, outputs, arguments)
    expected = ops.detections(outputs, case.form, **arguments)
    assert all(map(np.array_equal, found[:2], expected))


@pytest.mark.parametrize(("box", "score"), unfit_rows().values(), ids=unfit_rows())
def test_unfit_rows_are_never_chosen(gpu, box, score):
    case = DETECTION_CASES[0]
    boxes, scores = case.outputs()
    boxes[0, ::3], scores[0, ::3] = box, score
    found = detected(gpu.kernels, case.form, [boxes, scores], case.arguments())
    expected = ops.detections([boxes, scores], case.form, **case.arguments())
    assert len(expected[0]) and all(map(np.array_equal, found[:2], expected))


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64])
def test_labels_of_any_type(gpu, dtype):
    case = DETECTION_CASES[1]
    rows, labels = case.outputs()
    outputs = [rows, labels.astype(dtype)]
    found = detected(gpu.kernels, case.form, outputs, case.arguments())
    assert len(found.boxes)
    assert all(map(np.array_equal, found[:2], ops.detections(outputs, case.form, **case.arguments())))


@pytest.mark.parametrize("crops", [1, 5, 60])
def test_the_crops_of_the_persons_found_are_those_of_their_boxes(gpu, crops):
    case = DETECTION_CASES[0]
    found = detected(gpu.kernels, case.form, case.outputs(), case.arguments(), crops=crops)
    there = min(crops, len(found.boxes))
    expected = np.zeros((crops, 2, 3), np.float32)
    expected[:, :, 2] = -64
    expected[:there] = crop_affines(found.boxes[:there], SIZE_HW, PADDING)
    mirrored = expected.astype(np.float64)
    mirrored[:, :, 2] += mirrored[:, :, 0] * (SIZE_HW[1] - 1)
    mirrored[:, :, 0] *= -1
    assert np.array_equal(found.affines[0], expected)
    assert np.array_equal(found.affines[1], mirrored.astype(np.float32))
    assert [bytes(each) for each in found.records] == [RECORD] * there + [bytes(FRAME_BYTES)] * (crops - there)


@pytest.mark.parametrize("nv12", [False, True], ids=["bgr", "nv12"])
@DTYPES
def test_the_letterbox_is_the_cpus(gpu, dtype, nv12):
    frame = noise_nv12(40, 70) if nv12 else noise_frame(41, 67)
    affines = letterbox((40, 70) if nv12 else (41, 67), (32, 48), "centre").crop
    options = {"mean": MEAN, "std": STD, "pixel_format": "nv12" if nv12 else "bgr", "border": 114}
    expected = ops.crop(frame, affines, (32, 48), dtype=dtype, **options)
    out, yuv = np.full_like(expected, np.nan), ops.yuv_to_rgb("bt601", "limited") if nv12 else None
    given = (frame[:40], frame[40:]) if nv12 else frame
    assert gpu.crop(out, given, affines, mean=MEAN, std=STD, swap=not nv12, yuv=yuv, border=114) == 0
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("gpu", PTX, indirect=True)
def test_a_misaligned_access_is_named(gpu):
    """As on a GPU; on the CPU itself it passes unseen."""
    x, y = (np.frombuffer(bytearray(4 * bins + 2), np.float32, bins, offset=2).reshape(1, 1, bins) for bins in (8, 8))
    affines = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
    with pytest.raises(RuntimeError, match=r"misaligned address: 4 bytes 2 beyond a multiple of that, at .*\.ptx:\d+"):
        gpu.decode(x, y, affines, 2.0)

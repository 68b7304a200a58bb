"""The ops on a real GPU: bit for bit the CPU half, capturable, on any stream, within reach of the memory's speed."""

import struct

import numpy as np
import pytest

from sdk.detection import letterbox
from sdk.geometry import crop_affines
from tests.support.detections import PADDING, SIZE_HW, detected
from tests.support.gpu_engines import OnGpu
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
)

pytestmark = [pytest.mark.native, pytest.mark.gpu, pytest.mark.usefixtures("cuda_context")]

ops = pytest.importorskip("sdk.ops", exc_type=ImportError)

from sdk import _native  # noqa: E402

if _native.cuda is None:
    pytest.skip("sdk._native was built without nvcc", allow_module_level=True)

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["float32", "float16"])


def out_like(array):
    return OnGpu(np.full_like(array, np.nan))


@DTYPES
@pytest.mark.parametrize("case", CROP_CASES, ids=str)
def test_crop_is_the_cpus(case, dtype):
    frame, affines = case.frame(), case.affines()
    expected = ops.crop(frame, affines, case.size_hw, mean=MEAN, std=STD, dtype=dtype)
    out = out_like(expected)
    ops.crop(OnGpu(frame), OnGpu(affines), case.size_hw, mean=MEAN, std=STD, dtype=dtype, out=out)
    assert np.array_equal(out.numpy(), expected)


@DTYPES
@pytest.mark.parametrize("value_range", ["limited", "full"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_nv12_crop_is_the_cpus(dtype, matrix, value_range):
    frame = noise_nv12(360, 640)
    affines = np.array([[[1.3, 0, -5.5], [0, 1.3, -4.5]], [[1.1, -0.4, 90], [0.4, 1.1, -2]]], np.float32)
    options = {"mean": MEAN, "std": STD, "pixel_format": "nv12", "yuv_matrix": matrix, "yuv_range": value_range}
    expected = ops.crop(frame, affines, (256, 192), dtype=dtype, **options)
    out = out_like(expected)
    ops.crop(OnGpu(frame), OnGpu(affines), (256, 192), dtype=dtype, out=out, **options)
    assert np.array_equal(out.numpy(), expected)


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_frames_at_any_address(offset):
    frame, affines = noise_frame(61, 83), np.array([[[0.8, 0, -2.25], [0, 0.9, -3.5]]], np.float32)
    expected = ops.crop(frame, affines, (80, 112), mean=MEAN, std=STD)
    out = out_like(expected)
    ops.crop(OnGpu(frame, offset=offset), OnGpu(affines), (80, 112), mean=MEAN, std=STD, out=out)
    assert np.array_equal(out.numpy(), expected)


def assert_same_joints(joints, expected, score):
    assert np.array_equal(joints[..., :2], expected[..., :2])
    if score == "min_softmax":  # the sum runs in another order
        np.testing.assert_allclose(joints[..., 2], expected[..., 2], rtol=1e-6)
    else:
        assert np.array_equal(joints[..., 2], expected[..., 2])


@pytest.mark.parametrize("refine", REFINEMENTS)
@pytest.mark.parametrize("score", SCORES)
@DTYPES
@pytest.mark.parametrize("case", DECODE_CASES, ids=str)
def test_decode_is_the_cpus(case, dtype, score, refine):
    (x, y), affines = case.logits(dtype), case.affines()
    expected = ops.decode(x, y, affines, case.split_ratio, score=score, refine=refine)
    out = out_like(expected)
    ops.decode(OnGpu(x), OnGpu(y), OnGpu(affines), case.split_ratio, score=score, refine=refine, out=out)
    assert_same_joints(out.numpy(), expected, score)


@pytest.mark.parametrize("shift", [False, True], ids=["unshifted", "shifted"])
@DTYPES
@pytest.mark.parametrize("case", [c for c in DECODE_CASES if c.persons], ids=str)
def test_flip_merge_is_the_cpus(case, dtype, shift):
    (x, y), affines = case.logits(dtype), case.affines()
    flipped = tuple(np.ascontiguousarray(rows[::-1]) * dtype(0.7) for rows in (x, y))
    expected = ops.decode(
        x, y, affines, case.split_ratio, flipped=flipped, flip_pairs=case.flip_pairs(), flip_shift=shift
    )
    out = out_like(expected)
    partner = OnGpu(ops.partners(tuple(case.flip_pairs()), case.joints))
    mirrored = tuple(OnGpu(rows) for rows in flipped)
    ops.decode(
        OnGpu(x), OnGpu(y), OnGpu(affines), case.split_ratio,
        flipped=mirrored, flip_pairs=partner, flip_shift=shift, out=out,
    )  # fmt: skip
    assert np.array_equal(out.numpy(), expected)


@pytest.mark.parametrize("score", SCORES)
@DTYPES
@pytest.mark.parametrize("rows", special_rows(), ids=str)
def test_special_rows(rows, dtype, score):
    x, y = (np.ascontiguousarray(row[None, None]) for row in special_rows(dtype)[rows])
    affines = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
    expected = ops.decode(x, y, affines, 2.0, score=score, refine="dark")
    out = out_like(expected)
    ops.decode(OnGpu(x), OnGpu(y), OnGpu(affines), 2.0, score=score, refine="dark", out=out)
    assert_same_joints(out.numpy(), expected, score)


def test_a_captured_graph_serves_other_boxes_and_frames():
    """Both ops in one graph; each crop's frame record and affine are read from device memory at each launch."""
    from pycuda import driver

    frames = [noise_frame(240, 320, seed=0), noise_frame(200, 300, seed=1)]
    affines = np.array([[[1.3, 0, -2.5], [0, 1.3, -3.5]], [[0.9, -0.4, 30], [0.4, 0.9, 2]]], np.float32)
    x, y = (rows[:2] for rows in DECODE_CASES[0].logits())
    on_gpu = [OnGpu(frame) for frame in frames]
    records = [
        struct.pack("<QQqqii", gpu.address, 0, 3 * frame.shape[1], 0, *frame.shape[:2])
        for gpu, frame in zip(on_gpu, frames, strict=True)
    ]
    held, placed = OnGpu(np.frombuffer(b"".join(records), np.uint8)), OnGpu(affines)
    crops, joints = out_like(np.empty((2, 3, 64, 48), np.float16)), out_like(np.empty((2, 17, 3), np.float32))
    logits = [OnGpu(x), OnGpu(y)]
    scale, bias = ops.normalisation(MEAN, STD)
    stream = driver.Stream()

    _native.cuda.graph_begin(stream.handle)
    _native.cuda.crop(
        crops.address,
        held.address,
        placed.address,
        2,
        64,
        48,
        scale,
        bias,
        True,
        True,
        False,
        (0,) * 6,
        stream.handle,
    )
    _native.cuda.decode(
        joints.address, logits[0].address, logits[1].address, placed.address, 2, 17, x.shape[2], y.shape[2], 2.0, 0, 2,
        False, stream.handle,
    )  # fmt: skip
    graph = _native.cuda.graph_end(stream.handle)

    for frame_of, moved in (((0, 1), affines), ((1, 0), affines + np.float32(1.5)), ((1, 1), affines)):
        driver.memcpy_htod(held.address, b"".join(records[number] for number in frame_of))
        driver.memcpy_htod(placed.address, moved)
        graph.launch(stream.handle)
        stream.synchronize()
        options = {"mean": MEAN, "std": STD, "dtype": np.float16, "frame_of": frame_of}
        expected = ops.crop(frames, moved, (64, 48), **options)
        assert np.array_equal(crops.numpy(), expected)
        assert np.array_equal(joints.numpy(), ops.decode(x, y, moved, 2.0, refine="dark"))
    graph.destroy()
    with pytest.raises(ValueError, match="destroyed"):
        graph.launch(stream.handle)


def test_a_broken_capture_is_told_and_can_be_left():
    from pycuda import driver

    stream = driver.Stream()
    with pytest.raises(RuntimeError, match="the capture broke"):
        _native.cuda.graph_end(stream.handle)
    _native.cuda.graph_begin(stream.handle)
    _native.cuda.graph_abort(stream.handle)
    _native.cuda.graph_abort(stream.handle)
    _native.cuda.graph_begin(stream.handle)
    _native.cuda.graph_end(stream.handle).destroy()


def test_too_many_crops_are_refused_in_words():
    from sdk.errors import DeviceError

    affines = OnGpu(np.zeros((65536, 2, 3), np.float32))
    out = OnGpu(np.zeros((65536, 3, 1, 1), np.float32))
    with pytest.raises(DeviceError, match="at most 65535 crops"):
        ops.crop(OnGpu(noise_frame(4, 4)), affines, (1, 1), mean=MEAN, std=STD, out=out)


def test_torch_tensors_on_the_gpu(note):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    frame, affines = noise_frame(90, 120), np.array([[[0.8, 0, 3], [0, 0.8, 2]]], np.float32)
    expected = ops.crop(frame, affines, (64, 64), mean=MEAN, std=STD)
    out = torch.empty(expected.shape, device="cuda")
    stream = torch.cuda.current_stream()
    arrays = (torch.from_numpy(frame).cuda(), torch.from_numpy(affines).cuda())
    ops.crop(*arrays, (64, 64), mean=MEAN, std=STD, out=out, stream=stream)
    assert np.array_equal(out.cpu().numpy(), expected)
    note("torch tensors: taken and filled")


@DTYPES
@pytest.mark.parametrize("case", DETECTION_CASES, ids=str)
def test_detections_are_the_cpus_however_often(case, dtype):
    from sdk.runtime.cuda.kernels import NativeKernels

    outputs, arguments = case.outputs(dtype), case.arguments()
    expected = ops.detections(outputs, case.form, **arguments)
    for _ in range(5):
        found = detected(NativeKernels(), case.form, outputs, arguments, memory=OnGpu, crops=6)
        assert all(map(np.array_equal, found[:2], expected))
        there = min(6, len(found.boxes))
        assert np.array_equal(found.affines[0, :there], crop_affines(found.boxes[:there], SIZE_HW, PADDING))


@DTYPES
def test_the_letterbox_is_the_cpus(dtype):
    frame, affines = noise_frame(721, 1283), letterbox((721, 1283), (320, 320), "centre").crop
    options = {"mean": MEAN, "std": STD, "dtype": dtype, "border": 114}
    expected = ops.crop(frame, affines, (320, 320), **options)
    out = out_like(expected)
    ops.crop(OnGpu(frame), OnGpu(affines), (320, 320), out=out, **options)
    assert np.array_equal(out.numpy(), expected)


def microseconds(stream, call, count=200):
    from pycuda import driver

    times = []
    for _ in range(count):
        begin, end = driver.Event(), driver.Event()
        begin.record(stream)
        call()
        end.record(stream)
        end.synchronize()
        times.append(begin.time_till(end) * 1000)
    return float(np.median(times))


@pytest.mark.parametrize("size_hw", [(64, 64), (128, 128), (256, 192), (384, 288)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_time_of_the_ops_is_noted(size_hw, note):
    """No limit: the report tells the times beside those of a copy of the same bytes."""
    from pycuda import driver

    count, stream = 8, driver.Stream()
    frame = OnGpu(noise_frame(1080, 1920))
    affines = OnGpu(np.repeat(np.array([[[1.4, 0, 300], [0, 1.4, 200]]], np.float32), count, 0))
    crops = out_like(np.empty((count, 3, *size_hw), np.float16))
    logits = [
        OnGpu(np.random.default_rng(0).standard_normal((count, 17, 2 * n)).astype(np.float32)) for n in size_hw[::-1]
    ]
    joints = out_like(np.empty((count, 17, 3), np.float32))
    options = {"mean": MEAN, "std": STD, "dtype": np.float16, "out": crops, "stream": stream}
    crop_us = microseconds(stream, lambda: ops.crop(frame, affines, size_hw, **options))
    decode_us = microseconds(stream, lambda: ops.decode(*logits, affines, 2.0, out=joints, stream=stream))
    half = crops.numpy().nbytes // 2
    copy_us = microseconds(stream, lambda: driver.memcpy_dtod_async(crops.address, crops.address + half, half, stream))
    times = f"crop {crop_us:.1f} us, decode {decode_us:.1f} us; a copy of the crops' bytes {copy_us:.1f} us"
    note(f"{size_hw[0]}x{size_hw[1]}, 8 persons: {times}")
    assert np.isfinite(joints.numpy()).all()

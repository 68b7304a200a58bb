"""`sdk.ops.crop` on the CPU: against its float64 reference, against OpenCV, and in words when misused."""

import numpy as np
import pytest

from tests.support.ops_cases import CROP_CASES, MEAN, STD, noise_frame, noise_nv12, turned
from tests.support.ops_reference import crop_reference, crop_tolerance

pytestmark = pytest.mark.native

ops = pytest.importorskip("sdk.ops", exc_type=ImportError)
native = pytest.importorskip("sdk._native", exc_type=ImportError)

from sdk.errors import InputError  # noqa: E402


def available_sets():
    best, found = native.instruction_set(), []
    for name in ("baseline", "avx2", "avx512"):
        try:
            native.set_instruction_set(name)
        except ValueError:
            continue
        found.append(name)
    native.set_instruction_set(best)
    return found


SETS = available_sets()


@pytest.fixture(params=SETS)
def instruction_set(request):
    best = native.instruction_set()
    native.set_instruction_set(request.param)
    yield request.param
    native.set_instruction_set(best)


def error_of(crops, expected):
    return np.abs(crops.astype(np.float64) - expected).max(initial=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["float32", "float16"])
@pytest.mark.parametrize("case", CROP_CASES, ids=str)
def test_crop_is_the_reference(case, dtype, instruction_set):
    frame, affines = case.frame(), case.affines()
    crops = ops.crop(frame, affines, case.size_hw, mean=MEAN, std=STD, dtype=dtype)
    expected = crop_reference(frame, affines, case.size_hw, mean=MEAN, std=STD)
    assert crops.dtype == dtype
    assert crops.shape == expected.shape
    assert error_of(crops, expected) <= crop_tolerance(MEAN, STD, dtype)


def test_float32_tolerance_is_within_the_contract():
    assert crop_tolerance(MEAN, STD, np.float32) < 1e-5


@pytest.mark.parametrize("value_range", ["limited", "full"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("case", [c for c in CROP_CASES if not (c.frame_hw[0] % 2 or c.frame_hw[1] % 2)], ids=str)
def test_nv12_crop_is_the_reference(case, matrix, value_range):
    frame, affines = noise_nv12(*case.frame_hw), case.affines()
    options = {"mean": MEAN, "std": STD, "pixel_format": "nv12", "yuv_matrix": matrix, "yuv_range": value_range}
    crops = ops.crop(frame, affines, case.size_hw, **options)
    expected = crop_reference(frame, affines, case.size_hw, **options)
    assert error_of(crops, expected) <= 4 * crop_tolerance(MEAN, STD, np.float32)  # the colour matrix rounds too


def test_nv12_is_the_same_for_every_instruction_set():
    frame, affines = noise_nv12(60, 80), np.array([turned(1.1, 7, 3.5, 4.5), (1.3, 0, -9, 0, 1.1, -4)], np.float32)
    crops = []
    for name in SETS:
        native.set_instruction_set(name)
        for dtype in (np.float32, np.float16):
            crops.append(
                ops.crop(
                    frame, affines.reshape(2, 2, 3), (40, 50), mean=MEAN, std=STD, pixel_format="nv12", dtype=dtype
                )
            )
    for first, *others in (crops[::2], crops[1::2]):
        assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("case", CROP_CASES, ids=str)
def test_instruction_sets_agree_bit_for_bit(case):
    crops = []
    for name in SETS:
        native.set_instruction_set(name)
        crops.append(ops.crop(case.frame(), case.affines(), case.size_hw, mean=MEAN, std=STD))
    assert all(np.array_equal(crops[0], other) for other in crops[1:])


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("pixel_format", ["rgb", "bgr"])
def test_channel_order(pixel_format, order):
    frame, affines = noise_frame(30, 40), np.array([[[1.1, 0, 2], [0, 1.2, 3]]], np.float32)
    options = {"mean": (1, 2, 3), "std": (4, 5, 6), "channel_order": order, "pixel_format": pixel_format}
    crops = ops.crop(frame, affines, (20, 20), **options)
    expected = crop_reference(frame, affines, (20, 20), **options)
    assert error_of(crops, expected) <= crop_tolerance((1, 2, 3), (4, 5, 6), np.float32)


VIEWS = {
    "padded-rows": lambda big: big[:60, :80],
    "inner-window": lambda big: big[7:67, 11:91],
    "last-rows": lambda big: big[-60:, -80:],
    "upside-down": lambda big: big[:60, :80][::-1],
    "every-second-row": lambda big: big[0:120:2, :80],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_any_row_stride(view):
    frame = view(noise_frame(130, 100))
    affines = np.array([[[1.3, 0, -2.5], [0, 1.3, -3.5]], [[0.9, -0.4, 30], [0.4, 0.9, 2]]], np.float32)
    crops = ops.crop(frame, affines, (48, 64), mean=MEAN, std=STD)
    assert np.array_equal(crops, ops.crop(frame.copy(), affines, (48, 64), mean=MEAN, std=STD))


def test_frame_of_16k_in_a_strided_view():
    frame = np.lib.stride_tricks.as_strided(noise_frame(1, 16384), (16384, 16384, 3), (0, 3, 1))
    affines = np.array([[[1, 0, 16368.5], [0, 1, 16374.25]]], np.float32)
    crops = ops.crop(frame, affines, (16, 24), mean=MEAN, std=STD)
    window, moved = frame[-32:, -32:], affines - np.float32([[[0, 0, 16352], [0, 0, 16352]]])
    assert error_of(crops, crop_reference(window, moved, (16, 24), mean=MEAN, std=STD)) <= 1e-5


def test_many_persons_and_threads_are_the_persons_alone():
    frame = noise_frame(200, 300)
    rng = np.random.default_rng(3)
    affines = rng.uniform(-1, 1, (9, 2, 3)).astype(np.float32) * np.float32([2, 2, 200])
    affines[::2, 0, 1] = affines[::2, 1, 0] = 0
    together = ops.crop(frame, affines, (96, 72), mean=MEAN, std=STD)
    alone = [ops.crop(frame, affines[i : i + 1], (96, 72), mean=MEAN, std=STD) for i in range(9)]
    assert np.array_equal(together, np.concatenate(alone))
    ops.set_threads(3)
    try:
        assert np.array_equal(together, ops.crop(frame, affines, (96, 72), mean=MEAN, std=STD))
    finally:
        ops.set_threads(1)


def frames_of_several_sizes(nv12=False):
    made = [noise_nv12(60, 80), noise_nv12(2, 4), noise_nv12(130, 34)] if nv12 else [
        noise_frame(60, 80), noise_frame(1, 1), noise_frame(130, 33)[::-1], noise_frame(90, 100)[7:, 11:]
    ]  # fmt: skip
    return made, np.array([2, 0, len(made) - 1, 1, 0, 2], np.int64)


@pytest.mark.parametrize("nv12", [False, True], ids=["bgr", "nv12"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["float32", "float16"])
def test_crops_of_several_frames_are_those_of_each(nv12, dtype, instruction_set):
    frames, frame_of = frames_of_several_sizes(nv12)
    affines = np.array([turned(1.1, 9 * (i % 2), 3.5 - 9 * i, 4.5 - i) for i in range(6)], np.float32).reshape(6, 2, 3)
    options = {"mean": MEAN, "std": STD, "dtype": dtype, "pixel_format": "nv12" if nv12 else "bgr"}
    together = ops.crop(frames, affines, (40, 52), frame_of=frame_of, **options)
    for row, number in enumerate(frame_of):
        alone = ops.crop(frames[number], affines[row : row + 1], (40, 52), **options)
        assert np.array_equal(together[row], alone[0])


def test_several_frames_and_nobody():
    nobody, options = np.zeros((0, 2, 3), np.float32), {"mean": MEAN, "std": STD}
    crops = ops.crop([noise_frame(20, 20), FRAME], nobody, (8, 8), frame_of=[], **options)
    assert crops.shape == (0, 3, 8, 8)


def test_nobody():
    crops = ops.crop(noise_frame(20, 20), np.zeros((0, 2, 3), np.float32), (8, 8), mean=MEAN, std=STD)
    assert crops.shape == (0, 3, 8, 8)


def test_empty_frame_is_black():
    crops = ops.crop(np.zeros((0, 0, 3), np.uint8), np.ones((1, 2, 3), np.float32), (4, 4), mean=MEAN, std=STD)
    assert np.allclose(crops[0, :, 0, 0], [-m / s for m, s in zip(MEAN, STD, strict=True)])


def test_out_is_filled_and_returned():
    frame, affines = noise_frame(30, 30), np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
    out = np.full((1, 3, 8, 8), np.nan, np.float16)
    assert ops.crop(frame, affines, (8, 8), mean=MEAN, std=STD, dtype=np.float16, out=out) is out
    assert np.isfinite(out).all()


def grey_levels(crops):
    """Normalised crops back to rounded grey levels, h x w x 3 in OpenCV's order."""
    grey = crops[0] * np.reshape(STD, (3, 1, 1)) + np.reshape(MEAN, (3, 1, 1))
    return np.round(grey).astype(int)[::-1].transpose(1, 2, 0)


@pytest.mark.parametrize("case", [c for c in CROP_CASES if np.abs(c.affine).max() < 1e4], ids=str)
def test_within_one_grey_level_of_opencv_on_noise(case):
    cv2 = pytest.importorskip("cv2")
    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("before OpenCV 5 warpAffine rounds positions to 1/32 pixel: several grey levels on noise")
    frame, affines = case.frame(), case.affines()
    height, width = case.size_hw
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    theirs = cv2.warpAffine(frame, affines[0].astype(np.float64), (width, height), flags=flags)
    error = np.abs(grey_levels(ops.crop(frame, affines, case.size_hw, mean=MEAN, std=STD)) - theirs.astype(int))
    assert error.max() <= 1
    assert error.mean() <= 0.25


@pytest.mark.data
def test_within_one_grey_level_of_the_authors_crops(parity, lspet):
    cv2 = pytest.importorskip("cv2")
    table = np.load(parity / "preprocess.npz")
    names = sorted({key.rsplit(".", 1)[0] for key in table.files})
    assert names
    for name in names:
        theirs = table[f"{name}.crop"]
        frame = cv2.imread(str(image_of(lspet, name.split("_")[0])))
        affine = cv2.invertAffineTransform(table[f"{name}.matrix"]).astype(np.float32)
        error = np.abs(
            grey_levels(ops.crop(frame, affine[None], theirs.shape[:2], mean=MEAN, std=STD)) - theirs.astype(int)
        )
        assert error.max() <= 1, name
        assert error.mean() <= 0.25, name


def image_of(lspet, stem):
    return next(path for path in lspet.rglob(f"{stem}.*") if path.suffix in {".jpg", ".png"})


def test_nv12_is_near_opencv_conversion_then_warp():
    cv2 = pytest.importorskip("cv2")
    frame = np.maximum(noise_nv12(120, 160), 16)  # OpenCV clamps the luma below 16, which limited range does not have
    affines = np.array([[[1.3, 0, -5.5], [0, 1.3, -4.5]]], np.float32)
    bgr = cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_NV12)
    ours = grey_levels(ops.crop(frame, affines, (64, 48), mean=MEAN, std=STD, pixel_format="nv12"))
    theirs = grey_levels(ops.crop(bgr, affines, (64, 48), mean=MEAN, std=STD))
    assert np.abs(ours - theirs).max() <= 1  # OpenCV rounds each frame pixel before it is interpolated


FRAME, ONE = np.zeros((20, 30, 3), np.uint8), np.zeros((1, 2, 3), np.float32)
FIRST = np.zeros(1, np.int32)  # the only crop is of the first frame
GOOD = {"frame": FRAME, "affines": ONE, "size_hw": (8, 8), "mean": MEAN, "std": STD}
NV12 = {"pixel_format": "nv12"}
MISUSE = {
    "float-frame": ({"frame": FRAME.astype(np.float32)}, r"frame must be H x W x 3 uint8 \(got 20 x 30 x 3 float32\)"),
    "grey-frame": ({"frame": FRAME[..., 0]}, r"frame must be H x W x 3 uint8 \(got 20 x 30 uint8\)"),
    "no-array": ({"frame": [[1]]}, "frame must be a numpy array, or have DLPack or __cuda_array_interface__ .got list"),
    "reversed-channels": ({"frame": FRAME[..., ::-1]}, "contiguous pixels in each row"),
    "strided-columns": ({"frame": FRAME[:, ::2]}, "contiguous pixels in each row"),
    "double-affines": ({"affines": ONE.astype(float)}, r"affines must be N x 2 x 3 float32.*got 1 x 2 x 3 float64"),
    "flat-affines": ({"affines": ONE[0]}, r"affines must be N x 2 x 3 float32.*got 2 x 3 float32"),
    "strided-affines": ({"affines": np.zeros((4, 2, 3), np.float32)[::2]}, "affines must be contiguous"),
    "no-height": ({"size_hw": (0, 8)}, r"size_hw must be .* 1 to 16384 pixels \(got \(0, 8\)\)"),
    "too-wide": ({"size_hw": (8, 16385)}, "size_hw must be"),
    "zero-std": ({"std": (1, 0, 1)}, "mean and std must be 3 finite grey levels each, std positive"),
    "two-means": ({"mean": (1, 2)}, "mean and std must be 3"),
    "int-dtype": ({"dtype": np.int8}, r"dtype must be float32 or float16 \(got int8\)"),
    "wrong-out": ({"out": np.zeros((1, 3, 8, 9), np.float32)}, r"out must be 1 x 3 x 8 x 8 float32 \(got 1 x 3 x 8"),
    "half-out": ({"out": np.zeros((1, 3, 8, 8), np.float16)}, "out must be 1 x 3 x 8 x 8 float32"),
    "strided-out": ({"out": np.zeros((1, 3, 8, 16), np.float32)[..., ::2]}, "out must be contiguous"),
    "read-only-out": ({"out": np.broadcast_to(np.float32(0), (1, 3, 8, 8))}, "out must be writable"),
    "unknown-order": ({"channel_order": "gbr"}, "channel_order must be rgb or bgr"),
    "unknown-format": ({"pixel_format": "yuyv"}, "pixel_format must be bgr, rgb or nv12"),
    "nv12-of-three": ({"frame": FRAME, **NV12}, r"an NV12 frame must be 3H/2 x W uint8 \(got 20 x 30 x 3"),
    "nv12-of-odd-width": ({"frame": np.zeros((30, 15), np.uint8), **NV12}, "with even sides"),
    "nv12-chroma": ({"frame": (np.zeros((20, 20), np.uint8), np.zeros((9, 20), np.uint8)), **NV12}, "H/2 x W"),
    "nv12-float": ({"frame": np.zeros((30, 16), np.float32), **NV12}, "rows of contiguous uint8"),
    "a-list-without-numbers": ({"frame": [FRAME]}, r"frame_of must be 1 whole numbers, one a crop.*got None"),
    "no-such-frame": ({"frame": [FRAME], "frame_of": [1]}, r"each the number of one of the 1 frames \(got \[1\]"),
    "numbers-for-two": ({"frame": [FRAME], "frame_of": [0, 0]}, "frame_of must be 1 whole numbers"),
    "half-a-frame": ({"frame": [FRAME], "frame_of": [0.5]}, "frame_of must be 1 whole numbers"),
    "numbers-without-a-list": ({"frame_of": [0]}, "frame_of belongs to a list of frames"),
    "a-list-with-no-frame": ({"frame": [FRAME, FRAME[..., 0]], "frame_of": [0]}, "frame must be H x W x 3 uint8"),
    "unknown-matrix": ({"yuv_matrix": "bt2020"}, "yuv_matrix must be bt601 or bt709"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), MISUSE.values(), ids=MISUSE)
def test_misuse_is_told_in_words(change, message):
    arguments = {**GOOD, **change}
    with pytest.raises(InputError, match=message):
        ops.crop(arguments.pop("frame"), arguments.pop("affines"), arguments.pop("size_hw"), **arguments)


def test_frame_above_16k_is_refused():
    frame = np.lib.stride_tricks.as_strided(FRAME, (16385, 4, 3), (0, 3, 1))
    with pytest.raises(InputError, match="frame sides must be at most 16384 pixels"):
        ops.crop(frame, ONE, (8, 8), mean=MEAN, std=STD)


def test_the_native_border_converts_nothing():
    with pytest.raises(TypeError):
        native.crop(np.zeros((1, 3, 8, 8), np.float32), [FRAME.astype(np.float32)], FIRST, ONE, STD, MEAN, False)
    with pytest.raises(ValueError, match="dtype must be float32 or float16"):
        native.crop(np.zeros((1, 3, 8, 8), np.float64), [FRAME], FIRST, ONE, STD, MEAN, False)
    with pytest.raises(ValueError, match="frame_of must hold numbers of frames"):
        native.crop(np.zeros((1, 3, 8, 8), np.float32), [FRAME], FIRST + 1, ONE, STD, MEAN, False)
    with pytest.raises(ValueError, match="the same number of crops"):
        native.crop(np.zeros((1, 3, 8, 8), np.float32), [FRAME], FIRST[:0], ONE, STD, MEAN, False)

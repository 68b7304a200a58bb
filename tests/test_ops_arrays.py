"""What the ops take as arrays: DLPack, `__cuda_array_interface__`, and words for what does not fit together."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.ops_cases import MEAN, STD, noise_frame

pytestmark = pytest.mark.native

ops = pytest.importorskip("sdk.ops", exc_type=ImportError)

from sdk import _native, ops_arrays  # noqa: E402
from sdk.errors import DeviceError, InputError, MissingDependencyError  # noqa: E402

FRAME = noise_frame(40, 50)
AFFINES = np.array([[[1.1, 0, 3], [0, 1.2, 4]]], np.float32)
NORMAL = {"mean": MEAN, "std": STD}


class OnGpu:
    """The interface of an array on a GPU, with an address that is never read."""

    def __init__(self, shape, dtype, strides=None, address=0x7F0000000000):
        interface = {"shape": shape, "typestr": np.dtype(dtype).str, "data": (address, False), "version": 3}
        self.__cuda_array_interface__ = {**interface, "strides": strides}


class DlpackOnly:
    """An array of which nothing is known but DLPack."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class ElsewhereOnly(DlpackOnly):
    def __dlpack_device__(self):
        return (8, 0)  # Metal


class DlpackOnGpu(DlpackOnly):
    """Host memory that says it is a GPU's: its description is all that is read of it."""

    def __dlpack_device__(self):
        return (2, 0)


GPU_FRAME, GPU_AFFINES = OnGpu((40, 50, 3), np.uint8), OnGpu((1, 2, 3), np.float32)
GPU_OUT, GPU_LOGITS = OnGpu((1, 3, 8, 8), np.float32), OnGpu((1, 3, 40), np.float32)


def test_dlpack_of_the_cpu_is_taken():
    expected = ops.crop(FRAME, AFFINES, (16, 16), **NORMAL)
    assert np.array_equal(ops.crop(DlpackOnly(FRAME), DlpackOnly(AFFINES), (16, 16), **NORMAL), expected)
    logits = np.random.default_rng(0).standard_normal((1, 5, 40)).astype(np.float16)
    joints = ops.decode(DlpackOnly(logits), logits, AFFINES, 2.0)
    assert np.array_equal(joints, ops.decode(logits, logits, AFFINES, 2.0))


@pytest.mark.torch
def test_torch_tensors_are_taken_and_filled():
    torch = pytest.importorskip("torch")
    out = torch.zeros((1, 3, 16, 16))
    assert ops.crop(torch.from_numpy(FRAME), torch.from_numpy(AFFINES), (16, 16), **NORMAL, out=out) is out
    assert np.array_equal(out.numpy(), ops.crop(FRAME, AFFINES, (16, 16), **NORMAL))


def test_device_arrays_are_described_without_a_device():
    array = ops_arrays.array_from("frame", OnGpu((4, 5, 3), np.uint8, (32, 3, 1)))
    assert (array.shape, array.strides, array.dtype, array.ndim) == ((4, 5, 3), (32, 3, 1), np.uint8, 3)
    assert not ops_arrays.is_contiguous(array)
    assert ops_arrays.is_contiguous(ops_arrays.array_from("x", OnGpu((2, 3, 4), np.float32)))
    assert ops_arrays.is_contiguous(ops_arrays.array_from("x", OnGpu((1, 3), np.float32, (99, 4))))
    assert ops_arrays.described(array) == "4 x 5 x 3 uint8 on a GPU"
    packed = ops_arrays.array_from("x", OnGpu((2, 3, 4), np.float32, address=None))
    assert (packed.address, packed.strides) == (0, (48, 16, 4))
    assert ops_arrays.is_contiguous(ops_arrays.array_from("x", OnGpu((0, 3), np.float32, (99, 4))))


def of_kind(kind, array=FRAME):
    """An array of which DLPack says that it lies in memory of this kind."""
    return type("Other", (DlpackOnly,), {"__dlpack_device__": lambda self: (kind, 0)})(array)


def test_page_locked_memory_is_the_hosts():
    assert np.array_equal(ops_arrays.array_from("frame", of_kind(3)), FRAME)


@pytest.mark.parametrize("kind", [2, 13], ids=["cuda", "managed"])
def test_dlpack_of_a_gpu_counts_strides_in_elements(kind):
    array = np.zeros((4, 6), np.float32)[1:, ::2]
    found = ops_arrays.array_from("x", of_kind(kind, array))
    assert found == ops_arrays.DeviceArray(array.ctypes.data, (3, 3), (24, 8), array.dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float16, np.float32, np.float64])
def test_dlpack_of_a_gpu_gives_address_shape_strides_and_dtype(dtype):
    array = np.zeros((4, 6, 3), dtype)[1:, ::2]
    found = ops_arrays.array_from("frame", DlpackOnGpu(array))
    assert found == ops_arrays.DeviceArray(array.ctypes.data, array.shape, array.strides, array.dtype)


def crop(frame=GPU_FRAME, affines=GPU_AFFINES, **options):
    return ops.crop(frame, affines, (8, 8), **NORMAL, **options)


def decode(x=GPU_LOGITS, y=GPU_LOGITS, **options):
    return ops.decode(x, y, GPU_AFFINES, 2.0, out=OnGpu((1, 3, 3), np.float32), **options)


@pytest.fixture
def asked(monkeypatch):
    """What the CUDA half is asked: (op, arguments) of each call."""
    calls = []
    half = SimpleNamespace(
        crop_frame=lambda *given: calls.append(("crop", given)), decode=lambda *given: calls.append(("decode", given))
    )
    monkeypatch.setattr(ops, "cuda_half", lambda: half)
    return calls


def test_the_ops_work_on_the_stream_they_are_given(asked):
    crop(out=GPU_OUT, stream=77)
    decode(stream=78)
    assert [(op, given[-2 if op == "crop" else 12]) for op, given in asked] == [("crop", 77), ("decode", 78)]


def test_nv12_in_one_piece_is_split_by_its_stride(asked):
    crop(frame=OnGpu((60, 50), np.uint8, (64, 1), address=1000), out=GPU_OUT, pixel_format="nv12")
    assert asked[0][1][1] == (1000, 1000 + 40 * 64, 64, 64, 40, 50)


CPU_OUT, CPU_LOGITS = np.zeros((1, 3, 8, 8), np.float32), np.zeros((1, 3, 40), np.float32)
PARTNERS = OnGpu((3,), np.int32)
STRIDED = OnGpu((1, 2, 3), np.float32, (48, 24, 8))
MISUSE = {
    "frame-on-gpu": (lambda: crop(affines=AFFINES), "must lie in one place.*frame 40 x 50 x 3 uint8 on a GPU"),
    "affines-on-gpu": (lambda: crop(frame=FRAME, out=GPU_OUT), "must lie in one place"),
    "out-on-cpu": (lambda: crop(out=CPU_OUT), "must lie in one place.*out 1 x 3 x 8 x 8"),
    "no-out": (crop, "out must be given for arrays on a GPU"),
    "logits-apart": (lambda: decode(y=CPU_LOGITS), "must lie in one place"),
    "strided-affines": (lambda: crop(affines=STRIDED), "affines must be contiguous"),
    "elsewhere": (lambda: crop(frame=ElsewhereOnly(FRAME), affines=AFFINES), "DLPack device type 8"),
    "flags": (lambda: crop(frame=DlpackOnGpu(FRAME > 9), out=GPU_OUT), "integers or floats .got DLPack type 6"),
    "pairs-on-cpu": (
        lambda: decode(flipped=(GPU_LOGITS, GPU_LOGITS), flip_pairs=np.zeros(3, np.int32)),
        r"flip_pairs must be ops.partners\(pairs, 3\) copied to the GPU",
    ),
    "mirror-on-cpu": (
        lambda: decode(flipped=(GPU_LOGITS, CPU_LOGITS), flip_pairs=PARTNERS),
        r"must lie in one place.*flipped\[1\] 1 x 3 x 40",
    ),
    "partners-of-another-kind": (
        lambda: decode(flipped=(GPU_LOGITS, GPU_LOGITS), flip_pairs=OnGpu((3,), np.int64)),
        r"flip_pairs must be ops.partners\(pairs, 3\) copied to the GPU \(got 3 int64",
    ),
    "too-few-partners": (
        lambda: decode(flipped=(GPU_LOGITS, GPU_LOGITS), flip_pairs=OnGpu((2,), np.int32)),
        r"flip_pairs must be ops.partners\(pairs, 3\) copied to the GPU \(got 2 int32",
    ),
    "chroma-on-cpu": (
        lambda: crop(frame=(OnGpu((4, 4), np.uint8), np.zeros((2, 4), np.uint8)), out=GPU_OUT, pixel_format="nv12"),
        "must lie in one place.*chroma 2 x 4",
    ),
    "rows-not-of-three": (
        lambda: crop(frame=OnGpu((61, 50), np.uint8), out=GPU_OUT, pixel_format="nv12"),
        "an NV12 frame must be 3H/2 x W uint8",
    ),
    "too-wide-nv12": (
        lambda: crop(frame=OnGpu((6, 16386), np.uint8), out=GPU_OUT, pixel_format="nv12"),
        "frame sides must be at most 16384 pixels",
    ),
    "no-threads": (lambda: ops.set_threads(0), r"the number of threads must be 1 to 256 \(got 0\)"),
    "endless-ratio": (
        lambda: ops.decode(CPU_LOGITS, CPU_LOGITS, AFFINES, float("inf")),
        r"split_ratio must be a positive number of bins per pixel \(got inf\)",
    ),
    "odd-stream": (lambda: ops_arrays.stream_address("main"), "stream must be a CUDA stream or its address"),
}


@pytest.mark.parametrize(("call", "message"), MISUSE.values(), ids=MISUSE)
def test_misuse_is_told_in_words(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_partners_are_shared_and_cannot_be_written():
    partners = ops.partners(((0, 2),), 3)
    assert partners.tolist() == [2, 1, 0] and not partners.flags.writeable


def test_streams_are_taken_in_every_form():
    class Torch:
        cuda_stream = 5

    class PyCuda:
        handle = 6

    class Cupy:
        ptr = 8

    class Protocol:
        def __cuda_stream__(self):
            return (0, 7)

    assert [ops_arrays.stream_address(s) for s in (None, 4, Torch(), PyCuda(), Protocol(), Cupy())] == [
        0,
        4,
        5,
        6,
        7,
        8,
    ]


@pytest.mark.skipif(_native.cuda is not None, reason="this build has the CUDA half")
def test_without_the_cuda_half_the_error_says_how_to_get_it():
    with pytest.raises(MissingDependencyError, match=r"no CUDA half: when it was built, .*SDK_CUDA_ARCHITECTURES"):
        ops.crop(GPU_FRAME, GPU_AFFINES, (8, 8), **NORMAL, out=GPU_OUT)


@pytest.mark.skipif(_native.cuda is None, reason="this build has no CUDA half")
def test_cuda_refuses_in_words_what_it_cannot_do():
    with pytest.raises(ValueError, match="frame record"):
        _native.cuda.crop(0, 0, 0, 1, 8, 8, STD, MEAN, False, False, False, (0,) * 6, 0)
    with pytest.raises(ValueError, match="go together"):
        _native.cuda.decode(4, 4, 4, 4, 1, 1, 1, 1, 2.0, 0, 0, False, 0, 4, 0, 0, 0)
    _native.cuda.crop_frame(0, (0, 0, 0, 0, 4, 4), 0, 0, 8, 8, STD, MEAN, False, False, False, (0,) * 6, 0)  # nobody


@pytest.mark.skipif(_native.cuda is None, reason="this build has no CUDA half")
def test_a_machine_without_a_driver_is_told_so():
    try:
        _native.cuda.graph_abort(0)
        _native.cuda.mark(0)
    except RuntimeError as error:
        assert "cuda" in str(error)
    else:
        pytest.skip("there is a CUDA driver")
    with pytest.raises(DeviceError, match="crop could not be launched: "):
        ops.crop(GPU_FRAME, GPU_AFFINES, (8, 8), **NORMAL, out=GPU_OUT)

"""Pinned frames, device arrays and the kernel cache where no GPU is needed to show them."""

import gc
import weakref
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import sdk
from sdk import trt
from sdk.errors import DeviceError, EngineError, InputError, OutOfMemoryError
from sdk.ops_arrays import DeviceArray, _DLTensor, _pointer_in
from sdk.runtime.cuda import loaded_plan
from sdk.runtime.cuda.bandwidth import ROW_BYTES, ROWS, costs_from_seconds
from sdk.runtime.cuda.device_frames import check_device_frame, device_frame, is_device_array
from sdk.runtime.cuda.loaded_plan import RuntimeCache
from sdk.runtime.device import cuda_problem
from tests.support.engines import SMALL, SMALL_HEATMAP

UINT8 = np.dtype(np.uint8)
no_gpu = pytest.mark.skipif(cuda_problem() is None, reason="this machine has a CUDA device; tests/gpu runs on it")

BAD_PINNED = {
    "no height": (lambda: sdk.pinned_frame(0, 8), InputError, r"height must be .* \(got 0\)"),
    "a float": (lambda: sdk.pinned_frame(8, 8.0), InputError, r"width must be .* \(got 8.0\)"),
    "a bool": (lambda: sdk.pinned_frame(True, 8), InputError, r"height must be .* \(got True\)"),
    "too wide": (lambda: sdk.pinned_frame(8, 20000), InputError, r"width must be .* 16384 \(got 20000\)"),
    "odd nv12": (lambda: sdk.pinned_frame(9, 8, pixel_format="nv12"), InputError, "must be even .got 9 x 8."),
    "another format": (lambda: sdk.pinned_frame(8, 8, pixel_format="yuyv"), InputError, "pixel_format must be one of"),
    "the cpu": (lambda: sdk.pinned_frame(8, 8, device="cpu"), DeviceError, "belongs to a CUDA device"),
    "auto": (lambda: sdk.pinned_frame(8, 8, device="auto"), DeviceError, "belongs to a CUDA device"),
}


@pytest.mark.parametrize("case", BAD_PINNED, ids=str)
def test_what_no_pinned_frame_can_be(case):
    call, error, message = BAD_PINNED[case]
    with pytest.raises(error, match=message):
        call()


@no_gpu
@pytest.mark.parametrize(
    "call",
    [lambda: sdk.pinned_frame(8, 8), lambda: sdk.pinned_frame(8, 8, device="cuda:3")],
    ids=["the first", "another"],
)
def test_without_a_device_a_pinned_frame_says_why(call):
    with pytest.raises(DeviceError, match=r"device 'cuda:\d' cannot be used: .*; see `sdk doctor`"):
        call()


# ---- device arrays ---------------------------------------------------------------------------------------------


class Exporter:
    """An array whose DLPack says that it is in CUDA memory."""

    def __init__(self, array, device=(2, 0)):
        self.array, self.device, self.streams = array, device, []

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream=None):
        self.streams.append(stream)
        return self.array.__dlpack__()


class Interface:
    def __init__(self, **table):
        self.__cuda_array_interface__ = table


@pytest.mark.parametrize("kind", [2, 13], ids=["cuda", "managed"])
def test_dlpack_gives_address_shape_and_strides(kind):
    array = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)[1:, ::2]
    found = device_frame(Exporter(array, (kind, 1)), 99, 1)
    lies = found.array
    assert (lies.address, lies.shape, lies.strides) == (array.ctypes.data, (3, 3, 3), array.strides)
    assert found.producer_stream is None  # the exchange saw to it


def test_the_producer_hears_which_stream_will_read():
    exporter = Exporter(np.zeros((4, 6, 3), np.uint8))
    device_frame(exporter, 1234, 0)
    assert exporter.streams == [1234]


def test_the_memory_lives_as_long_as_it_is_used_and_no_longer():
    class Owned(np.ndarray):
        pass

    array = np.zeros((4, 6, 3), np.uint8).view(Owned)
    gone = weakref.ref(array)
    found = device_frame(Exporter(array), 1, 0)
    del array
    gc.collect()
    assert gone() is not None
    del found
    gc.collect()
    assert gone() is None


def test_the_array_interface_gives_the_same():
    table = {"shape": (4, 6, 3), "typestr": "|u1", "data": (4096, False), "version": 3}
    given = Interface(**table, stream=7)
    found = device_frame(given, 1, 0)
    lies = found.array
    assert found.owner is given
    assert (lies.address, lies.shape, lies.strides, found.producer_stream) == (4096, (4, 6, 3), (18, 3, 1), 7)
    assert device_frame(Interface(**table, stream=None), 1, 0).producer_stream is None
    assert device_frame(Interface(**{**table, "version": 2}), 1, 0).producer_stream == 1  # the default stream
    assert device_frame(Interface(**table, strides=(32, 3, 1)), 1, 0).array.strides == (32, 3, 1)


def test_what_dlpack_has_on_the_host_alone_is_found_by_the_array_interface():
    given = Exporter(np.zeros((4, 6, 3), np.uint8), (1, 0))
    given.__cuda_array_interface__ = {"shape": (4, 6, 3), "typestr": "|u1", "data": (4096, False), "version": 3}
    assert device_frame(given, 1, 0).array.address == 4096


@pytest.mark.parametrize(
    ("key", "value"), [("byte_offset", 6), ("strides", None)], ids=["an offset", "no strides: packed"]
)
def test_dlpack_may_give_an_offset_and_no_strides(key, value):
    class Other(Exporter):
        def __dlpack__(self, *, stream=None):
            capsule = super().__dlpack__(stream=stream)
            setattr(_DLTensor.from_address(_pointer_in(capsule, b"dltensor")), key, value)
            return capsule

    array = np.zeros((4, 6, 3), np.uint8)
    found = device_frame(Other(array), 1, 0).array
    assert found.address == array.ctypes.data + (value or 0) and found.strides == (18, 3, 1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.zeros((2, 2, 3), np.uint8), False),
        (Exporter(np.zeros(3, np.uint8)), True),
        (Exporter(np.zeros(3, np.uint8), (1, 0)), False),
        (Interface(shape=()), True),
        (None, False),
    ],
    ids=["numpy", "dlpack cuda", "dlpack cpu", "interface", "none"],
)
def test_what_is_a_device_array(value, expected):
    assert is_device_array(value) is expected


NOT_BYTES = {
    "dlpack float": Exporter(np.zeros((2, 2, 3), np.float32)),
    "dlpack int8": Exporter(np.zeros((2, 2, 3), np.int8)),
    "interface int8": Interface(shape=(2, 2, 3), typestr="|i1", data=(4096, False), version=3),
    "interface float": Interface(shape=(2, 2, 3), typestr="<f4", data=(4096, False), version=3),
}


@pytest.mark.parametrize("case", NOT_BYTES, ids=str)
def test_a_device_frame_is_of_bytes(case):
    with pytest.raises(InputError, match=r"uint8, with whole rows.*\(got 2 x 2 x 3 (float32|int8) on a GPU"):
        check_device_frame(device_frame(NOT_BYTES[case], 1, 0).array, nv12=False)


def test_a_frame_on_another_gpu_is_refused_before_its_owner_is_asked():
    exporter = Exporter(np.zeros((4, 6, 3), np.uint8), (2, 1))
    with pytest.raises(InputError, match=r"lies on cuda:1 and the estimator runs on cuda:0"):
        device_frame(exporter, 7, 0)
    assert exporter.streams == []


def test_a_frame_that_its_owner_does_not_hand_over_says_why():
    class Refusing(Exporter):
        def __dlpack__(self, *, stream=None):
            raise BufferError("it requires gradients")

    with pytest.raises(InputError, match="Refusing, does not hand it over: it requires gradients"):
        device_frame(Refusing(np.zeros((4, 6, 3), np.uint8)), 7, 0)


SIDES = {  # NV12 has half as many rows again as pixels
    "the largest": ((16384, 16384, 3), False, True),
    "empty": ((0, 8, 3), False, False),
    "too tall": ((16385, 8, 3), False, False),
    "too wide": ((8, 16385, 3), False, False),
    "the largest nv12": ((24576, 16384), True, True),
    "too tall an nv12": ((24579, 8), True, False),
    "too wide an nv12": ((9, 16386), True, False),
    "odd rows of nv12": ((10, 8), True, False),
    "odd columns of nv12": ((9, 7), True, False),
}


@pytest.mark.parametrize("case", SIDES, ids=str)
def test_a_device_frame_has_the_sides_of_any_frame(case):
    shape, nv12, fits = SIDES[case]
    strides = (3 * shape[1], 3, 1) if len(shape) == 3 else (shape[1], 1)
    with nullcontext() if fits else pytest.raises(InputError, match=r"at most 16384 pixels a side"):
        check_device_frame(DeviceArray(4096, shape, strides, UINT8), nv12=nv12)


def test_an_nv12_device_frame_has_whole_rows():
    with pytest.raises(InputError, match="with whole rows"):
        check_device_frame(DeviceArray(4096, (9, 8), (16, 2), UINT8), nv12=True)


# ---- the kernel cache ------------------------------------------------------------------------------------------


def test_kernels_are_kept_and_read_back(tmp_path):
    cache = RuntimeCache((tmp_path / "engine", tmp_path / "cache"), "kernels.cache")
    cache.load()
    assert cache.blob is None
    assert cache.store(b"kernels") == tmp_path / "engine" / "kernels.cache"
    assert cache.store(b"kernels") is None  # nothing new
    again = RuntimeCache((tmp_path / "engine", tmp_path / "cache"), "kernels.cache")
    again.load()
    assert again.blob == b"kernels"
    assert (tmp_path / "engine" / "kernels.cache").stat().st_mode & 0o077 == 0
    assert [path.name for path in (tmp_path / "engine").iterdir()] == ["kernels.cache"]


def test_kernels_are_read_from_the_first_place_that_has_them(tmp_path):
    RuntimeCache((tmp_path / "cache",), "kernels.cache").store(b"kernels")
    cache = RuntimeCache((tmp_path / "engine", tmp_path / "cache"), "kernels.cache")
    cache.load()
    assert cache.blob == b"kernels"


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:40] + b"x" + b[41:], lambda _: b""])
def test_a_damaged_cache_is_said_and_left_aside(tmp_path, damage, caplog):
    path = RuntimeCache((tmp_path,), "kernels.cache").store(b"kernels" * 9)
    path.write_bytes(damage(path.read_bytes()))
    cache = RuntimeCache((tmp_path,), "kernels.cache")
    with caplog.at_level("WARNING"):
        cache.load()
    assert cache.blob is None and "is damaged and not used" in caplog.text


def test_a_folder_that_cannot_be_written_gives_way_to_the_next(tmp_path):
    (tmp_path / "file").write_text("no folder")
    cache = RuntimeCache((tmp_path / "file", tmp_path / "cache"), "kernels.cache")
    assert cache.store(b"kernels") == tmp_path / "cache" / "kernels.cache"


def test_no_place_at_all_is_a_warning_not_an_error(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level("WARNING"):
        assert RuntimeCache((tmp_path / "file",), "kernels.cache").store(b"kernels") is None
    assert "cannot be written" in caplog.text


def test_a_full_disk_leaves_no_part(tmp_path, monkeypatch):
    def full(path, content):
        with path.open("wb") as file:
            file.write(content[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert RuntimeCache((tmp_path,), "kernels.cache").store(b"kernels") is None
    assert list(tmp_path.iterdir()) == []


# ---- what TensorRT says while loading --------------------------------------------------------------------------


class Device:
    index = 0

    def free_bytes(self):
        return 1000


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (
            "tensorrt 10.3.0 cannot load the plan: Error Code 2: OutOfMemory (Requested size was 9 bytes.)",
            OutOfMemoryError,
        ),
        ("tensorrt 10.3.0 cannot load the plan: Cuda Runtime (out of memory)", OutOfMemoryError),
        ("tensorrt 10.3.0 cannot load the plan: magic tag does not match", EngineError),
    ],
    ids=["error code", "cuda runtime", "another reason"],
)
def test_a_plan_that_does_not_fit_says_so(monkeypatch, said, error):
    def refused(*_, **__):
        raise EngineError(said)

    monkeypatch.setattr(trt, "load_plan", refused)
    note, engine = (
        SimpleNamespace(name="tensorrt", version="10.3.0", target="8.7", options={}),
        SimpleNamespace(folder=SimpleNamespace(name="e")),
    )
    with pytest.raises(error) as caught:
        loaded_plan._deserialised(Device(), note, b"12345", engine)
    if error is OutOfMemoryError:
        assert (caught.value.needed_bytes, caught.value.free_bytes) == (5, 1000)


CROPS, X, Y = SMALL.input.name, SMALL.output.x_name, SMALL.output.y_name
SHAPES = {CROPS: (-1, 3, 64, 48), X: (-1, 14, SMALL.bins_xy[0]), Y: (-1, 14, SMALL.bins_xy[1])}
WRONG_PLANS = {  # name -> (shape, dtype), or None: not there
    "an absent output": (X, None),
    "other bins": (Y, ((-1, 14, 7), "float32")),
    "no batch": (Y, (SHAPES[Y][1:], "float32")),
    "an axis more": (Y, ((*SHAPES[Y], 1), "float32")),
    "integers": (CROPS, (SHAPES[CROPS], "int8")),
}


def check_plan(changes, recipe=SMALL):
    tensors = {name: (shape, "float32") for name, shape in SHAPES.items()} | changes
    found = [trt.Tensor(name, name == CROPS, kind[1], kind[0]) for name, kind in tensors.items() if kind]
    plan = SimpleNamespace(tensors=found)
    loaded_plan._check_tensors(plan, SimpleNamespace(folder="small", manifest=SimpleNamespace(recipe=recipe)))


def test_a_plan_has_the_recipes_tensors():
    check_plan({})
    check_plan({Y: (SHAPES[Y], "float16")})


@pytest.mark.parametrize("case", WRONG_PLANS, ids=str)
def test_a_plan_of_other_tensors_is_refused(case):
    name, change = WRONG_PLANS[case]
    with pytest.raises(EngineError, match=rf"tensor '{name}' of its plan must be .*\(got .*\); build the engine again"):
        check_plan({name: change})


@pytest.mark.parametrize(("joints", "fits"), [(14, True), (13, False)])
def test_heatmaps_of_any_size_have_a_map_a_joint(joints, fits):
    heatmaps = {SMALL_HEATMAP.output.heatmap_name: ((-1, joints, 16, 12), "float32")}
    with nullcontext() if fits else pytest.raises(EngineError, match=r"got float32 \[-1, 13, 16, 12\]"):
        check_plan(heatmaps, SMALL_HEATMAP)


# ---- the measurement behind transfers --------------------------------------------------------------------------


def test_costs_follow_from_three_timed_copies():
    copy, rate, row = 5e-6, 20e9, 1e-8
    small, whole = copy, copy + ROWS * 4096 / rate
    rows = copy + ROWS * row + ROWS * ROW_BYTES / rate
    assert costs_from_seconds(small, whole, rows) == pytest.approx((copy, rate, row), rel=1e-6)


def test_noise_never_makes_a_cost_negative():
    small, rate, row = costs_from_seconds(1e-5, 1e-6, 1e-7)
    assert small > 0 and 0 < rate < float("inf") and row == 0

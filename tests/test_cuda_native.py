"""The run time against the CUDA half of the extension as it was built: arguments, and answers without a driver."""

import numpy as np
import pytest

from sdk.errors import DeviceError, MissingDependencyError
from sdk.runtime.cuda.kernels import FRAME_BYTES, CropWork, DecodeWork, NativeKernels, frame_record
from sdk.runtime.device import cuda_problem

pytestmark = pytest.mark.native

CROP = CropWork(256, 192, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), True, False, False, (1.0,) * 6)
DECODE = DecodeWork(17, 384, 512, 2.0, 0, 0, False, True)


@pytest.fixture
def kernels():
    from sdk import _native

    if _native.cuda is None:
        pytest.skip("the native extension was built without its CUDA half")
    return NativeKernels()


def test_without_the_cuda_half_the_mend_is_named(monkeypatch):
    from sdk import _native

    monkeypatch.setattr(_native, "cuda", None)
    with pytest.raises(MissingDependencyError, match="no CUDA half"):
        NativeKernels()


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("mirrored", [None, (64, 128)], ids=["plain", "mirrored"])
def test_the_ops_take_these_arguments_and_no_persons_launch_nothing(kernels, half, mirrored):
    from dataclasses import replace

    kernels.crop(256, 512, 1024, 0, replace(CROP, half=half), 0)
    kernels.crop(256, 512, 1024, 0, replace(CROP, nv12=True), 0)
    kernels.decode(256, (512, 1024), mirrored, 2048, 4096, 0, replace(DECODE, half=half), 0)


def test_the_frame_record_is_the_struct_of_the_kernel():
    record = frame_record(1, 2, -3, 4, 5, 6)
    assert len(record) == FRAME_BYTES
    assert np.frombuffer(record, "<u8,<u8,<i8,<i8,<i4,<i4")[0].tolist() == (1, 2, -3, 4, 5, 6)


@pytest.mark.skipif(cuda_problem() is None, reason="this machine has a CUDA device; tests/gpu runs on it")
@pytest.mark.parametrize(
    "call",
    [
        lambda k: k.begin_capture(0),
        lambda k: k.end_capture(0),
        lambda k: k.mark(0),
        lambda k: k.crop(256, 512, 1024, 1, CROP, 0),
        lambda k: k.decode(256, (512, 1024), None, 2048, 4096, 1, DECODE, 0),
    ],
    ids=["begin", "end", "mark", "crop", "decode"],
)
def test_without_a_driver_each_call_is_a_device_error_in_words(kernels, call):
    with pytest.raises(DeviceError, match=r"CUDA|cuda"):
        call(kernels)


def test_aborting_what_never_began_is_allowed(kernels):
    kernels.abort_capture(0)

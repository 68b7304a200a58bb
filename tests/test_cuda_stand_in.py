"""Frame to joints through the SDK's own CUDA code alone, on the CPU: crop, a plan's stand-in, decode; no ONNX Runtime.

The stand-in is what `tests/gpu` runs where no TensorRT makes plans for the GPU; here it is held against numpy first.
"""

import numpy as np
import pytest

from sdk import ops, trt
from sdk.runtime import device
from sdk.runtime.cuda import loaded_plan
from sdk.runtime.cuda.gpu_pipeline import GpuPipeline
from sdk.runtime.cuda.tensorrt_session import TensorRTSession
from tests.support.cuda_frames import random_affines, random_frame
from tests.support.engines import SMALL
from tests.support.simulated_cuda import Simulated, install_device
from tests.support.stand_in import StandInSession, stand_in_engine, use_stand_ins

pytestmark = pytest.mark.native
FLAVOUR = trt.flavour


@pytest.fixture(params=["fp32", "fp16"])
def opened(request, emulated, tmp_path, monkeypatch):
    """(engine, kernels) on a simulated device."""
    engine = stand_in_engine(tmp_path / "engine", SMALL, request.param)
    for module, name in ((trt, "load_plan"), (device, "plan_problem"), (loaded_plan, "plan_problem")):
        monkeypatch.setattr(module, name, getattr(module, name))
    use_stand_ins.__wrapped__(emulated.library)
    return engine, install_device(monkeypatch, Simulated(), emulated)


def test_what_is_installed_is_told_as_before(opened):
    assert trt.flavour is FLAVOUR and device.plan_problem(opened[0]) is None


def expected_joints(engine, frame, affines):
    source, output, session = engine.manifest.recipe.input, engine.manifest.recipe.output, StandInSession(engine)
    options = {"mean": source.mean, "std": source.std, "channel_order": source.colour, "dtype": session.dtype}
    logits = session.run(ops.crop(frame, affines, source.size_hw, **options))
    return ops.decode(*logits, affines, output.split_ratio, score=output.score)


def test_joints_are_numpys_to_the_bit(opened):
    engine, kernels = opened
    frame = random_frame()
    with GpuPipeline(engine, kernels=kernels) as gpu:
        for count in (1, 3, 5):
            affines = random_affines(count, count)
            for _ in range(2):
                np.testing.assert_array_equal(gpu.run(frame, affines)[0], expected_joints(engine, frame, affines))


def test_logits_are_numpys_to_the_bit(opened):
    engine, kernels = opened
    crops = np.random.default_rng(0).standard_normal((3, 3, 64, 48)).astype(np.float32)
    with TensorRTSession(engine, kernels=kernels) as gpu:
        for found, expected in zip(gpu.run(crops), StandInSession(engine).run(crops), strict=True):
            np.testing.assert_array_equal(found, expected)

"""TensorRT's session on a simulated device: the outputs of the CPU's session, crops of its size alone, nothing kept."""

import numpy as np
import pytest

from sdk.errors import ClosedError, InputError
from sdk.runtime.cuda.tensorrt_session import TensorRTSession
from sdk.runtime.ort_session import OrtSession

pytestmark = pytest.mark.native


@pytest.mark.parametrize("kind", ["simcc", "heatmap"])
@pytest.mark.parametrize("count", [0, 1, 3, 8, 21])
def test_the_session_gives_the_cpu_sessions_outputs(simulate, kind, count):
    _, engine, kernels = simulate(kind)
    crops = np.random.default_rng(count).standard_normal((count, 3, 64, 48)).astype(np.float32)
    with OrtSession(engine, threads=1) as cpu, TensorRTSession(engine, kernels=kernels) as gpu:
        for a, b in zip(gpu.run(crops), cpu.run(crops), strict=True):
            assert a.dtype == np.float32 and a.shape == b.shape
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_session_takes_crops_of_its_size_alone(simulate):
    _, engine, kernels = simulate()
    with TensorRTSession(engine, kernels=kernels) as session, pytest.raises(InputError, match="crops must be float32"):
        session.run(np.zeros((2, 3, 48, 64), np.float32))


def test_the_session_frees_what_it_took(simulate):
    device, engine, kernels = simulate()
    session = TensorRTSession(engine, kernels=kernels)
    session.run(np.zeros((2, 3, 64, 48), np.float32))
    session.close()
    assert not device.live and not device.pinned
    with pytest.raises(ClosedError):
        session.run(np.zeros((2, 3, 64, 48), np.float32))

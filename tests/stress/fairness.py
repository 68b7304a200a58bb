"""Whether threads that share an estimator's few places are served evenly and in the order of their coming, for longer
than the suite has time for: python -m pytest tests/stress/fairness.py
"""

import pytest

from sdk import PoseEstimator
from sdk.manifest import open_engine
from sdk.runtime.cuda.gpu_pipeline import GpuPipeline
from sdk.runtime.ort_session import OrtSession
from sdk.runtime.pipeline import CpuPipeline
from tests.support.cuda_frames import random_affines, random_frame
from tests.support.fairness import check_fair

CALLS = 500
pytestmark = pytest.mark.parametrize("threads", [4, 8, 32])


def test_three_lanes_of_a_simulated_device(simulate, threads):
    _, engine, kernels = simulate()
    with GpuPipeline(engine, kernels=kernels, lanes=3) as gpu:
        check_fair(gpu._pool, lambda: gpu.run(random_frame(), random_affines(1)), threads, CALLS)


def test_the_cores_of_the_cpu(small_engine, threads):
    with CpuPipeline(OrtSession(open_engine(small_engine), threads=1)) as cpu:
        check_fair(cpu._turns._places, lambda: cpu.run(random_frame(), random_affines(1)), threads, CALLS)


def test_the_one_tracker(small_engine, threads):
    with PoseEstimator(small_engine, device="cpu", tracker=True) as estimate:
        check_fair(estimate._tracking._places, lambda: estimate(random_frame(), [[2, 2, 30, 40]]), threads, CALLS)

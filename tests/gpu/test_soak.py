"""Steady state on a real GPU: no allocation, no growth. One test; it takes a minute or two."""

import numpy as np
import pytest

from sdk.geometry import crop_affines
from sdk.runtime.cuda.gpu_pipeline import GpuPipeline
from tests.support.gpu_engines import compiled_engine, persons, street

pytestmark = [pytest.mark.gpu, pytest.mark.native, pytest.mark.timeout(1800)]

FRAMES = 100_000
WARM = 2_000
RESIDENT_LIMIT = 16 << 20
DEVICE_LIMIT = 2 << 20  # free memory is the device's, and a desktop draws on it


def resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096


def test_a_hundred_thousand_frames_grow_nothing(tmp_path, monkeypatch):
    engine = compiled_engine(tmp_path / "engine", "fp32")
    source = engine.manifest.recipe.input
    frames = [street(540, 960, seed) for seed in range(4)]
    affines = [
        crop_affines(persons(1 + seed, (540, 960), seed), source.size_hw, source.box_padding) for seed in range(4)
    ]
    with GpuPipeline(engine) as pipeline:
        device = pipeline._device
        allocations = []
        allocate = device.driver.mem_alloc
        monkeypatch.setattr(device.driver, "mem_alloc", lambda size: allocations.append(size) or allocate(size))
        expected = [pipeline.run(f, a)[0] for f, a in zip(frames, affines, strict=True)]
        for turn in range(WARM):
            pipeline.run(frames[turn % 4], affines[turn % 4])
        allocations.clear()
        with device.entered("count memory"):
            free = device.free_bytes()
        resident = resident_bytes()
        for turn in range(FRAMES):
            found, _ = pipeline.run(frames[turn % 4], affines[turn % 4])
            if turn % 1000 == 0:
                np.testing.assert_array_equal(found, expected[turn % 4])
        with device.entered("count memory"):
            grown = free - device.free_bytes()
        assert allocations == []
        assert grown <= DEVICE_LIMIT, f"the device's free memory fell by {grown} bytes"
        assert resident_bytes() - resident < RESIDENT_LIMIT


def test_opening_and_closing_gives_everything_back(tmp_path):
    engine = compiled_engine(tmp_path / "engine", "fp32")
    source = engine.manifest.recipe.input
    affines = crop_affines(persons(3, (540, 960)), source.size_hw, source.box_padding)
    free = []
    for _ in range(20):
        with GpuPipeline(engine) as pipeline:
            pipeline.run(street(540, 960), affines)
            device = pipeline._device
        with device.entered("count memory"):
            free.append(device.free_bytes())
    assert free[3] - free[-1] <= 4 << 20

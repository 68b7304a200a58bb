"""Kernels of a call: counted in the captured graph, kept for a plan, and told where a rebuilt plan needs many more."""

from dataclasses import replace

import pytest

from sdk.launches import FILE, Launches, keep_launches, kept_launches, tell_if_more
from sdk.manifest import CompilerNote, open_engine
from sdk.runtime import counting
from sdk.runtime.cuda import gpu_pipeline
from sdk.runtime.cuda.gpu_pipeline import GpuPipeline
from sdk.runtime.device import Device
from tests.support.engines import given_plan
from tests.support.simulated_plan import KERNELS

COUNTED = Launches(31, 4, "tensorrt 10.3.0")
OWN = 2  # crop and decode


@pytest.fixture
def engine(small_engine, tmp_path):
    """An engine of its own with a plan, in a folder that may be written."""
    import shutil

    folder = tmp_path / "engine"
    shutil.copytree(small_engine, folder)
    return given_plan(folder, CompilerNote("tensorrt", "10.3.0", "8.7", "tensorrt.plan"), b"a plan")


@pytest.mark.native
@pytest.mark.parametrize(("flip", "kernels"), [(False, KERNELS + OWN), (True, 2 * KERNELS + 3)])
def test_they_are_counted_in_the_captured_graph(simulate, flip, kernels):
    """What is no kernel, copies among it, does not count; flipping crops and runs the plan twice, and decodes once."""
    _, engine, emulated = simulate()
    with GpuPipeline(engine, kernels=emulated) as gpu:
        assert gpu.launches(3, flip=flip) == kernels
    with GpuPipeline(engine, kernels=emulated, graphs=False) as gpu:
        assert gpu.launches(3) is None


@pytest.mark.native
def test_a_build_on_the_gpu_keeps_them_beside_the_engine(simulate, monkeypatch):
    _, engine, emulated = simulate()
    monkeypatch.setattr(gpu_pipeline, "NativeKernels", lambda: emulated)
    monkeypatch.setattr(counting, "choose_device", lambda *_: (Device("cuda"), "it has a plan"))
    counted = counting.counted_launches(engine)
    assert counted == Launches(KERNELS + OWN, engine.manifest.batch.opt, "tensorrt 10.3.0")
    assert kept_launches(open_engine(engine.folder)) == counted


def test_without_a_gpu_none_are_counted(engine, monkeypatch):
    monkeypatch.setattr(counting, "choose_device", lambda *_: (Device("cpu"), "no CUDA driver is installed"))
    assert counting.counted_launches(engine) is None and kept_launches(engine) is None


def test_they_are_kept_for_the_plan_they_were_counted_of(engine):
    keep_launches(engine, COUNTED)
    assert kept_launches(open_engine(engine.folder)) == COUNTED
    note = replace(engine.manifest.compiler, version="10.7.0", plan="newer.plan")
    rebuilt = given_plan(engine.folder, note, b"another plan")
    assert kept_launches(rebuilt) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"plan_sha256": "x"}', "not JSON"])
def test_what_is_no_count_counts_for_nothing(engine, text):
    (engine.folder / FILE).write_text(text)
    assert kept_launches(engine) is None


@pytest.mark.parametrize(
    ("before", "kernels", "told"),
    [(COUNTED, 186, "6.0 times the 31"), (COUNTED, 47, "1.5 times the 31"), (COUNTED, 46, ""), (None, 186, "")],
    ids=["six times", "1.5 times", "fewer", "nothing to compare with"],
)
def test_a_rebuilt_plan_that_needs_many_more_is_told(caplog, before, kernels, told):
    tell_if_more(before, Launches(kernels, 4, "tensorrt 10.7.0"))
    assert (told in caplog.text) if told else not caplog.records
    if told:
        assert f"tensorrt 10.7.0 starts {kernels} kernels" in caplog.text and "of tensorrt 10.3.0" in caplog.text


def test_counts_for_other_numbers_of_persons_are_not_compared(caplog):
    tell_if_more(COUNTED, Launches(186, 8, "tensorrt 10.7.0"))
    assert not caplog.records

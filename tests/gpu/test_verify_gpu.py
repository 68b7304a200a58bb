"""Verify and benchmark through a plan on a real GPU: its own crop and decode, held against the graph on the CPU."""

import pytest

from sdk.evaluate.datasets.dataset import DatasetOptions
from sdk.evaluate.speed.benchmark import BenchmarkOptions, benchmark
from sdk.evaluate.verify import VerifyOptions, verify
from tests.support.gpu_engines import compiled_engine

pytestmark = [pytest.mark.gpu, pytest.mark.native, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def engine_folder(request, tmp_path_factory):
    return compiled_engine(tmp_path_factory.mktemp("engine"), request.param, stand_in=False).folder


@pytest.mark.data
def test_a_plan_measures_what_its_graph_does(engine_folder, lspet):
    dataset = DatasetOptions("lsp", lspet / "val.json", lspet, limit=200)
    found = verify(
        VerifyOptions(
            engine_folder, dataset, device="cuda", against=engine_folder, against_device="cpu", max_drop=0.5, samples=50
        )
    )
    assert found.devices[0].startswith("cuda") and found.devices[1] == "cpu"
    assert found.passed and abs(found.comparison.drop) < 0.5
    assert found.comparison.moved_share < 5 and found.comparison.distance_quantiles_px["p50"] < 0.5


def test_every_case_is_timed_on_the_device(engine_folder):
    table = benchmark(BenchmarkOptions(engine_folder, device="cuda", batches=(1, 4), persons=(1, 8), seconds=1.0))
    assert table["device"].startswith("cuda") and len(table["cases"]) == 4
    for case in table["cases"]:
        assert 0 < case["latency_ms"]["p50"] <= case["latency_ms"]["p99"]
    clock = table["device_clock"]
    assert set(clock["network_ms"]) == {"1", "4"} and set(clock["stages_ms"]) == {"1", "8"}
    assert all(stage["p50"] > 0 for stages in clock["stages_ms"].values() for stage in stages.values())
    assert table["power"].startswith(("NVML", "VDD_IN", "tegrastats", "unavailable"))

"""The face of TensorRT: plans are built, refusals are told in full, progress is heard, messages become log records."""

import logging
import threading

import pytest

pytest.importorskip("onnx")

import onnx

from sdk import trt
from sdk.errors import BuildError, EngineError, InputError, MissingDependencyError
from sdk.trt_messages import TRACE
from tests.support.engines import SMALL, pooled_simcc_graph
from tests.support.threads import in_threads

RTX = "tensorrt-rtx"
needs_rtx = pytest.mark.skipif(trt.flavour(RTX).problem is not None, reason="needs tensorrt-rtx: it compiles anywhere")


def shapes(low=1, best=4, high=16):
    height, width = SMALL.input.size_hw
    return {"input": tuple((count, 3, height, width) for count in (low, best, high))}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return pooled_simcc_graph(tmp_path_factory.mktemp("trt") / "small.onnx", SMALL).read_bytes()


class Recorder:
    """A monitor that notes what it hears and stops the build at a given step."""

    def __init__(self, stop_at=None):
        self.phases, self.finished, self.steps, self.stop_at = [], [], 0, stop_at

    def start(self, phase, parent, steps):
        self.phases.append((phase, parent, steps))

    def step(self, phase, step):
        self.steps += 1
        return self.stop_at is None or self.steps < self.stop_at

    def finish(self, phase):
        self.finished.append(phase)


def test_both_flavours_are_listed_with_a_version_or_a_mend():
    found = {flavour.name: flavour for flavour in trt.flavours()}
    assert set(found) == {"tensorrt", RTX}
    for flavour in found.values():
        assert (flavour.version is None) == (flavour.problem is not None)
        assert flavour.problem is None or "install" in flavour.problem or "below the floor" in flavour.problem


@pytest.mark.parametrize("version", ["8.6.2", "10.2.0.19"])
def test_a_version_below_the_floor_is_a_problem(monkeypatch, version):
    monkeypatch.setattr(trt, "find_spec", lambda name: object())
    monkeypatch.setattr(trt, "import_module", lambda name: type("Module", (), {"__version__": version}))
    found = trt.flavour("tensorrt")
    assert found.version is None
    assert f"version {version} is below the floor 10.3" in found.problem


def test_the_floor_itself_will_do(monkeypatch):
    monkeypatch.setattr(trt, "find_spec", lambda name: object())
    monkeypatch.setattr(trt, "import_module", lambda name: type("Module", (), {"__version__": "10.3.0"}))
    assert trt.flavour("tensorrt") == trt.Flavour("tensorrt", "10.3.0")


@pytest.mark.parametrize("kind", [ImportError, OSError])
def test_an_installation_that_cannot_be_imported_is_a_problem(monkeypatch, kind):
    def broken(name):
        raise kind("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(trt, "find_spec", lambda name: object())
    monkeypatch.setattr(trt, "import_module", broken)
    assert "cannot be imported (libnvinfer.so.10" in trt.flavour("tensorrt").problem
    with pytest.raises(MissingDependencyError, match="compiler 'tensorrt' cannot be used: installed but"):
        trt.load_plan("tensorrt", b"")


@needs_rtx
def test_a_plan_is_built_and_progress_is_heard(graph):
    recorder = Recorder()
    built = trt.build_plan(RTX, graph, trt.BuildSettings(shapes()), recorder)
    assert len(built.plan) > 1000
    assert built.timing_cache is None
    outer = [phase for phase, parent, steps in recorder.phases if parent is None and steps > 0]
    assert outer
    assert recorder.steps > 0
    assert sorted(recorder.finished) == sorted(phase for phase, _, _ in recorder.phases)


@needs_rtx
def test_a_monitor_that_says_no_stops_the_build(graph):
    recorder = Recorder(stop_at=3)
    with pytest.raises(BuildError, match=r"could not build the plan: .*[Cc]ancel"):
        trt.build_plan(RTX, graph, trt.BuildSettings(shapes()), recorder)
    assert recorder.steps <= 4


@needs_rtx
def test_every_node_that_the_parser_refuses_is_told(graph):
    model = onnx.load_from_string(graph)
    for index, name in ((0, "first"), (2, "second")):
        model.graph.node[index].op_type, model.graph.node[index].name = "Nonsense", name
    with pytest.raises(
        BuildError, match=r"(?s)cannot parse the graph; 2 errors:.*node 0 'first' \(Nonsense\).*'second'"
    ):
        trt.build_plan(RTX, model.SerializeToString(), trt.BuildSettings(shapes()))


@needs_rtx
def test_bytes_that_are_no_graph_are_refused():
    with pytest.raises(BuildError, match="cannot parse the graph"):
        trt.build_plan(RTX, b"not a graph", trt.BuildSettings(shapes()))


@needs_rtx
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"compute_capabilities": ("9.9",)}, InputError, "compute capability must be one of 7.5, .*got '9.9'"),
        ({"timing_cache": b""}, InputError, "keeps no timing cache"),
    ],
    ids=["unknown compute capability", "timing cache"],
)
def test_settings_that_rtx_does_not_take(graph, settings, error, message):
    with pytest.raises(error, match=message):
        trt.build_plan(RTX, graph, trt.BuildSettings(shapes(), **settings))


@needs_rtx
@pytest.mark.parametrize(
    "settings",
    [{"compute_capabilities": ("8.6", "12.0")}, {"optimization_level": 5}, {"workspace_mib": 512}],
    ids=["compute capabilities", "optimization level", "workspace"],
)
def test_settings_that_rtx_takes(graph, settings):
    assert trt.build_plan(RTX, graph, trt.BuildSettings(shapes(), **settings)).plan


@needs_rtx
def test_too_little_workspace_says_so(graph):
    model = onnx.load_from_string(graph)
    huge = {"input": tuple((n, 3, *SMALL.input.size_hw) for n in (1, 4, 4096))}
    with pytest.raises(BuildError, match=r"could not build the plan: .*(OutOfMemory|[Ww]orkspace|memory)"):
        trt.build_plan(RTX, model.SerializeToString(), trt.BuildSettings(huge, workspace_mib=1))


@needs_rtx
@pytest.mark.parametrize("data", [b"", b"junk" * 100], ids=["empty", "junk"])
def test_a_plan_that_is_none_is_an_error_in_words(data):
    with pytest.raises(EngineError, match=r"(?s)tensorrt-rtx .* cannot .* plan.*sdk build-engine --rebuild"):
        trt.load_plan(RTX, data)


@needs_rtx
def test_messages_become_log_records_and_none_above_debug_is_dropped(graph, caplog):
    caplog.set_level(TRACE, logger="sdk.trt")
    trt.build_plan(RTX, graph, trt.BuildSettings(shapes()))
    levels = {record.levelno for record in caplog.records if record.name == "sdk.trt.tensorrt_rtx"}
    assert logging.DEBUG in levels
    assert TRACE in levels
    logger = trt._logger(RTX)
    for severity, level in ((logger.WARNING, logging.WARNING), (logger.ERROR, logging.ERROR)):
        caplog.clear()
        logger.log(severity, "told")
        assert [(record.levelno, record.message) for record in caplog.records] == [(level, "told")]


@needs_rtx
def test_errors_of_a_call_that_went_well_are_logged_all_the_same(caplog):
    logger = trt._logger(RTX)
    with logger.collected() as errors:
        logger.log(logger.ERROR, "odd")
        assert errors == ["odd"]
        assert not caplog.records
    assert [record.message for record in caplog.records] == ["odd"]
    with pytest.raises(ZeroDivisionError), logger.collected():
        logger.log(logger.ERROR, "told by the exception")
        raise ZeroDivisionError
    assert len(caplog.records) == 1


@needs_rtx
def test_threads_collect_their_own_errors():
    logger = trt._logger(RTX)
    meet, found = threading.Barrier(8), {}

    def work(name):
        with pytest.raises(ZeroDivisionError), logger.collected() as errors:
            meet.wait(10)
            logger.log(logger.ERROR, name)
            meet.wait(10)
            found[name] = list(errors)
            raise ZeroDivisionError

    in_threads(lambda index: work(str(index)), 8)
    assert found == {name: [name] for name in map(str, range(8))}


def test_compute_capabilities_are_read_from_the_package():
    if trt.flavour(RTX).problem:
        pytest.skip("needs tensorrt-rtx")
    found = trt.compute_capabilities()
    assert "8.6" in found
    assert "12.0" in found
    assert all(part.isdigit() for capability in found for part in capability.split("."))

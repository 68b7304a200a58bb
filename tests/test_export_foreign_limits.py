"""Graphs made elsewhere are taken in a child process with limits: it answers as this one, and its end is told."""

import logging

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

from sdk.errors import GraphError
from sdk.toolchain.foreign import graph_from_file
from sdk.toolchain.limits import limited
from tests.support import foreign_forms as forms
from tests.support.engines import SMALL
from tests.support.foreign_forms import behind, changed, in_turn
from tests.support.foreign_graphs import branch, taken
from tests.support.limited_work import ERRORS


def test_a_graph_is_taken_in_a_child_process_as_in_this_one(graph_file, caplog):
    caplog.set_level(logging.INFO, logger="sdk")
    changed(graph_file, in_turn(forms.batch_of(1), behind(forms.softmax)))
    here, there = taken(graph_file), graph_from_file(graph_file, SMALL)
    assert there.model == here.model
    assert (there.recipe, there.batch, there.notes) == (here.recipe, here.batch, here.notes)
    assert caplog.text.count("softmax inside the graph taken out") == 2  # the child's log is ours


def test_errors_of_the_child_are_ours(graph_file):
    with pytest.raises(GraphError, match="holds a branch or a loop"):
        graph_from_file(changed(graph_file, branch("Loop")), SMALL)


def test_a_graph_that_needs_more_memory_than_its_limit_is_told(graph_file, monkeypatch):
    from sdk.toolchain import limits

    monkeypatch.setattr(limits, "MEMORY_BYTES", 100 << 20)  # the packages alone need more
    monkeypatch.setattr(limits, "MEMORY_FACTOR", 0)
    with pytest.raises(GraphError, match=r"small.onnx' ended the process that read it, which had 0 GiB of memory"):
        graph_from_file(graph_file, SMALL)


@pytest.mark.parametrize("error", ERRORS)
def test_a_want_of_memory_that_is_told_as_a_fault_of_the_graph_is_still_one_of_memory(error):
    with pytest.raises(GraphError, match=r"'a.onnx' ended the process that read it, .* GiB of memory"):
        limited("tests.support.limited_work", "lacks_memory", {"error": error}, subject="'a.onnx'", size=0)


def test_a_graph_that_takes_longer_than_its_limit_is_told(graph_file, monkeypatch):
    from sdk.toolchain import limits

    monkeypatch.setattr(limits, "TIME_S", 0.05)
    with pytest.raises(GraphError, match=r"small.onnx' cannot be worked on within 0.05 seconds"):
        graph_from_file(graph_file, SMALL)

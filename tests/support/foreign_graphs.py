"""Graphs made elsewhere as tests take them: the plain one, what it gives, what a taken one must be."""

import zipfile

import numpy as np
from onnx import TensorProto, helper

from sdk.toolchain.conventions import Told
from sdk.toolchain.foreign import take
from sdk.toolchain.graphs import graph_inputs, graph_outputs, graph_session, opset_of
from tests.support import foreign_forms as forms
from tests.support.engines import SMALL


def taken(path, recipe=SMALL, **told):
    return take(path, recipe, Told(**told))


def crops(count, recipe=SMALL):
    return np.random.default_rng(0).standard_normal((count, 3, *recipe.input.size_hw)).astype(np.float32)


def outputs_of(model, count=3, recipe=SMALL):
    return graph_session(model).run(None, {"input": crops(count, recipe)})


def assert_standard(model, recipe=SMALL, batch="batch"):
    assert [t.name for t in graph_inputs(model)] == ["input"]
    assert [t.name for t in graph_outputs(model)] == ["simcc_x", "simcc_y"]
    assert [t.shape for t in graph_outputs(model)] == [(batch, recipe.joints, bins) for bins in recipe.bins_xy]
    assert opset_of(model) in (19, 20)
    assert all(node.name for node in model.graph.node)


def zipped(path, *names):
    archive = path.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for name in names:
            file.write(path, name)
        file.writestr("deploy/deploy.json", "{}")
    return archive


def branch(op):
    """A node that holds graphs of its own. What it would do is nothing: it must not come to that."""

    def change(model):
        inner = helper.make_graph([helper.make_node("Identity", ["simcc_x"], ["inner"])], "inner", [], [
            helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)])  # fmt: skip
        keys = {"If": ("then_branch", "else_branch")}.get(op, ("body",))
        more = {"num_scan_inputs": 1} if op == "Scan" else {}
        forms.constant(model, "condition", np.array(True))
        model.graph.node.append(
            helper.make_node(op, ["condition"], ["out"], name="bend", **dict.fromkeys(keys, inner), **more)
        )

    return change


def batch_normalised(model):
    """Normalisation of plain pixels as an operator with weights."""
    constants = [np.ones(3, np.float32), np.zeros(3, np.float32), forms.MEAN, forms.STD**2]
    forms.before(("BatchNormalization", constants, {"epsilon": 0.0}))(model)

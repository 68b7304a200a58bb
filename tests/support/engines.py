"""Engine folders for tests that need one without the toolchain: an ONNX file wrapped with a hand-written manifest."""

import json
import shutil
from dataclasses import replace

import numpy as np

from sdk.manifest import (
    FORMAT,
    GRAPH_NAME,
    MANIFEST_NAME,
    BatchRange,
    Manifest,
    WeightsNote,
    open_engine,
    sha256_of_file,
)
from sdk.recipe import DepthAxis, Input, Output, Protocol, Recipe
from sdk.recipe_networks import CSPNeXt, HeatmapHead, LinearSimccHead, Network, ResNet
from sdk.skeletons import skeleton_by_name

BODY14 = Recipe(
    name="body14-lspet-128x128",
    description="test network trained on LSPET",
    source="tests",
    licence="Apache-2.0",
    network=Network(CSPNeXt("cspnext", 0.167, 0.375), LinearSimccHead("simcc", (), 1)),
    input=Input(128, 128, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "rgb", 1.25),
    output=Output("simcc", 2.0, "min_softmax"),
    skeleton=skeleton_by_name("crowdpose14"),
    protocol=Protocol(flip_test=False, flip_shift=False),
)


def wrapped_engine(onnx_path, folder, recipe=BODY14, *, max_batch=8, **changes):
    """Wrap an ONNX file as an engine in `folder`; `changes` are laid over the manifest."""
    folder.mkdir(parents=True)
    shutil.copyfile(onnx_path, folder / GRAPH_NAME)
    manifest = Manifest(
        format=FORMAT,
        recipe=recipe,
        precision="fp32",
        opset=17,
        batch=BatchRange(1, 1, max_batch),
        weights=WeightsNote("onnx", "test"),
        files={GRAPH_NAME: sha256_of_file(folder / GRAPH_NAME)},
        key="0" * 64,
        created_by="tests",
    )
    table = replace(manifest, **changes).to_table()
    (folder / MANIFEST_NAME).write_text(json.dumps(table))
    return folder


def given_plan(folder, note, plan):
    """Give an engine folder made by `wrapped_engine` a plan of these bytes; the engine, opened."""
    (folder / note.plan).write_bytes(plan)
    manifest = open_engine(folder).manifest
    files = {**manifest.files, note.plan: sha256_of_file(folder / note.plan)}
    (folder / MANIFEST_NAME).write_text(json.dumps(replace(manifest, compiler=note, files=files).to_table()))
    return open_engine(folder)


def pooled_simcc_graph(path, recipe, seed=0):
    """A tiny real SimCC graph of `recipe`'s shapes: average pooling, then one seeded linear layer an axis."""
    return _pooled_graph(path, recipe, seed)


def pooled_heatmap_graph(path, recipe):
    """A tiny real heatmap graph: average pooling by four, then a seeded 1x1 convolution to one map a joint."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    height, width = recipe.input.size_hw
    weights = rng.standard_normal((recipe.joints, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["pooled", "weights"], ["heatmap"]),
    ]
    graph = helper.make_graph(
        nodes,
        "heatmap",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, height, width])],
        [
            helper.make_tensor_value_info(
                "heatmap", TensorProto.FLOAT, ["batch", recipe.joints, height // 4, width // 4]
            )
        ],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def _pooled_graph(path, recipe, seed):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    height, width = recipe.input.size_hw
    features = 3 * (height // 8) * (width // 8)
    nodes = [
        helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
    ]
    constants, outputs = [], []
    for name, bins in zip(recipe.output.names, recipe.bins, strict=True):
        weights = rng.standard_normal((features, recipe.joints * bins)).astype(np.float32) / features**0.5
        constants += [
            numpy_helper.from_array(weights, f"{name}_weights"),
            numpy_helper.from_array(np.array([0, recipe.joints, bins], np.int64), f"{name}_shape"),
        ]
        nodes += [
            helper.make_node("MatMul", ["flat", f"{name}_weights"], [f"{name}_flat"]),
            helper.make_node("Reshape", [f"{name}_flat", f"{name}_shape"], [name]),
        ]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", recipe.joints, bins]))
    graph = helper.make_graph(
        nodes,
        "simcc",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, height, width])],
        outputs,
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


SMALL = replace(
    BODY14,
    name="small-64x48",
    input=replace(BODY14.input, height=64, width=48),
    output=Output("simcc", 2.0, "min_logit"),
)
SMALL_3D = replace(SMALL, output=replace(SMALL.output, depth=DepthAxis(72, 1.5, "m", ("left_hip", "right_hip"))))
SMALL_HEATMAP = replace(
    SMALL,
    network=Network(ResNet("resnet", 18), HeatmapHead("heatmap", ())),
    output=Output("heatmap"),
)

"""A tiny real detector, as an engine that the simulated device runs, and what it finds on the CPU.

engine = small_detector_engine(folder)
boxes, scores = found_on_cpu(engine, frame)
"""

import json
import shutil
from functools import cache

import numpy as np

from sdk import ops
from sdk.detection import DetectionForm, Part, letterbox
from sdk.detector_recipe import DetectorInput, DetectorRecipe
from sdk.manifest import (
    FORMAT,
    GRAPH_NAME,
    MANIFEST_NAME,
    BatchRange,
    CompilerNote,
    DetectorManifest,
    WeightsNote,
    open_detector_engine,
    sha256_of_file,
)
from sdk.runtime.frames import crop_options
from sdk.runtime.ort_session import onnxruntime_session

SIMULATED = b"simulated detector of "  # how a plan begins that only the simulation reads
STRIDE = 8
SPREADS = np.array([0.5, 0.5, 0.3, 0.3, 0.2, 0.2]).reshape(6, 1, 1, 1)
BRIGHTNESS = np.array([0, 0, 0, 0, 0.9, 0]).reshape(6, 1, 1, 1)  # bright cells are persons
GRID = DetectorRecipe(
    name="small-grid-64x96",
    description="test detector",
    source="tests",
    licence="Apache-2.0",
    input=DetectorInput(64, 96, (103.5, 116.25, 123.75), (57.5, 57.0, 58.5), "bgr", "centre"),
    outputs=("grid",),
    form=DetectionForm("grid", Part(0), Part(0, 5), objectness=4, activation="sigmoid", strides=(STRIDE,)),
    iou=0.4,
    score_threshold=0.6,
)


def grid_graph(path, recipe=GRID):
    """Average pooling by the stride, then one seeded 1x1 convolution: a row a cell, 1 x M x 6."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    height, width = recipe.input.size_hw
    cells = height // STRIDE * (width // STRIDE)
    pool = {"kernel_shape": [STRIDE, STRIDE], "strides": [STRIDE, STRIDE]}
    constants = {
        "weights": (rng.standard_normal((6, 3, 1, 1)) * SPREADS + BRIGHTNESS).astype(np.float32),
        "bias": np.float32([0.5, 0.5, 0.7, 1.0, -0.3, 1.5]),
        "shape": np.array([1, 6, cells], np.int64),
    }
    nodes = [
        helper.make_node("AveragePool", ["images"], ["pooled"], **pool),
        helper.make_node("Conv", ["pooled", "weights", "bias"], ["maps"]),
        helper.make_node("Reshape", ["maps", "shape"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["grid"], perm=[0, 2, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "grid",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info("grid", TensorProto.FLOAT, [1, cells, 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def small_detector_engine(folder, recipe=GRID, *, plan=True, graph_of=None):
    """The engine of a recipe whose graph is a `grid_graph`, with a plan that only the simulation reads."""
    graph = grid_graph(folder.with_suffix(".onnx"), graph_of or recipe)
    note = CompilerNote("tensorrt", "10.3.0", "8.7", "tensorrt.plan") if plan else None
    return written_detector(folder, graph, recipe, note, SIMULATED + str(folder).encode())


def written_detector(folder, graph, recipe, note=None, plan=b""):
    """The engine of a graph's file and of a plan, where a note tells what compiled it."""
    folder.mkdir(parents=True)
    shutil.copyfile(graph, folder / GRAPH_NAME)
    files = {GRAPH_NAME: sha256_of_file(graph)}
    if note is not None:
        (folder / note.plan).write_bytes(plan)
        files[note.plan] = sha256_of_file(folder / note.plan)
    manifest = DetectorManifest(
        format=FORMAT,
        recipe=recipe,
        precision="fp32",
        opset=17,
        batch=BatchRange(1, 1, 1),
        weights=WeightsNote("onnx", "test"),
        files=files,
        key="0" * 64,
        created_by="tests",
        compiler=note,
    )
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest.to_table()))
    return open_detector_engine(folder)


@cache
def session_of(path):
    return onnxruntime_session(path, 1)


def found_on_cpu(engine, frame, pixel_format="bgr", dtype=np.float32):
    """Boxes and scores by the native ops and ONNX Runtime, in the plan's type."""
    recipe = engine.manifest.recipe
    source, height = recipe.input, frame.shape[0]
    frame_hw = (height * 2 // 3 if pixel_format.startswith("nv12") else height, frame.shape[1])
    placed = letterbox(frame_hw, source.size_hw, source.place)
    options = {"mean": source.mean, "std": source.std, "channel_order": source.colour, "border": round(source.border)}
    blob = ops.crop(frame, placed.crop, source.size_hw, dtype=dtype, **options, **crop_options(pixel_format))
    outputs = session_of(engine.graph_path).run(None, {source.name: blob.astype(np.float32)})
    return ops.detections(
        [each.astype(dtype) for each in outputs],
        recipe.form,
        to_frame=placed.to_frame,
        size_hw=source.size_hw,
        frame_hw=frame_hw,
        score_threshold=recipe.score_threshold,
        iou=recipe.iou,
    )


def crowded_frame(seed=0, hw=(90, 120)):
    """Bright and dark squares: some fifteen persons."""
    squares = np.random.default_rng(seed).integers(0, 2, (-(-hw[0] // 11), -(-hw[1] // 11), 1)) * 150
    noise = np.random.default_rng([seed, 1]).integers(0, 100, (*hw, 3))
    return (np.repeat(np.repeat(squares, 11, 0), 11, 1)[: hw[0], : hw[1]] + noise).astype(np.uint8)

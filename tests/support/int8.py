"""A small pose graph with every pattern that placement knows, photographs to calibrate on, and their recipe."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdk.recipe import recipe_from_table
from sdk.toolchain.equalize import equalised_graph_from_graph
from sdk.toolchain.fingerprint import fingerprint_of
from sdk.toolchain.graphs import graph_session
from sdk.toolchain.placement import PlacementOptions, placement_of
from sdk.toolchain.table import TABLE_FORMAT, CalibrationTable, DataNote, TensorRange

SIZE = 32
JOINTS = 14
BINS = 64
NOISE = 9 * (8 / 127) ** 2 / 12  # over signal: 9 tensors, each rounded to 127 steps of a range 8 times its RMS


def tiny_recipe():
    table = {
        "name": "tiny-32x32", "description": "a test", "source": "tests", "licence": "Apache-2.0",
        "skeleton": "crowdpose14",
        "network": {
            "backbone": {"kind": "cspnext", "deepen": 0.167, "widen": 0.375},
            "head": {"kind": "simcc", "deconv": [], "maps_per_joint": 1},
        },
        "input": {
            "height": SIZE, "width": SIZE, "mean": [120.0, 110.0, 100.0], "std": [60.0, 60.0, 60.0], "colour": "rgb",
            "box_padding": 1.25,
        },
        "output": {"kind": "simcc", "split_ratio": 2.0, "score": "min_softmax"},
        "protocol": {"flip_test": False, "flip_shift": False},
    }  # fmt: skip
    return recipe_from_table(table, "tests")


class Builder:
    """Nodes and seeded weights, appended in order; every call gives the name of what it makes."""

    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights = [], []

    def constant(self, name, array):
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op, inputs, name, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [name], f"/{name}", **attributes))
        return name

    def conv(self, data, name, before, after, kernel=1, stride=1, groups=1):
        fan = before // groups * kernel * kernel
        weight = self.random.normal(0, (2 / fan) ** 0.5, (after, before // groups, kernel, kernel))
        inputs = [data, self.constant(f"{name}.w", weight.astype(np.float32))]
        inputs.append(self.constant(f"{name}.b", self.random.normal(0, 0.1, after).astype(np.float32)))
        pad = kernel // 2
        return self.node(
            "Conv", inputs, name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, group=groups
        )

    def silu(self, data):
        return self.node("Mul", [data, self.node("Sigmoid", [data], f"{data}.sigmoid")], f"{data}.silu")

    def matmul(self, data, name, before, after):
        weight = self.random.normal(0, before**-0.5, (before, after)).astype(np.float32)
        return self.node("MatMul", [data, self.constant(f"{name}.w", weight)], name)

    def model(self, outputs, size=SIZE, opset=19, channels=3):
        image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", channels, size, size])
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "tiny", [image], values, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        model = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(model)
        return model


def tiny_graph(opset=19):
    """Stem, SiLU, residual, depthwise, ReLU pair, gate, concat behind a pool, last convolution, two classifiers."""
    b = Builder()
    x = b.node("Relu", [b.conv("input", "stem", 3, 8, 3, 2)], "stem.relu")
    inner = b.silu(b.conv(x, "first", 8, 8, 3))
    x = b.node("Relu", [b.node("Add", [b.conv(inner, "second", 8, 8, 3), x], "sum")], "block")
    x = b.node("Relu", [b.conv(x, "depthwise", 8, 8, 3, groups=8)], "depthwise.relu")
    x = b.node("Relu", [b.conv(x, "pair", 8, 16)], "pair.relu")
    x = b.silu(b.conv(x, "after", 16, 8))
    pooled = b.node("GlobalAveragePool", [x], "pooled")
    gate = b.node("HardSigmoid", [b.conv(pooled, "gate", 8, 8)], "gate.sigmoid")
    x = b.node("Mul", [x, gate], "gated")
    x = b.silu(b.conv(x, "mixed", 8, 8))
    pool = b.node("MaxPool", [x], "pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    both = b.node("Concat", [x, pool], "both", axis=1)
    side = b.conv(x, "side", 8, 8)
    x = b.silu(b.conv(both, "joined", 16, 8))
    x = b.node("Add", [x, side], "merge")
    x = b.conv(x, "last", 8, JOINTS)
    shape = b.constant("shape", np.array([0, JOINTS, -1], np.int64))
    x = b.node("Reshape", [x, shape], "flat")
    for axis in "xy":
        b.matmul(x, f"simcc_{axis}", SIZE * SIZE // 4, BINS)
    return b.model(["simcc_x", "simcc_y"], opset=opset)


def photograph(seed, height=90, width=70):
    """Smooth noise: neighbouring pixels resemble each other, as in a photograph."""
    import cv2

    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write_photographs(folder, count, annotate=True, picture=photograph):
    """`count` pictures and `people.json` beside them, in COCO's form; the JSON's path."""
    import cv2

    random = np.random.default_rng(1)
    images, people = [], []
    for index in range(count):
        frame = picture(index)
        cv2.imwrite(str(folder / f"{index}.png"), frame)
        height, width = frame.shape[:2]
        images.append({"id": index, "file_name": f"{index}.png", "height": height, "width": width})
        person = {"id": index, "image_id": index, "category_id": 1, "bbox": [5.0, 5.0, width - 10.0, height - 10.0]}
        if annotate:
            points = np.column_stack([random.uniform(8, width - 8, JOINTS), random.uniform(8, height - 8, JOINTS)])
            person["keypoints"] = np.column_stack([points, np.full(JOINTS, 2)]).ravel().tolist()
            person["area"] = 0.5 * width * height
        people.append(person)
    path = folder / "people.json"
    path.write_text(json.dumps({"images": images, "annotations": people, "categories": [{"id": 1}]}))
    return path


def changed(model, name, value):
    """A copy of a graph whose constant `name` is all `value`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensor = next(t for t in copy.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.full(tuple(tensor.dims), value, np.float32), name))
    return copy


def noise_crops(count=4):
    return np.random.default_rng(2).standard_normal((count, 3, SIZE, SIZE)).astype(np.float32)


def values_of(model, names, inputs):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    return dict(zip(names, graph_session(copy).run(list(names), {"input": inputs}), strict=True))


def table_for(model, inputs, equalisation=None):
    """A table of the exact ranges and means on `inputs`."""
    even = equalised_graph_from_graph(model, equalisation or {})
    names = placement_of(even, PlacementOptions(quantise_all=True)).tensors
    inner = [name for name in names if name != "input"]
    values = values_of(even, inner, inputs) | {"input": inputs}
    tensors = {}
    for name in names:
        value = values[name]
        mean = np.moveaxis(value, 1 if value.ndim == 4 else -1, 0).reshape(
            value.shape[1 if value.ndim == 4 else -1], -1
        )
        peak = float(np.abs(value).max())
        tensors[name] = TensorRange(peak, "max", {"max": peak}, {"max": 0.0}, {}, tuple(map(float, mean.mean(axis=1))))
    data = DataNote("noise", 4, 4, 0, 0, 0.0, "0" * 64)
    return CalibrationTable(
        TABLE_FORMAT, "tiny-32x32", fingerprint_of(model), "max", data, tensors, {}, equalisation=equalisation or {}
    )

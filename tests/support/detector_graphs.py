"""Small detectors of every form that people have: graphs that find the same persons in any picture, told in their form.

Each is fed as its form is fed, or it sees nobody: a gate on the picture's values closes its scores. What must come out
is PERSONS, whatever the form; the way into each form is written here from its definition.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 128  # of the square input
STRIDES = (8, 16, 32)
PERSONS = np.array([[10, 20, 50, 100], [70, 8, 110, 60], [64, 70, 120, 126]], np.float32)  # xyxy, input pixels
SCORES = np.array([0.9, 0.75, 0.5], np.float32)
DOG = (np.array([30, 30, 60, 60], np.float32), 0.95)
GATES = {  # what a graph is fed with -> whether the gate is open, of the picture's least and greatest value
    "0..255": ("greatest", 10.0, 1.0, 0.01),
    "0..1": ("least", -0.5, 1.0, 0.01),
    "normalised": ("least", -0.5, 0.05, 1.0),
    "anything": ("least", -1e9, 1.0, 1.0),
}


class Graph:
    """A graph under construction: constants, nodes, outputs."""

    def __init__(self, fed, free=False):
        self.nodes, self.constants, self.outputs = [], [], []
        sides = ["height", "width"] if free else [SIDE, SIDE]
        self.inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, *sides])]
        which, limit, above, below = GATES[fed]
        value = self.node("ReduceMax" if which == "greatest" else "ReduceMin", ["images"], keepdims=0)
        is_above = self.node("Greater", [value, self.constant(np.float32(limit))])
        self.gate = self.node("Where", [is_above, self.constant(np.float32(above)), self.constant(np.float32(below))])

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op, inputs, *, name=None, count=1, domain="", **attributes):
        made = name or f"t{len(self.nodes)}"
        names = [made] if count == 1 else [f"{made}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"n{len(self.nodes)}", domain=domain, **attributes))
        return made if count == 1 else names

    def gated(self, array, columns, name=None):
        """A constant 1 x M x C of which these columns, or all, are multiplied by the gate."""
        mask = np.zeros(array.shape[-1], np.float32)
        mask[columns] = 1
        open_ = self.node("Mul", [self.constant(mask), self.gate])
        kept = self.node("Add", [open_, self.constant(1 - mask)])
        return self.node("Mul", [self.constant(np.asarray(array, np.float32)), kept], name=name)

    def output(self, name, kind=TensorProto.FLOAT, rank=3):
        self.outputs.append(helper.make_tensor_value_info(name, kind, [None] * rank))

    def saved(self, path, metadata=None, opset=17):
        graph = helper.make_graph(self.nodes, "detector", self.inputs, self.outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        helper.set_model_props(model, metadata or {})
        onnx.save(model, path)
        return path


def cells():
    """(column, row, stride) of every cell, in the order of rows."""
    found = []
    for stride in STRIDES:
        for row in range(SIDE // stride):
            found += [(column, row, stride) for column in range(SIDE // stride)]
    return np.array(found, np.float64)


def placed(boxes=PERSONS):
    """The row of a finest cell for each box: that of its centre."""
    columns, rows = (((boxes[:, axis] + boxes[:, axis + 2]) / 2 // 8).astype(int) for axis in (0, 1))
    return rows * (SIDE // 8) + columns


def everybody():
    """Boxes, scores and classes (0 the person's) of the persons and the dog."""
    return np.vstack([PERSONS, DOG[0]]), np.append(SCORES, DOG[1]).astype(np.float32), np.array([0, 0, 0, 16])


def centred(boxes):
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def decoded_cells(classes, extra=0):
    """M x (4 + extra + classes): every cell a box of its own stride at its own place, and those of everybody."""
    every = cells()
    table = np.zeros((len(every), 4 + extra + classes), np.float32)
    table[:, :2] = (every[:, :2] + 0.5) * every[:, 2:]
    table[:, 2:4] = every[:, 2:]
    boxes, scores, labels = everybody()
    for row, box, score, label in zip(placed(boxes), centred(boxes), scores, labels, strict=True):
        if label < classes:
            table[row, :4] = box
            table[row, 4 + extra + label] = score / 0.96 if extra else score
            if extra:
                table[row, 4] = 0.96
    return table


def rtmdet(path):
    graph = Graph("normalised")
    boxes, scores, labels = everybody()
    graph.gated(np.concatenate([boxes, scores[:, None]], axis=1)[None], [4], "dets")
    graph.node("Identity", [graph.constant(labels[None].astype(np.int64))], name="labels")
    graph.output("dets"), graph.output("labels", TensorProto.INT64, 2)
    return graph.saved(path)


def yolox_nms(path):
    graph = Graph("0..255")
    boxes, scores, labels = everybody()
    graph.gated(np.concatenate([boxes, scores[:, None]], axis=1)[None], [4], "dets")
    graph.node("Identity", [graph.constant(labels[None].astype(np.int64))], name="labels")
    graph.output("dets"), graph.output("labels", TensorProto.INT64, 2)
    return graph.saved(path)


def raw_cells(path):
    """Boxes and scores of cells: RTMDet before its NMS."""
    graph = Graph("normalised")
    table = decoded_cells(1)
    corners = np.concatenate([table[:, :2] - table[:, 2:4] / 2, table[:, :2] + table[:, 2:4] / 2], axis=1)
    graph.node("Identity", [graph.constant(corners[None])], name="boxes")
    graph.gated(table[None, :, 4:], slice(None), "scores")
    graph.output("boxes"), graph.output("scores")
    return graph.saved(path)


def yolox_grid(path):
    graph = Graph("0..255")
    every, table = cells(), decoded_cells(80, extra=1)
    table[:, :2] = table[:, :2] / every[:, 2:] - every[:, :2]
    table[:, 2:4] = np.log(table[:, 2:4] / every[:, 2:])
    graph.gated(table[None], [4], "output")
    graph.output("output")
    return graph.saved(path)


def yolox_decoded(path):
    graph = Graph("0..255")
    graph.gated(decoded_cells(80, extra=1)[None], [4], "output")
    graph.output("output")
    return graph.saved(path)


def yolov5(path):
    graph = Graph("0..1")
    table = decoded_cells(80, extra=1)
    graph.gated(np.concatenate([table, np.zeros_like(table), np.zeros_like(table)])[None], [4], "output0")
    graph.output("output0")
    return graph.saved(path)


def yolov8(path, classes=80, metadata=None):
    graph = Graph("0..1")
    rows = graph.gated(decoded_cells(classes)[None], slice(4, None))
    graph.node("Transpose", [rows], name="output0", perm=[0, 2, 1])
    graph.output("output0")
    return graph.saved(path, metadata)


def end_to_end(path):
    graph = Graph("0..1")
    boxes, scores, labels = everybody()
    rows = np.zeros((300, 6), np.float32)
    rows[:4] = np.concatenate([boxes, scores[:, None], labels[:, None]], axis=1)
    graph.gated(rows[None], [4], "output0")
    graph.output("output0")
    return graph.saved(path)


def queries(classes):
    """N x 4 shares and N x classes scores of a set."""
    boxes, scores, labels = everybody()
    shares, table = np.full((300, 4), 0.3, np.float32), np.zeros((300, classes), np.float32)
    shares[:4] = centred(boxes) / SIDE
    first = 1 if classes in (91, 92) else 0
    for row, (score, label) in enumerate(zip(scores, labels, strict=True)):
        table[row, label + first] = score
    return shares, table


def rt_detr_in_one(path):
    graph = Graph("0..1")
    shares, table = queries(80)
    graph.gated(np.concatenate([shares, table], axis=1)[None], slice(4, None), "output0")
    graph.output("output0")
    return graph.saved(path)


def set_of_logits(path, fed, classes, boxes_name, logits_name):
    """Boxes and logits: what the gate leaves of a score, as the number that a sigmoid makes it of."""
    graph = Graph(fed)
    shares, table = queries(classes)
    graph.node("Identity", [graph.constant(shares[None])], name=boxes_name)
    probability = graph.gated(np.clip(table, 1e-4, 0.999)[None], slice(None))
    rest = graph.node("Sub", [graph.constant(np.float32(1)), probability])
    graph.node("Log", [graph.node("Div", [probability, rest])], name=logits_name)
    graph.output(boxes_name), graph.output(logits_name)
    return graph.saved(path)


def detr_of_softmax(path):
    """Logits of which a softmax makes the scores, the last class being nobody."""
    graph = Graph("normalised")
    shares, table = queries(92)
    graph.node("Identity", [graph.constant(shares[None])], name="pred_boxes")
    table[:, -1] = 1 - table.sum(axis=1)
    closed = np.zeros_like(table)
    closed[:, -1] = 1
    share = graph.node("Mul", [graph.constant(np.clip(table, 1e-5, 1)[None]), graph.gate])
    rest = graph.node("Sub", [graph.constant(np.float32(1)), graph.gate])
    nobody = graph.node("Mul", [graph.constant(np.clip(closed, 1e-5, 1)[None]), rest])
    graph.node("Log", [graph.node("Add", [share, nobody])], name="logits")
    graph.output("logits"), graph.output("pred_boxes")
    return graph.saved(path)


def set_with_sizes(path, kind=np.int64):
    """Labels, boxes in pixels of the frame whose size is given beside the picture, and scores."""
    graph = Graph("0..1")
    boxes, scores, labels = everybody()
    tensor = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph.inputs.append(helper.make_tensor_value_info("orig_target_sizes", tensor, [1, 2]))
    pair = graph.node("Cast", ["orig_target_sizes"], to=TensorProto.FLOAT)
    sizes = graph.node("Concat", [pair, pair], axis=1)
    rows = np.zeros((300, 4), np.float32)
    rows[:4] = boxes / SIDE
    kept, number = np.zeros((1, 300), np.float32), np.zeros((1, 300), np.int64)
    kept[0, :4], number[0, :4] = scores, labels
    graph.node("Identity", [graph.constant(number)], name="labels")
    graph.node("Mul", [graph.constant(rows[None]), sizes], name="boxes")
    graph.gated(kept, slice(None), "scores")
    graph.output("labels", TensorProto.INT64, 2), graph.output("boxes"), graph.output("scores", rank=2)
    return graph.saved(path)


def suppressing(path, *, iou=0.6):
    """RTMDet's own form with its NMS inside: each person has two more boxes beside the best, which NMS drops."""
    graph = Graph("normalised")
    table = decoded_cells(1)
    for row, box, score in zip(placed(), centred(PERSONS), SCORES, strict=True):
        for twin in range(2):
            table[row + 1 + twin, :4] = box + np.array((twin + 1, 0, 1, 0))
            table[row + 1 + twin, 4] = score * 0.9
    corners = np.concatenate([table[:, :2] - table[:, 2:4] / 2, table[:, :2] + table[:, 2:4] / 2], axis=1)
    boxes = graph.node(
        "Add", [graph.constant(corners[None]), graph.node("Mul", [graph.gate, graph.constant(np.float32(0))])]
    )
    scores = graph.gated(table[None, :, 4:], slice(None))
    turned = graph.node("Transpose", [scores], perm=[0, 2, 1])
    most, limit, least = (
        graph.constant(np.array([v], t)) for v, t in ((100, np.int64), (iou, np.float32), (0.05, np.float32))
    )
    chosen = graph.node("NonMaxSuppression", [boxes, turned, most, limit, least])
    number, box_row = (graph.node("Gather", [chosen, graph.constant(np.array(at, np.int64))], axis=1) for at in (1, 2))
    kept = graph.node("Gather", [boxes, box_row], axis=1)
    score = graph.node("GatherND", [turned, chosen])
    column = graph.node("Reshape", [score, graph.constant(np.array([1, -1, 1], np.int64))])
    graph.node("Concat", [kept, column], name="dets", axis=2)
    graph.node("Reshape", [number, graph.constant(np.array([1, -1], np.int64))], name="labels")
    graph.output("dets"), graph.output("labels", TensorProto.INT64, 2)
    return graph.saved(path)


def with_plugin(path):
    """RTMDet's cells into TensorRT's EfficientNMS, which only TensorRT runs."""
    graph = Graph("normalised")
    table = decoded_cells(1)
    corners = np.concatenate([table[:, :2] - table[:, 2:4] / 2, table[:, :2] + table[:, 2:4] / 2], axis=1)
    boxes = graph.node("Identity", [graph.constant(corners[None])])
    scores = graph.gated(table[None, :, 4:], slice(None))
    names = graph.node("EfficientNMS_TRT", [boxes, scores], name="num", count=4, domain="TRT", iou_threshold=0.55)
    for name, kind in zip(
        names, (TensorProto.INT32, TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT32), strict=True
    ):
        graph.output(name, kind)
    return graph.saved(path)


FORMS = {  # what it is taken for, and how it is made
    "RTMDet": ("rtmdet", rtmdet),
    "RTMDet before its NMS": ("rtmdet", raw_cells),
    "YOLOX with its NMS": ("yolox-nms", yolox_nms),
    "YOLOX": ("yolox", yolox_grid),
    "YOLOX, decoded": ("yolox", yolox_decoded),
    "YOLOv5": ("yolov5", yolov5),
    "YOLOv8": ("yolov8", yolov8),
    "YOLOv8 of one class": ("yolov8", lambda path: yolov8(path, 1)),
    "YOLO end to end": ("yolo-e2e", end_to_end),
    "RT-DETR in one output": ("rt-detr", rt_detr_in_one),
    "RT-DETR, logits": ("rt-detr", lambda path: set_of_logits(path, "0..1", 80, "pred_boxes", "logits")),
    "D-FINE with sizes": ("rt-detr", set_with_sizes),
    "RF-DETR": ("rf-detr", lambda path: set_of_logits(path, "normalised", 91, "dets", "labels")),
}


def convolutional(path):
    """A small network of YOLOX's form with real convolutions, one of them depthwise, that finds nobody."""
    graph, rng = Graph("anything"), np.random.default_rng(0)

    def conv(tensor, outs, ins, size, stride, group=1):
        weight = graph.constant((rng.standard_normal((outs, ins // group, size, size)) / size).astype(np.float32))
        pads = [size // 2] * 4 if size % 2 else [0] * 4
        return graph.node("Conv", [tensor, weight], strides=[stride, stride], pads=pads, group=group)

    scaled = graph.node("Mul", ["images", graph.constant(np.float32(1 / 128))])
    level, levels = graph.node("Relu", [conv(scaled, 8, 3, 8, 8)]), []
    for stride in STRIDES:
        level = graph.node("Relu", [conv(level, 8, 8, 3, 1 if stride == 8 else 2, group=8)])
        level = graph.node("Relu", [conv(level, 8, 8, 1, 1)])
        boxes, scores = conv(level, 4, 8, 1, 1), graph.node("Sigmoid", [conv(level, 2, 8, 1, 1)])
        joined = graph.node("Concat", [boxes, scores], axis=1)
        levels.append(graph.node("Reshape", [joined, graph.constant(np.array([1, 6, -1], np.int64))]))
    rows = graph.node("Transpose", [graph.node("Concat", levels, axis=2)], perm=[0, 2, 1])
    low = graph.constant(np.array([1, 1, 1, 1, 0.3, 0.3], np.float32))  # scores that nobody reaches
    graph.node("Mul", [rows, low], name="output")
    graph.output("output")
    return graph.saved(path)

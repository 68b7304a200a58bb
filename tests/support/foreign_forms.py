"""The forms in which people have their SimCC graphs: each a change of a plain one (float32 N x 3 x h x w, logits)."""

import json
import zipfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MEAN, STD = np.array([123.675, 116.28, 103.53], np.float32), np.array([58.395, 57.12, 57.375], np.float32)


def constant(model, name, array):
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return name


def rename(model, names):
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)


def renamed(names):
    return lambda model: rename(model, names)


def before(*nodes, dtype=TensorProto.FLOAT, shape=("batch", 3, 64, 48)):
    """Put operators between a new input of this type and shape and the graph; each is (op, constants, attributes)."""

    def change(model):
        rename(model, {"input": "body"})
        del model.graph.input[:]
        model.graph.input.append(helper.make_tensor_value_info("input", dtype, shape))
        tensor, made = "input", []
        for place, (op, constants, attributes) in enumerate(nodes):
            names = [constant(model, f"front{place}_{i}", array) for i, array in enumerate(constants)]
            made.append(helper.make_node(op, [tensor, *names], [f"front{place}"], **attributes))
            tensor = f"front{place}"
        made[-1].output[0] = "body"
        for node in reversed(made):
            model.graph.node.insert(0, node)

    return change


CAST = ("Cast", (), {"to": TensorProto.FLOAT})
TO_NCHW = ("Transpose", (), {"perm": [0, 3, 1, 2]})
SUB = ("Sub", (MEAN.reshape(1, 3, 1, 1),), {})
DIV = ("Div", (STD.reshape(1, 3, 1, 1),), {})
SUB_LAST = ("Sub", (MEAN,), {})
DIV_LAST = ("Div", (STD,), {})
SUB_UNIT = ("Sub", ((MEAN / 255).reshape(3, 1, 1),), {})
DIV_UNIT = ("Div", ((STD / 255).reshape(3, 1, 1),), {})
BY_255 = ("Div", (np.float32(255),), {})
GATHER_TURN = ("Gather", (np.array([2, 1, 0], np.int64),), {"axis": 1})
SLICE_TURN = ("Slice", tuple(np.array([v], np.int64) for v in (-1, -(2**31), 1, -1)), {})
NHWC = ("batch", 64, 48, 3)


def behind(op_of, *, rank=3, dtype=None, keep=False):
    """Put the nodes `op_of(model, tensor, new name)` behind both outputs; `keep`: beside them."""

    def change(model):
        for value in list(model.graph.output):
            name, new = value.name, f"{value.name}_{'more' if keep else 'out'}"
            model.graph.node.extend(op_of(model, name, new))
            made = helper.make_tensor_value_info(new, dtype or value.type.tensor_type.elem_type, [None] * rank)
            if keep:
                model.graph.output.append(made)
            else:
                value.CopyFrom(made)

    return change


def softmax(model, name, new):
    return [helper.make_node("Softmax", [name], [new], axis=-1)]


def softmax_by_hand(model, name, new):
    axis = constant(model, f"{new}_axis", np.array([-1], np.int64))
    return [
        helper.make_node("Exp", [name], [f"{new}_exp"]),
        helper.make_node("ReduceSum", [f"{new}_exp", axis], [f"{new}_sum"]),
        helper.make_node("Div", [f"{new}_exp", f"{new}_sum"], [new]),
    ]  # fmt: skip


def transposed(*perm):
    return lambda model, name, new: [helper.make_node("Transpose", [name], [new], perm=perm)]


def softmax_then_turned(model, name, new):
    return [
        helper.make_node("Softmax", [name], [f"{new}_p"], axis=-1),
        helper.make_node("Transpose", [f"{new}_p"], [new], perm=[1, 0, 2]),
    ]


def unsqueezed(model, name, new):
    return [helper.make_node("Unsqueeze", [name, constant(model, f"{new}_axes", np.array([1], np.int64))], [new])]


def squeezed(model, name, new):
    return [helper.make_node("Squeeze", [name, constant(model, f"{new}_axes", np.array([0], np.int64))], [new])]


def argmax(model, name, new):
    return [helper.make_node("ArgMax", [name], [new], axis=-1, keepdims=0)]


def in_turn(*changes):
    def change(model):
        for each in changes:
            each(model)

    return change


def swap_outputs(model):
    outputs = list(model.graph.output)[::-1]
    del model.graph.output[:]
    model.graph.output.extend(outputs)


def half(model, *, inputs=True):
    """FP16 weights, tensors, and inputs and outputs too unless `inputs` is off."""
    del model.graph.value_info[:]
    scales = {name for node in model.graph.node if node.op_type == "Resize" for name in node.input[1:]}
    held = [node for node in model.graph.node if node.op_type == "Constant" and node.output[0] not in scales]
    constants = [node.attribute[0].t for node in held]
    for tensor in (*model.graph.initializer, *constants):
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in scales:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    names = [value.name for value in (*model.graph.input, *model.graph.output)]
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT and inputs:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    if not inputs:
        rename_inner = {name: f"{name}_half" for name in names}
        for node in model.graph.node:
            node.input[:] = [rename_inner.get(name, name) for name in node.input]
            node.output[:] = [rename_inner.get(name, name) for name in node.output]
        first = [helper.make_node("Cast", ["input"], ["input_half"], to=TensorProto.FLOAT16)]
        last = [helper.make_node("Cast", [f"{n}_half"], [n], to=TensorProto.FLOAT) for n in names if n != "input"]
        model.graph.node.insert(0, first[0])
        model.graph.node.extend(last)


def half_inside(model):
    half(model, inputs=False)


def batch_of(count):
    """A batch baked in: the Reshape targets and the declarations say `count`."""

    def change(model):
        for tensor in model.graph.initializer:
            if tensor.name.endswith("_shape"):
                array = numpy_helper.to_array(tensor).copy()
                array[0] = count
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        for value in (*model.graph.input, *model.graph.output):
            if value.type.tensor_type.shape.dim:
                value.type.tensor_type.shape.dim[0].dim_value = count

    return change


def opset(version):
    def change(model):
        model.opset_import[0].version = version
        if version > 20:
            model.ir_version = 10

    return change


def mixes_the_batch(model):
    """Crops that see each other: one by one only are they what they are."""
    node = next(n for n in model.graph.node if n.op_type == "Reshape" and n.output[0] == "simcc_x")
    node.output[0] = "mixed"
    model.graph.node.append(helper.make_node("ReduceMax", ["mixed"], ["most"], axes=[0], keepdims=1))
    model.graph.node.append(helper.make_node("Add", ["mixed", "most"], ["simcc_x"]))


def pipeline_table(recipe, **changes):
    """`pipeline.json` as mmdeploy writes it for a SimCC network; `changes` replace single values by their names."""
    height, width = recipe.input.size_hw
    values = {
        "padding": recipe.input.box_padding, "mean": list(recipe.input.mean), "std": list(recipe.input.std),
        "to_rgb": recipe.input.colour == "rgb", "simcc_split_ratio": recipe.output.split_ratio, "output_map": {},
        "use_udp": False, "input_size": [width, height], "more": {}, **changes,
    }  # fmt: skip
    size = [width, height]
    steps = [
        {"type": "LoadImageFromFile"},
        {"type": "TopDownGetBboxCenterScale", "padding": values["padding"], "image_size": size},
        {"type": "TopDownAffine", "image_size": size, "use_udp": values["use_udp"]},
        {"type": "Normalize", "mean": values["mean"], "std": values["std"], "to_rgb": values["to_rgb"]},
        {"type": "ImageToTensor", "keys": ["img"]},
        {"type": "Collect", "keys": ["img"], "meta_keys": ["img_shape", "center", "scale"], **values["more"]},
    ]
    params = {
        "flip_test": False, "type": "SimCCLabel", "input_size": values["input_size"], "sigma": [4.9, 5.66],
        "simcc_split_ratio": values["simcc_split_ratio"], "normalize": False, "use_dark": False,
        "export_postprocess": False,
    }  # fmt: skip
    tasks = [
        {"type": "Task", "module": "Transform", "name": "Preprocess", "transforms": steps},
        {"name": "topdownposeestimator", "type": "Task", "module": "Net", "input_map": {"img": "input"},
         "output_map": values["output_map"]},
        {"type": "Task", "module": "mmpose", "name": "postprocess", "component": "SimCCLabelDecode", "params": params},
    ]  # fmt: skip
    return {"pipeline": {"input": ["img"], "output": ["post_output"], "tasks": tasks}}


def deploy_folder(folder, graph, recipe, **changes):
    """A folder as mmdeploy writes it: the graph, `deploy.json`, `detail.json` and `pipeline.json`."""
    folder.mkdir(parents=True)
    (folder / "end2end.onnx").write_bytes(graph.read_bytes())
    detail = {
        "version": "1.3.1",
        "codebase": {"task": "PoseDetection", "codebase": "mmpose", "version": "1.3.1", "config": "rtmpose-t.py"},
        "onnx_config": {"type": "onnx", "opset_version": 11, "save_file": "end2end.onnx", "input_names": ["input"]},
    }
    tables = {"deploy.json": {"models": [{"net": "end2end.onnx"}]}, "detail.json": detail}
    for name, table in {**tables, "pipeline.json": pipeline_table(recipe, **changes)}.items():
        (folder / name).write_text(json.dumps(table))
    return folder


def deploy_zip(path, graph, recipe, **changes):
    folder = deploy_folder(path.with_suffix(""), graph, recipe, **changes)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"20230831/rtmpose_onnx/rtmpose-t/{file.name}")
    return path


def changed(path, change):
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return path

"""Graphs of any opset in ours: older ones raised, newer ones lowered, FP16 ones widened to float32.

TensorRT 10.3 parses up to opset 20, and Q/DQ of typed graphs need 19. Nothing is believed: whoever asks runs the graph
before and after (`sdk.toolchain.foreign`).

    model, notes = in_our_form(model, "'end2end.onnx'")
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.shape_inference import InferenceError

from sdk.errors import GraphError
from sdk.toolchain.graphs import OPSET, array_of, opset_of

__all__ = ["in_our_form", "written_out"]

OPSETS = range(OPSET, 21)
IR_VERSION = 9  # the one of opset 19 and 20: what reads those opsets reads it
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def in_our_form(model: onnx.ModelProto, subject: str) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A copy of opset 19 or 20 in float32, and what was changed, a sentence each."""
    notes = []
    version = opset_of(model)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    if version > OPSETS[-1]:
        changed = _lowered(changed, subject)
    elif version < OPSETS[0]:
        changed = _raised(changed, subject)
    if opset_of(changed) != version:
        notes.append(f"{'raised' if version < OPSET else 'lowered'} from opset {version} to {opset_of(changed)}")
    if _widen(changed):
        notes.append("FP16 weights and tensors widened to float32; --precision says what the engine has")
    changed.ir_version = min(changed.ir_version, IR_VERSION)
    return changed, tuple(notes)


def _raised(model: onnx.ModelProto, subject: str) -> onnx.ModelProto:
    try:
        raised: onnx.ModelProto = onnx.version_converter.convert_version(model, OPSET)
    except (RuntimeError, ValueError, onnx.version_converter.ConvertError) as error:
        raise GraphError(
            f"{subject} is of opset {opset_of(model)} and cannot be raised to {OPSET} ({error}); export it with opset "
            f"{OPSET}"
        ) from error
    return raised


def _lowered(model: onnx.ModelProto, subject: str) -> onnx.ModelProto:
    """Operators that opset 20 does not have are written out by their own definitions, then the number is lowered."""
    version, newest = opset_of(model), onnx.defs.onnx_opset_version()
    if version > newest:
        raise GraphError(
            f"{subject} is of opset {version}, newer than the onnx package here ({onnx.__version__}, opset {newest}); "
            "update it, or export with an older opset"
        )
    try:
        model = written_out(model)
        try:
            lowered: onnx.ModelProto = onnx.version_converter.convert_version(model, OPSETS[-1])
        except (RuntimeError, onnx.version_converter.ConvertError):  # no adapter, though nothing changed its meaning
            lowered = _renumbered(model)
        for node in lowered.graph.node:
            node.ClearField("metadata_props")
        lowered.ir_version = IR_VERSION
        onnx.checker.check_model(lowered, full_check=True)
    except (RuntimeError, ValueError, TypeError, onnx.checker.ValidationError, InferenceError) as error:
        raise GraphError(
            f"{subject} is of opset {version} and cannot be lowered to {OPSETS[-1]} ({str(error).splitlines()[0]}); "
            f"export it with opset {OPSETS[0]} to {OPSETS[-1]}"
        ) from error
    return lowered


def written_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """Operators newer than our opsets, as the operators that their own definitions name; the opset stays."""
    new = sorted({node.op_type for node in model.graph.node if not _exists(node.op_type)})
    if not new:
        return model
    import onnx.inliner

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if node.op_type in new:
            _set_defaults(node, opset_of(copy))
    for tensor in copy.graph.initializer:  # the inliner asks for types, and knows none of an initializer
        value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        copy.graph.value_info.append(value)
    names = [("", name) for name in new]
    inlined: onnx.ModelProto = onnx.inliner.inline_selected_functions(copy, names, inline_schema_functions=True)
    return inlined


def _set_defaults(node: onnx.NodeProto, version: int) -> None:
    """Attributes that are left to their defaults, said: a definition that refers to one finds it."""
    said = {attribute.name for attribute in node.attribute}
    for name, attribute in onnx.defs.get_schema(node.op_type, version, "").attributes.items():
        if name not in said and attribute.default_value.type:
            node.attribute.append(attribute.default_value)


def _exists(operator: str) -> bool:
    """Whether the newest of our opsets has an operator of this name."""
    try:
        onnx.defs.get_schema(operator, OPSETS[-1], "")
    except onnx.defs.SchemaError:
        return False
    return True


def _renumbered(model: onnx.ModelProto) -> onnx.ModelProto:
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = OPSETS[-1]
    return model


def _widen(model: onnx.ModelProto) -> bool:
    """FP16 to float32 in place: constants, attributes that name the type, declarations. Whether there was any."""
    found = False
    for tensor in model.graph.initializer:
        found |= _widen_tensor(tensor)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                found |= _widen_tensor(attribute.t)
            if attribute.name in ("to", "dtype") and attribute.i == HALF:
                attribute.i, found = FLOAT, True
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == HALF:
            value.type.tensor_type.elem_type, found = FLOAT, True
    if found:
        del model.graph.value_info[:]
    return found


def _widen_tensor(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type != HALF:
        return False
    tensor.CopyFrom(numpy_helper.from_array(array_of(tensor).astype(np.float32), tensor.name))
    return True

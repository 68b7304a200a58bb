"""Graphs made elsewhere: an ONNX file or an OpenMMLab deploy zip, checked, put into the SDK's form, and proven to run.

Tensors are found by shape, or by the recipe's names where the file has them, and are given the recipe's names. Anything
that is not the recipe's SimCC (or heatmap) graph is refused with its inputs and outputs listed. Never runs code of the
file: no custom operators, no external data outside its folder.

    model = graph_from_file(Path("end2end.onnx"), recipe)
"""

from __future__ import annotations

import logging
import zipfile
import zlib
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from sdk.errors import GraphError
from sdk.recipe import Recipe
from sdk.toolchain.graphs import (
    OPSET,
    GraphTensor,
    described,
    graph_inputs,
    graph_outputs,
    graph_session,
    name_nodes,
    opset_of,
)

__all__ = ["graph_from_file", "slim"]

OPSETS = range(OPSET, 21)
LARGEST_BYTES = 1 << 31  # protobuf's own limit; a pose network is a fiftieth of it
ONNX_DOMAINS = {"", "ai.onnx"}
FREE_BATCH = "export it with a dynamic batch (torch.onnx.export: dynamic_shapes, or dynamic_axes with dynamo=False)"

log = logging.getLogger(__name__)


def graph_from_file(path: Path, recipe: Recipe) -> onnx.ModelProto:
    """The float graph of an ONNX file or a deploy zip, with the recipe's tensor names and a dynamic batch."""
    model = _loaded(path)
    _refuse_foreign_operators(path, model)
    _refuse_typed(path, model)
    model = _at_opset(path, model)
    source = _input(path, model, recipe)
    _make_batch_dynamic(model, source, recipe)
    shapes = _run_shapes(path, model, source, recipe)
    outputs = _outputs(path, model, recipe, shapes)
    _keep_outputs(model, outputs)
    model = _slimmed(path, model)
    _rename(model, {source.name: recipe.input.name, **outputs})
    _declare_outputs(model, shapes, outputs)
    _prove(path, model, recipe)
    return model


def slim(model: onnx.ModelProto) -> onnx.ModelProto:
    """Simplified: constants folded, dead nodes dropped, every node named. Tensor names in and out are kept."""
    import onnxslim

    slimmed: onnx.ModelProto = onnxslim.slim(model)
    name_nodes(slimmed)
    onnx.checker.check_model(slimmed)
    return slimmed


def _slimmed(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return slim(model)
    except Exception as error:  # onnxslim has no error type of its own
        raise GraphError(f"'{path}' cannot be simplified ({_first_line(error)}); export it anew") from error


def _loaded(path: Path) -> onnx.ModelProto:
    data, folder = (_from_zip(path), None) if path.suffix == ".zip" else (_from_file(path), path.parent)
    try:
        model = onnx.load_from_string(data)
    except DecodeError as error:
        raise GraphError(f"'{path}' is not an ONNX file, or is truncated ({error}); export it again") from error
    if not model.graph.node:
        raise GraphError(f"'{path}' holds no graph; export it again")
    _load_external(path, model, folder)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise GraphError(f"'{path}' is not a valid ONNX graph: {str(error).splitlines()[0]}") from error
    return model


def _from_file(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > LARGEST_BYTES:
            raise GraphError(f"'{path}' is {size} bytes; an ONNX graph must be at most {LARGEST_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise GraphError(f"ONNX file '{path}' cannot be read ({error.strerror}); check the path") from error


def _from_zip(path: Path) -> bytes:
    """The one ONNX file of an OpenMMLab deploy zip, read in place: nothing is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            graphs = [entry for entry in archive.infolist() if entry.filename.endswith(".onnx")]
            if len(graphs) != 1:
                names = ", ".join(entry.filename for entry in graphs) or "none"
                raise GraphError(f"'{path}' must hold exactly one ONNX file (got {names}); unpack it and name the file")
            if graphs[0].file_size > LARGEST_BYTES:
                raise GraphError(f"'{path}': '{graphs[0].filename}' unpacks to more than {LARGEST_BYTES} bytes")
            return archive.read(graphs[0])
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:  # RuntimeError: encrypted
        raise GraphError(f"deploy zip '{path}' cannot be read ({error}); fetch it again") from error


def _load_external(path: Path, model: onnx.ModelProto, folder: Path | None) -> None:
    external = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in external:
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        inside = folder is not None and (folder / location).resolve().is_relative_to(folder.resolve())
        if not inside or Path(location).is_absolute():
            raise GraphError(
                f"'{path}': tensor '{tensor.name}' has its data in '{location}', outside the file's own folder; "
                "save the graph as one file"
            )
    if external:
        try:
            onnx.load_external_data_for_model(model, str(folder))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise GraphError(
                f"'{path}': its external data cannot be read ({error}); copy it beside the file"
            ) from error


def _refuse_foreign_operators(path: Path, model: onnx.ModelProto) -> None:
    foreign = sorted({f"{n.domain}.{n.op_type}" for n in model.graph.node if n.domain not in ONNX_DOMAINS})
    if foreign or model.functions:
        names = ", ".join(foreign or [function.name for function in model.functions])
        raise GraphError(f"'{path}' uses operators outside the ONNX standard ({names}); export it without them")


def _refuse_typed(path: Path, model: onnx.ModelProto) -> None:
    halves = [t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    quantised = [node.name for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    if halves or quantised:
        kind, name = ("FP16", halves[0]) if halves else ("INT8", quantised[0])
        raise GraphError(
            f"'{path}' is typed already ({kind}, at '{name}'); give the float32 graph and choose --precision, or "
            "compile an engine's own graph with --rebuild"
        )


def _at_opset(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    version = opset_of(model)
    if version in OPSETS:
        return model
    if version > OPSETS[-1]:
        raise GraphError(f"'{path}' is of opset {version}; export it with opset {OPSET} to {OPSETS[-1]}")
    try:
        raised: onnx.ModelProto = onnx.version_converter.convert_version(model, OPSET)
    except (RuntimeError, ValueError, onnx.version_converter.ConvertError) as error:
        raise GraphError(
            f"'{path}' is of opset {version} and cannot be raised to {OPSET} ({error}); export it with opset {OPSET}"
        ) from error
    log.info("'%s' was raised from opset %d to %d", path.name, version, OPSET)
    return raised


def _input(path: Path, model: onnx.ModelProto, recipe: Recipe) -> GraphTensor:
    inputs = graph_inputs(model)
    expected = (3, *recipe.input.size_hw)
    found = [
        t
        for t in inputs
        if t.dtype == "float32"
        and len(t.shape) == 4
        and all(isinstance(have, str) or have == want for have, want in zip(t.shape[1:], expected, strict=True))
    ]
    if len(inputs) != 1 or len(found) != 1:
        raise GraphError(
            f"'{path}' is not a graph of recipe '{recipe.name}': it must have one float32 input N x "
            f"{' x '.join(map(str, expected))}; {_listed(model)}"
        )
    return found[0]


def _make_batch_dynamic(model: onnx.ModelProto, source: GraphTensor, recipe: Recipe) -> None:
    value = next(value for value in model.graph.input if value.name == source.name)
    dims = value.type.tensor_type.shape.dim
    dims[0].Clear()
    dims[0].dim_param = "batch"
    for dim, size in zip(dims[1:], (3, *recipe.input.size_hw), strict=True):
        dim.dim_value = size
    for output in model.graph.output:
        if output.type.tensor_type.shape.dim:
            output.type.tensor_type.shape.dim[0].Clear()
            output.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]


def _run_shapes(path: Path, model: onnx.ModelProto, source: GraphTensor, recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """Shape of every output for a batch of one: measured, because files often do not say."""
    crops = np.zeros((1, 3, *recipe.input.size_hw), np.float32)
    try:
        outputs = graph_session(model).run(None, {source.name: crops})
    except _ort_errors() as error:
        raise GraphError(f"'{path}' does not run on ONNX Runtime ({_first_line(error)}); {_listed(model)}") from error
    return {value.name: tuple(np.shape(array)) for value, array in zip(model.graph.output, outputs, strict=True)}


def _outputs(path: Path, model: onnx.ModelProto, recipe: Recipe, shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Name in the file -> name in the recipe, for every output that the recipe needs."""
    wanted = _wanted(recipe)
    if all(shapes.get(name) == shape for name, shape in wanted.items()):
        return {name: name for name in wanted}
    found: dict[str, str] = {}
    for name, shape in wanted.items():
        free = [have for have, measured in shapes.items() if measured == shape and have not in found]
        if not free:
            needs = ", ".join(f"1 x {' x '.join(map(str, s[1:]))}" for s in wanted.values())
            raise GraphError(
                f"'{path}' is not a graph of recipe '{recipe.name}': for a batch of one its outputs must be {needs}; "
                f"{_listed(model, shapes)}"
            )
        found[free[0]] = name
    pairs = ", ".join(f"{name} = '{have}'" for have, name in found.items())
    log.info("outputs of '%s' found by shape: %s", path.name, pairs)
    return found


def _wanted(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    height, width = recipe.input.size_hw
    sizes = [(height // 4, width // 4)] if recipe.output.kind == "heatmap" else [(bins,) for bins in recipe.bins_xy]
    return {name: (1, recipe.joints, *size) for name, size in zip(recipe.output.names, sizes, strict=True)}


def _keep_outputs(model: onnx.ModelProto, outputs: dict[str, str]) -> None:
    kept = [value for name in outputs for value in model.graph.output if value.name == name]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def _rename(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """Rename tensors everywhere; a tensor that already has one of the new names steps aside."""
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)} - set(names)
    aside = {name: f"{name}_inner" for name in names.values() if name in taken}
    moves = {**aside, **names}
    for node in model.graph.node:
        node.input[:] = [moves.get(name, name) for name in node.input]
        node.output[:] = [moves.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.name = moves.get(value.name, value.name)
    for tensor in model.graph.initializer:
        tensor.name = moves.get(tensor.name, tensor.name)


def _declare_outputs(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]], outputs: dict[str, str]) -> None:
    del model.graph.output[:]
    for have, name in outputs.items():
        shape: list[str | int | None] = ["batch", *shapes[have][1:]]
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))


def _prove(path: Path, model: onnx.ModelProto, recipe: Recipe) -> None:
    """GraphError unless three crops together give what each gives alone: the batch is really free."""
    crops = np.random.default_rng(0).standard_normal((3, 3, *recipe.input.size_hw)).astype(np.float32)
    session = graph_session(model)
    try:
        together = session.run(None, {recipe.input.name: crops})
    except _ort_errors() as error:
        raise GraphError(f"'{path}' has a fixed batch ({_first_line(error)}); {FREE_BATCH}") from error
    alone = [session.run(None, {recipe.input.name: crops[i : i + 1]}) for i in range(3)]
    for index, batch in enumerate(together):
        each = np.concatenate([outputs[index] for outputs in alone])
        if batch.shape != each.shape or not np.allclose(batch, each, rtol=1e-3, atol=1e-3 * np.abs(each).max()):
            raise GraphError(f"'{path}': three crops in one batch give other outputs than one by one; {FREE_BATCH}")


def _listed(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]] | None = None) -> str:
    outputs = graph_outputs(model)
    if shapes:
        outputs = tuple(GraphTensor(t.name, t.dtype, shapes[t.name]) for t in outputs)
    return f"inputs: {described(graph_inputs(model))}; outputs: {described(outputs)}"


def _ort_errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented, state.RuntimeException


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]

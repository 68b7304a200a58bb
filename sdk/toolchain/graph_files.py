"""Graphs made elsewhere as files: an ONNX file, an OpenMMLab deploy zip, or a deploy folder, read with bounds.

Refused here, before anything runs or simplifies a graph: control flow, operators outside the ONNX standard, quantised
graphs, external data outside the file's own folder. What a graph means is `sdk.toolchain.foreign`'s work; what the
files beside it say, `sdk.toolchain.deploy`'s.

    file = graph_file(Path("rtmpose.zip"))
    file.model, file.beside["pipeline.json"]
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from sdk.deploy_zip import LARGEST_BYTES, LARGEST_NOTE_BYTES, graph_in_zip
from sdk.errors import GraphError
from sdk.files import real_path

__all__ = ["BESIDE", "GraphFile", "graph_file"]

ONNX_DOMAINS = {"", "ai.onnx"}
BESIDE = ("detail.json", "pipeline.json")
CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}
QUANTISED = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger",
}  # fmt: skip


@dataclass(frozen=True)
class GraphFile:
    """A graph as it lies in its file, weights read in, and the texts of the deploy files beside it, by name."""

    path: Path
    name: str  # of the ONNX file itself
    model: onnx.ModelProto
    beside: Mapping[str, bytes] = field(default_factory=dict)


def graph_file(path: Path, beyond: Collection[str] = ()) -> GraphFile:
    """The graph in an ONNX file, a deploy zip, or a folder with one ONNX file. GraphError: it is none, or unsafe.

    `beyond`: operators outside the standard that the caller takes out. Then the graph is not checked as it is.
    """
    folder: Path | None = None
    if path.suffix == ".zip" and not path.is_dir():
        name, data, beside = graph_in_zip(path, BESIDE, largest=LARGEST_BYTES)
    else:
        name, data, beside, folder = _from_disk(path)
    try:
        model = onnx.load_from_string(data)
    except DecodeError as error:
        raise GraphError(f"'{path}' is not an ONNX file, or is truncated ({error}); export it again") from error
    if not model.graph.node:
        raise GraphError(f"'{path}' holds no graph; export it again")
    _refuse_control_flow(path, model)
    _refuse_foreign_operators(path, model, beyond)
    _refuse_quantised(path, model)
    _load_external(path, model, folder)
    if any(node.op_type in beyond for node in model.graph.node):
        return GraphFile(path, name, model, beside)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise GraphError(f"'{path}' is not a valid ONNX graph: {str(error).splitlines()[0]}") from error
    return GraphFile(path, name, model, beside)


def _from_disk(path: Path) -> tuple[str, bytes, dict[str, bytes], Path]:
    """(name, bytes, files beside it, folder) of an ONNX file, or of the one in a folder."""
    if path.is_dir():
        graphs = sorted(path.glob("*.onnx"))
        if len(graphs) != 1:
            raise GraphError(
                f"folder '{path}' must hold exactly one ONNX file (got {_names(g.name for g in graphs)}); name the file"
            )
        return _from_disk(graphs[0])
    data = _read(path, path, LARGEST_BYTES)
    notes = {name: path.with_name(name) for name in BESIDE}
    beside = {name: _read(path, file, LARGEST_NOTE_BYTES) for name, file in notes.items() if file.is_file()}
    return path.name, data, beside, path.parent


def _read(subject: Path, path: Path, largest: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > largest:
            raise GraphError(f"'{subject}': '{path.name}' is {size} bytes; it must be at most {largest}")
        return path.read_bytes()
    except OSError as error:
        raise GraphError(f"ONNX file '{path}' cannot be read ({error.strerror}); check the path") from error


def _refuse_control_flow(path: Path, model: onnx.ModelProto) -> None:
    """Loops run as long as their data says, and no size of theirs is known: nothing of them is ever run."""
    for node in _all_nodes(model):
        held = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
        if held or node.op_type in CONTROL_FLOW:
            raise GraphError(
                f"'{path}': node '{node.name or node.output[0]}' ({node.op_type}) holds a branch or a loop, which is "
                "refused before anything runs it; export the network without them (in eval mode, traced)"
            )


def _refuse_foreign_operators(path: Path, model: onnx.ModelProto, beyond: Collection[str]) -> None:
    nodes = (node for node in model.graph.node if node.op_type not in beyond)
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in ONNX_DOMAINS})
    if foreign or model.functions:
        names = ", ".join(foreign or [function.name for function in model.functions])
        raise GraphError(f"'{path}' uses operators outside the ONNX standard ({names}); export it without them")


def _refuse_quantised(path: Path, model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type in QUANTISED:
            raise GraphError(
                f"'{path}' is quantised already (INT8, at '{node.name or node.output[0]}'); give the float graph and "
                "choose --precision, or compile an engine's own graph with --rebuild"
            )


def _load_external(path: Path, model: onnx.ModelProto, folder: Path | None) -> None:
    external = [t for t in _tensors(model) if t.data_location == onnx.TensorProto.EXTERNAL]
    size = 0
    for location in {_location(path, tensor, folder) for tensor in external}:
        size += location.stat().st_size if location.is_file() else 0
    if size > LARGEST_BYTES:
        raise GraphError(f"'{path}' has {size} bytes of external data; it must be at most {LARGEST_BYTES}")
    if external:
        try:
            onnx.load_external_data_for_model(model, str(folder))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise GraphError(
                f"'{path}': its external data cannot be read ({error}); copy it beside the file"
            ) from error


def _location(path: Path, tensor: onnx.TensorProto, folder: Path | None) -> Path:
    """Where a tensor's data lies; GraphError unless that is in the file's own folder."""
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    inside = folder is not None and real_path(folder / location).is_relative_to(real_path(folder))
    if folder is None or not inside or Path(location).is_absolute():
        raise GraphError(
            f"'{path}': tensor '{tensor.name}' has its data in '{location}', outside the file's own folder; "
            "save the graph as one file"
        )
    return folder / location


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from model.graph.node
    for function in model.functions:
        yield from function.node


def _names(names: Iterator[str]) -> str:
    return ", ".join(names) or "none"

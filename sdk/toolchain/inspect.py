"""What an engine is made of: manifest, files, tensors, and the precision of each kind of layer. Reads, changes nothing.

facts = facts_of_engine(open_engine(folder))          # a plain table, ready for JSON
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx

from sdk.launches import kept_launches
from sdk.manifest import AnyEngine
from sdk.toolchain.graphs import GraphTensor, graph_inputs, graph_outputs
from sdk.toolchain.precision import layer_precisions, with_constants_named

__all__ = ["facts_of_engine"]

PRECISIONS = ("int8", "fp16", "fp32", "other")


def facts_of_engine(engine: AnyEngine) -> dict[str, Any]:
    """Everything `sdk inspect` shows. The engine's file hashes were verified when it was opened."""
    sizes = {name: (engine.folder / name).stat().st_size for name in engine.manifest.files}
    model = onnx.load(engine.graph_path)
    return {
        "folder": str(engine.folder),
        "manifest": engine.manifest.to_table(),
        **_launches(engine),
        "files": {name: {"bytes": size, "sha256": "verified"} for name, size in sizes.items()},
        **_facts_of_graph(model),
    }


def _launches(engine: AnyEngine) -> dict[str, Any]:
    """What was counted on a device for the plan; nothing where there is no plan."""
    kept = kept_launches(engine)
    return {} if engine.manifest.compiler is None else {"launches": None if kept is None else asdict(kept)}


def _facts_of_graph(model: onnx.ModelProto) -> dict[str, Any]:
    """Tensors, parameters, and how many layers of each kind run in which precision."""
    named = with_constants_named(model)
    precisions = layer_precisions(named)
    kinds: dict[str, Counter[str]] = {}
    for node in named.graph.node:
        kinds.setdefault(node.op_type, Counter())[precisions[node.name]] += 1
    totals = Counter(precisions.values())
    return {
        "tensors": [_table(t, "input") for t in graph_inputs(named)]
        + [_table(t, "output") for t in graph_outputs(named)],
        "parameters": sum(int(np.prod(tensor.dims)) for tensor in named.graph.initializer),
        "layers": {kind: dict(counts) for kind, counts in sorted(kinds.items())},
        "layers_by_precision": {name: totals[name] for name in PRECISIONS if totals[name]},
        "fp32_layers": _fp32_layers(named, precisions),
    }


def _table(tensor: GraphTensor, direction: str) -> dict[str, Any]:
    return {"name": tensor.name, "direction": direction, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _fp32_layers(model: onnx.ModelProto, precisions: dict[str, str]) -> list[str]:
    """Names of the FP32 layers of a graph that is otherwise of lower precision; none for an FP32 graph."""
    if not {"fp16", "int8"} & set(precisions.values()):
        return []
    return [node.name for node in model.graph.node if precisions[node.name] == "fp32"]

"""What a graph made elsewhere would be taken for, before anything is built of it; and what has to be told by name.

Looks as `sdk.toolchain.foreign` takes, in a child process with the same limits. Reads, changes nothing.

    facts = facts_of_graph(Path("end2end.onnx"))          # a plain table, ready for JSON
    facts["joints"], facts["split_ratio"], facts["asks"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sdk.errors import GraphError
from sdk.skeletons import SKELETONS, Skeleton
from sdk.toolchain.conventions import Told
from sdk.toolchain.deploy import DeployFacts, deploy_facts
from sdk.toolchain.ends import bins_seen, ends_of, inner_ends
from sdk.toolchain.export import recipe_from_graph
from sdk.toolchain.foreign import Original, any_crops, file_bytes, take_file
from sdk.toolchain.front import Front, Pixels, front_of
from sdk.toolchain.graph_files import graph_file
from sdk.toolchain.graphs import opset_of
from sdk.toolchain.limits import limited
from sdk.toolchain.opsets import in_our_form

__all__ = ["facts_of_graph", "look_in_child"]


def facts_of_graph(path: Path, size_hw: tuple[int, int] | None = None) -> dict[str, Any]:
    """Everything that `sdk inspect` shows of a graph. `size_hw`: of the crops, where the graph leaves it open."""
    request = {"path": str(path), "size_hw": size_hw}
    facts, _ = limited(__name__, "look_in_child", request, subject=f"'{path}'", size=file_bytes(path))
    return facts


def look_in_child(request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The facts, for the child process."""
    path = Path(request["path"])
    size_hw = None if request["size_hw"] is None else (int(request["size_hw"][0]), int(request["size_hw"][1]))
    file = graph_file(path)
    deploy = deploy_facts(file)
    carried = recipe_from_graph(path) if path.suffix == ".onnx" else None
    original = Original(file, f"'{path}'", ())
    model, changes = in_our_form(file.model, original.subject)
    front = front_of(model, size_hw or deploy.size_hw, original.subject, original.dtype)
    facts = {
        "file": str(path),
        "opset": opset_of(file.model),
        "precision": original.precision,
        "parameters": sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer),
        "recipe": None if carried is None else carried.name,
        "input": _input(front),
        "beside": deploy.told() if deploy != DeployFacts() else None,
        "changes": list(changes),
    }
    outputs = _outputs(original, front)
    return {**facts, **outputs, **_rest(path, outputs["joints"], front, deploy)}, b""


def _input(front: Front) -> dict[str, Any]:
    inside = None if front.mean is None else {"mean": list(front.mean), "std": list(front.std or ())}
    return {
        "name": front.name,
        "dtype": front.dtype,
        "layout": front.layout,
        "size_hw": list(front.size_hw),
        "normalisation_inside": inside,
        "turns_channels": front.turns,
    }


def _outputs(original: Original, front: Front) -> dict[str, Any]:
    """Joints, split ratio and the tensors of both axes, where exactly one reading fits; else every output's shape."""
    batch = front.batch or 1
    measured = original.run(any_crops(front, batch))
    given = {name: list(array.shape) for name, array in measured.items()}
    pairs = bins_seen(measured, front.size_hw, batch)
    if not pairs and inner_ends(original.model):
        original.give(inner_ends(original.model))
        measured = original.run(any_crops(front, batch))
        pairs = bins_seen(measured, front.size_hw, batch)
    readings = sorted({(joints, along_x, along_y) for _, _, joints, along_x, along_y in pairs})
    facts: dict[str, Any] = {"outputs": given, "joints": None, "split_ratio": None, "axes": None, "probabilities": None}
    if len(readings) != 1:
        return facts
    ((joints, along_x, along_y),) = readings
    facts |= {"joints": joints, "split_ratio": along_x / front.size_hw[1]}
    wanted = {"simcc_x": (joints, along_x), "simcc_y": (joints, along_y)}
    try:
        ends, notes = ends_of(
            original.model, measured, wanted, names=(), known={}, batch=batch, subject=original.subject
        )  # fmt: skip
    except GraphError as error:
        return {**facts, "axes_problem": str(error)}
    return {
        **facts,
        "axes": {end.target: end.name for end in ends},
        "axes_notes": list(notes),
        "probabilities": ends[0].probabilities,
    }


def _rest(path: Path, joints: int | None, front: Front, deploy: DeployFacts) -> dict[str, Any]:
    """Whether any batch runs, found by taking the graph on trial; and what no one but the caller can say."""
    fitting = [known.name for known in SKELETONS.values() if len(known.joints) == joints]
    if joints is None:
        return {"batch": None, "batch_note": None, "asks": ["recipe"], "skeletons": fitting}
    asks = ["skeleton"]
    asks += [] if deploy.padding is not None else ["convention"]
    unsure = front.mean is not None or front.batch_norm
    asks += ["pixels"] if unsure and front.dtype != "uint8" else []
    trial = Skeleton("trial", tuple(f"joint{i}" for i in range(joints)), (), (), (0.1,) * joints)
    pixels: Pixels | None = "0..255" if unsure else None
    told = Told("mmpose", trial, size_hw=front.size_hw, colour="rgb", pixels=pixels)
    try:
        taken = take_file(replace(graph_file(path), beside={}), None, told)
    except GraphError as error:
        return {"batch": None, "batch_note": str(error), "asks": asks, "skeletons": fitting}
    note = next((note for note in taken.notes if note.startswith(("its batch", "one crop"))), None)
    return {"batch": taken.batch or "any", "batch_note": note, "asks": asks, "skeletons": fitting}

"""What an OpenMMLab deploy folder says beside its graph: `pipeline.json` (crop, means, decoding), `detail.json`.

Facts of a network that no graph says, read strictly: a key of another type, or one that asks for what the SDK does not
do (a UDP crop), is an error. Files of another task give none.

    told = deploy_facts(graph_file(Path("rtmpose.zip")))
    told.padding, told.split_ratio, told.outputs                 # 1.25, 2.0, {"output": "simcc_x", "700": "simcc_y"}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from sdk.errors import GraphError
from sdk.reading import json_from_text
from sdk.toolchain.graph_files import GraphFile

__all__ = ["DeployFacts", "deploy_facts"]

AXES = {"simcc_x", "simcc_y", "simcc_z"}
Triple = tuple[float, float, float]
T = TypeVar("T")


@dataclass(frozen=True)
class DeployFacts:
    """What the files say; None where they do not."""

    size_hw: tuple[int, int] | None = None
    mean: Triple | None = None
    std: Triple | None = None
    colour: Literal["rgb", "bgr"] | None = None
    padding: float | None = None
    split_ratio: float | None = None
    flip_pairs: tuple[tuple[int, int], ...] | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)  # name in the file -> name in the SDK
    source: str | None = None  # configuration and version of the code that wrote the files

    def told(self) -> str:
        """Everything found, in one line."""
        values = {f.name.replace("_", " "): getattr(self, f.name) for f in fields(self)}
        size = values.pop("size hw")
        values = {"size": size and "x".join(map(str, size)), **values}
        return ", ".join(f"{name} {_shown(value)}" for name, value in values.items() if value)


def deploy_facts(file: GraphFile) -> DeployFacts:
    """The facts in the deploy files beside a graph; none where there are no such files or they are another graph's."""
    detail, pipeline = (_table(file, name) for name in ("detail.json", "pipeline.json"))
    saved = _at(detail, "onnx_config", "save_file")
    if pipeline is None or (saved is not None and saved != file.name):
        return DeployFacts()
    reader = _Reader(f"'{file.path}': pipeline.json")
    crops = {step.get("type"): step for step in _steps(pipeline)}
    decode = next((task for task in _tasks(pipeline) if "SimCC" in str(task.get("component"))), {})
    params = decode.get("params") or {}
    reader.refuse(crops.get("TopDownAffine", {}), "use_udp")
    reader.refuse(params, "use_udp")
    box, normalise = crops.get("TopDownGetBboxCenterScale", {}), crops.get("Normalize", {})
    size_wh = reader.numbers(params, "input_size", 2) or reader.numbers(box, "image_size", 2)
    to_rgb = normalise.get("to_rgb")
    net: Mapping[str, Any] = next((task for task in _tasks(pipeline) if task.get("module") == "Net"), {})
    names = net.get("output_map") or {}
    return DeployFacts(
        size_hw=None if size_wh is None else (int(size_wh[1]), int(size_wh[0])),
        mean=reader.triple(normalise, "mean"),
        std=reader.triple(normalise, "std"),
        colour=None if to_rgb is None else "rgb" if to_rgb else "bgr",
        padding=reader.number(box, "padding"),
        split_ratio=reader.number(params, "simcc_split_ratio"),
        flip_pairs=reader.pairs((pipeline, detail)),
        outputs={str(have): name for have, name in names.items() if name in AXES},
        source=_source(detail),
    )


class _Reader:
    def __init__(self, where: str) -> None:
        self._where = where

    def number(self, table: Mapping[str, Any], key: str) -> float | None:
        value = table.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise GraphError(f"{self._where}: '{key}' must be a number (got {value!r}); mend it or remove the file")
        return None if value is None else float(value)

    def numbers(self, table: Mapping[str, Any], key: str, count: int) -> tuple[float, ...] | None:
        value = table.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != count:
            raise GraphError(f"{self._where}: '{key}' must be {count} numbers (got {value!r}); mend it")
        return tuple(float(self.number({key: item}, key) or 0.0) for item in value)

    def triple(self, table: Mapping[str, Any], key: str) -> Triple | None:
        value = self.numbers(table, key, 3)
        return None if value is None else (value[0], value[1], value[2])

    def refuse(self, table: Mapping[str, Any], key: str) -> None:
        if table.get(key):
            raise GraphError(f"{self._where}: '{key}' is set, and the SDK crops without it; export the network without")

    def pairs(self, tables: tuple[Any, ...]) -> tuple[tuple[int, int], ...] | None:
        """`flip_pairs`, or what `flip_indices` mean, wherever a file has them."""
        for table in tables:
            for key, value in _keys(table):
                if key == "flip_indices" and _whole(value):
                    return tuple((a, b) for a, b in enumerate(value) if a < b)
                if key == "flip_pairs" and isinstance(value, list) and all(_whole(pair, 2) for pair in value):
                    return tuple((min(pair), max(pair)) for pair in value)
        return None


def _whole(value: Any, count: int | None = None) -> bool:
    return isinstance(value, list) and count in (None, len(value)) and all(type(item) is int for item in value)


def _table(file: GraphFile, name: str) -> Mapping[str, Any] | None:
    if name not in file.beside:
        return None
    table = json_from_text(file.beside[name], f"'{file.path}': {name}", GraphError, "mend it or remove the file")
    return table if isinstance(table, dict) else None


def _at(table: Any, *keys: str) -> Any:
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def _tasks(pipeline: Any) -> list[dict[str, Any]]:
    tasks = _at(pipeline, "pipeline", "tasks")
    return [task for task in tasks if isinstance(task, dict)] if isinstance(tasks, list) else []


def _steps(pipeline: Any) -> Iterator[dict[str, Any]]:
    for task in _tasks(pipeline):
        steps = task.get("transforms")
        yield from (step for step in steps if isinstance(step, dict)) if isinstance(steps, list) else ()


def _keys(table: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of nested tables."""
    waiting = [table]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield from item.items()
        waiting.extend(item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())


def _source(detail: Any) -> str | None:
    codebase, version, config = (_at(detail, "codebase", key) for key in ("codebase", "version", "config"))
    found = [str(text) for text in (codebase, version, config) if text]
    return " ".join(found) or None


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = '{have}'" for have, name in value.items())
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)

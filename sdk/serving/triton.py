"""A Triton model repository of an engine: the whole job, the network by itself, and both joined where crops come ready.

    NAME            Python backend: FRAME and BOXES -> KEYPOINTS, SCORES; requests share batches through `many`
    NAME_network    the plan (tensorrt_plan) or the typed graph (onnxruntime): crops -> distributions
    NAME_decode     Python backend: distributions and AFFINES -> JOINTS
    NAME_crops      an ensemble: crops and AFFINES -> NAME_network -> NAME_decode -> JOINTS

A heatmap engine has the first two. Nothing here serves: Triton does.

    for model in models_of(engine, Options(name="pose")): model.config, model.files
    write_repository(Path("repository"), engine, Options(name="pose"))
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from sdk.errors import EngineError, InputError, OutputError
from sdk.files import check_place, real_path
from sdk.interrupts import held_back
from sdk.locks import held_folder
from sdk.manifest import MANIFEST_NAME, Engine
from sdk.recipe import Recipe
from sdk.runtime.ort_session import onnxruntime_session
from sdk.serving.pbtxt import Word, pbtxt

__all__ = ["Kind", "Model", "Options", "models_of", "write_repository"]

Kind = Literal["cpu", "gpu"]
Backend = Literal["auto", "tensorrt", "onnxruntime"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
LABELS = "joints.txt"
MOST_FRAMES = 16  # of requests that the whole job takes into one batch


@dataclass(frozen=True)
class Options:
    """`instances`: of each model, on each GPU or on the CPU. `backend`: of the network. `version`: the version folder.

    `delay_us`: how long a request may wait for others to share its batch; every lone request pays it.
    """

    name: str
    kind: Kind = "gpu"
    backend: Backend = "auto"
    instances: int = 1
    version: int = 1
    delay_us: int = 0
    frames: int = MOST_FRAMES

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise InputError(f"name must be letters, digits, '_', '.' and '-', the first no sign (got {self.name!r})")
        for name, least in (("instances", 1), ("version", 1), ("delay_us", 0), ("frames", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least} (got {getattr(self, name)})")


@dataclass(frozen=True)
class Model:
    """A model of the repository: its configuration, the files of its version, and those beside the configuration."""

    name: str
    config: Mapping[str, Any]
    files: Mapping[str, Path | str] = field(default_factory=dict)  # name in the version's folder -> file, or text
    beside: Mapping[str, str] = field(default_factory=dict)


def models_of(engine: Engine, options: Options) -> list[Model]:
    """The models that serve the engine."""
    recipe = engine.manifest.recipe
    network = _network(engine, options)
    if recipe.output.kind == "heatmap":
        return [_whole_job(engine, options), network]
    decode = _decode(engine, options)
    return [_whole_job(engine, options), network, decode, _ensemble(recipe, network, decode, options)]


def write_repository(repository: Path, engine: Engine, options: Options) -> list[Path]:
    """Write the engine's models into a repository that may hold others: each whole or not at all. Their folders.

    A model that is there already takes a further version where its configuration is the same; OutputError otherwise.
    """
    if (repository / MANIFEST_NAME).exists():
        raise OutputError(f"repository '{repository}' is an engine folder; give the model repository another --output")
    models = models_of(engine, options)
    check_place(real_path(repository))
    with held_folder(repository):
        for model in models:
            _check_free(repository, model, options)
        temporary = Path(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=repository))
        try:
            for model in models:
                _write_model(temporary / model.name, model, options)
            with held_back():
                return [_move(temporary, repository, model, options) for model in models]
        except OSError as error:
            raise OutputError(
                f"repository '{repository}' cannot be written ({error.strerror}); free some space or choose another "
                "--output"
            ) from error
        finally:
            with held_back():
                shutil.rmtree(temporary, ignore_errors=True)


def _whole_job(engine: Engine, options: Options) -> Model:
    recipe = engine.manifest.recipe
    joints = recipe.joints
    outputs = [_tensor("KEYPOINTS", "FP32", -1, joints, 2), _tensor("SCORES", "FP32", -1, joints)]
    outputs[1]["label_filename"] = LABELS
    if recipe.output.depth is not None:
        outputs.append(_tensor("DEPTHS", "FP32", -1, joints))
    config = {
        **_head(options.name, "python", options.frames),
        "input": [
            {**_tensor("FRAME", "UINT8", -1, -1, 3), "allow_ragged_batch": True},
            {**_tensor("BOXES", "FP32", -1, 4), "allow_ragged_batch": True, "optional": True},
        ],
        "output": outputs,
        **_running(options),
        **_notes(engine),
    }
    carried: dict[str, Path | str] = {f"engine/{name}": engine.folder / name for name in engine.manifest.files}
    carried[f"engine/{MANIFEST_NAME}"] = engine.folder / MANIFEST_NAME
    return Model(options.name, config, {"model.py": _model_text("pose"), **carried}, _labels(recipe))


def _network(engine: Engine, options: Options) -> Model:
    recipe, backend = engine.manifest.recipe, _backend(engine, options)
    sizes = [(-1, -1)] if recipe.output.kind == "heatmap" else [(bins,) for bins in recipe.bins]
    source, first = (recipe.input.name, (3, *recipe.input.size_hw)), _batch_axis(engine)
    fixed = [] if first is None else [first]  # stated as it is: the server would take it for free otherwise
    most = 0 if fixed else engine.manifest.batch.max
    name = f"{options.name}_network"
    head = _head(name, backend, most) if backend == "onnxruntime" else _platform(name, most)
    config = {
        **head,
        "input": [_tensor(source[0], "FP32", *fixed, *source[1])],
        "output": [
            _tensor(output, "FP32", *fixed, recipe.joints, *size)
            for output, size in zip(recipe.output.names, sizes, strict=True)
        ],
        **_running(options, batches=not fixed),
        "model_warmup": [_warmup(source, size) for size in sorted({1, engine.manifest.batch.opt, most}) if most],
        **_notes(engine),
    }
    if backend == "onnxruntime":
        return Model(name, config, {"model.onnx": engine.graph_path})
    assert engine.plan_path is not None  # or `_backend` had refused
    return Model(name, config, {"model.plan": engine.plan_path})


def _decode(engine: Engine, options: Options) -> Model:
    recipe, name = engine.manifest.recipe, f"{options.name}_decode"
    columns = 3 if recipe.output.depth is None else 4
    config = {
        **_head(name, "python", engine.manifest.batch.max),
        "input": [
            *(_tensor(each, "FP32", recipe.joints, bins) for each, bins in _axes(recipe)),
            _tensor("AFFINES", "FP32", 2, 3),
        ],
        "output": [_tensor("JOINTS", "FP32", recipe.joints, columns)],
        "instance_group": [{"kind": Word("KIND_CPU"), "count": options.instances}],
        **_notes(engine),
    }
    return Model(name, config, {"model.py": _model_text("decode"), MANIFEST_NAME: engine.folder / MANIFEST_NAME})


def _ensemble(recipe: Recipe, network: Model, decode: Model, options: Options) -> Model:
    crops, axes = recipe.input.name, [name for name, _ in _axes(recipe)]
    steps = [
        _step(network.name, {crops: crops}, {axis: axis for axis in axes}),
        _step(decode.name, {axis: axis for axis in (*axes, "AFFINES")}, {"JOINTS": "JOINTS"}),
    ]
    name = f"{options.name}_crops"
    config = {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": min(network.config["max_batch_size"], decode.config["max_batch_size"]),
        "input": [network.config["input"][0], decode.config["input"][-1]],
        "output": decode.config["output"],
        "ensemble_scheduling": {"step": steps},
    }
    return Model(name, config)


def _backend(engine: Engine, options: Options) -> str:
    """What runs the network; EngineError where the engine has no plan of the kind that Triton's backend runs."""
    compiler = engine.manifest.compiler
    has_plan = compiler is not None and compiler.name == "tensorrt"
    if options.backend == "onnxruntime" or (options.backend == "auto" and not has_plan):
        return "onnxruntime"
    if not has_plan:
        got = "none" if compiler is None else f"one of {compiler.name}"
        raise EngineError(
            f"engine '{engine.folder}' has no plan of TensorRT, which is what Triton's backend runs (it has {got}); "
            "build it with `sdk build-engine --compiler tensorrt`, or leave --backend out"
        )
    return "tensorrt_plan"


def _batch_axis(engine: Engine) -> int | None:
    """The size that the graph's first axis is fixed to, or None."""
    first = onnxruntime_session(engine.graph_path, 1).get_inputs()[0].shape[0]
    return first if isinstance(first, int) else None


def _head(name: str, backend: str, most: int) -> dict[str, Any]:
    return {"name": name, "backend": backend, "max_batch_size": most}


def _platform(name: str, most: int) -> dict[str, Any]:
    return {"name": name, "platform": "tensorrt_plan", "max_batch_size": most}


def _tensor(name: str, kind: str, *sizes: int) -> dict[str, Any]:
    return {"name": name, "data_type": Word(f"TYPE_{kind}"), "dims": list(sizes)}


def _running(options: Options, *, batches: bool = True) -> dict[str, Any]:
    kind = Word("KIND_GPU" if options.kind == "gpu" else "KIND_CPU")
    running: dict[str, Any] = {"instance_group": [{"kind": kind, "count": options.instances}]}
    if batches:
        running["dynamic_batching"] = {"max_queue_delay_microseconds": options.delay_us} if options.delay_us else {}
    return running


def _warmup(source: tuple[str, tuple[int, ...]], size: int) -> dict[str, Any]:
    zeros = {"data_type": Word("TYPE_FP32"), "dims": list(source[1]), "zero_data": True}
    return {"name": f"batch of {size}", "batch_size": size, "inputs": {"key": source[0], "value": zeros}}


def _notes(engine: Engine) -> dict[str, Any]:
    manifest = engine.manifest
    notes = {
        "recipe": manifest.recipe.name,
        "precision": manifest.precision,
        "engine_key": manifest.key,
        "joints": " ".join(manifest.recipe.skeleton.joints),
    }
    return {"parameters": [{"key": key, "value": {"string_value": value}} for key, value in notes.items()]}


def _axes(recipe: Recipe) -> list[tuple[str, int]]:
    return list(zip(recipe.output.names, recipe.bins, strict=True))


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> dict[str, Any]:
    maps = {
        name: [{"key": key, "value": value} for key, value in pairs.items()]
        for name, pairs in (("input_map", inputs), ("output_map", outputs))
    }
    return {"model_name": model, "model_version": -1, **maps}


def _labels(recipe: Recipe) -> dict[str, str]:
    return {LABELS: "".join(f"{name}\n" for name in recipe.skeleton.joints)}


def _model_text(name: str) -> str:
    return files("sdk.serving.models").joinpath(f"{name}.py").read_text(encoding="utf-8")


def _check_free(repository: Path, model: Model, options: Options) -> None:
    """OutputError where the model's version cannot be put into the repository."""
    folder = repository / model.name
    if not folder.exists():
        return
    config = folder / "config.pbtxt"
    if (folder / str(options.version)).exists():
        raise OutputError(
            f"repository '{repository}' has version {options.version} of model '{model.name}'; choose another --name "
            "or --model-version, or remove it"
        )
    if not config.is_file() or config.read_text(encoding="utf-8") != pbtxt(model.config):
        raise OutputError(
            f"repository '{repository}' has a model '{model.name}' of another configuration, which all versions of a "
            "model share; choose another --name"
        )


def _write_model(folder: Path, model: Model, options: Options) -> None:
    version = folder / str(options.version)
    version.mkdir(parents=True)
    for name, text in {"config.pbtxt": pbtxt(model.config), **model.beside}.items():
        (folder / name).write_text(text, encoding="utf-8")
    for name, source in model.files.items():
        target = version / name
        target.parent.mkdir(exist_ok=True)
        if isinstance(source, Path):
            shutil.copyfile(source, target)
        else:
            target.write_text(source, encoding="utf-8")


def _move(temporary: Path, repository: Path, model: Model, options: Options) -> Path:
    """Put a written model, or its further version, where it belongs."""
    there = repository / model.name
    part = str(options.version) if there.exists() else ""
    (temporary / model.name / part).rename(there / part)
    return there

"""The engine folder as seen from outside: `engine.json`, read strictly, and the files it vouches for.

An engine is a folder: `engine.json`, `network.onnx` (the typed graph) and, when compiled, `<compiler>.plan`, a raw plan
that `trtexec --loadEngine` takes. What TensorRT-RTX compiled while the engine ran may lie beside it
(`kernel_cache_name`); it is no part of the engine, and a rebuild starts without it. Writing one is
`sdk.toolchain.engine`'s work; running one is `sdk.runtime`'s.

    engine = open_engine(Path("rtmpose-s-256x192.fp16"))       # hashes verified before anything else reads a byte
    engine.manifest.recipe, engine.graph_path, engine.plan_path
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from sdk.detector_recipe import DetectorRecipe, detector_from_table
from sdk.errors import EngineError, RecipeError
from sdk.reading import TABLE_BYTES, json_from_file, kind_of
from sdk.recipe import Recipe, recipe_from_table
from sdk.strict import NotNegative, Share, Within, strict_from_table, table_from

__all__ = [
    "BATCH_RULE",
    "DEFAULT_BATCH",
    "FORMAT",
    "GRAPH_NAME",
    "KERNEL_CACHE_GLOB",
    "MANIFEST_NAME",
    "OPENINGS",
    "AnyEngine",
    "AnyManifest",
    "BatchRange",
    "CalibrationNote",
    "CompilerNote",
    "DetectorEngine",
    "DetectorManifest",
    "Engine",
    "Manifest",
    "Precision",
    "SpreadNote",
    "WeightsNote",
    "kernel_cache_name",
    "manifest_from_table",
    "open_any_engine",
    "open_detector_engine",
    "open_engine",
    "sha256_of_file",
]

FORMAT = 1
MANIFEST_NAME = "engine.json"
GRAPH_NAME = "network.onnx"
OPENINGS = 20  # a build takes seconds and a reading milliseconds: a second one meets no second build
KERNEL_CACHE_GLOB = "kernels-*.cache"
Precision = Literal["fp32", "fp16", "int8"]


LARGEST_BATCH = 4096
BatchSize = Annotated[int, Within(1, LARGEST_BATCH)]


@dataclass(frozen=True)
class BatchRange:
    """Batch sizes of the optimisation profile."""

    min: BatchSize
    opt: BatchSize
    max: BatchSize

    @property
    def holds(self) -> bool:
        """Whether it is a range, which one that is asked for need not be."""
        return 1 <= self.min <= self.opt <= self.max <= LARGEST_BATCH

    def __str__(self) -> str:
        return f"min {self.min}, opt {self.opt}, max {self.max}"


BATCH_RULE = f"1 <= min <= opt <= max <= {LARGEST_BATCH}"
DEFAULT_BATCH = BatchRange(1, 4, 16)


@dataclass(frozen=True)
class CompilerNote:
    """What compiled the plan. `target`: a compute capability such as '8.7', or 'portable' (TensorRT-RTX)."""

    name: Literal["tensorrt", "tensorrt-rtx"]
    version: str
    target: str
    plan: str  # file name in the folder
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightsNote:
    """Where the weights come from. `random` weights are for timing and tests; every report says so."""

    kind: Literal["random", "checkpoint", "onnx"]
    source: str  # file name or URL, or 'seed 0'
    sha256: str | None = None


@dataclass(frozen=True)
class CalibrationNote:
    """Provenance of an INT8 engine's ranges and of what stayed float."""

    table: str
    sha256: str
    method: str
    images: Annotated[int, Within(1)]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SpreadNote:
    """How the engine's stated spread was held against labelled joints: `sdk calibrate --spread`.

    The variance v of a row, in bins, of logits times `sharpness`, stands for floor + gain v + curve v^2.
    """

    sharpness: Annotated[float, Within(0, 1e6, above=True)]
    gain: NotNegative
    curve: NotNegative
    floor: NotNegative
    data: str  # file name of the annotations
    joints: Annotated[int, Within(1)]  # that it was fitted on
    covered: Share  # of those joints' coordinates, within one spread


@dataclass(frozen=True)
class AnyManifest:
    """`engine.json`, whatever the engine is for.

    `key` is the content hash of graph, compiler version and options, by which a build is reused.
    """

    format: int
    recipe: Recipe | DetectorRecipe
    precision: Precision
    opset: Annotated[int, Within(1, 1000)]
    batch: BatchRange
    weights: WeightsNote
    files: Mapping[str, str]  # name -> sha256
    key: str
    created_by: str
    compiler: CompilerNote | None = None
    calibration: CalibrationNote | None = None
    notes: tuple[str, ...] = ()

    def to_table(self) -> dict[str, Any]:
        """The plain table that `manifest_from_table` reads back."""
        table: dict[str, Any] = table_from(self)
        return table


@dataclass(frozen=True)
class Manifest(AnyManifest):
    """Of a pose network's engine."""

    recipe: Recipe
    spread: SpreadNote | None = None


@dataclass(frozen=True)
class DetectorManifest(AnyManifest):
    """Of a detector's engine."""

    recipe: DetectorRecipe


@dataclass(frozen=True)
class AnyEngine:
    """An engine folder whose files were found and verified, whatever it is for."""

    folder: Path
    manifest: AnyManifest
    state: object = field(default=None, compare=False, repr=False)  # of the manifest's file when it was read

    @property
    def rebuilt(self) -> bool:
        """Whether another build has taken the folder since: its files are no longer those that were verified."""
        return self.state is not None and _state_of(self.folder) != self.state

    @property
    def graph_path(self) -> Path:
        return self.folder / GRAPH_NAME

    @property
    def plan_path(self) -> Path | None:
        compiler = self.manifest.compiler
        return None if compiler is None else self.folder / compiler.plan


@dataclass(frozen=True)
class Engine(AnyEngine):
    """A pose network's engine."""

    manifest: Manifest


@dataclass(frozen=True)
class DetectorEngine(AnyEngine):
    """A detector's engine."""

    manifest: DetectorManifest


def open_engine(folder: Path) -> Engine:
    """The pose engine in `folder`, its manifest read strictly, every file's sha256 checked. EngineError otherwise."""
    engine = open_any_engine(folder)
    if isinstance(engine, Engine):
        return engine
    raise EngineError(
        f"engine '{folder}' holds the detector '{engine.manifest.recipe.name}', and a pose network's is asked for; "
        "give this one as PoseEstimator(detector=...) or `sdk predict --detector`"
    )


def open_detector_engine(folder: Path) -> DetectorEngine:
    """As `open_engine`, of a detector."""
    engine = open_any_engine(folder)
    if isinstance(engine, DetectorEngine):
        return engine
    raise EngineError(
        f"engine '{folder}' holds the pose network '{engine.manifest.recipe.name}', and a detector's is asked for; "
        "build one with `sdk build-engine rtmdet-nano-person-320`"
    )


def open_any_engine(folder: Path) -> Engine | DetectorEngine:
    """The engine in `folder`, whatever it is for.

    A rebuild may put another engine in its place meanwhile: then that one is read.
    """
    for _ in range(OPENINGS):
        state = _state_of(folder)
        try:
            engine = _read_engine(folder, state)
        except EngineError:
            if _state_of(folder) == state:
                raise
            continue
        if not engine.rebuilt:
            return engine
    raise EngineError(f"engine '{folder}' is being rebuilt again and again; open it when that has ended")


def _read_engine(folder: Path, state: object) -> Engine | DetectorEngine:
    path = folder / MANIFEST_NAME
    if kind_of(path, "engine manifest", EngineError) != "file":
        if folder.name == MANIFEST_NAME and folder.is_file():
            raise EngineError(f"'{folder}' is not an engine folder but the manifest in one; name '{folder.parent}'")
        source = f" RECIPE --onnx {folder}" if folder.suffix == ".onnx" else ""
        raise EngineError(
            f"'{folder}' is not an engine folder: it has no {MANIFEST_NAME}; build one with `sdk build-engine{source}`"
        )
    table = json_from_file(path, "manifest", EngineError, "build the engine again", largest=TABLE_BYTES)
    manifest = manifest_from_table(table, str(path))
    engine: Engine | DetectorEngine
    if isinstance(manifest, DetectorManifest):
        engine = DetectorEngine(folder, manifest, state)
    else:
        engine = Engine(folder, manifest, state)
    _verify_files(engine)
    return engine


def _state_of(folder: Path) -> object:
    """What changes when a build takes the folder; None where there is no manifest."""
    try:
        found = (folder / MANIFEST_NAME).stat()
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def manifest_from_table(table: Any, where: str) -> Manifest | DetectorManifest:
    """A manifest from its plain table; a newer format is refused before its keys are judged."""
    version = table.get("format") if isinstance(table, dict) else None
    if type(version) is not int or version != FORMAT:
        raise EngineError(
            f"{where}: key 'format' must be {FORMAT} (got {version!r}); "
            "open the engine with the SDK that built it, or build it again with this one"
        )
    recipe = table.get("recipe")
    if not isinstance(recipe, dict):
        raise EngineError(f"{where}: key 'recipe' is missing; build the engine again")
    detects = recipe.get("kind") == "detector"
    try:
        read = (detector_from_table if detects else recipe_from_table)(recipe, f"{where}: recipe")
    except RecipeError as error:
        raise EngineError(f"{error}; build the engine again") from error
    checked = dict(table, recipe=table_from(read))
    kind: type[Manifest] | type[DetectorManifest] = DetectorManifest if detects else Manifest
    manifest = strict_from_table(kind, checked, where=where, error=EngineError)
    for rule, met in _rules_between_keys(manifest):
        if not met:
            raise EngineError(f"{where}: {rule}; build the engine again")
    return manifest


def _rules_between_keys(manifest: AnyManifest) -> Iterator[tuple[str, bool]]:
    """What keys say of each other."""
    batch, compiler, calibration = manifest.batch, manifest.compiler, manifest.calibration
    yield f"key 'batch' must hold {BATCH_RULE} (got {batch})", batch.holds
    yield (
        f"key 'calibration' belongs to precision int8 (got precision {manifest.precision})",
        calibration is None or manifest.precision == "int8",
    )
    yield (
        f"key 'compiler.plan' must be another file than the graph '{GRAPH_NAME}'",
        compiler is None or compiler.plan != GRAPH_NAME,
    )


def kernel_cache_name(version: str, capability: str, plan_sha256: str) -> str:
    """The file of kernels that TensorRT-RTX `version` compiled for one plan on GPUs of one compute capability."""
    return f"kernels-{version}-sm{capability.replace('.', '')}-{plan_sha256[:16]}.cache"


def sha256_of_file(path: Path) -> str:
    """Lower-case hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _verify_files(engine: AnyEngine) -> None:
    manifest = engine.manifest
    needed = {GRAPH_NAME} | ({manifest.compiler.plan} if manifest.compiler else set())
    for name in sorted(needed - set(manifest.files)):
        raise EngineError(f"{engine.folder / MANIFEST_NAME}: no sha256 for '{name}'; build the engine again")
    for name, expected in manifest.files.items():
        path = engine.folder / name
        if Path(name).name != name:
            raise EngineError(f"{engine.folder / MANIFEST_NAME}: file names must not leave the folder (got '{name}')")
        if kind_of(path, f"engine '{engine.folder}': file", EngineError) != "file":
            raise EngineError(
                f"engine '{engine.folder}': file '{name}' is missing; copy it again or rebuild the engine"
            )
        try:
            found = sha256_of_file(path)
        except OSError as error:
            raise EngineError(
                f"engine '{engine.folder}': file '{name}' cannot be read ({error.strerror or error}); check its "
                "rights, or copy it again"
            ) from error
        if found != expected:
            raise EngineError(
                f"engine '{engine.folder}': file '{name}' was altered (sha256 {found[:12]}…, manifest says "
                f"{expected[:12]}…); copy it again or rebuild the engine"
            )

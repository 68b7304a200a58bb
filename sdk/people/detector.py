"""Person detectors: an engine, a published one by its name, or an ONNX file as it is; on ONNX Runtime.

A detector serves `PoseEstimator(boxes=None)`; any callable frame -> (boxes, scores) does as well. None ships. What a
file is, is told by `sdk.people.detector_forms`; the letterbox and the reading of outputs are native ops.

    detect = Detector("rtmdet-nano-person-320.fp16")
    boxes_xyxy, scores = detect(frame_bgr)              # N x 4 frame pixels, N; best first
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk import ops
from sdk.deploy_zip import graph_in_zip
from sdk.detection import letterbox
from sdk.detector_recipe import DetectorRecipe, detector_catalogue
from sdk.errors import EngineError, GraphError, InputError
from sdk.manifest import MANIFEST_NAME, DetectorEngine, open_detector_engine
from sdk.numeric import is_number, is_whole
from sdk.people.detector_forms import GraphSeen, Kind, TensorSeen, Understood, blob_of, size_of_metadata, understood
from sdk.reading import kind_of
from sdk.resources import released_path
from sdk.runtime.frames import check_frame
from sdk.runtime.ort_session import onnxruntime_run, onnxruntime_session

__all__ = ["FREE_SIZE_HW", "Detector", "Kind", "detector_engine", "place_of_detector"]

Array = NDArray[Any]
Float32Array = NDArray[np.float32]
FREE_SIZE_HW = (320, 320)
DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(int32)": "int32"}


class Detector:
    """Persons in a frame.

    `where`: an engine folder of `sdk build-engine`, a name of the catalogue whose file is fetched already, an ONNX file
    or a deploy zip. `kind`: what a file is, where 'auto' cannot tell (docs/detectors.md). `score_threshold`: the
    recipe's, or its form's own, 0.25 of the YOLO families and 0.3 of the others. `person_class`: by a file's own names,
    else as COCO numbers persons, else 0. `size_hw` is for files of free input size: else what their metadata
    tells, else 320x320, which the nano detectors are trained for.
    """

    def __init__(
        self,
        where: str | Path | DetectorEngine,
        *,
        kind: Kind = "auto",
        score_threshold: float | None = None,
        person_class: int | None = None,
        size_hw: tuple[int, int] | None = None,
        threads: int | None = None,
    ) -> None:
        _check_options(score_threshold, person_class, size_hw)
        found = _found(where, threads)
        self.path = found.path
        self.engine = found.engine
        self._session = found.session
        self.kind: str | None = None  # of a file
        self._fed: Mapping[str, Array] = {}
        if found.engine is None:
            file = _understood(found, kind, size_hw, person_class)
            self.kind, self._fed = file.kind, file.fed
            self.recipe = _recipe_of_file(found, file)
        else:
            self.recipe = _recipe_of_engine(found.engine, kind, size_hw, person_class)
            _check_tensors(self._session, self.recipe, found.path)
        self.size_hw = self.recipe.input.size_hw
        self.score_threshold = self.recipe.score_threshold if score_threshold is None else score_threshold
        self.person_class = self.recipe.form.person_class

    def __call__(self, frame: object) -> tuple[Float32Array, Float32Array]:
        """Boxes N x 4 xyxy in frame pixels, clipped to the frame, and scores N; best first."""
        pixels = check_frame(frame)
        return self.read(self.run(blob_of(pixels, self.recipe.input)), (pixels.shape[0], pixels.shape[1]))

    def run(self, blob: Float32Array) -> list[Any]:  # 1 x 3 x h x w
        """The graph's outputs, as the form counts them."""
        feed = {self.recipe.input.name: blob, **self._fed}
        return onnxruntime_run(self._session, list(self.recipe.outputs), feed, self.path)

    def read(self, outputs: list[Any], frame_hw: tuple[int, int]) -> tuple[Float32Array, Float32Array]:
        """What a call gives, of the outputs for a frame of this size."""
        placed = letterbox(frame_hw, self.size_hw, self.recipe.input.place)
        return ops.detections(
            outputs, self.recipe.form, to_frame=placed.to_frame, size_hw=self.size_hw, frame_hw=frame_hw,
            score_threshold=self.score_threshold, iou=self.recipe.iou,
        )  # fmt: skip


def place_of_detector(where: str | Path) -> Path:
    """The file or folder that `Detector(where)` reads: by a name of the catalogue, the published file, once fetched."""
    there = kind_of(Path(where), "detector", InputError)
    return _fetched(detector_catalogue().get(str(where)), where) if there is None else Path(where)


def detector_engine(where: object) -> DetectorEngine | None:
    """The detector's engine that `where` is, or the folder of; None for anything else."""
    if isinstance(where, DetectorEngine):
        return where
    if not isinstance(where, (str, Path)) or kind_of(Path(where), "detector", InputError) != "folder":
        return None
    folder = Path(where)
    return open_detector_engine(folder) if (folder / MANIFEST_NAME).is_file() else None


@dataclass(frozen=True)
class _Found:
    """A graph, opened: an engine's, a file's, or a published one's."""

    path: Path
    session: Any
    engine: DetectorEngine | None = None
    recipe: DetectorRecipe | None = None  # of the catalogue


def _found(where: str | Path | DetectorEngine, threads: int | None) -> _Found:
    if isinstance(where, DetectorEngine):
        return _Found(where.graph_path, onnxruntime_session(where.graph_path, threads), where)
    path = place_of_detector(where)
    if path != Path(where):
        return replace(_file(path, threads), recipe=detector_catalogue()[str(where)])
    engine = detector_engine(path)
    return _file(path, threads) if engine is None else _found(engine, threads)


def _fetched(recipe: DetectorRecipe | None, where: str | Path) -> Path:
    """The published file of a recipe, which has to be here already: a running program downloads nothing."""
    if recipe is None or recipe.weights is None:
        raise InputError(
            f"detector '{where}' does not exist; give an engine folder, a detector's ONNX file or deploy zip, or a "
            f"name of the catalogue ({', '.join(detector_catalogue())})"
        )
    path = released_path(recipe.weights.url)
    if not path.is_file():
        raise InputError(
            f"detector '{where}' is not on this machine yet; fetch and build it once with `sdk build-engine {where}`"
        )
    return path


def _file(path: Path, threads: int | None) -> _Found:
    if path.is_dir():
        graphs = sorted(path.glob("*.onnx"))
        if len(graphs) != 1:
            found = ", ".join(graph.name for graph in graphs) or "none"
            raise GraphError(f"folder '{path}' must be an engine, or hold exactly one ONNX file (got {found})")
        path = graphs[0]
    content = graph_in_zip(path)[1] if path.suffix == ".zip" else None
    return _Found(path, onnxruntime_session(path, threads, content=content))


def _understood(found: _Found, kind: Kind, size_hw: tuple[int, int] | None, person_class: int | None) -> Understood:
    session, path = found.session, found.path
    inputs = tuple(
        TensorSeen(tensor.name, DTYPES.get(tensor.type, tensor.type), tuple(tensor.shape))
        for tensor in session.get_inputs()
    )
    seen = GraphSeen(
        f"'{path}'",
        inputs,
        tuple(output.name for output in session.get_outputs()),
        lambda feed: onnxruntime_run(session, None, feed, path),
        dict(session.get_modelmeta().custom_metadata_map),
    )
    if size_hw is None and found.recipe is not None:
        size_hw = found.recipe.input.size_hw
    size_hw = _size_hw_of(inputs, size_hw, size_of_metadata(seen.metadata) or FREE_SIZE_HW, path)
    return understood(seen, kind, size_hw=size_hw, person_class=person_class)


def _recipe_of_file(found: _Found, file: Understood) -> DetectorRecipe:
    height, width = file.input.size_hw
    return DetectorRecipe(
        name=f"file-{height}x{width}",
        description=f"{found.path.name}, taken for '{file.kind}'",
        source=found.path.name,
        licence="unknown",
        input=file.input,
        outputs=tuple(output.name for output in found.session.get_outputs()),
        form=file.form,
        iou=file.iou,
        score_threshold=file.threshold if found.recipe is None else found.recipe.score_threshold,
    )


def _recipe_of_engine(
    engine: DetectorEngine, kind: Kind, size_hw: tuple[int, int] | None, person_class: int | None
) -> DetectorRecipe:
    recipe, subject = engine.manifest.recipe, f"detector '{engine.folder}'"
    if kind != "auto":
        raise InputError(f"{subject} is an engine and says itself what it is; leave kind '{kind}' out")
    if size_hw is not None and tuple(size_hw) != recipe.input.size_hw:
        height, width = recipe.input.size_hw
        raise InputError(f"{subject} takes {height}x{width} only (size_hw was {size_hw})")
    if person_class is None:
        return recipe
    if recipe.form.label is None and person_class >= recipe.form.classes:
        raise InputError(
            f"{subject} knows {recipe.form.classes} classes, numbered from 0; person_class must be one of them (got "
            f"{person_class})"
        )
    return replace(recipe, form=replace(recipe.form, person_class=int(person_class)))


def _check_tensors(session: Any, recipe: DetectorRecipe, path: Path) -> None:
    """EngineError where an engine's graph has not what its recipe says."""
    names = [tensor.name for tensor in session.get_inputs()], {tensor.name for tensor in session.get_outputs()}
    shape = [1, 3, *recipe.input.size_hw]
    if names[0] != [recipe.input.name] or not set(recipe.outputs) <= names[1] or session.get_inputs()[0].shape != shape:
        raise EngineError(
            f"graph '{path}' takes {names[0]} and gives {sorted(names[1])}; its recipe names '{recipe.input.name}', "
            f"{shape}, and {list(recipe.outputs)}; build the engine again"
        )


def _check_options(score_threshold: object, person_class: object, size_hw: object) -> None:
    """InputError for what no detector takes, whatever its file."""
    if score_threshold is not None and (not is_number(score_threshold) or not 0 <= score_threshold <= 1):
        raise InputError(f"score_threshold must be in 0..1 (got {score_threshold!r})")
    if person_class is not None and not is_whole(person_class, 0):
        raise InputError(f"person_class must be the number of a class, from 0 on (got {person_class!r})")
    sides = size_hw if isinstance(size_hw, (tuple, list)) else ()
    if size_hw is not None and (len(sides) != 2 or not all(is_whole(side, 1) for side in sides)):
        raise InputError(f"size_hw must be a pair (height, width) of positive multiples of 32 (got {size_hw!r})")


def _size_hw_of(
    inputs: tuple[TensorSeen, ...], size_hw: tuple[int, int] | None, free: tuple[int, int], path: Path
) -> tuple[int, int]:
    """The input size: the file's own, or for a file of free size the one asked for, else `free`."""
    declared = next((tensor.shape[2:] for tensor in inputs if len(tensor.shape) == 4), ("h", "w"))
    wanted = free if size_hw is None else size_hw
    sides = [side if isinstance(side, int) else want for side, want in zip(declared, wanted, strict=True)]
    if size_hw is not None and tuple(sides) != tuple(size_hw):
        raise InputError(f"detector '{path}' takes {sides[0]}x{sides[1]} only (size_hw was {size_hw})")
    if any(side % 32 for side in sides):
        raise InputError(f"detector '{path}': size_hw must be positive multiples of 32 (got {tuple(sides)})")
    return sides[0], sides[1]

"""The verification loop: pictures are read and cropped by worker threads, and persons of many pictures fill one batch.

The crop and the decode are the run-time ops, so that the figure is of the engine as deployed. On the CPU the network
gets crops that worker threads made; on a GPU the pictures go through the engine's own pipeline, several to a batch: its
CUDA graph crops and decodes. At most a few pictures are in memory. No metric is known here.

    runners = open_runners([engine], ["cpu"], flip=False)
    predictions, timing, unusable = predict(dataset, runners, journal, workers=2)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError, SdkError
from sdk.evaluate.datasets.dataset import Dataset, Picture
from sdk.evaluate.predictions.journal import Journal
from sdk.geometry import crop_affines
from sdk.manifest import Engine
from sdk.media.sources import Unreadable, read_stored_image
from sdk.recipe import Recipe
from sdk.runtime.opening import open_pipeline
from sdk.runtime.pipeline import CpuPipeline, Pipeline, Refine

__all__ = ["BatchRunner", "PictureRunner", "Runner", "Timing", "open_runners", "predict", "read_picture"]

Float32Array = NDArray[np.float32]
Frame = NDArray[np.uint8]

# Persons a run of the network on a CPU. Milliseconds a person at 1, 4, 8, 16, 32 and 64 (bundled network, two cores of
# an AMD EPYC, interleaved medians): 1.62, 1.16, 1.55, 1.55, 1.58, 1.69. 16 hides the loop; above it nothing is won.
PREFERRED_BATCH = 16


@dataclass
class Timing:
    """Seconds by stage. `read` and `crop` are summed over worker threads, the others are the main thread's."""

    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("read", "crop", "wait", "network", "decode", "journal"), 0.0)
    )
    network_ms: list[tuple[float, int]] = field(default_factory=list)  # one a batch: milliseconds, persons
    persons: int = 0
    wall_seconds: float = 0.0
    workers: int = 0

    def add(self, stage: str, since: float) -> float:
        """Count the time since `since` to `stage`; the time now."""
        now = perf_counter()
        self.seconds[stage] += now - since
        return now


class Runner(Protocol):
    """How one engine is run over a dataset: `prepare` in a worker thread, `infer` in the main one."""

    @property
    def recipe(self) -> Recipe: ...

    @property
    def device(self) -> str: ...

    @property
    def batch(self) -> int:
        """Persons a run."""
        ...

    def prepare(self, frame: Frame, affines: Float32Array) -> Any:
        """What `infer` takes of one picture's persons; arrays of persons can be put one behind the other."""
        ...

    def infer(self, prepared: Any, affines: Float32Array, timing: Timing) -> Float32Array:
        """N x K x 3 float32: x and y in frame pixels, score."""
        ...

    def close(self) -> None: ...


class BatchRunner:
    """Crops of any pictures in one batch: the CPU pipeline's crop, session and decode, called apart."""

    def __init__(self, pipeline: CpuPipeline, *, flip: bool) -> None:
        self._pipeline = pipeline
        self._flip = flip
        self.recipe = pipeline.recipe
        self.device = pipeline.device
        self.batch = min(pipeline.max_batch, PREFERRED_BATCH)

    def prepare(self, frame: Frame, affines: Float32Array) -> Float32Array:
        """N x 3 x h x w crops."""
        return self._pipeline.crop(frame, affines)

    def infer(self, prepared: Float32Array, affines: Float32Array, timing: Timing) -> Float32Array:
        """N x K x 3 float32."""
        start = perf_counter()
        outputs = self._pipeline.session.run(prepared)
        mirrored = self._pipeline.session.run(np.ascontiguousarray(prepared[..., ::-1])) if self._flip else None
        ran = timing.add("network", start)
        timing.network_ms.append((1e3 * (ran - start), len(prepared)))
        persons = self._pipeline.decode(outputs, mirrored, affines)[..., :3]
        timing.add("decode", ran)
        return persons

    def close(self) -> None:
        self._pipeline.close()


class PictureRunner:
    """Persons of any pictures in one batch, through the whole pipeline as `estimate.many` does: a GPU crops and decodes
    itself."""

    def __init__(self, pipeline: Pipeline, *, flip: bool) -> None:
        self._pipeline = pipeline
        self._flip = flip
        self.recipe = pipeline.engine.manifest.recipe
        self.device = pipeline.device
        self.batch = min(pipeline.max_batch, PREFERRED_BATCH)

    def prepare(self, frame: Frame, affines: Float32Array) -> NDArray[np.object_]:
        """The frame itself, once for each person."""
        frames = np.empty(len(affines), object)
        for row in range(len(affines)):
            frames[row] = frame
        return frames

    def infer(self, prepared: NDArray[np.object_], affines: Float32Array, timing: Timing) -> Float32Array:
        """N x K x 3 float32."""
        start = perf_counter()
        frames: list[Frame] = []
        frame_of = np.zeros(len(affines), np.int32)
        for row, frame in enumerate(prepared):
            if not frames or frames[-1] is not frame:
                frames.append(frame)
            frame_of[row] = len(frames) - 1
        persons = self._pipeline.run(frames, affines, flip=self._flip, frame_of=frame_of)[0]
        timing.network_ms.append((1e3 * (timing.add("network", start) - start), len(affines)))
        return persons[..., :3]

    def close(self) -> None:
        self._pipeline.close()


def open_runners(
    engines: Sequence[Engine],
    devices: Sequence[str],
    *,
    flip: bool,
    refine: Refine = "none",
    threads: int | None = None,
) -> list[Runner]:
    """A runner for each engine on its device: crops are made by worker threads if all run on the CPU."""
    pipelines: list[Pipeline] = []
    try:
        for engine, device in zip(engines, devices, strict=True):
            pipelines.append(open_pipeline(engine, device, refine=refine, threads=threads))
    except SdkError:
        for pipeline in pipelines:
            pipeline.close()
        raise
    on_cpu = [pipeline for pipeline in pipelines if isinstance(pipeline, CpuPipeline)]
    if len(on_cpu) == len(pipelines):
        return [BatchRunner(pipeline, flip=flip) for pipeline in on_cpu]
    return [PictureRunner(pipeline, flip=flip) for pipeline in pipelines]


def predict(
    dataset: Dataset, runners: Sequence[Runner], journal: Journal, *, workers: int, progress: bool = False
) -> tuple[Float32Array, Timing, dict[int, str]]:
    """P x engines x K x 3 for all persons; the timing; and pictures (by position) that could not be used, with why.

    Persons of an unusable picture are NaN. What the journal holds already is not run again.
    """
    _check_same_crops(runners)
    timing = Timing(workers=workers)
    start = perf_counter()
    unusable: dict[int, str] = {}
    with _bar(len(dataset), len(journal), progress) as bar:
        for records in _batches(dataset, runners, len(journal), timing, unusable):
            since = perf_counter()
            journal.append(records)
            timing.add("journal", since)
            timing.persons += len(records)
            bar.update(len(records))
    timing.wall_seconds = perf_counter() - start
    return journal.predictions, timing, unusable


def read_picture(picture: Picture) -> Frame | str:
    """The picture as stored (BGR), or why there is none."""
    frame = read_stored_image(picture.path)
    if isinstance(frame, Unreadable):
        return f"picture cannot be read ({frame.reason})"
    height, width = frame.shape[:2]
    if picture.size_wh not in (None, (width, height)):
        return "picture's size is not the annotated one"
    return frame


@dataclass(frozen=True)
class _Prepared:
    position: int
    affines: Float32Array
    crops: Any
    problem: str | None
    read_seconds: float
    crop_seconds: float


def _batches(
    dataset: Dataset, runners: Sequence[Runner], skip: int, timing: Timing, unusable: dict[int, str]
) -> Iterator[Float32Array]:
    """Records of consecutive persons, in full batches across pictures."""
    step = min(runner.batch for runner in runners)
    waiting = _Waiting()
    for item in _prepared(dataset, runners[0], skip, timing):
        timing.seconds["read"] += item.read_seconds
        timing.seconds["crop"] += item.crop_seconds
        if item.problem is not None:
            unusable[item.position] = item.problem
            if waiting.count:
                yield _run(*waiting.take(waiting.count), runners, timing)
            yield np.full((len(item.affines), len(runners), len(dataset.skeleton.joints), 3), np.nan, np.float32)
        else:
            waiting.add(item)
            while waiting.count >= step:
                yield _run(*waiting.take(step), runners, timing)
    if waiting.count:
        yield _run(*waiting.take(waiting.count), runners, timing)


class _Waiting:
    """Crops of pictures, in order, until they fill a batch."""

    def __init__(self) -> None:
        self._parts: deque[tuple[Float32Array, Float32Array]] = deque()
        self.count = 0

    def add(self, item: _Prepared) -> None:
        self._parts.append((item.crops, item.affines))
        self.count += len(item.affines)

    def take(self, count: int) -> tuple[Float32Array, Float32Array]:
        """The first `count` crops and their affines."""
        taken: list[tuple[Float32Array, Float32Array]] = []
        missing = count
        while missing:
            crops, affines = self._parts.popleft()
            if len(affines) > missing:
                self._parts.appendleft((crops[missing:], affines[missing:]))
            taken.append((crops[:missing], affines[:missing]))
            missing -= len(taken[-1][1])
        self.count -= count
        return np.concatenate([part[0] for part in taken]), np.concatenate([part[1] for part in taken])


def _run(prepared: Any, affines: Float32Array, runners: Sequence[Runner], timing: Timing) -> Float32Array:
    """N x engines x K x 3."""
    return np.stack([runner.infer(prepared, affines, timing) for runner in runners], axis=1)


def _prepared(dataset: Dataset, runner: Runner, skip: int, timing: Timing) -> Iterator[_Prepared]:
    """Pictures in order, read and cropped ahead by worker threads; at most twice the workers are in memory."""
    pending: deque[Future[_Prepared]] = deque()
    with ThreadPoolExecutor(timing.workers, thread_name_prefix="sdk-verify") as pool:
        try:
            for position, persons in _pictures_from(dataset, skip):
                pending.append(pool.submit(_prepare, dataset, position, persons, runner))
                if len(pending) > 2 * timing.workers:
                    yield _waited(pending.popleft(), timing)
            while pending:
                yield _waited(pending.popleft(), timing)
        finally:
            for future in pending:
                future.cancel()


def _pictures_from(dataset: Dataset, skip: int) -> Iterator[tuple[int, slice]]:
    """Pictures with the persons still to run: position and rows."""
    first = skip
    while first < len(dataset):
        position = int(dataset.picture[first])
        last = int(np.searchsorted(dataset.picture, position, side="right"))
        yield position, slice(first, last)
        first = last


def _prepare(dataset: Dataset, position: int, persons: slice, runner: Runner) -> _Prepared:
    recipe, start = runner.recipe, perf_counter()
    boxes = dataset.boxes_xyxy[persons].astype(np.float32)
    affines = crop_affines(boxes, recipe.input.size_hw, recipe.input.box_padding)
    frame = read_picture(dataset.pictures[position])
    read = perf_counter()
    if isinstance(frame, str):
        return _Prepared(position, affines, None, frame, read - start, 0.0)
    crops = runner.prepare(frame, affines)
    return _Prepared(position, affines, crops, None, read - start, perf_counter() - read)


def _waited(future: Future[_Prepared], timing: Timing) -> _Prepared:
    since = perf_counter()
    item = future.result()
    timing.add("wait", since)
    return item


def _check_same_crops(runners: Sequence[Runner]) -> None:
    first = runners[0].recipe
    for runner in runners[1:]:
        different = _differences(first, runner.recipe)
        if different:
            raise InputError(
                "two engines are compared on the same crops, so their inputs and joints must be the same ("
                f"'{first.name}' and '{runner.recipe.name}' differ: {'; '.join(different)}); verify them one by one"
            )


def _differences(first: Recipe, second: Recipe) -> list[str]:
    """What decides crops and joints and is not the same, in words."""
    ours, theirs = _crop_facts(first), _crop_facts(second)
    found = [f"{name} {ours[name]} and {theirs[name]}" for name in ours if ours[name] != theirs[name]]
    joints = first.skeleton.joints, second.skeleton.joints
    if len(joints[0]) != len(joints[1]):
        return [*found, f"{len(joints[0])} and {len(joints[1])} joints"]
    pairs = [f"{one} and {other}" for one, other in zip(*joints, strict=True) if one != other]
    return [*found, *([f"joints {', '.join(pairs)}"] if pairs else [])]


def _crop_facts(recipe: Recipe) -> dict[str, str]:
    source = recipe.input
    return {
        "input size": f"{source.height}x{source.width}",
        "mean": ", ".join(f"{value:g}" for value in source.mean),
        "std": ", ".join(f"{value:g}" for value in source.std),
        "colour order": source.colour,
        "box padding": f"{source.box_padding:g}",
    }


def _bar(total: int, done: int, show: bool) -> Any:
    """A tqdm bar on stderr, or nothing."""
    from tqdm import tqdm

    return tqdm(total=total, initial=done, unit="person", disable=not show, smoothing=0.05)

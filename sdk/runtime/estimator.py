"""`BoxEstimator`: a frame and boxes in, `Poses` out. It checks, makes affines, chunks and assembles; pixels are the
pipeline's work, and who is in a frame is told to it: `sdk.people.estimator` finds and follows persons.

    with BoxEstimator("rtmpose-s-256x192.fp16") as estimate:
        poses = estimate(frame_bgr, boxes_xyxy)

Several threads may call it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from threading import Lock
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from sdk.box_units import SHARES
from sdk.errors import ClosedError, InputError
from sdk.geometry import box_array, check_boxes
from sdk.in_flight import in_flight
from sdk.numeric import is_whole
from sdk.poses import Poses
from sdk.runtime.closing import Closing
from sdk.runtime.frames import check_frame, of_frame, size_hw_of

if TYPE_CHECKING:  # recipes, engines and pools are loaded with the first estimator: importing one stays quick
    from concurrent.futures import Future, ThreadPoolExecutor

    from numpy.typing import NDArray

    from sdk.manifest import DetectorEngine, Engine
    from sdk.recipe import Recipe
    from sdk.runtime.pipeline import Refine, Timings

    Float32Array = NDArray[np.float32]
    Found = tuple[Float32Array, Float32Array]  # boxes N x 4 xyxy, scores N
    Entry = tuple[object, object, object]  # a frame, its boxes and their scores; None for what is not given
    FindAll = Callable[[dict[int, Any], Timings], dict[int, Found]]  # frames by their place in a list

__all__ = ["BoxEstimator", "check_found", "entries"]


class BoxEstimator(Closing):
    """An engine, opened: call it with a BGR frame and boxes.

    `engine`: an engine folder, a bundled name, or None for the bundled network. `device`: 'auto', 'cpu', 'cuda',
    'cuda:N'. `flip_test`: also run the mirrored crop. `refine`: sub-bin rule. `threads`: of ONNX Runtime and the native
    ops (by default all cores, and one). `pixel_format`: 'bgr', or another of `sdk.runtime.frames.PIXEL_FORMATS`.
    `spread`: also how sure each joint is, as `poses.spread` and `poses.second`. `detector`: for the pipeline to find
    persons with, where it can; it is asked by whoever knows when to look.
    """

    def __init__(
        self,
        engine: Engine | str | Path | None = None,
        *,
        device: str = "auto",
        refine: Refine = "none",
        flip_test: bool = False,
        threads: int | None = None,
        pixel_format: str = "bgr",
        spread: bool = False,
        detector: DetectorEngine | None = None,
    ) -> None:
        from sdk.runtime.confidence import scale_from_recipe
        from sdk.runtime.opening import open_pipeline

        for option, value in (("flip_test", flip_test), ("spread", spread)):
            if not isinstance(value, bool):
                raise InputError(f"{option} must be True or False (got {value!r})")
        self._flip_test = flip_test
        self._pixel_format = pixel_format
        self._pipeline = open_pipeline(
            engine, device, refine=refine, pixel_format=pixel_format, threads=threads, spread=spread, detector=detector
        )
        self._columns = self._pipeline.decoding.columns
        depth = self.recipe.output.depth
        self._depth_unit = None if depth is None else depth.unit
        self._scale = scale_from_recipe(self.recipe)
        self._starting = Lock()
        self._worker: ThreadPoolExecutor | None = None
        self._closed = False
        self._pid = os.getpid()

    @property
    def engine(self) -> Engine:
        return self._pipeline.engine

    @property
    def recipe(self) -> Recipe:
        return self._pipeline.engine.manifest.recipe

    @property
    def device(self) -> str:
        return self._pipeline.device

    def __call__(self, frame: object, boxes: object = None, *, box_scores: object = None) -> Poses:
        """The poses in `frame` (uint8 H x W x 3, BGR) of the persons in `boxes` (N x 4 xyxy, frame pixels).

        Without boxes: the whole frame.
        """
        self._check_open()
        return self._call(frame, boxes, box_scores)

    def many(
        self,
        frames: Iterable[object],
        boxes: Iterable[object] | None = None,
        *,
        box_scores: Iterable[object] | None = None,
    ) -> list[Poses]:
        """The poses in each of `frames`, of the persons in its `boxes`: for several cameras, or many pictures.

        Persons of all frames share batches. Frames may differ in size, and lie on the host or the device. Each is what
        a call takes, and gives what a call gives; `timings_ms` are those of all together. `boxes` and `box_scores` hold
        an entry a frame, None for one without.
        """
        self._check_open()
        with in_flight:
            return self._estimate_many(entries(frames, boxes, box_scores))

    def taken(self, frame: object) -> Any:
        """`frame`, checked, as `many` takes it in another thread than the one that has it.

        One in device memory may still be being made, on the calling thread's current stream.
        """
        self._check_open()
        return self._pipeline.arrived(frame) if _on_device(frame) else check_frame(frame, self._pixel_format)

    def _estimate_many(self, given: list[Entry], find_all: FindAll | None = None) -> list[Poses]:
        """`find_all`: who is in the frames that came without boxes; None: as in calls."""
        start = perf_counter()
        timings: Timings = {}
        pixels: list[Any] = []
        known: dict[int, Found] = {}
        for index, (frame, boxes, scores) in enumerate(given):  # all of them before a detector looks into the first
            with of_frame(index):
                pixels.append(self._checked(frame))
                if boxes is not None:
                    known[index] = check_found(boxes, scores)
                else:
                    _check_no_scores(scores)
        unknown = {index: frame for index, frame in enumerate(pixels) if index not in known}
        known |= (find_all or self._find_all)(unknown, timings)
        found = [known[index] for index in range(len(given))]
        counts = [len(each) for each, _ in found]
        frame_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        together = np.concatenate([each for each, _ in found]) if found else np.zeros((0, 4), np.float32)
        persons, checked, spent = self._pipeline.estimate(pixels, together, frame_of, flip=self._flip_test)
        timings.update(spent)
        timings["total"] = 1e3 * (perf_counter() - start)
        ends = np.cumsum([0, *counts]).tolist()
        return [
            self._poses(persons[first:end], checked[first:end], scores, dict(timings))
            for first, end, (_, scores) in zip(ends, ends[1:], found, strict=False)
        ]

    def submit(self, frame: object, boxes: object = None, *, box_scores: object = None) -> Future[Poses]:
        """The call in the background. The frame must not change until the future is done; boxes may.

        Calls start in the order of submission; where one runs at a time, as on the CPU, each waits for the one before.
        A frame in device memory may still be being made, on the calling thread's current stream.
        """
        return self._submit(frame, boxes, box_scores)

    def _submit(self, frame: object, *told: object) -> Future[Poses]:
        """`_call` in the background, of a frame and what is told with it."""
        from concurrent.futures import ThreadPoolExecutor

        self._check_open()
        if _on_device(frame):
            frame = self._pipeline.arrived(frame)
        told = deepcopy(told)
        with self._starting:
            if self._worker is None:
                self._worker = ThreadPoolExecutor(self._in_flight(), thread_name_prefix="sdk-estimator")
            try:
                return self._worker.submit(self._call, frame, *told)
            except RuntimeError as error:  # closed meanwhile by another thread, or the program ends
                raise ClosedError(f"the estimator is closed ({error}); make a new PoseEstimator") from error

    def stream(self, frames: Iterable[object], *, depth: int | None = None) -> Iterator[Poses]:
        """Poses of each frame, in order, while later frames are fetched and worked on.

        At most `depth` frames have been taken and not given back: by default those in flight and one more. An item is a
        frame, (frame, boxes) or (frame, boxes, box_scores). Each frame must be an array of its own until its poses come
        out. Where `frames` raises, or an item is none of these, the poses of those before come out, then the error.
        """
        if depth is None:
            depth = self._in_flight() + 1
        if not is_whole(depth, 1):
            raise InputError(f"depth must be a whole number of at least 1, or None (got {depth!r})")
        calls = self._submitted(_iterable("frames", frames))
        pending: deque[Future[Poses]] = deque()
        try:
            while True:
                try:
                    pending.append(next(calls))
                except StopIteration:
                    break
                except Exception:  # the source's, whatever it is
                    yield from _results_of(pending)
                    raise
                if len(pending) >= depth:
                    yield pending.popleft().result()
            yield from _results_of(pending)
        finally:
            for future in pending:
                future.cancel()

    def warm(self) -> None:
        """Do now what would make first calls slow: on a GPU, a CUDA graph for each batch size and frame in flight."""
        self._check_open()
        with in_flight:
            self._pipeline.warm(flip=self._flip_test)

    def close(self) -> None:
        """Finish what was submitted, then free the engine. Closing twice is allowed; a later call is a ClosedError."""
        self._close(finish=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(finish=kind is None)

    def __reduce__(self) -> NoReturn:
        raise InputError("an estimator cannot be pickled: it belongs to its process; make one in each from its engine")

    def _close(self, *, finish: bool) -> None:
        """Close; unless `finish`, what was submitted and has not begun is cancelled."""
        self._closed = True
        if self._worker is not None and os.getpid() == self._pid:
            self._worker.shutdown(wait=True, cancel_futures=not finish)
        self._pipeline.close()

    def _in_flight(self) -> int:
        """How many submitted calls run at once: the device's lanes."""
        return getattr(self._pipeline, "lanes", 1)

    def _submitted(self, frames: Iterable[object]) -> Iterator[Future[Poses]]:
        """The items of a stream as submitted calls."""
        for item in frames:
            frame, boxes, scores = _frame_and_boxes(item)
            yield self.submit(frame, boxes, box_scores=scores)

    def _call(self, frame: object, boxes: object, box_scores: object) -> Poses:
        with in_flight:
            return self._estimate(self._checked(frame), boxes, box_scores)

    def _checked(self, frame: object) -> Any:
        """A checked frame, H x W x 3 or NV12; one in device memory as it is, which its pipeline checks."""
        if _on_device(frame):
            return self._pipeline.arrived(frame) if self.device == "cpu" else frame
        return check_frame(frame, self._pixel_format)

    def _estimate(self, frame: Any, boxes: object, box_scores: object) -> Poses:
        start = perf_counter()
        timings: Timings = {}
        if boxes is not None:
            given = box_array(boxes)  # the pipeline says which of them is no box
            if len(given) and not given.item(2) > 1:  # shares of the frame, perhaps: judged here, as all are
                given, _ = check_found(given, None)
            scores = check_box_scores(box_scores, len(given))
            persons, checked = self._persons_in(frame, given, timings)
        else:
            _check_no_scores(box_scores)
            persons, checked, scores = self._find_and_estimate(frame, timings)
        timings["total"] = 1e3 * (perf_counter() - start)
        return self._poses(persons, checked, scores, timings)

    def _find_and_estimate(self, frame: Any, timings: Timings) -> tuple[Float32Array, Float32Array, Float32Array]:
        """The persons of a frame that came without boxes (N x K x C), their boxes and scores."""
        given, scores = self._find(frame, timings)
        return *self._persons_in(frame, given, timings), scores

    def _persons_in(self, frame: Any, boxes: NDArray[Any], timings: Timings) -> tuple[Float32Array, Float32Array]:
        """The persons in these boxes (N x K x C), and the boxes, checked."""
        persons, checked, spent = self._pipeline.estimate([frame], boxes, flip=self._flip_test)
        timings.update(spent)
        return persons, checked

    def _poses(self, persons: Float32Array, boxes: Float32Array, scores: Float32Array, timings: Timings) -> Poses:
        return Poses.of_call(
            keypoints=persons[..., :2].copy(),
            scores=persons[..., 2].copy(),
            boxes=boxes,
            box_scores=scores,
            skeleton=self.recipe.skeleton,
            timings_ms=timings,
            score_scale=self._scale,
            **self._more(persons),
        )

    def _more(self, persons: Float32Array) -> dict[str, Any]:  # N x K x C
        """What was asked for beside keypoints and scores, as fields of `Poses`."""
        columns = self._columns
        if columns.count == 3:
            return {}
        found = {
            "depths": columns.depth_of(persons),
            "spread": columns.spread_of(persons),
            "second": columns.second_of(persons),
        }
        told = {name: np.ascontiguousarray(each) for name, each in found.items() if each is not None}
        return told if self._depth_unit is None else {**told, "depth_unit": self._depth_unit}

    def _find_all(self, frames: dict[int, Any], timings: Timings) -> dict[int, Found]:
        """Who is in these frames, which came without boxes."""
        return {index: self._find(frame, timings) for index, frame in frames.items()}

    def _find(self, frame: Any, timings: Timings) -> Found:
        """The boxes of a frame that came without: the whole of it."""
        height, width = size_hw_of(frame, self._pixel_format)
        return np.array([[0, 0, width, height]], np.float32), np.ones(1, np.float32)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the estimator is closed; make a new PoseEstimator")
        if os.getpid() != self._pid:
            raise ClosedError("the estimator was made before a fork; make a PoseEstimator in the child process")


def _check_no_scores(box_scores: object) -> None:
    if box_scores is not None:
        raise InputError("box_scores must come with the boxes they belong to (got no boxes); give both, or neither")


def _results_of(pending: deque[Future[Poses]]) -> Iterator[Poses]:
    """What the calls give, in order; none is left in `pending`."""
    while pending:
        yield pending.popleft().result()


def _frame_and_boxes(item: object) -> tuple[object, object, object]:
    """An item of a stream: a frame, its boxes and their scores, or None for what is not given."""
    parts = item if isinstance(item, tuple) else (item, None)
    if len(parts) not in (2, 3):
        raise InputError(
            "an item of a stream must be a frame, (frame, boxes) or (frame, boxes, box_scores) "
            f"(got a tuple of {len(parts)})"
        )
    frame, boxes, scores = (*parts, None)[:3]
    return frame, boxes, scores


def entries(
    frames: Iterable[object], boxes: Iterable[object] | None, box_scores: Iterable[object] | None
) -> list[Entry]:
    """(frame, boxes, scores) of each frame; None for what is not given."""
    listed = list(_iterable("frames", frames))
    columns = []
    for name, values in (("boxes", boxes), ("box_scores", box_scores)):
        column = [None] * len(listed) if values is None else list(_iterable(name, values))
        if len(column) != len(listed):
            raise InputError(f"{name} must hold an entry for each of the {len(listed)} frames (got {len(column)})")
        columns.append(column)
    return list(zip(listed, *columns, strict=True))


def _iterable(name: str, values: Iterable[object]) -> Iterable[object]:
    if not isinstance(values, Iterable):
        raise InputError(f"{name} must be a list or another iterable, an entry a frame (got {values!r})")
    return values


def _on_device(frame: object) -> bool:
    return not isinstance(frame, np.ndarray) and _is_device_array()(frame)


@cache
def _is_device_array() -> Callable[[object], bool]:
    """Loaded with the first frame that is no numpy array."""
    from sdk.runtime.cuda.device_frames import is_device_array

    return is_device_array


def check_found(boxes: object, scores: object) -> Found:
    """Boxes as N x 4 float32 and their scores as N float32; ones where none are given."""
    checked = check_boxes(boxes)
    if len(checked) and checked.max() <= 1:
        raise InputError(
            f"boxes must be in pixels of the frame (got {checked[0].tolist()}, and none beyond 1); {SHARES}"
        )
    return checked, check_box_scores(scores, len(checked))


def check_box_scores(scores: object, count: int) -> Float32Array:
    if scores is None:
        ones = np.empty(count, np.float32)
        ones.fill(1)  # a third of np.ones
        return ones
    try:
        checked = np.asarray(scores, np.float32).reshape(-1)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a torch tensor that requires grad
        raise InputError(f"box_scores must be {count} numbers, one a box ({error})") from error
    if len(checked) != count or not np.isfinite(checked).all():
        raise InputError(f"box_scores must be {count} finite numbers, one a box (got {checked.tolist()[:8]})")
    return checked

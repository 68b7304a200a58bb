"""Calibration: activation ranges of real crops, collected in one pass on ONNX Runtime, into a calibration table.

Memory is bounded by one batch and two histograms a tensor; every few batches the state is saved, so an interrupted
calibration goes on where it was. Which range a tensor gets is `sdk.toolchain.ranges`, what is done with it
`sdk.toolchain.quantize`, what it costs `sdk.toolchain.sensitivity`.

    table = calibrate(model, CropSet.drawn(people, recipe, count=512), CalibrateOptions(method="auto"))
    write_table(table, Path("calibration/rtmpose-s-256x192.json"))
"""

from __future__ import annotations

import logging
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from sdk import __version__
from sdk.errors import CalibrationError, InputError
from sdk.files import whole_file
from sdk.onnx_runtime import onnxruntime
from sdk.toolchain.crops import FEW_IMAGES, CropSet, synthetic_reason
from sdk.toolchain.equalize import equalisable_tensors, equalised_graph_from_graph, equalising_factors
from sdk.toolchain.fingerprint import fingerprint_of, graph_sha256
from sdk.toolchain.graphs import graph_session
from sdk.toolchain.judge import Judge
from sdk.toolchain.placement import PlacementOptions, placement_of
from sdk.toolchain.quantize import QuantizeOptions, qdq_graph_from_graph
from sdk.toolchain.ranges import METHODS, Histogram, Method, best_method, candidate_ranges
from sdk.toolchain.table import TABLE_FORMAT, CalibrationTable, DataNote, TensorRange, Trial

__all__ = [
    "HELD_OUT_EVERY",
    "CalibrateOptions",
    "Crops",
    "Observed",
    "calibrate",
    "observe",
    "range_of",
    "versions",
]

HELD_OUT_EVERY = 5  # every fifth crop judges the methods and sets no range
TRIAL_CROPS = 64
QUANTILES = (0.5, 0.9, 0.99, 0.999, 0.9999)
_SAVE_EVERY = 8  # batches

Float32Array = NDArray[np.float32]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CalibrateOptions:
    """`method` auto keeps, tensor by tensor, the method that errs least on held-out crops. `state`: where an
    interrupted run is kept; None keeps none."""

    method: Method = "auto"
    batch: int = 8
    equalise: bool = True
    source: str = "crops"
    state: Path | None = None

    def __post_init__(self) -> None:
        if self.method not in (*METHODS, "auto"):
            raise InputError(f"method must be one of {', '.join(METHODS)}, auto (got '{self.method}')")
        if self.batch < 1:
            raise InputError(f"batch must be at least 1 (got {self.batch})")


class Crops(Protocol):
    """What a network is shown: a `CropSet`, or a detector's pictures."""

    @property
    def sha256(self) -> str: ...

    def __len__(self) -> int: ...

    def batches(self, size: int, start: int = 0) -> Iterator[Any]: ...


@dataclass
class Observed:
    """What was seen of one tensor. Channels are axis 1 of images, the last axis of matrices."""

    ranging: Histogram = field(default_factory=Histogram)
    judging: Histogram = field(default_factory=Histogram)
    channel_sum: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    channel_peak: Float32Array = field(default_factory=lambda: np.zeros(0, np.float32))
    values_a_channel: int = 0

    def add(self, values: Float32Array, held_out: NDArray[np.bool_]) -> None:  # R x ..., R
        """Count one batch; rows marked in `held_out` go to the judging histogram."""
        self.ranging.add(values[~held_out])
        self.judging.add(values[held_out])
        channels = np.moveaxis(values, 1 if values.ndim == 4 else -1, 0).reshape(self._channel_count(values), -1)
        if not self.values_a_channel:
            self.channel_sum = np.zeros(len(channels))
            self.channel_peak = np.zeros(len(channels), np.float32)
        self.channel_sum += channels.sum(axis=1, dtype=np.float64)
        self.channel_peak = np.maximum(self.channel_peak, np.abs(channels).max(axis=1))
        self.values_a_channel += channels.shape[1]

    @staticmethod
    def _channel_count(values: Float32Array) -> int:
        return int(values.shape[1 if values.ndim == 4 else -1])


def calibrate(model: onnx.ModelProto, crops: CropSet, options: CalibrateOptions | None = None) -> CalibrationTable:
    """The calibration table of a float graph. Warns of few or synthetic crops; refuses NaN and dead tensors by name."""
    options = options or CalibrateOptions()
    warnings = _warnings(crops)
    for warning in warnings:
        log.warning("%s", warning)
    held_out = range(HELD_OUT_EVERY - 1, len(crops), HELD_OUT_EVERY)
    judge = Judge(model, crops.some(held_out[:TRIAL_CROPS] or range(len(crops))), batch=options.batch)
    draft = CalibrationTable(
        format=TABLE_FORMAT,
        recipe=crops.recipe.name,
        graph=fingerprint_of(model),
        method=options.method,
        data=DataNote(options.source, crops.found, len(crops), len(held_out), crops.seed, crops.jitter, crops.sha256),
        tensors={},
        versions=versions(),
        warnings=tuple(warnings),
    )
    if options.equalise and equalisable_tensors(model):
        draft = _equalised_if_better(model, crops.some(range(len(crops))[:TRIAL_CROPS]), draft, judge, options)
    table = replace(draft, tensors=_ranges(model, crops, draft, options, state=options.state))
    return _corrected_if_better(model, table, judge)


def _equalised_if_better(
    model: onnx.ModelProto, few: CropSet, draft: CalibrationTable, judge: Judge, options: CalibrateOptions
) -> CalibrationTable:
    """`draft` with equalisation where that brings the INT8 network nearer to the float one, and the trial's record."""
    tensors = tuple(equalisable_tensors(model))
    seen = observe(model, few, tensors, batch=options.batch, what="channel peaks")
    factors = equalising_factors(model, {name: observed.channel_peak for name, observed in seen.items()})
    costs = []
    for candidate in (draft, replace(draft, equalisation=factors)):
        table = replace(candidate, tensors=_ranges(model, few, candidate, options, what="equalisation trial"))
        costs.append(judge.cost_of(qdq_graph_from_graph(model, table)[0]).divergence)
    trial = Trial("range equalisation", costs[0], costs[1], kept=costs[1] < costs[0])
    _tell(trial)
    return replace(draft, equalisation=factors if trial.kept else {}, trials=(*draft.trials, trial))


def _corrected_if_better(model: onnx.ModelProto, table: CalibrationTable, judge: Judge) -> CalibrationTable:
    """`table` with bias correction where that brings the INT8 network nearer to the float one, and the record."""
    costs = []
    for correct in (False, True):
        quantised, _ = qdq_graph_from_graph(model, table, QuantizeOptions(correct_bias=correct))
        costs.append(judge.cost_of(quantised).divergence)
    trial = Trial("bias correction", costs[0], costs[1], kept=costs[1] < costs[0])
    _tell(trial)
    return replace(table, correct_bias=trial.kept, trials=(*table.trials, trial))


def _tell(trial: Trial) -> None:
    verdict = "kept" if trial.kept else "left out"
    log.info("%s: divergence %.3g without, %.3g with: %s", trial.remedy, trial.without, trial.applied, verdict)


def _ranges(
    model: onnx.ModelProto,
    crops: CropSet,
    draft: CalibrationTable,
    options: CalibrateOptions,
    *,
    state: Path | None = None,
    what: str = "activation ranges",
) -> dict[str, TensorRange]:
    even = equalised_graph_from_graph(model, draft.equalisation)
    tensors = placement_of(even, PlacementOptions(quantise_all=True)).tensors
    seen = observe(even, crops, tensors, batch=options.batch, state=state, what=what)
    return {name: range_of(name, observed, options.method) for name, observed in seen.items()}


def observe(
    model: onnx.ModelProto,
    crops: Crops,
    tensors: Sequence[str],
    *,
    batch: int = 8,
    state: Path | None = None,
    what: str = "activation ranges",
) -> dict[str, Observed]:
    """Histograms and channel statistics of `tensors` over the crops: one pass, resumed from `state` if it is there."""
    from tqdm import tqdm

    key = f"{graph_sha256(model)} {crops.sha256} {len(tensors)}"
    seen, done = _resumed(state, key, tensors)
    session = graph_session(_with_outputs(model, tensors))
    bar = tqdm(total=len(crops), initial=done, desc=what, unit="crop", leave=False, file=sys.stderr, disable=None)
    with bar:
        for index, part in enumerate(crops.batches(batch, start=done)):
            values = session.run(list(tensors), {session.get_inputs()[0].name: part.inputs})
            held_out = (np.arange(done, done + len(part.inputs)) + 1) % HELD_OUT_EVERY == 0
            for name, value in zip(tensors, values, strict=True):
                rows = _rows_a_crop(name, value, len(held_out))
                _check_finite(name, value, part.people, rows)
                seen[name].add(value, np.repeat(held_out, rows))
            done += len(part.inputs)
            bar.update(len(part.inputs))
            if state is not None and index % _SAVE_EVERY == _SAVE_EVERY - 1:
                _save(state, key, seen, done)
    if state is not None:
        state.unlink(missing_ok=True)
    return seen


def range_of(name: str, observed: Observed, method: Method) -> TensorRange:
    """The range that a tensor gets by `method`, with what the others would give it."""
    histogram = observed.ranging
    if histogram.seen_max == 0.0:
        raise CalibrationError(
            f"tensor '{name}' is zero on every crop: the network or its weights are dead there, or the crops are not "
            "what it was trained on; check the checkpoint and the data"
        )
    candidates = candidate_ranges(histogram)
    best, errors = best_method(candidates, observed.judging)
    chosen = best if method == "auto" else method
    return TensorRange(
        amax=candidates[chosen],
        method=chosen,
        candidates=candidates,
        error=errors,
        quantiles={f"{share:g}": histogram.quantile(share) for share in QUANTILES},
        channel_mean=tuple(float(m) for m in observed.channel_sum / observed.values_a_channel),
    )


def _warnings(crops: CropSet) -> list[str]:
    found = []
    if len(crops) < FEW_IMAGES:
        found.append(
            f"calibrating with {len(crops)} crops: fewer than {FEW_IMAGES} give ranges that miss rare poses; "
            "give more data or raise --images"
        )
    first = next(crops.batches(16)).inputs
    reason = synthetic_reason(first, crops.recipe)
    if reason is not None:
        found.append(f"the ranges look synthetic: {reason}; calibrate with photographs of people")
    return found


def _rows_a_crop(name: str, value: Float32Array, crops: int) -> int:
    """Rows of the first axis that belong to one crop: 1, or the windows or tokens that a network lays side by side."""
    rows = value.shape[0] if value.ndim else 0
    if rows == 0 or rows % crops:
        raise CalibrationError(
            f"tensor '{name}': its first axis must be the crop, or the crop's parts one after the other (got "
            f"{' x '.join(map(str, value.shape)) or 'a scalar'} for {crops} crops); export the graph batch first"
        )
    return rows // crops


def _check_finite(name: str, value: Float32Array, people: Sequence[Any], rows: int) -> None:
    """CalibrationError that names tensor and picture; `rows` of the first axis belong to one crop."""
    bad = ~np.isfinite(value.reshape(len(value), -1)).all(axis=1)
    if bad.any():
        image = people[int(np.argmax(bad)) // rows].image.name
        raise CalibrationError(
            f"tensor '{name}' is NaN or infinite on a crop of '{image}': the float network overflows there; check the "
            "checkpoint and the picture"
        )


def _with_outputs(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {value.name for value in copy.graph.output}
    extra = [name for name in tensors if name not in present]
    copy.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in extra)
    return copy


def versions() -> dict[str, str]:
    """Of what ranges hang on."""
    return {
        "simcc-edge-sdk": __version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime().__version__,
        "numpy": np.__version__,
    }


def _arrays(observed: Observed) -> Iterator[tuple[str, Any]]:
    for kind, histogram in (("ranging", observed.ranging), ("judging", observed.judging)):
        yield f"{kind}.counts", histogram.counts
        yield f"{kind}.edges", np.array([histogram.top, histogram.seen_max, histogram.zeros], np.float64)
    yield "channel_sum", observed.channel_sum
    yield "channel_peak", observed.channel_peak
    yield "values", np.array(observed.values_a_channel)


def _save(path: Path, key: str, seen: Mapping[str, Observed], done: int) -> None:
    arrays = {f"{i}.{part}": array for i, o in enumerate(seen.values()) for part, array in _arrays(o)}
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, key=np.array(key), done=np.array(done), **arrays)


def _resumed(path: Path | None, key: str, tensors: Sequence[str]) -> tuple[dict[str, Observed], int]:
    fresh = {name: Observed() for name in tensors}
    if path is None or not path.is_file():
        return fresh, 0
    try:
        return _loaded(path, key, fresh)
    except (OSError, EOFError, LookupError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        log.warning("'%s' is damaged (%s) and is not resumed", path.name, error)
        return {name: Observed() for name in tensors}, 0


def _loaded(path: Path, key: str, fresh: dict[str, Observed]) -> tuple[dict[str, Observed], int]:
    with np.load(path, allow_pickle=False) as saved:
        if str(saved["key"]) != key:
            log.warning("'%s' is of another calibration and is not resumed", path.name)
            return fresh, 0
        for index, observed in enumerate(fresh.values()):
            for kind in ("ranging", "judging"):
                top, seen_max, zeros = saved[f"{index}.{kind}.edges"]
                counts = saved[f"{index}.{kind}.counts"]
                setattr(observed, kind, Histogram(counts, float(top), float(seen_max), int(zeros)))
            observed.channel_sum = saved[f"{index}.channel_sum"]
            observed.channel_peak = saved[f"{index}.channel_peak"]
            observed.values_a_channel = int(saved[f"{index}.values"])
        log.info("resuming the calibration after %d crops", int(saved["done"]))
        return fresh, int(saved["done"])

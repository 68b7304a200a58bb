"""`sdk benchmark` as a function: an engine's network at batch sizes, the whole estimate at numbers of persons, a peer.

    table = benchmark(BenchmarkOptions(engine=Path("body.fp16"), persons=(1, 8)))
    table["cases"][0]["latency_ms"]["p50"]

Two kinds of figures, never mixed: `network` is a session's run with arrays in and out; `estimate` is the whole call of
a `PoseEstimator` on a frame, stage by stage. What they mean beside trtexec's is in docs/benchmark.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sdk.errors import InputError
from sdk.evaluate.speed.device_times import DeviceClock, device_times
from sdk.evaluate.speed.latency import Case, measure, spread
from sdk.evaluate.speed.machine import machine_clocks, machine_facts, tell_if_busy
from sdk.evaluate.speed.paces import PACES, Pace, paced
from sdk.evaluate.speed.peer import Peer, rtmlib_peer
from sdk.manifest import GRAPH_NAME, Engine
from sdk.people.estimator import PoseEstimator
from sdk.runtime.opening import engine_from, open_pipeline, open_session
from sdk.runtime.power import PowerLog, find_power_meter
from sdk.runtime.session import Session
from sdk.wording import counted

__all__ = ["FORMAT", "BenchmarkOptions", "benchmark", "boxes_in_frame", "noise_frame"]

FORMAT = 1
SEED = 20260101
IDLE_SECONDS = 2.0  # what the board takes before the first call, for the energy beyond it
Progress = Callable[[float], object]


@dataclass(frozen=True)
class BenchmarkOptions:
    """What to time. `seconds` are per case, after the warm-up."""

    engine: Path | str
    device: str = "auto"
    batches: tuple[int, ...] = (1,)
    persons: tuple[int, ...] = (1, 8)
    frame_wh: tuple[int, int] = (1920, 1080)
    seconds: float = 10.0
    threads: int | None = None
    flip_test: bool = False
    peer: Literal["rtmlib"] | None = None

    def __post_init__(self) -> None:
        for name, values in (("batch", self.batches), ("persons", self.persons), ("frame", self.frame_wh)):
            if any(value < 1 for value in values):
                raise InputError(f"{name} must be whole numbers of at least 1 (got {list(values)})")
        if self.peer is not None and not self.persons:
            raise InputError("a peer is timed on persons in a frame: give at least one number of persons")
        if not self.batches and not self.persons:
            raise InputError("nothing to time: give at least one batch size or number of persons")
        if not 0 < self.seconds < float("inf"):
            raise InputError(f"seconds must be a positive number (got {self.seconds})")


def benchmark(options: BenchmarkOptions, on_progress: Progress = lambda share: None) -> dict[str, Any]:
    """Time the engine; the whole result as plain tables."""
    engine = engine_from(options.engine)
    before = tell_if_busy(machine_facts())
    with ExitStack() as stack:
        bench = _bench(options, engine, stack)
        meter, power_source = find_power_meter(bench.device)
        with PowerLog(meter) as log:
            idle_watts = _idle_watts(log) if meter else None
            share = len(bench.cases) / (len(bench.cases) + len(PACES))
            measure(bench.cases, options.seconds, on_turn=lambda done: on_progress(share * done))
            row = _row(options, engine, bench, log, idle_watts)
            on_progress(1.0)
        summaries = [case.summary(log) for case in bench.cases]
        table = {
            "format": FORMAT,
            "engine": _engine_table(engine),
            "device": bench.device,
            "options": {
                "frame": f"{options.frame_wh[0]}x{options.frame_wh[1]}",
                "seconds_a_case": options.seconds,
                "threads": options.threads or "all cores",
                "flip_test": options.flip_test,
            },
            "power": power_source,
            "machine": {**before, "clock_mhz_after": machine_facts()["clock_mhz"]},
            "row": row,
            "cases": summaries,
        }
        if bench.device.startswith("cuda"):
            table["device_clock"] = _device_times(options, engine, bench, stack)
        if bench.peer is not None:
            table["peer"] = _peer_table(options, bench, bench.peer, summaries)
    return table


def _idle_watts(log: PowerLog) -> float | None:
    """Mean power before the first call."""
    start = perf_counter()
    sleep(IDLE_SECONDS)
    return log.watts([(start, perf_counter())])


def _row(
    options: BenchmarkOptions, engine: Engine, bench: _Bench, log: PowerLog, idle_watts: float | None
) -> dict[str, Any]:
    """What is compared between boards and versions: which plan, its launches, and the first case at each pace."""
    case = next((each for each in bench.cases if each.kind == "estimate"), bench.cases[0])
    return {
        "plan": _plan_hash(engine),
        "launches": _launches(options, engine, bench),
        "case": case.name,
        "idle_watts": "unavailable" if idle_watts is None else round(idle_watts, 3),
        "paces": [_pace_table(case, pace, options.seconds, log, idle_watts) for pace in PACES],
    }


def _pace_table(case: Case, pace: Pace, seconds: float, log: PowerLog, idle_watts: float | None) -> dict[str, Any]:
    kept = paced(case.call, pace, seconds)
    joules = log.joules([kept.span])
    persons = case.size * len(kept.samples_ms)
    net = None if joules is None or idle_watts is None else joules - idle_watts * (kept.span[1] - kept.span[0])
    return {
        "pace": pace.name,
        "calls": len(kept.samples_ms),
        "missed": kept.missed,
        "latency_ms": spread(np.array(kept.samples_ms)),
        "net_joules_a_person": "unavailable" if net is None else round(net / persons, 6),
        "clock_mhz": machine_clocks(),
    }


def _plan_hash(engine: Engine) -> str:
    """Of the plan, or of the graph where there is none; its first 12 digits name it."""
    compiler = engine.manifest.compiler
    name = GRAPH_NAME if compiler is None else compiler.plan
    return f"{name} {engine.manifest.files[name][:12]}"


def _launches(options: BenchmarkOptions, engine: Engine, bench: _Bench) -> int | str:
    """Kernels a call of the first case starts, by its captured graph; a CPU has none to count."""
    if not bench.device.startswith("cuda"):
        return "no GPU"
    with open_pipeline(engine, bench.device, threads=options.threads) as pipeline:
        if not isinstance(pipeline, DeviceClock):
            return "not counted"
        found = pipeline.launches((options.persons or options.batches)[0], flip=options.flip_test)
    return "no graph" if found is None else found


def noise_frame(frame_wh: tuple[int, int]) -> NDArray[np.uint8]:  # H x W x 3
    """Seeded noise: no crop is cheaper on it than on a photograph."""
    width, height = frame_wh
    return np.random.default_rng(SEED).integers(0, 256, (height, width, 3), np.uint8)


def boxes_in_frame(count: int, frame_wh: tuple[int, int]) -> NDArray[np.float32]:  # N x 4 xyxy
    """Seeded boxes of upright persons, 40 to 90 % of the frame's height, wholly inside."""
    rng = np.random.default_rng(SEED + count)
    width, height = frame_wh
    tall = rng.uniform(0.4, 0.9, count) * height
    wide = np.minimum(tall * rng.uniform(0.35, 0.6, count), width)
    left, top = rng.uniform(0, 1, count) * (width - wide), rng.uniform(0, 1, count) * (height - tall)
    return np.stack([left, top, left + wide, top + tall], axis=1).astype(np.float32)


@dataclass(frozen=True)
class _Bench:
    """What is open while timing."""

    cases: list[Case]
    device: str
    frame: NDArray[np.uint8]
    estimate: PoseEstimator | None
    peer: Peer | None


def _bench(options: BenchmarkOptions, engine: Engine, stack: ExitStack) -> _Bench:
    cases: list[Case] = []
    device, frame, estimate = options.device, noise_frame(options.frame_wh), None
    boxes = [boxes_in_frame(count, options.frame_wh) for count in options.persons]
    if options.batches:
        session = stack.enter_context(open_session(engine, options.device, threads=options.threads))
        device = session.device
        cases += [_network_case(session, batch) for batch in options.batches]
    if options.persons:
        estimate = stack.enter_context(
            PoseEstimator(engine, device=options.device, threads=options.threads, flip_test=options.flip_test)
        )
        device = estimate.device
        cases += [_estimate_case(estimate, frame, each) for each in boxes]
    peer = None if options.peer is None else rtmlib_peer(engine, options.threads)
    if peer is not None:
        turned = peer.in_its_order(frame)
        cases += [_peer_case(peer, turned, each) for each in boxes]
    return _Bench(cases, device, frame, estimate, peer)


def _network_case(session: Session, batch: int) -> Case:
    if batch > session.max_batch:
        raise InputError(
            f"batch must be at most the engine's largest, {session.max_batch} (got {batch}); "
            "build the engine with a larger --max-batch to time it"
        )
    size = session.recipe.input.size_hw
    crops = np.random.default_rng(SEED).standard_normal((batch, 3, *size)).astype(np.float32)

    def call() -> Mapping[str, float | str]:
        session.run(crops)
        return {}

    return Case(f"network, batch {batch}", "network", batch, call)


def _estimate_case(estimate: PoseEstimator, frame: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Case:
    def call() -> Mapping[str, float | str]:
        stages = dict(estimate(frame, boxes).timings_ms)
        total = stages.pop("total")
        assert not isinstance(total, str), "an estimator always times its whole call"
        timed = [value for value in stages.values() if not isinstance(value, str)]
        return {**stages, "host": total - sum(timed)} if timed else stages

    return Case(f"estimate, {counted(len(boxes), 'person')}", "estimate", len(boxes), call)


def _peer_case(peer: Peer, frame: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Case:
    def call() -> Mapping[str, float | str]:
        peer.estimate(frame, boxes)
        return {}

    return Case(f"{peer.name}, {counted(len(boxes), 'person')}", "peer", len(boxes), call)


def _device_times(options: BenchmarkOptions, engine: Engine, bench: _Bench, stack: ExitStack) -> dict[str, Any]:
    pipeline = stack.enter_context(open_pipeline(engine, bench.device, threads=options.threads))
    if not isinstance(pipeline, DeviceClock):
        return {}
    boxes = [boxes_in_frame(count, options.frame_wh) for count in options.persons]
    return device_times(pipeline, bench.frame, options.batches, boxes)


def _peer_table(
    options: BenchmarkOptions, bench: _Bench, peer: Peer, summaries: list[dict[str, Any]]
) -> dict[str, Any]:
    """How many times our latency goes into the peer's, at the same number of persons; and whether the poses agree."""
    ours = {each["size"]: each["latency_ms"] for each in summaries if each["kind"] == "estimate"}
    theirs = {each["size"]: each["latency_ms"] for each in summaries if each["kind"] == "peer"}
    ratios = [
        {"persons": size, **{f"ratio_{at}": round(theirs[size][at] / ours[size][at], 3) for at in ("p50", "p99")}}
        for size in ours
    ]
    return {
        "name": peer.name,
        "version": peer.version,
        "note": peer.note,
        "ratios": ratios,
        "median_distance_px": _distance_px(options, bench, peer),
    }


def _distance_px(options: BenchmarkOptions, bench: _Bench, peer: Peer) -> float:
    """How far the peer's joints lie from ours, in the middle, for the largest number of persons."""
    assert bench.estimate is not None, "a peer is only timed beside the estimator"
    boxes = boxes_in_frame(max(options.persons), options.frame_wh)
    ours = bench.estimate(bench.frame, boxes).keypoints
    theirs, _ = peer.estimate(peer.in_its_order(bench.frame), boxes)
    return round(float(np.median(np.linalg.norm(ours - theirs, axis=2))), 4)


def _engine_table(engine: Engine) -> dict[str, Any]:
    manifest = engine.manifest
    compiler = manifest.compiler
    return {
        "name": engine.folder.name,
        "recipe": manifest.recipe.name,
        "precision": manifest.precision,
        "weights": manifest.weights.kind,
        "compiler": None if compiler is None else f"{compiler.name} {compiler.version} for {compiler.target}",
        "files_sha256": dict(manifest.files),
    }

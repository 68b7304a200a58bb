"""What `benchmarks/gpu.py` measures, a function each, on an engine with a plan for this GPU; it adds rows to a report.

for measure in MEASURES: measure(report, engine, rounds)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.gpu_frames import affines_of, crowd, on_device, persons, pinned_street, street
from benchmarks.gpu_report import Report

__all__ = ["FORCED", "MEASURES", "whole_frames"]

WARM_UP = 10
FORCED = {  # costs by which a page-locked frame goes this way
    "rows": (0.0, 1e9, 0.0, 0.0, 1e9, 0.0),
    "whole": (0.0, 1e12, 1.0, 0.0, 1e9, 0.0),
}
Call = Callable[[], object]
Measure = Callable[[Report, Any, int], None]


def whole_call(report: Report, engine: Any, rounds: int) -> None:
    """A call of the estimator, its frame on the device, against the plan's own GPU time."""
    from sdk import PoseEstimator
    from sdk.runtime.cuda.gpu_pipeline import GpuPipeline

    boxes = persons(1)
    with (
        PoseEstimator(engine, device="cuda") as estimate,
        GpuPipeline(engine) as pipeline,
        on_device(street()) as frame,
    ):
        whole: list[float] = []
        alone: list[float] = []
        for _ in range(max(1, rounds // 50)):
            whole += timed([lambda: estimate(frame, boxes)], min(rounds, 50))[0]
            alone += pipeline.network_ms(1, min(rounds, 50))
    name, p50 = engine.manifest.recipe.name, float(np.median(whole))
    report.ratio(f"{name}: whole call, frame on the device / the plan alone", p50 / median(alone), 1.15, at_most=True)
    report.figures.append((f"{name}: whole call, N=1, p50 ms", f"{p50:.3f}"))
    report.figures.append((f"{name}: plan alone, N=1, ms", f"{median(alone):.3f}"))


def comparable_row(report: Report, engine: Any, rounds: int) -> None:
    """What `sdk benchmark` compares between boards and versions: plan, launches, one person at each pace."""
    from sdk.evaluate.speed.benchmark import BenchmarkOptions, benchmark

    seconds = min(5.0, 0.02 * rounds)
    options = BenchmarkOptions(engine.folder, device="cuda", batches=(), persons=(1,), seconds=seconds)
    name, row = engine.manifest.recipe.name, benchmark(options)["row"]
    report.figures.append((f"{name}: plan; kernels a call", f"{row['plan']}; {row['launches']}"))
    for each in row["paces"]:
        latency, joules = each["latency_ms"], each["net_joules_a_person"]
        told = f"{latency['p50']:.3f}, {latency['p99']:.3f}, {joules}; {each['clock_mhz']}"
        report.figures.append((f"{name}: {each['pace']}: p50, p99 ms, J a person beyond idle; clocks", told))


def whole_frames(report: Report, engine: Any, detector: Path | None, rounds: int) -> None:
    """Persons found and estimated in a frame on the device, against both plans' own GPU time."""
    from sdk import PoseEstimator
    from sdk.manifest import open_detector_engine
    from sdk.runtime.cuda.gpu_pipeline import GpuPipeline

    most, found = 4, open_detector_engine(detector) if detector else None
    what = f"{engine.manifest.recipe.name}: finding and estimating {most} persons less both plans alone, ms"
    if found is None:
        report.absent(what, "<= 0.08", "no --detector ENGINE")
        return
    frame = street() if found.manifest.compiler.version == "stand-in" else crowd()
    whole, plans, count = [], [], 0
    with (
        PoseEstimator(engine, device="cuda", detector=found, max_persons=most) as estimate,
        GpuPipeline(engine, detector=found) as pipeline,
        on_device(frame) as given,
    ):
        for _ in range(max(1, rounds // 50)):
            whole += timed([lambda: estimate(given)], min(rounds, 50))[0]
            both = zip(pipeline.network_ms(most, min(rounds, 50)), pipeline.detector_ms(min(rounds, 50)), strict=True)
            plans += [sum(each) for each in both]
        count = len(estimate(given))
    detail = "" if count == most else f", of {count} persons"
    report.ratio(what, median(whole) - median(plans), 0.08, at_most=True, detail=detail)
    name = (
        f"{engine.manifest.recipe.name}, {found.manifest.recipe.name}: whole frame on the device, {count} persons, ms"
    )
    report.figures.append((name, f"{median(whole):.3f}, both plans alone {median(plans):.3f}"))


def graph_against_plain(report: Report, engine: Any, rounds: int) -> None:
    """The goal holds for small inputs, where launches are what costs."""
    from sdk.runtime.cuda.gpu_pipeline import GpuPipeline

    affines = affines_of(engine, 1)
    with GpuPipeline(engine) as graph, GpuPipeline(engine, graphs=False) as plain, on_device(street()) as frame:
        slow, fast = timed([lambda: plain.run(frame, affines), lambda: graph.run(frame, affines)], rounds)
    name, ratio = engine.manifest.recipe.name, median(slow) / median(fast)
    if max(engine.manifest.recipe.input.size_hw) <= 128:
        report.ratio(f"{name}: plain enqueue / graph", ratio, 1.25, at_most=False)
    else:
        report.figures.append((f"{name}: plain enqueue / graph", f"{ratio:.2f}"))


def many_against_one(report: Report, engine: Any, rounds: int) -> None:
    from sdk.runtime.cuda.gpu_pipeline import GpuPipeline

    name, most = engine.manifest.recipe.name, min(16, engine.manifest.batch.max)
    with GpuPipeline(engine) as pipeline, on_device(street()) as frame:
        one, many = affines_of(engine, 1), affines_of(engine, most)
        first, all_of_them = timed([lambda: pipeline.run(frame, one), lambda: pipeline.run(frame, many)], rounds)
    ratio = median(all_of_them) / median(first)
    if engine.manifest.recipe.input.size_hw == (256, 192) and most == 16:
        report.ratio(f"{name}: N=16 / N=1", ratio, 2.5, at_most=True)
    else:
        report.figures.append((f"{name}: N={most} / N=1", f"{ratio:.2f}"))


def ops_against_cpu(report: Report, engine: Any, rounds: int) -> None:
    """Crop and decode on the device (timed by events) against rtmlib's on the CPU and against our own CPU ops."""
    from sdk import ops
    from sdk.runtime.cuda.gpu_pipeline import GpuPipeline

    recipe = engine.manifest.recipe
    if recipe.output.kind != "simcc" or recipe.input.size_hw != (256, 192):
        return
    count, frame, source = min(8, engine.manifest.batch.max), street(), recipe.input
    affines, boxes = affines_of(engine, count), persons(count)
    rng = np.random.default_rng(0)
    logits = [rng.standard_normal((count, recipe.joints, bins)).astype(np.float32) for bins in recipe.bins_xy]
    with GpuPipeline(engine) as pipeline, on_device(frame) as given:
        stages = [pipeline.stages(given, affines) for _ in range(max(1, rounds // 20))]
    device_ms = median([each["crop"] + each["decode"] for each in stages])
    ops.set_threads(1)

    def ours() -> None:
        ops.crop(frame, affines, source.size_hw, mean=source.mean, std=source.std, channel_order=source.colour)
        ops.decode(*logits, affines, recipe.output.split_ratio, score=recipe.output.score)

    calls, peer = [ours], rtmlib_crop_and_decode(frame, boxes, logits, recipe)
    spent = [median(each) for each in timed(calls + ([peer] if peer else []), max(1, rounds // 60))]
    name = f"{recipe.name}: crop and decode, N={count}: "
    report.ratio(f"{name}our CPU ops / the device", spent[0] / device_ms, 10, at_most=False)
    if peer:
        report.ratio(f"{name}rtmlib's CPU / the device", spent[1] / device_ms, 50, at_most=False)
    else:
        report.absent(f"{name}rtmlib's CPU / the device", ">= 50", "rtmlib is not installed")
    report.figures.append((f"{name}device ms", f"{device_ms:.4f}"))


def host_time(report: Report, engine: Any, rounds: int) -> None:
    """What of a call is not the device's, and how steady a call is."""
    from sdk import PoseEstimator

    boxes, beside, whole = persons(1), [], []
    with PoseEstimator(engine, device="cuda") as estimate, on_device(street()) as frame:
        for _ in range(WARM_UP + 5 * rounds):
            start = perf_counter()
            spent = estimate(frame, boxes).timings_ms
            whole.append(1e3 * (perf_counter() - start))
            beside.append(whole[-1] - float(spent["device"]))
    name, steady = engine.manifest.recipe.name, whole[WARM_UP:]
    report.ratio(f"{name}: whole call less the device's time, N=1, ms", median(beside[WARM_UP:]), 0.04, at_most=True)
    ratio = float(np.percentile(steady, 99)) / median(steady)
    report.ratio(f"{name}: p99 / p50 of {len(steady)} calls", ratio, 1.15, at_most=True)


def pageable_frames(report: Report, engine: Any, rounds: int) -> None:
    """What a frame in pageable memory adds to a call: for one person little, for eight not much more than the bus."""
    from sdk import PoseEstimator, _native
    from sdk.runtime.cuda.bandwidth import transfer_costs
    from sdk.runtime.cuda.context import device_context

    name, frame, device = engine.manifest.recipe.name, street(), device_context(0)
    if device.integrated:
        return
    with device.entered("measure transfers"):
        costs = astuple(transfer_costs(device))
    with PoseEstimator(engine, device="cuda") as estimate, on_device(frame) as there:
        for count in (1, min(8, engine.manifest.batch.max)):
            boxes, placed = persons(count), affines_of(engine, count)
            calls: list[Call] = [lambda b=boxes: estimate(there, b), lambda b=boxes: estimate(frame, b)]
            on_device_ms, pageable_ms = (median(each) for each in timed(calls, rounds))
            size_hw = engine.manifest.recipe.input.size_hw
            packed = _native.plan_transfer(placed, size_hw, frame.shape[:2], False, False, costs)[2]
            added, bus_ms = pageable_ms - on_device_ms, 1e3 * packed / costs[1]
            if count == 1:
                report.ratio(f"{name}: a pageable frame adds, N=1, ms", added, 0.1, at_most=True)
            else:
                report.ratio(
                    f"{name}: a pageable frame adds / its bytes' time, N={count}", added / bus_ms, 1.1, at_most=True
                )
            report.figures.append(
                (f"{name}: pageable, N={count}, ms", f"{pageable_ms:.3f}, {packed} bytes, {bus_ms:.3f} bus")
            )


def many_frames(report: Report, engine: Any, rounds: int) -> None:
    """Frames of one person each: all in one batch against a call each."""
    from sdk import PoseEstimator

    count = min(16, engine.manifest.batch.max)
    boxes = [persons(1)] * count
    with PoseEstimator(engine, device="cuda") as estimate, on_device(street()) as there:
        for where, frame in (("on the device", there), ("pageable", street())):
            frames = [frame] * count
            calls: list[Call] = [
                lambda f=frames: [estimate(*each) for each in zip(f, boxes, strict=True)],
                lambda f=frames: estimate.many(f, boxes),
            ]
            one_by_one, together = (median(each) for each in timed(calls, max(1, rounds // 20)))
            what = f"{engine.manifest.recipe.name}: {count} frames of one person, {where}: calls / many"
            if where == "on the device":
                report.ratio(what, one_by_one / together, 4, at_most=False)
            else:
                report.figures.append((what, f"{one_by_one / together:.2f}"))


def transfers(report: Report, engine: Any, rounds: int) -> None:
    """How a page-locked frame goes: the chosen way against the better of the two, each measured."""
    from sdk.runtime.cuda.context import device_context
    from sdk.runtime.cuda.gpu_pipeline import GpuPipeline

    if device_context(0).integrated:
        return
    frame = pinned_street()
    for count in (1, min(8, engine.manifest.batch.max)):
        with GpuPipeline(engine, lanes=1) as pipeline:
            run = partial(pipeline.run, frame, affines_of(engine, count))
            chosen, spent = str(run()[1]["transfer"]), {}
            (lane,) = pipeline._pool.every()
            for _ in range(max(1, rounds // 20)):
                for way, costs in FORCED.items():
                    lane._flight.set_costs(costs)
                    spent.setdefault(way, []).extend(timed([run], min(rounds, 5), warm_up=1)[0])
        medians = {way: median(values) for way, values in spent.items()}
        what = f"{engine.manifest.recipe.name}: page-locked frame, N={count}: chosen '{chosen}' / the best transfer"
        report.ratio(what, medians[chosen] / min(medians.values()), 1.05, at_most=True)
        report.figures.append((what + ", ms", ", ".join(f"{way} {ms:.3f}" for way, ms in medians.items())))


def shared_memory(report: Report, engine: Any, rounds: int) -> None:
    """On a Jetson a pinned frame is read where it is, past the GPU's caches: what the crop pays for it."""
    from sdk.runtime.cuda.context import device_context
    from sdk.runtime.cuda.gpu_pipeline import GpuPipeline

    if not device_context(0).integrated:
        return
    pinned, affines = pinned_street(), affines_of(engine, min(8, engine.manifest.batch.max))
    with GpuPipeline(engine) as pipeline, on_device(street()) as frame:
        turns = range(max(1, rounds // 20))
        spent = [(pipeline.stages(pinned, affines)["crop"], pipeline.stages(frame, affines)["crop"]) for _ in turns]
    shared, own = (median(list(each)) for each in zip(*spent, strict=True))
    text = f"{shared:.3f} from shared memory, {own:.3f} from device memory"
    report.figures.append((f"{engine.manifest.recipe.name}: crop, N={len(affines)}, ms", text))


def built_in_graph(report: Report, engine: Any, rounds: int) -> None:
    """TensorRT-RTX can capture a plan by itself; ours holds the ops and the copies too."""
    from sdk.runtime.cuda.gpu_pipeline import GpuPipeline

    if engine.manifest.compiler.name != "tensorrt-rtx":
        return
    with GpuPipeline(engine) as pipeline:
        modes = {mode: median(pipeline.network_ms(1, rounds, mode)) for mode in ("graph", "own graph", "plain")}
    text = f"ours {modes['graph']:.3f}, TensorRT-RTX's {modes['own graph']:.3f}, none {modes['plain']:.3f}"
    report.figures.append((f"{engine.manifest.recipe.name}: the plan in a CUDA graph, ms", text))


def rtmlib_on_the_gpu(report: Report, engine: Any, rounds: int) -> None:
    """rtmlib with ONNX Runtime's CUDA provider on the same graph, frame and boxes."""
    from sdk import PoseEstimator
    from sdk.onnx_runtime import onnxruntime

    recipe, frame = engine.manifest.recipe, street()
    goals = ((1, 3.0), (8, 10.0))
    try:
        providers = onnxruntime().get_available_providers()
        from rtmlib import RTMPose
    except ImportError as error:
        for count, goal in goals:
            report.absent(f"{recipe.name}: rtmlib on this GPU / ours, N={count}", f">= {goal:g}", str(error))
        return
    reason, peer = "this ONNX Runtime has no CUDA provider", None
    if engine.manifest.compiler.version == "stand-in":
        reason = "a stand-in has no graph for it"
    elif "CUDAExecutionProvider" in providers:
        peer = RTMPose(str(engine.graph_path), recipe.input.size_hw[::-1], backend="onnxruntime", device="cuda")
        reason = f"its session fell back to {peer.session.get_providers()}"
    if peer is None or peer.session.get_providers()[0] != "CUDAExecutionProvider":
        for count, goal in goals:
            report.absent(f"{recipe.name}: rtmlib on this GPU / ours, N={count}", f">= {goal:g}", reason)
        return
    with PoseEstimator(engine, device="cuda") as estimate:
        for count, goal in goals:
            boxes = persons(count)
            calls: list[Call] = [lambda b=boxes: peer(frame, b), lambda b=boxes: estimate(frame, b)]
            theirs, ours = timed(calls, max(1, rounds // 20))
            what = f"{recipe.name}: rtmlib on this GPU / ours, N={count}, frame on the host"
            report.ratio(what, median(theirs) / median(ours), goal, at_most=False)


def rtmlib_crop_and_decode(frame: Any, boxes: Any, logits: list[Any], recipe: Any) -> Call | None:
    try:
        from rtmlib import RTMPose
    except ImportError:
        return None
    peer = object.__new__(RTMPose)  # its functions without a session
    peer.model_input_size = recipe.input.size_hw[::-1]
    peer.mean, peer.std = recipe.input.mean, recipe.input.std

    def run() -> None:
        for index, box in enumerate(boxes):
            image, centre, scale = peer.preprocess(frame, box)
            np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)[None]  # as its `inference` does
            peer.postprocess([axis[index : index + 1] for axis in logits], centre, scale)

    return run


def timed(calls: list[Call], rounds: int, warm_up: int | None = None) -> list[list[float]]:
    """Milliseconds of each call, the calls taking turns."""
    spent: list[list[float]] = [[] for _ in calls]
    skipped = WARM_UP if warm_up is None else warm_up
    for turn in range(skipped + rounds):
        for call, kept in zip(calls, spent, strict=True):
            start = perf_counter()
            call()
            if turn >= skipped:
                kept.append(1e3 * (perf_counter() - start))
    return spent


def median(values: list[float]) -> float:
    return float(np.median(values))


MEASURES: tuple[Measure, ...] = (
    comparable_row,
    whole_call, host_time, pageable_frames, many_frames, graph_against_plain, many_against_one, ops_against_cpu,
    transfers, shared_memory, built_in_graph, rtmlib_on_the_gpu,
)  # fmt: skip

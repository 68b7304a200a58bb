"""The GPU run time held to its goals, on the GPU that is here: `python benchmarks/gpu.py`.

    python benchmarks/gpu.py [ENGINE ...] [--detector ENGINE] [--stand-in] [--rounds 2000] [--output docs/measurements]

Without engines, two are built with random weights (times do not hang on weights): rtmpose-s-256x192 and a 128x128 one,
fp16, batch 1 to 16; that needs the extra `build`. `--detector`: a person detector's engine with a plan for this GPU,
for frames that come without boxes (`sdk build-engine rtmdet-nano-person-320`). `--stand-in`, for GPUs that no installed
TensorRT makes plans for: stand-ins of our own for all plans (tests/support/stand_in.cu), so that what stands around a
plan is measured all the same; its report says so. Calls take turns, so that a clock that falls hits all alike; figures
are medians. Prints a report and writes it to OUTPUT/<device>.md. Without a GPU it says so and exits 1.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RECIPES = ("rtmpose-s-256x192", "body17-nano-128x128")
FRAME_HW = (1080, 1920)
WARM_UP = 10
FORCED = {  # costs by which a page-locked frame goes this way
    "rows": (0.0, 1e9, 0.0, 0.0, 1e9, 0.0),
    "whole": (0.0, 1e12, 1.0, 0.0, 1e9, 0.0),
}
Call = Callable[[], object]


@dataclass
class Report:
    """Rows of the tables, as they are measured."""

    goals: list[tuple[str, str, str, str]] = field(default_factory=list)  # what, measured, goal, met
    figures: list[tuple[str, str]] = field(default_factory=list)

    def ratio(self, what: str, value: float, goal: float, *, at_most: bool, detail: str = "") -> None:
        met = value <= goal if at_most else value >= goal
        sign = "<=" if at_most else ">="
        self.goals.append((what, f"{value:.2f}{detail}", f"{sign} {goal:g}", "yes" if met else "NO"))

    def absent(self, what: str, goal: str, reason: str) -> None:
        self.goals.append((what, f"not measured: {reason}", goal, "-"))

    def text(self, facts: dict[str, Any]) -> str:
        lines = [f"# {facts['device']}", "", f"{date.today().isoformat()}, `python benchmarks/gpu.py`", ""]
        lines += ["| goal | measured | bound | met |", "| --- | --- | --- | --- |"]
        lines += [f"| {' | '.join(row)} |" for row in self.goals]
        lines += ["", "| figure | value |", "| --- | --- |"]
        lines += [f"| {name} | {value} |" for name, value in self.figures]
        return "\n".join([*lines, "", "```json", json.dumps(facts, indent=1, sort_keys=True), "```", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", type=Path)
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--stand-in", action="store_true")
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "measurements")
    arguments = parser.parse_args()
    from sdk.runtime.device import cuda_problem

    problem = cuda_problem()
    if problem:
        print(f"benchmarks/gpu.py needs a CUDA device: {problem}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        engines = arguments.engines or (stand_ins if arguments.stand_in else built)(Path(folder))
        detector = arguments.detector or (stand_in_detector_of(Path(folder)) if arguments.stand_in else None)
        report, facts = measured(engines, detector, arguments.rounds)
    text = report.text(facts)
    print(text)
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / (re.sub(r"[^a-z0-9]+", "-", facts["device"].lower()).strip("-") + ".md")
    path.write_text(text, encoding="utf-8")
    print(f"written to {path}", file=sys.stderr)
    return 0 if all(met != "NO" for *_, met in report.goals) else 1


def built(folder: Path) -> list[Path]:
    """Engines of the default recipes for this GPU, with random weights."""
    from sdk.manifest import BatchRange
    from sdk.recipe import recipe_by_name
    from sdk.runtime.cuda.context import device_context
    from sdk.toolchain.build import BuildOptions, build_engine
    from sdk.toolchain.compile import CompileOptions

    engines = []
    for name in RECIPES:
        here = CompileOptions(batch=BatchRange(1, 4, 16), compute_capabilities=_capabilities())
        options = BuildOptions(recipe_by_name(name), "fp16", random_seed=0, compile=here, output=folder / name)
        with device_context(0).entered("compile"):
            engines.append(build_engine(options).folder)
    return engines


def stand_ins(folder: Path) -> list[Path]:
    """Engines of the default recipes' shapes with a stand-in for the plan."""
    from sdk.recipe import recipe_by_name
    from sdk.runtime.device import compute_capability
    from tests.support.stand_in import library_of, stand_in_engine, use_stand_ins

    use_stand_ins(library_of(folder))
    options = {"precision": "fp16", "capability": compute_capability()}
    return [stand_in_engine(folder / name, recipe_by_name(name), **options).folder for name in RECIPES]


def stand_in_detector_of(folder: Path) -> Path:
    """The engine of a detector with a stand-in for its plan."""
    from sdk.runtime.device import compute_capability
    from tests.support.stand_in import stand_in_detector

    made: Path = stand_in_detector(folder / "detector", capability=compute_capability()).folder
    return made


def _capabilities() -> tuple[str, ...]:
    from sdk import trt

    return () if trt.flavour("tensorrt").version else ("current",)


def measured(engines: list[Path], detector: Path | None, rounds: int) -> tuple[Report, dict[str, Any]]:
    from sdk.evaluate.speed.machine import machine_facts
    from sdk.manifest import open_engine
    from sdk.runtime.cuda.context import device_context

    report, device = Report(), device_context(0)
    for folder in engines:
        engine = open_engine(folder)
        for measure in MEASURES:
            measure(report, engine, rounds)
        whole_frames(report, engine, detector, rounds)
    notes = [open_engine(folder).manifest.compiler for folder in engines]
    versions = sorted({f"{note.name} {note.version}" for note in notes if note})  # "tensorrt stand-in": no TensorRT
    return report, {"device": device.name, "compilers": versions, **machine_facts()}


# ---- what is measured ------------------------------------------------------------------------------------------


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
            packed = _native.plan_transfer(placed, size_hw, FRAME_HW, False, False, costs)[2]
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
    from sdk import pinned_frame
    from sdk.runtime.cuda.context import device_context
    from sdk.runtime.cuda.gpu_pipeline import GpuPipeline

    if device_context(0).integrated:
        return
    frame = pinned_frame(*FRAME_HW)
    frame[...] = street()
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
    from sdk import pinned_frame
    from sdk.runtime.cuda.context import device_context
    from sdk.runtime.cuda.gpu_pipeline import GpuPipeline

    if not device_context(0).integrated:
        return
    pinned, affines = pinned_frame(*FRAME_HW), affines_of(engine, min(8, engine.manifest.batch.max))
    pinned[...] = street()
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

    recipe, frame = engine.manifest.recipe, street()
    goals = ((1, 3.0), (8, 10.0))
    try:
        import onnxruntime
        from rtmlib import RTMPose
    except ImportError as error:
        for count, goal in goals:
            report.absent(f"{recipe.name}: rtmlib on this GPU / ours, N={count}", f">= {goal:g}", str(error))
        return
    reason, peer = "this ONNX Runtime has no CUDA provider", None
    if engine.manifest.compiler.version == "stand-in":
        reason = "a stand-in has no graph for it"
    elif "CUDAExecutionProvider" in onnxruntime.get_available_providers():
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


MEASURES = (
    comparable_row,
    whole_call, host_time, pageable_frames, many_frames, graph_against_plain, many_against_one, ops_against_cpu,
    transfers, shared_memory, built_in_graph, rtmlib_on_the_gpu,
)  # fmt: skip


# ---- helpers ---------------------------------------------------------------------------------------------------


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


def street(seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (*FRAME_HW, 3), np.uint8)


def crowd() -> Any:
    """Four rendered figures, which detectors of persons see."""
    from sdk.media.figures import rendered_clip

    half_hw = FRAME_HW[0] // 2, FRAME_HW[1] // 2
    one, two, three, four = (next(rendered_clip(seed, 1, half_hw))[0] for seed in range(4))
    return np.ascontiguousarray(np.vstack([np.hstack([one, two]), np.hstack([three, four])]))


def persons(count: int) -> Any:
    rng = np.random.default_rng(count)
    corner = rng.uniform((0, 0), (FRAME_HW[1] - 200, FRAME_HW[0] - 420), (count, 2))
    return np.concatenate([corner, corner + np.array([180, 400])], axis=1).astype(np.float32)


def affines_of(engine: Any, count: int) -> Any:
    from sdk.geometry import crop_affines

    source = engine.manifest.recipe.input
    return crop_affines(persons(count), source.size_hw, source.box_padding)


class _OnDevice:
    """A frame in device memory, with `__cuda_array_interface__`; its upload is done, so nothing is waited for."""

    def __init__(self, pointer: int, shape: tuple[int, ...]) -> None:
        data = (pointer, True)
        self.__cuda_array_interface__ = {"shape": shape, "typestr": "|u1", "data": data, "version": 3, "stream": None}


@contextmanager
def on_device(frame: Any) -> Iterator[Any]:
    from sdk.runtime.cuda.context import device_context
    from sdk.runtime.cuda.memory import DeviceMemory

    device = device_context(0)
    with device.entered("upload a frame"):
        memory = DeviceMemory(device, frame.nbytes, "hold a frame")
        device.driver.memcpy_htod(memory.pointer, frame)
    try:
        yield _OnDevice(memory.pointer, frame.shape)
    finally:
        with device.entered("free a frame"):
            memory.free()


if __name__ == "__main__":
    sys.exit(main())

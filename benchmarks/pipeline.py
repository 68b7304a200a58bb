"""Whole frames, with detection and following, beside rtmlib's `PoseTracker(Custom)` on the same graphs: frames a
second, persons found, id switches.

    python benchmarks/pipeline.py [--persons 1 4 8] [--clips 2] [--frames 60] [--rounds 2] [--cpu-time] [--json FILE]

Both get the pictures of `walks.py` (720p, known truth) in turns, frame by frame, in one process, on one thread
(`--threads`), with detection every 5 frames; `sdk, auto` detects when it must. A time is the median over the rounds of
that very frame, the frames a second are of their sum. `--cpu-time` counts processor time of the process, for one thread
on a busy machine. At the end, what an empty scene costs between detections.

rtmlib takes pixels as they come: its pose network is handed a picture in that network's own channel order, turned
before the clock starts. Where one of its ids reaches the number of rows it leaves its own counting, and may then detect
in every frame or in none for a while: that is in its figures, as its users have it.

A person who is to be seen is found where a row of joints spans a box with an IoU of 0.5 with the truth's, one row a
person; where the id of that row is another than in the frame in which he was found last, that is a switch. rtmlib's ids
are read in two ways, with its rows as they come and as its code assigns them, and the better one counts.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.estimator_overhead import print_machine  # noqa: E402
from benchmarks.walks import box_of, walk  # noqa: E402

Frame = NDArray[np.uint8]
Clock = Callable[[], float]
Told = tuple[NDArray[np.float32], list[list[int]]]  # keypoints N x K x 2, and ids of the rows by each way to read them
DETECTOR = ROOT.parent / "shared/models/rtmdet-nano-person.onnx"
EVERY = 5
FOUND_IOU = 0.5
EMPTY_FRAMES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--engine", help="an engine folder; the bundled network where none is named")
    parser.add_argument("--detector", type=Path, default=DETECTOR)
    parser.add_argument("--cpu-time", action="store_true", help="processor time in place of the clock's")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    print_machine()
    clock = process_time if arguments.cpu_time else perf_counter
    told: dict[str, Any] = {}
    for persons in arguments.persons:
        sides = measured(persons, arguments, clock)
        told[f"{persons} persons"] = {name: side.summary for name, side in sides.items()}
        for name, side in sides.items():
            print(f"{persons} persons, {name}: {side.line(sides['rtmlib'])}", flush=True)
    told["empty scene, share of a frame with one person"] = share = empty_share(arguments, clock)
    print(f"an empty scene between detections: {share:.4f} of a frame with one person")
    if arguments.json:
        arguments.json.write_text(json.dumps(told, indent=2) + "\n")


@dataclass
class Side:
    """What one library did with all clips."""

    spent_s: list[float] = field(default_factory=list)  # a frame each, the median of the rounds
    there: int = 0
    found: int = 0
    rows: int = 0
    switches: tuple[int, ...] = (0, 0)  # by the ways to read its ids

    @property
    def summary(self) -> dict[str, float]:
        return {
            "frames a second": len(self.spent_s) / sum(self.spent_s),
            "ms, median of frames": 1e3 * median(self.spent_s),
            "found": self.found / max(self.there, 1),
            "rows that are nobody": (self.rows - self.found) / max(self.rows, 1),
            "id switches": min(self.switches),
        }

    def line(self, other: Side) -> str:
        told, its = self.summary, other.summary
        return (
            f"{told['frames a second']:.1f} frames a second ({told['frames a second'] / its['frames a second']:.2f}x), "
            f"median {told['ms, median of frames']:.2f} ms, {100 * told['found']:.1f} % found of {self.there}, "
            f"{100 * told['rows that are nobody']:.1f} % of rows nobody, {told['id switches']:.0f} id switches"
        )


def measured(persons: int, arguments: Any, clock: Clock) -> dict[str, Side]:
    sides: dict[str, Side] = {}
    for seed in range(arguments.clips):
        clip = list(walk(persons, arguments.frames, seed))
        spent: dict[str, list[list[float]]] = {}
        for number in range(arguments.rounds):  # the first is judged
            with contextlib.ExitStack() as opened:
                calls = libraries(arguments, opened, clip[0][0])
                times, told = played(calls, clip, clock)
            for name, seconds in times.items():
                spent.setdefault(name, []).append(seconds)
                if number == 0:
                    judge(sides.setdefault(name, Side()), told[name], [truth for _, truth in clip])
        for name, rounds in spent.items():
            sides[name].spent_s += [median(each) for each in zip(*rounds, strict=True)]
    return sides


def libraries(arguments: Any, opened: contextlib.ExitStack, first: Frame) -> dict[str, Callable[[Frame, Frame], Told]]:
    """Name -> what takes a picture, and the same in RGB, and gives joints and ids."""
    from sdk import PoseEstimator

    def ours(every: Any) -> Callable[[Frame, Frame], Told]:
        rules = {"detector": arguments.detector, "tracker": True, "threads": arguments.threads, "device": "cpu"}
        estimate = opened.enter_context(PoseEstimator(arguments.engine, detect_every=every, **rules))
        estimate(first)  # warms up
        estimate.reset_tracks()

        def call(picture: Frame, _: Frame) -> Told:
            poses = estimate(picture)
            return poses.keypoints, [poses.track_ids.tolist()]

        return call

    return {
        "rtmlib": rtmlib_tracker(arguments, first),
        "sdk": ours(EVERY),
        "sdk, auto": ours("auto"),
    }


def rtmlib_tracker(arguments: Any, first: Frame) -> Callable[[Frame, Frame], Told]:
    """rtmlib's `PoseTracker(Custom)` on our graphs."""
    from rtmlib import Custom, PoseTracker

    from sdk import PoseEstimator
    from sdk.onnx_runtime import onnxruntime

    with PoseEstimator(arguments.engine, device="cpu") as estimate:
        graph, source = estimate.engine.graph_path, estimate.recipe.input
    height, width = source.size_hw
    kind, size = ("YOLOX", (416, 416)) if "yolox" in arguments.detector.name else ("RTMDet", (320, 320))

    def solution(**options: Any) -> Any:
        graphs = {"det": str(arguments.detector), "pose": str(graph)}
        sizes = {"det_input_size": size, "pose_input_size": (width, height)}
        return Custom(det_class=kind, pose_class="RTMPose", **graphs, **sizes, **options)

    with contextlib.redirect_stdout(io.StringIO()):
        tracker = PoseTracker(solution, det_frequency=EVERY, backend="onnxruntime", device="cpu")
    options = onnxruntime().SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = arguments.threads, 1
    for model, path in ((tracker.det_model, arguments.detector), (tracker.pose_model, graph)):
        model.session = onnxruntime().InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    pose, turned = tracker.pose_model, [None]
    pose.mean, pose.std = source.mean, source.std
    tracker.pose_model = lambda image, bboxes: pose(turned[0] if source.colour == "rgb" else image, bboxes=bboxes)

    def call(picture: Frame, rgb: Frame) -> Told:
        turned[0] = rgb
        keypoints, _ = tracker(picture)
        ids = [int(each) for each in tracker.track_ids_last_frame]
        rows = len(keypoints)
        reordered = all(each < len(ids) for each in ids)  # its rows, by ids taken for rows; else they are as found
        assigned = [ids[each] for each in ids] if reordered else ids
        told = np.asarray(keypoints, np.float32) if rows else np.zeros((0, 1, 2), np.float32)
        return told, [of_rows(ids, rows), of_rows(assigned, rows)]

    call(first, np.ascontiguousarray(first[..., ::-1]))  # warms up
    tracker.reset()
    return call


def of_rows(ids: list[int], rows: int) -> list[int]:
    """An id a row; a row that has none is somebody new."""
    return [*ids[:rows], *range(-1, len(ids) - rows - 1, -1)]


def played(
    calls: dict[str, Callable[[Frame, Frame], Told]], clip: list[tuple[Frame, Any]], clock: Clock
) -> tuple[dict[str, list[float]], dict[str, list[Told]]]:
    """Seconds of each frame and what was told, of each library, which take turns in who comes first."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    told: dict[str, list[Told]] = {name: [] for name in calls}
    names = list(calls)
    for index, (picture, _) in enumerate(clip):
        rgb = np.ascontiguousarray(picture[..., ::-1])
        for name in names[index % len(names) :] + names[: index % len(names)]:
            start = clock()
            found = calls[name](picture, rgb)
            times[name].append(clock() - start)
            told[name].append(found)
    return times, told


def judge(side: Side, told: list[Told], truths: list[dict[int, Any]]) -> None:
    """Count who was found, and how often ids changed hands."""
    last: list[dict[int, int]] = [{} for _ in told[0][1]]
    switches = [0] * len(last)
    for (keypoints, ways), truth in zip(told, truths, strict=True):
        side.there, side.rows = side.there + len(truth), side.rows + len(keypoints)
        for person, row in found_in(keypoints, truth):
            side.found += 1
            for way, ids in enumerate(ways):
                switches[way] += last[way].get(person, ids[row]) != ids[row]
                last[way][person] = ids[row]
    side.switches = tuple(np.add((*side.switches, *side.switches)[: len(switches)], switches).tolist())


def found_in(keypoints: NDArray[np.float32], truth: dict[int, Any]) -> Iterator[tuple[int, int]]:
    """The persons who are found, and the rows that they are in."""
    from sdk.people.tracking import box_iou

    if not len(keypoints) or not truth:
        return
    persons = list(truth)
    overlap = box_iou(np.stack([box_of(truth[each]) for each in persons]), np.stack([box_of(k) for k in keypoints]))
    while overlap.max() >= FOUND_IOU:
        person, row = (int(at) for at in np.unravel_index(overlap.argmax(), overlap.shape))
        overlap[person], overlap[:, row] = -1, -1
        yield persons[person], row


def empty_share(arguments: Any, clock: Clock) -> float:
    """The median of a call on an empty scene between detections beside that of one with a person, in turns."""
    from sdk import PoseEstimator

    rules = {"detector": arguments.detector, "tracker": True, "threads": arguments.threads, "device": "cpu"}
    scenes = {name: next(walk(persons, 1, 0))[0] for name, persons in (("empty", 0), ("one person", 1))}
    spent: dict[str, list[float]] = {name: [] for name in scenes}
    with contextlib.ExitStack() as opened:
        calls = {
            name: opened.enter_context(PoseEstimator(arguments.engine, detect_every=EVERY, **rules)) for name in scenes
        }
        for _ in range(EMPTY_FRAMES):
            for name, picture in scenes.items():
                start = clock()
                poses = calls[name](picture)
                if "detect" not in poses.timings_ms:
                    spent[name].append(clock() - start)
    return median(spent["empty"] or [float("inf")]) / median(spent["one person"])


if __name__ == "__main__":
    main()

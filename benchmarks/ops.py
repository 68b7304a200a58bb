"""Times the CPU half of the fused ops beside rtmlib's own functions and beside OpenCV with numpy at its best.

    python benchmarks/ops.py [--rounds 60] [--markdown FILE]

Runs are interleaved: each round times every contender once, and medians are compared, so that a change of the machine's
speed meets all alike. OpenCV and numpy run on one thread. Peers do per person what their packages do; "best numpy" is
one warpAffine into a kept buffer, then scale, bias and the channels' planes by in-place numpy.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np
from numpy.typing import NDArray

from sdk import ops
from sdk.geometry import crop_affines

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
JOINTS, SPLIT_RATIO = 17, 2.0
CASES = [
    ((64, 64), 1, 3),
    ((128, 128), 1, 6),
    ((128, 128), 8, 6),
    ((256, 192), 1, 8),
    ((256, 192), 8, 8),
    ((384, 288), 8, 8),
]

DECODE_CASES = [((256, 192), 17, 8, 5), ((384, 288), 133, 1, 6), ((384, 288), 133, 8, 6)]

Call = Callable[[], object]


@dataclass
class Scene:
    """A 1080p frame, boxes of persons and logits, the same for all contenders."""

    size_hw: tuple[int, int]
    count: int
    joints_each: int = JOINTS

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.count)
        self.frame = rng.integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
        corner = rng.uniform((0, 0), (1300, 500), (self.count, 2))
        self.boxes = np.concatenate([corner, corner + rng.uniform((120, 300), (280, 560), (self.count, 2))], 1).astype(
            np.float32
        )
        self.affines = crop_affines(self.boxes, self.size_hw, 1.25)
        height, width = self.size_hw
        self.x, self.y = (self._logits(rng, int(side * SPLIT_RATIO)) for side in (width, height))
        self.crops = np.empty((self.count, 3, height, width), np.float32)
        self.joints = np.empty((self.count, self.joints_each, 3), np.float32)
        self.joints_sure = np.empty((self.count, self.joints_each, 5), np.float32)

    def _logits(self, rng: np.random.Generator, bins: int) -> NDArray[np.float32]:
        """One peak a row, as a network gives it, and noise: N x K x bins."""
        shape = (self.count, self.joints_each, 1)
        peaks = 8 * np.exp(-((np.arange(bins) - rng.uniform(0.1 * bins, 0.9 * bins, shape)) ** 2) / (2 * 7.0**2))
        return (peaks + 0.3 * rng.standard_normal((*shape[:2], bins))).astype(np.float32)


def ours(scene: Scene, *, decode_only: bool = False) -> Call:
    """Affines from boxes, crop and decode of all persons, as the estimator does; outputs are kept."""

    def run() -> None:
        if not decode_only:
            affines = crop_affines(scene.boxes, scene.size_hw, 1.25)
            ops.crop(scene.frame, affines, scene.size_hw, mean=MEAN, std=STD, out=scene.crops)
        ops.decode(scene.x, scene.y, scene.affines, SPLIT_RATIO, score="mean_logit", out=scene.joints)

    return run


def rtmlib(scene: Scene, *, decode_only: bool = False) -> Call:
    """rtmlib's pre- and post-processing, person by person, as its `RTMPose.__call__` does around its session."""
    from rtmlib.tools.pose_estimation.rtmpose import RTMPose

    model = object.__new__(RTMPose)  # its constructor would open a network
    model.model_input_size = scene.size_hw[::-1]
    model.mean, model.std = MEAN, STD
    placed = [model.preprocess(scene.frame, box) for box in scene.boxes]

    def run() -> None:
        for n, box in enumerate(scene.boxes):
            _, centre, scale = placed[n]
            if not decode_only:
                image, centre, scale = model.preprocess(scene.frame, box)
                np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)[None]  # as its `inference` does
            model.postprocess([scene.x[n : n + 1], scene.y[n : n + 1]], centre, scale)

    return run


def best_numpy(scene: Scene) -> Call:
    """cv2.warpAffine, then the fewest numpy passes: transpose and convert at once, scale and bias in place."""
    height, width = scene.size_hw
    warped = np.empty((height, width, 3), np.uint8)
    scale = np.array([1 / s for s in STD], np.float32).reshape(3, 1, 1)
    bias = np.array([-m / s for m, s in zip(MEAN, STD, strict=True)], np.float32).reshape(3, 1, 1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

    def run() -> None:
        affines = crop_affines(scene.boxes, scene.size_hw, 1.25)
        for n, affine in enumerate(affines):
            cv2.warpAffine(scene.frame, affine, (width, height), dst=warped, flags=flags)
            np.multiply(warped[:, :, ::-1].transpose(2, 0, 1), scale, out=scene.crops[n])
            scene.crops[n] += bias
        bins_x, bins_y = scene.x.argmax(2), scene.y.argmax(2)
        top_x = np.take_along_axis(scene.x, bins_x[..., None], 2)[..., 0]
        top_y = np.take_along_axis(scene.y, bins_y[..., None], 2)[..., 0]
        crop_xy = np.stack([bins_x, bins_y], 2) / SPLIT_RATIO
        scene.joints[..., :2] = crop_xy @ affines[:, :, :2].transpose(0, 2, 1) + affines[:, None, :, 2]
        scene.joints[..., 2] = 0.5 * (top_x + top_y)

    return run


def on_threads(call: Call, count: int) -> Call:
    def run() -> None:
        ops.set_threads(count)
        call()

    return run


def medians_us(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Interleaved: every call once a round. Returns microseconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - begin) * 1e6)
    return {name: float(np.median(each)) for name, each in times.items()}


def crop_rows(rounds: int) -> list[str]:
    lines = [
        "| crop + decode, per person | rtmlib | OpenCV + best numpy | ours | ours, 2 threads "
        "| to rtmlib | goal | to best numpy | 2 threads to 1 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for size_hw, count, goal in CASES:
        scene = Scene(size_hw, count)
        calls = {
            "rtmlib": rtmlib(scene),
            "best": best_numpy(scene),
            "one": on_threads(ours(scene), 1),
            "two": on_threads(ours(scene), 2),
        }
        us = {name: each / count for name, each in medians_us(calls, rounds).items()}
        lines.append(
            f"| {size_hw[0]}x{size_hw[1]}, N={count} | {us['rtmlib']:.0f} us | {us['best']:.0f} us "
            f"| {us['one']:.1f} us "
            f"| {us['two']:.1f} us | {us['rtmlib'] / us['one']:.1f}x | {goal}x | {us['best'] / us['one']:.1f}x "
            f"| {us['one'] / us['two']:.2f}x |"
        )
    return lines


def sure(scene: Scene) -> Call:
    """Decode with the spread, as an mmpose network's estimator asks for it."""
    rule = ops.Spread(10.0)

    def run() -> None:
        ops.decode(scene.x, scene.y, scene.affines, SPLIT_RATIO, score="mean_logit", spread=rule, out=scene.joints_sure)

    return run


def decode_rows(rounds: int) -> list[str]:
    """rtmlib's decode, ours, and ours with the spread; and how long it takes only to read the logits."""
    lines = ["| decode alone, one thread | rtmlib | ours | to rtmlib | goal | with the spread | reading the logits |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for size_hw, joints, count, goal in DECODE_CASES:
        scene = Scene(size_hw, count, joints)
        calls = {
            "rtmlib": rtmlib(scene, decode_only=True),
            "ours": ours(scene, decode_only=True),
            "sure": sure(scene),
            "read": lambda scene=scene: (scene.x.max(), scene.y.max()),
        }
        us = medians_us(calls, rounds)
        lines.append(
            f"| {size_hw[0]}x{size_hw[1]}, K={joints}, N={count} | {us['rtmlib']:.0f} us | {us['ours']:.1f} us "
            f"| {us['rtmlib'] / us['ours']:.1f}x | {goal}x | {us['sure']:.1f} us, {us['sure'] / us['ours'] - 1:+.1%} "
            f"| {us['read']:.1f} us |"
        )
    return lines


def threads_row(rounds: int) -> str:
    """One thread against two, ten calls back to back of each in turn: as in a stream, the second thread is awake."""
    parts = []
    for size_hw, count, _ in CASES:
        if count == 1:
            continue
        call = ours(Scene(size_hw, count))
        times: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(rounds):
            for threads, each in times.items():
                ops.set_threads(threads)
                for _ in range(10):
                    begin = time.perf_counter()
                    call()
                    each.append(time.perf_counter() - begin)
        ratio = float(np.median(times[1]) / np.median(times[2]))
        parts.append(f"{size_hw[0]}x{size_hw[1]} {ratio:.2f}x")
    return f"two threads to one, N=8, calls back to back: {', '.join(parts)} (goal 1.7x)"


def bandwidth_row(rounds: int) -> str:
    """Bytes the crop must read and write, per second, beside a plain copy of as many bytes."""
    ops.set_threads(1)
    scene = Scene((256, 192), 8)
    read = int(sum(abs(np.linalg.det(a[:, :2])) for a in scene.affines) * 256 * 192 * 3)
    touched = read + scene.crops.nbytes
    source, target = np.ones(touched // 2, np.uint8), np.ones(touched // 2, np.uint8)
    calls = {
        "crop": lambda: ops.crop(scene.frame, scene.affines, scene.size_hw, mean=MEAN, std=STD, out=scene.crops),
        "copy": lambda: np.copyto(target, source),
    }
    us = medians_us(calls, rounds)
    rates = {name: touched / us[name] / 1000 for name in us}
    return (
        f"crop 256x192, N=8: {touched / 1e6:.1f} MB touched (frame once, crops once), {rates['crop']:.1f} GB/s; "
        f"memcpy touching the same bytes {rates['copy']:.1f} GB/s"
    )


def machine() -> str:
    model = next(
        (line.split(":")[1].strip() for line in cpu_info() if line.startswith("model name")), platform.machine()
    )
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "opencv-python", "rtmlib"))
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"{model}, {os.cpu_count()} CPUs, load {load}; Python {platform.python_version()}, {packages}; "
        f"instruction set {ops.instruction_set()}"
    )


def cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the fused ops beside their peers.")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--markdown", type=Path, help="write the table there too")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    lines = [
        machine(),
        "",
        *crop_rows(arguments.rounds),
        "",
        *decode_rows(arguments.rounds * 3),
        "",
        threads_row(arguments.rounds),
        bandwidth_row(arguments.rounds),
    ]
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if arguments.markdown:
        arguments.markdown.write_text(text)


if __name__ == "__main__":
    main()

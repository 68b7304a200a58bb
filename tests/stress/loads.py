"""Much work: threads, soak, operations and open-close cycles. Results stay the same bits, memory stays where it was."""

import threading
from pathlib import Path

import numpy as np

from sdk import PoseEstimator
from sdk.errors import ClosedError
from tests.fuzz.fuzz_ops import fuzz_crop, fuzz_decode, instruction_sets
from tests.stress.findings import judged, resident_mib
from tests.support.threads import in_threads

THREADS = 32
GROWTH_MIB = 24  # over a soak; allocators keep a little of what they once had


def frames_and_boxes(rng, count=8):
    """Frames of several sizes, each with its boxes."""
    made = []
    for _ in range(count):
        height, width = (int(side) for side in rng.integers(40, 300, 2))
        corner = rng.uniform(-20, 100, (int(rng.integers(0, 3)), 2))
        boxes = np.concatenate([corner, corner + rng.uniform(5, 150, corner.shape)], axis=1).astype(np.float32)
        made.append((rng.integers(0, 256, (height, width, 3), np.uint8), boxes))
    return made


def _same(one, other):
    return np.array_equal(one.keypoints, other.keypoints) and np.array_equal(one.scores, other.scores)


def threads(amount, rng, folder, findings):
    """Calls from 32 threads at once, some of them through `submit`, on one estimator."""
    work, counter, lock = frames_and_boxes(rng), iter(range(amount)), threading.Lock()
    with PoseEstimator(device="cpu", threads=1) as estimate:
        expected = [estimate(frame, boxes) for frame, boxes in work]

        def call(index):
            while True:
                with lock:
                    number = next(counter, None)
                if number is None:
                    return
                frame, boxes = work[number % len(work)]
                use = estimate if index % 4 else lambda *given: estimate.submit(*given).result()
                how, poses = judged(use, frame, boxes)
                if how != "done":
                    findings.add("a call from a thread failed", poses)
                elif not _same(poses, expected[number % len(work)]):
                    findings.add("a call from a thread gave other bits", number)

        in_threads(call, THREADS)
    return f"{amount} calls from {THREADS} threads"


def soak(amount, rng, folder, findings):
    """One thread, one estimator, for long."""
    work = frames_and_boxes(rng)
    with PoseEstimator(device="cpu", threads=1) as estimate:
        expected = [estimate(frame, boxes) for frame, boxes in work]
        for number in range(min(amount, 500)):
            estimate(*work[number % len(work)])
        before = resident_mib()
        for number in range(amount):
            if not _same(estimate(*work[number % len(work)]), expected[number % len(work)]):
                findings.add("a call of a soak gave other bits", number)
        after = resident_mib()
    if after - before > GROWTH_MIB:
        findings.add("memory grew over a soak", f"{before:.0f} to {after:.0f} MiB")
    return f"{amount} calls, resident memory {before:.1f} MiB, then {after:.1f} MiB"


def operations(amount, rng, folder, findings):
    """Random crops and decodes: the instruction sets agree, and memory beside outputs is left alone."""
    sets = instruction_sets()
    for number in range(amount // 2):
        how, answer = judged(lambda: (fuzz_crop(rng, sets), fuzz_decode(rng, sets)))
        if how != "done":
            findings.add("an op went wrong", f"{answer} (round {number})")
    return f"{amount // 2 * 2} random ops on {', '.join(sets)}"


def cycles(amount, rng, folder, findings):
    """Opening, one call, closing; every tenth is closed while other threads call."""
    frame, boxes = frames_and_boxes(rng, 1)[0]
    for number in range(20):
        (_cycle if number % 4 else _cycle_under_load)(frame, boxes)
    before = resident_mib(), _handles(), threading.active_count()
    for number in range(amount):
        how, answer = judged(_cycle_under_load if number % 10 == 0 else _cycle, frame, boxes)
        if how != "done":
            findings.add("an open-close cycle failed", answer)
    after = resident_mib(), _handles(), threading.active_count()
    if after[0] - before[0] > GROWTH_MIB or after[1] > before[1] or after[2] > before[2]:
        findings.add("open-close cycles left something", f"{before} to {after} (MiB, file handles, threads)")
    return f"{amount} cycles, resident memory {before[0]:.1f} MiB, then {after[0]:.1f} MiB, {after[1]} file handles"


def _cycle(frame, boxes):
    with PoseEstimator(device="cpu", threads=1) as estimate:
        estimate(frame, boxes)


def _cycle_under_load(frame, boxes):
    estimate, others = PoseEstimator(device="cpu", threads=1), []

    def call(index):
        try:
            while True:
                (estimate if index else lambda *given: estimate.submit(*given).result())(frame, boxes)
        except ClosedError:
            return
        except BaseException as error:  # noqa: BLE001 (what it is, is the question)
            others.append(error)

    closing = threading.Timer(0.02, estimate.close)
    closing.start()
    in_threads(call, 4)
    closing.join()
    if others:
        raise others[0]


def _handles():
    return len(list(Path("/proc/self/fd").iterdir()))

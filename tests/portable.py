"""What the ops and the bundled network give here, in a file, and whether another machine's file says the same.

    python tests/portable.py write x86_64.npz
    python tests/portable.py compare x86_64.npz aarch64.npz

Ops must be equal to the bit. The network is ONNX Runtime's, whose sums differ by machine: keypoints within 1e-5 pixels.
Not collected by pytest; tests/aarch64.sh runs it on both sides.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # behind an installed sdk

PIXELS = 1e-5  # of keypoints after the network; seen: 0
SCORES = 1e-6  # seen: 5.2e-8
PICTURES = 4
PERSONS = 3


def crops():
    """Name -> a crop of each case, in both types, and of NV12."""
    from sdk import ops
    from tests.support.ops_cases import CROP_CASES, MEAN, STD, noise_nv12

    for case in CROP_CASES:
        for dtype in (np.float32, np.float16):
            where = f"crop {case} {np.dtype(dtype)}"
            yield where, ops.crop(case.frame(), case.affines(), case.size_hw, mean=MEAN, std=STD, dtype=dtype)
    for size in ((64, 48), (33, 17)):
        frame = noise_nv12(120, 160)
        for matrix in ("bt601", "bt709"):
            affines = np.array([[[1.7, 0.2, 3.1], [-0.1, 1.9, 2.3]]], np.float32)
            options = {"pixel_format": "nv12", "yuv_matrix": matrix, "border": 114}
            yield f"crop nv12 {matrix} {size}", ops.crop(frame, affines, size, mean=MEAN, std=STD, **options)


def joints():
    """Name -> the joints of each case, by every rule."""
    from sdk import ops
    from tests.support.ops_cases import DECODE_CASES, REFINEMENTS, SCORES, wide_rows

    for case in DECODE_CASES:
        for dtype in (np.float32, np.float16):
            for kind, (x, y) in (("noise", case.logits(dtype)), ("peaks", wide_rows(case, dtype))):
                for score in SCORES:
                    for refine in REFINEMENTS:
                        where = f"decode {case} {kind} {np.dtype(dtype)} {score} {refine}"
                        yield where, ops.decode(x, y, case.affines(), case.split_ratio, score=score, refine=refine)


def persons():
    """Name -> boxes and scores, in one array, of each form of a detector."""
    from sdk import ops
    from tests.support.ops_cases import DETECTION_CASES

    for case in DETECTION_CASES:
        boxes, scores = ops.detections(case.outputs(), case.form, **case.arguments())
        yield f"detections {case}", np.concatenate([boxes, scores[:, None]], 1)


def poses():
    """Name -> keypoints and scores of the bundled network on noise, smoothed so that it is no even grey."""
    from sdk import PoseEstimator

    with PoseEstimator(device="cpu", threads=1) as estimate:
        for number in range(PICTURES):
            rng = np.random.default_rng([7, number])
            coarse = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
            frame = np.ascontiguousarray(coarse.repeat(16, 0).repeat(16, 1))
            corner = rng.uniform(0, 250, (PERSONS, 2))
            found = estimate(frame, np.concatenate([corner, corner + np.array([180, 220])], 1).astype(np.float32))
            yield f"keypoints {number}", found.keypoints
            yield f"scores {number}", found.scores


def write(path: str) -> None:
    results = {name: array for source in (crops, joints, persons, poses) for name, array in source()}
    np.savez(path, **results)
    print(f"{path}: {len(results)} results, sdk from {Path(sys.modules['sdk'].__file__).parent}")


def compare(one: str, other: str) -> None:
    """Exits with words where anything is farther apart than it may be."""
    with np.load(one) as first, np.load(other) as second:
        names = sorted(first.files)
        assert names == sorted(second.files) and len(names) > 100, "not of the same tests/portable.py"
        kinds = {"keypoints": PIXELS, "scores": SCORES}
        farthest = dict.fromkeys(kinds, 0.0)
        wrong = []
        for name in names:
            a, b, kind = first[name], second[name], name.split()[0]
            if kind in kinds:
                apart = float(np.abs(a.astype(np.float64) - b).max())
                farthest[kind] = max(farthest[kind], apart)
                wrong += [f"{name}: {apart:.3g} apart"] if apart > kinds[kind] else []
            elif a.tobytes() != b.tobytes():
                wrong.append(f"{name}: not the same bits")
    ops_there = sum(name.split()[0] not in kinds for name in names)
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{ops_there} results of the ops equal to the bit; farthest apart {farthest}")


if __name__ == "__main__":
    {"write": write, "compare": compare}[sys.argv[1]](*sys.argv[2:])

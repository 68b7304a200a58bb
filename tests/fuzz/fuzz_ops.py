"""Fuzzes the CPU half of the fused ops: random shapes, strides, affines with any bits, logits with any bits.

Each round holds that the instruction sets agree bit for bit, that every pixel lies between black and white, that every
joint lies where its row allows, that a detector's boxes lie in the frame, and that memory beside outputs is left
alone. Best under tests/sanitize_ops.sh.

    python tests/fuzz/fuzz_ops.py --seconds 600 --seed 1
"""

import argparse
import time

import numpy as np

from sdk import _native, ops
from sdk.detection import DetectionForm, Part, letterbox

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CANARY = 64  # elements on either side of an output


def instruction_sets():
    found = []
    for name in ("baseline", "avx2", "avx512"):
        try:
            _native.set_instruction_set(name)
        except ValueError:
            continue
        found.append(name)
    return found


def any_bits(rng, shape, dtype):
    """Floats of any bit pattern: NaN, infinities, subnormals and huge numbers among them."""
    size = np.dtype(dtype).itemsize
    return rng.integers(0, 256, (*shape, size), dtype=np.uint8).view(dtype)[..., 0].copy()


def random_affines(rng, count, frame_hw):
    """Sensible, axis-aligned, wild or of any bits; one kind per entry."""
    affines = rng.normal(0, 2, (count, 2, 3)).astype(np.float32)
    affines[..., 2] = rng.uniform(-0.5, 1.5, (count, 2)) * frame_hw[::-1]
    kinds = rng.integers(0, 4, count)
    affines[kinds == 1, 0, 1] = affines[kinds == 1, 1, 0] = 0
    affines[kinds == 2] *= np.float32(10) ** rng.integers(-12, 12, (int((kinds == 2).sum()), 2, 3)).astype(np.float32)
    affines[kinds == 3] = any_bits(rng, (int((kinds == 3).sum()), 2, 3), np.float32)
    return affines


def random_frame(rng, nv12):
    height, width = (int(n) for n in rng.integers(1, 90, 2))
    if nv12:
        height, width = 2 * height, 2 * width
        frame = rng.integers(0, 256, (height * 3 // 2, width + int(rng.integers(0, 9))), dtype=np.uint8)[:, :width]
        return (height, width), frame
    frame = rng.integers(0, 256, (height, width + int(rng.integers(0, 9)), 3), dtype=np.uint8)[:, :width]
    return (height, width), frame[::-1] if rng.random() < 0.2 else frame


def guarded(shape, dtype):
    """An output with canaries on either side, and a check of them."""
    size = int(np.prod(shape))
    memory = np.full(size + 2 * CANARY, 7, dtype)
    out = memory[CANARY : CANARY + size].reshape(shape)

    def intact():
        return (memory[:CANARY] == 7).all() and (memory[CANARY + size :] == 7).all()

    return out, intact


def on_every_set(sets, shape, dtype, call):
    results = []
    for name in sets:
        _native.set_instruction_set(name)
        out, intact = guarded(shape, dtype)
        call(out)
        assert intact(), "memory beside the output was written"
        results.append(out)
    assert all(np.array_equal(results[0], other, equal_nan=True) for other in results[1:]), "instruction sets differ"
    return results[0]


def fuzz_crop(rng, sets):
    nv12 = bool(rng.random() < 0.4)
    made = [random_frame(rng, nv12) for _ in range(int(rng.integers(1, 4)))]
    frame_hw, frames = made[0][0], [frame for _, frame in made]
    count, size_hw = int(rng.integers(0, 4)), tuple(int(n) for n in rng.integers(1, 70, 2))
    if rng.random() < 0.05:
        size_hw = (3, int(rng.integers(500, 1100)))  # beyond one block
    affines = random_affines(rng, count, frame_hw)
    dtype = np.float16 if rng.random() < 0.5 else np.float32
    options = {"mean": MEAN, "std": STD, "dtype": dtype, "pixel_format": "nv12" if nv12 else "bgr"}
    options["frame_of"] = rng.integers(0, len(frames), count)
    ops.set_threads(int(rng.integers(1, 4)))
    crops = on_every_set(
        sets, (count, 3, *size_hw), dtype, lambda out: ops.crop(frames, affines, size_hw, out=out, **options)
    )
    low, high = ((np.float64(grey) - MEAN) / STD for grey in (0, 255))
    values = crops.astype(np.float64)
    assert (values >= low[:, None, None] - 2e-3).all(), "darker than black"
    assert (values <= high[:, None, None] + 2e-3).all(), "brighter than white"


def fuzz_decode(rng, sets):
    count, joints = (int(n) for n in rng.integers(0, 5, 2))
    bins = [int(n) for n in rng.integers(1, 130, 2)]
    dtype = np.float16 if rng.random() < 0.5 else np.float32

    def rows(n):
        wild = any_bits(rng, (count, joints, n), dtype)
        return np.where(rng.random(wild.shape) < rng.random(), wild, rng.normal(0, 5, wild.shape).astype(dtype))

    x, y = (rows(n) for n in bins)
    identity = np.tile(np.array([[1, 0, 0], [0, 1, 0]], np.float32), (count, 1, 1))
    ratio = float(rng.choice([1.0, 1.5, 2.0, 3.0]))
    options = {
        "score": str(rng.choice(list(ops.SCORES))),
        "refine": str(rng.choice(list(ops.REFINEMENTS))),
    }
    if rng.random() < 0.5:
        pairs = [(0, joints - 1)] if joints > 1 else []
        options |= {
            "flipped": (rows(bins[0]), rows(bins[1])),
            "flip_pairs": pairs,
            "flip_shift": bool(rng.random() < 0.5),
        }
    found = on_every_set(
        sets, (count, joints, 3), np.float32, lambda out: ops.decode(x, y, identity, ratio, out=out, **options)
    )
    assert np.isfinite(found[..., :2]).all(), "a joint that is nowhere"
    assert (found[..., 0] >= 0).all() and (found[..., 0] <= bins[0] / ratio).all(), "a joint beside its row"
    assert (found[..., 1] >= 0).all() and (found[..., 1] <= bins[1] / ratio).all(), "a joint beside its row"
    wild_affines = any_bits(rng, (count, 2, 3), np.float32)
    ops.decode(x, y, wild_affines, ratio, **options)


def random_form(rng):
    """A form, and the outputs' shapes, of one to three outputs."""
    label = Part(2) if rng.random() < 0.3 else None
    classes = 1 if label else int(rng.integers(1, 6))
    grid = rng.random() < 0.4
    return DetectionForm(
        "grid" if grid else str(rng.choice(["xyxy", "cxcywh"])),
        Part(0, int(rng.integers(0, 3)), bool(rng.random() < 0.5)),
        Part(1, int(rng.integers(0, 3)), bool(rng.random() < 0.5)),
        units="pixels" if grid or rng.random() < 0.5 else "shares",
        classes=classes,
        person_class=int(rng.integers(0, classes)),
        objectness=0 if rng.random() < 0.5 else None,
        label=label,
        activation=str(rng.choice(["none", "sigmoid", "softmax"][: 2 + (classes > 1)])),
        suppress=bool(rng.random() < 0.7),
        strides=(8, 16) if grid else (),
    )


def fuzz_detections(rng):
    """Boxes are finite, in the frame, with an area, ordered, as many as asked for at most; the same ones twice."""
    form, size_hw, frame_hw = random_form(rng), (32, 48), tuple(int(n) for n in rng.integers(1, 90, 2))
    rows = 30 if form.strides else int(rng.integers(0, 60))
    if not form.strides and rng.random() < 0.1:
        rows = int(rng.integers(1000, 2000))  # beyond the candidates that take part

    def output(part, columns):
        shape = (1, rows, part.column + columns) if part.rows_first else (1, part.column + columns, rows)
        dtype = np.float16 if rng.random() < 0.5 else np.float32
        tame = (rng.random(shape) * rng.choice([1, 50])).astype(dtype)
        return np.where(rng.random(shape) < rng.random() ** 3, any_bits(rng, shape, dtype), tame)

    outputs = [output(form.boxes, 4), output(form.scores, form.classes)]
    if form.label is not None:
        outputs.append(rng.integers(0, 2, (1, rows, 1)).astype(rng.choice([np.int32, np.int64, np.float32])))
    arguments = {
        "to_frame": letterbox(frame_hw, size_hw, str(rng.choice(["corner", "centre", "stretch"]))).to_frame,
        "size_hw": size_hw,
        "frame_hw": frame_hw,
        "score_threshold": float(rng.random()),
        "iou": float(rng.random()),
        "most": int(rng.integers(1, 1025)),
    }
    boxes, scores = ops.detections(outputs, form, **arguments)
    assert len(boxes) == len(scores) <= min(arguments["most"], rows), "more boxes than were asked for"
    assert np.isfinite(boxes).all() and np.isfinite(scores).all(), "a box that is nowhere"
    assert (boxes >= 0).all() and (boxes <= [frame_hw[1], frame_hw[0]] * 2).all(), "a box beyond the frame"
    assert (boxes[:, 2:] > boxes[:, :2]).all(), "a box without area"
    assert (scores >= np.float32(arguments["score_threshold"])).all() and (np.diff(scores) <= 0).all(), "a score"
    again = ops.detections(outputs, form, **arguments)
    assert np.array_equal(boxes, again[0]) and np.array_equal(scores, again[1]), "other boxes the second time"


def fuzz(seconds, seed):
    """Rounds done in the time; an AssertionError names the seed that repeats the finding."""
    sets, rounds, until = instruction_sets(), 0, time.monotonic() + seconds
    while time.monotonic() < until:
        rng = np.random.default_rng([seed, rounds])
        try:
            fuzz_crop(rng, sets)
            fuzz_decode(rng, sets)
            fuzz_detections(rng)
        except AssertionError as error:
            raise AssertionError(f"{error} (seed {seed}, round {rounds})") from error
        rounds += 1
    ops.set_threads(1)
    _native.set_instruction_set(sets[-1])
    return rounds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fuzz the CPU half of the fused ops.")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"{fuzz(arguments.seconds, arguments.seed)} rounds without a finding")

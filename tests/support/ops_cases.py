"""Tables of cases for the fused ops, used on the CPU, by the emulated and by the real GPU. Noise is seeded.

@pytest.mark.parametrize("case", CROP_CASES, ids=str)
"""

from dataclasses import dataclass

import numpy as np

from sdk.detection import DetectionForm, Part, letterbox

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class CropCase:
    name: str
    frame_hw: tuple[int, int]
    size_hw: tuple[int, int]
    affine: tuple[float, ...]

    def __str__(self):
        return self.name

    def frame(self):
        return noise_frame(*self.frame_hw)

    def affines(self):
        return np.array([self.affine], np.float32).reshape(1, 2, 3)


def noise_frame(height, width, seed=0):
    return np.random.default_rng([seed, height, width]).integers(0, 256, (height, width, 3), dtype=np.uint8)


def noise_nv12(height, width, seed=1):
    return np.random.default_rng([seed, height, width]).integers(0, 256, (height * 3 // 2, width), dtype=np.uint8)


def turned(scale, degrees, x, y):
    cos, sin = scale * np.cos(np.deg2rad(degrees)), scale * np.sin(np.deg2rad(degrees))
    return (cos, -sin, x, sin, cos, y)


CROP_CASES = [
    CropCase("identity", (24, 33), (24, 33), (1, 0, 0, 0, 1, 0)),
    CropCase("one-pixel-frame", (1, 1), (5, 4), (0.5, 0, -1, 0, 0.5, -1)),
    CropCase("one-pixel-crop", (20, 20), (1, 1), (1, 0, 7.25, 0, 1, 3.75)),
    CropCase("two-by-two-frame", (2, 2), (9, 9), (0.3, 0, -0.4, 0, 0.3, -0.4)),
    CropCase("three-wide-frame", (40, 3), (16, 16), (0.25, 0, -0.5, 0, 2.5, 0)),
    CropCase("odd-sizes", (53, 37), (23, 17), (1.7, 0, 0.3, 0, 1.9, 0.7)),
    CropCase("shrink", (300, 400), (64, 48), (6.1, 0, 20.3, 0, 4.3, 7.9)),
    CropCase("shrink-beyond", (300, 400), (64, 48), (31.5, 0, -500.3, 0, 17.3, -300.9)),
    CropCase("enlarge", (90, 120), (64, 64), (0.13, 0, 40.3, 0, 0.11, 30.7)),
    CropCase("enlarge-hugely", (90, 120), (33, 35), (0.001, 0, 40.3, 0, 0.002, 30.7)),
    CropCase("off-left-top", (60, 80), (40, 40), (0.9, 0, -20.5, 0, 0.9, -17.25)),
    CropCase("off-right-bottom", (60, 80), (40, 40), (0.9, 0, 60.5, 0, 0.9, 40.25)),
    CropCase("wholly-outside", (60, 80), (20, 20), (1, 0, 500, 0, 1, -900)),
    CropCase("touching-left-edge", (60, 80), (20, 20), (1, 0, -19.5, 0, 1, 3)),
    CropCase("mirrored", (60, 80), (40, 40), (-1.3, 0, 70.5, 0, 1.1, 5.25)),
    CropCase("upside-down", (60, 80), (40, 40), (1.3, 0, 7.5, 0, -1.1, 55.25)),
    CropCase("no-width", (60, 80), (12, 12), (0, 0, 33.25, 0, 1, 4)),
    CropCase("no-area", (60, 80), (12, 12), (0, 0, 33.25, 0, 0, 4.5)),
    CropCase("turned-30", (120, 160), (48, 64), turned(1.4, 30, 50.3, -10.7)),
    CropCase("turned-90", (60, 80), (40, 30), (0, -1, 60, 1, 0, 3)),
    CropCase("turned-180", (60, 80), (50, 50), turned(1, 180, 70.2, 49.9)),
    CropCase("turned-a-little", (120, 160), (64, 48), turned(1.1, 0.01, 5.5, 6.5)),
    CropCase("sheared", (60, 80), (40, 40), (1, 0.3, 2, 0, 1, 3)),
    CropCase("wider-than-a-block", (30, 1500), (7, 1301), (1.1, 0, -3.3, 0, 3.1, 1.7)),
    CropCase("taller-than-a-part", (300, 30), (201, 9), (1.1, 0, 3.3, 0, 1.3, 0.7)),
    CropCase("far-coordinates", (300, 400), (32, 32), (1.37, 0, 300.123, 0, 1.37, 200.456)),
    CropCase("nan", (60, 80), (8, 8), (float("nan"), 0, 0, 0, 1, 0)),
    CropCase("infinite", (60, 80), (8, 8), (1, 0, float("inf"), 0, 1, 0)),
    CropCase("enormous", (60, 80), (8, 8), (1e30, 0, 0, 0, -1e30, 0)),
    CropCase("at-the-bounds", (60, 80), (8, 8), (16384, -16384, 2.0**30, 16384, 16384, -(2.0**30))),
    CropCase("subnormal-entries", (60, 80), (8, 8), (1e-40, 1e-40, 3.5, -1e-40, 1e-42, 4.5)),
]


@dataclass(frozen=True)
class DecodeCase:
    name: str
    persons: int
    joints: int
    bins_xy: tuple[int, int]
    split_ratio: float
    seed: int = 0

    def __str__(self):
        return self.name

    def logits(self, dtype=np.float32):
        rng = np.random.default_rng([self.seed, *self.bins_xy])
        rows = [rng.standard_normal((self.persons, self.joints, n)) * 4 for n in self.bins_xy]
        return tuple(row.astype(dtype) for row in rows)

    def affines(self):
        rng = np.random.default_rng([self.seed, self.persons])
        return rng.uniform(-3, 3, (self.persons, 2, 3)).astype(np.float32) * np.float32([1, 1, 200])

    def partner(self):
        order = np.arange(self.joints)
        for a in range(1, self.joints - 1, 2):
            order[[a, a + 1]] = a + 1, a
        return order

    def flip_pairs(self):
        return [(a, a + 1) for a in range(1, self.joints - 1, 2)]


DECODE_CASES = [
    DecodeCase("256x192-k2", 8, 17, (384, 512), 2.0),
    DecodeCase("64x64-k3", 3, 17, (192, 192), 3.0),
    DecodeCase("384x288-k1.5", 2, 14, (432, 576), 1.5),
    DecodeCase("128x128-k2", 1, 16, (256, 256), 2.0),
    DecodeCase("odd-bins", 2, 5, (37, 53), 1.3),
    DecodeCase("shorter-than-a-register", 2, 3, (3, 5), 1.0),
    DecodeCase("one-bin", 2, 3, (1, 1), 2.0),
    DecodeCase("one-joint", 1, 1, (384, 512), 2.0),
    DecodeCase("nobody", 0, 17, (384, 512), 2.0),
    DecodeCase("crowd", 40, 26, (128, 96), 2.0),
]


def special_rows(dtype=np.float32):
    """Name -> (x row, y row) of 37 and 53 bins: ties, NaN, infinities, flat rows."""
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal(37).astype(dtype), rng.standard_normal(53).astype(dtype)

    def changed(row, *changes):
        row = row.copy()
        for where, value in changes:
            row[where] = value
        return row

    nan, inf, top = np.nan, np.inf, 9.0
    return {
        "tie": (changed(x, (5, top), (6, top), (30, top)), changed(y, (17, top), (33, top), (50, top))),
        "tie-in-one-lane": (changed(x, (3, top), (19, top), (35, top)), changed(y, (4, top), (20, top))),
        "first-bin": (changed(x, (0, top)), changed(y, (0, top))),
        "last-bin": (changed(x, (36, top)), changed(y, (52, top))),
        "flat": (np.full(37, 2, dtype), np.full(53, -1, dtype)),
        "zeros-of-both-signs": (changed(np.zeros(37, dtype), (0, -0.0)), np.zeros(53, dtype)),
        "all-negative": (x - dtype(50), y - dtype(70)),
        "nan-before-peak": (changed(x, (0, nan), (9, top)), changed(y, (1, nan), (20, top))),
        "nan-beside-peak": (changed(x, (8, nan), (9, top)), changed(y, (21, nan), (20, top))),
        "nan-everywhere": (np.full(37, nan, dtype), np.full(53, nan, dtype)),
        "nan-in-x-only": (np.full(37, nan, dtype), y),
        "infinite-never-wins": (changed(x, (4, inf), (7, top)), changed(y, (4, -inf), (9, top))),
        "infinite-everywhere": (np.full(37, inf, dtype), np.full(53, -inf, dtype)),
        "one-finite": (changed(np.full(37, nan, dtype), (11, -3.0)), changed(np.full(53, -inf, dtype), (12, -4.0))),
        "large": (changed(x * 0 - 60000, (4, 60000)), changed(y * 0 + 60000, (9, 60001))),
    }


REFINEMENTS = ("none", "parabola", "dark", "expectation")
SCORES = ("min_logit", "mean_logit", "min_softmax")


def third_axis(case, dtype=np.float32):
    """Logits of a third axis for a DecodeCase: three bins to every two of x."""
    rng = np.random.default_rng([case.seed, 3, *case.bins_xy])
    return (rng.standard_normal((case.persons, case.joints, case.bins_xy[0] * 3 // 2)) * 4).astype(dtype)


def wide_rows(case, dtype=np.float32):
    """Rows of one smooth peak, anywhere, or of two near each other in height."""
    rng = np.random.default_rng([case.seed, 4, *case.bins_xy])
    rows = []
    for n in case.bins_xy:
        shape = (case.persons, case.joints, 1)
        peaks = [-((np.arange(n) - rng.uniform(0, n, shape)) ** 2) / (2 * rng.uniform(1, 20, shape) ** 2) for _ in "ab"]
        noise = 0.05 * rng.standard_normal((*shape[:2], n))
        rows.append((np.maximum(peaks[0], peaks[1] - rng.uniform(0, 1.5, shape)) + noise).astype(dtype))
    return tuple(rows)


@dataclass(frozen=True)
class DetectionCase:
    name: str
    form: DetectionForm
    size_hw: tuple[int, int] = (96, 160)
    frame_hw: tuple[int, int] = (270, 480)
    rows: int = 300
    place: str = "corner"
    iou: float = 0.5
    threshold: float = 0.3
    most: int = 300

    def __str__(self):
        return self.name

    def outputs(self, dtype=np.float32):
        """Noisy boxes of a few sizes all over the input, and scores on both sides of the threshold."""
        form, rng = self.form, np.random.default_rng([len(self.name), self.rows])
        parts = [form.boxes, form.scores, *([form.label] if form.label else [])]
        tables = {}
        for output in sorted({part.output for part in parts}):
            mine = [part for part in parts if part.output == output]
            width = max(p.column + (4 if p is form.boxes else form.classes if p is form.scores else 1) for p in mine)
            if form.scores.output == output and form.objectness is not None:
                width = max(width, form.objectness + 1)
            tables[output] = rng.random((self.rows, width))
        box = tables[form.boxes.output][:, form.boxes.column : form.boxes.column + 4]
        box[:] = self._boxes(rng)
        score = tables[form.scores.output]
        if form.activation != "none":
            columns = [*range(form.scores.column, form.scores.column + form.classes)]
            columns += [] if form.objectness is None else [form.objectness]
            score[:, columns] = rng.standard_normal((self.rows, len(columns))) * 2
        if form.label is not None:
            labels = rng.integers(0, 3, self.rows)
            tables[form.label.output][:, form.label.column] = labels
        rows_first = {part.output: part.rows_first for part in parts}
        made = [tables[i] if rows_first[i] else tables[i].T for i in tables]
        return [np.ascontiguousarray(each[None]).astype(dtype) for each in made]

    def _boxes(self, rng):
        height, width = self.size_hw
        if self.form.box_form == "grid":
            return np.concatenate([rng.uniform(-1, 2, (self.rows, 2)), rng.uniform(-1, 2, (self.rows, 2))], axis=1)
        centre = rng.uniform((-5, -5), (width + 5, height + 5), (self.rows, 2))
        sides = rng.uniform(4, 60, (self.rows, 2))
        if self.form.units == "shares":
            centre, sides = centre / (width, height), sides / (width, height)
        if self.form.box_form == "cxcywh":
            return np.concatenate([centre, sides], axis=1)
        return np.concatenate([centre - sides / 2, centre + sides / 2], axis=1)

    def arguments(self):
        return {
            "to_frame": letterbox(self.frame_hw, self.size_hw, self.place).to_frame,
            "size_hw": self.size_hw,
            "frame_hw": self.frame_hw,
            "score_threshold": self.threshold,
            "iou": self.iou,
            "most": self.most,
        }


BOXES = Part(0)
GRID = {"box_form": "grid", "strides": (8, 16, 32), "boxes": BOXES}
DETECTION_CASES = [
    DetectionCase("rtmdet", DetectionForm("xyxy", BOXES, Part(1))),
    DetectionCase("rtmdet-with-nms", DetectionForm("xyxy", BOXES, Part(0, 4), label=Part(1), suppress=False), rows=40),
    DetectionCase("yolox", DetectionForm(**GRID, scores=Part(0, 5), classes=80, objectness=4), rows=315, threshold=0.2),
    DetectionCase(
        "yolox-logits",
        DetectionForm(**GRID, scores=Part(0, 5), classes=3, objectness=4, activation="sigmoid"),
        rows=315,
    ),
    DetectionCase(
        "yolov8",
        DetectionForm("cxcywh", Part(0, 0, False), Part(0, 4, False), classes=80, person_class=7),
        place="centre",
    ),
    DetectionCase(
        "rt-detr",
        DetectionForm("cxcywh", BOXES, Part(1), units="shares", classes=80, activation="sigmoid", suppress=False),
        place="stretch",
    ),
    DetectionCase(
        "detr",
        DetectionForm(
            "cxcywh", BOXES, Part(1), "shares", classes=5, person_class=1, activation="softmax", suppress=False
        ),
        rows=100,
    ),
    DetectionCase(
        "end-to-end", DetectionForm("xyxy", BOXES, Part(0, 4), label=Part(0, 5), person_class=2, suppress=False)
    ),
    DetectionCase("yolo-nas-like", DetectionForm("xyxy", Part(1), Part(0, 1), classes=4, objectness=0), threshold=0.1),
    DetectionCase("most", DetectionForm("xyxy", BOXES, Part(1)), most=3),
    DetectionCase("more-candidates-than-take-part", DetectionForm("xyxy", BOXES, Part(1)), rows=1500, threshold=0.1),
    DetectionCase("nobody", DetectionForm("xyxy", BOXES, Part(1)), threshold=1.0),
    DetectionCase("no-rows", DetectionForm("xyxy", BOXES, Part(1)), rows=0),
    DetectionCase("one-row", DetectionForm("xyxy", BOXES, Part(1)), rows=1, threshold=0.0),
    DetectionCase("enlarged", DetectionForm("xyxy", BOXES, Part(1)), frame_hw=(31, 41), place="centre"),
    DetectionCase("everything-overlaps", DetectionForm("xyxy", BOXES, Part(1)), iou=0.0),
]


def unfit_rows():
    """Name -> (box, score) of a row that is no candidate, whatever the others are."""
    nan, inf, huge = float("nan"), float("inf"), 3e38
    fine = (10.0, 20.0, 40.0, 60.0)
    return {
        "nan-score": (fine, nan),
        "infinite-score": (fine, inf),
        "minus-infinite-score": (fine, -inf),
        "nan-corner": ((10.0, nan, 40.0, 60.0), 0.9),
        "infinite-corner": ((10.0, 20.0, inf, 60.0), 0.9),
        "no-width": ((10.0, 20.0, 10.0, 60.0), 0.9),
        "turned-over": ((40.0, 60.0, 10.0, 20.0), 0.9),
        "left-of-the-frame": ((-40.0, 20.0, -10.0, 60.0), 0.9),
        "in-the-border": ((10.0, 91.0, 40.0, 95.0), 0.9),
        "beyond-float": ((-huge, 5.0, -huge, 6.0), 0.9),
        "below-the-threshold": (fine, 0.29999),
    }

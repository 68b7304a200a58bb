"""The fused ops in float64 numpy, written from their definition (docs/kernels.md), for tests alone.

expected = crop_reference(frame, affines, (256, 192), mean=MEAN, std=STD)      # N x 3 x h x w
"""

import numpy as np

LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
REFINE_RADIUS = 3


def usable(affine):
    """Beyond these bounds, or not finite: the crop is outside the frame."""
    return bool((np.abs(affine[:, :2]) <= 2**14).all() and (np.abs(affine[:, 2]) <= 2**30).all())


def rgb_from_nv12(luma, chroma, matrix, value_range):
    """H x W x 3 float64 in 0..255, not rounded; each pixel has the chroma of its 2 x 2 block."""
    red, blue = LUMA_WEIGHTS[matrix]
    y = luma.astype(np.float64)
    u, v = (np.repeat(np.repeat(chroma[:, c::2].astype(np.float64) - 128, 2, 0), 2, 1) for c in (0, 1))
    if value_range == "limited":
        y, u, v = (y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.clip(np.stack([r, g, b], axis=-1), 0, 255)


def sample(frame, affine, size_hw, border):
    """h x w x channels: bilinear at the affine's positions, `border` outside the frame."""
    height, width = size_hw
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    a = affine.astype(np.float64)
    fx, fy = a[0, 0] * x + a[0, 1] * y + a[0, 2], a[1, 0] * x + a[1, 1] * y + a[1, 2]
    x0, y0 = np.floor(fx), np.floor(fy)

    def tap(dx, dy):
        column, row = x0 + dx, y0 + dy
        inside = (column >= 0) & (column < frame.shape[1]) & (row >= 0) & (row < frame.shape[0])
        values = np.full((height, width, frame.shape[2]), border, np.float64)
        values[inside] = frame[row[inside].astype(int), column[inside].astype(int)]
        return values

    u, v = (fx - x0)[..., None], (fy - y0)[..., None]
    top, bottom = tap(0, 0) * (1 - u) + tap(1, 0) * u, tap(0, 1) * (1 - u) + tap(1, 1) * u
    return top * (1 - v) + bottom * v


def crop_reference(
    frame,
    affines,
    size_hw,
    *,
    mean,
    std,
    channel_order="rgb",
    pixel_format="bgr",
    yuv_matrix="bt601",
    yuv_range="limited",
    border=0,
):
    """N x 3 x h x w float64."""
    if pixel_format == "nv12":
        luma, chroma = frame if isinstance(frame, tuple) else np.split(frame, [frame.shape[0] * 2 // 3])
        frame, pixel_format = rgb_from_nv12(luma, chroma, yuv_matrix, yuv_range), "rgb"
        gain, black = (255 / 219, 16) if yuv_range == "limited" else (1, 0)
        border = np.clip(gain * (np.floor(border / gain + black + 0.5) - black), 0, 255)  # the nearest luma's
    crops = [sample(frame, a, size_hw, border) if usable(a) else np.full((*size_hw, 3), border) for a in affines]
    grey = np.stack(crops) if crops else np.zeros((0, *size_hw, 3))
    ordered = grey if channel_order == pixel_format else grey[..., ::-1]
    return ((ordered - np.asarray(mean)) / np.asarray(std)).transpose(0, 3, 1, 2)


def crop_tolerance(mean, std, dtype):
    """Largest allowed error: eight roundings of a grey level and four of the result in float32; then those of half."""
    grey, result = 255 / min(std), 255 / min(std) + max(abs(m / s) for m, s in zip(mean, std, strict=True))
    single = 8 * grey * 2**-24 + 4 * result * 2**-24
    return single if np.dtype(dtype) == np.float32 else single + result * 2**-11 + 2**-25


def merged_rows(rows, mirrored, partner, shift, *, reverse):
    """Logits averaged with the mirrored crop's: joints swapped, x reversed and moved by `shift`, last bin kept."""
    other = mirrored.astype(np.float64)[:, partner]
    if reverse:
        other = other[..., ::-1].copy()
        if shift:
            other[..., :-shift] = other[..., shift:].copy()
    return rows.astype(np.float64) * 0.5 + other * 0.5


def refined(row, peak, mode):
    """Offset of one row's peak from its bin."""
    radius = min(1 if mode == "parabola" else REFINE_RADIUS, peak, len(row) - 1 - peak)
    if mode == "none" or radius < 1:
        return 0.0
    t = np.arange(-radius, radius + 1)
    window = row[peak - radius : peak + radius + 1]
    if mode == "expectation":
        weight = np.where(np.isfinite(window), np.exp(np.where(np.isfinite(window), window, 0) - row[peak]), 0)
        return float(np.clip((t * weight).sum() / weight.sum(), -0.5, 0.5))
    if not np.isfinite(window).all():
        return 0.0
    curvature, slope, _ = np.polyfit(t, window - row[peak], 2)
    return float(np.clip(-slope / (2 * curvature), -0.5, 0.5)) if curvature < -1e-12 else 0.0


def row_reference(row, split_ratio, mode):
    """(crop coordinate, largest logit or None, largest softmax) of one row."""
    finite = np.where(np.isfinite(row), row, -np.inf)
    if not np.isfinite(finite).any():
        return len(row) / split_ratio / 2, None, None
    peak = int(np.argmax(finite))
    softmax = 1 / np.exp(finite - finite[peak]).sum()
    return (peak + refined(row, peak, mode)) / split_ratio, float(finite[peak]), float(softmax)


SPREAD_OFFSETS = (2, 5, 12, 28, 64)
SPREAD_CELLS = (2, 2.5, 5, 11.5, 26, 36)  # bins that the peak and each offset stand for
SECOND_GAP = 16


def spread_reference(row, sharpness):
    """Second moment, in bins, about the first largest logit of one row; NaN where none is finite."""
    finite = np.where(np.isfinite(row), row, -np.inf)
    if not np.isfinite(finite).any():
        return np.nan
    peak = int(np.argmax(finite))
    weight, moment = SPREAD_CELLS[0], 0.0
    for side in (-1, 1):
        lowest = finite[peak]
        for offset, cell in zip(SPREAD_OFFSETS, SPREAD_CELLS[1:], strict=True):
            where = peak + side * offset
            if not 0 <= where < len(row) or not np.isfinite(row[where]):
                break
            lowest = min(lowest, row[where])
            sampled = cell * np.exp(sharpness * (lowest - finite[peak]))
            weight, moment = weight + sampled, moment + offset**2 * sampled
    return moment / weight


def second_reference(row, sharpness):
    """Bin of the largest local maximum that lies apart from the first and weighs half as much; None without one."""
    finite = np.where(np.isfinite(row), row, -np.inf)
    if not np.isfinite(finite).any():
        return None
    first = int(np.argmax(finite))
    padded = np.concatenate([[-np.inf], row, [-np.inf]])
    peaks = np.isfinite(row) & ~(padded[:-2] >= row) & ~(padded[2:] > row)
    peaks &= np.abs(np.arange(len(row)) - first) > SECOND_GAP
    peaks &= finite >= finite[first] - np.log(2) / sharpness
    return int(np.argmax(np.where(peaks, finite, -np.inf))) if peaks.any() else None


def spread_columns(x, y, affine, split_ratio, rule):
    """2: standard deviations in frame pixels. `rule`: sharpness, gain, curve, floor."""
    sharpness, gain, curve, floor = rule
    raw = np.array([spread_reference(row, sharpness) for row in (x, y)])
    held = (floor + gain * raw + curve * raw**2) / split_ratio**2
    return np.sqrt(affine[:, :2].astype(np.float64) ** 2 @ held)


def second_columns(x, y, affine, split_ratio, rule, refine):
    """2: where the joint may be instead, NaN where no second peak is near the first."""
    seconds = [second_reference(row, rule[0]) for row in (x, y)]
    if seconds == [None, None]:
        return np.full(2, np.nan)
    found = [
        row_reference(row, split_ratio, refine)[0]
        if other is None
        else (other + refined(row, other, refine)) / split_ratio
        for row, other in zip((x, y), seconds, strict=True)
    ]
    return affine.astype(np.float64) @ (*found, 1)


def depth_column(row, affine, refine, span, pixels, score):
    """The depth of a z row: -span at its first bin, +span beyond its last; NaN where the joint is not seen."""
    place, top, _ = row_reference(row, len(row) / 2, refine)
    if top is None or not score > 0:
        return np.nan
    scale = np.sqrt(abs(np.linalg.det(affine[:, :2].astype(np.float64)))) if pixels else 1.0
    return (place - 1) * span * scale


def decode_reference(
    simcc_x,
    simcc_y,
    affines,
    split_ratio,
    *,
    score="min_logit",
    refine="none",
    simcc_z=None,
    depth=None,  # span, in pixels
    spread=None,  # sharpness, gain, curve, floor
    second=False,
    flipped=None,
    partner=None,
    shift=0,
):
    """N x K x C float64."""
    x, y = simcc_x.astype(np.float64), simcc_y.astype(np.float64)
    z = None if simcc_z is None else simcc_z.astype(np.float64)
    if flipped is not None:
        x = merged_rows(simcc_x, flipped[0], partner, shift, reverse=True)
        y = merged_rows(simcc_y, flipped[1], partner, 0, reverse=False)
        z = None if simcc_z is None else merged_rows(simcc_z, flipped[2], partner, 0, reverse=False)
    columns = 3 + (z is not None) + 2 * (spread is not None) + 2 * second
    out = np.zeros((*x.shape[:2], columns))
    for n, k in np.ndindex(*x.shape[:2]):
        rows, affine = (x[n, k], y[n, k]), affines[n]
        px, top_x, soft_x = row_reference(rows[0], split_ratio, refine)
        py, top_y, soft_y = row_reference(rows[1], split_ratio, refine)
        out[n, k, :2] = affine.astype(np.float64) @ (px, py, 1)
        if top_x is not None and top_y is not None:
            rules = {
                "min_logit": min(top_x, top_y),
                "mean_logit": (top_x + top_y) / 2,
                "min_softmax": min(soft_x, soft_y),
            }
            out[n, k, 2] = rules[score]
        more = []
        if z is not None:
            more += [depth_column(z[n, k], affine, refine, *depth, out[n, k, 2])]
        if spread is not None:
            more += [*spread_columns(*rows, affine, split_ratio, spread)]
        if second:
            more += [*second_columns(*rows, affine, split_ratio, spread, refine)]
        out[n, k, 3:] = more
    return out


def activated(values, activation, axis=-1):
    """Scores of logits; only finite logits take part in a softmax."""
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-values))
    if activation == "softmax":
        finite = np.where(np.isfinite(values), values, -np.inf)
        return np.exp(finite - finite.max(axis, keepdims=True)) / np.exp(finite - finite.max(axis, keepdims=True)).sum(
            axis, keepdims=True
        )
    return values


def table_of(outputs, part):
    """M x columns, float64, from the part's first column on."""
    array = outputs[part.output][0].astype(np.float64)
    rows = array[:, None] if array.ndim == 1 else array if part.rows_first else array.T
    return rows[:, part.column :]


def grid_of(size_hw, strides):
    """M x 3: column, row and stride of each cell, finest grid first."""
    cells = []
    for stride in strides:
        rows, columns = np.mgrid[: size_hw[0] // stride, : size_hw[1] // stride]
        cells.append(np.stack([columns.ravel(), rows.ravel(), np.full(rows.size, stride)], axis=1))
    return np.concatenate(cells)


def overlap(a, b):
    """Intersection over union of two boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (sides <= 0).any():
        return 0.0
    return sides.prod() / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - sides.prod())


def detections_reference(outputs, form, *, to_frame, size_hw, frame_hw, score_threshold, iou, most=300):
    """Boxes n x 4 and scores n, float64."""
    table = table_of(outputs, form.scores)
    with np.errstate(all="ignore"):
        scores = activated(table[:, : form.classes], form.activation)[:, 0 if form.label else form.person_class]
        own = table[:, 0 if form.label else form.person_class]
        if form.objectness is not None:
            column = table_of(outputs, form.scores)[:, form.objectness - form.scores.column]
            if form.objectness < form.scores.column:
                column = table_of(
                    outputs, type(form.scores)(form.scores.output, form.objectness, form.scores.rows_first)
                )[:, 0]
            scores = scores * activated(column, form.activation if form.activation == "sigmoid" else "none")
        boxes = table_of(outputs, form.boxes)[:, :4]
        if form.box_form == "grid":
            cells = grid_of(size_hw, form.strides)
            centres, sides = (boxes[:, :2] + cells[:, :2]) * cells[:, 2:], np.exp(boxes[:, 2:]) * cells[:, 2:]
            boxes = np.concatenate([centres, sides], axis=1)
        if form.units == "shares":
            boxes = boxes * np.array([size_hw[1], size_hw[0]] * 2)
        if form.box_form != "xyxy":
            boxes = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
        scale, shift = np.diag(to_frame[:, :2]).astype(np.float64), to_frame[:, 2].astype(np.float64)
        seen = np.clip(boxes * np.tile(scale, 2) + np.tile(shift, 2), 0, np.array([frame_hw[1], frame_hw[0]] * 2))
        keep = np.isfinite(own) & np.isfinite(scores) & (scores >= np.float32(score_threshold))
        keep &= (np.abs(boxes) <= np.finfo(np.float32).max).all(axis=1) & (seen[:, 2:] > seen[:, :2]).all(axis=1)
    if form.label is not None:
        keep &= table_of(outputs, form.label)[:, 0] == form.person_class
    order = [row for row in np.argsort(-scores, kind="stable") if keep[row]][:1024]
    chosen = []
    for row in order:
        if not (form.suppress and any(overlap(boxes[row], boxes[better]) > iou for better in chosen)):
            chosen.append(row)
    chosen = chosen[:most]
    return seen[chosen], scores[chosen]

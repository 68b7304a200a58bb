"""The GPU run time's arithmetic: which batch bucket, which bytes of a frame to upload, where buffers lie. Pure code.

A frame is seen as rows of bytes (`FrameLayout`), so that BGR and NV12 are one case. Regions of it are uploaded *in
place*: each lands where it lies in the frame, so the crop keeps its affines and its border rule, and pixels that were
not uploaded are never read. No CUDA here; `sdk.runtime.cuda.upload` and `frame_lane` do what is planned.

    regions = sampled_regions(affines, (256, 192), (1080, 1920))
    plan = choose_transfer(regions, FrameLayout(1080, 1920, nv12=False), costs)
    plan.kind, plan.rects                        # 'union', (Rect(top=212, bottom=690, left=1203, right=2412),)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ALIGNMENT",
    "BufferLayout",
    "FrameLayout",
    "Rect",
    "Transfer",
    "TransferCosts",
    "TransferKind",
    "bucket_of",
    "buckets",
    "buffer_layout",
    "choose_transfer",
    "mirrored_affines",
    "off_frame_affines",
    "sampled_regions",
    "transfers",
]

ALIGNMENT = 256  # bytes; what TensorRT asks of tensors and activations
OFF_FRAME = ((0.0, 0.0, -64.0), (0.0, 0.0, -64.0))  # an affine: a crop that reads nothing
MARGIN_PX = 2  # beside the two bilinear taps: the crop's fixed point may round a coordinate across a whole pixel

TransferKind = Literal["whole", "union", "boxes"]
Float32Array = NDArray[np.float32]
Int64Array = NDArray[np.int64]


def buckets(smallest: int, largest: int) -> tuple[int, ...]:
    """Batch sizes that get a graph: the powers of two between `smallest` and `largest`, and both of these."""
    powers = (1 << exponent for exponent in range(largest.bit_length()))
    return tuple(sorted({smallest, largest} | {power for power in powers if smallest <= power <= largest}))


def bucket_of(count: int, choices: Sequence[int]) -> int:
    """The smallest of the ascending `choices` that holds `count` persons; never more than the last is asked."""
    for choice in choices:
        if count <= choice:
            return choice
    raise AssertionError(f"{count} persons exceed the largest bucket {choices[-1]}; the estimator cuts chunks")


@dataclass(frozen=True)
class Rect:
    """Rows `top` to `bottom` and bytes `left` to `right` of a frame seen as rows of bytes; the ends are exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def rows(self) -> int:
        return self.bottom - self.top

    @property
    def row_bytes(self) -> int:
        return self.right - self.left

    @property
    def size_bytes(self) -> int:
        return self.rows * self.row_bytes


@dataclass(frozen=True)
class FrameLayout:
    """A frame as rows of bytes. NV12 has H rows of luma, then H / 2 rows of chroma, a byte a column in both."""

    height: int  # pixels
    width: int
    nv12: bool

    @property
    def rows(self) -> int:
        return self.height * 3 // 2 if self.nv12 else self.height

    @property
    def row_bytes(self) -> int:
        return self.width if self.nv12 else 3 * self.width

    @property
    def size_bytes(self) -> int:
        return self.rows * self.row_bytes

    @property
    def whole(self) -> Rect:
        return Rect(0, self.rows, 0, self.row_bytes)

    def rects(self, region: Iterable[int]) -> tuple[Rect, ...]:
        """The bytes of a pixel region (x0, y0, x1, y1), ends exclusive: one rectangle, or luma and chroma of NV12."""
        x0, y0, x1, y1 = (int(edge) for edge in region)
        if x1 <= x0 or y1 <= y0:
            return ()
        if not self.nv12:
            return (Rect(y0, y1, 3 * x0, 3 * x1),)
        left, right = x0 // 2 * 2, (x1 + 1) // 2 * 2  # a chroma pair serves two columns and two rows
        chroma = Rect(self.height + y0 // 2, self.height + (y1 + 1) // 2, left, right)
        return (Rect(y0, y1, left, right), chroma)

    def sizes(self, regions: Iterable[tuple[int, int, int, int]]) -> list[tuple[int, int]]:
        """(rows, bytes a row) of each rectangle that `rects` gives for each region, none of which is empty."""
        if not self.nv12:
            return [(y1 - y0, 3 * (x1 - x0)) for x0, y0, x1, y1 in regions]
        sizes = []
        for x0, y0, x1, y1 in regions:
            row_bytes = (x1 + 1) // 2 * 2 - x0 // 2 * 2
            sizes += [(y1 - y0, row_bytes), ((y1 + 1) // 2 - y0 // 2, row_bytes)]
        return sizes


def sampled_regions(
    affines: Float32Array,  # N x 2 x 3, crop -> frame pixels
    size_hw: tuple[int, int],
    frame_hw: tuple[int, int],
) -> Int64Array:
    """N x 4 (x0, y0, x1, y1), ends exclusive: every frame pixel that a bilinear tap of each crop may read.

    An empty region (x1 <= x0 or y1 <= y0) belongs to a crop wholly outside the frame.
    """
    height, width = size_hw
    exact = np.array(affines, np.float64).reshape(-1, 2, 3)
    usable = np.isfinite(exact).all(axis=(1, 2))
    if not usable.all():
        exact[~usable] = OFF_FRAME  # as the crop takes them
    spans = exact[:, :, :2] * (width - 1, height - 1)  # N x 2 x 2: from the first crop pixel to the last
    first, limit = exact[:, :, 2], frame_hw[::-1]
    low = np.floor(first + np.minimum(spans, 0).sum(axis=2)) - MARGIN_PX
    high = np.floor(first + np.maximum(spans, 0).sum(axis=2)) + 2 + MARGIN_PX
    return np.concatenate([np.clip(low, 0, limit), np.clip(high, 0, limit)], axis=1).astype(np.int64)


def mirrored_affines(affines: Float32Array, crop_width: int) -> Float32Array:  # N x 2 x 3
    """N x 2 x 3: the affines whose crops are the mirror images of those of `affines` (x becomes w - 1 - x)."""
    mirrored = np.array(affines, np.float32)
    exact = np.asarray(affines, np.float64)
    mirrored[:, :, 0] = -affines[:, :, 0]
    mirrored[:, :, 2] = exact[:, :, 2] + exact[:, :, 0] * (crop_width - 1)
    return mirrored


def off_frame_affines(count: int) -> Float32Array:
    """`count` x 2 x 3: every pixel of these crops lies outside any frame. They fill up a bucket and read nothing."""
    return np.tile(np.array(OFF_FRAME, np.float32), (count, 1, 1))


@dataclass(frozen=True)
class TransferCosts:
    """What moving bytes costs on one device, measured once (`sdk.runtime.cuda.bandwidth`).

    A pageable frame is first copied to pinned memory by the host (`host_*`); a pinned frame is not.
    """

    copy_s: float  # of one asynchronous copy among several, whatever its size
    bytes_per_s: float  # host to device; infinite where the device reads host memory itself
    row_s: float = 0.0  # of each row of a copy that is not whole rows
    host_copy_s: float = 0.0  # of one rectangle copied by the host and handed to the device
    host_bytes_per_s: float = float("inf")
    host_row_s: float = 0.0

    def of(self, rows: int, row_bytes: int, layout: FrameLayout, *, pinned: bool) -> tuple[float, float]:
        """Seconds that the host and that the bus takes for so many rows of so many bytes."""
        size = rows * row_bytes
        split = 0 if row_bytes == layout.row_bytes else rows  # whole rows are one piece
        bus = self.copy_s + split * self.row_s + size / self.bytes_per_s
        return (0.0 if pinned else self.host_copy_s + split * self.host_row_s + size / self.host_bytes_per_s), bus

    def bands(self, host_s: float, bus_s: float, rows: int) -> int:
        """Into how many bands of rows to cut a rectangle, so that host and bus work at once.

        Of n bands, at a cost c each, one n-th of the faster side is not hidden behind the slower: the time is
        slower + faster / n + n c, least at n = sqrt(faster / c).
        """
        cost = self.host_copy_s + self.copy_s
        faster = min(host_s, bus_s)
        return 1 if faster < 2 * cost or cost == 0 else min(round(sqrt(faster / cost)), rows)


@dataclass(frozen=True)
class Transfer:
    """A way to upload a frame: which rectangles, into how many bands of rows each is cut, the cost by the model."""

    kind: TransferKind
    rects: tuple[Rect, ...]
    bands: tuple[int, ...]
    seconds: float

    @property
    def size_bytes(self) -> int:
        return sum(rect.size_bytes for rect in self.rects)

    @property
    def pieces(self) -> tuple[Rect, ...]:
        """The rectangles as they are copied: band by band."""
        return tuple(band for rect, count in zip(self.rects, self.bands, strict=True) for band in _cut(rect, count))


def _cut(rect: Rect, count: int) -> Iterable[Rect]:
    if count == 1:
        return (rect,)
    edges = [rect.top + rect.rows * index // count for index in range(count + 1)]
    return (Rect(top, bottom, rect.left, rect.right) for top, bottom in pairwise(edges))


Region = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, ends exclusive


def transfers(
    regions: Int64Array,  # N x 4, as sampled_regions gives
    layout: FrameLayout,
    costs: TransferCosts,
    *,
    pinned: bool = False,
) -> tuple[Transfer, ...]:
    """The three ways, costed: the whole frame, the smallest rectangle about all regions, each region by itself."""
    return tuple(
        Transfer(kind, _rects(ways, layout), *_modelled(ways, layout, costs, pinned=pinned))
        for kind, ways in _ways(regions, layout)
    )


def choose_transfer(
    regions: Int64Array,  # N x 4, as sampled_regions gives
    layout: FrameLayout,
    costs: TransferCosts,
    *,
    pinned: bool = False,
) -> Transfer:
    """The cheapest of the three; between equals, the one with fewer copies."""
    costed = [(*_modelled(way, layout, costs, pinned=pinned), kind, way) for kind, way in _ways(regions, layout)]
    bands, seconds, kind, way = min(costed, key=lambda each: (each[1], len(each[0])))
    return Transfer(kind, _rects(way, layout), bands, seconds)


def _ways(regions: Int64Array, layout: FrameLayout) -> tuple[tuple[TransferKind, list[Region]], ...]:
    kept = [(x0, y0, x1, y1) for x0, y0, x1, y1 in regions.tolist() if x1 > x0 and y1 > y0]
    left, top, right, bottom = zip(*kept, strict=True) if kept else ((), (), (), ())
    union = [(min(left), min(top), max(right), max(bottom))] if kept else []
    return ("whole", [(0, 0, layout.width, layout.height)]), ("union", union), ("boxes", kept)


def _rects(way: list[Region], layout: FrameLayout) -> tuple[Rect, ...]:
    return tuple(rect for region in way for rect in layout.rects(region))


def _modelled(
    way: list[Region], layout: FrameLayout, costs: TransferCosts, *, pinned: bool
) -> tuple[tuple[int, ...], float]:
    """Bands of each rectangle, and seconds in all: the host copies one piece while the bus moves the one before.

    It runs on every frame, so it works on numbers; the rectangles are made for the way that is taken.
    """
    host = bus = 0.0
    cut = []
    for rows, row_bytes in layout.sizes(way):
        host_s, bus_s = costs.of(rows, row_bytes, layout, pinned=pinned)
        count = costs.bands(host_s, bus_s, rows)
        cut.append(count)
        host_each = (host_s - costs.host_copy_s) / count + costs.host_copy_s if host_s else 0.0
        bus_each = (bus_s - costs.copy_s) / count + costs.copy_s
        for _ in range(count):
            host += host_each
            bus = max(host, bus) + bus_each
    return tuple(cut), bus


@dataclass(frozen=True)
class BufferLayout:
    """Where each buffer lies in one allocation. Offsets are multiples of `ALIGNMENT`."""

    offsets: Mapping[str, int]
    sizes: Mapping[str, int]
    total_bytes: int


def buffer_layout(sizes: Mapping[str, int]) -> BufferLayout:
    """Buffers of these bytes, one after the other in the order given. An empty one still has an address of its own."""
    offsets, end = {}, 0
    for name, size in sizes.items():
        offsets[name] = end
        end += max(1, ceil(size / ALIGNMENT)) * ALIGNMENT
    return BufferLayout(offsets, dict(sizes), max(end, ALIGNMENT))

"""The GPU run time's arithmetic: which batch bucket, which bytes of a frame to upload, where buffers lie. Pure code.

A frame is seen as rows of bytes (`FrameLayout`), so that BGR and NV12 are one case. Regions of it are uploaded *in
place*: each lands where it lies in the frame, so the crop keeps its affines and its border rule, and pixels that were
not uploaded are never read. No CUDA here; `sdk.runtime.cuda.lane` does what is planned.

    plan = choose_transfer(sampled_regions(affines, (256, 192), (1080, 1920)), bgr_layout(1080, 1920), costs)
    plan.kind, plan.rects                        # 'union', (Rect(top=212, bottom=690, left=1203, right=2412),)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, isfinite, sqrt
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
    "bgr_layout",
    "bucket_of",
    "buckets",
    "buffer_layout",
    "choose_transfer",
    "mirrored_affines",
    "nv12_layout",
    "off_frame_affines",
    "sampled_regions",
    "transfers",
]

ALIGNMENT = 256  # bytes; what TensorRT asks of tensors and activations
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
        left, right = x0 // 2 * 2, ceil(x1 / 2) * 2  # a chroma pair serves two columns and two rows
        chroma = Rect(self.height + y0 // 2, self.height + ceil(y1 / 2), left, right)
        return (Rect(y0, y1, left, right), chroma)


def bgr_layout(height: int, width: int) -> FrameLayout:
    """A packed H x W x 3 frame."""
    return FrameLayout(height, width, nv12=False)


def nv12_layout(height: int, width: int) -> FrameLayout:
    """An NV12 frame of H x W pixels."""
    return FrameLayout(height, width, nv12=True)


def sampled_regions(
    affines: Float32Array,  # N x 2 x 3, crop -> frame pixels
    size_hw: tuple[int, int],
    frame_hw: tuple[int, int],
) -> Int64Array:
    """N x 4 (x0, y0, x1, y1), ends exclusive: every frame pixel that a bilinear tap of each crop may read.

    An empty region (x1 <= x0 or y1 <= y0) belongs to a crop wholly outside the frame.
    """
    height, width = size_hw
    corners = np.array([(0, 0, 1), (width - 1, 0, 1), (0, height - 1, 1), (width - 1, height - 1, 1)], np.float64)
    limit = np.array(frame_hw[::-1], np.float64)
    exact = np.asarray(affines, np.float64).reshape(-1, 2, 3)
    usable = np.isfinite(exact).all(axis=(1, 2), keepdims=True)  # the crop takes any other as outside the frame
    points = np.where(usable, np.where(usable, exact, 0) @ corners.T, -np.inf)  # N x 2 x 4
    low = np.clip(np.floor(points.min(axis=2)) - MARGIN_PX, 0, limit)
    high = np.clip(np.floor(points.max(axis=2)) + 2 + MARGIN_PX, 0, limit)
    return np.concatenate([low, high], axis=1).astype(np.int64)


def mirrored_affines(affines: Float32Array, crop_width: int) -> Float32Array:  # N x 2 x 3
    """N x 2 x 3: the affines whose crops are the mirror images of those of `affines` (x becomes w - 1 - x)."""
    mirrored = np.array(affines, np.float32)
    exact = np.asarray(affines, np.float64)
    mirrored[:, :, 0] = -affines[:, :, 0]
    mirrored[:, :, 2] = exact[:, :, 2] + exact[:, :, 0] * (crop_width - 1)
    return mirrored


def off_frame_affines(count: int) -> Float32Array:
    """`count` x 2 x 3: every pixel of these crops lies outside any frame. They fill up a bucket and read nothing."""
    affines = np.zeros((count, 2, 3), np.float32)
    affines[:, :, 2] = -64.0
    return affines


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

    def seconds(self, rects: Iterable[Rect], layout: FrameLayout, *, pinned: bool) -> float:
        """The modelled time to bring `rects` to the device; the host copies one while the bus moves the one before."""
        host = device = 0.0
        for rect in rects:
            if not pinned:
                host += self._host_s(rect, layout)
            device = max(host, device) + self._bus_s(rect, layout)
        return device

    def bands(self, rect: Rect, layout: FrameLayout) -> tuple[Rect, ...]:
        """A rectangle of a pageable frame cut into bands of rows, so that host and bus work at once.

        Of n bands, at a cost c each, one n-th of the faster side is not hidden behind the slower: the time is
        slower + faster / n + n c, least at n = sqrt(faster / c).
        """
        cost = self.host_copy_s + self.copy_s
        if cost == 0 or not isfinite(self.bytes_per_s):
            return (rect,)
        faster = min(self._host_s(rect, layout), self._bus_s(rect, layout))
        count = min(max(1, round(sqrt(faster / cost))), rect.rows)
        edges = [rect.top + rect.rows * index // count for index in range(count + 1)]
        return tuple(Rect(top, bottom, rect.left, rect.right) for top, bottom in pairwise(edges))

    def _host_s(self, rect: Rect, layout: FrameLayout) -> float:
        return self.host_copy_s + _split_rows(rect, layout) * self.host_row_s + rect.size_bytes / self.host_bytes_per_s

    def _bus_s(self, rect: Rect, layout: FrameLayout) -> float:
        return self.copy_s + _split_rows(rect, layout) * self.row_s + rect.size_bytes / self.bytes_per_s


def _split_rows(rect: Rect, layout: FrameLayout) -> int:
    """How many rows a copy takes one by one: none where they are the frame's whole rows, hence one piece."""
    return 0 if rect.row_bytes == layout.row_bytes else rect.rows


@dataclass(frozen=True)
class Transfer:
    """A way to upload a frame: which rectangles, and what they cost by the model."""

    kind: TransferKind
    rects: tuple[Rect, ...]
    seconds: float

    @property
    def size_bytes(self) -> int:
        return sum(rect.size_bytes for rect in self.rects)


def transfers(
    regions: Int64Array,  # N x 4, as sampled_regions gives
    layout: FrameLayout,
    costs: TransferCosts,
    *,
    pinned: bool = False,
) -> tuple[Transfer, ...]:
    """The three ways, costed: the whole frame, the smallest rectangle about all regions, each region by itself."""
    kept = [row for row in regions.tolist() if row[2] > row[0] and row[3] > row[1]]
    union = [(*np.min(kept, axis=0)[:2], *np.max(kept, axis=0)[2:])] if kept else []
    ways: tuple[tuple[TransferKind, list[Rect]], ...] = (
        ("whole", [layout.whole]),
        ("union", [rect for region in union for rect in layout.rects(region)]),
        ("boxes", [rect for region in kept for rect in layout.rects(region)]),
    )
    return tuple(_transfer(kind, rects, layout, costs, pinned) for kind, rects in ways)


def _transfer(
    kind: TransferKind, rects: list[Rect], layout: FrameLayout, costs: TransferCosts, pinned: bool
) -> Transfer:
    pieces = tuple(rects) if pinned else tuple(band for rect in rects for band in costs.bands(rect, layout))
    return Transfer(kind, pieces, costs.seconds(pieces, layout, pinned=pinned))


def choose_transfer(
    regions: Int64Array,  # N x 4, as sampled_regions gives
    layout: FrameLayout,
    costs: TransferCosts,
    *,
    pinned: bool = False,
) -> Transfer:
    """The cheapest of the three; between equals, the one with fewer copies."""
    return min(transfers(regions, layout, costs, pinned=pinned), key=lambda way: (way.seconds, len(way.rects)))


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

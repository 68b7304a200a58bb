"""The GPU run time's arithmetic: buckets, regions, transfers and layouts. Pure code: tables and properties."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdk.geometry import crop_affines
from sdk.runtime.cuda.planner import (
    ALIGNMENT,
    FrameLayout,
    Rect,
    TransferCosts,
    bucket_of,
    buckets,
    buffer_layout,
    choose_transfer,
    mirrored_affines,
    off_frame_affines,
    sampled_regions,
    transfers,
)

bgr_layout, nv12_layout = partial(FrameLayout, nv12=False), partial(FrameLayout, nv12=True)

BUCKETS = {
    "one": ((1, 1), (1,)),
    "powers": ((1, 16), (1, 2, 4, 8, 16)),
    "the-largest-is-no-power": ((1, 12), (1, 2, 4, 8, 12)),
    "fixed-batch": ((8, 8), (8,)),
    "a-smallest-above-one": ((3, 20), (3, 4, 8, 16, 20)),
}


@pytest.mark.parametrize("case", BUCKETS, ids=str)
def test_buckets(case):
    limits, expected = BUCKETS[case]
    assert buckets(*limits) == expected


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (2, 2), (3, 4), (5, 8), (9, 12), (12, 12)])
def test_the_smallest_bucket_that_holds_all(count, expected):
    assert bucket_of(count, buckets(1, 12)) == expected


def test_more_persons_than_the_largest_bucket_is_a_fault_of_the_caller():
    with pytest.raises(AssertionError, match="13 persons"):
        bucket_of(13, buckets(1, 12))


# ---- regions ---------------------------------------------------------------------------------------------------


def taps_read(affine, size_hw, frame_hw):
    """Every frame pixel that bilinear sampling of one crop reads, from the definition, in float64."""
    height, width = size_hw
    y, x = np.mgrid[:height, :width]
    points = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.asarray(affine, np.float64).T
    low = np.floor(points).astype(int)
    taps = np.concatenate([low + offset for offset in ((0, 0), (1, 0), (0, 1), (1, 1))]).reshape(-1, 2)
    inside = (taps >= 0).all(axis=1) & (taps < frame_hw[::-1]).all(axis=1)
    return taps[inside]


AFFINES = {
    "inside": [[0.5, 0, 20.25], [0, 0.5, 10.75]],
    "magnified": [[0.01, 0, 33.3], [0, 0.01, 44.4]],
    "left-of-the-frame": [[1, 0, -20], [0, 1, 5]],
    "wholly-outside": [[1, 0, 500], [0, 1, 500]],
    "just-outside": [[1, 0, -33], [0, 1, 0]],
    "larger-than-the-frame": [[9, 0, -70], [0, 9, -60]],
    "mirrored": [[-1, 0, 60], [0, 1, 4]],
    "rotated": [[0.8, -0.6, 30], [0.6, 0.8, 10]],
    "one-row": [[0.001, 0, 5], [0, 0.001, 89.5]],
}


@pytest.mark.parametrize("case", AFFINES, ids=str)
def test_a_region_holds_every_pixel_the_crop_reads(case):
    size_hw, frame_hw, affine = (24, 32), (90, 120), np.float32(AFFINES[case])
    (x0, y0, x1, y1) = sampled_regions(affine[None], size_hw, frame_hw)[0]
    taps = taps_read(affine, size_hw, frame_hw)
    assert min(x0, y0) >= 0 and x1 <= 120 and y1 <= 90
    if len(taps):
        assert (taps >= (x0, y0)).all() and (taps < (x1, y1)).all()
        slack = 4 + np.abs(affine[:, :2]).sum()  # the margin, and one step of the crop's grid
        assert (taps.min(axis=0) - (x0, y0)).max() <= slack and ((x1, y1) - taps.max(axis=0)).max() <= slack


def test_a_region_of_an_affine_that_is_not_finite_is_empty():
    affines = np.full((2, 2, 3), np.nan, np.float32)
    affines[1] = np.inf
    with np.errstate(invalid="raise"):
        for x0, y0, x1, y1 in sampled_regions(affines, (8, 8), (90, 120)):
            assert x1 <= x0 or y1 <= y0


def test_filling_up_a_bucket_reads_nothing():
    for x0, y0, x1, y1 in sampled_regions(off_frame_affines(3), (256, 192), (1080, 1920)):
        assert x1 <= x0 or y1 <= y0


def test_no_persons_have_no_regions():
    assert sampled_regions(np.zeros((0, 2, 3), np.float32), (8, 8), (90, 120)).shape == (0, 4)


finite = st.floats(-200, 200, width=32)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(finite, min_size=6, max_size=6), scale=st.sampled_from([0.01, 0.3, 1.0]))
def test_regions_hold_all_taps_of_any_affine(values, scale):
    affine = np.float32(values).reshape(2, 3) * np.float32([scale, scale, 1])
    (x0, y0, x1, y1) = sampled_regions(affine[None], (9, 7), (90, 120))[0]
    taps = taps_read(affine, (9, 7), (90, 120))
    assert not len(taps) or ((taps >= (x0, y0)).all() and (taps < (x1, y1)).all())


def test_mirrored_affines_sample_the_same_points_from_the_other_side():
    affines = np.float32([[[1.5, 0.2, 7], [-0.3, 2, 9]], [[0.4, 0, 100], [0, 0.4, 50]]])
    mirrored = mirrored_affines(affines, 48)
    for x in (0, 17, 47):
        here, there = np.array([x, 5, 1]), np.array([47 - x, 5, 1])
        np.testing.assert_allclose(mirrored @ there, affines @ here, atol=1e-4)


# ---- rectangles ------------------------------------------------------------------------------------------------

RECTS = {
    "bgr": (bgr_layout(90, 120), (10, 20, 30, 40), (Rect(20, 40, 30, 90),)),
    "bgr-whole": (bgr_layout(90, 120), (0, 0, 120, 90), (Rect(0, 90, 0, 360),)),
    "nv12": (nv12_layout(90, 120), (10, 20, 30, 40), (Rect(20, 40, 10, 30), Rect(100, 110, 10, 30))),
    "nv12-odd-edges": (nv12_layout(90, 120), (11, 21, 29, 39), (Rect(21, 39, 10, 30), Rect(100, 110, 10, 30))),
    "nv12-one-pixel": (nv12_layout(90, 120), (119, 89, 120, 90), (Rect(89, 90, 118, 120), Rect(134, 135, 118, 120))),
    "empty": (bgr_layout(90, 120), (30, 20, 30, 40), ()),
    "inside-out": (nv12_layout(90, 120), (30, 50, 40, 40), ()),
}


@pytest.mark.parametrize("case", RECTS, ids=str)
def test_rects_of_a_region(case):
    layout, region, expected = RECTS[case]
    assert layout.rects(region) == expected


def test_a_layout_counts_bytes():
    assert bgr_layout(90, 120).size_bytes == 90 * 120 * 3
    assert nv12_layout(90, 120).size_bytes == 90 * 120 * 3 // 2
    assert nv12_layout(90, 120).rows == 135


# ---- transfers -------------------------------------------------------------------------------------------------

CARD = TransferCosts(6e-6, 24e9, 4e-8, 1e-6, 9e9, 1e-7)
SLOW_COPIES = TransferCosts(2e-3, 24e9, 0, 0, 9e9, 0)
QUICK_COPIES = TransferCosts(1e-9, 1e7, 0, 1e-9, 1e7, 0)
JETSON = TransferCosts(0, float("inf"), 0, 1e-6, 12e9, 5e-8)

CHOICES = {  # boxes of a 1080p frame, costs, pinned -> the way that must win
    "one-person": ([[900, 300, 1000, 600]], CARD, False, ("union", "boxes")),
    "two-far-apart": ([[0, 0, 80, 160], [1800, 900, 1900, 1070]], CARD, True, ("boxes",)),
    "two-side-by-side": ([[400, 300, 500, 600], [450, 300, 550, 600]], CARD, False, ("union",)),
    "the-whole-frame": ([[0, 0, 1920, 1080]], CARD, False, ("whole",)),
    "copies-that-cost-much": ([[0, 0, 80, 160], [1800, 900, 1900, 1070]], SLOW_COPIES, False, ("whole",)),
    "jetson-far-apart": ([[0, 0, 80, 160], [1800, 900, 1900, 1070]], JETSON, False, ("boxes",)),
    "nobody-in-sight": ([[5000, 5000, 5100, 5100]], CARD, False, ("union", "boxes")),
}


@pytest.mark.parametrize("case", CHOICES, ids=str)
def test_the_choice(case):
    boxes, costs, pinned, expected = CHOICES[case]
    affines = crop_affines(np.float32(boxes), (256, 192), 1.25)
    regions = sampled_regions(affines, (256, 192), (1080, 1920))
    assert choose_transfer(regions, bgr_layout(1080, 1920), costs, pinned=pinned).kind in expected


def seconds(costs, boxes, layout, *, pinned):
    """The model's time for these boxes, each by itself."""
    return transfers(np.array(boxes), layout, costs, pinned=pinned)[2].seconds


def test_what_is_cheaper_by_the_row_only_pays_for_rows_that_are_cut():
    layout, costs = bgr_layout(100, 100), TransferCosts(0, float("inf"), row_s=1.0)
    assert seconds(costs, [(0, 0, 100, 100)], layout, pinned=True) == 0
    assert seconds(costs, [(0, 0, 100, 10)], layout, pinned=True) == 0
    assert seconds(costs, [(0, 0, 99, 10)], layout, pinned=True) == 10


def test_a_pageable_frame_costs_the_hosts_copy_too():
    layout, costs = bgr_layout(100, 100), TransferCosts(20, 1e3, 0, 30, 1e3, 0)
    assert seconds(costs, [(0, 0, 100, 100)], layout, pinned=True) == pytest.approx(20 + 30)
    assert seconds(costs, [(0, 0, 100, 100)], layout, pinned=False) == pytest.approx(20 + 30 + 30 + 30)


def test_the_host_copies_one_piece_while_the_bus_moves_the_one_before():
    layout, costs = bgr_layout(100, 100), TransferCosts(0, 1e3, 0, 0, 2e3, 0)
    halves = [(0, 0, 100, 50), (0, 50, 100, 100)]
    assert seconds(costs, halves, layout, pinned=False) == pytest.approx(7.5 + 15 + 15)
    slow_host = TransferCosts(0, 2e3, 0, 0, 1e3, 0)
    assert seconds(slow_host, halves, layout, pinned=False) == pytest.approx(15 + 15 + 7.5)


@pytest.mark.parametrize(
    "costs", [CARD, SLOW_COPIES, QUICK_COPIES, JETSON], ids=["card", "slow-copies", "quick-copies", "jetson"]
)
@pytest.mark.parametrize("box", [(0, 0, 1920, 1080), (3, 3, 14, 7), (0, 5, 1, 6)], ids=["whole", "small", "row"])
def test_bands_cover_a_rectangle_once_and_never_cost_more(costs, box):
    layout = bgr_layout(1080, 1920)
    (rect,) = layout.rects(box)
    way = transfers(np.array([box]), layout, costs)[2]
    assert [band.top for band in way.pieces[1:]] == [band.bottom for band in way.pieces[:-1]]
    assert (way.pieces[0].top, way.pieces[-1].bottom) == (rect.top, rect.bottom)
    assert {(band.left, band.right) for band in way.pieces} == {(rect.left, rect.right)}
    assert all(band.rows > 0 for band in way.pieces)
    assert way.seconds <= 1.001 * sum(costs.of(rect.rows, rect.row_bytes, layout, pinned=False))


def test_each_band_costs_a_copy_of_the_host_and_of_the_bus():
    layout, costs = bgr_layout(100, 100), TransferCosts(0.5, 1e3, 0, 0.5, 1e3, 0)
    whole = transfers(np.zeros((0, 4), np.int64), layout, costs)[0]
    assert len(whole.pieces) == 6  # of 30 s on either side, and half a second a piece
    assert whole.seconds == pytest.approx((5 + 0.5) + 6 * (5 + 0.5))


def test_what_costs_nothing_is_not_done():
    free = TransferCosts(0, float("inf"))
    assert choose_transfer(np.zeros((0, 4), np.int64), bgr_layout(100, 100), free, pinned=True).pieces == ()


def test_bands_hide_most_of_the_faster_side():
    layout = bgr_layout(1080, 1920)
    host, bus = layout.size_bytes / CARD.host_bytes_per_s, layout.size_bytes / CARD.bytes_per_s
    whole = transfers(np.zeros((0, 4), np.int64), layout, CARD)[0]
    assert len(whole.pieces) > 3
    assert max(host, bus) < whole.seconds < max(host, bus) + 0.35 * min(host, bus)
    assert choose_transfer(np.zeros((0, 4), np.int64), layout, CARD, pinned=True).pieces == ()


positive = st.floats(1e-7, 1e-2)
region = st.tuples(st.integers(0, 1900), st.integers(0, 1060), st.integers(0, 1920), st.integers(0, 1080))


@settings(max_examples=150, deadline=None)
@given(
    regions=st.lists(region, max_size=12),
    costs=st.builds(
        TransferCosts,
        positive,
        st.floats(1e8, 1e11),
        st.floats(0, 1e-5),
        positive,
        st.floats(1e8, 1e11),
        st.floats(0, 1e-5),
    ),
    pinned=st.booleans(),
    nv12=st.booleans(),
)
def test_the_choice_is_never_above_the_best(regions, costs, pinned, nv12):
    layout = nv12_layout(1080, 1920) if nv12 else bgr_layout(1080, 1920)
    table = np.array(regions, np.int64).reshape(-1, 4)
    chosen = choose_transfer(table, layout, costs, pinned=pinned)
    assert chosen.seconds <= 1.05 * min(way.seconds for way in transfers(table, layout, costs, pinned=pinned))
    whole = layout.whole
    for way in transfers(table, layout, costs, pinned=pinned):
        assert way.size_bytes == sum(rect.rows * rect.row_bytes for rect in way.pieces)
        assert layout.sizes([tuple(row) for row in regions if row[2] > row[0] and row[3] > row[1]]) == [
            (rect.rows, rect.row_bytes) for rect in transfers(table, layout, costs)[2].rects
        ]
        for rect in way.pieces:
            assert 0 <= rect.top < rect.bottom <= whole.bottom and 0 <= rect.left < rect.right <= whole.right


@settings(max_examples=80, deadline=None)
@given(regions=st.lists(region, min_size=1, max_size=8), nv12=st.booleans())
def test_each_way_uploads_every_pixel_of_every_region(regions, nv12):
    layout = nv12_layout(1080, 1920) if nv12 else bgr_layout(1080, 1920)
    table = np.array(regions, np.int64)
    for way in transfers(table, layout, CARD):
        uploaded = np.zeros((layout.rows, layout.row_bytes), bool)
        for rect in way.pieces:
            uploaded[rect.top : rect.bottom, rect.left : rect.right] = True
        for each in regions:
            for rect in layout.rects(each):
                assert uploaded[rect.top : rect.bottom, rect.left : rect.right].all()


# ---- buffers ---------------------------------------------------------------------------------------------------


@given(sizes=st.lists(st.integers(0, 100_000), max_size=12))
def test_buffers_are_aligned_and_apart(sizes):
    named = {f"buffer {index}": size for index, size in enumerate(sizes)}
    layout = buffer_layout(named)
    ends = [layout.offsets[name] + layout.sizes[name] for name in named]
    assert all(layout.offsets[name] % ALIGNMENT == 0 for name in named)
    assert len(set(layout.offsets.values())) == len(named)
    assert all(end <= layout.offsets[name] for end, name in zip(ends, list(named)[1:], strict=False))
    assert max(ends, default=0) <= layout.total_bytes and layout.total_bytes >= ALIGNMENT

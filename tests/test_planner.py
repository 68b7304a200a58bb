"""The GPU run time's arithmetic: buckets, regions and how they are moved, layouts. Tables and properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdk.geometry import crop_affines
from sdk.runtime.cuda.planner import ALIGNMENT, bucket_of, buckets, buffer_layout
from tests.support.cuda_frames import OFF_FRAME

pytestmark = pytest.mark.native

_native = pytest.importorskip("sdk._native", exc_type=ImportError)

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


# ---- regions: cpp_ext/host/packing.h ----------------------------------------------------------------------------

CARD = (6e-6, 24e9, 4e-8, 1e-6, 9e9, 1e-7)  # s a copy, bytes/s, s a row; of the host: s a copy, bytes/s, s a row
SLOW_COPIES = (2e-3, 24e9, 0.0, 0.0, 9e9, 0.0)
SLOW_ROWS = (6e-6, 24e9, 1e-5, 1e-6, 9e9, 1e-7)
WAYS = ("packed", "rows", "whole")


def planned(affines, size_hw=(256, 192), frame_hw=(1080, 1920), *, nv12=False, page_locked=False, costs=CARD):
    """(way, regions, bytes packed by the host, bands, seconds) of one frame's crops."""
    affines = np.ascontiguousarray(affines, np.float32).reshape(-1, 2, 3)
    way, *rest = _native.plan_transfer(affines, size_hw, frame_hw, nv12, page_locked, costs)
    return (WAYS[way], *rest)


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


@pytest.mark.parametrize("width", [32, 29], ids=["whole-groups", "unfinished-group"])
@pytest.mark.parametrize("case", AFFINES, ids=str)
def test_a_region_is_what_the_crop_reads(case, width):
    """And no more than a step of the crop beside it. Columns are read in groups of four."""
    frame_hw, affine = (90, 120), np.float32(AFFINES[case])
    taps = taps_read(affine, (24, 32), frame_hw)
    regions = planned(affine, (24, width), frame_hw)[1]
    if not len(taps):
        assert regions == []
        return
    ((x0, y0, x1, y1),) = regions
    beside = np.concatenate([taps.min(axis=0) - (x0, y0), (x1, y1) - taps.max(axis=0) - 1])
    step = np.tile(np.abs(affine[:, :2]).sum(axis=1), 2)  # from the frame's edge to the first tap inside
    assert (beside >= 0).all() and (beside < np.maximum(step, 1)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38], ids=str)
def test_an_affine_that_the_crop_refuses_has_no_region(value):
    assert planned(np.full((2, 2, 3), value), (8, 8), (90, 120))[1] == []


def test_filling_up_a_bucket_reads_nothing():
    assert planned(np.tile(OFF_FRAME, (3, 1, 1)))[1] == [] and planned(np.zeros((0, 2, 3)))[1] == []


finite = st.floats(-200, 200, width=32)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.lists(finite, min_size=6, max_size=6), min_size=1, max_size=6),
    scale=st.sampled_from([0.01, 0.3, 1.0]),
    nv12=st.booleans(),
)
def test_regions_hold_all_taps_of_any_affines_and_cost_no_more_than_each(values, scale, nv12):
    affines = np.float32(values).reshape(-1, 2, 3) * np.float32([scale, scale, 1])
    frame_hw = (90, 120)
    _, regions, packed_bytes, _, _ = planned(affines, (9, 7), frame_hw, nv12=nv12)
    for affine in affines:
        taps = taps_read(affine, (9, 7), frame_hw)
        held = [(taps >= (x0, y0)).all() and (taps < (x1, y1)).all() for x0, y0, x1, y1 in regions]
        assert not len(taps) or any(held), "a crop's pixels lie in one region"
    alone = [region for affine in affines for region in planned(affine, (9, 7), frame_hw, nv12=nv12)[1]]
    together = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in regions)
    assert together <= min(sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in alone), 90 * 120)
    assert packed_bytes == (together * 3 // 2 if nv12 else together * 3)
    if nv12:
        assert all(edge % 2 == 0 for region in regions for edge in region)
    assert all(0 <= x0 < x1 <= 120 and 0 <= y0 < y1 <= 90 for x0, y0, x1, y1 in regions)


def affines_of(boxes):
    return crop_affines(np.float32(boxes), (256, 192), 1.25)


UNITED = {  # boxes of a 1080p frame -> how many regions go to the device
    "one-person": ([[900, 300, 1000, 600]], 1),
    "two-far-apart": ([[0, 0, 80, 160], [1800, 900, 1900, 1070]], 2),
    "one-behind-the-other": ([[400, 300, 500, 600], [450, 300, 550, 600]], 1),
    "a-third-joins-two": ([[400, 300, 500, 600], [700, 300, 800, 600], [450, 250, 750, 650]], 1),
    "the-whole-frame": ([[0, 0, 1920, 1080]], 1),
    "nobody-in-sight": ([[5000, 5000, 5100, 5100]], 0),
}


@pytest.mark.parametrize("case", UNITED, ids=str)
def test_regions_are_one_where_that_costs_nothing(case):
    boxes, count = UNITED[case]
    assert len(planned(affines_of(boxes))[1]) == count


CHOICES = {  # boxes, costs -> how a page-locked frame goes
    "one-person": ([[900, 300, 1000, 600]], CARD, "rows"),
    "copies-that-cost-much": ([[0, 0, 80, 160], [1800, 900, 1900, 1070]], SLOW_COPIES, "whole"),
    "rows-that-cost-much": ([[900, 100, 1300, 900]], SLOW_ROWS, "whole"),
    "the-whole-frame": ([[0, 0, 1920, 1080]], CARD, "whole"),
    "nobody-in-sight": ([[5000, 5000, 5100, 5100]], CARD, "rows"),
}


@pytest.mark.parametrize("case", CHOICES, ids=str)
def test_a_page_locked_frame_goes_the_cheaper_way_and_no_host_touches_it(case):
    boxes, costs, expected = CHOICES[case]
    way, _, packed_bytes, _, _ = planned(affines_of(boxes), page_locked=True, costs=costs)
    assert (way, packed_bytes) == (expected, 0)
    assert planned(affines_of(boxes), costs=costs)[0] == "packed"


def test_bands_hide_most_of_the_faster_side():
    _, (region,), size, bands, seconds = planned(affines_of([[0, 0, 1920, 1080]]))
    assert region == (0, 0, 1920, 1080) and size == 1920 * 1080 * 3
    host, bus = size / CARD[4] + 1080 * CARD[5], size / CARD[1]
    assert bands > 3
    assert max(host, bus) < seconds < max(host, bus) + 0.35 * min(host, bus)


@pytest.mark.parametrize(
    ("boxes", "costs"),
    [([[900, 300, 910, 320]], CARD), ([[0, 0, 1920, 1080]], SLOW_COPIES), ([[0, 0, 1920, 1080]], (0.0,) * 6)],
    ids=["small", "copies-that-cost-much", "all-at-once"],
)
def test_what_gains_nothing_by_bands_goes_in_one(boxes, costs):
    costs = tuple(1e12 if at in (1, 4) and not cost else cost for at, cost in enumerate(costs))
    assert planned(affines_of(boxes), costs=costs)[3] == 1


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

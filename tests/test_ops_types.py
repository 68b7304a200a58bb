"""The ops' arguments, each replaced by everything that it is not: an InputError in words, never Python's own."""

import numpy as np
import pytest

from sdk.errors import InputError, SdkError

pytestmark = pytest.mark.native
ops = pytest.importorskip("sdk.ops")

AFFINES = np.zeros((2, 2, 3), np.float32)
LOGITS = np.zeros((2, 3, 16), np.float32)
CROP = {
    "frame": np.zeros((8, 8, 3), np.uint8),
    "affines": AFFINES,
    "size_hw": (4, 4),
    "mean": (0, 0, 0),
    "std": (1, 1, 1),
    "channel_order": "rgb",
    "dtype": np.float32,
    "pixel_format": "bgr",
    "yuv_matrix": "bt601",
    "yuv_range": "limited",
    "frame_of": None,
    "out": None,
    "stream": None,
}
DECODE = {
    "simcc_x": LOGITS,
    "simcc_y": LOGITS,
    "affines": AFFINES,
    "split_ratio": 2.0,
    "score": "min_logit",
    "refine": "none",
    "flipped": (LOGITS, LOGITS),
    "flip_pairs": [(0, 1)],
    "flip_shift": True,
    "out": None,
    "stream": None,
}
CALLS = {"crop": (ops.crop, CROP), "decode": (ops.decode, DECODE)}
JUNK = (
    *(None, "x", "", b"x", 1, 0, -1, 1.5, True, 1j, float("nan"), float("inf"), 10**400, 2**63, np.float32(2)),
    *(object(), int, len, Exception(), range(3), memoryview(b"abc"), np.ma.masked, np.dtype("U3")),
    *(
        [],
        (),
        {},
        [1],
        [1, 2, 3],
        (1, 2),
        ("a", "b", "c"),
        {1},
        [None] * 3,
        [[0.5, 1]],
        [(0,)],
        [(0, 1, 2)],
        [("a", "b")],
    ),
    *([(10**30, 0)], [(np.nan, 1)], [(1.0, 2)], [(True, [])], (LOGITS,), (LOGITS, None), [LOGITS] * 3, ((0, 0),)),
    *(np.zeros(0), np.array(None), np.zeros((2, 2)), np.zeros((1, 3), "U4"), np.array([1, None], object)),
)


@pytest.mark.parametrize(
    ("op", "name"), [(op, name) for op, (_, good) in CALLS.items() for name in good], ids=lambda value: value
)
def test_an_argument_of_another_kind_is_told(op, name):
    call, good = CALLS[op]
    call(**good)
    for junk in JUNK:
        try:
            call(**{**good, name: junk})
        except SdkError as error:
            assert type(error) is InputError


def decode(**changes):
    return lambda: ops.decode(**{**DECODE, **changes})


def crop(**changes):
    return lambda: ops.crop(**{**CROP, **changes})


TOLD = {
    "no ratio": (
        lambda: ops.decode(**{**DECODE, "split_ratio": None}),
        r"split_ratio must be a positive .*\(got None\)",
    ),
    "half a joint": (decode(flip_pairs=[(0.5, 1)]), r"flip_pairs must join joints of 0\.\.2 \(got \[0\.5, 1\]\)"),
    "three joints": (
        lambda: ops.decode(**{**DECODE, "flip_pairs": [(0, 1, 2)]}),
        "decode: an argument is not of the kind",
    ),
    "half a pixel": (crop(size_hw=(4.5, 4)), r"size_hw must be .*\(got \(4\.5, 4\)\)"),
    "half a thread": (lambda: ops.set_threads(1.5), r"the number of threads must be 1 to \d+ \(got 1\.5\)"),
    "no score": (decode(score=["min_logit"]), "score must be one of"),
    "no type": (crop(dtype="halves"), "crop: an argument is not of the kind that it takes"),
}


@pytest.mark.parametrize(("call", "message"), TOLD.values(), ids=TOLD)
def test_what_is_wrong_is_said(call, message):
    with pytest.raises(InputError, match=message):
        call()

"""The fused ops on either side of the network: `crop` before it, `decode` after it. Their code is in `cpp_ext/`.

What the ops compute is defined in `cpp_ext/shared/crop_math.h` and `decode_math.h`; `docs/kernels.md` explains it.
This module checks arguments, in words, and passes pointers on. It neither reads images nor knows recipes or networks.

    from sdk import ops
    inputs = ops.crop(frame_bgr, affines, (256, 192), mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    joints = ops.decode(simcc_x, simcc_y, affines, split_ratio=2.0)      # N x K x 3: x, y in frame pixels, score

Arrays are numpy's, or anything with DLPack or `__cuda_array_interface__` (PyCUDA, CuPy, torch).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sdk.errors import InputError, MissingDependencyError

__all__ = ["crop", "decode", "instruction_set", "set_threads", "threads"]

try:
    from sdk import _native
except ImportError as error:
    raise MissingDependencyError(
        f"sdk.ops needs the native extension sdk._native, which cannot be loaded ({error}): "
        "install the package with pip, or build it in place with `python setup.py build_ext --inplace`"
    ) from error

ChannelOrder = Literal["rgb", "bgr"]
PixelFormat = Literal["bgr", "rgb", "nv12"]
YuvMatrix = Literal["bt601", "bt709"]
YuvRange = Literal["limited", "full"]
Score = Literal["min_logit", "mean_logit", "min_softmax"]
Refine = Literal["none", "parabola", "dark", "expectation"]

SCORES = {"min_logit": 0, "mean_logit": 1, "min_softmax": 2}
REFINEMENTS = {"none": 0, "parabola": 1, "dark": 2, "expectation": 3}
LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}  # of red and blue
MAX_SIDE = 16384
FLOAT32, FLOAT16 = np.dtype(np.float32), np.dtype(np.float16)
Triple = tuple[float, float, float]


def threads() -> int:
    """How many threads the CPU half may use for one call."""
    return _native.threads()


def set_threads(count: int) -> None:
    """Let the CPU half use up to `count` threads for one call, for the whole process; 1 at first."""
    if not 1 <= count <= 256:
        raise InputError(f"the number of threads must be 1 to 256 (got {count})")
    _native.set_threads(count)


def instruction_set() -> str:
    """What the CPU half uses on this machine: 'avx512', 'avx2' or 'baseline'."""
    return _native.instruction_set()


def crop(
    frame: Any,  # H x W x 3 uint8; NV12: 3H/2 x W uint8, or the planes (H x W, H/2 x W)
    affines: Any,  # N x 2 x 3 float32, crop -> frame pixels
    size_hw: tuple[int, int],
    *,
    mean: Sequence[float],  # grey levels, in the network's channel order
    std: Sequence[float],
    channel_order: ChannelOrder = "rgb",
    dtype: DTypeLike = FLOAT32,
    pixel_format: PixelFormat = "bgr",
    yuv_matrix: YuvMatrix = "bt601",
    yuv_range: YuvRange = "limited",
    out: Any = None,  # N x 3 x h x w
    stream: int | None = None,
) -> Any:
    """N x 3 x h x w of `dtype`: each person's crop, bilinear, normalised, in the network's channel order.

    `channel_order` is the order of the network's input, `pixel_format` that of the frame. Outside the frame is black.
    """
    if type(affines) is not np.ndarray or affines.dtype != FLOAT32 or affines.shape[1:] != (2, 3) or affines.ndim != 3:
        raise InputError(f"affines must be an N x 2 x 3 float32 array, crop -> frame pixels (got {_describe(affines)})")
    scale, bias = _normalisation(tuple(mean), tuple(std))
    if not affines.flags.c_contiguous:
        affines = np.ascontiguousarray(affines)
    shape = (len(affines), 3, *_checked_size(size_hw))
    out = _checked_out(out, shape, np.dtype(dtype))
    if pixel_format == "nv12":
        luma, chroma = _nv12_planes(frame)
        coefficients = _yuv_coefficients(yuv_matrix, yuv_range)
        _native.crop_nv12(out, luma, chroma, affines, scale, bias, channel_order == "bgr", coefficients)
        return out
    if type(frame) is not np.ndarray or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise InputError(f"frame must be an H x W x 3 uint8 array (got {_describe(frame)})")
    if max(frame.shape) > MAX_SIDE:
        raise InputError(f"frame sides must be at most {MAX_SIDE} pixels (got {frame.shape[0]} x {frame.shape[1]})")
    if frame.strides[2] != 1 or frame.strides[1] != 3:
        raise InputError(
            "frame rows must be contiguous pixels; rows may have any stride "
            f"(got strides {frame.strides}); use numpy.ascontiguousarray(frame)"
        )
    _native.crop(out, frame, affines, scale, bias, channel_order != pixel_format)
    return out


def decode(
    simcc_x: Any,  # N x K x Wx, float32 or float16 logits
    simcc_y: Any,  # N x K x Hy
    affines: Any,  # N x 2 x 3 float32, crop -> frame pixels
    split_ratio: float,
    *,
    score: Score = "min_logit",
    refine: Refine = "none",
    flipped: tuple[Any, Any] | None = None,  # N x K x Wx, N x K x Hy: logits of the mirrored crops
    flip_pairs: Sequence[tuple[int, int]] | None = None,
    flip_shift: bool = False,
    out: Any = None,  # N x K x 3 float32
    stream: int | None = None,
) -> Any:
    """N x K x 3 float32: x and y in frame pixels, and the score by the rule `score`.

    The first largest finite logit wins; a row without one gives the crop's middle and the score 0. With `flipped` the
    logits of the mirrored crops are averaged in: x reversed (and moved by one bin with `flip_shift`), joints swapped
    by `flip_pairs`.
    """
    for name, logits in (("simcc_x", simcc_x), ("simcc_y", simcc_y)):
        if type(logits) is not np.ndarray or logits.ndim != 3 or logits.dtype not in (FLOAT32, FLOAT16):
            raise InputError(f"{name} must be an N x K x bins array of float32 or float16 (got {_describe(logits)})")
    if score not in SCORES:
        raise InputError(f"score must be one of {', '.join(SCORES)} (got '{score}')")
    if refine not in REFINEMENTS:
        raise InputError(f"refine must be one of {', '.join(REFINEMENTS)} (got '{refine}')")
    if not 0 < split_ratio < float("inf"):
        raise InputError(f"split_ratio must be a positive number of bins per pixel (got {split_ratio})")
    count, joints, _ = simcc_x.shape
    out = _checked_out(out, (count, joints, 3), FLOAT32)
    rule, mode = SCORES[score], REFINEMENTS[refine]
    simcc_x, simcc_y = np.ascontiguousarray(simcc_x), np.ascontiguousarray(simcc_y)
    affines = np.ascontiguousarray(affines)
    if flipped is None:
        _native.decode(out, simcc_x, simcc_y, affines, split_ratio, rule, mode)
        return out
    if flip_pairs is None:
        raise InputError("flip_pairs must be given with flipped: the pairs of joints that change places when mirrored")
    mirrored_x, mirrored_y = (np.ascontiguousarray(each) for each in flipped)
    partner = _partners(tuple(map(tuple, flip_pairs)), joints)
    _native.decode_flipped(
        out, simcc_x, simcc_y, affines, split_ratio, rule, mode, mirrored_x, mirrored_y, partner, int(flip_shift)
    )
    return out


def _describe(array: object) -> str:
    shape, dtype = getattr(array, "shape", None), getattr(array, "dtype", None)
    return type(array).__name__ if shape is None else f"{' x '.join(map(str, shape))} {dtype}"


@lru_cache(maxsize=64)
def _normalisation(mean: Triple, std: Triple) -> tuple[Triple, Triple]:
    if len(mean) != 3 or len(std) != 3 or not all(np.isfinite(mean)) or not all(0 < s < float("inf") for s in std):
        raise InputError(f"mean and std must be 3 finite grey levels each, std positive (got mean {mean}, std {std})")
    return tuple(1 / s for s in std), tuple(-m / s for m, s in zip(mean, std, strict=True))  # type: ignore[return-value]


def _checked_size(size_hw: tuple[int, int]) -> tuple[int, int]:
    height, width = size_hw
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise InputError(f"size_hw must be the crop's height and width, 1 to {MAX_SIDE} pixels (got {size_hw})")
    return height, width


def _checked_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
        raise InputError(
            f"out must be a contiguous {' x '.join(map(str, shape))} {dtype} array (got {_describe(out)})"
        )
    return out  # type: ignore[no-any-return]


def _nv12_planes(frame: Any) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    if isinstance(frame, tuple):
        luma, chroma = frame
    else:
        height = frame.shape[0] * 2 // 3
        luma, chroma = frame[:height], frame[height:]
    if luma.shape[0] % 2 or luma.shape[1] % 2 or chroma.shape != (luma.shape[0] // 2, luma.shape[1]):
        raise InputError(
            "an NV12 frame must be 3H/2 x W uint8, or the planes H x W and H/2 x W, with even sides "
            f"(got {_describe(luma)} and {_describe(chroma)})"
        )
    return luma, chroma


@lru_cache(maxsize=4)
def _yuv_coefficients(matrix: YuvMatrix, value_range: YuvRange) -> tuple[float, ...]:
    if matrix not in LUMA_WEIGHTS or value_range not in ("limited", "full"):
        raise InputError(
            f"yuv_matrix must be bt601 or bt709 and yuv_range limited or full (got '{matrix}', '{value_range}')"
        )
    red, blue = LUMA_WEIGHTS[matrix]
    green = 1 - red - blue
    gain, black, chroma = (255 / 219, 16.0, 255 / 224) if value_range == "limited" else (1.0, 0.0, 1.0)
    rv, bu = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    return gain, black, rv, -bu * blue / green, -rv * red / green, bu


@lru_cache(maxsize=64)
def _partners(flip_pairs: tuple[tuple[int, ...], ...], joints: int) -> NDArray[np.int32]:
    partner = np.arange(joints, dtype=np.int32)
    for a, b in flip_pairs:
        if not (0 <= a < joints and 0 <= b < joints):
            raise InputError(f"flip_pairs must join joints of 0..{joints - 1} (got [{a}, {b}])")
        partner[a], partner[b] = b, a
    return partner

"""The fused ops on either side of a network: `crop` before it, `decode` or `detections` after it; see `cpp_ext/`.

What they compute is defined in `cpp_ext/shared/*_math.h`; `docs/kernels.md` explains it.
This module has arguments checked, in words (`sdk.ops_checks`), and passes addresses on. It neither reads images nor
knows recipes or networks.

    from sdk import ops
    inputs = ops.crop(frame_bgr, affines, (256, 192), mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    joints = ops.decode(simcc_x, simcc_y, affines, split_ratio=2.0)      # N x K x 3: x, y in frame pixels, score
    boxes, scores = ops.detections(outputs, form, ...)                   # of a person detector; `sdk.detection`

Arrays are numpy's, or anything with DLPack or `__cuda_array_interface__` (PyCUDA, CuPy, torch). All arrays of a call
lie in one place: the CPU's memory, or one GPU's. On a GPU `out` is required, and the call returns at once: the result
is there when `stream` has come to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from sdk.columns import Columns, Depth, Spread
from sdk.errors import DeviceError, InputError, MissingDependencyError
from sdk.in_flight import in_flight
from sdk.numeric import is_number, is_whole
from sdk.ops_arrays import DeviceArray, cuda_half, in_words, stream_address
from sdk.ops_checks import (
    FLOAT16,
    FLOAT32,
    NO_DEPTH,
    UINT8,
    checked_affines,
    checked_frame_of,
    checked_logits,
    checked_mirror,
    checked_more,
    checked_out,
    checked_size,
    code_of,
    nv12_planes,
    packed_frame,
    partners,
    same_place,
)
from sdk.ops_detections import detection_rules, detections

__all__ = [
    "MAX_THREADS",
    "Columns",
    "Depth",
    "Spread",
    "crop",
    "cuda_half",
    "decode",
    "detection_rules",
    "detections",
    "instruction_set",
    "normalisation",
    "partners",
    "set_threads",
    "threads",
    "yuv_to_rgb",
]

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
Triple = tuple[float, float, float]

SCORES = {"min_logit": 0, "mean_logit": 1, "min_softmax": 2}
REFINEMENTS = {"none": 0, "parabola": 1, "dark": 2, "expectation": 3}
LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}  # of red and of blue
MAX_THREADS = _native.MAX_THREADS


def threads() -> int:
    """How many threads the CPU half may use for one call."""
    return _native.threads()


@in_words
def set_threads(count: int) -> None:
    """Let the CPU half use up to `count` threads for one call, for the whole process; 1 at first."""
    if not is_whole(count, 1, MAX_THREADS):
        raise InputError(f"the number of threads must be 1 to {MAX_THREADS} (got {count})")
    _native.set_threads(int(count))


def instruction_set() -> str:
    """What the CPU half uses on this machine: 'avx512', 'avx2' or 'baseline'."""
    return _native.instruction_set()


@in_words
def crop(
    frame: Any,  # H x W x 3 uint8; NV12: 3H/2 x W uint8, or the planes (H x W, H/2 x W); or a list of such
    affines: Any,  # N x 2 x 3 float32, crop -> frame pixels
    size_hw: tuple[int, int],
    *,
    mean: Sequence[float],  # grey levels, in `channel_order`
    std: Sequence[float],
    channel_order: ChannelOrder = "rgb",
    dtype: DTypeLike = FLOAT32,
    pixel_format: PixelFormat = "bgr",
    yuv_matrix: YuvMatrix = "bt601",
    yuv_range: YuvRange = "limited",
    frame_of: Any = None,  # N int32: which frame of the list each crop is of
    border: int = 0,  # grey level outside the frame
    out: Any = None,  # N x 3 x h x w
    stream: Any = None,
) -> Any:
    """N x 3 x h x w of `dtype`: each person's crop, bilinear, normalised; outside the frame all is `border`.

    `channel_order` is the order of the network's input, `pixel_format` that of the frame. On the CPU `frame` may be a
    list of frames, of any sizes and of one format; `frame_of` then says which of them each crop is of.
    """
    scale, bias = normalisation(tuple(mean), tuple(std))
    placed: Any = checked_affines(affines)
    shape = (placed.shape[0], 3, *checked_size(size_hw))
    on_device = isinstance(placed, DeviceArray)
    target: Any = checked_out(out, shape, dtype if type(dtype) is np.dtype else np.dtype(dtype), on_device)
    yuv = yuv_to_rgb(yuv_matrix, yuv_range)
    if pixel_format not in ("bgr", "rgb", "nv12"):
        raise InputError(f"pixel_format must be bgr, rgb or nv12 (got '{pixel_format}')")
    if channel_order not in ("rgb", "bgr"):
        raise InputError(f"channel_order must be rgb or bgr (got '{channel_order}')")
    if not is_whole(border, 0, 255):
        raise InputError(f"border must be a grey level, 0 to 255 (got {border!r})")
    nv12 = pixel_format == "nv12"
    several = type(frame) is list
    given = frame if several else (frame,)
    frames: list[Any] = [nv12_planes(each) if nv12 else packed_frame(each) for each in given]
    for each in frames:
        same_place(placed, frame=each[0] if nv12 else each, out=target)
    if several and on_device:
        raise InputError(f"a call on a GPU crops one frame (got a list of {len(frames)}); call once a frame")
    owners = checked_frame_of(frame_of, len(frames), shape[0], several=several)
    swap = channel_order != ("rgb" if nv12 else pixel_format)
    with in_flight:
        if on_device:
            _crop_on_device(target, frames[0] if nv12 else frames, placed, (scale, bias, swap), yuv, stream, border)
        elif nv12:
            _native.crop_nv12(target, frames, owners, placed, scale, bias, swap, yuv, border)
        else:
            _native.crop(target, frames, owners, placed, scale, bias, swap, border)
    return target if out is None else out


@in_words
def decode(
    simcc_x: Any,  # N x K x Wx, float32 or float16 logits
    simcc_y: Any,  # N x K x Hy
    affines: Any,  # N x 2 x 3 float32, crop -> frame pixels
    split_ratio: float,
    *,
    score: Score = "min_logit",
    refine: Refine = "none",
    simcc_z: Any = None,  # N x K x Wz
    depth: Depth | None = None,
    spread: Spread | None = None,
    second: bool = False,
    flipped: tuple[Any, ...] | None = None,  # like simcc_x, simcc_y and, where given, simcc_z: of the mirrored crops
    flip_pairs: Sequence[tuple[int, int]] | None = None,
    flip_shift: bool = False,
    out: Any = None,  # N x K x C float32
    stream: Any = None,
) -> Any:
    """N x K x C float32: x and y in frame pixels, the score by the rule `score`, then what is asked for; see `Columns`.

    The first largest finite logit wins; a row without one gives the crop's middle and the score 0. With `simcc_z` and
    `depth`: the depth, NaN where the score is not positive. With `spread`: the standard deviations of x and y; with
    `second` as well: where the joint may be instead, NaN where no second peak is half as likely as the first. With
    `flipped` the logits of the mirrored crops are averaged in: x reversed (and moved by one bin with `flip_shift`),
    joints swapped by `flip_pairs`; on a GPU `flip_pairs` is the array of partners, see `partners`.
    """
    rule, mode = code_of("score", score, SCORES), code_of("refine", refine, REFINEMENTS)
    if not is_number(split_ratio) or not 0 < split_ratio < float("inf"):
        raise InputError(f"split_ratio must be a positive number of bins per pixel (got {split_ratio})")
    x: Any = checked_logits("simcc_x", simcc_x, None)
    y: Any = checked_logits("simcc_y", simcc_y, x)
    more = checked_more(x, simcc_z, depth, spread, second)
    z: Any = more[0] if more else None
    placed: Any = checked_affines(affines, x.shape[0])
    on_device = isinstance(x, DeviceArray)
    columns = 3 if more is None else Columns(z is not None, spread is not None, second).count
    target: Any = checked_out(out, (x.shape[0], x.shape[1], columns), FLOAT32, on_device)
    same_place(x, simcc_y=y, affines=placed, out=target)
    axes = (x, y) if z is None else (x, y, z)
    mirror: tuple[Any, ...] = checked_mirror(flipped, flip_pairs, axes) if flipped is not None else ()
    with in_flight:
        if on_device:
            _decode_on_device(target, axes, placed, (split_ratio, rule, mode), more, mirror, bool(flip_shift), stream)
        elif more or mirror:
            _, reach, how_sure, other = more or (None, NO_DEPTH, None, False)
            partner = mirror[-1] if mirror else None
            other_x, other_y, other_z = (*mirror[:-1], None, None, None)[:3]
            _native.decode(
                target, x, y, placed, split_ratio, rule, mode, z, reach, how_sure, other, other_x, other_y, other_z,
                partner, bool(flip_shift),
            )  # fmt: skip
        else:
            _native.decode(target, x, y, placed, split_ratio, rule, mode)
    return target if out is None else out


@in_words
@lru_cache(maxsize=64)
def normalisation(mean: Triple, std: Triple) -> tuple[Triple, Triple]:
    """(scale, bias) per channel, so that scale * grey + bias is (grey - mean) / std."""
    if len(mean) != 3 or len(std) != 3 or not all(np.isfinite(mean)) or not all(0 < s < float("inf") for s in std):
        raise InputError(f"mean and std must be 3 finite grey levels each, std positive (got mean {mean}, std {std})")
    red, green, blue = (1 / s for s in std)
    return (red, green, blue), (-mean[0] / std[0], -mean[1] / std[1], -mean[2] / std[2])


@in_words
@lru_cache(maxsize=4)
def yuv_to_rgb(matrix: YuvMatrix, value_range: YuvRange) -> tuple[float, float, float, float, float, float]:
    """(gain, black, rv, gu, gv, bu): l = gain (Y - black), R = l + rv V, G = l + gu U + gv V, B = l + bu U."""
    if matrix not in LUMA_WEIGHTS or value_range not in ("limited", "full"):
        raise InputError(
            f"yuv_matrix must be bt601 or bt709, yuv_range limited or full (got '{matrix}' and '{value_range}')"
        )
    red, blue = LUMA_WEIGHTS[matrix]
    green = 1 - red - blue
    gain, black, chroma = (255 / 219, 16.0, 255 / 224) if value_range == "limited" else (1.0, 0.0, 1.0)
    rv, bu = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    return gain, black, rv, -bu * blue / green, -rv * red / green, bu


# ---- the CUDA half ---------------------------------------------------------------------------------------------------


def _crop_on_device(
    out: Any, planes: Any, affines: Any, colours: tuple[Triple, Triple, bool], yuv: Any, stream: Any, border: int
) -> None:
    luma, chroma = planes[0], planes[1] if len(planes) == 2 else DeviceArray(0, (), (0,), UINT8)
    frame = (luma.address, chroma.address, luma.strides[0], chroma.strides[0], *luma.shape[:2])
    scale, bias, swap = colours
    count, _, height, width = out.shape
    try:
        cuda_half().crop_frame(
            out.address, frame, affines.address, count, height, width, scale, bias, swap, out.dtype == FLOAT16,
            len(planes) == 2, yuv, stream_address(stream), border,
        )  # fmt: skip
    except RuntimeError as error:
        raise DeviceError(str(error)) from error


def _decode_on_device(
    out: Any,
    axes: tuple[Any, ...],
    affines: Any,
    rules: tuple[float, int, int],
    more: Any,
    mirror: tuple[Any, ...],
    flip_shift: int,
    stream: Any,
) -> None:
    x, y, z = axes if len(axes) == 3 else (*axes, DeviceArray(0, (0, 0, 0), (0, 0, 0), FLOAT32))
    mirrored = [each.address for each in mirror] or [0, 0, 0]
    other_z = mirrored.pop(2) if len(mirrored) == 4 else 0
    _, depth, spread, second = more or (None, NO_DEPTH, None, False)
    sizes = (out.shape[0], out.shape[1], x.shape[2], y.shape[2])
    try:
        cuda_half().decode(
            out.address, x.address, y.address, affines.address, *sizes, *rules, x.dtype == FLOAT16,
            stream_address(stream), *mirrored, flip_shift, z.address, other_z, z.shape[2], depth, spread, second,
        )  # fmt: skip
    except RuntimeError as error:
        raise DeviceError(str(error)) from error

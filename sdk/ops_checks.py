"""What `sdk.ops` takes for its arguments: each check gives the array as the native code wants it, or says in words what
is wrong. No op is run here, and no frame, affines or logits are copied.

    placed = checked_affines(affines)
    target = checked_out(out, (placed.shape[0], 3, 256, 192), FLOAT32, False)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.columns import Depth, Spread
from sdk.errors import InputError
from sdk.numeric import is_whole
from sdk.ops_arrays import MAX_SIDE, Array, DeviceArray, array_from, described, in_words, is_contiguous

__all__ = [
    "FLOAT16",
    "FLOAT32",
    "NO_DEPTH",
    "UINT8",
    "checked_affines",
    "checked_frame_of",
    "checked_logits",
    "checked_mirror",
    "checked_more",
    "checked_out",
    "checked_size",
    "code_of",
    "nv12_planes",
    "packed_frame",
    "partners",
    "same_place",
]

NO_DEPTH = (0.0, False)  # of the native op, without a third axis
UINT8, INT32 = np.dtype(np.uint8), np.dtype(np.int32)
FLOAT32, FLOAT16 = np.dtype(np.float32), np.dtype(np.float16)


def code_of(name: str, value: str, codes: dict[str, int]) -> int:
    """The number by which the native op knows a rule."""
    if not isinstance(value, str) or value not in codes:
        raise InputError(f"{name} must be one of {', '.join(codes)} (got '{value}')")
    return codes[value]


def checked_size(size_hw: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a crop."""
    height, width = size_hw
    if not all(is_whole(side, 1, MAX_SIDE) for side in (height, width)):
        raise InputError(f"size_hw must be the crop's height and width, 1 to {MAX_SIDE} pixels (got {size_hw})")
    return height, width


def checked_affines(affines: Any, count: int | None = None) -> Array:
    """N x 2 x 3 float32, of `count` persons where that is known."""
    array = affines if type(affines) is np.ndarray else array_from("affines", affines)
    if array.dtype != FLOAT32 or array.ndim != 3 or array.shape[1:] != (2, 3) or count not in (None, array.shape[0]):
        rows = "N" if count is None else count
        raise InputError(f"affines must be {rows} x 2 x 3 float32, crop -> frame pixels (got {described(array)})")
    return _contiguous("affines", array)


def _contiguous(name: str, array: Array) -> Array:
    if not is_contiguous(array):
        raise InputError(f"{name} must be contiguous (got strides {array.strides}); use numpy.ascontiguousarray")
    return array


def checked_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], on_device: bool) -> Array:
    """What the op writes to: `out`, or new memory on the CPU."""
    if dtype not in (FLOAT32, FLOAT16):
        raise InputError(f"dtype must be float32 or float16 (got {dtype})")
    if out is None:
        if on_device:
            raise InputError("out must be given for arrays on a GPU: the ops allocate no device memory")
        return np.empty(shape, dtype)
    array = array_from("out", out)
    if array.shape != shape or array.dtype != dtype:
        raise InputError(f"out must be {' x '.join(map(str, shape))} {dtype} (got {described(array)})")
    if isinstance(array, np.ndarray) and isinstance(out, np.ndarray) and not array.flags.writeable:
        raise InputError("out must be writable (got a read-only array)")
    return _contiguous("out", array)


def same_place(first: Array, **others: Array) -> None:
    """InputError unless all lie where `first` does."""
    for name, other in others.items():
        if isinstance(other, DeviceArray) != isinstance(first, DeviceArray):
            raise InputError(
                f"all arrays of a call must lie in one place, the CPU's memory or one GPU's (got {described(first)} "
                f"and {name} {described(other)})"
            )


def _check_frame_size(array: Array) -> None:
    if max(array.shape[:2]) > MAX_SIDE:
        raise InputError(f"frame sides must be at most {MAX_SIDE} pixels (got {array.shape[0]} x {array.shape[1]})")


def packed_frame(frame: Any) -> Array:
    """H x W x 3 uint8, whose rows may have any stride."""
    array = frame if type(frame) is np.ndarray else array_from("frame", frame)
    if array.dtype != UINT8 or array.ndim != 3 or array.shape[2] != 3:
        raise InputError(f"frame must be H x W x 3 uint8 (got {described(array)})")
    _check_frame_size(array)
    if array.strides[1:] != (3, 1) and array.shape[0] and array.shape[1]:
        raise InputError(
            "frame must have contiguous pixels in each row; rows may have any stride "
            f"(got strides {array.strides}); use numpy.ascontiguousarray(frame)"
        )
    return array


def checked_frame_of(frame_of: Any, frames: int, crops: int, *, several: bool) -> NDArray[np.int32]:
    """N int32: which frame each crop is of."""
    if not several:
        if frame_of is not None:
            raise InputError("frame_of belongs to a list of frames (got one frame); leave it out, or give a list")
        return np.zeros(crops, np.int32)
    numbers = np.asarray(frame_of) if frame_of is not None else np.zeros(0)
    fits = numbers.shape == (crops,) and (numbers.dtype.kind in "iu" or not crops)
    if not fits or not ((numbers >= 0) & (numbers < frames)).all():
        raise InputError(
            f"frame_of must be {crops} whole numbers, one a crop, each the number of one of the {frames} frames "
            f"(got {None if frame_of is None else numbers.tolist()[:8]})"
        )
    return numbers.astype(np.int32)


def nv12_planes(frame: Any) -> tuple[Array, Array]:
    """The luma and the chroma plane of an NV12 frame, given as one array or two."""
    if isinstance(frame, tuple):
        luma, chroma = (array_from("frame", plane) for plane in frame)
    else:
        luma, chroma = _split_nv12(array_from("frame", frame))
    for plane in (luma, chroma):
        if plane.dtype != UINT8 or plane.ndim != 2 or (plane.strides[1] != 1 and 0 not in plane.shape):
            raise InputError(f"planes of an NV12 frame must be rows of contiguous uint8 (got {described(plane)})")
    height, width = luma.shape
    if height % 2 or width % 2 or chroma.shape != (height // 2, width):
        raise InputError(
            "an NV12 frame must be 3H/2 x W, or the planes H x W and H/2 x W, with even sides "
            f"(got {described(luma)} and {described(chroma)})"
        )
    _check_frame_size(luma)
    same_place(luma, chroma=chroma)
    return luma, chroma


def _split_nv12(array: Array) -> tuple[Array, Array]:
    if array.ndim != 2 or array.shape[0] % 3:
        raise InputError(f"an NV12 frame must be 3H/2 x W uint8 (got {described(array)})")
    height, width = array.shape[0] * 2 // 3, array.shape[1]
    if isinstance(array, np.ndarray):
        return array[:height], array[height:]
    chroma = array.address + height * array.strides[0]
    return (
        DeviceArray(array.address, (height, width), array.strides, array.dtype),
        DeviceArray(chroma, (height // 2, width), array.strides, array.dtype),
    )


def checked_logits(name: str, logits: Any, like: Array | None) -> Array:
    """N x K x bins; `like`: those of x, which they go with."""
    array = logits if type(logits) is np.ndarray else array_from(name, logits)
    if array.ndim != 3 or array.dtype not in (FLOAT32, FLOAT16):
        raise InputError(f"{name} must be N x K x bins, float32 or float16 (got {described(array)})")
    if like is not None and (array.shape[:2] != like.shape[:2] or array.dtype != like.dtype):
        raise InputError(
            f"{name} must agree with simcc_x in persons, joints and dtype (got {described(array)}, {described(like)})"
        )
    return _contiguous(name, array)


def checked_more(x: Array, simcc_z: Any, depth: Depth | None, spread: Spread | None, second: bool) -> Any:
    """(z, depth, spread, second) as the native op takes them; None where nothing more is asked for."""
    if simcc_z is None and depth is None and spread is None and not second:
        return None
    if (simcc_z is None) != (depth is None):
        raise InputError("simcc_z and depth must come together: the third axis, and what its bins stand for")
    if second and spread is None:
        raise InputError("second must come with spread, whose sharpness says how likely a second peak is")
    z: Any = None
    if simcc_z is not None:
        z = checked_logits("simcc_z", simcc_z, x)
        if z.shape[2] == 0:
            raise InputError("simcc_z must have at least one bin (got none)")
        same_place(x, simcc_z=z)
    rule = None if spread is None else (spread.sharpness, spread.gain, spread.curve, spread.floor)
    return z, NO_DEPTH if depth is None else (depth.span, depth.pixels), rule, second


def checked_mirror(flipped: tuple[Any, ...], flip_pairs: Any, axes: tuple[Array, ...]) -> tuple[Array, ...]:
    """The mirrored logits of each axis, and the joints' partners."""
    if len(flipped) != len(axes):
        raise InputError(f"flipped must hold the mirrored crops' logits of all {len(axes)} axes (got {len(flipped)})")
    mirrored: list[Array] = []
    for index, (logits, like) in enumerate(zip(flipped, axes, strict=True)):
        array = checked_logits(f"flipped[{index}]", logits, like)
        if array.shape != like.shape:
            raise InputError(
                f"flipped[{index}] must have the shape {like.shape} of the other crops' logits (got {array.shape})"
            )
        same_place(axes[0], **{f"flipped[{index}]": array})
        mirrored.append(array)
    if flip_pairs is None:
        raise InputError("flip_pairs must be given with flipped: the pairs of joints that change places when mirrored")
    joints = axes[0].shape[1]
    if isinstance(axes[0], np.ndarray):
        return (*mirrored, partners(tuple((a, b) for a, b in flip_pairs), joints))
    partner = array_from("flip_pairs", flip_pairs)
    if partner.dtype != INT32 or partner.shape != (joints,) or not isinstance(partner, DeviceArray):
        raise InputError(
            f"flip_pairs must be ops.partners(pairs, {joints}) copied to the GPU (got {described(partner)})"
        )
    return (*mirrored, partner)


@in_words
@lru_cache(maxsize=64)
def partners(flip_pairs: tuple[tuple[int, int], ...], joints: int) -> NDArray[np.int32]:
    """K int32: the joint that each joint becomes when mirrored. Read-only, as it is shared by all callers."""
    partner = np.arange(joints, dtype=np.int32)
    for a, b in flip_pairs:
        if not all(is_whole(joint, 0, joints - 1) for joint in (a, b)):
            raise InputError(f"flip_pairs must join joints of 0..{joints - 1} (got [{a}, {b}])")
        partner[a], partner[b] = b, a
    partner.flags.writeable = False
    return partner

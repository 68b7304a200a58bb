"""What a frame must be, checked in one place; what is wrong with one is said in words. No pixel is changed here.

frame = check_frame(cv2.imread("street.jpg"))          # uint8 H x W x 3, rows of any stride
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sdk.errors import InputError
from sdk.ops_arrays import MAX_SIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Frame = NDArray[np.uint8]

__all__ = ["PIXEL_FORMATS", "PixelFormat", "bgr_from_frame", "check_frame", "crop_options", "of_frame", "size_hw_of"]

PixelFormat = Literal["bgr", "rgb", "nv12", "nv12-full", "nv12-bt709", "nv12-bt709-full"]
PIXEL_FORMATS: Mapping[str, Mapping[str, str]] = {  # name -> options of `sdk.ops.crop`
    "bgr": {"pixel_format": "bgr"},
    "rgb": {"pixel_format": "rgb"},
    "nv12": {"pixel_format": "nv12", "yuv_matrix": "bt601", "yuv_range": "limited"},
    "nv12-full": {"pixel_format": "nv12", "yuv_matrix": "bt601", "yuv_range": "full"},
    "nv12-bt709": {"pixel_format": "nv12", "yuv_matrix": "bt709", "yuv_range": "limited"},
    "nv12-bt709-full": {"pixel_format": "nv12", "yuv_matrix": "bt709", "yuv_range": "full"},
}


def crop_options(pixel_format: str) -> Mapping[str, Any]:
    """The options of `sdk.ops.crop` for frames of this format; InputError lists the formats."""
    if pixel_format not in PIXEL_FORMATS:
        raise InputError(f"pixel_format must be one of {', '.join(PIXEL_FORMATS)} (got {pixel_format!r})")
    return PIXEL_FORMATS[pixel_format]


def check_frame(frame: object, pixel_format: str = "bgr") -> Frame:
    """`frame` as uint8 H x W x 3 (or H * 3/2 x W for NV12) with whole rows; a copy only where pixels are strided."""
    if frame is None:
        raise InputError("frame is None; cv2.imread and VideoCapture.read give None for what they cannot read")
    if not isinstance(frame, np.ndarray):
        raise InputError(
            f"frame must be a numpy array, uint8 (got {type(frame).__name__}); cv2.imread reads one from a file, a PIL "
            "image becomes one by np.asarray(image.convert('RGB'))[:, :, ::-1]"
        )
    if frame.dtype != np.uint8:
        raise InputError(
            f"frame must be uint8 with grey levels 0..255 (got {frame.dtype}); "
            "convert a float frame of 0..1 by (frame * 255).round().astype(np.uint8)"
        )
    if pixel_format.startswith("nv12"):
        _check_nv12_shape(frame)
    else:
        _check_packed_shape(frame)
    if max(frame.shape[:2]) > MAX_SIDE:
        raise InputError(f"frame must be at most {MAX_SIDE} pixels a side (got {frame.shape}); scale it down")
    frame = np.asarray(frame)  # of a subclass, the plain array
    whole_rows = frame.strides[1:] == ((3, 1) if frame.ndim == 3 else (1,))
    return frame if whole_rows else np.ascontiguousarray(frame)


def size_hw_of(frame: Any, pixel_format: str = "bgr") -> tuple[int, int]:
    """Height and width in pixels of a checked frame, or of one in device memory."""
    shape = getattr(frame, "shape", None)
    height, width = (frame.__cuda_array_interface__["shape"] if shape is None else shape)[:2]
    return (int(height) * 2 // 3, int(width)) if pixel_format.startswith("nv12") else (int(height), int(width))


@contextmanager
def of_frame(index: int) -> Iterator[None]:
    """Says of what is wrong which frame of the list it is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"frame {index}: {error}") from error


def bgr_from_frame(frame: Frame, pixel_format: str = "bgr") -> Frame:
    """H x W x 3 BGR of a checked frame, for detectors and drawing; NV12 by OpenCV's BT.601."""
    if pixel_format == "bgr":
        return frame
    if pixel_format == "rgb":
        return np.ascontiguousarray(frame[:, :, ::-1])
    import cv2

    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_NV12), np.uint8)


def _check_packed_shape(frame: Frame) -> None:
    if frame.size == 0:
        raise InputError(f"frame is empty (shape {frame.shape}); it must have at least one pixel")
    if frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 1):
        nv12 = "; an NV12 frame needs pixel_format='nv12'" if _is_like_nv12(frame) else ""
        raise InputError(
            f"frame is grey (shape {frame.shape}); it must be H x W x 3 BGR: "
            f"cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR){nv12}"
        )
    if frame.ndim == 3 and frame.shape[2] == 4:
        raise InputError(
            f"frame has four channels (shape {frame.shape}); it must be H x W x 3 BGR: "
            "cv2.cvtColor(frame, cv2.COLOR_BGRA2BGR)"
        )
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise InputError(f"frame must have the shape H x W x 3, BGR (got {frame.shape})")


def _check_nv12_shape(frame: Frame) -> None:
    if not _is_like_nv12(frame):
        raise InputError(
            f"an NV12 frame must have the shape (H * 3 / 2) x W with H and W even (got {frame.shape}): "
            "H rows of luma, then H / 2 rows of interleaved chroma"
        )


def _is_like_nv12(frame: Frame) -> bool:
    return frame.ndim == 2 and frame.size > 0 and frame.shape[0] % 3 == 0 and frame.shape[1] % 2 == 0

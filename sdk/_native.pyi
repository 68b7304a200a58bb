"""Stub of the native extension (cpp_ext/). `sdk.ops` is its face; tests/test_ops_stub.py holds the two together."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_Triple = tuple[float, float, float]
_Depth = tuple[float, bool]  # span, in pixels
_Spread = tuple[float, float, float, float]  # sharpness, gain, curve, floor
_Yuv = tuple[float, float, float, float, float, float]
_Table = tuple[int, int, int, int, bool, int]  # address, rows, columns, first column, rows first, type
_Part = tuple[NDArray[Any], int, bool]  # M x C or C x M, first column, rows first
_Floats = NDArray[np.float32]
_Persons = tuple[_Floats, _Floats, _Floats]  # boxes N x 4 xyxy, keypoints N x K x 2, scores N x K
_Tracks = tuple[_Floats, _Floats, _Floats, _Floats, NDArray[np.int64]]  # the same of M, steps M x 2, missed M

def crop(
    out: NDArray[Any],  # N x 3 x h x w, float32 or float16
    frames: list[NDArray[np.uint8]],  # H x W x 3 each
    frame_of: NDArray[np.int32],  # N: which of the frames each crop is of
    affines: NDArray[np.float32],  # N x 2 x 3
    scale: _Triple,
    bias: _Triple,
    swap: bool,
    border: int = 0,
) -> None: ...
def crop_nv12(
    out: NDArray[Any],  # N x 3 x h x w, float32 or float16
    frames: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]],  # luma H x W and chroma H/2 x W each
    frame_of: NDArray[np.int32],  # N
    affines: NDArray[np.float32],  # N x 2 x 3
    scale: _Triple,
    bias: _Triple,
    swap: bool,
    yuv: _Yuv,
    border: int = 0,
) -> None: ...
def decode(
    out: NDArray[np.float32],  # N x K x C
    x: NDArray[Any],  # N x K x Wx
    y: NDArray[Any],  # N x K x Hy
    affines: NDArray[np.float32],  # N x 2 x 3
    split_ratio: float,
    score: int,
    refine: int,
    z: NDArray[Any] | None = None,  # N x K x Wz
    depth: _Depth = (0.0, False),
    spread: _Spread | None = None,
    second: bool = False,
    mirrored_x: NDArray[Any] | None = None,  # N x K x Wx
    mirrored_y: NDArray[Any] | None = None,  # N x K x Hy
    mirrored_z: NDArray[Any] | None = None,  # N x K x Wz
    partner: NDArray[np.int32] | None = None,  # K
    flip_shift: int = 0,
) -> None: ...
def detections(
    boxes_out: NDArray[np.float32],  # most x 4
    scores_out: NDArray[np.float32],  # most
    boxes: _Part,
    scores: _Part,
    labels: _Part | None,
    rules: tuple[Any, ...],  # `sdk::DetectionRules` in cpp_ext/checks.h
    size_hw: tuple[int, int],
    place: tuple[float, float, float, float, float, float],  # scale and shift of x, of y, frame's width and height
    threshold: float,
    iou: float,
) -> int: ...  # how many were found
def check_boxes(
    out: NDArray[np.float32],  # N x 4
    boxes: NDArray[Any],  # N x 4, any integers or floats of up to 64 bits
) -> tuple[int, int]: ...  # fault (0: none; see sdk.geometry) and row of the first bad box
def place_boxes(
    out: NDArray[np.float32],  # N x 4
    affines: NDArray[np.float32],  # N x 2 x 3
    boxes: NDArray[Any],  # N x 4
    size_hw: tuple[int, int],
    padding: float,
) -> tuple[int, int]: ...  # as of check_boxes
def affines_from_boxes(
    out: NDArray[np.float32],  # N x 2 x 3
    boxes: NDArray[Any],  # N x 4
    size_hw: tuple[int, int],
    padding: float,
) -> None: ...
def box_iou(
    out: NDArray[np.float32],  # N x M
    first: NDArray[np.float32],  # N x 4
    second: NDArray[np.float32],  # M x 4
) -> None: ...
def most_rows(
    out: NDArray[np.int64],  # as many as are wanted, at most N
    boxes: NDArray[np.float32],  # N x 4
    scores: NDArray[np.float32],  # N
    before: NDArray[np.float32],  # M x 4
    least: float,
) -> None: ...
def boxes_around(
    out: NDArray[np.float32],  # N x 4
    keypoints: NDArray[np.float32],  # N x K x 2
    counted: NDArray[np.bool_],  # N x K
    margin: float,
) -> None: ...
def pair_persons(
    track_of: NDArray[np.int32],  # N, written: -1 for nobody's
    persons: _Persons,
    tracks: _Tracks,
    kernels: NDArray[np.float64],  # K
    area_share: float,
    fair: float,
    least: float,
) -> int: ...  # how many persons are one of the tracks
def see_persons(
    tracks: _Tracks,  # written
    persons: _Persons,
    track_of: NDArray[np.int32],  # N
) -> int: ...  # the most frames in a row that a track was missed for
def plan_transfer(
    affines: NDArray[np.float32],  # N x 2 x 3
    size_hw: tuple[int, int],
    frame_hw: tuple[int, int],
    nv12: bool,
    page_locked: bool,
    costs: tuple[float, float, float, float, float, float],  # as in cpp_ext/host/packing.h
) -> tuple[
    int, list[tuple[int, int, int, int]], int, int, float
]: ...  # way, regions, bytes by the host, bands, seconds
def merge_peaks(a: tuple[float, int, float], b: tuple[float, int, float]) -> tuple[float, int, float]: ...
def threads() -> int: ...
def set_threads(count: int) -> None: ...
def instruction_set() -> str: ...
def set_instruction_set(name: str) -> None: ...
def end_within(seconds: float) -> None: ...

class _Graph:
    kernels: int  # that one launch starts
    def launch(self, stream: int) -> None: ...
    def destroy(self) -> None: ...

class _Mark:
    """What a stream was given until it was made."""

    def hold_up(self, stream: int) -> None: ...
    def destroy(self) -> None: ...

class _Flight:
    """One lane's calls, see cpp_ext/cuda/flight.h. Addresses are integers."""

    def __init__(
        self,
        records: int,
        affines: int,
        joints: int,
        max_batch: int,
        person_floats: int,
        height: int,
        width: int,
        padding: float,
        nv12: bool,
        shares_memory: bool,
        stream: int,
    ) -> None: ...
    def run(
        self,
        frames: list[Any],  # arrays of the host, or (data, chroma, stride, chroma stride, height, width) on the device
        placed: NDArray[Any],  # N x 4 boxes, or N x 2 x 3 affines
        checked: NDArray[np.float32] | None,  # N x 4: the boxes as float32
        frame_of: NDArray[np.int32] | None,  # N
        bucket: int,
        flip: bool,
        graph: _Graph | None,
        joints: NDArray[np.float32] | None,  # N x K x columns
        seconds: float,
        then: _Graph | None = None,  # launched behind the other
    ) -> int: ...
    def set_room(self, staging: int, device: int, bytes: int) -> None: ...
    def set_costs(self, costs: tuple[float, float, float, float, float, float]) -> None: ...
    def bad_box(self) -> tuple[int, int]: ...
    def wanted(self) -> tuple[int, bool]: ...  # bytes, and whether the host packs some of them
    def spent_ms(self) -> tuple[float, float, float, float]: ...
    def ways(self) -> int: ...

class _Cuda:
    """The submodule `cuda`. Addresses and streams are integers."""

    ARCHITECTURES: str
    COMPILER: str  # nvcc's version, as in "13.5.37"
    TOOLKIT: str  # the CUDA runtime's, as in "13.5"
    Flight: type[_Flight]
    Graph: type[_Graph]
    Mark: type[_Mark]

    def crop(
        self,
        out: int,
        frames: int,  # N frame records
        affines: int,
        count: int,
        height: int,
        width: int,
        scale: _Triple,
        bias: _Triple,
        swap: bool,
        half: bool,
        nv12: bool,
        yuv: _Yuv,
        stream: int,
        border: int = 0,
    ) -> None: ...
    def crop_frame(
        self,
        out: int,
        frame: tuple[int, int, int, int, int, int],  # data, chroma, stride, chroma stride, height, width
        affines: int,
        count: int,
        height: int,
        width: int,
        scale: _Triple,
        bias: _Triple,
        swap: bool,
        half: bool,
        nv12: bool,
        yuv: _Yuv,
        stream: int,
        border: int = 0,
    ) -> None: ...
    def decode(
        self,
        out: int,
        x: int,
        y: int,
        affines: int,
        count: int,
        joints: int,
        x_bins: int,
        y_bins: int,
        split_ratio: float,
        score: int,
        refine: int,
        half: bool,
        stream: int,
        mirrored_x: int = 0,
        mirrored_y: int = 0,
        partner: int = 0,
        flip_shift: int = 0,
        z: int = 0,
        mirrored_z: int = 0,
        z_bins: int = 0,
        depth: _Depth = (0.0, False),
        spread: _Spread | None = None,
        second: bool = False,
    ) -> None: ...
    def detections(
        self,
        found: tuple[int, int, int, int],  # count, boxes, scores, scratch: 8 bytes a row
        boxes: _Table,
        scores: _Table,
        labels: _Table | None,
        rules: tuple[Any, ...],
        size_hw: tuple[int, int],
        place: int,  # 6 floats: scale and shift of x, of y, the frame's width and height
        threshold: float,
        iou: float,
        most: int,
        crops: tuple[int, int, int, int, int, int, int, float]
        | None,  # records, affines, mirrored, N, record, h, w, padding
        stream: int,
    ) -> None: ...
    def graph_begin(self, stream: int) -> None: ...
    def graph_end(self, stream: int) -> _Graph: ...
    def graph_abort(self, stream: int) -> None: ...
    def mark(self, stream: int) -> _Mark: ...
    def finished(self, stream: int, seconds: float) -> bool: ...
    def mapped(self, host: int, size: int) -> int: ...

MAX_THREADS: int
WITHOUT_CUDA: str  # why there is no CUDA half, in words; empty where there is one
cuda: _Cuda | None

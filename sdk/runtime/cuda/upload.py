"""How a frame becomes readable on the device: uploaded in place, read where it is, or shared with the host.

Of a host frame only what the crops will read is moved, by whichever of three ways the planner finds cheapest; it lands
where it lies in the frame, so the crop sees a whole frame. A device frame, and a pinned one on a Jetson, is not moved.

    upload = FrameUpload(device, kernels, stream, (256, 192), nv12=False)
    brought = upload.bring(frame, affines)           # brought.record says where the crop finds it
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdk.runtime.cuda.bandwidth import rows_copy, transfer_costs
from sdk.runtime.cuda.context import DeviceContext
from sdk.runtime.cuda.device_frames import DeviceFrame, check_device_frame, device_frame, is_device_array
from sdk.runtime.cuda.kernels import Kernels, frame_record
from sdk.runtime.cuda.memory import DeviceMemory, PinnedArray
from sdk.runtime.cuda.planner import FrameLayout, Rect, Transfer, choose_transfer, sampled_regions

__all__ = ["Brought", "FrameUpload", "taken_over"]

log = logging.getLogger(__name__)

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Brought:
    """A frame on its way: the record for the crop, how it was moved, and what must stay alive until it was read."""

    record: bytes
    transfer: str
    owner: object


def taken_over(device: DeviceContext, kernels: Kernels, frame: Any, stream: int, *, nv12: bool) -> DeviceFrame:
    """A checked frame in device memory. What its producer still does to it, `stream` waits for, or is in `ready`."""
    found = device_frame(frame, stream, device.index)
    check_device_frame(found.array, nv12=nv12)
    device.check_memory(found.array.address)
    if found.producer_stream is None:
        return found
    return replace(found, producer_stream=None, ready=kernels.mark(found.producer_stream))


class FrameUpload:
    """One lane's frame buffers. The device's context must be entered for every method."""

    def __init__(
        self, device: DeviceContext, kernels: Kernels, stream: Any, size_hw: tuple[int, int], *, nv12: bool
    ) -> None:
        self.device = device
        self.kernels = kernels
        self.stream = stream
        self.size_hw = size_hw
        self.nv12 = nv12
        self._frame: DeviceMemory | None = None
        self._staging: PinnedArray | None = None
        self._transfer = ""  # the latest choice; a new one is logged

    def bring(self, frame: Any, affines: Float32Array) -> Brought:  # affines N x 2 x 3
        """Make a checked frame readable on the device: copies are put on the stream, none is waited for."""
        if is_device_array(frame):
            return self._in_place(frame)
        layout = self._layout_of(frame.shape)
        rows = frame.reshape(layout.rows, layout.row_bytes) if frame.ndim == 3 else frame
        mapped = self._mapped(rows)
        if mapped and self.device.integrated:
            return Brought(self._record(mapped, rows.strides[0], layout), "none: shared memory", frame)
        base = self._frame_memory(layout)
        costs = transfer_costs(self.device)
        regions = sampled_regions(affines, self.size_hw, (layout.height, layout.width))
        chosen = choose_transfer(regions, layout, costs, pinned=mapped != 0)
        if chosen.kind != self._transfer:
            self._transfer = chosen.kind
            log.debug(
                "frames of %d x %d go to cuda:%d as '%s': %d bytes, %.0f us by the model",
                layout.height, layout.width, self.device.index, chosen.kind, chosen.size_bytes, 1e6 * chosen.seconds,
            )  # fmt: skip
        self._upload(rows, layout, chosen, pinned=mapped != 0)
        return Brought(self._record(base, layout.row_bytes, layout), chosen.kind, frame)

    def free(self) -> None:
        """Free the frame buffers, and let go of the stream, which PyCUDA must destroy with the context entered."""
        for memory in (self._frame, self._staging):
            if memory is not None:
                memory.free()
        self._frame = self._staging = None
        del self.stream

    def abandon(self) -> None:
        for memory in (self._frame, self._staging):
            if memory is not None:
                memory.abandon()

    def _mapped(self, rows: NDArray[np.uint8]) -> int:
        """The device's address of a frame in page-locked memory; 0 for a pageable frame, and for one upside down."""
        pitch = rows.strides[0]
        return self.kernels.mapped(rows.ctypes.data, pitch * (len(rows) - 1) + rows.shape[1]) if pitch > 0 else 0

    def _layout_of(self, shape: tuple[int, ...]) -> FrameLayout:
        return FrameLayout(shape[0] * 2 // 3 if self.nv12 else shape[0], shape[1], self.nv12)

    def _record(self, base: int, stride: int, layout: FrameLayout) -> bytes:
        chroma = base + layout.height * stride if layout.nv12 else 0
        return frame_record(base, chroma, stride, stride if layout.nv12 else 0, layout.height, layout.width)

    def _in_place(self, frame: Any) -> Brought:
        found = taken_over(self.device, self.kernels, frame, int(self.stream.handle), nv12=self.nv12)
        if found.ready is not None:
            found.ready.hold_up(int(self.stream.handle))
        array = found.array
        record = self._record(array.address, array.strides[0], self._layout_of(array.shape))
        return Brought(record, "none: on the device", found.owner)

    def _frame_memory(self, layout: FrameLayout) -> int:
        """The address of a buffer that holds the frame; it grows with the largest frame and never shrinks."""
        if self.device.integrated:
            return self._staging_for(layout).device_pointer
        if self._frame is None or self._frame.size_bytes < layout.size_bytes:
            if self._frame is not None:
                self._frame.free()
                self._frame = None
            self._frame = DeviceMemory(self.device, layout.size_bytes, "hold a frame")
        return self._frame.pointer

    def _staging_for(self, layout: FrameLayout) -> PinnedArray:
        if self._staging is None or self._staging.array.size < layout.size_bytes:
            if self._staging is not None:
                self._staging.free()
                self._staging = None
            self._staging = PinnedArray(self.device, (layout.size_bytes,), np.uint8, "stage a frame")
        return self._staging

    def _upload(
        self,
        rows: NDArray[np.uint8],  # the frame as rows of bytes
        layout: FrameLayout,
        transfer: Transfer,
        *,
        pinned: bool,
    ) -> None:
        source, pitch = rows, rows.strides[0]
        if not pinned:
            source = self._staging_for(layout).array[: layout.size_bytes].reshape(layout.rows, layout.row_bytes)
            pitch = layout.row_bytes
        for rect in transfer.pieces:
            part = _part(source, rect)
            if not pinned:
                np.copyto(part, _part(rows, rect))
            if not self.device.integrated:
                self._copy(part, pitch, rect, layout)

    def _copy(self, part: NDArray[np.uint8], pitch: int, rect: Rect, layout: FrameLayout) -> None:
        if self._frame is None:
            raise AssertionError("a frame is copied before there is memory for it")
        target = self._frame.pointer + rect.top * layout.row_bytes + rect.left
        if part.flags.c_contiguous:
            self.device.driver.memcpy_htod_async(target, part, self.stream)
        else:
            driver, row_bytes = self.device.driver, layout.row_bytes
            rows_copy(driver, part, pitch, target, row_bytes, rect.rows, rect.row_bytes)(self.stream)


def _part(rows: NDArray[np.uint8], rect: Rect) -> NDArray[np.uint8]:
    return rows[rect.top : rect.bottom, rect.left : rect.right]
